"""How long a change of the operating point holds up a thread that detects without a pause.

Without ROS. Goes round one resolution more than an engine holds, so that it builds at each change;
then to and fro between the last two, which it keeps. Prints the largest gap between two pictures at
a change by the usual gap, that of the slower of the two operating points; and how many pictures
took that much longer at changes and how many between them, where a change has no part in it. Of
these it says in how many the thread had a core all the while and got no new memory, so that by all
that a program can see the core itself was slow.

    python benchmarks/switching.py [--models FOLDER] [--alpha 0.5] [--switches 12] [--wide] [--trim]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections import defaultdict
from dataclasses import replace
from itertools import chain, cycle, islice, pairwise
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

from mbnet_perception.core.allocator import return_memory
from mbnet_perception.core.detections import Selection
from mbnet_perception.core.images import Picture
from mbnet_perception.inference.benchmark import drive_pictures
from mbnet_perception.inference.engine import KEPT, Engine
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

REST = 0.7  # seconds between two changes
LARGEST_GAP = 1.5  # times the usual one; more is beyond the aim (docs/decisions.md)
OWN_CORE = 0.95  # share of a gap; with less, the thread has waited for something
FEW_FAULTS = 10  # pages of new memory, microseconds in all


class Done(NamedTuple):
    """What the thread has seen at the end of a picture: seconds, twice, and pages."""

    time: float
    worked: float
    faults: int


class Gap(NamedTuple):
    """From the end of one picture to that of the next, in seconds."""

    length: float
    had_core: bool  # all the while, and got no new memory


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="folder with the model (the installed one)")
    parser.add_argument(
        "--alpha", type=float, default=OperatingPoint.alpha, help="of the model (%(default)s)"
    )
    parser.add_argument("--switches", type=int, default=12, help="of each kind (%(default)s)")
    parser.add_argument("--wide", action="store_true", help="pictures of 16:9 instead of 4:3")
    parser.add_argument("--trim", action="store_true", help="give memory back after each change")
    args = parser.parse_args()
    library, point = ModelLibrary(args.models), OperatingPoint(alpha=args.alpha)
    sizes = sorted(library.find(point).resolutions)[-KEPT - 2 :]
    if len(sizes) < KEPT + 2:
        parser.error(f"expected a model of {KEPT + 2} resolutions, got {sizes}")
    points = [replace(point, resolution=size) for size in sizes]
    route = [points[-1], *islice(cycle(points), args.switches)]
    route += islice(cycle(route[-2:]), args.switches)
    engine = Engine(library, route[0])
    rows = slice(60, 420) if args.wide else slice(None)
    pictures, selection = [Picture.of_bgr(bgr[rows]) for bgr in drive_pictures()], Selection()
    done: list[Done] = []
    stop = Event()

    def detect() -> None:
        while not stop.is_set():
            engine.detector.detect(pictures[len(done) % len(pictures)], selection)
            faults = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
            done.append(Done(time.monotonic(), time.thread_time(), faults))

    thread = Thread(target=detect)
    thread.start()
    time.sleep(REST)
    spans = []
    for to in route[1:]:
        begun = time.monotonic()
        engine.switch(to)
        if args.trim:
            return_memory()
        spans.append((begun, time.monotonic()))
        time.sleep(REST)
    stop.set()
    thread.join()

    usual: dict[OperatingPoint, list[Gap]] = defaultdict(list)
    at_changes: dict[int, list[Gap]] = defaultdict(list)
    for a, b in pairwise(done):
        length = b.time - a.time
        worked = b.worked - a.worked > OWN_CORE * length
        gap = Gap(length, worked and b.faults - a.faults < FEW_FAULTS)
        touched = [i for i, (begun, end) in enumerate(spans) if a.time <= end and b.time >= begun]
        for i in touched:
            at_changes[i].append(gap)
        if not touched:
            usual[route[sum(ended < a.time for _, ended in spans)]].append(gap)
    medians = {at: statistics.median(gap.length for gap in gaps) for at, gaps in usual.items()}
    ratios = [
        [
            gap._replace(length=gap.length / max(medians[there], medians[here]))
            for gap in at_changes[i]
        ]
        for i, (there, here) in enumerate(pairwise(route))
    ]
    for at, length in medians.items():
        print(f"usual gap at {at.resolution}: {1e3 * length:.1f} ms")
    for kind, part, took in (
        ("built", ratios[: args.switches], spans[: args.switches]),
        ("kept", ratios[args.switches :], spans[args.switches :]),
    ):
        milliseconds = statistics.median(1e3 * (ended - begun) for begun, ended in took)
        largest = [max(of_one).length for of_one in part]
        print(
            f"{kind:5}: largest gap at a change, by the usual: "
            f"median {statistics.median(largest):.2f}, worst {max(largest):.2f}; "
            f"{tell_beyond([*chain.from_iterable(part)])}; a change takes {milliseconds:.1f} ms"
        )
    rest = [
        gap._replace(length=gap.length / medians[at]) for at, gaps in usual.items() for gap in gaps
    ]
    print(f"between changes: worst {max(rest).length:.2f}; {tell_beyond(rest)}")


def tell_beyond(ratios: list[Gap]) -> str:
    """How many pictures took too much longer than usual."""
    beyond = [gap.had_core for gap in ratios if gap.length > LARGEST_GAP]
    had_core = f", {sum(beyond)} of these with a core all the while" if beyond else ""
    return f"{len(beyond)} of {len(ratios)} beyond {LARGEST_GAP}{had_core}"


if __name__ == "__main__":
    main()

"""How long a change of the operating point holds up a thread that detects without a pause.

Without ROS. Changes the resolution to and fro, and prints the largest gap between two pictures at
each change by the usual gap.

    python benchmarks/switching.py [--models FOLDER] [--alpha 0.5] [--switches 12]
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread

from mbnet_perception.core.detections import Selection
from mbnet_perception.core.images import Picture
from mbnet_perception.inference.benchmark import drive_pictures
from mbnet_perception.inference.engine import Engine
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

REST = 0.7  # seconds between two changes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="folder with the model (the installed one)")
    parser.add_argument(
        "--alpha", type=float, default=OperatingPoint.alpha, help="of the model (%(default)s)"
    )
    parser.add_argument("--switches", type=int, default=12, help="how many (%(default)s)")
    args = parser.parse_args()
    point = OperatingPoint(alpha=args.alpha)
    points = (replace(point, resolution=288), point)
    engine = Engine(ModelLibrary(args.models), point)
    pictures, selection = [Picture.of_bgr(bgr) for bgr in drive_pictures()], Selection()
    done: list[float] = []
    stop = Event()

    def detect() -> None:
        while not stop.is_set():
            engine.detector.detect(pictures[len(done) % len(pictures)], selection)
            done.append(time.monotonic())

    thread = Thread(target=detect)
    thread.start()
    time.sleep(REST)
    spans = []
    for count in range(args.switches):
        begun = time.monotonic()
        engine.switch(points[count % 2])
        spans.append((begun, time.monotonic()))
        time.sleep(REST)
    stop.set()
    thread.join()

    def touches(gap: tuple[float, float]) -> list[int]:
        return [i for i, (begun, ended) in enumerate(spans) if gap[0] <= ended and gap[1] >= begun]

    usual = statistics.median(b - a for a, b in pairwise(done) if not touches((a, b)))
    largest = [0.0] * len(spans)
    for a, b in pairwise(done):
        for index in touches((a, b)):
            largest[index] = max(largest[index], b - a)
    print(f"usual gap {1e3 * usual:.1f} ms")
    print(
        f"largest at a change, by the usual: median {statistics.median(largest) / usual:.2f}, "
        f"worst {max(largest) / usual:.2f}"
    )


if __name__ == "__main__":
    main()

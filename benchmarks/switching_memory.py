"""How the memory of a process grows with changes of the operating point.

Run: python benchmarks/switching_memory.py; with --kept 0 for what it is without the detectors that
an engine keeps, with --apart where each session has an allocator of its own, with --threads where
each change is made by a thread of its own, and with --trim where memory is given back after each.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from threading import Thread

import mbnet_perception.inference.detector as detector_module
import mbnet_perception.inference.engine as engine_module
from mbnet_perception.core.allocator import return_memory
from mbnet_perception.inference.benchmark import memory_of
from mbnet_perception.inference.engine import Engine
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

SHAPES = ((480, 640), (360, 640), (480, 848), (720, 1000))  # height and width


def main() -> None:
    """Switch round and round, and print the memory now and then."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--switches", type=int, default=200)
    parser.add_argument("--models", type=Path, help="folder of the models (the installed one)")
    parser.add_argument(
        "--kept",
        type=int,
        default=engine_module.KEPT,
        help="detectors beside the one that runs (%(default)s)",
    )
    parser.add_argument(
        "--shapes", type=int, default=1, help="of cameras that were seen (%(default)s)"
    )
    parser.add_argument("--apart", action="store_true", help="sessions do not share memory")
    parser.add_argument("--threads", action="store_true", help="a new thread for each change")
    parser.add_argument("--trim", action="store_true", help="give memory back after each change")
    args = parser.parse_args()
    engine_module.KEPT = args.kept
    detector_module.LONGEST_WAIT = 0.001  # nobody detects
    if args.apart:
        detector_module._share_memory = lambda options: None
    library = ModelLibrary(args.models)
    points = [
        OperatingPoint(entry.backbone, entry.alpha, resolution, entry.precision)
        for entry in library.entries
        for resolution in entry.resolutions
    ]
    engine = Engine(library, points[0])
    for size in SHAPES[: args.shapes]:
        engine.detector.warm(size)
    print(f"{'switches':>8} {'MB':>6}")
    for count, point in enumerate(itertools.islice(itertools.cycle(points), args.switches + 1)):
        if count:
            switch = Thread(target=engine.switch, args=(point,))
            if args.threads:
                switch.start()
                switch.join()
            else:
                switch.run()
        if args.trim:
            return_memory()
        if count % max(1, args.switches // 5) == 0:
            print(f"{count:8} {memory_of() / 1e6:6.0f}", flush=True)


if __name__ == "__main__":
    main()

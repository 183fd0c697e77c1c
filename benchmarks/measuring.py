"""What it costs to keep the accounts of a frame, against the frame itself.

Books frames as the node does: stamps are judged, clocks are read, the ledger and the latency window
are written, and once a second the window of 300 frames is summarised. Prints microseconds (median)
of each of these for one frame, and their share of what the detector takes for one. The node's
clock stands for rclpy's, which takes about a microsecond more at each of two readings.

    python benchmarks/measuring.py [--alpha 0.5] [--resolution 320] [--rate 30] [--threads 0]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import count

from mbnet_perception.core.detections import Selection
from mbnet_perception.core.images import Picture
from mbnet_perception.core.latency import LatencyWindow
from mbnet_perception.core.ledger import FrameLedger
from mbnet_perception.core.scene import DrivingScene
from mbnet_perception.core.stamps import StampClock
from mbnet_perception.inference.detector import Detector
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

SIZE = (640, 480)
STAGES = (
    "transport",
    "wait",
    "decode",
    "preprocess",
    "inference",
    "postprocess",
    "publish",
    "stamp_to_publish",
)
FRAMES = 300  # in the window
ROUNDS = 15
READINGS = 6  # of the monotonic clock for each frame


def median_us(task: Callable[[], object], times: int) -> float:
    """Microseconds that a task takes: the median of several rounds of so many."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(times):
            task()
        rounds.append((time.perf_counter() - start) / times)
    return 1e6 * statistics.median(rounds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--alpha", type=float, default=0.5, help="of the model (%(default)s)")
    parser.add_argument("--resolution", type=int, default=320, help="of its input (%(default)s)")
    parser.add_argument("--rate", type=float, default=30, help="frames a second (%(default)s)")
    parser.add_argument(
        "--threads", type=int, default=0, help="0: one less than cores (%(default)s)"
    )
    args = parser.parse_args()

    ledger, clock, window = FrameLedger(), StampClock(False), LatencyWindow(STAGES, FRAMES)
    stamps = count(time.time_ns(), round(1e9 / args.rate))
    durations = {stage: 0.001 * (1 + i) for i, stage in enumerate(STAGES)}
    ats = count()

    def judge() -> None:
        for _ in ("arrival", "publication"):
            now = time.time_ns()
            clock.observe(now, time.monotonic())
            clock.age(now - 10**7, now)

    def read_clocks() -> None:
        for _ in range(READINGS):
            time.monotonic()

    def book() -> None:
        ledger.receive(None, next(stamps))
        ledger.settle("processed")

    def add() -> None:
        window.add(next(ats), dict(durations))

    costs = {
        "stamps": median_us(judge, 2000),
        "clocks": median_us(read_clocks, 2000),
        "ledger": median_us(book, 2000),
        "window": median_us(add, 2000),
        "summary": median_us(window.summarise, 50) / args.rate,
    }
    library = ModelLibrary()
    point = OperatingPoint(alpha=args.alpha, resolution=args.resolution)
    detector = Detector(library.read(library.find(point)), args.resolution, args.threads)
    picture, selection = Picture.of_bgr(DrivingScene(58, SIZE).render(1.0)[0]), Selection()
    detector.warm(SIZE[::-1])
    frame = median_us(lambda: detector.detect(picture, selection), 20)

    for name, cost in costs.items():
        print(f"{name:<10}{cost:10.2f} us")
    total = sum(costs.values())
    print(f"{'measuring':<10}{total:10.2f} us   {100 * total / frame:.3f} % of a frame")
    print(f"{'frame':<10}{frame:10.0f} us   {point}")


if __name__ == "__main__":
    main()

"""How fast `evaluate_bags` goes through a long bag, against the network alone, and its memory.

Writes a bag of 640x480 JPEG at 30 Hz by repeating the sample drive's pictures with new stamps, runs
one operating point in clear weather in one process, and prints pictures a second of the whole call,
those of `Detector.detect` on the same pictures in memory (before and after), their ratio, and the
memory of the process after a minute of work (or a quarter of it, if shorter) and at the end. Then
the figures are made, each answer held against the surest ones, and what that takes is printed, too.

    python benchmarks/bag_rate.py [--minutes 60] [--alpha 0.5] [--resolution 320] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np

from mbnet_perception.core.images import Picture
from mbnet_perception.evaluation.accuracy import MEASURING
from mbnet_perception.evaluation.bag_run import BagPlan, evaluate_bags
from mbnet_perception.evaluation.bag_score import score
from mbnet_perception.evaluation.bags import (
    IMAGE_TOPIC,
    START,
    Bag,
    CameraBagWriter,
    decode,
    picture_of,
)
from mbnet_perception.inference.engine import load_detector
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

SAMPLE = Path(__file__).parents[1] / "test" / "data" / "sample_drive"
RATE = 30
NO_BOXES = np.zeros((0, 4), np.float32)


class Memory(threading.Thread):
    """Looks at the memory of this process once a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: list[float] = []
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(1):
            self.seen.append(resident())


def resident() -> float:
    """MB of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def write_bag(path: Path, minutes: float) -> int:
    """Write the bag, and return how many pictures it has."""
    with Bag(SAMPLE) as sample:
        messages = list(sample.messages([IMAGE_TOPIC]))
    encoded = [decode(message.data, message.type).data for message in messages]
    count = round(minutes * 60 * RATE)
    with CameraBagWriter(path) as bag:
        for number in range(count):
            stamp = START + round(number * 10**9 / RATE)
            bag.add(stamp, encoded[number % len(encoded)], "jpeg", (640, 480), NO_BOXES, ())
    return count


def bare_rate(point: OperatingPoint, pictures: list[Picture], seconds: float = 10.0) -> float:
    """Pictures a second of `Detector.detect` alone."""
    detector = load_detector(ModelLibrary(), point, num_threads=1)
    detector.warm((480, 640))
    done, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        detector.detect(pictures[done % len(pictures)], MEASURING)
        done += 1
    return done / elapsed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--resolution", type=int, default=320)
    parser.add_argument("--folder", type=Path, help="for the bag; default is a temporary one")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    point = OperatingPoint(alpha=args.alpha, resolution=args.resolution)
    with Bag(SAMPLE) as sample:
        pictures = [picture_of(m, point.resolution) for m in sample.messages([IMAGE_TOPIC])]
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        count = write_bag(Path(folder, "bag"), args.minutes)
        bare = [bare_rate(point, pictures)]
        memory = Memory()
        memory.start()
        started = time.perf_counter()
        cache = evaluate_bags(BagPlan((Path(folder, "bag"),), (point,)), Path(folder, "cache"))
        elapsed = time.perf_counter() - started
        end = resident()
        memory.done.set()
        memory.join()
        bare.append(bare_rate(point, pictures))
        (facts,) = cache.all_facts()
        busy = float(cache.run(facts, point, cache.plan.conditions[0]).seconds.sum())
        before, started = resident(), time.perf_counter()
        score([facts], [None], cache.plan.points, cache.plan.conditions, cache.run)
        scoring = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert facts.frames == count
    rate, alone = count / elapsed, sum(bare) / 2
    early = min(60, len(memory.seen) // 4)
    print(f"{point}, one thread; {count} pictures in {elapsed:.1f} s, {busy:.1f} s in the network")
    print(f"bag       {rate:7.1f} pictures/s")
    print(f"network   {alone:7.1f} pictures/s ({bare[0]:.1f} before, {bare[1]:.1f} after)")
    print(f"ratio     {rate / alone:7.3f}")
    print(f"memory    {memory.seen[early]:7.0f} MB after {early + 1} s, {end:.0f} MB at the end")
    print(f"figures   {scoring:7.1f} s, {before:.0f} MB before, {peak:.0f} MB at most")


if __name__ == "__main__":
    main()

"""The resize to the network's input in halves against OpenCV's average of areas in one step.

Draws pictures of synthetic drives, and prints for each camera size and resolution milliseconds
(median, one thread) of both, those of the network, and what the detector makes of either: how many
objects it finds (IoU 0.5), and how many boxes of one the other has too.

    python benchmarks/resizing.py [--alpha 0.5] [--pictures 60] [--threshold 0.4]
"""

from __future__ import annotations

import argparse
import statistics
import time

import cv2
import numpy as np
from jpeg_scale import draw_drives, matches
from numpy.typing import NDArray

from mbnet_perception.core.detections import Detections, Selection
from mbnet_perception.core.geometry import input_size
from mbnet_perception.core.images import Picture
from mbnet_perception.inference.detector import Detector, prepare_image
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

SIZES = ((640, 480), (1280, 720), (1920, 1080))
RESOLUTIONS = (320, 288, 256, 224)


def average_areas(bgr: NDArray[np.uint8], resolution: int) -> NDArray[np.uint8]:
    """The network's input in one step."""
    size = input_size(bgr.shape[:2], resolution)
    resized = cv2.resize(bgr, size[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(resized, cv2.COLOR_BGR2RGB)[None], np.uint8)


def halve(bgr: NDArray[np.uint8], resolution: int) -> NDArray[np.uint8]:
    """The network's input as the detector makes it."""
    return prepare_image(Picture.of_bgr(bgr), resolution)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--threshold", type=float, default=Selection.score_threshold)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    library = ModelLibrary()
    model = library.read(library.find(OperatingPoint(alpha=args.alpha)))
    selection = Selection(score_threshold=args.threshold)
    detectors = {resolution: Detector(model, resolution) for resolution in RESOLUTIONS}
    classes = detectors[RESOLUTIONS[0]].classes
    for size in SIZES:
        pictures, truth = zip(*draw_drives(size, args.pictures, classes), strict=True)
        for resolution, detector in detectors.items():
            took: dict[object, list[float]] = {average_areas: [], halve: []}
            found: dict[object, list[Detections]] = {average_areas: [], halve: []}
            runs = []
            for bgr in pictures:
                for way in (average_areas, halve):
                    start = time.perf_counter()
                    prepared = way(bgr, resolution)
                    took[way].append(time.perf_counter() - start)
                    # Of the input's size, and so not resized again.
                    picture = Picture(prepared[0], "rgb", *bgr.shape[:2])
                    detections, timing = detector.detect(picture, selection)
                    found[way].append(detections)
                    runs.append(timing.inference)
            a, b = (1e3 * statistics.median(took[way]) for way in (average_areas, halve))
            areas, halves = (found[way] for way in (average_areas, halve))
            counts = [sum(map(len, some)) for some in (areas, halves)]
            shared = 2 * sum(map(matches, areas, halves)) / max(1, sum(counts))
            hits = [sum(map(matches, some, truth)) for some in (areas, halves)]
            print(
                f"{size[0]}x{size[1]} to {resolution}: areas {a:.2f} ms, halves {b:.2f} ms "
                f"(network {1e3 * statistics.median(runs):.2f} ms)   of {sum(map(len, truth))} "
                f"objects areas {hits[0]}, halves {hits[1]}   of boxes {shared:.1%} agree"
            )


if __name__ == "__main__":
    main()

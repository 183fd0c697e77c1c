"""JPEG decoded at reduced scale against whole: time, and whether the detector sees the same.

Draws pictures of synthetic drives, encodes them as compressed_image_transport does (quality 80),
and prints for each camera size milliseconds (median, one thread) of decoding and of decoding with
the resize to the input, and how the detections of both compare.

    python benchmarks/jpeg_scale.py [--resolution 320] [--pictures 60] [--threshold 0.4]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core.detections import Detections, Selection, iou_matrix
from mbnet_perception.core.images import picture_from_compressed
from mbnet_perception.core.scene import DrivingScene
from mbnet_perception.inference.detector import Detector, prepare_image
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

SIZES = ((1280, 960), (640, 480))
QUALITY = 80


def matches(a: Detections, b: Detections) -> int:
    """How many of `a`, best first, find a box of their class in `b` at an IoU of at least 0.5."""
    ious = iou_matrix(a.boxes, b.boxes) * (a.classes[:, None] == b.classes)
    count = 0
    for row in range(len(a)):
        if len(b) and ious[row].max() >= 0.5:
            ious[:, ious[row].argmax()] = 0
            count += 1
    return count


def draw_drives(
    size: tuple[int, int], count: int, names: Sequence[str]
) -> Iterator[tuple[NDArray[np.uint8], Detections]]:
    """Pictures of several drives, BGR, and their true boxes; classes count these names."""
    for number in range(count):
        bgr, boxes, seen = DrivingScene(100 + number % 6, size).render(2.0 * number / 6)
        classes = np.array([names.index(name) for name in seen], np.int64)
        corners = np.array(boxes, np.float32).reshape(-1, 4)
        yield bgr, Detections(corners, np.ones(len(seen)), classes)


def encode(bgr: NDArray[np.uint8]) -> bytes:
    """A JPEG file."""
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=320)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--threshold", type=float, default=Selection.score_threshold)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    library = ModelLibrary()
    model = library.read(library.find(OperatingPoint()))
    detector = Detector(model, args.resolution)
    selection = Selection(score_threshold=args.threshold)
    for size in SIZES:
        drives = draw_drives(size, args.pictures, detector.classes)
        files, truth = zip(*((encode(bgr), true) for bgr, true in drives), strict=True)
        decode: dict[int, list[float]] = {0: [], args.resolution: []}
        both: dict[int, list[float]] = {0: [], args.resolution: []}
        found: dict[int, list[Detections]] = {0: [], args.resolution: []}
        for content in files * 5:
            for long_side in decode:
                start = time.perf_counter()
                picture = picture_from_compressed(content, long_side=long_side)
                middle = time.perf_counter()
                prepare_image(picture, args.resolution)
                both[long_side].append(time.perf_counter() - start)
                decode[long_side].append(middle - start)
        for content in files:
            for long_side in found:
                picture = picture_from_compressed(content, long_side=long_side)
                found[long_side].append(detector.detect(picture, selection)[0])
        whole, reduced = found.values()
        kilobytes = statistics.mean(map(len, files)) / 1e3
        print(f"{size[0]}x{size[1]}, {kilobytes:.0f} kB, to {args.resolution}")
        for name, seconds in (("decode", decode), ("decode and resize", both)):
            a, b = (1e3 * statistics.median(values) for values in seconds.values())
            print(f"  {name:18} whole {a:6.2f} ms, reduced {b:6.2f} ms, {a / b:.2f} times as fast")
        shared = sum(map(matches, whole, reduced))
        counts = [sum(map(len, some)) for some in (whole, reduced)]
        print(
            f"  detections         whole {counts[0]}, reduced {counts[1]}, of whose boxes "
            f"{2 * shared / sum(counts):.1%} agree (IoU 0.5)"
        )
        hits = [sum(map(matches, some, truth)) for some in (whole, reduced)]
        print(f"  of {sum(map(len, truth))} objects     whole finds {hits[0]}, reduced {hits[1]}")


if __name__ == "__main__":
    main()

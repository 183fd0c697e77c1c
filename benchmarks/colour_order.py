"""Colours put in order after the resize against before, for each encoding that is a view.

Prints milliseconds (median, one thread) from the message's bytes to the network's input, and checks
that the inputs are equal.

    python benchmarks/colour_order.py [--size 640 480] [--resolution 320]
"""

from __future__ import annotations

import argparse
import statistics
import time

import cv2
import numpy as np

from mbnet_perception.core.images import Picture, picture_from_raw
from mbnet_perception.inference.detector import prepare_image

CHANNELS = {"bgr8": 3, "rgb8": 3, "bgra8": 4, "rgba8": 4, "mono8": 1}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480))
    parser.add_argument("--resolution", type=int, default=320)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    width, height = args.size
    for encoding, channels in CHANNELS.items():
        data = np.random.default_rng(0).bytes(width * height * channels)
        after, before = [], []
        for _ in range(300):
            start = time.perf_counter()
            picture = picture_from_raw(data, height, width, encoding, width * channels)
            as_view = prepare_image(picture, args.resolution)
            middle = time.perf_counter()
            picture = picture_from_raw(data, height, width, encoding, width * channels)
            converted = prepare_image(Picture.of_bgr(picture.bgr()), args.resolution)
            before.append(time.perf_counter() - middle)
            after.append(middle - start)
            assert (as_view == converted).all()
        a, b = (1e3 * statistics.median(seconds) for seconds in (after, before))
        print(f"{encoding:6} before {b:6.3f} ms, after {a:6.3f} ms, {b / a:.2f} times as fast")


if __name__ == "__main__":
    main()

"""Detections drawn into a picture, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core.detections import Detections

# BGR. Far apart in hue, and neighbours in a class list differ most; later classes begin anew.
PALETTE: tuple[tuple[int, int, int], ...] = (
    (60, 60, 230),
    (60, 200, 60),
    (230, 130, 40),
    (30, 210, 250),
    (220, 60, 200),
    (220, 220, 50),
    (20, 130, 250),
    (190, 80, 120),
    (40, 250, 180),
    (190, 160, 250),
    (60, 100, 150),
)

FONT = cv2.FONT_HERSHEY_SIMPLEX
# Text of the font's size 1, 22 pixels high, for a long side of so many pixels.
LONG_SIDE_PER_TEXT = 1500
# Under this size the font's strokes run together.
SMALLEST_TEXT = 0.4
# Lines grow by a pixel for so many pixels of the long side.
LONG_SIDE_PER_LINE = 400


def class_colour(index: int) -> tuple[int, int, int]:
    """The colour, as blue, green and red, of a class's boxes in every picture."""
    return PALETTE[index % len(PALETTE)]


def text_colour(background: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever stands out more from a BGR background (WCAG 2 contrast)."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (value / 255 for value in background)
    ]
    luminance = 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]
    # Contrast to black is (luminance + 0.05) / 0.05, to white 1.05 / (luminance + 0.05).
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 1.05 * 0.05 else (255, 255, 255)


def draw_detections(
    bgr: NDArray[np.uint8], detections: Detections, class_names: Sequence[str]
) -> NDArray[np.uint8]:
    """Draw boxes with the class and the score in percent.

    Lines and text grow with the picture. A label sits on its box, inside it at the upper edge of
    the picture, and never leaves the picture. Labels lie over boxes, better ones over worse.

    Args:
        bgr: (H, W, 3) uint8 picture, stays as it is.
        detections: Boxes in pixels of the picture.
        class_names: The model's class names, which `detections.classes` counts.

    Returns:
        (H, W, 3) uint8, a new picture.

    Raises:
        ValueError: If the picture is not (H, W, 3) uint8, or a class has no name.
    """
    if bgr.ndim != 3 or bgr.shape[2] != 3 or bgr.dtype != np.uint8:
        raise ValueError(f"picture must be (H, W, 3) uint8, got {bgr.shape} {bgr.dtype}")
    if len(detections) and detections.classes.max() >= len(class_names):
        raise ValueError(
            f"class {detections.classes.max()} has no name among the {len(class_names)} given"
        )
    drawn = bgr.copy()
    size = max(SMALLEST_TEXT, max(bgr.shape) / LONG_SIDE_PER_TEXT)
    line = max(1, round(max(bgr.shape) / LONG_SIDE_PER_LINE))
    boxes = np.rint(detections.boxes).astype(int).tolist()
    order = np.argsort(detections.scores, kind="stable").tolist()
    for i in order:
        left, top, right, bottom = boxes[i]
        colour = class_colour(int(detections.classes[i]))
        cv2.rectangle(drawn, (left, top), (right, bottom), colour, line)
    for i in order:
        index = int(detections.classes[i])
        text = f"{class_names[index]} {detections.scores[i]:.0%}"
        _draw_label(drawn, text, (boxes[i][0], boxes[i][1]), class_colour(index), size)
    return drawn


def _draw_label(
    bgr: NDArray[np.uint8],
    text: str,
    corner: tuple[int, int],
    colour: tuple[int, int, int],
    size: float,
) -> None:
    """Write text on a strip of colour into the picture, its lower left corner at (x, y)."""
    stroke = max(1, round(1.5 * size))
    (width, height), below = cv2.getTextSize(text, FONT, size, stroke)
    x = max(0, min(corner[0], bgr.shape[1] - width))
    y = max(height + below, corner[1])
    strip = (x, y - height - below), (x + width, y)
    cv2.rectangle(bgr, *strip, colour, cv2.FILLED)
    cv2.putText(bgr, text, (x, y - below), FONT, size, text_colour(colour), stroke, cv2.LINE_AA)

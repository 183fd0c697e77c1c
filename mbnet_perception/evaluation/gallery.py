"""Pictures of what detectors miss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core import images
from mbnet_perception.core.detections import Detections, Selection
from mbnet_perception.core.drawing import FONT, draw_detections
from mbnet_perception.evaluation.dataset import Dataset, Picture, read_picture
from mbnet_perception.evaluation.robustness import (
    CLEAR,
    Condition,
    Robustness,
    degrade,
    rows_by_name,
)
from mbnet_perception.inference.detector import Detector

# As the node reports by default.
SELECTION = Selection()

LONG_SIDE = 480  # of the pictures shown, in pixels
JPEG_QUALITY = 75
DASH = 6  # pixels
TEXT_SIZE = 0.4  # of OpenCV's font
NAMED = 4  # missed objects in a picture, so that names don't hide it
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class Miss:
    """A picture that shows what is missed under a condition.

    Attributes:
        place: Of the picture in the data set.
        condition: The mildest severity at which something is missed in it.
        missed: For each model, which of the picture's boxes are not found then.
    """

    place: int
    condition: Condition
    missed: tuple[tuple[int, ...], ...]


def worst_misses(dataset: Dataset, result: Robustness, count: int = 3) -> dict[str, list[Miss]]:
    """Which pictures show best what weather costs, for each condition's name.

    A loss is an object that a model finds in clear weather and does not under the condition, with
    the node's default score threshold and IoU 0.5; in clear weather it is any object not found. A
    picture ranks by its losses' share of its area, summed over severities and models: large, near
    objects that are lost early come first.

    Args:
        dataset: That was measured.
        result: What was measured.
        count: At most so many pictures for each name.
    """
    found = np.array([model.found for model in result.models]) >= SELECTION.score_threshold
    owner = np.repeat(
        np.arange(len(dataset.pictures)), [len(picture.boxes) for picture in dataset.pictures]
    )
    area = np.concatenate([_shares(picture) for picture in dataset.pictures])
    misses: dict[str, list[Miss]] = {}
    for name, rows in rows_by_name(result.conditions).items():
        lost = ~found[:, rows]
        if name != CLEAR.name:
            lost &= found[:, :1]
        badness = np.bincount(owner, (lost * area).sum((0, 1)), len(dataset.pictures))
        misses[name] = []
        for place in np.argsort(-badness, kind="stable")[:count]:
            if badness[place] > 0:
                here = owner == place
                row = rows[int(np.argmax(lost[:, :, here].any((0, 2))))]
                missed = tuple(tuple(np.flatnonzero(~own).tolist()) for own in found[:, row, here])
                misses[name].append(Miss(int(place), result.conditions[row], missed))
    return misses


def show_miss(
    dataset: Dataset, miss: Miss, detectors: Sequence[Detector], seed: int
) -> list[bytes]:
    """For each model, a JPEG of the picture under the condition with truth and detections.

    Detections have the colour of their class. The truth is dashed, thick where it is missed, and
    the largest of those are named.

    Args:
        dataset: That was measured.
        miss: What to show.
        detectors: The models, in the order of the results.
        seed: That the measuring had.
    """
    picture = dataset.pictures[miss.place]
    rgb = np.asarray(cv2.cvtColor(read_picture(picture), cv2.COLOR_BGR2RGB), np.uint8)
    shown = degrade(rgb, miss.condition, miss.place, seed)
    names = [dataset.classes[k] for k in picture.classes]
    files = []
    for detector, missed in zip(detectors, miss.missed, strict=True):
        found, _ = detector.detect(images.Picture(shown, "rgb", *shown.shape[:2]), SELECTION)
        files.append(show_objects(shown, found, detector.classes, picture.boxes, names, missed))
    return files


def show_objects(
    rgb: NDArray[np.uint8],
    found: Detections,
    classes: Sequence[str],
    boxes: NDArray[np.float32],
    names: Sequence[str],
    missed: Sequence[int],
) -> bytes:
    """A JPEG of a picture with truth and detections, drawn as by :func:`show_miss`.

    Args:
        rgb: (H, W, 3) uint8, stays as it is.
        found: Detections, in pixels of the picture.
        classes: The model's class names.
        boxes: (N, 4) float32 xyxy, picture pixels: the truth.
        names: N class names.
        missed: Rows of the truth that are missed.
    """
    height, width = rgb.shape[:2]
    scale = LONG_SIDE / max(height, width)
    size = (round(width * scale), round(height * scale))
    resized = cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    canvas = np.asarray(cv2.cvtColor(resized, cv2.COLOR_RGB2BGR), np.uint8)
    drawn = draw_detections(canvas, replace(found, boxes=found.boxes * np.float32(scale)), classes)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    named = sorted(missed, key=lambda row: -areas[row])[:NAMED]
    for row, (box, name) in enumerate(zip(boxes * np.float32(scale), names, strict=True)):
        _draw_truth(drawn, box, 2 if row in missed else 1)
        if row in named:
            _draw_name(drawn, box, f"missed {name}")
    done, encoded = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    return encoded.tobytes()


def _shares(picture: Picture) -> NDArray[np.float64]:
    """Share of the picture's area that each box has."""
    width, height = (picture.boxes[:, 2:] - picture.boxes[:, :2]).astype(np.float64).T
    return np.asarray(width * height / (picture.width * picture.height))


def _draw_truth(bgr: NDArray[np.uint8], box: NDArray[np.float32], thickness: int) -> None:
    """Draw a dashed box into the picture."""
    left, top, right, bottom = np.rint(box).astype(int).tolist()
    for (x1, y1), (x2, y2) in (
        ((left, top), (right, top)),
        ((left, bottom), (right, bottom)),
        ((left, top), (left, bottom)),
        ((right, top), (right, bottom)),
    ):
        length = max(x2 - x1, y2 - y1)
        for n, start in enumerate(range(0, length, DASH)):
            end = min(start + DASH, length)
            a = (x1 + (x2 - x1) * start // length, y1 + (y2 - y1) * start // length)
            b = (x1 + (x2 - x1) * end // length, y1 + (y2 - y1) * end // length)
            cv2.line(bgr, a, b, _BLACK if n % 2 else _WHITE, thickness)


def _draw_name(bgr: NDArray[np.uint8], box: NDArray[np.float32], text: str) -> None:
    """Write into the lower left corner of a box, black on white, and never beside the picture."""
    (width, height), below = cv2.getTextSize(text, FONT, TEXT_SIZE, 1)
    left, _, _, bottom = np.rint(box).astype(int).tolist()
    x = max(0, min(left, bgr.shape[1] - width))
    y = max(0, min(bottom, bgr.shape[0]) - height - below)
    cv2.rectangle(bgr, (x, y), (x + width, y + height + below), _WHITE, cv2.FILLED)
    cv2.putText(bgr, text, (x, y + height), FONT, TEXT_SIZE, _BLACK, 1, cv2.LINE_AA)

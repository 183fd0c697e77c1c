"""What a detector saw, and how it is picked from the network's output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Enough for any street; keeps one frame full of noise from costing a second of suppression.
MAX_CANDIDATES = 600

# Left, top, right and bottom.
_Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Detections:
    """Objects in one picture, best first.

    Attributes:
        boxes: (N, 4) float32 xyxy, picture pixels, clipped to the picture.
        scores: (N,) float32 in 0-1.
        classes: (N,) int64 index into the model's class names.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Selection:
    """Which of the network's boxes are reported.

    Attributes:
        score_threshold: Least score, 0-1.
        iou_threshold: Of two boxes of a class that overlap by more than this, the better stays.
        max_detections: At most so many, the best.
        classes: Names to report; empty means all.
    """

    score_threshold: float = 0.4
    iou_threshold: float = 0.5
    max_detections: int = 100
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("score_threshold", "iou_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if not 1 <= self.max_detections <= 300:
            raise ValueError(f"max_detections must be in [1, 300], got {self.max_detections}")

    def class_mask(self, names: tuple[str, ...]) -> NDArray[np.bool_]:
        """Which of a model's classes are wanted.

        Raises:
            ValueError: If a wanted class is none of the model's; lists those.
        """
        unknown = [name for name in self.classes if name not in names]
        if unknown:
            raise ValueError(f"classes {unknown} are unknown; the model knows {list(names)}")
        return np.array([not self.classes or name in self.classes for name in names])


def select_detections(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    image_hw: tuple[int, int],
    selection: Selection,
    class_mask: NDArray[np.bool_],
) -> Detections:
    """Threshold, suppress within each class, and scale to the picture.

    An anchor may report several classes: scores are sigmoids, not a choice.

    Args:
        boxes: (A, 4) xyxy as fractions of the picture.
        scores: (A, classes) in 0-1.
        image_hw: Picture height and width in pixels.
        selection: Thresholds.
        class_mask: (classes,) which classes to report.
    """
    class_count = scores.shape[1]
    # Most scores go here, and a search in one dimension is several times as fast as in two.
    places = (scores >= selection.score_threshold).ravel().nonzero()[0]
    if not all(class_mask.tolist()):  # as a list: an array would be many times as slow here
        places = places[class_mask[places % class_count]]
    if len(places) > MAX_CANDIDATES:  # Python would take milliseconds to sort thousands
        passed = scores.take(places)
        places = places[passed >= np.partition(passed, -MAX_CANDIDATES)[-MAX_CANDIDATES]]
    # The rest goes one by one: a picture holds few candidates, and the network has just swept the
    # processor's caches, so that each kind of NumPy call would cost some 10 us.
    height, width = image_hw
    kept: list[list[_Box]] = [[] for _ in range(class_count)]
    pixels: list[float] = []
    values: list[float] = []
    classes: list[int] = []
    for place in sorted(places.tolist(), key=scores.item, reverse=True)[:MAX_CANDIDATES]:
        row, label = divmod(place, class_count)
        left, top, right, bottom = boxes[row].tolist()
        left = 0.0 if left < 0 else left
        top = 0.0 if top < 0 else top
        right = 1.0 if right > 1 else right
        bottom = 1.0 if bottom > 1 else bottom
        if not (left < right and top < bottom):  # beside the picture, or not a number
            continue
        box = (left, top, right, bottom)
        if _is_clear(box, kept[label], selection.iou_threshold):
            kept[label].append(box)
            pixels += left * width, top * height, right * width, bottom * height
            values.append(scores.item(place))
            classes.append(label)
            if len(classes) == selection.max_detections:
                break
    return Detections(
        np.array(pixels, np.float32).reshape(-1, 4),
        np.array(values, np.float32),
        np.array(classes, np.int64),
    )


def _is_clear(box: _Box, better: list[_Box], iou_threshold: float) -> bool:
    """Whether a box overlaps none of the better ones by more than the threshold."""
    left_a, top_a, right_a, bottom_a = box
    area_a = (right_a - left_a) * (bottom_a - top_a)
    for left_b, top_b, right_b, bottom_b in better:
        # min() and max() would take several times as long.
        left = left_a if left_a > left_b else left_b
        top = top_a if top_a > top_b else top_b
        right = right_a if right_a < right_b else right_b
        bottom = bottom_a if bottom_a < bottom_b else bottom_b
        if left < right and top < bottom:
            inter = (right - left) * (bottom - top)
            area_b = (right_b - left_b) * (bottom_b - top_b)
            if inter / (area_a + area_b - inter) > iou_threshold:
                return False
    return True


def iou_matrix(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of (N, 4) and (M, 4) xyxy boxes: (N, M), 0 where both are empty."""
    # One array for each coordinate: NumPy is slow where the last axis is only four long.
    left_a, top_a, right_a, bottom_a = np.ascontiguousarray(a.T)[:, :, None]
    left_b, top_b, right_b, bottom_b = np.ascontiguousarray(b.T)
    width = np.minimum(right_a, right_b) - np.maximum(left_a, left_b)
    height = np.minimum(bottom_a, bottom_b) - np.maximum(top_a, top_b)
    inter = np.maximum(width, 0) * np.maximum(height, 0)
    area_a = (right_a - left_a) * (bottom_a - top_a)
    area_b = (right_b - left_b) * (bottom_b - top_b)
    union = area_a + area_b - inter
    return np.asarray(np.divide(inter, union, out=np.zeros_like(inter), where=union > 0))

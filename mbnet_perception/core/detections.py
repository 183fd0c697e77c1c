"""What a detector saw, and how it is picked from the network's output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Enough for any street; keeps one frame full of noise from costing a second of suppression.
MAX_CANDIDATES = 600


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
    # Most scores go here, and a search in one dimension is several times as fast as in two.
    rows, classes = np.divmod(
        np.flatnonzero(scores.ravel() >= selection.score_threshold), scores.shape[1]
    )
    wanted = class_mask[classes]
    rows, classes = rows[wanted], classes[wanted]
    values = scores[rows, classes]
    order = np.argsort(-values, kind="stable")[:MAX_CANDIDATES]
    rows, classes, values = rows[order], classes[order], values[order]
    candidates = np.clip(boxes[rows], 0, 1)
    inside = (candidates[:, 2:] > candidates[:, :2]).all(1)  # the rest lies beside the picture
    candidates, classes, values = candidates[inside], classes[inside], values[inside]
    keep = suppress(candidates, classes, selection.iou_threshold)[: selection.max_detections]
    height, width = image_hw
    scale = np.array([width, height, width, height], np.float32)
    return Detections(candidates[keep] * scale, values[keep], classes[keep])


def suppress(
    boxes: NDArray[np.float32], classes: NDArray[np.int64], iou_threshold: float
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression within each class.

    Args:
        boxes: (N, 4) xyxy, best first.
        classes: (N,) class of each.
        iou_threshold: A box goes that overlaps a better one of its class by more.

    Returns:
        (K,) int64 rows that stay, ascending.
    """
    # Each box against the worse ones of its class: of all pairs, few. A search in one dimension is
    # several times as fast as in two.
    better, worse = np.divmod(np.flatnonzero(classes[:, None] == classes), max(1, len(boxes)))
    apart = better < worse
    better, worse = better[apart], worse[apart]
    columns = _columns(boxes)
    close = _iou(columns[:, better], columns[:, worse]) > iou_threshold
    alive = [True] * len(boxes)
    # By the better one: whether it stays is settled by the time that its turn comes.
    for row, rival in zip(better[close].tolist(), worse[close].tolist(), strict=True):
        if alive[row]:
            alive[rival] = False
    return np.flatnonzero(alive)


def iou_matrix(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of (N, 4) and (M, 4) xyxy boxes: (N, M), 0 where both are empty."""
    return _iou(_columns(a)[:, :, None], _columns(b))


def _columns(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """One array for each coordinate: NumPy is slow where the last axis is only two long."""
    return np.ascontiguousarray(boxes.T)


def _iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of boxes as coordinates (4, ...) and (4, ...), whose other axes go together."""
    left_a, top_a, right_a, bottom_a = a
    left_b, top_b, right_b, bottom_b = b
    width = np.minimum(right_a, right_b) - np.maximum(left_a, left_b)
    height = np.minimum(bottom_a, bottom_b) - np.maximum(top_a, top_b)
    inter = np.maximum(width, 0) * np.maximum(height, 0)
    area_a = (right_a - left_a) * (bottom_a - top_a)
    area_b = (right_b - left_b) * (bottom_b - top_b)
    union = area_a + area_b - inter
    return np.asarray(np.divide(inter, union, out=np.zeros_like(inter), where=union > 0))

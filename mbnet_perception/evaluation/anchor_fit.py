"""Anchor scales that suit a data set's objects."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core.anchors import DEFAULT_SCALES, cell_anchors, grid_sizes
from mbnet_perception.evaluation.dataset import Dataset

Scales = tuple[float, ...]

# Overlap from which an anchor answers for an object (SSD, arXiv 1512.02325, section 2.2).
MATCH_IOU = 0.5

# Where the search starts from besides the default: geometric sequences between two of these.
FIRST_SCALES = (0.04, 0.06, 0.08, 0.1, 0.12, 0.14)
LAST_SCALES = (0.6, 0.7, 0.8, 0.9, 1.0)
# Factor between neighbours at least: maps that are closer do each other's work.
SPACING = 1.2
# Boxes to search with; the result is measured on all.
MOST = 20_000
# Factors by which the search moves a scale, at first and at last.
FIRST_STEP = 1.25
LAST_STEP = 1.01
DECIMALS = 3


@dataclass(frozen=True)
class Fit:
    """How well anchors of these scales cover the boxes.

    Attributes:
        scales: One for each of the six maps, as fractions of the input's long side.
        mean_iou: Mean over the boxes of the overlap with the best anchor.
        recall: Share of the boxes with an anchor that overlaps by half.
        shares: Share of the boxes whose best anchor is on each map.
    """

    scales: Scales
    mean_iou: float
    recall: float
    shares: tuple[float, ...]


def boxes_of(datasets: Iterable[Dataset]) -> NDArray[np.float64]:
    """All boxes of data sets, cut at their pictures' edges: (N, 4) xyxy as fractions of them."""
    boxes = [np.empty((0, 4))]
    for dataset in datasets:
        for picture in dataset.pictures:
            size = np.array([picture.width, picture.height] * 2, np.float64)
            boxes.append(np.clip(picture.boxes / size, 0, 1))
    return np.concatenate(boxes)


def best_overlaps(
    boxes: NDArray[np.float64], height: int, width: int, scales: Scales
) -> NDArray[np.float64]:
    """Overlap of each box with the best anchor of each map.

    Of anchors of one shape that with the nearest centre overlaps most, so only the shapes of one
    cell are tried.

    Args:
        boxes: (N, 4) xyxy, fractions of the input.
        height, width: Of the input in pixels.
        scales: As ``core.anchors.cell_anchors`` takes them.

    Returns:
        (6, N) IoU.
    """
    return np.stack([_of_map(boxes, height, width, scales, k) for k in range(len(scales))])


def measure_scales(
    boxes: NDArray[np.float64], height: int, width: int, scales: Scales = DEFAULT_SCALES
) -> Fit:
    """See :class:`Fit`; arguments as in :func:`best_overlaps`, N > 0."""
    overlaps = best_overlaps(boxes, height, width, scales)
    best = overlaps.max(0)
    on_map = np.bincount(overlaps.argmax(0), minlength=len(scales)) / len(boxes)
    return Fit(
        scales, float(best.mean()), float((best >= MATCH_IOU).mean()), tuple(on_map.tolist())
    )


def fit_scales(boxes: NDArray[np.float64], height: int, width: int) -> Fit:
    """Find scales with a high mean overlap, by moving one after the other as long as it helps.

    The search starts from the default scales and from the best geometric sequence, so that what
    comes out is as good as either. A random crop in training makes objects larger than they are
    here, which is how the car sees them.

    Args:
        boxes: (N, 4) xyxy, fractions of the input.
        height, width: Of the input in pixels.

    Raises:
        ValueError: If there are no boxes.
    """
    if not len(boxes):
        raise ValueError("there are no boxes to fit anchor scales to")
    sample = boxes[:: -(-len(boxes) // MOST)]

    def mean_iou(scales: Scales) -> float:
        return measure_scales(sample, height, width, scales).mean_iou

    sequences = [
        tuple(np.geomspace(first, last, len(DEFAULT_SCALES)).round(DECIMALS).tolist())
        for first in FIRST_SCALES
        for last in LAST_SCALES
    ]
    starts = (DEFAULT_SCALES, max(sequences, key=mean_iou))
    fitted = (_climb(sample, height, width, start) for start in starts)
    return measure_scales(boxes, height, width, max(fitted, key=mean_iou))


def _climb(boxes: NDArray[np.float64], height: int, width: int, start: Scales) -> Scales:
    scales = start
    overlaps = best_overlaps(boxes, height, width, scales)
    step = FIRST_STEP
    while step >= LAST_STEP:
        moved = False
        for k in range(len(scales)):
            for factor in (step, 1 / step):
                tried = (*scales[:k], round(scales[k] * factor, DECIMALS), *scales[k + 1 :])
                apart = all(b >= a * SPACING for a, b in pairwise(tried))
                if tried[0] <= 0 or tried[-1] > 1 or not apart:
                    continue
                changed = overlaps.copy()
                # The map before has an anchor between its scale and this one.
                for level in {max(0, k - 1), k}:
                    changed[level] = _of_map(boxes, height, width, tried, level)
                if changed.max(0).mean() > overlaps.max(0).mean():
                    scales, overlaps, moved = tried, changed, True
        if not moved:
            step = math.sqrt(step)
    return scales


def _of_map(
    boxes: NDArray[np.float64], height: int, width: int, scales: Scales, level: int
) -> NDArray[np.float64]:
    """(N,) IoU of each box with the best anchor of one map; lengths are of the long side."""
    unit = np.array([width, height]) / max(height, width)
    cells = np.array(grid_sizes(height, width)[level][::-1])
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * unit
    cell = np.clip(np.floor(centre * cells), 0, cells - 1)
    away = np.abs(centre - (cell + 0.5) / cells) * unit
    best = np.zeros(len(boxes))
    for anchor in cell_anchors(scales)[level].astype(np.float64):
        shared = np.minimum(np.minimum(size, anchor), (size + anchor) / 2 - away)
        area = np.clip(shared, 0, None).prod(1)
        best = np.maximum(best, area / (size.prod(1) + anchor.prod() - area))
    return best

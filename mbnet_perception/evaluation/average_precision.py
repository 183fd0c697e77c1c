"""AP and AP50 where data sets label different classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core.detections import Detections
from mbnet_perception.evaluation.dataset import Dataset, Picture

# COCO's ten overlaps, and the recalls at which it reads precision (its `iouThrs` and `recThrs`).
OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)

# Of each class in a picture, so many detections are looked at, the best (its `maxDets`).
MOST = 100

# Heights of boxes, as shares of the picture's: no end, as they may stick out of it.
ANY_HEIGHT = (0.0, np.inf)

# What a detection is at one overlap. One that counts neither way is like one that is not there.
RIGHT, WRONG, NEITHER = 1, 0, -1

# Weightings worked on at once: so many that NumPy's calls cost little, so few that a class's
# arrays stay in the processor's cache.
_AT_ONCE = 32


@dataclass(frozen=True)
class ClassResult:
    """AP (IoU 0.50 to 0.95) and AP50 of one class, 0-1, over the pictures it was looked for in."""

    ap: float
    ap50: float
    boxes: int
    pictures: int


@dataclass(frozen=True)
class Result:
    """Means over the classes that have boxes, and each of those classes."""

    ap: float
    ap50: float
    classes: dict[str, ClassResult]

    def rounded(self) -> dict[str, float]:
        """The means as logs and the manifest hold them."""
        return {"ap": round(self.ap, 4), "ap50": round(self.ap50, 4)}


@dataclass(frozen=True)
class Matches:
    """Detections held against the truth, once and for any weighting of the pictures.

    Attributes:
        picture: (D,) int32 place of each detection's picture in the data set.
        label: (D,) int32 its class among the data set's; others are not kept, nor are those of
            classes that nobody looked for in the picture.
        score: (D,) float32, 0-1.
        status: (D, 10) int8 RIGHT, WRONG or NEITHER at each of OVERLAPS.
        found: (B,) float32 for each box of the truth, by picture and then in its order, the score
            of the detection that is right about it at IoU 0.5; 0 where there is none.
    """

    picture: NDArray[np.int32]
    label: NDArray[np.int32]
    score: NDArray[np.float32]
    status: NDArray[np.int8]
    found: NDArray[np.float32]


def measure(dataset: Dataset, detections: Sequence[Detections], classes: Sequence[str]) -> Result:
    """Score detections by the COCO metric, each class over the pictures where it was looked for.

    What LVIS says of federated labels (arXiv 1908.03195, section 3.2) holds: a class counts only
    in pictures that are verified for it, and where it is not exhaustive an unmatched detection
    counts neither way, like one that lies by half in an ignore area.

    Args:
        dataset: Ground truth.
        detections: One per picture of the data set, in its order; boxes in picture pixels.
        classes: The names that the detections' indices mean.

    Raises:
        ValueError: If there is not one entry per picture, or there is no box to find.
    """
    matches = match(dataset, detections, classes)
    boxes = count_boxes(dataset)
    ap, ap50 = weighted_ap(matches, boxes, np.ones((len(dataset.pictures), 1)))[:, :, 0]
    verified = np.sum([picture.verified for picture in dataset.pictures], axis=0)
    results = {
        name: ClassResult(
            float(ap[k]), float(ap50[k]), int(boxes[:, k].sum()), int(np.sum(verified[k]))
        )
        for k, name in enumerate(dataset.classes)
        if boxes[:, k].any()
    }
    return Result(float(np.nanmean(ap)), float(np.nanmean(ap50)), results)


def count_boxes(dataset: Dataset) -> NDArray[np.int64]:
    """Boxes of each class in each picture: (pictures, classes).

    Raises:
        ValueError: If there is no box at all.
    """
    count = len(dataset.classes)
    boxes = [np.bincount(picture.classes, minlength=count) for picture in dataset.pictures]
    if not any(row.any() for row in boxes):
        raise ValueError("the data holds no boxes, so there is nothing to measure")
    return np.array(boxes)


def match(
    dataset: Dataset,
    detections: Sequence[Detections],
    classes: Sequence[str],
    height_range: tuple[float, float] = ANY_HEIGHT,
) -> Matches:
    """Hold detections against the truth by COCO's rules; see :func:`measure`.

    It is what `pycocotools` finds, several times as fast: the best detection goes first, and takes
    the free box of its class with the greatest overlap, or else an area that counts neither way.

    Args:
        dataset: Ground truth.
        detections: One per picture of the data set, in its order; boxes in picture pixels.
        classes: The names that the detections' indices mean.
        height_range: Only boxes of such heights count, see :func:`are_within`. Of the others,
            those of the truth count neither way, nor do detections that are right about nothing:
            COCO's rule for ranges of areas.

    Raises:
        ValueError: If there is not one entry per picture.
    """
    pictures = dataset.pictures
    if len(detections) != len(pictures):
        raise ValueError(f"expected detections for {len(pictures)} pictures, got {len(detections)}")
    found, score = _known_detections(dataset, detections, classes)
    truth = _flatten([(i, picture.boxes, picture.classes) for i, picture in enumerate(pictures)])
    areas = _ignored_areas(pictures)
    heights = np.array([picture.height for picture in pictures])
    outside = ~are_within(found.xywh[:, 3] / heights[found.picture], height_range)
    ignored = ~are_within(truth.xywh[:, 3] / heights[truth.picture], height_range)
    # In bits, an overlap each: where a detection is right, where it is settled, where a box of
    # the truth is free. An area takes any number of detections (`iscrowd`).
    right, settled = [0] * len(score), [0] * len(score)
    free = [-1] * len(truth.label)
    best = np.zeros(len(truth.label), np.float32)
    for row, box, reached, neither in _pairs(found, truth, areas, ignored):
        taken = reached & ~settled[row]
        if box < len(free):
            taken &= free[box]
            free[box] &= ~taken
        settled[row] |= taken
        if not neither:
            right[row] |= taken
            if taken & 1:
                best[box] = score[row]
    at_right, at_settled = (
        np.array(bits, np.int64)[:, None] >> np.arange(len(OVERLAPS)) & 1 > 0
        for bits in (right, settled)
    )
    neither_way = np.where(at_settled, ~at_right, outside[:, None])
    return Matches(
        picture=found.picture.astype(np.int32),
        label=found.label.astype(np.int32),
        score=score,
        status=np.select([at_right, neither_way], [RIGHT, NEITHER], WRONG).astype(np.int8),
        found=best,
    )


def are_within(shares: NDArray[np.float64], height_range: tuple[float, float]) -> NDArray[np.bool_]:
    """Which heights of boxes, as shares of the picture's, are in a range; its end is not in it."""
    low, high = height_range
    return np.asarray((low <= shares) & (shares < high))


def join_matches(
    dataset: Dataset, places: Sequence[Sequence[int]], parts: Sequence[Matches]
) -> Matches:
    """Matches of a whole data set from those of its parts.

    Args:
        dataset: The whole.
        places: For each part, the places of its pictures in the whole.
        parts: Matches of each part by itself.
    """
    ends = np.cumsum([len(picture.boxes) for picture in dataset.pictures])
    found = np.zeros(ends[-1], np.float32)
    for own, part in zip(places, parts, strict=True):
        rows = [np.arange(ends[i] - len(dataset.pictures[i].boxes), ends[i]) for i in own]
        found[np.concatenate(rows)] = part.found
    return Matches(
        picture=np.concatenate(
            [
                np.asarray(own, np.int32)[part.picture]
                for own, part in zip(places, parts, strict=True)
            ]
        ),
        label=np.concatenate([part.label for part in parts]),
        score=np.concatenate([part.score for part in parts]),
        status=np.concatenate([part.status for part in parts]),
        found=found,
    )


def weighted_ap(
    matches: Matches, boxes: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """AP and AP50 of each class where each picture counts as many times as its weight says.

    It is what pycocotools would find if the data held each picture so many times; a bootstrap
    needs a thousand such weightings, and only they make it affordable.

    Args:
        matches: Detections held against the truth.
        boxes: (pictures, classes) boxes of the truth.
        weights: (pictures, N) whole numbers, not negative; each column is a weighting.

    Returns:
        (2, classes, N) AP and AP50, 0-1; NaN where a weighting leaves a class no box.
    """
    result = np.full((2, boxes.shape[1], weights.shape[1]), np.nan)
    for k in range(boxes.shape[1]):
        ranked = _rank(matches, k)
        for start in range(0, weights.shape[1], _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            total = boxes[:, k] @ weights[:, part]
            areas = np.array(
                [
                    (precision * share).sum(0)
                    for precision, share in _curves(ranked, total, weights[:, part])
                ]
            )
            result[0, k, part] = np.where(total > 0, areas.mean(0), np.nan)
            result[1, k, part] = np.where(total > 0, areas[0], np.nan)
    return result


def precision_at_recalls(matches: Matches, boxes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Precision at IoU 0.5 of each class at each of RECALLS, interpolated as COCO does.

    Returns:
        (classes, 101), 0-1; NaN for classes without boxes. A row's mean is the class's AP50.
    """
    result = np.full((boxes.shape[1], len(RECALLS)), np.nan)
    ones = np.ones((len(boxes), 1))
    for k in np.flatnonzero(boxes.any(0)):
        precision, share = next(_curves(_rank(matches, int(k)), boxes[:, [k]].sum(0), ones))
        reached = np.repeat(precision[:, 0], np.rint(share[:, 0] * len(RECALLS)).astype(int))
        result[k] = 0
        result[k, : len(reached)] = reached
    return result


@dataclass(frozen=True)
class _Ranked:
    """Detections of one class that can make a difference, best first.

    Attributes:
        picture: (D,) int32, where they are.
        wrong: (D,) float64, 1 for those that are WRONG at every overlap.
        telling: (S,) int64, the rows of the others.
        status: (S, 10) int8 of those.
    """

    picture: NDArray[np.int32]
    wrong: NDArray[np.float64]
    telling: NDArray[np.int64]
    status: NDArray[np.int8]


def _rank(matches: Matches, label: int) -> _Ranked:
    rows = np.flatnonzero((matches.label == label) & (matches.status != NEITHER).any(1))
    # Equal scores go by picture and then as they came, as in pycocotools.
    rows = rows[np.lexsort((matches.picture[rows], -matches.score[rows]))]
    right = (matches.status[rows] == RIGHT).any(1)
    rows = rows[: np.flatnonzero(right)[-1] + 1] if right.any() else rows[:0]
    status = matches.status[rows]
    wrong = (status == WRONG).all(1)
    telling = np.flatnonzero(~wrong)
    return _Ranked(matches.picture[rows], wrong.astype(np.float64), telling, status[telling])


def _curves(
    ranked: _Ranked, total: NDArray[np.float64], weights: NDArray[np.float64]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """For each overlap, the curve's steps: where a detection is right, recall grows.

    Precision never grows between two right ones, so that the curve need be known only there.

    Yields:
        (R, N) interpolated precision at each step, and the share of RECALLS that it reaches.
    """
    each = weights[ranked.picture]
    wrong = (each * ranked.wrong[:, None]).cumsum(0)[ranked.telling]
    each = each[ranked.telling]
    for status in ranked.status.T:
        steps = np.flatnonzero(status == RIGHT)
        right = each[steps].cumsum(0)
        counted = (wrong + (each * (status != NEITHER)[:, None]).cumsum(0))[steps]
        precision = right / np.maximum(counted, 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        reached = np.searchsorted(RECALLS, right / np.maximum(total, 1), side="right")
        yield precision, np.diff(reached, axis=0, prepend=0) / len(RECALLS)


@dataclass(frozen=True)
class _Boxes:
    """Boxes of many pictures.

    Attributes:
        picture, label: (N,) int64 place of each box's picture, and its class.
        xywh: (N, 4) float64, picture pixels.
    """

    picture: NDArray[np.int64]
    label: NDArray[np.int64]
    xywh: NDArray[np.float64]


def _flatten(parts: Sequence[tuple[int, NDArray[np.float32], NDArray[np.int64]]]) -> _Boxes:
    """From pictures' places, their (N, 4) xyxy boxes and those boxes' classes."""
    places = np.array([place for place, _, _ in parts], np.int64)
    xyxy = np.concatenate([np.zeros((0, 4), np.float32), *(boxes for _, boxes, _ in parts)])
    return _Boxes(
        picture=np.repeat(places, [len(boxes) for _, boxes, _ in parts]),
        label=np.concatenate([np.zeros(0, np.int64), *(labels for _, _, labels in parts)]),
        xywh=np.hstack([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]]).astype(np.float64),
    )


def _known_detections(
    dataset: Dataset, detections: Sequence[Detections], classes: Sequence[str]
) -> tuple[_Boxes, NDArray[np.float32]]:
    """Those of classes that somebody looked for, by class and picture, the best first."""
    column = {name: i for i, name in enumerate(dataset.classes)}
    own = np.array([column.get(name, -1) for name in classes], np.int64)
    found = _flatten([(i, each.boxes, own[each.classes]) for i, each in enumerate(detections)])
    score = np.concatenate([np.zeros(0, np.float32), *(each.scores for each in detections)])
    verified = np.array([picture.verified for picture in dataset.pictures], bool)
    verified = verified.reshape(len(detections), len(column))
    rows = np.flatnonzero(found.label >= 0)
    rows = rows[verified[found.picture[rows], found.label[rows]]]
    rows = rows[np.lexsort((-score[rows], found.picture[rows], found.label[rows]))]
    group = found.label[rows] * len(verified) + found.picture[rows]
    rows = rows[np.arange(len(rows)) - np.searchsorted(group, group) < MOST]
    return _Boxes(found.picture[rows], found.label[rows], found.xywh[rows]), score[rows]


def _ignored_areas(pictures: Sequence[Picture]) -> _Boxes:
    """Where detections of a class count neither way; all over where not each object has a box."""
    parts = []
    for i, picture in enumerate(pictures):
        whole = np.array([[0, 0, picture.width, picture.height]], np.float32)
        for k in np.flatnonzero(picture.verified):
            areas = picture.ignore if picture.exhaustive[k] else np.vstack([picture.ignore, whole])
            if len(areas):
                parts.append((i, areas, np.full(len(areas), k)))
    return _flatten(parts)


def _pairs(
    found: _Boxes, truth: _Boxes, areas: _Boxes, ignored: NDArray[np.bool_]
) -> Iterator[tuple[int, int, int, bool]]:
    """Detections with what they overlap by at least half, in the order in which they take it.

    Args:
        found: Detections, by class and picture, the best first.
        truth: Boxes.
        areas: Where detections count neither way.
        ignored: (boxes,) which of the truth count neither way.

    Yields:
        The detection's row; the row of the box or, behind all boxes, the area; the overlaps that
        are reached, in bits; and whether it counts neither way.
    """
    picture = np.concatenate([truth.picture, areas.picture])
    label = np.concatenate([truth.label, areas.label])
    xywh = np.concatenate([truth.xywh, areas.xywh])
    is_area = np.arange(len(label)) >= len(truth.label)
    neither = np.concatenate([ignored, np.ones(len(areas.label), bool)])
    # Each detection with each box and area of its class in its picture.
    count = 1 + max(picture.max(initial=0), found.picture.max(initial=0))
    group, wanted = label * count + picture, found.label * count + found.picture
    order = np.argsort(group, kind="stable")
    start, end = (np.searchsorted(group[order], wanted, side) for side in ("left", "right"))
    row = np.repeat(np.arange(len(wanted)), end - start)
    skipped = np.cumsum(end - start) - (end - start)
    box = order[np.arange(len(row)) + np.repeat(start - skipped, end - start)]
    a, b = found.xywh[row], xywh[box]
    low = np.maximum(a[:, :2], b[:, :2])
    sides = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - low
    shared = np.where((sides > 0).all(1), sides[:, 0] * sides[:, 1], 0)
    own = a[:, 2] * a[:, 3]
    union = np.where(is_area[box], own, own + b[:, 2] * b[:, 3] - shared)
    overlap = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    reached = np.searchsorted(OVERLAPS, overlap, side="right")
    near = np.flatnonzero(reached)
    row, box, overlap, reached = row[near], box[near], overlap[near], reached[near]
    # Of equal overlaps the last goes first, as in pycocotools.
    order = np.lexsort((-box, -overlap, neither[box], row))
    columns = (row, box, (1 << reached) - 1, neither[box])
    yield from zip(*(column[order].tolist() for column in columns), strict=True)

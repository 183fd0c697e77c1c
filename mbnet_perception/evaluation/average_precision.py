"""AP and AP50 where data sets label different classes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mbnet_perception.core.detections import Detections
from mbnet_perception.evaluation.dataset import Dataset

# COCO's ten overlaps, and the recalls at which it reads precision (its `iouThrs` and `recThrs`).
OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)

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


def match(dataset: Dataset, detections: Sequence[Detections], classes: Sequence[str]) -> Matches:
    """Hold detections against the truth by COCO's rules (`pycocotools`); see :func:`measure`.

    Raises:
        ValueError: If there is not one entry per picture.
    """
    if len(detections) != len(dataset.pictures):
        raise ValueError(
            f"expected detections for {len(dataset.pictures)} pictures, got {len(detections)}"
        )
    column = {name: i for i, name in enumerate(dataset.classes)}
    own = np.array([column.get(name, -1) for name in classes], np.int64)
    truths: list[dict[str, Any]] = []
    areas: list[dict[str, Any]] = []
    rows: list[tuple[float, ...]] = []
    for i, (picture, found) in enumerate(zip(dataset.pictures, detections, strict=True)):
        for k, box in zip(picture.classes, picture.boxes, strict=True):
            truths.append(_annotation(i, int(k), box, crowd=False))
        whole = np.array([0, 0, picture.width, picture.height], np.float32)
        for k in np.flatnonzero(picture.verified):
            # pycocotools lets any number of detections match a crowd, and counts none of them.
            ignored = list(picture.ignore) + ([] if picture.exhaustive[k] else [whole])
            areas += [_annotation(i, int(k), area, crowd=True) for area in ignored]
        known = own[found.classes]
        rows += [
            (i, *_xywh(box), float(score), int(k))
            for box, score, k in zip(found.boxes, found.scores, known, strict=True)
            if k >= 0 and picture.verified[k]
        ]
    if not rows:
        none = np.zeros(0, np.int32)
        status = np.zeros((0, len(OVERLAPS)), np.int8)
        return Matches(
            none, none, none.astype(np.float32), status, np.zeros(len(truths), np.float32)
        )
    # A truth's id is its row from 1, so that what it was matched by can be told.
    for n, truth in enumerate(truths + areas, start=1):
        truth["id"] = n
    judged = _evaluate(dataset, truths + areas, np.array(rows, np.float64))
    # Detections in the order of classes and pictures, each best first, as pycocotools has them.
    matched = np.concatenate([e["dtMatches"] for e in judged], axis=1).T
    neither = np.concatenate([e["dtIgnore"] for e in judged], axis=1).T
    counts = [len(e["dtIds"]) for e in judged]
    score = np.concatenate([e["dtScores"] for e in judged]).astype(np.float32)
    found_by = np.zeros(len(truths) + len(areas) + 1, np.float32)
    found_by[matched[:, 0].astype(np.int64)] = score
    return Matches(
        picture=np.repeat([e["image_id"] for e in judged], counts).astype(np.int32),
        label=np.repeat([e["category_id"] for e in judged], counts).astype(np.int32),
        score=score,
        status=np.where(neither, NEITHER, np.where(matched > 0, RIGHT, WRONG)).astype(np.int8),
        found=found_by[1 : len(truths) + 1],
    )


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


def _annotation(picture: int, label: int, box: NDArray[np.float32], crowd: bool) -> dict[str, Any]:
    left, top, width, height = _xywh(box)
    return {
        "image_id": picture,
        "category_id": label,
        "bbox": [left, top, width, height],
        "area": width * height,
        "iscrowd": int(crowd),
    }


def _xywh(box: NDArray[np.float32]) -> list[float]:
    return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]


def _evaluate(
    dataset: Dataset, truths: list[dict[str, Any]], rows: NDArray[np.float64]
) -> list[dict[str, Any]]:
    """What pycocotools says of each class in each picture, classes first, where there is any."""
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i} for i in range(len(dataset.pictures))],
        "categories": [{"id": k} for k in range(len(dataset.classes))],
        "annotations": truths,
    }
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports each step
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(rows), "bbox")
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        evaluation.params.maxDets = [100]
        evaluation.params.iouThrs = OVERLAPS
        evaluation.evaluate()
    return [judged for judged in evaluation.evalImgs if judged is not None]

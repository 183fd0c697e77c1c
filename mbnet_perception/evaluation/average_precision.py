"""AP and AP50 where data sets label different classes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mbnet_perception.core.detections import Detections
from mbnet_perception.evaluation.dataset import Dataset


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
    if len(detections) != len(dataset.pictures):
        raise ValueError(
            f"expected detections for {len(dataset.pictures)} pictures, got {len(detections)}"
        )
    if not any(len(picture.boxes) for picture in dataset.pictures):
        raise ValueError("the data holds no boxes, so there is nothing to measure")
    column = {name: i for i, name in enumerate(dataset.classes)}
    own = np.array([column.get(name, -1) for name in classes], np.int64)
    truths: list[tuple[int, int, NDArray[np.float32], int]] = []
    rows: list[tuple[float, ...]] = []
    boxes_of = np.zeros(len(dataset.classes), np.int64)
    pictures_of = np.zeros(len(dataset.classes), np.int64)
    for i, (picture, found) in enumerate(zip(dataset.pictures, detections, strict=True), start=1):
        boxes_of += np.bincount(picture.classes, minlength=len(dataset.classes))
        pictures_of += picture.verified
        truths += [
            (i, int(k), box, 0) for k, box in zip(picture.classes, picture.boxes, strict=True)
        ]
        whole = np.array([0, 0, picture.width, picture.height], np.float32)
        for k in np.flatnonzero(picture.verified):
            # pycocotools lets any number of detections match a crowd, and counts none of them.
            areas = list(picture.ignore) + ([] if picture.exhaustive[k] else [whole])
            truths += [(i, int(k), area, 1) for area in areas]
        known = own[found.classes]
        rows += [
            (i, *_xywh(box), float(score), int(k))
            for box, score, k in zip(found.boxes, found.scores, known, strict=True)
            if k >= 0 and picture.verified[k]
        ]
    precision = _coco_precision(dataset, truths, rows)
    results = {}
    for column_index, name in enumerate(dataset.classes):
        if boxes_of[column_index]:
            curve = np.zeros((10, 101)) if precision is None else precision[:, :, column_index]
            results[name] = ClassResult(
                ap=float(curve.mean()),
                ap50=float(curve[0].mean()),
                boxes=int(boxes_of[column_index]),
                pictures=int(pictures_of[column_index]),
            )
    ap, ap50 = np.mean([(r.ap, r.ap50) for r in results.values()], axis=0)
    return Result(float(ap), float(ap50), results)


def _xywh(box: NDArray[np.float32]) -> list[float]:
    return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]


def _coco_precision(
    dataset: Dataset,
    truths: list[tuple[int, int, NDArray[np.float32], int]],
    rows: list[tuple[float, ...]],
) -> NDArray[np.float64] | None:
    """Precision (IoU thresholds, recall thresholds, classes), or None without any detection."""
    if not rows:
        return None
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i} for i in range(1, len(dataset.pictures) + 1)],
        "categories": [{"id": k} for k in range(len(dataset.classes))],
        "annotations": [
            {
                "id": n,
                "image_id": i,
                "category_id": k,
                "bbox": _xywh(box),
                "area": _xywh(box)[2] * _xywh(box)[3],
                "iscrowd": crowd,
            }
            for n, (i, k, box, crowd) in enumerate(truths, start=1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports each step
        coco.createIndex()
        found = coco.loadRes(np.array(rows, np.float64))
        evaluation = COCOeval(coco, found, "bbox")
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"])[:, :, :, 0, 0]

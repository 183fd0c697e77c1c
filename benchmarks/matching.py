"""How fast our matching of detections is beside that of pycocotools, by the same rules.

    PYTHONPATH=. python benchmarks/matching.py

Random pictures with 8 boxes and 80 detections each, of 8 classes. That both find the same is for
test/evaluation/test_average_precision.py to say.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mbnet_perception.core.detections import Detections
from mbnet_perception.evaluation.average_precision import match
from mbnet_perception.evaluation.dataset import Dataset, Picture

CLASSES = tuple("abcdefgh")
HEIGHT, WIDTH = 480, 640


def draw_boxes(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """(count, 4) float32 xyxy."""
    corner = rng.uniform(0, 400, (count, 2))
    return np.hstack([corner, corner + rng.uniform(10, 80, (count, 2))]).astype(np.float32)


def draw_scenes(pictures: int) -> tuple[Dataset, list[Detections]]:
    """Truth, and detections that partly hit it."""
    rng = np.random.default_rng(0)
    every = np.ones(len(CLASSES), bool)
    labelled, seen = [], []
    for n in range(pictures):
        boxes, classes = draw_boxes(rng, 8), rng.integers(len(CLASSES), size=8)
        near = np.repeat(boxes, 5, axis=0) + rng.normal(0, 5, (40, 4)).astype(np.float32)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        labelled.append(
            Picture(
                n, Path(str(n)), HEIGHT, WIDTH, boxes, classes, every, every, draw_boxes(rng, 0)
            )
        )
        seen.append(
            Detections(
                np.vstack([near, draw_boxes(rng, 40)]),
                np.sort(rng.random(80).astype(np.float32))[::-1],
                np.concatenate([np.repeat(classes, 5), rng.integers(len(CLASSES), size=40)]),
            )
        )
    return Dataset(CLASSES, tuple(labelled)), seen


def match_by_pycocotools(dataset: Dataset, detections: list[Detections]) -> None:
    """The same by COCOeval, for any height."""
    truths, rows = [], []
    for n, (picture, found) in enumerate(zip(dataset.pictures, detections, strict=True)):
        for box, k in zip(picture.boxes.tolist(), picture.classes.tolist(), strict=True):
            width, height = box[2] - box[0], box[3] - box[1]
            truths.append(
                {"id": len(truths) + 1, "image_id": n, "category_id": k, "iscrowd": 0}
                | {"bbox": [*box[:2], width, height], "area": width * height}
            )
        for box, score, k in zip(found.boxes, found.scores, found.classes, strict=True):
            rows.append((n, *box[:2], *(box[2:] - box[:2]), score, k))
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": n} for n in range(len(detections))],
        "categories": [{"id": k} for k in range(len(CLASSES))],
        "annotations": truths,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(np.array(rows, np.float64)), "bbox")
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()


def main() -> None:
    """Time both, three times in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=1000)
    args = parser.parse_args()
    dataset, detections = draw_scenes(args.pictures)
    for _ in range(3):
        started = time.perf_counter()
        match(dataset, detections, CLASSES)
        between = time.perf_counter()
        match_by_pycocotools(dataset, detections)
        ended = time.perf_counter()
        ours, theirs = between - started, ended - between
        print(
            f"ours {args.pictures / ours:6.0f} pictures/s   "
            f"pycocotools {args.pictures / theirs:6.0f} pictures/s   ratio {theirs / ours:.1f}"
        )


if __name__ == "__main__":
    main()

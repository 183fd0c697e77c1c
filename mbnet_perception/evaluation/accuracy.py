"""How well a detector does on labelled pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mbnet_perception.core.detections import Detections, Selection
from mbnet_perception.core.images import Picture
from mbnet_perception.evaluation.average_precision import Result, measure
from mbnet_perception.evaluation.dataset import Dataset, read_picture
from mbnet_perception.inference.detector import Detector

# AP is the area under a curve over all scores, so nearly all of them must be reported.
MEASURING = Selection(score_threshold=0.01, iou_threshold=0.5, max_detections=100)


def measure_detector(
    dataset: Dataset, classes: Sequence[str], detect: Callable[[NDArray[np.uint8]], Detections]
) -> Result:
    """Measure whatever finds objects in a (H, W, 3) uint8 BGR picture.

    Args:
        dataset: Pictures and truth.
        classes: Names that the detections' class indices mean.
        detect: Is called with each picture in turn.

    Raises:
        DatasetError: If a picture cannot be read.
    """
    pictures = tqdm(dataset.pictures, "evaluate", file=sys.stderr, mininterval=2, disable=None)
    found = [detect(read_picture(picture)) for picture in pictures]
    return measure(dataset, found, classes)


def measure_model(dataset: Dataset, detector: Detector) -> Result:
    """Measure a model file at its detector's resolution."""
    return measure_detector(
        dataset,
        detector.classes,
        lambda image: detector.detect(Picture.of_bgr(image), MEASURING)[0],
    )

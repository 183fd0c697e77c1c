import json

import cv2
import numpy as np
import pytest

from mbnet_perception.core.detections import Detections
from mbnet_perception.evaluation.accuracy import measure_detector, measure_model
from mbnet_perception.evaluation.dataset import DatasetError, read_coco
from mbnet_perception.inference.detector import Detector

BLUE, GREEN = (255, 0, 0), (0, 255, 0)


@pytest.fixture
def dataset(tmp_path):
    """A blue picture with a car on the left, and a green one, of another size.

    Nobody looked for cars in the green one.
    """
    images = []
    for i, (colour, height) in enumerate(((BLUE, 50), (GREEN, 100))):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((height, 100, 3), colour, np.uint8))
        images.append({"id": i, "file_name": f"{i}.png", "height": height, "width": 100})
    images[0]["neg_category_ids"] = []
    labels = {
        "images": images,
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [0, 0, 50, 50]}],
        "categories": [{"id": 1, "name": "car"}],
    }
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(labels))
    return read_coco(path)


def test_each_picture_is_shown_once_in_order(dataset):
    seen = []

    def detect(image):
        seen.append((image.shape, tuple(image[0, 0].tolist())))
        boxes = np.array([(0, 0, 50, 50)] if len(seen) == 1 else [], np.float32).reshape(-1, 4)
        return Detections(boxes, np.ones(len(boxes), np.float32), np.zeros(len(boxes), np.int64))

    assert measure_detector(dataset, ("car",), detect).ap == pytest.approx(1)
    assert seen == [((50, 100, 3), BLUE), ((100, 100, 3), GREEN)]


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        pytest.param(0.5, 1.0, id="before the false alarm"),
        pytest.param(0.02, 0.5, id="after it, with hardly a score"),
    ],
)
def test_a_model_is_measured_over_low_scores_too(
    dataset, make_model, make_metadata, score, expected
):
    # Whatever it is shown, the model sees a car on the left, and one on the right with score 0.4.
    props = make_metadata(classes=["car"]).as_props()
    model = make_model([(0, 0, 0.5, 1), (0.5, 0, 1, 1)], [[score], [0.4]], props)
    result = measure_model(dataset, Detector(model, 64, num_threads=1))
    assert result.ap50 == pytest.approx(expected)


def test_a_picture_that_is_missing_is_named(dataset):
    dataset.pictures[0].path.unlink()
    with pytest.raises(DatasetError, match=r"0\.png: missing"):
        measure_detector(dataset, ("car",), detect=None)

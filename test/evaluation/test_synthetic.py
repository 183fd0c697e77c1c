import json
from itertools import pairwise

import numpy as np
import pytest

from mbnet_perception.core.scene import CLASSES
from mbnet_perception.evaluation.dataset import read_coco, read_picture
from mbnet_perception.evaluation.synthetic import write_pictures

SIZE = (160, 120)


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("synthetic"), pictures=7, size=SIZE, seed=4)


def test_labels_are_those_of_whole_pictures(labels):
    dataset = read_coco(labels)
    assert dataset.classes == CLASSES
    assert len(dataset.pictures) == 7
    for picture in dataset.pictures:
        assert read_picture(picture).shape == (120, 160, 3)
        assert picture.exhaustive.all()
        assert (picture.boxes[:, :2] >= 0).all()
        assert (picture.boxes[:, 2:] <= SIZE).all()
        assert (picture.boxes[:, :2] < picture.boxes[:, 2:]).all()
    assert sum(len(picture.boxes) for picture in dataset.pictures) >= 7


def test_moments_of_a_scene_stay_together_and_differ(labels):
    groups = [image["scene_group"] for image in json.loads(labels.read_text())["images"]]
    assert len(set(groups[:6])) == 1
    assert groups[6] != groups[0]
    pictures = [read_picture(picture) for picture in read_coco(labels).pictures]
    assert all((a != b).any() for a, b in pairwise(pictures))


def test_a_seed_decides_everything(labels, tmp_path):
    again = write_pictures(tmp_path / "again", pictures=2, size=SIZE, seed=4)
    other = write_pictures(tmp_path / "other", pictures=2, size=SIZE, seed=5)
    first, same, different = (read_coco(path).pictures for path in (labels, again, other))
    for picture, twin in zip(first[:2], same, strict=True):
        assert picture.path.read_bytes() == twin.path.read_bytes()
        np.testing.assert_array_equal(picture.boxes, twin.boxes)
        np.testing.assert_array_equal(picture.classes, twin.classes)
    assert different[0].path.read_bytes() != same[0].path.read_bytes()


def test_no_pictures_are_refused(tmp_path):
    with pytest.raises(ValueError, match="pictures must be positive, got 0"):
        write_pictures(tmp_path, 0)

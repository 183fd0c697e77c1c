import cv2
import numpy as np
import pytest

from mbnet_perception.evaluation.bdd100k import bdd100k_dataset
from mbnet_perception.evaluation.dataset import DatasetError

HEIGHT, WIDTH = 36, 64
SIZE = {"width": WIDTH, "height": HEIGHT}


def label(category, x1=10.5, y1=4.0, x2=19.5, y2=13.0, **fields):
    return {"category": category, "box2d": {"x1": x1, "y1": y1, "x2": x2, "y2": y2}, **fields}


def frame(name="a.jpg", labels=(), **fields):
    return {"name": name, "labels": list(labels), "size": SIZE, **fields}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.json"


def test_the_last_pixel_belongs_to_the_box(path, tmp_path):
    dataset = bdd100k_dataset([frame(labels=[label("car", 0, 0, WIDTH - 1, HEIGHT - 1)])], path)
    (picture,) = dataset.pictures
    assert picture.boxes.tolist() == [[0, 0, WIDTH, HEIGHT]]
    assert picture.path == tmp_path / "a.jpg"


def test_every_class_that_occurs_was_looked_for_in_every_picture(path):
    lane = {"category": "lane", "poly2d": [{"vertices": [[0, 0], [9, 9]]}]}
    frames = [frame("a.jpg", [label("rider"), lane]), frame("b.jpg", [label("car"), label("bus")])]
    dataset = bdd100k_dataset([*frames, {"name": "c.jpg", "labels": None, "size": SIZE}], path)
    assert dataset.classes == ("bus", "car", "rider")
    assert [picture.classes.tolist() for picture in dataset.pictures] == [[2], [1, 0], []]
    for picture in dataset.pictures:
        assert picture.verified.tolist() == picture.exhaustive.tolist() == [True] * 3


def test_an_export_of_scalabel_lists_its_classes(path):
    config = {
        "imageSize": SIZE,
        "categories": [
            {"name": "human", "subcategories": [{"name": "pedestrian"}, {"name": "rider"}]},
            {"name": "car"},
            "bus",
        ],
    }
    frames = [{"name": "a.jpg", "labels": [label("car")]}]
    dataset = bdd100k_dataset({"frames": frames, "config": config}, path)
    assert dataset.classes == ("bus", "car", "pedestrian", "rider")
    (picture,) = dataset.pictures
    assert (picture.height, picture.width) == (HEIGHT, WIDTH)
    assert picture.verified.all()


@pytest.mark.parametrize("attribute", ["crowd", "ignored"])
def test_crowds_and_what_is_ignored_become_areas(path, attribute):
    labels = [
        label("person", attributes={attribute: True}),
        label("car", attributes={attribute: False, "occluded": True}),
        label("car", attributes=None),
    ]
    dataset = bdd100k_dataset([frame(labels=labels)], path)
    (picture,) = dataset.pictures
    assert dataset.classes == ("car", "person")
    assert picture.classes.tolist() == [0, 0]
    assert picture.ignore.tolist() == [[10.5, 4, 20.5, 14]]


def test_frames_of_a_video_are_a_scene_group_and_may_have_a_folder(path, tmp_path):
    (tmp_path / "drive").mkdir()
    (tmp_path / "drive" / "a.jpg").touch()
    frames = [frame("a.jpg", videoName="drive"), frame("b.jpg", videoName="drive")]
    pictures = bdd100k_dataset(frames, path).pictures
    assert [picture.path for picture in pictures] == [tmp_path / "drive/a.jpg", tmp_path / "b.jpg"]
    assert [picture.scene_group for picture in pictures] == ["drive", "drive"]


def test_a_size_that_is_not_told_is_read_from_the_picture(path, tmp_path):
    pictures = tmp_path / "images"
    pictures.mkdir()
    cv2.imwrite(str(pictures / "a.jpg"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    frames = [{"name": "a.jpg", "labels": [label("car")]}, {"name": "b.jpg"}]
    with pytest.raises(DatasetError, match=rf"^{pictures}/b\.jpg: missing or unreadable"):
        bdd100k_dataset(frames, path, pictures)
    dataset = bdd100k_dataset(frames, path, pictures, on_bad="skip")
    assert [(p.height, p.width) for p in dataset.pictures] == [(HEIGHT, WIDTH)]
    assert [line.startswith(f"{pictures}/b.jpg: missing") for line in dataset.skipped] == [True]


def test_a_box_without_area_is_named(path):
    with pytest.raises(DatasetError, match=rf"^{path}, frame a\.jpg: a box from \(30, 4\) to \(20"):
        bdd100k_dataset([frame(labels=[label("car", x1=30)])], path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param([], "holds no pictures", id="empty"),
        pytest.param({"a": 1}, "KeyError: 'frames'", id="keys"),
        pytest.param([{"labels": [], "size": SIZE}], "KeyError: 'name'", id="no name"),
        pytest.param(["a.jpg"], "AttributeError", id="names alone"),
        pytest.param([frame(labels=[{"box2d": {"x1": 1}}])], "KeyError: 'y1'", id="no corner"),
        pytest.param([frame("../a.jpg")], r"'\.\./a\.jpg' lies outside", id="above"),
        pytest.param([frame(videoName="/etc")], "'/etc/a.jpg' lies outside", id="video"),
    ],
)
def test_what_is_no_such_file_is_named(path, content, message):
    with pytest.raises(DatasetError, match=rf"^{path}: .*{message}"):
        bdd100k_dataset(content, path)

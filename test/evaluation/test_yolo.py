import re

import cv2
import numpy as np
import pytest

from mbnet_perception.evaluation.dataset import DatasetError
from mbnet_perception.evaluation.yolo import read_yolo

HEIGHT, WIDTH = 50, 100


@pytest.fixture
def add(tmp_path):
    """Write a picture, and its labels where they are given."""

    def add(name, labels=None, folder="train"):
        picture = tmp_path / "images" / folder / name
        picture.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(picture), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        file = tmp_path / "labels" / folder / f"{picture.stem}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        if labels is not None:
            file.write_text(labels)
        return file

    return add


@pytest.fixture
def data(tmp_path):
    def data(text="train: images/train\nval: images/val\nnames: [person, car, bus]"):
        path = tmp_path / "data.yaml"
        path.write_text(text)
        return path

    return data


def test_fractions_become_pixels(add, data, tmp_path):
    add("a.jpg", "1 0.5 0.5 0.2 0.4\n\n0 0.25 0.5 0.5 1\n")
    dataset = read_yolo(data(), "train")
    assert dataset.classes == ("person", "car", "bus")
    (picture,) = dataset.pictures
    assert (picture.height, picture.width) == (HEIGHT, WIDTH)
    assert picture.path == tmp_path / "images" / "train" / "a.jpg"
    assert picture.classes.tolist() == [1, 0]
    np.testing.assert_allclose(picture.boxes, [[40, 15, 60, 35], [0, 0, 50, 50]], atol=1e-4)
    assert picture.verified.tolist() == picture.exhaustive.tolist() == [True] * 3


def test_a_polygon_is_taken_by_its_box(add, data):
    add("a.jpg", "2 0.1 0.2 0.3 0.8 0.2 0.4\n")
    (picture,) = read_yolo(data(), "train").pictures
    np.testing.assert_allclose(picture.boxes, [[10, 10, 30, 40]], atol=1e-4)


def test_pictures_without_labels_hold_nothing(add, data):
    add("a.jpg", "0 0.5 0.5 0.2 0.2")
    add("b.png", "")
    add("c.webp")
    pictures = read_yolo(data(), "train").pictures
    assert [picture.path.name for picture in pictures] == ["a.jpg", "b.png", "c.webp"]
    assert [len(picture.boxes) for picture in pictures] == [1, 0, 0]
    assert pictures[2].verified.all()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("train: images/train\nnames: {0: person, 1: car}", id="mapping"),
        pytest.param("path: .\ntrain: images/train\nnames: [person, car]", id="path"),
        pytest.param("path: images\ntrain: train\nnames: [person, car]", id="labels beside"),
        pytest.param("train: ../images/train\nnames: [person, car]", id="Roboflow"),
        pytest.param("train: [images/train]\nnames: [person, car]", id="list"),
        pytest.param("train: list.txt\nnames: [person, car]", id="file"),
    ],
)
def test_ways_to_say_where_the_pictures_are(add, data, tmp_path, text):
    labels = add("a.jpg", "1 0.5 0.5 0.2 0.2")
    if "path: images" in text:  # then no folder called images is left to stand for labels
        labels.rename(tmp_path / "images" / "train" / "a.txt")
    (tmp_path / "list.txt").write_text("./images/train/a.jpg\n\nimages/train/a.jpg\n")
    dataset = read_yolo(data(text))  # it has but one split
    assert dataset.classes == ("person", "car")
    (picture,) = dataset.pictures
    assert picture.classes.tolist() == [1]


def test_only_the_last_folder_called_images_stands_for_labels(tmp_path, data):
    picture = tmp_path / "images" / "day" / "images" / "a.jpg"
    label = tmp_path / "images" / "day" / "labels" / "a.txt"
    for file in (picture, label):
        file.parent.mkdir(parents=True)
    cv2.imwrite(str(picture), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    label.write_text("0 0.5 0.5 1 1")
    (found,) = read_yolo(data("train: images\nnames: [car]")).pictures
    assert found.boxes.tolist() == [[0, 0, 100, 50]]


def test_pictures_may_lie_elsewhere(add, tmp_path):
    add("a.jpg", "0 0.5 0.5 0.2 0.2")
    file = tmp_path / "elsewhere" / "data.yaml"
    file.parent.mkdir()
    file.write_text("path: /content/dataset\ntrain: images/train\nnames: [car]")
    with pytest.raises(DatasetError, match=rf"^{file}: '/content/dataset' lies outside"):
        read_yolo(file)
    assert len(read_yolo(file, pictures=tmp_path).pictures) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("3 0.5 0.5 0.1 0.1", "a class from 0 to 2, got 3", id="class"),
        pytest.param("-1 0.5 0.5 0.1 0.1", "a class from 0 to 2, got -1", id="negative class"),
        pytest.param("1.5 0.5 0.5 0.1 0.1", "a class from 0 to 2, got 1.5", id="broken class"),
        pytest.param("inf 0.5 0.5 0.1 0.1", "a class from 0 to 2, got inf", id="infinite class"),
        pytest.param("0 50 25 10 10", "fractions of the picture, from 0 to 1", id="pixels"),
        pytest.param("0 nan 0.5 0.1 0.1", "fractions of the picture", id="no number"),
        pytest.param("0 0.5 0.5 0.1", "polygon, got 4 numbers", id="too few"),
        pytest.param("0 0.5 0.5 0.1 0.1 0.9", "polygon, got 6 numbers", id="score"),
        pytest.param("car 0.5 0.5 0.1 0.1", "could not convert string to float: 'car'", id="name"),
    ],
)
def test_a_bad_line_stops_or_its_picture_is_left_out_and_told(add, data, line, message):
    bad = add("bad.jpg", f"0 0.5 0.5 0.1 0.1\n{line}\n")
    add("good.jpg", "0 0.5 0.5 0.1 0.1\n")
    message = rf"^{bad}, line 2: .*{message}"
    with pytest.raises(DatasetError, match=message):
        read_yolo(data(), "train")
    dataset = read_yolo(data(), "train", on_bad="skip")
    assert [picture.path.name for picture in dataset.pictures] == ["good.jpg"]
    (told,) = dataset.skipped
    assert re.match(message, told)


def test_a_box_without_area_is_left_out_and_told(add, data):
    file = add("a.jpg", "0 0.5 0.5 0 0.1\n0 0.5 0.5 0.2 0.2")
    dataset = read_yolo(data(), "train", on_bad="skip")
    assert len(dataset.pictures[0].boxes) == 1
    assert dataset.pictures[0].exhaustive.tolist() == [False, True, True]
    assert dataset.skipped[0].startswith(f"{file}: a box from (50, 22.5) to (50, 27.5) has no area")


def test_a_picture_that_is_none_is_named(add, data, tmp_path):
    add("a.jpg", "0 0.5 0.5 0.2 0.2")
    (tmp_path / "images" / "train" / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match=r"images/train/a\.jpg: no picture that OpenCV can"):
        read_yolo(data(), "train")
    with pytest.raises(DatasetError, match=r"data\.yaml: train holds no pictures that can be used"):
        read_yolo(data(), "train", on_bad="skip")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "train: images/train\nval: x\nnames: [a]", r"\['train', 'val'\].*None", id="2"
        ),
        pytest.param("test: x\nnames: [a]\nnc: 1", "x is neither", id="1"),
        pytest.param("names: [a]", r"one of the splits \[\]", id="0"),
        pytest.param("train: images/train", "expected names, .* got None", id="no names"),
        pytest.param("train: x\nnames: {1: a}", r"from 0, 1, .*got \{1: 'a'\}", id="from 1"),
        pytest.param("train: nowhere\nnames: [a]", "nowhere is neither", id="nowhere"),
        pytest.param("train: ../../x\nnames: [a]", r"'\.\./x' lies outside", id="above"),
        pytest.param("path: ..\ntrain: x\nnames: [a]", r"'\.\.' lies outside", id="root above"),
        pytest.param("train: empty\nnames: [a]", r"train holds no pictures \(\.jpg", id="empty"),
        pytest.param(
            "train: images/val\nnames: [a]",
            r"none of the 1 pictures.*labels/val/v\.txt",
            id="no labels",
        ),
        pytest.param("[a, b]", "expected keys and values, got list", id="list"),
        pytest.param("a: [", "expected YAML", id="no YAML"),
        pytest.param("train: !!python/object/apply:os.system [x]", "expected YAML", id="code"),
    ],
)
def test_a_file_that_makes_no_sense_is_named(add, data, tmp_path, text, message):
    (tmp_path / "empty").mkdir()
    add("v.jpg", folder="val")
    file = data(text)
    with pytest.raises(DatasetError, match=rf"(?s)^{file}: .*{message}"):
        read_yolo(file)

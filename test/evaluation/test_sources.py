import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from mbnet_perception.evaluation.dataset import Dataset, DatasetError, Picture
from mbnet_perception.evaluation.sources import (
    ClassMap,
    Source,
    map_classes,
    parse_labels,
    read_class_map,
    read_labels,
    read_sources,
)

HEIGHT, WIDTH = 24, 32


def draw(path, size=(HEIGHT, WIDTH)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), 90, np.uint8))
    return path


def write_coco(path, names, files=("a.jpg",), classes=(0,)):
    """Each picture holds one box of each of the classes given by place."""
    content = {
        "images": [
            {"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for i, name in enumerate(files)
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate(names)],
        "annotations": [
            {"id": 1, "image_id": i, "category_id": k, "bbox": [4, 5, 10, 10]}
            for i in range(len(files))
            for k in classes
        ],
    }
    path.write_text(json.dumps(content))
    return path


def write_bdd100k(path, frames=True):
    box = {"x1": 4, "y1": 5, "x2": 13, "y2": 14}
    content = [{"name": "a.jpg", "labels": [{"category": "car", "box2d": box}]}]
    path.write_text(json.dumps({"frames": content} if frames else content))
    return path


def write_voc(folder):
    (folder / "Annotations").mkdir()
    (folder / "JPEGImages").mkdir()
    draw(folder / "JPEGImages" / "a.jpg")
    (folder / "Annotations" / "a.xml").write_text(
        "<annotation><object><name>car</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>14</xmax>"
        "<ymax>15</ymax></bndbox></object></annotation>"
    )
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("a\n")
    return folder


def write_yolo(folder):
    draw(folder / "images" / "a.jpg")
    (folder / "labels").mkdir()
    x, y, width, height = 9 / WIDTH, 10 / HEIGHT, 10 / WIDTH, 10 / HEIGHT
    (folder / "labels" / "a.txt").write_text(f"0 {x} {y} {width} {height}")
    (folder / "data.yaml").write_text("train: images\nval: images\nnames: [car]")
    return folder


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda f: write_coco(f / "labels.json", ["car"]), id="COCO"),
        pytest.param(lambda f: write_bdd100k(f / "labels.json"), id="BDD100K"),
        pytest.param(lambda f: write_bdd100k(f / "labels.json", frames=False), id="BDD100K list"),
        pytest.param(write_voc, id="VOC"),
        pytest.param(lambda f: write_voc(f).with_name(f"{f.name}:val"), id="VOC split"),
        pytest.param(lambda f: write_yolo(f) / "data.yaml:val", id="YOLO"),
        pytest.param(lambda f: write_yolo(f).with_name(f"{f.name}:train"), id="YOLO folder"),
    ],
)
def test_the_same_box_comes_out_of_every_format(tmp_path, make):
    draw(tmp_path / "a.jpg")
    dataset = read_labels(make(tmp_path))
    assert dataset.classes == ("car",)
    (picture,) = dataset.pictures
    np.testing.assert_allclose(picture.boxes, [[4, 5, 14, 15]], atol=1e-5)
    assert picture.verified.tolist() == picture.exhaustive.tolist() == [True]
    assert (picture.height, picture.width) == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param(None, None, r"expected data\.yaml \(YOLO\) or Annotations/", id="folder"),
        pytest.param("a.json", "{}", "expected COCO JSON", id="some JSON"),
        pytest.param("a.json", "3", "expected COCO JSON", id="number"),
        pytest.param("a.json:val", None, "cannot be read: No such file", id="missing"),
    ],
)
def test_what_is_no_data_set_is_named(tmp_path, name, content, message):
    path = tmp_path / name if name else tmp_path
    if content:
        path.write_text(content)
    with pytest.raises(DatasetError, match=message):
        read_labels(path)


def test_a_json_file_has_no_splits(tmp_path):
    path = write_coco(tmp_path / "a.json", ["car"])
    with pytest.raises(DatasetError, match=rf"^{path}: a JSON file has no splits, got 'val'"):
        read_labels(tmp_path / "a.json:val")


def a_picture(boxes_of, verified, exhaustive, ignore=()):
    """A picture with one box for each class named by place; box k is k + 1 pixels wide."""
    return Picture(
        identifier=1,
        path=Path("a.jpg"),
        height=HEIGHT,
        width=WIDTH,
        boxes=np.array([[0, 0, k + 1, 5] for k in boxes_of], np.float32).reshape(-1, 4),
        classes=np.array(boxes_of, np.int64),
        verified=np.array(verified, bool),
        exhaustive=np.array(exhaustive, bool),
        ignore=np.array(ignore, np.float32).reshape(-1, 4),
    )


NAMES = ("van", "cat", "car", "trailer")
MAP = ClassMap(
    ("person", "car"), {"van": "car", "trailer": None}, frozenset({"cat"}), origin="map.yaml"
)


def mapped(picture, class_map=MAP):
    dataset = map_classes(Dataset(NAMES, (picture,), ("told",)), class_map, Path("labels.json"))
    assert dataset.classes == class_map.classes
    assert dataset.skipped == ("told",)
    return dataset.pictures[0]


def test_classes_are_called_as_the_map_says():
    picture = mapped(a_picture([0, 1, 2, 3], [1, 1, 1, 1], [1, 1, 1, 1], [[9, 9, 12, 12]]))
    assert picture.classes.tolist() == [1, 1]  # van and car
    assert picture.boxes[:, 2].tolist() == [1, 3]
    assert picture.ignore.tolist() == [[9, 9, 12, 12], [0, 0, 4, 5]]  # the trailer; no cat
    assert picture.verified.tolist() == picture.exhaustive.tolist() == [False, True]


@pytest.mark.parametrize(
    ("verified", "exhaustive", "expected"),
    [
        pytest.param([1, 0, 1, 0], [1, 0, 1, 0], (True, True), id="both"),
        pytest.param([0, 0, 1, 0], [0, 0, 1, 0], (True, False), id="a van may be there"),
        pytest.param([1, 0, 1, 0], [0, 0, 1, 0], (True, False), id="more vans may be there"),
        pytest.param([0, 0, 1, 0], [1, 0, 1, 0], (True, False), id="not looked for, so unknown"),
        pytest.param([0, 1, 0, 1], [0, 1, 0, 1], (False, False), id="neither"),
    ],
)
def test_of_two_names_for_one_class_both_must_be_known(verified, exhaustive, expected):
    picture = mapped(a_picture([], verified, exhaustive))
    assert (picture.verified[1], picture.exhaustive[1]) == expected


def test_what_the_map_says_goes_before_a_class_of_the_same_name():
    class_map = ClassMap(("car", "van"), {"van": "car"}, frozenset({"cat", "trailer"}))
    assert mapped(a_picture([0, 2], [1] * 4, [1] * 4), class_map).classes.tolist() == [0, 0]


def test_a_name_that_the_map_does_not_list_is_an_error_where_it_has_boxes():
    class_map = ClassMap(("car",), origin="map.yaml")
    mapped(a_picture([2], [1, 1, 1, 1], [1, 1, 1, 1]), class_map)
    with pytest.raises(
        DatasetError, match=r"^labels\.json: classes \['van', 'cat'\] .*\['car'\] of map\.yaml"
    ):
        mapped(a_picture([1, 0, 2], [1, 1, 1, 1], [1, 1, 1, 1]), class_map)


def test_a_source_without_any_of_the_classes_is_an_error():
    class_map = ClassMap(("bus",), {"trailer": None})
    with pytest.raises(DatasetError, match=r"^labels\.json: none of its classes .* \['bus'\]"):
        mapped(a_picture([3], [1, 1, 1, 1], [1, 1, 1, 1]), class_map)


def test_a_class_map_of_a_file(tmp_path):
    path = tmp_path / "map.yaml"
    path.write_text(
        "classes: [person, car]\nnames: {van: car, trailer: null, 'no': null}\nbackground: [cat]"
    )
    assert read_class_map(path) == ClassMap(
        ("person", "car"),
        {"van": "car", "trailer": None, "no": None},
        frozenset({"cat"}),
        origin=str(path),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("classes: [car", "expected YAML", id="no YAML"),
        pytest.param("- car", "expected classes and maybe names, background; got list", id="list"),
        pytest.param("classes: [car]\nname: {}", r"got \['classes', 'name'\]", id="misspelt"),
        pytest.param("names: {a: b}", r"got \['names'\]", id="no classes"),
        pytest.param("classes: car", "classes must be a list of names, got 'car'", id="word"),
        pytest.param("classes: []", r"classes must be given, each once, got \[\]", id="empty"),
        pytest.param("classes: [a, a]", "each once", id="twice"),
        pytest.param("classes: [a, yes]", "must be a list of names", id="YAML's yes"),
        pytest.param("classes: [a]\nnames: [b]", "names must be a mapping", id="names' list"),
        pytest.param("classes: [a]\nnames: {b: 3}", "names must be a mapping", id="number"),
        pytest.param("classes: [a]\nnames: {b: c}", r"\{'b': 'c'\} lead to none", id="nowhere"),
        pytest.param("classes: [a]\nbackground: b", "background must be a list", id="background"),
        pytest.param(
            "classes: [a]\nnames: {b: a}\nbackground: [b]",
            r"\['b'\] cannot be background and",
            id="both",
        ),
    ],
)
def test_a_class_map_that_makes_no_sense_is_named(tmp_path, text, message):
    path = tmp_path / "map.yaml"
    path.write_text(text)
    with pytest.raises(DatasetError, match=rf"^{path}: .*{message}"):
        read_class_map(path)


def test_the_map_that_comes_along_knows_bdd100k():
    config = Path(__file__).parents[2] / "config" / "training" / "class_map.yaml"
    class_map = read_class_map(config)
    # Of the releases of 2018 and 2020 (bdd100k/configs/det.toml).
    both = ["rider", "car", "truck", "bus", "train", "traffic light", "traffic sign"]
    old = ["person", "motor", "bike"]
    new = ["pedestrian", "motorcycle", "bicycle", "other person", "other vehicle", "trailer"]
    known = {*class_map.classes, *class_map.names, *class_map.background}
    assert {*both, *old, *new} <= known
    assert class_map.names["motor"] == "motorcycle"


@pytest.fixture
def mixed(tmp_path):
    """Two COCO sources: one of cars and persons, one of cars alone."""
    for name in ("a.jpg", "b.jpg"):
        draw(tmp_path / name)
    return (
        write_coco(tmp_path / "first.json", ["person", "car"], ["a.jpg"], [0, 1]),
        write_coco(tmp_path / "second.json", ["car"], ["b.jpg"]),
    )


def test_sources_are_mixed_in_the_classes_of_the_first(mixed):
    first, second = read_sources([Source(mixed[0]), Source(mixed[1], weight=2.5)])
    assert [weight for _, weight in (first, second)] == [1, 2.5]
    assert first[0].classes == second[0].classes == ("person", "car")
    (picture,) = second[0].pictures
    assert picture.classes.tolist() == [1]
    # Nobody looked for persons there.
    assert picture.verified.tolist() == picture.exhaustive.tolist() == [False, True]


def test_sources_of_further_classes_need_a_map(mixed):
    backwards = [Source(mixed[1]), Source(mixed[0])]
    with pytest.raises(DatasetError, match=rf"^{mixed[0]}: classes \['person'\].*{mixed[1]}"):
        read_sources(backwards)
    class_map = ClassMap(("car", "person"))
    first, second = (dataset for dataset, _ in read_sources(backwards, class_map))
    assert first.classes == second.classes == ("car", "person")


def test_pictures_of_a_source_may_lie_elsewhere(mixed, tmp_path):
    moved = draw(tmp_path / "elsewhere" / "b.jpg")
    ((dataset, _),) = read_sources([Source(mixed[1], moved.parent)])
    assert dataset.pictures[0].path == moved


@pytest.mark.parametrize("weight", [0, -1, math.inf, math.nan])
def test_a_weight_is_positive(weight):
    with pytest.raises(ValueError, match=r"a\.json: weight must be positive, got"):
        Source(Path("a.json"), weight=weight)


def test_no_sources_are_an_error():
    with pytest.raises(ValueError, match="expected at least one data set"):
        read_sources([])


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


def damage(png):
    """Overwrite the pixels' beginning; the header and the end stay whole."""
    content = bytearray(png.read_bytes())
    at = content.index(b"IDAT") + 4
    content[at : at + 8] = bytes(8)
    png.write_bytes(content)
    return png


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(Path.unlink, "missing or unreadable", id="missing"),
        pytest.param(truncate, "truncated JPEG", id="truncated"),
        pytest.param(lambda path: path.write_bytes(b""), "no picture", id="empty"),
        pytest.param(
            lambda path: draw(path, (WIDTH, HEIGHT)),
            "is 24 x 32 pixels, but .*32 x 24",
            id="turned",
        ),
    ],
)
def test_a_bad_picture_stops_or_is_left_out_and_told(tmp_path, spoil, message):
    files = [draw(tmp_path / name) for name in ("a.jpg", "bad.jpg", "c.jpg")]
    path = write_coco(tmp_path / "labels.json", ["car"], [file.name for file in files])
    spoil(files[1])
    with pytest.raises(DatasetError, match=rf"^{files[1]}: {message}.*on_bad: skip"):
        read_labels(path)
    dataset = read_labels(path, on_bad="skip")
    assert [picture.path.name for picture in dataset.pictures] == ["a.jpg", "c.jpg"]
    (line,) = dataset.skipped
    assert line.startswith(f"{files[1]}: ")
    assert len(parse_labels(path).pictures) == 3  # which looks at no picture


def test_all_that_is_left_out_is_told(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0 0.5")
    damaged = damage(draw(tmp_path / "images" / "b.png"))
    first, second = read_labels(tmp_path / "data.yaml:train", on_bad="skip").skipped
    assert "has no area" in first
    assert second.startswith(f"{damaged}: no picture")


def test_a_picture_that_only_fails_when_decoded_is_left_out_with_skip(tmp_path):
    damage(draw(tmp_path / "a.png"))
    draw(tmp_path / "b.png")
    path = write_coco(tmp_path / "labels.json", ["car"], ["a.png", "b.png"])
    assert len(read_labels(path).pictures) == 2
    assert [p.path.name for p in read_labels(path, on_bad="skip").pictures] == ["b.png"]


def test_no_picture_that_can_be_used_is_an_error(tmp_path):
    path = write_coco(tmp_path / "labels.json", ["car"])
    with pytest.raises(DatasetError, match=rf"^{path}: none of its 1 pictures.*a\.jpg: missing"):
        read_labels(path, on_bad="skip")

import json

import cv2
import numpy as np
import pytest

from mbnet_perception.evaluation.dataset import DatasetError, read_coco, read_picture

# Ids are not in order and do not start at 1, so that an id is never taken for an index.
CATEGORIES = [{"id": 7, "name": "car"}, {"id": 3, "name": "person"}, {"id": 5, "name": "bus"}]


def image(identifier=1, **fields):
    return {"id": identifier, "file_name": "images/a.png", "height": 48, "width": 64, **fields}


def annotation(category=7, bbox=(1, 2, 10, 20), image_id=1, **fields):
    return {"id": 9, "image_id": image_id, "category_id": category, "bbox": bbox, **fields}


@pytest.fixture
def write(tmp_path):
    def write(images, annotations=(), **changes):
        path = tmp_path / "labels.json"
        content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        path.write_text(json.dumps({**content, **changes}))
        return path

    return write


def test_federated_labels(write, tmp_path):
    path = write(
        [
            image(
                neg_category_ids=[5], not_exhaustive_category_ids=[3], ignore_boxes=[[5, 6, 7, 8]]
            ),
            image(2, file_name="b.png", neg_category_ids=[]),
        ],
        [annotation(7), annotation(3, [0, 0, 5, 5]), annotation(3, [8, 8, 4, 2])],
    )
    dataset = read_coco(path)
    assert dataset.classes == ("car", "person", "bus")
    first, second = dataset.pictures
    assert (first.identifier, first.height, first.width) == (1, 48, 64)
    assert first.path == tmp_path / "images" / "a.png"
    assert first.boxes.tolist() == [[1, 2, 11, 22], [0, 0, 5, 5], [8, 8, 12, 10]]
    assert first.classes.tolist() == [0, 1, 1]
    assert first.verified.tolist() == [True, True, True]  # boxes, boxes, looked for in vain
    assert first.exhaustive.tolist() == [True, False, True]
    assert first.ignore.tolist() == [[5, 6, 12, 14]]
    assert second.verified.tolist() == second.exhaustive.tolist() == [False] * 3


def test_a_class_with_boxes_alone_is_verified(write):
    picture = read_coco(write([image(neg_category_ids=[])], [annotation(3)])).pictures[0]
    assert picture.verified.tolist() == picture.exhaustive.tolist() == [False, True, False]


def test_plain_coco_was_looked_for_in_every_class(write):
    empty, full = read_coco(write([image(1), image(2)], [annotation(7, image_id=2)])).pictures
    assert empty.boxes.shape == empty.ignore.shape == (0, 4)
    assert empty.classes.shape == (0,)
    for picture in (empty, full):
        assert picture.verified.tolist() == picture.exhaustive.tolist() == [True] * 3


def test_crowds_become_ignore_areas(write):
    crowd = annotation(3, [10, 10, 20, 5], iscrowd=1)
    picture = read_coco(write([image(ignore_boxes=[[0, 0, 1, 1]])], [annotation(7), crowd]))
    (picture,) = picture.pictures
    assert picture.classes.tolist() == [0]
    assert sorted(picture.ignore.tolist()) == [[0, 0, 1, 1], [10, 10, 30, 15]]


WITHOUT_AREA = [
    pytest.param([1, 2, 0, 5], id="no width"),
    pytest.param([1, 2, 5, 0], id="no height"),
    pytest.param([1, 2, -3, 5], id="width below 0"),
    pytest.param([1, float("nan"), 3, 5], id="no number"),
    pytest.param([64, 2, 3, 5], id="right of the picture"),
    pytest.param([1, -5, 3, 5], id="above the picture"),
]


@pytest.mark.parametrize("bbox", WITHOUT_AREA)
def test_a_box_without_area_stops(write, bbox):
    path = write([image(4)], [annotation(bbox=bbox, image_id=4)])
    expected = rf"^{path}, picture 4: a box .* no area inside the 64 x 48 pixels of a\.png; .*skip"
    with pytest.raises(DatasetError, match=expected):
        read_coco(path)


@pytest.mark.parametrize("bbox", WITHOUT_AREA)
def test_a_box_without_area_is_left_out_and_told(write, bbox):
    path = write([image()], [annotation(7, bbox), annotation(7), annotation(3)])
    dataset = read_coco(path, on_bad="skip")
    (picture,) = dataset.pictures
    assert picture.classes.tolist() == [0, 1]
    # A car is somewhere without a box, so not all cars have one.
    assert picture.verified.tolist() == [True, True, True]
    assert picture.exhaustive.tolist() == [False, True, True]
    (line,) = dataset.skipped
    assert line.startswith(f"{path}, picture 1: a box from ({bbox[0]:g}, {bbox[1]:g}) to ")


def test_a_box_that_sticks_out_stays(write):
    (picture,) = read_coco(write([image()], [annotation(bbox=[-2, 40, 10, 20])])).pictures
    assert picture.boxes.tolist() == [[-2, 40, 8, 60]]


def test_pictures_may_lie_elsewhere(write, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (picture,) = read_coco(write([image()]), pictures=elsewhere).pictures
    assert picture.path == elsewhere / "images" / "a.png"


def test_pictures_know_their_scene(write):
    first, second = read_coco(write([image(1, scene_group="drive 3"), image(2)])).pictures
    assert (first.scene_group, second.scene_group) == ("drive 3", "")


def test_what_to_do_about_bad_data_is_stop_or_skip(write):
    with pytest.raises(ValueError, match="on_bad must be 'stop' or 'skip', got 'ignore'"):
        read_coco(write([image()]), on_bad="ignore")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param([[image(file_name="../a.png")]], r"'\.\./a\.png' lies outside", id="above"),
        pytest.param([[image(file_name="/a.png")]], "'/a.png' lies outside", id="absolute"),
        pytest.param([[image(file_name="a\0.png")]], r"'a\\x00.png' is no file name", id="no name"),
        pytest.param([[image()], [annotation(4)]], "annotation 9 has category 4", id="category"),
        pytest.param([[image()], [annotation(image_id=8)]], r"unknown picture ids \[8\]", id="id"),
        pytest.param(
            [[image()], [annotation(image_id=8, iscrowd=1)]], r"picture ids \[8\]", id="crowd's id"
        ),
        pytest.param([[image(neg_category_ids=[4])]], "expected COCO JSON.*4", id="negative"),
        pytest.param([[image()], [annotation(bbox=[1, 2, 3])]], "expected COCO JSON", id="box"),
        pytest.param([[{"id": 1}]], "expected COCO JSON.*'file_name'", id="field"),
        pytest.param([[]], "holds no pictures", id="no pictures"),
    ],
)
def test_a_label_file_that_makes_no_sense_is_named(write, arguments, message):
    path = write(*arguments)
    with pytest.raises(DatasetError, match=rf"^{path}: .*{message}"):
        read_coco(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b'{"images": [', "expected JSON", id="cut off"),
        pytest.param(b"\xff\xd8\xff", "expected text in UTF-8", id="a picture"),
        pytest.param(b"[1, 2]", "expected COCO JSON with images", id="a list"),
        pytest.param(b"{}", "'categories'", id="nothing in it"),
        pytest.param(None, "cannot be read: No such file", id="missing"),
    ],
)
def test_what_is_no_label_file_is_named(tmp_path, content, message):
    path = tmp_path / "labels.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError, match=rf"^{path}: .*{message}"):
        read_coco(path)


def test_pictures_are_read_in_blue_green_red(write, tmp_path):
    pixels = np.full((48, 64, 3), (10, 20, 30), np.uint8)
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "a.png"), pixels)
    (picture,) = read_coco(write([image()])).pictures
    np.testing.assert_array_equal(read_picture(picture), pixels)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        pytest.param(None, "missing or unreadable: No such file", id="missing"),
        pytest.param((64, 48), "is 48 x 64 pixels, but its labels are for 64 x 48", id="turned"),
    ],
)
def test_a_picture_that_does_not_fit_its_labels_is_named(write, tmp_path, size, message):
    file = tmp_path / "images" / "a.png"
    file.parent.mkdir()
    if size:
        cv2.imwrite(str(file), np.zeros((*size, 3), np.uint8))
    with pytest.raises(DatasetError, match=rf"^{file}: {message}"):
        read_picture(read_coco(write([image()])).pictures[0])


def test_two_pictures_of_one_id_are_refused(write):
    with pytest.raises(DatasetError, match="two pictures have the same id"):
        read_coco(write([image(1), image(1)]))


def test_a_truncated_picture_is_refused(write, tmp_path):
    (tmp_path / "images").mkdir()
    file = tmp_path / "images" / "a.png"
    content = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
    file.write_bytes(content[:-20])
    with pytest.raises(DatasetError, match=rf"^{file}: truncated JPEG"):
        read_picture(read_coco(write([image()])).pictures[0])

import re

import cv2
import numpy as np
import pytest

from mbnet_perception.evaluation.dataset import DatasetError
from mbnet_perception.evaluation.voc import read_voc

HEIGHT, WIDTH = 48, 64


def an_object(name, xmin, ymin, xmax, ymax, extra=""):
    return (
        f"<object><name>{name}</name>{extra}<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin>"
        f"<xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"
    )


class Folder:
    """A VOC folder that grows by pictures."""

    def __init__(self, path, annotations="Annotations", pictures="JPEGImages"):
        self.path = path
        self.annotations = path / annotations
        self.pictures = path / pictures
        self.annotations.mkdir()
        self.pictures.mkdir()

    def add(self, stem, *objects, picture=None, file_name=None, size=(WIDTH, HEIGHT), before=""):
        cv2.imwrite(
            str(self.pictures / (picture or f"{stem}.jpg")), np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        )
        told = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
        named = f"<filename>{file_name or f'{stem}.jpg'}</filename>"
        path = self.annotations / f"{stem}.xml"
        path.write_text(f"{before}<annotation>{named}{told}{''.join(objects)}</annotation>")
        return path

    def split(self, name, text):
        path = self.path / "ImageSets" / "Main" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_pixels_are_counted_from_one_and_the_last_belongs_to_the_box(folder):
    folder.add("a", an_object("car", 1, 1, WIDTH, HEIGHT), an_object("car", 11, 21, 11, 30))
    (picture,) = read_voc(folder.path).pictures
    assert picture.boxes.tolist() == [[0, 0, 64, 48], [10, 20, 11, 30]]
    assert (picture.height, picture.width) == (HEIGHT, WIDTH)
    assert picture.path == folder.pictures / "a.jpg"


def test_every_name_of_the_folder_was_looked_for_in_every_picture(folder):
    folder.add("a", an_object("person", 1, 1, 9, 9))
    folder.add("b", an_object("car", 1, 1, 9, 9))
    folder.add("c")
    folder.split("val", "c\na -1\n")
    dataset = read_voc(folder.path, "val")
    assert dataset.classes == ("car", "person")
    assert [picture.path.stem for picture in dataset.pictures] == ["a", "c"]
    assert [picture.identifier for picture in dataset.pictures] == [1, 2]
    assert [picture.classes.tolist() for picture in dataset.pictures] == [[1], []]
    for picture in dataset.pictures:
        assert picture.verified.tolist() == picture.exhaustive.tolist() == [True, True]


def test_difficult_objects_become_ignore_areas(folder):
    difficult = an_object("person", 1, 1, 10, 20, "<difficult>1</difficult>")
    folder.add("a", difficult, an_object("car", 1, 1, 9, 9, "<difficult>0</difficult>"))
    dataset = read_voc(folder.path)
    (picture,) = dataset.pictures
    assert picture.classes.tolist() == [dataset.classes.index("car")]
    assert picture.ignore.tolist() == [[0, 0, 10, 20]]
    assert dataset.classes == ("car", "person")  # somebody looked for persons


def test_boxes_of_parts_are_not_taken_for_objects(folder):
    part = "<part><name>head</name><bndbox><xmin>2</xmin></bndbox></part>"
    folder.add("a", an_object("person", 1, 1, 10, 20, part))
    dataset = read_voc(folder.path)
    assert dataset.classes == ("person",)
    assert dataset.pictures[0].boxes.tolist() == [[0, 0, 10, 20]]


def test_folders_may_be_called_as_labelling_tools_do(tmp_path):
    folder = Folder(tmp_path, "annotations", "images")
    folder.add("a", an_object("car", 1, 1, 9, 9), picture="a.png", file_name="screenshot 1.bmp")
    (picture,) = read_voc(tmp_path).pictures
    assert picture.path == folder.pictures / "a.png"


@pytest.mark.parametrize("size", [None, (0, 0)])
def test_a_size_that_is_not_told_is_read_from_the_picture(folder, size):
    folder.add("a", size=size)
    (picture,) = read_voc(folder.path).pictures
    assert (picture.height, picture.width) == (HEIGHT, WIDTH)


def billion_laughs():
    entities = '<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    return f"<!DOCTYPE annotation [{entities}]>"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"before": billion_laughs()}, r"document type \(annotation\)", id="entities"),
        pytest.param(
            {"before": '<!DOCTYPE a SYSTEM "file:///etc/passwd">'}, "document type", id="file"
        ),
        pytest.param({"before": "<a>"}, "expected VOC XML: no element|mismatched", id="no XML"),
        pytest.param({"before": '<?xml version="1.0" encoding="x"?>'}, "expected VOC", id="coding"),
        pytest.param({"objects": ["<object></object>"]}, "an object has no name", id="nameless"),
        pytest.param(
            {"objects": ["<object><name>car</name></object>"]}, "no bndbox/xmin", id="no box"
        ),
        pytest.param({"objects": [an_object("car", "x", 1, 9, 9)]}, "expected VOC", id="number"),
        pytest.param(
            {"objects": [an_object("car", 20, 1, 9, 9)]},
            r"a box from \(19, 0\) to \(9, 9\) has no area",
            id="area",
        ),
        pytest.param({"file_name": "../../a.jpg"}, "lies outside the folder", id="outside"),
    ],
)
def test_a_bad_file_stops_or_is_left_out_and_told(folder, arguments, message):
    arguments = {**arguments}
    bad = folder.add("bad", *arguments.pop("objects", ()), **arguments)
    folder.add("good", an_object("car", 1, 1, 9, 9))
    message = rf"^{bad}: .*({message})"
    with pytest.raises(DatasetError, match=message):
        read_voc(folder.path)
    dataset = read_voc(folder.path, on_bad="skip")
    assert [p.path.stem for p in dataset.pictures if len(p.boxes)] == ["good"]
    (line,) = dataset.skipped
    assert re.match(message, line)


def test_a_picture_without_a_size_anywhere_is_named(folder):
    folder.add("a", size=None)
    (folder.pictures / "a.jpg").unlink()
    with pytest.raises(DatasetError, match=rf"{folder.pictures}/a\.jpg: missing or unreadable"):
        read_voc(folder.path)
    with pytest.raises(DatasetError, match=rf"^{folder.path}: holds no pictures with labels"):
        read_voc(folder.path, on_bad="skip")


def test_a_split_names_what_is_not_there(folder):
    folder.add("a")
    folder.split("train", "a\nb\n")
    with pytest.raises(DatasetError, match=r"train\.txt: 'b' has no file .*Annotations/b\.xml"):
        read_voc(folder.path, "train")
    with pytest.raises(DatasetError, match=r"ImageSets/Main/test\.txt: cannot be read"):
        read_voc(folder.path, "test")


def test_a_folder_of_another_kind_says_what_was_expected(tmp_path):
    with pytest.raises(DatasetError, match=rf"^{tmp_path}: expected a folder Annotations"):
        read_voc(tmp_path)

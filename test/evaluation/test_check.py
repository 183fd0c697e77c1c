import json

import cv2
import numpy as np
import pytest

from mbnet_perception.cli import main
from mbnet_perception.core.drawing import class_colour
from mbnet_perception.evaluation.check import check, describe, difference_hash, draw_sheet, nearest
from mbnet_perception.evaluation.sources import parse_labels

HEIGHT, WIDTH = 120, 160
# A box of 10 x 40 pixels has a side of 20, which is 40 at a long side of 320.
BOX = [20, 30, 10, 40]


def scene(seed):
    """A smooth picture that no other seed is like."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def write(tmp_path):
    """Write a label file, and a picture for each name, that its seed or its pixels are drawn by."""

    def write(name, pictures, annotations=((0, 0, BOX),), groups=(), **fields):
        folder = tmp_path / name
        folder.mkdir()
        for file, picture in pictures.items():
            pixels = scene(picture) if isinstance(picture, int) else picture
            cv2.imwrite(str(folder / file), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
        images = [
            {"id": i, "file_name": file, "width": WIDTH, "height": HEIGHT}
            for i, file in enumerate(pictures)
        ]
        for image, group in zip(images, groups, strict=False):
            image["scene_group"] = group
        content = {
            "images": images,
            "categories": [{"id": 0, "name": "car"}, {"id": 1, "name": "bus"}],
            "annotations": [
                {"id": 1, "image_id": i, "category_id": k, "bbox": box} for i, k, box in annotations
            ],
            **fields,
        }
        path = folder / "labels.json"
        path.write_text(json.dumps(content))
        return path

    return write


def report_of(path, *against):
    datasets = [parse_labels(p, on_bad="skip") for p in (path, *against)]
    return check(datasets[:1], datasets[1:])


def test_what_is_there_is_counted(write):
    edges = [[0, 0, s, s] for s in (3.9, 4, 8, 16, 32, 64)]  # half of 7.8, 8, 16, 32, 64, 128
    boxes = [(0, 0, BOX), (0, 0, BOX), *((1, 0, box) for box in edges), (2, 1, BOX)]
    report = report_of(write("train", {f"{i}.jpg": i for i in range(4)}, boxes))
    assert (report.pictures, report.empty, report.ignore_areas) == (4, 1, 0)
    car, bus = report.classes["car"], report.classes["bus"]
    assert (car.boxes, car.pictures, car.without) == (8, 2, 2)
    assert car.sides == (1, 1, 1, 3, 1, 1)  # two of 40 pixels among them
    assert (bus.boxes, bus.pictures, bus.without) == (1, 1, 3)
    assert report.errors == {}
    assert set(report.warnings) == {"boxes given twice"}


def test_a_class_that_nobody_looked_for_is_not_missing(write):
    path = write("train", {"a.jpg": 1, "b.jpg": 2})
    content = json.loads(path.read_text())
    for image in content["images"]:
        image["neg_category_ids"] = []
    path.write_text(json.dumps(content))
    report = report_of(path)
    assert report.classes["bus"].without == report.classes["car"].without == 0
    assert report.warnings == {"classes without boxes": ["bus"]}


def test_bad_files_and_boxes_are_errors(write):
    path = write("train", {"a.jpg": 1, "b.jpg": 2, "c.jpg": 3}, [(0, 0, [1, 1, 0, 5])])
    truncated, turned = path.parent / "b.jpg", path.parent / "c.jpg"
    truncated.write_bytes(truncated.read_bytes()[:-9])
    cv2.imwrite(str(turned), np.zeros((WIDTH, HEIGHT, 3), np.uint8))
    report = report_of(path)
    assert report.pictures == 1
    area, second, third = report.errors["bad files and boxes"]
    assert area.startswith(f"{path}, picture 0: a box")
    assert second.startswith(f"{truncated}: truncated JPEG")
    assert third.startswith(f"{turned}: is 120 x 160 pixels, but its labels are for 160 x 120")


def test_bad_files_on_the_other_side_are_errors_too(write):
    train = write("train", {"a.jpg": 1})
    val = write("val", {"b.jpg": 2, "c.jpg": 3}, [(1, 0, [1, 1, 0, 5])])
    (val.parent / "b.jpg").unlink()
    area, missing = report_of(train, val).errors["bad files and boxes"]
    assert area.startswith(f"{val}, picture 1: a box")
    assert missing.startswith(f"{val.parent}/b.jpg: missing")


def test_boxes_that_leave_their_picture_by_more_than_rounding_are_warned_of(write):
    boxes = [(0, 0, [-0.9, -0.9, 20, 20]), (0, 0, [150, 100, 10.9, 20]), (0, 1, [90, 80, 30, 45])]
    report = report_of(write("train", {"a.jpg": 1}, boxes))
    (line,) = report.warnings["boxes that stick out of their picture"]
    assert line.endswith("a.jpg: bus 90 80 120 125, by 5 pixels")


def test_a_box_given_twice_is_warned_of_once(write):
    boxes = [(0, 0, BOX), (0, 1, BOX), (0, 0, [1, 2, 3, 4]), (0, 0, BOX)]
    (line,) = report_of(write("train", {"a.jpg": 1}, boxes)).warnings["boxes given twice"]
    assert line.endswith("a.jpg: car 20 30 30 70")


def brighter(image):
    return np.clip(image * 0.6 + 30, 0, 255).astype(np.uint8)


def test_pictures_given_twice_are_warned_of(write):
    pictures = {"a.jpg": 1, "b.jpg": 2, "c.jpg": 2, "d.jpg": brighter(scene(1)), "e.jpg": 3}
    path = write("train", pictures)
    same, near = report_of(path).warnings["pictures given twice"]
    assert same == f"{path.parent}/c.jpg: the same file as {path.parent}/b.jpg"
    assert near.startswith(f"{path.parent}/d.jpg: nearly {path.parent}/a.jpg (")


def test_pictures_on_both_sides_are_errors(write):
    train = write("train", {"a.jpg": 1, "b.jpg": 2, "c.jpg": 3})
    val = write("val", {"x.jpg": 2, "y.jpg": brighter(scene(3)), "z.jpg": 4})
    same, near = report_of(train, val).errors["pictures on both sides"]
    assert same == f"{train.parent}/b.jpg: the same file as {val.parent}/x.jpg"
    assert near.startswith(f"{train.parent}/c.jpg: nearly {val.parent}/y.jpg (")


def test_scenes_on_both_sides_are_errors(write):
    train = write("train", {"a.jpg": 1, "b.jpg": 2, "c.jpg": 3}, groups=["drive 1", "drive 2", ""])
    val = write("val", {"x.jpg": 4, "y.jpg": 5}, groups=["drive 2", ""])
    errors = report_of(train, val).errors
    assert errors == {
        "scene groups on both sides": [
            f"{train.parent}/b.jpg: scene group 'drive 2' as {val.parent}/x.jpg"
        ]
    }


def test_the_difference_hash_is_of_what_is_brighter_than_its_right():
    ramp = np.repeat(np.arange(17, dtype=np.uint8)[None, :, None], 16, 0).repeat(3, 2) * 15
    assert (difference_hash(ramp) == -1).all()
    assert (difference_hash(ramp[:, ::-1]) == 1).all()
    larger = cv2.resize(ramp, None, fx=10, fy=5, interpolation=cv2.INTER_NEAREST)
    assert (difference_hash(larger) == -1).all()


def test_the_nearest_is_found_across_blocks_and_never_a_later_one_or_itself():
    rng = np.random.default_rng(5)
    bits = rng.choice(np.array([-1, 1], np.float32), (2100, 256))
    bits[1500] = bits[3]
    bits[1500, :20] *= -1  # as far as near goes
    bits[2099] = bits[1500]
    bits[7] = bits[2]
    bits[7, :21] *= -1  # too far
    # Pictures of chance differ in 128 bits, give or take 8.
    assert nearest(bits) == {1500: (3, 20), 2099: (1500, 0)}
    assert nearest(bits[[3, 5]], bits[1400:]) == {0: (100, 20)}


def test_the_contact_sheet_shows_rare_classes_and_their_boxes(write):
    grey = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    pictures = {f"{i}.png": grey for i in range(30)}
    boxes = [(i, 0, BOX) for i in range(30)] + [(17, 1, [80, 60, 40, 40])]
    sheet = draw_sheet([parse_labels(write("train", pictures, boxes))], columns=2, rows=2)
    assert sheet.shape == (2 * 240 + 28, 2 * 320, 3)
    pictures_only = sheet[: 2 * 240]
    for index in (0, 1):
        assert (pictures_only == class_colour(index)).all(-1).any()


def test_a_contact_sheet_goes_on_where_a_picture_cannot_be_read(write):
    path = write("train", {"a.jpg": 1, "b.jpg": 2})
    (path.parent / "a.jpg").unlink()
    sheet = draw_sheet([parse_labels(path)], columns=2)
    assert (sheet[:240] == (0, 0, 255)).all(-1).any()  # says so in red


def test_a_contact_sheet_of_one_picture_is_filled_up(write):
    path = write("train", {"a.jpg": 1})
    assert draw_sheet([parse_labels(path)], columns=3).shape == (240 + 28, 3 * 320, 3)


def test_a_long_list_is_cut_short(write):
    report = report_of(write("train", {"a.jpg": 1}, [(0, 0, [-9, 0, 20, i]) for i in range(1, 9)]))
    lines = describe(report, most=3)
    at = lines.index("warning: boxes that stick out of their picture: 8")
    assert len(lines[at + 1 : lines.index("  ... and 5 more")]) == 3


def test_no_data_is_an_error():
    with pytest.raises(ValueError, match="expected at least one data set"):
        check([])


def test_the_command_fails_where_something_must_be_mended(write, tmp_path, capsys):
    train = write("train", {"a.jpg": 1, "b.jpg": 2}, [(0, 0, BOX), (1, 1, BOX)])
    val = write("val", {"x.jpg": 2})
    sheet = tmp_path / "sheet.png"
    assert main(["data", "check", str(train), "--sheet", str(sheet)]) == 0
    assert capsys.readouterr().out.startswith("2 pictures, 0 of them without objects")
    assert cv2.imread(str(sheet)).shape == (240 + 28, 6 * 320, 3)
    assert main(["data", "check", str(train), "--against", str(val), "--json"]) == 1
    errors = json.loads(capsys.readouterr().out)["errors"]
    assert list(errors) == ["pictures on both sides"]
    assert main(["data", "check", str(tmp_path)]) == 1
    assert "error: " in capsys.readouterr().err


def test_the_command_reads_several_sources_by_a_class_map(write, tmp_path, capsys):
    first = write("first", {"a.jpg": 1})
    second = write("second", {"b.jpg": 2}, categories=[{"id": 0, "name": "van"}])
    assert main(["data", "check", str(first), str(second)]) == 1
    assert "classes ['van'] are not among ['car', 'bus']" in capsys.readouterr().err
    class_map = tmp_path / "map.yaml"
    class_map.write_text("classes: [car, bus]\nnames: {van: car}")
    arguments = ["data", "check", str(first), str(second), "--class-map", str(class_map), "--json"]
    assert main(arguments) == 0
    counts = json.loads(capsys.readouterr().out)["classes"]
    assert (counts["car"]["boxes"], counts["bus"]["without"]) == (2, 1)

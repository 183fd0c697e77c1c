import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.convert.converter import convert

from mbnet_perception import cli
from mbnet_perception.core.detections import Detections
from mbnet_perception.core.images import Picture
from mbnet_perception.evaluation import bags
from mbnet_perception.evaluation.accuracy import MEASURING
from mbnet_perception.evaluation.average_precision import measure
from mbnet_perception.evaluation.bag_truth import truth_from_topic
from mbnet_perception.evaluation.bags import Bag, CameraBagWriter
from mbnet_perception.evaluation.dataset import read_coco, read_picture
from mbnet_perception.evaluation.synthetic import write_pictures
from mbnet_perception.inference.engine import load_detector
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

SAMPLE = Path(__file__).parent / "data" / "sample_drive"
TRUTH = "/camera/ground_truth"
SOME = ("--weather", "rain", "--severity", "3", "--every", "30")  # 5 of 150 pictures


@pytest.fixture
def evaluate(capsys, monkeypatch, tmp_path):
    """Runs mbnet evaluate-bag and gives its exit status, output and errors."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))

    def run(*arguments):
        status = cli.main(["evaluate-bag", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def figures(evaluate):
    """The same as JSON, without what the computer's speed and the kind of bag decide."""

    def run(*arguments):
        status, out, err = evaluate(*arguments, "--json")
        assert status == 0, err
        content = json.loads(out)
        del content["bags"]
        for point in content["points"]:
            del point["latency"]
        return content

    return run


@pytest.mark.parametrize(
    "name",
    [pytest.param("sample_drive", id="sqlite3"), pytest.param("sample_drive.bag", id="ROS 1")],
)
def test_the_same_drive_in_another_kind_of_bag_gives_the_same_figures(figures, tmp_path, name):
    other = tmp_path / name
    convert([SAMPLE], other, "sqlite3", 9, None, "file", None, None, (), (), (), ())
    # ROS 1 has no messages for our ground truth, so it comes from a file for all of them.
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(as_coco()))
    expected = figures(SAMPLE, *SOME, "--ground-truth", truth)
    assert expected["against"] == "ground truth"
    assert figures(other, *SOME, "--ground-truth", truth) == expected
    assert max(run["ap50"] for run in expected["points"][0]["conditions"]) > 0.05


def as_coco():
    """Ground truth of the sample drive as COCO JSON, an image's stamp in its name."""
    with Bag(SAMPLE) as bag:
        truth = truth_from_topic(bag, TRUTH)
    images, annotations = [], []
    for number, stamp in enumerate(truth.stamps.tolist()):
        images.append({"id": number, "file_name": f"{stamp}.jpg", "width": 640, "height": 480})
        picture = truth.picture(stamp, 480, 640)
        for box, k in zip(picture.boxes.tolist(), picture.classes.tolist(), strict=True):
            xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            annotations.append({"image_id": number, "category_id": k, "bbox": xywh})
    categories = [{"id": k, "name": name} for k, name in enumerate(truth.classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def test_a_bag_of_a_data_set_gives_the_accuracy_of_the_data_set(figures, tmp_path):
    labels = write_pictures(tmp_path / "data", 12, (320, 240), 3)
    bags.write_pictures(tmp_path / "bag", labels)
    found = figures(tmp_path / "bag", "--weather", "clear", "--ground-truth", TRUTH)
    dataset, library = read_coco(labels), ModelLibrary()
    detector = load_detector(library, OperatingPoint(), 1)
    seen: list[Detections] = [
        detector.detect(Picture.of_bgr(read_picture(each)), MEASURING)[0]
        for each in dataset.pictures
    ]
    expected = measure(dataset, seen, detector.classes)
    (clear,) = found["points"][0]["conditions"]
    assert expected.ap50 > 0
    assert (clear["ap"], clear["ap50"]) == pytest.approx((expected.ap, expected.ap50), abs=6e-5)


def test_shards_joined_give_what_one_run_gives(figures, evaluate, tmp_path):
    plan = (SAMPLE, *SOME, "--alpha", "0.35,0.5", "--resolution", "224")
    for part in ("1/2", "2/2"):
        status, out, err = evaluate(*plan, "--shard", part, "--cache", tmp_path / part[0])
        assert status == 0, err
        assert out == f"part {part[0]} of 2 is in {tmp_path / part[0]}\n"
    assert figures("--merge", tmp_path / "1", tmp_path / "2") == figures(*plan)


def test_a_merge_without_one_of_the_shards_says_what_is_missing(evaluate, tmp_path):
    assert evaluate(SAMPLE, *SOME, "--shard", "1/2", "--cache", tmp_path / "1")[0] == 0
    status, out, err = evaluate("--merge", tmp_path / "1", "--report", tmp_path / "report")
    assert (status, out) == (1, "")
    assert "not all of the work was done" in err and "rain 3" in err
    assert not (tmp_path / "report").exists()


def test_figures_that_fall_short_set_the_exit_status(evaluate):
    plan = (SAMPLE, *SOME, "--ground-truth", TRUTH)
    status, out, err = evaluate(*plan, "--fail-under", "clear=0.01,rpc=0.01")
    assert status == 0 and "clear" in out and "falls short" not in err
    status, out, err = evaluate(*plan, "--fail-under", "clear=0.01,rain:3=0.99")
    assert status == 3
    (line,) = (line for line in err.splitlines() if line.startswith("falls short: "))
    assert "AP50 in rain:3 is 0." in line and line.endswith("less than 0.99")


def test_a_limit_for_what_is_not_measured_is_refused_before_the_work(evaluate, tmp_path):
    status, _, err = evaluate(SAMPLE, *SOME, "--fail-under", "fog:3=0.5", "--cache", tmp_path / "c")
    assert status == 1 and "fog:3 is not evaluated" in err
    assert not (tmp_path / "c").exists()


def test_without_ground_truth_figures_are_called_consistency(evaluate):
    status, out, _ = evaluate(SAMPLE, *SOME, "--ground-truth", "none", "--alpha", "0.35,0.5")
    assert status == 0
    assert (
        "consistency with mobilenet_v2 alpha 0.5 fp32 at 320 in clear weather, not accuracy" in out
    )


def test_the_report_holds_the_figures_that_are_printed(evaluate, tmp_path):
    plan = (SAMPLE, *SOME, "--ground-truth", TRUTH, "--report", tmp_path / "report", "--json")
    status, out, err = evaluate(*plan)
    assert status == 0 and f"report: {tmp_path / 'report' / 'report.html'}" in err
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert {name: written[name] for name in json.loads(out)} == json.loads(out)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "sample_drive" in page and page.count("data:image/jpeg;base64,") >= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param((), "expected either bags, or --merge", id="nothing"),
        pytest.param((SAMPLE, "--merge", "x"), "expected either bags, or --merge", id="both"),
        pytest.param((SAMPLE, "--shard", "1/2"), "--shard needs bags, and --cache", id="shard"),
        pytest.param(("none.mcap",), "bag 'none.mcap' does not exist", id="no bag"),
        pytest.param((SAMPLE, "--topic", "/x"), "has no image topic '/x'; it has", id="no topic"),
        pytest.param((SAMPLE, "--alpha", "0.4"), "0.4", id="no model"),
        pytest.param((SAMPLE, "--precision", "int8"), "int8", id="no such precision"),
        pytest.param((SAMPLE, "--every", "0"), "every must be positive", id="every"),
        pytest.param((SAMPLE, "--weather", "snow"), "'snow' is unknown", id="weather"),
        pytest.param((SAMPLE, "--ground-truth", "/x"), "/x", id="no such truth"),
    ],
)
def test_what_cannot_be_done_is_told_and_nothing_is_written(evaluate, tmp_path, arguments, message):
    status, out, err = evaluate(*arguments, "--report", tmp_path / "report")
    assert (status, out) == (1, "")
    assert err.startswith("error: ") and message in err
    assert not (tmp_path / "report").exists()


def test_a_bag_without_anything_to_find_is_no_zero(evaluate, tmp_path):
    with CameraBagWriter(tmp_path / "empty") as bag:
        _, picture = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))
        bag.add(10**18, picture, "jpeg", (64, 48), np.zeros((0, 4), np.float32), ())
    status, out, err = evaluate(tmp_path / "empty", "--weather", "clear", "--ground-truth", TRUTH)
    assert (status, out) == (1, "") and err.startswith("error: ")

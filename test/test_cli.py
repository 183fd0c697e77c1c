import json
import re

import cv2
import numpy as np
import pytest

from mbnet_perception import cli
from mbnet_perception.core.drawing import class_colour
from mbnet_perception.core.scene import CLASSES
from mbnet_perception.evaluation.bags import IMAGE_TOPIC, Bag
from mbnet_perception.evaluation.dataset import read_coco
from mbnet_perception.evaluation.synthetic import write_pictures
from mbnet_perception.inference.ladder import read_ladder
from mbnet_perception.inference.models import ModelLibrary

SIZE = (96, 64)  # width, height
# Of whatever picture, the model says that something green is in its lower right part.
BOX = (0.5, 0.5, 0.75, 0.75)


@pytest.fixture
def mbnet(capsys):
    """Runs a command and gives its exit status, output and errors."""

    def run(*arguments):
        status = cli.main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def model(tmp_path, make_model):
    path = tmp_path / "tiny.onnx"
    path.write_bytes(make_model([BOX], [(0.0, 0.75, 0.0)]))
    return path


@pytest.fixture
def detect(mbnet, model):
    def run(source, output, *options):
        return mbnet("detect", source, "-o", output, "--model", model, "--resolution", 64, *options)

    return run


def grey():
    return np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)


def assert_box_is_drawn(image):
    assert image.shape == (64, 96, 3)
    # The box's right edge, at three quarters of 96, in the colour of class 1; nothing at the left.
    assert (image[36:46, 72] == class_colour(1)).all()
    assert (image[:, :40] == 90).all()


def test_detect_draws_into_a_picture(detect, tmp_path):
    cv2.imwrite(str(tmp_path / "in.png"), grey())
    status, out, err = detect(tmp_path / "in.png", tmp_path / "made" / "out.png")
    assert (status, out, err) == (0, "in.png: green 0.75\n", "")
    assert_box_is_drawn(cv2.imread(str(tmp_path / "made" / "out.png")))
    assert (cv2.imread(str(tmp_path / "in.png")) == 90).all()


def test_detect_takes_thresholds(detect, tmp_path):
    cv2.imwrite(str(tmp_path / "in.png"), grey())
    status, out, _ = detect(tmp_path / "in.png", tmp_path / "out.png", "--score-threshold", "0.8")
    assert (status, out) == (0, "in.png: nothing\n")
    assert (cv2.imread(str(tmp_path / "out.png")) == 90).all()


def test_detect_names_what_it_cannot_read_and_draws_the_rest(detect, tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a.png", "c.png"):
        cv2.imwrite(str(folder / name), grey())
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:20])
    (folder / "notes.txt").write_text("no picture")
    status, out, err = detect(folder, output)
    assert (status, out) == (1, "a.png: green 0.75\nc.png: green 0.75\n")
    assert err == f"error: {folder / 'b.png'}: no picture that OpenCV can decode\n"
    assert sorted(path.name for path in output.iterdir()) == ["a.png", "c.png"]
    for path in output.iterdir():
        assert_box_is_drawn(cv2.imread(str(path)))


def test_detect_draws_into_a_video(detect, tmp_path):
    source, output = tmp_path / "in.mp4", tmp_path / "made" / "out.mp4"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter.fourcc(*"mp4v"), 10, SIZE)
    for _ in range(4):
        writer.write(grey())
    writer.release()
    status, out, _ = detect(source, output)
    assert status == 0
    assert out.splitlines() == [f"frame {i}: green 0.75" for i in range(4)]
    video = cv2.VideoCapture(str(output))
    assert video.get(cv2.CAP_PROP_FPS) == 10
    for _ in range(4):
        more, image = video.read()
        assert more
        assert image.shape == (64, 96, 3)
        # The codec blurs thin lines: something is drawn at the box's edge, and nothing at the left.
        assert abs(image[36:46, 68:76].astype(int) - 90).max() > 60
        assert abs(image[:, :36].astype(int) - 90).max() < 20
    assert not video.read()[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("missing.png", "missing.png does not exist", id="missing"),
        pytest.param("empty", "empty holds no pictures", id="empty folder"),
        pytest.param("text.mp4", "text.mp4: no video that OpenCV can decode", id="no video"),
    ],
)
def test_detect_says_what_is_wrong_with_the_source(detect, tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no video")
    status, out, err = detect(tmp_path / name, tmp_path / "out")
    assert (status, out) == (1, "")
    assert message in err.splitlines()[-1]


@pytest.mark.parametrize("name", ["out.txt", "out"])
def test_detect_says_what_it_can_write(detect, tmp_path, name):
    cv2.imwrite(str(tmp_path / "in.png"), grey())
    status, _, err = detect(tmp_path / "in.png", tmp_path / name)
    assert status == 1
    assert err == f"error: {tmp_path / name} cannot be written; it should end in .jpg or .png\n"


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """One synthetic picture with a few objects."""
    return write_pictures(tmp_path_factory.mktemp("synthetic"), 1, (320, 240), seed=8)


@pytest.fixture
def perfect_model(tmp_path, make_model, make_metadata, labels):
    """A model that knows the boxes of that picture."""
    (picture,) = read_coco(labels).pictures
    size = np.array([picture.width, picture.height] * 2)
    scores = np.eye(len(CLASSES))[picture.classes] * 0.5
    path = tmp_path / "perfect.onnx"
    props = make_metadata(classes=CLASSES).as_props()
    path.write_bytes(make_model(picture.boxes / size, scores, props))
    return path


def test_evaluate_gives_json(mbnet, labels, perfect_model):
    status, out, _ = mbnet(
        "evaluate", "--data", labels, "--model", perfect_model, "--resolution", 64, "--json"
    )
    result = json.loads(out)
    classes = read_coco(labels).pictures[0].classes.tolist()
    assert status == 0
    assert set(result["classes"]) == {CLASSES[k] for k in classes}
    assert (result["ap"], result["ap50"]) == pytest.approx((1, 1))
    for name, row in result["classes"].items():
        assert row["boxes"] == classes.count(CLASSES.index(name))
        assert row["pictures"] == 1


def test_evaluate_gives_a_table(mbnet, labels, perfect_model):
    status, out, _ = mbnet(
        "evaluate", "--data", labels, "--model", perfect_model, "--resolution", 64
    )
    head, *rows, mean = [line.split() for line in out.splitlines()]
    assert status == 0
    assert head == ["class", "AP", "AP50", "boxes", "pictures"]
    assert sum(int(row[3]) for row in rows) == len(read_coco(labels).pictures[0].boxes)
    assert mean == ["mean", "1.000", "1.000"]


def test_evaluate_takes_labels_that_lie_apart_from_their_pictures(
    mbnet, labels, perfect_model, tmp_path
):
    apart = tmp_path / "annotations" / "labels.json"
    apart.parent.mkdir()
    apart.write_bytes(labels.read_bytes())
    command = ["evaluate", "--data", apart, "--model", perfect_model, "--resolution", 64]
    assert mbnet(*command)[0] == 1
    status, out, _ = mbnet(*command, "--pictures-folder", labels.parent)
    assert (status, out.split()[-3:]) == (0, ["mean", "1.000", "1.000"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--alpha", "0.4"], "alpha 0.4 fp32 at 320; available: mobilenet", id="alpha"),
        pytest.param(["--resolution", "300"], "300 is not available .* there is", id="resolution"),
        pytest.param(["--model", "gone.onnx"], "gone.onnx: cannot be read: No such", id="model"),
    ],
)
def test_what_there_is_no_model_for_is_answered(mbnet, labels, options, message):
    status, out, err = mbnet("evaluate", "--data", labels, *options)
    assert (status, out) == (1, "")
    assert re.fullmatch(f"error: .*{message}.*\n", err)


def test_evaluate_names_a_missing_label_file(mbnet, tmp_path):
    status, out, err = mbnet("evaluate", "--data", tmp_path / "gone.json")
    assert (status, out) == (1, "")
    assert err == f"error: {tmp_path / 'gone.json'}: cannot be read: No such file or directory\n"


def test_synth_data_writes_labelled_pictures(mbnet, tmp_path):
    status, out, _ = mbnet("synth-data", tmp_path / "made", "--pictures", 2, "--size", 96, 64)
    assert (status, out) == (0, f"{tmp_path / 'made' / 'labels.json'}\n")
    pictures = read_coco(tmp_path / "made" / "labels.json").pictures
    assert [cv2.imread(str(picture.path)).shape for picture in pictures] == [(64, 96, 3)] * 2


def test_synth_bag_writes_a_bag_and_does_not_overwrite_it(mbnet, tmp_path):
    command = ("synth-bag", tmp_path / "drive", "--seconds", 0.5, "--rate", 10, "--size", 96, 64)
    status, out, _ = mbnet(*command)
    assert (status, out) == (0, f"5 pictures in {tmp_path / 'drive'}\n")
    with Bag(tmp_path / "drive") as bag:
        assert len(list(bag.messages([IMAGE_TOPIC]))) == 5
    status, out, err = mbnet(*command)
    assert (status, out) == (1, "")
    assert str(tmp_path / "drive") in err


def test_data_bag_writes_the_pictures_of_a_data_set(mbnet, labels, tmp_path):
    status, out, _ = mbnet("data-bag", labels, tmp_path / "bag")
    assert (status, out) == (0, f"1 pictures in {tmp_path / 'bag'}\n")
    with Bag(tmp_path / "bag") as bag:
        assert len(list(bag.messages([IMAGE_TOPIC]))) == 1


def raising(error):
    def run(args):
        raise error

    return run


def test_a_missing_extra_is_named(mbnet, monkeypatch):
    monkeypatch.setattr(cli, "run_train", raising(ModuleNotFoundError(name="torch")))
    status, _, err = mbnet("train", "recipe.yaml", "-o", "out")
    assert status == 1
    assert "needs the module 'torch'; install it with pip install 'mbnet_perception[train]'" in err


def test_a_fault_of_ours_is_not_blamed_on_an_extra(mbnet, monkeypatch):
    fault = ModuleNotFoundError(name="mbnet_perception.gone")
    monkeypatch.setattr(cli, "run_train", raising(fault))
    with pytest.raises(ModuleNotFoundError):
        mbnet("train", "recipe.yaml", "-o", "out")


def test_an_interrupted_command_says_so(mbnet, monkeypatch):
    monkeypatch.setattr(cli, "run_train", raising(KeyboardInterrupt()))
    assert mbnet("train", "recipe.yaml", "-o", "out") == (130, "", "interrupted\n")


SMALL = ("--alpha", 0.35, "--resolution", 224, "--threads", 1)


def test_benchmark_times_the_network_and_the_whole_detector(mbnet):
    status, out, _ = mbnet("benchmark", *SMALL, "--seconds", 0.05)
    assert status == 0
    assert re.fullmatch(
        r"session_run +p50 .* Hz\ndetect +p50 \d+\.\d\d ms   p90 .* ms   p99 .* ms   .* Hz\n", out
    )
    status, out, _ = mbnet("benchmark", *SMALL, "--seconds", 0.05, "--json")
    figures = json.loads(out)
    assert figures["point"] == "mobilenet_v2 alpha 0.35 fp32 at 224"
    assert figures["detect"]["p50_ms"] > 0


def test_benchmark_writes_a_ladder_that_the_node_can_read(mbnet, tmp_path):
    path = tmp_path / "ladder.yaml"
    status, out, _ = mbnet("benchmark", *SMALL, "--ladder", path)
    rungs = read_ladder(path, ModelLibrary())
    assert status == 0
    assert len(out.splitlines()) == len(rungs) > 0
    assert str(rungs[-1].point) in out.splitlines()[-1]
    status, out, _ = mbnet("benchmark", *SMALL, "--ladder", path, "--json")
    assert json.loads(out)[0]["seconds"] == read_ladder(path, ModelLibrary())[0].seconds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(("--seconds", 0), "--seconds and --load must be above 0", id="no time"),
        pytest.param(("--load", -1), "--seconds and --load must be above 0", id="no load"),
        pytest.param(("--alpha", 0.1), "no model mobilenet_v2 alpha 0.1", id="no such model"),
        pytest.param(
            ("--models", "nowhere"), "nowhere/manifest.yaml: cannot be read", id="no models"
        ),
    ],
)
def test_benchmark_refuses_what_makes_no_sense(mbnet, options, message):
    status, out, err = mbnet("benchmark", *options)
    assert (status, out) == (1, "")
    assert f"error: {message}" in err

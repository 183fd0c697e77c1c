import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from mbnet_perception.core.anchors import DEFAULT_SCALES, make_anchors
from mbnet_perception.evaluation.sources import Source
from mbnet_perception.inference.detector import make_session
from mbnet_perception.inference.format import Metadata, metadata_from
from mbnet_perception.training.checkpoints import TrainingError, save_checkpoint
from mbnet_perception.training.export import export_checkpoint, make_onnx
from mbnet_perception.training.model import SSDLite, decode_boxes
from mbnet_perception.training.recipe import Recipe
from mbnet_perception.training.train import to_input

OTHER_SCALES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6)
CLASSES = ("car", "person", "cone")
SIZES = [
    pytest.param((240, 320), id="4:3"),
    pytest.param((160, 160), id="square"),
    pytest.param((333, 201), id="odd and upright"),
]


def metadata(backbone="mobilenet_v2"):
    return Metadata(backbone, 0.35, "fp32", CLASSES, DEFAULT_SCALES, (160, 320), "nothing")


@pytest.fixture(scope="module", params=["mobilenet_v2", "mobilenet_v1"])
def model(request):
    torch.manual_seed(0)
    model = SSDLite(request.param, 0.35, len(CLASSES))
    for module in model.modules():  # so that folding has something to fold
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.7, 1.5)
            torch.nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 1.5)
    for heads in (model.score_heads, model.box_heads):
        for head in heads:
            torch.nn.init.normal_(head.convs[-1][0].bias, std=2.0)
    return model.eval()


@pytest.fixture(scope="module")
def content(model):
    return make_onnx(model, metadata()).SerializeToString()


@pytest.mark.parametrize("size", SIZES)
def test_the_file_gives_what_the_network_gives(model, content, size):
    image = np.random.default_rng(1).integers(0, 256, (1, *size, 3), np.uint8)
    boxes, scores = make_session(content, size, 1, "test").run(None, {"image": image})
    with torch.no_grad():
        regressions, logits = model(to_input(torch.from_numpy(image), torch.device("cpu")))
        expected = decode_boxes(regressions, torch.from_numpy(make_anchors(*size)))
    assert scores.std() > 0.05  # or agreement would mean little
    np.testing.assert_allclose(scores, logits.sigmoid(), atol=1e-4)
    np.testing.assert_allclose(boxes, expected, atol=1e-4)


def test_height_and_width_are_free_in_the_file(content):
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0]
    assert (image.name, image.type) == ("image", "tensor(uint8)")
    assert image.shape == [1, "height", "width", 3]
    names = [(output.name, output.shape) for output in session.get_outputs()]
    assert names == [("boxes", [1, "anchors", 4]), ("scores", [1, "anchors", len(CLASSES)])]


def test_the_file_says_what_it_is(content):
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    props = session.get_modelmeta().custom_metadata_map
    assert metadata_from(props, "test") == metadata()


def test_limits_of_relu6_are_constants_and_normalisation_is_folded(content):
    graph = onnx.load_from_string(content).graph
    constants = {tensor.name for tensor in graph.initializer}
    clips = [node for node in graph.node if node.op_type == "Clip"]
    assert clips
    assert all(set(node.input[1:]) <= constants for node in clips)
    assert not any(node.op_type == "BatchNormalization" for node in graph.node)


def test_what_a_picture_does_not_change_is_worked_out_before_it_comes(content, tmp_path):
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3  # it warns that such a file is for this machine alone
    options.add_free_dimension_override_by_name("height", 240)
    options.add_free_dimension_override_by_name("width", 320)
    ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    changing = {"image"}
    for node in graph.node:
        assert node.op_type != "Shape" and changing.intersection(node.input), node.name
        changing.update(node.output)


def anchors_of(content, size):
    """What a file says when its network regresses nothing: the anchors themselves, (A, 4) xyxy."""
    boxes, _ = make_session(content, size, 1, "test").run(
        None, {"image": np.zeros((1, *size, 3), np.uint8)}
    )
    return boxes[0]


@pytest.fixture
def silent():
    """A network whose regressions are all nought."""
    model = SSDLite("mobilenet_v2", 0.1, len(CLASSES)).eval()
    for head in model.box_heads:
        torch.nn.init.zeros_(head.convs[-1][0].weight)
        torch.nn.init.zeros_(head.convs[-1][0].bias)
    return model


def assert_anchors_are(content, scales, size=(96, 128)):
    anchors = make_anchors(*size, scales)
    corners = np.concatenate(
        [anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2], axis=1
    )
    np.testing.assert_allclose(anchors_of(content, size), corners, atol=1e-5)


def test_anchors_have_the_scales_that_the_file_names(silent):
    described = dataclasses.replace(metadata(), alpha=0.1, anchor_scales=OTHER_SCALES)
    assert_anchors_are(make_onnx(silent, described).SerializeToString(), OTHER_SCALES)


@pytest.fixture
def checkpoint(silent, tmp_path):
    recipe = Recipe(
        train=(Source(Path("/home/somebody/data/town/train.json")), Source(Path("rain.json"))),
        validation="val.json",
        alpha=0.1,
        anchor_scales=OTHER_SCALES,
        policy="config/training/policies/both.yaml",
    )
    state = {
        "recipe": recipe.as_dict(),
        "classes": list(CLASSES),
        "epoch": 7,
        "model": {},
        "average": silent.state_dict(),
        "optimizer": {},
    }

    def save(**changes):
        save_checkpoint(state | changes, tmp_path / "last.pt")
        return tmp_path / "last.pt"

    return save


def test_a_checkpoint_becomes_a_model_with_its_own_anchors(checkpoint):
    content, described = export_checkpoint(checkpoint(), (96, 128))
    assert described == Metadata(
        "mobilenet_v2",
        0.1,
        "fp32",
        CLASSES,
        OTHER_SCALES,
        (96, 128),
        # Where on the trainer's disk the data lay stays out of a file that may be published.
        "7 epochs of town/train.json, rain.json, policy both.yaml",
    )
    assert_anchors_are(content, OTHER_SCALES)


def test_weights_of_another_network_are_refused(checkpoint):
    other = SSDLite("mobilenet_v2", 0.1, 5).state_dict()
    with pytest.raises(TrainingError, match=r"last\.pt: its weights do not fit .* with 3 classes"):
        export_checkpoint(checkpoint(average=other), (96,))

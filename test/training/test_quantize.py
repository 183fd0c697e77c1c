import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from mbnet_perception import cli
from mbnet_perception.core.detections import Selection
from mbnet_perception.core.images import Picture
from mbnet_perception.evaluation.accuracy import measure_model
from mbnet_perception.evaluation.dataset import DatasetError, read_coco, read_picture
from mbnet_perception.evaluation.synthetic import write_pictures
from mbnet_perception.inference.detector import Detector, make_session, prepare_image
from mbnet_perception.inference.engine import Engine
from mbnet_perception.inference.format import ModelError, metadata_from
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint, add_model
from mbnet_perception.training import quantize
from mbnet_perception.training.quantize import nodes_to_quantize, quantize_model, spread_pictures


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """Twelve synthetic pictures."""
    return write_pictures(tmp_path_factory.mktemp("pictures"), 12, seed=5)


@pytest.fixture(scope="module")
def dataset(labels):
    return read_coco(labels)


@pytest.fixture(scope="module")
def entry():
    """The narrowest of the installed models: a trained one, whose answers mean something."""
    return min(
        (entry for entry in ModelLibrary().entries if entry.precision == "fp32"),
        key=lambda entry: entry.alpha,
    )


@pytest.fixture(scope="module")
def fp32(entry):
    return ModelLibrary().read(entry)


@pytest.fixture(scope="module")
def int8(fp32, dataset):
    return quantize_model(fp32, spread_pictures(dataset, 4), "four pictures")[0]


def metadata_in(content):
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return metadata_from(session.get_modelmeta().custom_metadata_map, "test")


def test_weights_are_int8_with_a_scale_for_each_channel(fp32, int8):
    graph = onnx.load_from_string(int8).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    floats = {
        t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(fp32).graph.initializer
    }
    made_by = {name: node for node in graph.node for name in node.output}
    first, *others = [node for node in graph.node if node.op_type == "Conv"]
    np.testing.assert_array_equal(constants[first.input[1]], floats[first.input[1]])
    assert len(others) > 50
    for conv in others:
        dequantize = made_by[conv.input[1]]
        weight, scale, zero = (constants[name] for name in dequantize.input)
        assert (weight.dtype, scale.shape) == (np.int8, (len(weight),))
        assert not zero.any()
        assert helper.get_node_attr_value(dequantize, "axis") == 0
        # Rounded to the nearest step, and the steps are as small as the largest weight allows.
        original = floats[dequantize.input[0].removesuffix("_quantized")]
        steps = scale.reshape(-1, 1, 1, 1)
        assert (abs(weight * steps - original) <= steps * 0.501).all()
        np.testing.assert_allclose(scale, abs(original).max((1, 2, 3)) / 127, rtol=0.01)


def test_maps_are_uint8_and_relu6_is_their_range(int8):
    graph = onnx.load_from_string(int8).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    maps = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(maps) > 50
    assert {constants[node.input[2]].dtype for node in maps} == {np.dtype(np.uint8)}
    # One limit is left, that of the first convolution, which stays float.
    assert [node.op_type for node in graph.node].count("Clip") == 1


@pytest.mark.parametrize("size", [(240, 320), (168, 224), (333, 201)])
def test_the_answers_are_near_those_of_the_fp32_model(fp32, int8, dataset, size):
    pixels = prepare_image(Picture.of_bgr(read_picture(dataset.pictures[7])), max(size))
    pixels = np.resize(pixels, (1, *size, 3))
    (boxes, scores), (boxes8, scores8) = (
        make_session(model, size, 1, "test").run(["boxes", "scores"], {"image": pixels})
        for model in (fp32, int8)
    )
    assert scores8.shape == scores.shape
    assert scores.std() > 0.01  # or agreement would mean little
    assert np.sqrt(np.mean((scores8 - scores) ** 2)) < 0.1 * scores.std()
    sides = boxes[..., 2:] - boxes[..., :2]
    shift = abs(boxes8 - boxes).reshape(*sides.shape[:2], 2, 2) / sides[:, :, None]
    assert np.median(shift) < 0.03
    assert np.median(shift) > 0  # it is another model


def test_it_finds_what_the_fp32_model_finds(fp32, int8, dataset):
    before, after = (measure_model(dataset, Detector(model, 320, 1)).ap50 for model in (fp32, int8))
    assert before > 0.1
    assert abs(after - before) < 0.05


def test_the_file_says_what_it_is(fp32, int8):
    before, after = metadata_in(fp32), metadata_in(int8)
    assert after.precision == "int8"
    assert after.trained_with == f"{before.trained_with}; calibrated on four pictures"
    for name in ("backbone", "alpha", "classes", "anchor_scales", "resolutions"):
        assert getattr(after, name) == getattr(before, name)


def test_height_and_width_stay_free_and_the_file_is_small(fp32, int8):
    session = ort.InferenceSession(int8, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, "height", "width", 3]
    assert len(int8) < 0.5 * len(fp32)
    assert onnx.load_from_string(int8).opset_import == onnx.load_from_string(fp32).opset_import


def test_the_same_pictures_give_the_same_file(fp32, int8, dataset):
    again, metadata = quantize_model(fp32, spread_pictures(dataset, 4), "four pictures")
    assert again == int8
    assert metadata == metadata_in(int8)


def steps_of_maps(content):
    graph = onnx.load_from_string(content).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    maps = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    return {node.input[0]: float(constants[node.input[1]]) for node in maps}


def test_it_calibrates_on_what_the_detector_would_see(fp32, int8, entry, monkeypatch):
    seen = []

    def prepare(picture, resolution):
        seen.append((picture.pixels.shape, resolution))
        return prepare_image(picture, resolution)

    monkeypatch.setattr(quantize, "prepare_image", prepare)
    images = [np.zeros((48 + k, 64, 3), np.uint8) for k in range(len(entry.resolutions) + 1)]
    black, _ = quantize_model(fp32, images, "black")
    sizes = [*entry.resolutions, entry.resolutions[0]]
    assert seen == [((48 + k, 64, 3), size) for k, size in enumerate(sizes)]
    # Less is in the dark: most maps of the scenes reach further, and need coarser steps.
    steps, dark = steps_of_maps(int8), steps_of_maps(black)
    assert steps.keys() == dark.keys()
    assert np.mean([steps[name] > dark[name] for name in steps]) > 0.5


def test_nodes_that_calculate_maps_are_chosen():
    nodes = [
        ("Conv", ["image", "w"], "first"),
        ("Clip", ["first", "zero", "six"], "limited_first"),
        ("Conv", ["limited_first", "w"], "a"),
        ("Clip", ["a", "zero", "six"], "limited"),
        ("Conv", ["limited", "w"], "b"),
        ("Add", ["limited", "b"], "residual"),
        ("Add", ["limited_first", "b"], "half float"),
        ("Add", ["b", "constant"], "decoded"),
        ("Mul", ["b", "b"], "product"),
        ("Clip", ["product", "zero", "six"], "limited product"),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [out], name=out) for kind, inputs, out in nodes],
        "test",
        [],
        [],
    )
    assert nodes_to_quantize(graph) == ["a", "limited", "b", "residual"]


def test_pictures_are_spread_over_the_data_set(dataset):
    wanted = [read_picture(dataset.pictures[k]) for k in (0, 5, 11)]  # 0, 5.5 and 11
    np.testing.assert_array_equal(list(spread_pictures(dataset, 3)), wanted)
    assert len(list(spread_pictures(dataset, 99))) == 12


def test_an_int8_model_is_refused(int8):
    message = r"^a\.onnx: is int8 already; expected the fp32 model"
    with pytest.raises(ModelError, match=message):
        quantize_model(int8, [], "test", "a.onnx")


def test_no_pictures_are_refused(fp32):
    with pytest.raises(ModelError, match=r"^a\.onnx: expected at least one picture to calibrate"):
        quantize_model(fp32, iter([]), "test", "a.onnx")


def test_other_files_are_refused(make_model, fp32):
    with pytest.raises(ModelError, match=r"^a\.onnx: is no ONNX file"):
        quantize_model(b"\xffnothing", [], "test", "a.onnx")
    with pytest.raises(ModelError, match=r"^a\.onnx: is no model of mbnet_perception"):
        quantize_model(make_model([(0, 0, 1, 1)], props={}), [], "test", "a.onnx")
    with pytest.raises(ModelError, match=r"^a\.onnx: expected a network of at least two conv"):
        quantize_model(make_model([(0, 0, 1, 1)]), [], "test", "a.onnx")
    with pytest.raises(ModelError, match=r"^a\.onnx: is no"):
        quantize_model(fp32[: len(fp32) // 2], [], "test", "a.onnx")


def test_a_picture_that_cannot_be_read_is_named(fp32, tmp_path):
    labels = write_pictures(tmp_path, 2, size=(96, 72))
    dataset = read_coco(labels)
    broken = dataset.pictures[1].path
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(DatasetError, match=broken.name):
        quantize_model(fp32, spread_pictures(dataset, 2), "test")


@pytest.fixture
def folder(tmp_path, fp32):
    """A models folder that offers one resolution of the fp32 model."""
    proto = onnx.load_from_string(fp32)
    metadata = metadata_in(fp32)
    props = metadata.as_props() | {"resolutions": "[224]"}
    helper.set_model_props(proto, props)
    metadata = metadata_from(props, "test")
    return add_model(tmp_path / "models", proto.SerializeToString(), metadata, {}).parent


def test_the_command_adds_a_model_that_the_node_runs(folder, entry, labels, dataset, capsys):
    fp32_file = folder / entry.file
    arguments = [str(fp32_file), "--calibration", str(labels), "--data", str(labels)]
    assert cli.main(["quantize", *arguments, "--pictures", "3"]) == 0
    line, file = capsys.readouterr().out.splitlines()
    assert file == str(fp32_file).replace("fp32", "int8")

    library = ModelLibrary(folder)
    measured = {entry.precision: entry.ap50 for entry in library.entries}["int8"]
    before, after = (
        measure_model(dataset, Detector((folder / name).read_bytes(), 224))
        for name in (fp32_file.name, file)
    )
    assert measured == {224: round(after.ap50, 4)}
    assert line == (
        f"resolution 224: fp32 AP {before.ap:.3f}  AP50 {before.ap50:.3f}   "
        f"int8 AP {after.ap:.3f}  AP50 {after.ap50:.3f}   "
        f"lost AP {before.ap - after.ap:.3f}  AP50 {before.ap50 - after.ap50:.3f}"
    )
    fp32, int8 = (OperatingPoint(entry.backbone, entry.alpha, 224, p) for p in ("fp32", "int8"))
    engine = Engine(library, fp32, 1)
    picture = Picture.of_bgr(read_picture(dataset.pictures[0]))
    for point in (int8, fp32):
        engine.switch(point)
        assert engine.detector.metadata.precision == point.precision
        found, _ = engine.detector.detect(picture, Selection(score_threshold=0.1))
        assert len(found.scores) > 0


def test_the_command_can_add_it_elsewhere_and_refuses_to_do_it_twice(
    folder, entry, labels, tmp_path, capsys
):
    command = ["quantize", str(folder / entry.file), "--calibration", str(labels)]
    command += ["--data", str(labels), "--pictures", "1", "--models", str(tmp_path / "other")]
    assert cli.main(command) == 0
    file = capsys.readouterr().out.splitlines()[-1]
    assert [entry.precision for entry in ModelLibrary(tmp_path / "other").entries] == ["int8"]
    command[1] = file
    assert cli.main(command) == 1
    assert f"error: {file}: is int8 already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"--pictures": "0"}, "--pictures must be at least 1, got 0", id="no pictures"),
        pytest.param({"--calibration": "gone.json"}, "gone.json: cannot be read", id="no labels"),
        pytest.param({"--data": "gone.json"}, "gone.json: cannot be read", id="no data"),
    ],
)
def test_the_command_says_what_is_wrong(folder, entry, labels, options, message, capsys):
    given = {"--calibration": str(labels), "--data": str(labels)} | options
    arguments = [part for pair in given.items() for part in pair]
    assert cli.main(["quantize", str(folder / entry.file), *arguments]) == 1
    assert f"error: {message}" in capsys.readouterr().err
    assert [entry.precision for entry in ModelLibrary(folder).entries] == ["fp32"]


def test_the_command_names_a_missing_model(labels, tmp_path, capsys):
    missing = tmp_path / "gone.onnx"
    arguments = [str(missing), "--calibration", str(labels), "--data", str(labels)]
    assert cli.main(["quantize", *arguments]) == 1
    assert f"error: {missing}: cannot be read: No such file" in capsys.readouterr().err

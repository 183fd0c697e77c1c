"""Model files small enough to know their answers by heart."""

import pytest

from mbnet_perception.inference.format import Metadata

OUTPUTS = ("boxes", "scores")


def metadata_of(alpha=0.5, classes=("red", "green", "blue"), resolutions=(64, 96)):
    return Metadata(
        backbone="mobilenet_v2",
        alpha=alpha,
        precision="fp32",
        classes=tuple(classes),
        anchor_scales=(0.08, 0.16, 0.32, 0.5, 0.7, 0.9),
        resolutions=tuple(resolutions),
        trained_with="nothing",
    )


@pytest.fixture(scope="session")
def make_metadata():
    """Metadata of a model file, with three classes unless told otherwise."""
    return metadata_of


@pytest.fixture(scope="session")
def make_model():
    """A function that makes a model file for ONNX Runtime, without any network in it.

    Its boxes are the ones given, as fractions. Its scores are the ones given, (boxes, classes), or
    else the mean red, green and blue of the picture, 0-1, for each box. `height` and `width` fix
    the input's size, which a good file leaves open.
    """
    onnx = pytest.importorskip("onnx", reason="the test extra holds it, for the tests' model files")
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    def make(boxes, scores=None, props=None, height="height", width="width", names=OUTPUTS):
        boxes = np.array(boxes, np.float32)[None]
        if scores is None:
            weights, offset = np.eye(3) / 255, np.zeros((1, boxes.shape[1], 3))
        else:
            offset = np.array(scores)[None]
            weights = np.zeros((3, offset.shape[2]))
        nodes = [
            helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["colour"]),
            helper.make_node("Add", ["colour", "offset"], [names[1]]),
            helper.make_node("Identity", ["constant"], [names[0]]),
        ]
        constants = {
            "weights": weights.astype(np.float32),
            "offset": offset.astype(np.float32),
            "constant": boxes,
        }
        graph = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, None])
                for name in names
            ],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        helper.set_model_props(model, metadata_of().as_props() if props is None else props)
        return model.SerializeToString()

    return make

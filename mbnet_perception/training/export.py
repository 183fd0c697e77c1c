"""A trained network as one self-describing ONNX file.

The graph is written out from the architecture tables rather than traced: batch normalisation folds
into the convolutions, limits of ReLU6 are constants so that ONNX Runtime fuses them, height and
width stay symbolic, and it takes no time (see docs/decisions.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mbnet_perception.core.anchors import CENTRE_VARIANCE, SIZE_VARIANCE, cell_anchors
from mbnet_perception.inference.format import Metadata
from mbnet_perception.training.checkpoints import read_network
from mbnet_perception.training.model import MAX_SIZE_REGRESSION, ConvBlock, SSDLite
from mbnet_perception.training.recipe import Recipe

OPSET = 17  # ONNX Runtime 1.16, the oldest that setup.py admits, reads up to 19
IR_VERSION = 8


class _Graph:
    """Nodes and constants in the making; each method adds a node and returns its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, value: NDArray[np.generic], name: str = "") -> str:
        name = name or f"constant_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(value, name)
        return name

    def floats(self, *values: float) -> str:
        return self.constant(np.array(values, np.float32))

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, list(inputs), [output], name=output, **attributes)
        )
        return output


def make_onnx(model: SSDLite, metadata: Metadata) -> onnx.ModelProto:
    """Write a network out, for anchors of the scales that the metadata names.

    The file takes ``image``, uint8 (1, height, width, 3) RGB. It gives ``boxes``, float32
    (1, A, 4) xyxy as fractions of the input, not clipped, and ``scores``, float32 (1, A, classes)
    in 0-1; rows run as :mod:`mbnet_perception.core.anchors` says.
    """
    graph = _Graph()
    x = graph.add("Cast", "image", to=TensorProto.FLOAT)
    x = graph.add("Transpose", x, perm=[0, 3, 1, 2])
    x = graph.add("Mul", x, graph.floats(1 / 127.5))
    x = graph.add("Sub", x, graph.floats(1))
    limits = (
        graph.constant(np.array(0, np.float32), "zero"),
        graph.constant(np.array(6, np.float32), "six"),
    )
    maps = []
    for i, block in enumerate(model.blocks):
        tap = model.tap[1] if i == model.tap[0] else None
        x, tapped = _add_block(graph, block, x, f"blocks.{i}", limits, tap)
        maps += tapped
    maps.append(x)
    for i, extra in enumerate(model.extras):
        maps.append(_add_block(graph, extra, maps[-1], f"extras.{i}", limits)[0])

    shape = graph.add("Shape", "image")
    height_width = graph.add("Slice", shape, graph.integers(1), graph.integers(3))
    sides = graph.add("Cast", height_width, to=TensorProto.FLOAT)
    long_side = graph.add("ReduceMax", sides, keepdims=1, axes=[0])
    width_height = graph.add("Gather", sides, graph.integers(1, 0))
    stretch = graph.add("Div", long_side, width_height)

    centres, halves, scores = [], [], []
    anchors = cell_anchors(metadata.anchor_scales)
    for i, (level, shapes) in enumerate(zip(maps, anchors, strict=True)):
        regression = _to_rows(
            graph,
            _add_block(graph, model.box_heads[i], level, f"box_heads.{i}", limits)[0],
            [1, -1, len(shapes), 4],
        )
        logits = _add_block(graph, model.score_heads[i], level, f"score_heads.{i}", limits)[0]
        scores.append(_to_rows(graph, logits, [1, -1, model.classes]))
        size = graph.add("Mul", graph.constant(shapes), stretch)
        shift = graph.add("Slice", regression, *_last_axis(graph, 0, 2))
        shift = graph.add("Mul", graph.add("Mul", shift, graph.floats(CENTRE_VARIANCE)), size)
        centre = graph.add("Add", shift, _add_cell_centres(graph, level))
        growth = graph.add("Slice", regression, *_last_axis(graph, 2, 4))
        growth = graph.add("Min", growth, graph.floats(MAX_SIZE_REGRESSION))
        growth = graph.add("Exp", graph.add("Mul", growth, graph.floats(SIZE_VARIANCE)))
        half = graph.add("Mul", graph.add("Mul", growth, graph.floats(0.5)), size)
        rows = graph.integers(1, -1, 2)
        centres.append(graph.add("Reshape", centre, rows))
        halves.append(graph.add("Reshape", half, rows))
    centre = graph.add("Concat", *centres, axis=1)
    half = graph.add("Concat", *halves, axis=1)
    low, high = graph.add("Sub", centre, half), graph.add("Add", centre, half)
    graph.add("Concat", low, high, axis=2, output="boxes")
    graph.add("Sigmoid", graph.add("Concat", *scores, axis=1), output="scores")

    proto = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "mbnet_perception",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, "height", "width", 3])],
            [
                helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, "anchors", 4]),
                helper.make_tensor_value_info(
                    "scores", TensorProto.FLOAT, [1, "anchors", model.classes]
                ),
            ],
            list(graph.constants.values()),
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="mbnet_perception",
    )
    helper.set_model_props(proto, metadata.as_props())
    onnx.checker.check_model(proto, full_check=True)
    return proto


def export_checkpoint(checkpoint: Path, resolutions: tuple[int, ...]) -> tuple[bytes, Metadata]:
    """Make a model file of a checkpoint's averaged weights.

    Raises:
        TrainingError: If the checkpoint cannot be read, or its weights are of another network than
            its recipe.
    """
    model, recipe, state = read_network(checkpoint)
    metadata = Metadata(
        backbone=recipe.backbone,
        alpha=recipe.alpha,
        precision="fp32",
        classes=tuple(state["classes"]),
        anchor_scales=recipe.anchor_scales,
        resolutions=resolutions,
        trained_with=_describe(recipe, state["epoch"]),
    )
    return make_onnx(model, metadata).SerializeToString(), metadata


def _describe(recipe: Recipe, epochs: int) -> str:
    # The last folder tells data sets apart; those above it are nobody's business in a file that
    # may be published.
    data = ", ".join("/".join(source.labels.parts[-2:]) for source in recipe.train)
    policy = f", policy {Path(recipe.policy).name}" if recipe.policy else ""
    return f"{epochs} epochs of {data}{policy}"


def _add_block(
    graph: _Graph,
    block: ConvBlock,
    x: str,
    name: str,
    limits: tuple[str, str],
    tap: int | None = None,
) -> tuple[str, list[str]]:
    """Add a block; also returns the output of convolution ``tap``, if any."""
    start, tapped = x, []
    for i, conv in enumerate(block.convs):
        layer = fold_normalisation(conv)
        assert layer.bias is not None
        x = graph.add(
            "Conv",
            x,
            graph.constant(layer.weight.detach().numpy(), f"{name}.{i}.weight"),
            graph.constant(layer.bias.detach().numpy(), f"{name}.{i}.bias"),
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=[layer.kernel_size[0] // 2] * 4,
            group=layer.groups,
        )
        if isinstance(conv[-1], nn.ReLU6):
            x = graph.add("Clip", x, *limits)
        if i == tap:
            tapped.append(x)
    return (graph.add("Add", start, x) if block.residual else x), tapped


def fold_normalisation(conv: nn.Sequential) -> nn.Conv2d:
    """One convolution with a bias that does what a convolution and its normalisation do."""
    layer, *rest = conv
    assert isinstance(layer, nn.Conv2d)
    if rest and isinstance(rest[0], nn.BatchNorm2d):
        return fuse_conv_bn_eval(layer, rest[0])
    return layer


def _to_rows(graph: _Graph, head: str, shape: list[int]) -> str:
    last = graph.add("Transpose", head, perm=[0, 2, 3, 1])
    return graph.add("Reshape", last, graph.integers(*shape))


def _last_axis(graph: _Graph, start: int, end: int) -> tuple[str, str, str]:
    return graph.integers(start), graph.integers(end), graph.integers(-1)


def _add_cell_centres(graph: _Graph, level: str) -> str:
    """(1, rows * columns, 1, 2): x, y of each cell of a map, as fractions of the input."""
    shape = graph.add("Shape", level)
    axes = []
    for axis in (3, 2):
        count = graph.add("Gather", shape, graph.constant(np.array(axis, np.int64)), axis=0)
        cells = graph.add(
            "Range",
            graph.constant(np.array(0, np.int64)),
            count,
            graph.constant(np.array(1, np.int64)),
        )
        cells = graph.add("Add", graph.add("Cast", cells, to=TensorProto.FLOAT), graph.floats(0.5))
        axes.append(graph.add("Div", cells, graph.add("Cast", count, to=TensorProto.FLOAT)))
    # A row of x for each y, and a column of y for each x.
    x = graph.add("Reshape", axes[0], graph.integers(1, -1, 1))
    y = graph.add("Reshape", axes[1], graph.integers(-1, 1, 1))
    grid = graph.add("Slice", shape, graph.integers(2), graph.integers(4))
    grid = graph.add("Concat", grid, graph.integers(1), axis=0)
    pairs = [graph.add("Expand", axis, grid) for axis in (x, y)]
    return graph.add("Reshape", graph.add("Concat", *pairs, axis=2), graph.integers(1, -1, 1, 2))

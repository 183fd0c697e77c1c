"""A trained network as one self-describing ONNX file.

The graph is written out from the architecture tables rather than traced: batch normalisation folds
into the convolutions, limits of ReLU6 are constants so that ONNX Runtime fuses them, height and
width stay symbolic, and it takes no time (see docs/decisions.md).
"""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mbnet_perception.core.anchors import CENTRE_VARIANCE, SIZE_VARIANCE, STRIDES, cell_anchors
from mbnet_perception.core.architecture import ANCHORS_PER_CELL
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

    regressions, logits = [], []
    box_rows, score_rows = graph.integers(1, -1, 4), graph.integers(1, -1, model.classes)
    for i, level in enumerate(maps):
        box_head = _add_block(graph, model.box_heads[i], level, f"box_heads.{i}", limits)[0]
        score_head = _add_block(graph, model.score_heads[i], level, f"score_heads.{i}", limits)[0]
        regressions.append(_to_rows(graph, box_head, box_rows))
        logits.append(_to_rows(graph, score_head, score_rows))
    _add_boxes(graph, graph.add("Concat", *regressions, axis=1), metadata.anchor_scales)
    graph.add("Sigmoid", graph.add("Concat", *logits, axis=1), output="scores")

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


def _to_rows(graph: _Graph, head: str, shape: str) -> str:
    return graph.add("Reshape", graph.add("Transpose", head, perm=[0, 2, 3, 1]), shape)


def _add_boxes(graph: _Graph, regression: str, scales: tuple[float, ...]) -> None:
    """Add the output ``boxes``, from the regression of all anchors, (1, A, 4)."""
    centre, size = _add_anchors(graph, scales)
    last = graph.integers(-1)
    shift = graph.add("Slice", regression, graph.integers(0), graph.integers(2), last)
    reach = graph.add("Mul", size, graph.floats(CENTRE_VARIANCE))
    centre = graph.add("Add", graph.add("Mul", shift, reach), centre)
    growth = graph.add("Slice", regression, graph.integers(2), graph.integers(4), last)
    growth = graph.add("Min", growth, graph.floats(MAX_SIZE_REGRESSION))
    growth = graph.add("Exp", graph.add("Mul", growth, graph.floats(SIZE_VARIANCE)))
    half = graph.add("Mul", growth, graph.add("Mul", size, graph.floats(0.5)))
    low, high = graph.add("Sub", centre, half), graph.add("Add", centre, half)
    graph.add("Concat", low, high, axis=2, output="boxes")


def _add_anchors(graph: _Graph, scales: tuple[float, ...]) -> tuple[str, str]:
    """Centre and size of each anchor, each (A, 2), as ``core.anchors.make_anchors`` has them.

    ONNX Runtime works them out as it makes a session of known height and width, and spends longer
    on many small nodes than on their arithmetic: hence the same few nodes for all maps together,
    of operators that it works out beforehand.
    """
    per_cell = graph.integers(*ANCHORS_PER_CELL)
    strides = np.array(STRIDES, np.int64)[:, None]
    shapes = graph.constant(np.concatenate(cell_anchors(scales)))
    first_shapes = graph.integers(0, *accumulate(ANCHORS_PER_CELL[:-1]))
    second = graph.integers(1)
    zero, one = (graph.constant(np.array(value, np.int64)) for value in (0, 1))

    sides = graph.add("Shape", "image", start=1, end=3)
    # Rows and columns of each map, rounded up: (6, 2).
    grids = graph.add("Add", sides, graph.constant(strides - 1))
    grids = graph.add("Div", grids, graph.constant(strides))
    counts = graph.add("Mul", graph.add("ReduceProd", grids, axes=[1], keepdims=0), per_cell)
    ends = graph.add("CumSum", counts, zero)
    total = graph.add("ReduceSum", counts, keepdims=0)
    anchors = graph.add("Range", zero, total, one)
    # The map of an anchor is told by how many of them end before it: (A,).
    passed = graph.add("GreaterOrEqual", graph.add("Unsqueeze", anchors, second), ends)
    passed = graph.add("Cast", passed, to=TensorProto.INT64)
    level = graph.add("ReduceSum", passed, second, keepdims=0)

    start = graph.add("Gather", graph.add("Sub", ends, counts), level)
    place = graph.add("Sub", anchors, start)  # within the map
    per_cell = graph.add("Gather", per_cell, level)
    grid = graph.add("Gather", grids, level)
    columns = graph.add("Gather", grid, one, axis=1)
    cell = graph.add("Div", place, per_cell)
    axes = [graph.add(axis, cell, columns) for axis in ("Mod", "Div")]
    centre = graph.add("Concat", *(graph.add("Unsqueeze", axis, second) for axis in axes), axis=1)
    centre = graph.add("Add", graph.add("Cast", centre, to=TensorProto.FLOAT), graph.floats(0.5))
    flipped = graph.integers(1, 0)
    grid = graph.add("Cast", graph.add("Gather", grid, flipped, axis=1), to=TensorProto.FLOAT)
    centre = graph.add("Div", centre, grid)

    shape = graph.add("Gather", first_shapes, level)
    shape = graph.add("Add", shape, graph.add("Mod", place, per_cell))
    size = graph.add("Gather", shapes, shape)
    sides = graph.add("Cast", sides, to=TensorProto.FLOAT)
    long_side = graph.add("ReduceMax", sides, keepdims=1, axes=[0])
    stretch = graph.add("Div", long_side, graph.add("Gather", sides, flipped))
    return centre, graph.add("Mul", size, stretch)

"""MobileNetV1, MobileNetV2 and SSDLite as tables, and what they cost.

The tables hold plain numbers, so that the network built in PyTorch, its file on the car and the
cost printed for a user all come from one place. A tensor is (channels, height, width); every
convolution pads with ``kernel // 2`` zeros, so stride 2 gives ``ceil(size / 2)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

BACKBONES = ("mobilenet_v1", "mobilenet_v2")

# arXiv 1801.04381, Table 2: expansion t, output channels c, repeats n, stride s of the first.
MOBILENET_V2_ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
MOBILENET_V2_STEM = 32
MOBILENET_V2_LAST = 1280

# arXiv 1704.04861, Table 1: output channels and stride of each depthwise separable convolution.
MOBILENET_V1_ROWS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)
MOBILENET_V1_STEM = 32

# SSDLite (arXiv 1801.04381, section 6.2): depth of the maps added behind the backbone, and
# anchors in each cell of the six maps.
EXTRA_DEPTHS = (512, 256, 256, 128)
MINIMUM_EXTRA_DEPTH = 16
ANCHORS_PER_CELL = (3, 6, 6, 6, 6, 6)


@dataclass(frozen=True)
class Conv:
    """One convolution. ``norm`` adds batch normalisation and drops the bias; ``relu6`` follows."""

    in_channels: int
    out_channels: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    norm: bool = True
    relu6: bool = True

    @property
    def parameters(self) -> int:
        """Weights, and biases where there is no normalisation to absorb them."""
        weights = self.kernel**2 * (self.in_channels // self.groups) * self.out_channels
        return weights + (0 if self.norm else self.out_channels)

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates over an input of ``height`` x ``width`` pixels."""
        height, width = self.output_size(height, width)
        per_pixel = self.kernel**2 * (self.in_channels // self.groups) * self.out_channels
        return height * width * per_pixel

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        return -(-height // self.stride), -(-width // self.stride)


@dataclass(frozen=True)
class Block:
    """Convolutions in a row; ``residual`` adds the input of the first to the output of the last."""

    convs: tuple[Conv, ...]
    residual: bool = False


@dataclass(frozen=True)
class Classifier:
    """An ImageNet classifier: the blocks, then global average pooling and one linear layer."""

    blocks: tuple[Block, ...]
    classes: int

    @property
    def head(self) -> Conv:
        channels = self.blocks[-1].convs[-1].out_channels
        return Conv(channels, self.classes, norm=False, relu6=False)

    def macs(self, height: int, width: int) -> int:
        total, _ = _walk_cost(_convs(self.blocks), height, width)
        return total + self.head.macs(1, 1)

    @property
    def parameters(self) -> int:
        """Convolution and linear weights and biases, without batch normalisation."""
        return sum(conv.parameters for conv in _convs(self.blocks)) + self.head.parameters


@dataclass(frozen=True)
class Detector:
    """SSDLite over a backbone.

    Attributes:
        blocks: The backbone.
        tap: (block, conv): the stride-16 map is the output of this convolution. The stride-32 map
            is the output of the last block.
        extras: One block for each further map.
        box_heads, score_heads: One block per map; they emit ``anchors * 4`` and
            ``anchors * classes`` channels, anchor by anchor.
    """

    blocks: tuple[Block, ...]
    tap: tuple[int, int]
    extras: tuple[Block, ...]
    box_heads: tuple[Block, ...]
    score_heads: tuple[Block, ...]

    def macs(self, height: int, width: int) -> int:
        """Multiply-accumulates of all convolutions for one ``height`` x ``width`` picture."""
        block, conv = self.tap
        head = (*_convs(self.blocks[:block]), *self.blocks[block].convs[: conv + 1])
        tail = (*self.blocks[block].convs[conv + 1 :], *_convs(self.blocks[block + 1 :]))
        total, size = _walk_cost(head, height, width)
        maps = [size]
        for convs in (tail, *(extra.convs for extra in self.extras)):
            cost, size = _walk_cost(convs, *size)
            total += cost
            maps.append(size)
        for heads in (self.box_heads, self.score_heads):
            for size, predictor in zip(maps, heads, strict=True):
                total += _walk_cost(predictor.convs, *size)[0]
        return total

    @property
    def parameters(self) -> int:
        """Convolution weights and biases, without batch normalisation."""
        parts = (self.blocks, self.extras, self.box_heads, self.score_heads)
        return sum(conv.parameters for part in parts for conv in _convs(part))


def round_channels(channels: float) -> int:
    """Round to a multiple of 8, at least 8, and never down by more than a tenth.

    The rule of the MobileNetV2 authors' released code for any width multiplier.
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def make_classifier(backbone: str, alpha: float, classes: int = 1000) -> Classifier:
    """The ImageNet classifier of the papers.

    MobileNetV2 keeps 1280 channels in its last convolution for ``alpha`` below 1.

    Raises:
        ValueError: If the backbone is unknown or alpha is not positive.
    """
    blocks, _ = _make_backbone(backbone, alpha, last=round_channels(1280 * max(1.0, alpha)))
    return Classifier(blocks, classes)


def make_detector(backbone: str, alpha: float, classes: int) -> Detector:
    """SSDLite with ``classes`` sigmoid scores per anchor; alpha applies to every layer.

    Raises:
        ValueError: If the backbone is unknown, or alpha or classes is not positive.
    """
    if classes < 1:
        raise ValueError(f"a detector needs at least one class, got {classes}")
    blocks, tap = _make_backbone(backbone, alpha, last=round_channels(MOBILENET_V2_LAST * alpha))
    channels = [blocks[tap[0]].convs[tap[1]].out_channels, blocks[-1].convs[-1].out_channels]
    extras = []
    for depth in EXTRA_DEPTHS:
        depth = max(MINIMUM_EXTRA_DEPTH, round_channels(depth * alpha))
        extras.append(
            Block((Conv(channels[-1], depth // 2), *_separable(depth // 2, depth, stride=2)))
        )
        channels.append(depth)

    def heads(outputs_per_anchor: int) -> tuple[Block, ...]:
        return tuple(
            Block(
                (
                    Conv(inputs, inputs, kernel=3, groups=inputs),
                    Conv(inputs, anchors * outputs_per_anchor, norm=False, relu6=False),
                )
            )
            for inputs, anchors in zip(channels, ANCHORS_PER_CELL, strict=True)
        )

    return Detector(blocks, tap, tuple(extras), heads(4), heads(classes))


def _make_backbone(
    backbone: str, alpha: float, last: int
) -> tuple[tuple[Block, ...], tuple[int, int]]:
    if alpha <= 0:
        raise ValueError(f"alpha must be positive, got {alpha}")
    if backbone == "mobilenet_v2":
        return _mobilenet_v2(alpha, last)
    if backbone == "mobilenet_v1":
        return _mobilenet_v1(alpha)
    raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}, got {backbone!r}")


def _mobilenet_v2(alpha: float, last: int) -> tuple[tuple[Block, ...], tuple[int, int]]:
    channels = round_channels(MOBILENET_V2_STEM * alpha)
    blocks = [Block((Conv(3, channels, kernel=3, stride=2),))]
    tap = (0, 0)
    for expansion, row_channels, repeats, row_stride in MOBILENET_V2_ROWS:
        outputs = round_channels(row_channels * alpha)
        for repeat in range(repeats):
            stride = row_stride if repeat == 0 else 1
            hidden = channels * expansion
            if row_channels == 160 and repeat == 0:
                tap = (len(blocks), 0)
            expand = (Conv(channels, hidden),) if expansion > 1 else ()
            depthwise = Conv(hidden, hidden, kernel=3, stride=stride, groups=hidden)
            project = Conv(hidden, outputs, relu6=False)  # the linear bottleneck
            blocks.append(Block((*expand, depthwise, project), stride == 1 and channels == outputs))
            channels = outputs
    blocks.append(Block((Conv(channels, last),)))
    return tuple(blocks), tap


def _mobilenet_v1(alpha: float) -> tuple[tuple[Block, ...], tuple[int, int]]:
    channels = round_channels(MOBILENET_V1_STEM * alpha)
    blocks = [Block((Conv(3, channels, kernel=3, stride=2),))]
    for row_channels, stride in MOBILENET_V1_ROWS:
        outputs = round_channels(row_channels * alpha)
        blocks.append(Block(_separable(channels, outputs, stride)))
        channels = outputs
    return tuple(blocks), (len(blocks) - 3, 1)  # the last pointwise convolution at stride 16


def _separable(inputs: int, outputs: int, stride: int) -> tuple[Conv, Conv]:
    return Conv(inputs, inputs, kernel=3, stride=stride, groups=inputs), Conv(inputs, outputs)


def _convs(blocks: Sequence[Block]) -> Iterator[Conv]:
    return (conv for block in blocks for conv in block.convs)


def _walk_cost(convs: Iterable[Conv], height: int, width: int) -> tuple[int, tuple[int, int]]:
    total = 0
    for conv in convs:
        total += conv.macs(height, width)
        height, width = conv.output_size(height, width)
    return total, (height, width)

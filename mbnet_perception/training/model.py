"""The networks of :mod:`mbnet_perception.core.architecture` in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mbnet_perception.core import architecture
from mbnet_perception.core.anchors import CENTRE_VARIANCE, SIZE_VARIANCE
from mbnet_perception.core.architecture import Block, Conv

# A regression of 5 units scales a box by e; more is no object, and would overflow in half floats.
MAX_SIZE_REGRESSION = 20.0

# What torchvision's ImageNet weights are used to: mean and deviation of RGB in 0-1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

# Share of anchors that a new detector calls an object (RetinaNet, arXiv 1708.02002, section 3.3):
# keeps the sea of empty anchors from swamping the first steps.
PRIOR = 0.01


class Float32Conv2d(nn.Conv2d):
    """A convolution that stays in float32 under autocast.

    On the CPU, a strided depthwise convolution with its gradient takes 3 to 29 times as long in
    bfloat16 as in float32 (torch 2.15, benchmarks/strided_depthwise.py), and the gradient is now
    and then NaN on maps a few cells wide.
    """

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def _make_conv(conv: Conv) -> nn.Sequential:
    strided_depthwise = conv.groups > 1 and conv.stride > 1
    layers: list[nn.Module] = [
        (Float32Conv2d if strided_depthwise else nn.Conv2d)(
            conv.in_channels,
            conv.out_channels,
            conv.kernel,
            conv.stride,
            conv.kernel // 2,
            groups=conv.groups,
            bias=not conv.norm,
        )
    ]
    if conv.norm:
        layers.append(nn.BatchNorm2d(conv.out_channels))
    if conv.relu6:
        layers.append(nn.ReLU6(inplace=True))
    return nn.Sequential(*layers)


class ConvBlock(nn.Module):
    """A :class:`Block` of the architecture tables: (N, C, H, W) in and out."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        convs = nn.ModuleList(_make_conv(conv) for conv in block.convs)
        self.convs = cast("Sequence[nn.Sequential]", convs)
        self.residual = block.residual

    def forward(self, x: Tensor) -> Tensor:
        start = x
        for conv in self.convs:
            x = conv(x)
        return start + x if self.residual else x


def _make_blocks(blocks: Sequence[Block]) -> Sequence[ConvBlock]:
    return cast("Sequence[ConvBlock]", nn.ModuleList(ConvBlock(block) for block in blocks))


class Classifier(nn.Module):
    """An ImageNet classifier: (N, 3, H, W) float32 to (N, classes) logits."""

    def __init__(self, backbone: str, alpha: float = 1.0, classes: int = 1000) -> None:
        super().__init__()
        table = architecture.make_classifier(backbone, alpha, classes)
        self.blocks = _make_blocks(table.blocks)
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(table.head.in_channels, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.linear(self.dropout(x.mean((2, 3))))

    def load_torchvision(self, state: Mapping[str, Tensor]) -> None:
        """Take over the state dict of torchvision's ``mobilenet_v2`` of the same alpha.

        Both list the same layers in the same order, under other names.

        Raises:
            ValueError: If the number of tensors or a shape differs; names the first tensor.
        """
        own = self.state_dict()
        if len(own) != len(state):
            raise ValueError(
                f"expected {len(own)} tensors of a mobilenet_v2, got {len(state)}; "
                "is the state dict that of torchvision.models.mobilenet_v2?"
            )
        for (name, mine), (theirs_name, theirs) in zip(own.items(), state.items(), strict=True):
            if mine.shape != theirs.shape:
                raise ValueError(
                    f"{theirs_name} has shape {tuple(theirs.shape)}, but {name} needs "
                    f"{tuple(mine.shape)}; is alpha the same?"
                )
        self.load_state_dict(dict(zip(own, state.values(), strict=True)))


class SSDLite(nn.Module):
    """MobileNet with SSDLite heads.

    Takes (N, 3, H, W) float32, RGB in [-1, 1]. Returns regressions (N, A, 4) and logits
    (N, A, classes); rows run as :mod:`mbnet_perception.core.anchors` says.
    """

    def __init__(self, backbone: str, alpha: float, classes: int) -> None:
        super().__init__()
        table = architecture.make_detector(backbone, alpha, classes)
        self.classes = classes
        self.tap = table.tap
        self.blocks = _make_blocks(table.blocks)
        self.extras = _make_blocks(table.extras)
        self.box_heads = _make_blocks(table.box_heads)
        self.score_heads = _make_blocks(table.score_heads)
        _initialise(self)
        for head in self.score_heads:
            bias = head.convs[-1][0].bias
            assert isinstance(bias, Tensor)
            nn.init.constant_(bias, -math.log(1 / PRIOR - 1))

    def load_backbone(self, blocks: Mapping[str, Tensor]) -> None:
        """Take over the ``blocks.`` of the state dict of a network of the same backbone and alpha.

        Raises:
            RuntimeError: If a shape differs.
        """
        own = self.state_dict()
        own.update({name: value for name, value in blocks.items() if name.startswith("blocks.")})
        self.load_state_dict(own)

    def load_torchvision(self, state: Mapping[str, Tensor]) -> None:
        """Take over the backbone of torchvision's ``mobilenet_v2``; only alpha 1.0 has its shape.

        Its input is (x - mean) / deviation of RGB in 0-1, ours runs from -1 to 1; the difference
        goes into the first convolution and its normalisation. Where that convolution pads, it now
        pads with grey instead of the mean colour.

        Raises:
            ValueError: If the state dict is of another network.
            RuntimeError: If this network has another backbone or alpha.
        """
        classifier = Classifier("mobilenet_v2")
        classifier.load_torchvision(state)
        mean, deviation = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_DEVIATION)
        convolution, norm = classifier.blocks[0].convs[0][:2]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        with torch.no_grad():
            shift = (convolution.weight.sum((2, 3)) * ((0.5 - mean) / deviation)).sum(1)
            convolution.weight *= (0.5 / deviation)[:, None, None]
            norm.running_mean -= shift
        self.load_backbone(classifier.state_dict())

    def backbone_maps(self, x: Tensor) -> list[Tensor]:
        """The maps of the backbone, strides 16 and 32."""
        maps = []
        for i, block in enumerate(self.blocks):
            if i == self.tap[0]:
                start = x
                for j, conv in enumerate(block.convs):
                    x = conv(x)
                    if j == self.tap[1]:
                        maps.append(x)
                x = start + x if block.residual else x
            else:
                x = block(x)
        maps.append(x)
        return maps

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.backbone_maps(x)
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        boxes = [_to_rows(head(m), 4) for head, m in zip(self.box_heads, maps, strict=True)]
        scores = [
            _to_rows(head(m), self.classes) for head, m in zip(self.score_heads, maps, strict=True)
        ]
        return torch.cat(boxes, 1), torch.cat(scores, 1)


def _to_rows(head: Tensor, values: int) -> Tensor:
    """(N, anchors * values, H, W) to (N, H * W * anchors, values)."""
    return head.permute(0, 2, 3, 1).reshape(head.shape[0], -1, values)


def decode_boxes(regressions: Tensor, anchors: Tensor) -> Tensor:
    """Apply regressions (..., A, 4) to anchors (A, 4) cxcywh.

    Returns (..., A, 4) xyxy in the anchors' unit, not clipped.
    """
    centre = anchors[:, :2] + regressions[..., :2] * CENTRE_VARIANCE * anchors[:, 2:]
    growth = (regressions[..., 2:] * SIZE_VARIANCE).clamp(max=MAX_SIZE_REGRESSION * SIZE_VARIANCE)
    half = anchors[:, 2:] * growth.exp() / 2
    return torch.cat((centre - half, centre + half), -1)


def _initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)

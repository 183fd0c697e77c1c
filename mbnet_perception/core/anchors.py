"""The SSD default boxes.

Row order, which the heads, the loss, the model file and the node all lean on: by map, then y, then
x, then anchor within the cell.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core.architecture import ANCHORS_PER_CELL

# Scale of each map's anchors as a fraction of the input's long side. Half the boxes of a driving
# picture measure less than a tenth of it, hence the small first ones.
DEFAULT_SCALES = (0.08, 0.16, 0.32, 0.5, 0.7, 0.9)

# How far one unit of a regression moves a box (SSD, arXiv 1512.02325, released code).
CENTRE_VARIANCE = 0.1
SIZE_VARIANCE = 0.2

# Pixels of the input from one cell of a map to the next.
STRIDES = (16, 32, 64, 128, 256, 512)


def grid_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width in cells of the six maps of a ``height`` x ``width`` input."""
    return [(-(-height // stride), -(-width // stride)) for stride in STRIDES]


def cell_anchors(scales: tuple[float, ...] = DEFAULT_SCALES) -> list[NDArray[np.float32]]:
    """Anchor shapes of each map.

    As SSD has it, the first map holds a square of half its scale and ratios 2 and 1/2; the others
    hold ratios 1, 2, 1/2, 3 and 1/3 and a square between their scale and the next one's.

    Returns:
        One (anchors, 2) float32 per map: width and height as fractions of the long side.

    Raises:
        ValueError: If there are not six scales, ascending and positive.
    """
    if len(scales) != len(STRIDES) or sorted(scales) != list(scales) or scales[0] <= 0:
        raise ValueError(f"anchor scales must be six ascending positive numbers, got {scales}")
    shapes = [[(scales[0] / 2, 1.0), (scales[0], 2.0), (scales[0], 0.5)]]
    for scale, following in zip(scales[1:], (*scales[2:], 1.0), strict=True):
        ratios = [(scale, ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 1 / 3)]
        shapes.append([*ratios, (math.sqrt(scale * following), 1.0)])
    assert tuple(len(level) for level in shapes) == ANCHORS_PER_CELL
    return [
        np.array([(s * math.sqrt(r), s / math.sqrt(r)) for s, r in level], np.float32)
        for level in shapes
    ]


def make_anchors(
    height: int, width: int, scales: tuple[float, ...] = DEFAULT_SCALES
) -> NDArray[np.float32]:
    """Tile the anchors over the maps of a ``height`` x ``width`` input.

    Returns:
        (A, 4) float32 (cx, cy, w, h) as fractions of the input's width and height, not clipped;
        rows as the module says. Shapes are set against the long side, so that a square anchor is
        square in pixels whatever the aspect ratio.
    """
    long_side = max(height, width)
    levels = []
    for (rows, columns), shapes in zip(
        grid_sizes(height, width), cell_anchors(scales), strict=True
    ):
        level = np.empty((rows, columns, len(shapes), 4), np.float32)
        level[..., 0] = ((np.arange(columns) + 0.5) / columns)[None, :, None]
        level[..., 1] = ((np.arange(rows) + 0.5) / rows)[:, None, None]
        level[..., 2] = shapes[:, 0] * (long_side / width)
        level[..., 3] = shapes[:, 1] * (long_side / height)
        levels.append(level.reshape(-1, 4))
    return np.concatenate(levels)

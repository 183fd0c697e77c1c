"""Depth of a street scene from the road's geometry alone, where no depth is given."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

HORIZON = 0.45
"""The horizon's row, as a share of the picture's height."""

FOCAL = 1.0
"""Focal length as a share of the picture's long side: 53 degrees from end to end of it."""

CAMERA_HEIGHT = 2.2
"""Metres above the road: between a car's windscreen and a camera on a pole."""

STREET_SIDE = 15.0
"""Metres from the camera to the houses and trees on either side."""

SIGHT = 35.0
"""Metres to what closes the view at the horizon: traffic ahead, a bend, a house."""

SKY = 55.0
"""Metres to the middle of the picture's top.

The sky is further away, but fog has nearly its colour already. Lamps, signs and trees are up
there as well, and are to fade as things do that are seen from 10 to 100 m.
"""


@lru_cache(maxsize=32)
def estimate_road_depth(height: int, width: int) -> NDArray[np.float32]:
    """Depth of a street seen from a car, in metres.

    A pinhole camera looks along a flat road between two walls. What closes the view, and the sky
    above it, lies at a stated distance. The nearest of these counts, with smooth transitions.
    It knows nothing of what stands on the road: a measured depth is better where there is one.

    Args:
        height: Of the picture in pixels.
        width: Likewise.

    Returns:
        (height, width) float32, read-only, as pictures of one size share it.

    Raises:
        ValueError: If a side is not positive.
    """
    if height < 1 or width < 1:
        raise ValueError(f"picture height and width must be positive, got {height} x {width}")
    focal = FOCAL * max(height, width)
    below = (np.arange(height) + 0.5 - HORIZON * height)[:, None] / focal
    beside = np.abs(np.arange(width) + 0.5 - 0.5 * width)[None, :] / focal
    up = np.clip(-below * focal / (HORIZON * height), 0, 1)
    end = SIGHT * (SKY / SIGHT) ** (up * up * (3 - 2 * up))
    # Sums of inverse powers stand for the nearest: each has one where the others are far away.
    nearness = (
        (np.maximum(below, 0) / CAMERA_HEIGHT) ** 2
        + (beside * (1 - up) / STREET_SIDE) ** 2
        + end**-2
    )
    depth = np.asarray(nearness**-0.5, np.float32)
    depth.flags.writeable = False
    return depth

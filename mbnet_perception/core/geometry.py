"""Where a camera frame lands in the network input."""

from __future__ import annotations

from functools import lru_cache

MINIMUM_SIDE = 32


@lru_cache(maxsize=64)  # for each frame the same
def input_size(image_hw: tuple[int, int], resolution: int) -> tuple[int, int]:
    """Size of the network input that keeps a picture's aspect ratio.

    The whole picture is scaled onto the whole input, without padding, so a box in fractions of the
    input is a box in the same fractions of the picture.

    Args:
        image_hw: Height and width of the picture in pixels.
        resolution: Long side of the input in pixels.

    Returns:
        Height and width of the input in pixels; the short side is rounded, and at least 32.

    Raises:
        ValueError: If a size is not positive, or the resolution is under 32.
    """
    height, width = image_hw
    if height < 1 or width < 1:
        raise ValueError(f"picture height and width must be positive, got {height} x {width}")
    if resolution < MINIMUM_SIDE:
        raise ValueError(f"resolution must be at least {MINIMUM_SIDE} pixels, got {resolution}")
    scale = resolution / max(height, width)
    return max(MINIMUM_SIDE, round(height * scale)), max(MINIMUM_SIDE, round(width * scale))

"""Pictures as linear light, in which fog, drops and lamps add up, and back."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Light = NDArray[np.float32]

_STRIP_PIXELS = 1 << 13


def check_picture(image: Image) -> None:
    """Raise ValueError unless this is a (H, W, 3) uint8 picture with pixels in it."""
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", type(image).__name__)
    if shape is None or len(shape) != 3 or shape[2] != 3 or dtype != np.uint8 or 0 in shape:
        raise ValueError(f"expected a (H, W, 3) uint8 RGB picture, got {dtype} {shape}")


def to_light(image: Image) -> Light:
    """Linear light of a picture or a part of one, (H, W, 3) float32, 0 to 1.

    A gamma of 2 stands for sRGB's curve: one multiplication in place of a table of powers, never
    more than 0.05 of white away from it, and `to_picture` gives the same grey levels back.
    """
    return np.asarray(cv2.multiply(image, image, scale=1 / 255**2, dtype=cv2.CV_32F), np.float32)


def to_picture(light: Light, picture: Image) -> None:
    """Write linear light, (H, W, 3) float32, into a uint8 picture of its size; light is used up."""
    cv2.sqrt(light, light)
    cv2.convertScaleAbs(light, picture, alpha=255)


def strips(image: Image | Light, pixels: int = _STRIP_PIXELS, block: int = 1) -> Iterator[slice]:
    """The rows of a picture in strips small enough for the processor's cache.

    Light needs four times a picture's memory. A few whole pictures of it, fresh from the system
    for every frame, take longer to get than to fill.

    Args:
        image: (H, W, ...).
        pixels: Of a strip, about.
        block: All strips but the last have a multiple of so many rows.
    """
    height, width = image.shape[:2]
    rows = max(1, pixels // width // block) * block
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def estimate_airlight(image: Image) -> Light:
    """Light that fog or rain scatters towards the camera: the picture's own daylight.

    He et al. (2009, section 4.4) take it from the haziest pixels, which a clear picture has not.
    Here it is the mean of the brightest tenth of a thumbnail, in which lamps and glints are too
    small to count, drawn towards grey, as droplets scatter all colours alike. Where a picture
    shows no sky, its mean says how much light there is: white is 3.5 times a usual street.

    Args:
        image: (H, W, 3) uint8 RGB.

    Returns:
        (3,) float32 RGB linear light, 0 to 1.
    """
    height, width = image.shape[:2]
    # First to a size that costs little as light, then on as light, which is what may be averaged.
    small = cv2.resize(image, (min(96, width), min(72, height)), interpolation=cv2.INTER_AREA)
    light = to_light(np.asarray(small, np.uint8))
    size = (min(32, width), min(24, height))
    pixels = cv2.resize(light, size, interpolation=cv2.INTER_AREA).reshape(-1, 3)
    brightness = pixels.mean(axis=1)
    count = max(1, len(brightness) // 10)
    brightest = pixels[np.argpartition(brightness, -count)[-count:]].mean(axis=0)
    level = float(brightest.mean())
    if level == 0:
        return np.zeros(3, np.float32)
    wanted = min(max(level, 3.5 * float(brightness.mean())), 0.8)
    colour = brightest + 0.9 * (level - brightest)
    return np.asarray(np.minimum(colour * (wanted / level), 1), np.float32)

"""Corruptions for evaluation alone: a test of what nobody prepared a model for.

No training code uses them, and the policies that are compared hold nothing like them. One does for
real use, `config/training/policies/robust.yaml`: a model trained with it has seen their like.

The kinds are from ImageNet-C (Hendrycks and Dietterich, arXiv 1903.12261, section 4.1). The
strengths of noise and contrast are those of its code for severity 1 to 4, used here from severity 2
on, with a milder one before: an object in a street is smaller than one that fills a picture of
ImageNet. Blur, JPEG and snow were chosen by eye, from mild to hardly bearable, at 320 pixels.
Lengths are for pictures of that size, and grow with larger ones.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core.light import Image, check_picture
from mbnet_perception.core.severity import at_severity

LONG_SIDE = 320

NOISE_DEVIATION = (0.04, 0.08, 0.12, 0.18, 0.26)
"""Standard deviation of Gaussian noise, as a share of white."""

BLUR_RADIUS = (1.5, 2.5, 4.0, 5.5, 7.5)
"""Radius in pixels of the disc that a lens out of focus makes of a point."""

CONTRAST = (0.6, 0.4, 0.3, 0.2, 0.1)
"""What is left of the distance to the picture's mean colour."""

JPEG_QUALITY = (25.0, 15.0, 10.0, 6.0, 3.0)
"""Quality of the JPEG encoder, 0 to 100."""

SNOW_FLAKES = (150.0, 300.0, 600.0, 1000.0, 1600.0)
"""Flakes before a picture of 320 x 240 pixels."""

SNOW_VEIL = (0.08, 0.14, 0.22, 0.32, 0.42)
"""Share of a distant flake's grey in each pixel, by the flakes too far to be seen one by one."""

# Diameter and streak in pixels, opacity, and share of all flakes, from far to near.
_FLAKES = ((1.0, 2.0, 0.7, 0.70), (2.0, 5.0, 0.8, 0.24), (4.0, 10.0, 0.6, 0.06))
_FLAKE_GREY = 235.0
_SLANT = 0.6  # the wind's most, as a share of the fall
_SHIFT = 4  # bits of the fraction of a pixel, for OpenCV's lines


def apply_corruption(image: Image, name: str, severity: float, seed: int) -> Image:
    """Spoil a picture.

    Args:
        image: (H, W, 3) uint8 RGB, stays as it is.
        name: One of CORRUPTIONS.
        severity: 1 to 5.
        seed: Not negative; with the other arguments it decides the picture.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: If the corruption is unknown, or image or severity is not as above.
    """
    check_picture(image)
    if name not in _CORRUPTIONS:
        raise ValueError(f"corruption {name!r} is unknown; known: {', '.join(CORRUPTIONS)}")
    return _CORRUPTIONS[name](image, severity, np.random.default_rng(seed))


def _noise(image: Image, severity: float, rng: np.random.Generator) -> Image:
    deviation = np.float32(255 * at_severity(NOISE_DEVIATION, severity))
    noise = rng.standard_normal(image.shape, np.float32)
    return _to_picture(image + deviation * noise)


def _blur(image: Image, severity: float, rng: np.random.Generator) -> Image:
    radius = at_severity(BLUR_RADIUS, severity) * max(image.shape) / LONG_SIDE
    reach = np.arange(-int(radius + 1), int(radius + 1) + 1)
    # A pixel at the rim counts by about the share of it that the disc covers.
    disc = np.clip(radius + 0.5 - np.hypot(reach, reach[:, None]), 0, 1)
    return np.asarray(cv2.filter2D(image, -1, disc / disc.sum()), np.uint8)


def _contrast(image: Image, severity: float, rng: np.random.Generator) -> Image:
    mean = image.mean((0, 1), np.float32)
    return _to_picture((image - mean) * np.float32(at_severity(CONTRAST, severity)) + mean)


def _jpeg(image: Image, severity: float, rng: np.random.Generator) -> Image:
    quality = round(at_severity(JPEG_QUALITY, severity))
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def _snow(image: Image, severity: float, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    scale = max(height, width) / LONG_SIDE
    # As many before a picture of any size, if it has the same shape.
    flakes = at_severity(SNOW_FLAKES, severity) * height * width / (320 * 240 * scale**2)
    slant = rng.uniform(-_SLANT, _SLANT)
    veil = np.float32(at_severity(SNOW_VEIL, severity))
    snowy = image * (1 - veil) + np.float32(veil * _FLAKE_GREY)
    for diameter, streak, opacity, share in _FLAKES:
        count = rng.poisson(flakes * share)
        start = rng.uniform((0, -streak * scale), (width, height), (count, 2))
        size = diameter * scale * rng.uniform(0.6, 1.4, count)
        fall = streak * scale * rng.uniform(0.6, 1.4, count)
        end = start + fall[:, None] * (slant, 1)
        cover = np.zeros((height, width), np.uint8)
        lines = np.rint(np.stack([start, end], 1) * 2**_SHIFT).astype(int).tolist()
        for (a, b), thickness in zip(lines, np.rint(size).clip(1).astype(int), strict=True):
            cv2.line(cover, a, b, 255, int(thickness), cv2.LINE_AA, _SHIFT)
        soft = cv2.GaussianBlur(cover, (0, 0), 0.35 * diameter * scale)
        part = soft.astype(np.float32)[..., None] * np.float32(opacity / 255)
        snowy += (np.float32(_FLAKE_GREY) - snowy) * part
    return _to_picture(snowy)


def _to_picture(values: NDArray[np.float32]) -> Image:
    return np.asarray(np.rint(values).clip(0, 255), np.uint8)


_CORRUPTIONS: dict[str, Callable[[Image, float, np.random.Generator], Image]] = {
    "noise": _noise,
    "blur": _blur,
    "contrast": _contrast,
    "jpeg": _jpeg,
    "snow": _snow,
}
CORRUPTIONS = tuple(_CORRUPTIONS)

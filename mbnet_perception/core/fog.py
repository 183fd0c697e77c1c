"""Fog of a given visibility over a picture."""

from __future__ import annotations

import math
import operator

import cv2
import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core.light import (
    Image,
    Light,
    check_picture,
    estimate_airlight,
    strips,
    to_light,
    to_picture,
)
from mbnet_perception.core.road_depth import estimate_road_depth
from mbnet_perception.core.severity import at_severity

FOG_VISIBILITY = (400.0, 200.0, 110.0, 65.0, 40.0)
"""Visibility in metres at severity 1 to 5.

Meteorologists speak of fog below 1000 m, which over the length of a street is hardly seen. 40 m
leave what is within some 15 m, as far as a small car needs to stop; steps are by equal ratios.
"""

KOSCHMIEDER = 2.996
"""Visibility times extinction: -ln 0.05, as 5 % of a black object's contrast are left there."""

PATCHINESS = 0.25
"""How much denser or thinner than on average fog is at most, from patch to patch."""

_PATCHES = (5, 7)  # up and across the picture
_DRIFT = 0.5  # patches that pass in a second
_PASSING = 64  # patches that pass before the first comes again

_FORWARD = 0.5  # share of the scattered light that goes on nearly straight, and blurs
_BLUR = 4  # pixels across the blur


def fog_visibility(severity: float) -> float:
    """Visibility in metres at a severity from 1 to 5."""
    return at_severity(FOG_VISIBILITY, severity)


def add_fog(
    image: Image,
    visibility: float,
    seed: int,
    time: float = 0.0,
    *,
    depth: NDArray[np.float32] | None = None,
    airlight: Light | None = None,
    patchiness: float = PATCHINESS,
) -> Image:
    """Put fog over a picture: I = J t + A (1 - t), t = exp(-2.996 d / visibility).

    Koschmieder's law (1924) in linear light, where it holds: blended in grey levels fog would come
    out too dark and its dark objects too strong. What fog scatters forward only blurs: half of the
    scattered share of each object's light comes from its surroundings. At depth 0 nothing changes.

    Args:
        image: (H, W, 3) uint8 RGB. It is not written to.
        visibility: Metres at which 5 % of the contrast are left.
        seed: What decides about the patches of fog, any integer.
        time: Seconds, with which the patches drift.
        depth: (H, W) metres, 0 to infinity; without it `estimate_road_depth`'s.
        airlight: (3,) RGB linear light, 0 to 1; without it `estimate_airlight`'s, which follows
            each picture for itself.
        patchiness: How much denser or thinner than on average fog is at most; 0 is even fog.

    Returns:
        (H, W, 3) uint8 RGB, the same for the same arguments.

    Raises:
        ValueError: If an argument has another shape or type, or is out of its range.
    """
    check_picture(image)
    if not 0 < visibility < math.inf:
        raise ValueError(f"visibility must be a positive number of metres, got {visibility!r}")
    if not 0 <= patchiness < 1:
        raise ValueError(f"patchiness must be at least 0 and below 1, got {patchiness!r}")
    if not math.isfinite(time):
        raise ValueError(f"time must be a finite number of seconds, got {time!r}")
    density = _density(image.shape[:2], seed, time, patchiness)
    thickness = cv2.multiply(density, usable_depth(image, depth), scale=-KOSCHMIEDER / visibility)
    transmission = np.asarray(cv2.exp(thickness), np.float32)
    return veil(image, transmission, usable_airlight(image, airlight))


def veil(image: Image, transmission: Light, airlight: Light) -> Image:
    """Let only a share of each pixel's light through, blurred, and fill up with airlight.

    Args:
        image: (H, W, 3) uint8 RGB.
        transmission: (H, W) float32, the share that comes through, 0 to 1.
        airlight: (3,) float32 RGB linear light.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = image.shape[:2]
    size = (max(1, width // _BLUR), max(1, height // _BLUR))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    soft = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    veiled = np.empty(image.shape, np.uint8)
    air = np.empty((0, width, 3), np.float32)
    for rows in strips(image):
        passed = transmission[rows]
        if len(air) < len(passed):
            air = np.full((*passed.shape, 3), airlight, np.float32)
        scattered = 1 - passed
        blurred = _FORWARD * scattered
        light = cv2.blendLinear(to_light(image[rows]), to_light(soft[rows]), 1 - blurred, blurred)
        light = cv2.blendLinear(light, air[: len(passed)], passed, scattered)
        to_picture(np.asarray(light, np.float32), veiled[rows])
    return veiled


def usable_depth(image: Image, depth: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """The depth given for a picture, as float32, or else the road's; ValueError if it can't be."""
    if depth is None:
        return estimate_road_depth(*image.shape[:2])
    if np.shape(depth) != image.shape[:2]:
        raise ValueError(
            f"depth must have the picture's shape {image.shape[:2]}, got {np.shape(depth)}"
        )
    metres = np.ascontiguousarray(depth, np.float32)
    if not metres.min() >= 0:
        raise ValueError("depth must be metres from 0 to infinity; it has negative ones or NaN")
    return metres


def usable_airlight(image: Image, airlight: Light | None) -> Light:
    """The airlight given for a picture, or else its own; ValueError if it can't be one."""
    if airlight is None:
        return estimate_airlight(image)
    light = np.asarray(airlight, np.float32)
    if light.shape != (3,) or not (light.min() >= 0 and light.max() <= 1):
        raise ValueError(f"airlight must be three numbers from 0 to 1, RGB, got {airlight!r}")
    return light


def random_stream(*words: int) -> np.random.Generator:
    """Random numbers of their own for each purpose of a seed: words are any integers."""
    return np.random.default_rng([operator.index(word) & 0xFFFFFFFFFFFFFFFF for word in words])


def _density(shape_hw: tuple[int, int], seed: int, time: float, patchiness: float) -> Light:
    """Density of fog at each pixel in shares of its average, drifting with time."""
    rows, columns = _PATCHES
    rng = random_stream(seed, 0xF06)
    field = rng.random((rows, _PASSING), dtype=np.float32)
    moved, first = math.modf(time * _DRIFT % _PASSING)
    passing = field[:, (int(first) + np.arange(columns + 1)) % _PASSING]
    patches = passing[:, :-1] * np.float32(1 - moved) + passing[:, 1:] * np.float32(moved)
    # Smooth on a small grid, which is enough for the straight lines that lead to the picture's.
    patches = cv2.resize(patches, (8 * columns, 8 * rows), interpolation=cv2.INTER_CUBIC)
    patches = np.clip(1 + patchiness * (2 * patches - 1), 1 - patchiness, 1 + patchiness)
    return np.asarray(cv2.resize(patches, shape_hw[::-1], interpolation=cv2.INTER_LINEAR))

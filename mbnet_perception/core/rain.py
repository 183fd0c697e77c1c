"""Rain of a given rate over a picture: streaks, veil, wet road, drops on the lens."""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core.fog import random_stream, usable_airlight, usable_depth, veil
from mbnet_perception.core.light import Image, Light, check_picture, strips, to_light, to_picture
from mbnet_perception.core.road_depth import FOCAL, HORIZON
from mbnet_perception.core.severity import at_severity

RAIN_RATE = (5.0, 12.0, 25.0, 50.0, 100.0)
"""Rain rate in mm/h at severity 1 to 5.

From steady rain to a cloudburst; drizzle below 2 mm/h is hardly seen in a picture. Steps are by
equal ratios, as drops and extinction go with powers of the rate.
"""

MAX_RAIN_RATE = 300.0
"""In mm/h: Marshall and Palmer's law says little about heavier rain, which lasts minutes."""

DROPS_PER_MM = 8000.0
"""Drops in a cubic metre per mm of diameter, as that goes to 0 (Marshall and Palmer 1948)."""

EXPOSURE = 1 / 100
"""Seconds that the shutter is open under a rainy sky."""

OWN_SPEED = 8.0
"""Metres in a second that the camera drives towards the drops."""

MAX_WIND = 3.0
"""Metres in a second to either side; the seed decides within it."""

# Drops that make streaks: those that are smaller (mm) or further away (m) melt into the veil,
# larger ones break up, and nearer ones are too much out of focus.
_SMALLEST, _LARGEST = 2.0, 6.0
_NEAREST, _FURTHEST = 0.5, 3.0

# A drop covers a pixel for a hundredth of the exposure, but gathers light from half the sky and
# brings more of it than the street behind it (Garg and Nayar 2007). As much more, by eye:
_BRIGHTNESS = 5.0
_SHADES = 32  # opacities from 0 to 1
_STRONGEST = _SHADES // 2  # streaks never hide more than half
_THICKEST = 4  # pixels
_SUBPIXELS = 4  # binary digits of a pixel that a streak's ends are told in

# Extinction with the spray that wheels and wind raise, in extinctions of the falling rain alone.
_SPRAY = 3.0

# Wet asphalt keeps up to about half of the light that dry asphalt sends back (Lekner and Dorf
# 1988), and mirrors the more the flatter it is seen. The road is as good as wet from 30 mm/h on.
_DARKENING = 0.45
_MIRRORING = 0.3
_WETTING_RATE = 15.0

_LENS_LIVES = 64  # drops in one place on the lens before the first comes again
_LENS_SHRINK = 6  # the world in a lens drop is out of focus: this many pixels are one


def rain_rate(severity: float) -> float:
    """Rain rate in mm/h at a severity from 1 to 5."""
    return at_severity(RAIN_RATE, severity)


def drop_slope(rate: float) -> float:
    """Slope L in 1/mm of N(D) = 8000 exp(-L D) drops per m3 and mm (Marshall and Palmer 1948).

    Args:
        rate: Rain rate in mm/h.
    """
    return 4.1 * float(rate**-0.21)


def fall_speed(diameter: NDArray[np.float32]) -> NDArray[np.float32]:
    """Final speed in m/s of falling drops of these diameters in mm (Atlas et al. 1973).

    A fit to Gunn and Kinzer's measurements, for 0.6 to 5.8 mm.
    """
    return np.asarray(9.65 - 10.3 * np.exp(-0.6 * diameter), np.float32)


def rain_extinction(rate: float) -> float:
    """Extinction of light in 1/m by falling rain: twice the drops' cross-sections.

    The integral of 2 (pi / 4) D^2 N(D) over all D. At 100 mm/h it is 0.0066 / m, a visibility of
    450 m.

    Args:
        rate: Rain rate in mm/h.
    """
    return math.pi * DROPS_PER_MM / drop_slope(rate) ** 3 * 1e-6


def add_rain(
    image: Image,
    rate: float,
    seed: int,
    time: float = 0.0,
    *,
    exposure: float = EXPOSURE,
    speed: float = OWN_SPEED,
    depth: NDArray[np.float32] | None = None,
    airlight: Light | None = None,
    streaks: Image | None = None,
) -> Image:
    """Let it rain over a picture: a wet road, a veil, streaks of near drops, drops on the lens.

    The veil is fog as thin as the drops' extinction makes it, in linear light like fog. Streaks
    let the same airlight in, so they show before what is dark and hardly before the sky.

    Args:
        image: (H, W, 3) uint8 RGB. It is not written to.
        rate: Rain rate in mm/h.
        seed: What decides about wind and drops, any integer.
        time: Seconds, when the shutter opens. A drop falls on from one picture to the next,
            whichever is made first; drops on the lens stay for seconds.
        exposure: Seconds that the shutter is open.
        speed: Metres in a second that the camera drives.
        depth: (H, W) metres, 0 to infinity; without it `estimate_road_depth`'s.
        airlight: (3,) RGB linear light, 0 to 1; without it `estimate_airlight`'s.
        streaks: What `rain_streaks` makes of the same arguments, where that was asked already.

    Returns:
        (H, W, 3) uint8 RGB, the same for the same arguments.

    Raises:
        ValueError: If an argument has another shape or type, or is out of its range.
    """
    check_picture(image)
    if not 0 < rate <= MAX_RAIN_RATE:
        raise ValueError(f"rate must be above 0 and up to {MAX_RAIN_RATE:g} mm/h, got {rate!r}")
    if not math.isfinite(time):
        raise ValueError(f"time must be a finite number of seconds, got {time!r}")
    passed = cv2.exp(usable_depth(image, depth) * np.float32(-_SPRAY * rain_extinction(rate)))
    if streaks is None:
        streaks = rain_streaks(image.shape[:2], rate, seed, time, exposure=exposure, speed=speed)
    passed = cv2.multiply(passed, 255 - streaks, scale=1 / 255, dtype=cv2.CV_32F)
    airlight = usable_airlight(image, airlight)
    rainy = veil(_wet(image, rate), np.asarray(passed, np.float32), airlight)
    _add_lens_drops(rainy, rate, seed, time)
    return rainy


def rain_streaks(
    shape_hw: tuple[int, int],
    rate: float,
    seed: int,
    time: float = 0.0,
    *,
    exposure: float = EXPOSURE,
    speed: float = OWN_SPEED,
) -> Image:
    """Streaks of the drops near the camera, each a drop's path while the shutter is open.

    Drops of Marshall and Palmer's sizes fall through a box before the camera, at the speed that
    goes with their size, while wind and the camera's own speed carry them sideways and nearer; what
    leaves the box comes in again on the other side. A pinhole camera of `road_depth`'s focal length
    and horizon sees them. A streak's opacity is the share of the exposure for which the drop covers
    a pixel, its width over its length, times a brightness.

    Args:
        shape_hw: Height and width of the picture in pixels.
        rate: Rain rate in mm/h.
        seed: What decides about wind and drops, any integer. More rain has the same drops and more.
        time: Seconds, when the shutter opens.
        exposure: Seconds that it is open.
        speed: Metres in a second that the camera drives.

    Returns:
        (H, W) uint8, opacity of the streaks, 255 for 1.

    Raises:
        ValueError: If exposure is not positive, or exposure or speed is not finite.
    """
    if not (0 < exposure < math.inf and math.isfinite(speed)):
        raise ValueError(
            "exposure must be a positive number of seconds and speed a number of metres in one, "
            f"got {exposure!r} and {speed!r}"
        )
    height, width = shape_hw
    focal = FOCAL * max(height, width)
    centre = np.array([0.5 * width, HORIZON * height])
    # The box holds all that the camera sees between the nearest and the furthest drops; x is to the
    # right, y down, z ahead.
    low = np.array([*(-centre * (_FURTHEST / focal)), _NEAREST])
    sides = np.array([width * _FURTHEST / focal, height * _FURTHEST / focal, _FURTHEST - _NEAREST])
    slope = drop_slope(rate)
    per_cubic_metre = DROPS_PER_MM / slope * math.exp(-slope * _SMALLEST)
    rng = random_stream(seed, 0x4A1)
    wind = MAX_WIND * (2 * rng.random() - 1)
    drops = rng.random((round(per_cubic_metre * float(sides.prod())), 4), dtype=np.float32)

    diameter = np.minimum(_SMALLEST - np.log1p(-drops[:, 3]) / slope, _LARGEST)
    velocity = np.empty((len(drops), 3))
    velocity[:, 0] = wind
    velocity[:, 1] = fall_speed(diameter)
    velocity[:, 2] = -speed
    start = low + (drops[:, :3] * sides + velocity * time) % sides
    end = start + velocity * exposure
    end[:, 2] = np.maximum(end[:, 2], 0.5 * _NEAREST)
    ends = np.stack([start[:, :2] / start[:, 2:], end[:, :2] / end[:, 2:]], axis=1) * focal + centre

    across = focal * 1e-3 * diameter / start[:, 2]
    along = np.hypot(ends[:, 1, 0] - ends[:, 0, 0], ends[:, 1, 1] - ends[:, 0, 1])
    opacity = _BRIGHTNESS * across / (along + across) * np.minimum(across, 1)
    shade = np.clip(np.rint(opacity * _SHADES), 0, _STRONGEST).astype(np.int64)
    thickness = np.clip(np.rint(across), 1, _THICKEST).astype(np.int64)
    far = np.array([width, height]) + _THICKEST
    inside = (ends.max(axis=1) > -_THICKEST) & (ends.min(axis=1) < far)
    seen = inside.all(axis=1) & (shade > 0)

    # Strong streaks are drawn last, over faint ones; those alike in one call.
    kind = (shade * (_THICKEST + 1) + thickness)[seen]
    order = np.argsort(kind, kind="stable")
    points = np.rint(ends[seen][order] * 2**_SUBPIXELS).astype(np.int32)
    kinds, first = np.unique(kind[order], return_index=True)
    streaks = np.zeros((height, width), np.uint8)
    runs = pairwise([*first.tolist(), len(points)])
    for value, (begin, stop) in zip(kinds.tolist(), runs, strict=True):
        level = value // (_THICKEST + 1) * (256 // _SHADES)
        pen = value % (_THICKEST + 1)
        lines = list(points[begin:stop])
        cv2.polylines(streaks, lines, False, level, pen, cv2.LINE_AA, _SUBPIXELS)
    return np.asarray(cv2.GaussianBlur(streaks, (3, 3), 0), np.uint8)


def _wet(image: Image, rate: float) -> Image:
    """A copy with the road below the horizon darkened, mirroring faintly what is above it."""
    wet = image.copy()
    height, width = image.shape[:2]
    horizon = round(HORIZON * height)
    if not 0 < horizon < height:
        return wet
    road = wet[horizon:]
    reflection = _reflection(image[:horizon], len(road))
    wetness = 1 - math.exp(-rate / _WETTING_RATE)
    # By how steeply the road is seen: in radians, as they are small.
    angle = (np.arange(len(road), dtype=np.float32)[:, None] + 0.5) / (FOCAL * max(height, width))
    kept = 1 - _DARKENING * wetness * np.minimum(angle / 0.15, 1)
    mirrored = _MIRRORING * wetness * np.exp(-6 * angle) * np.minimum(angle / 0.05, 1)
    for rows in strips(road):
        light = to_light(road[rows])
        lines = light.reshape(len(light), -1)
        lines *= kept[rows]
        lines += to_light(reflection[rows]).reshape(lines.shape) * mirrored[rows]
        to_picture(light, road[rows])
    return wet


def _reflection(above: Image, rows: int) -> Image:
    """What is above the horizon, upside down and drawn out, (rows, W, 3) as the road shows it."""
    width = above.shape[1]
    size = (max(1, width // 4), max(1, len(above) // 4))
    mirrored = cv2.flip(cv2.resize(above, size, interpolation=cv2.INTER_AREA), 0)
    wanted = max(1, rows // 4)
    if wanted > len(mirrored):
        mirrored = np.concatenate([mirrored, mirrored[-1:].repeat(wanted - len(mirrored), 0)])
    # Roughness draws reflections out towards the camera.
    drawn_out = cv2.blur(mirrored[:wanted], (3, wanted // 6 * 2 + 1))
    return np.asarray(cv2.resize(drawn_out, (width, rows)), np.uint8)


def _add_lens_drops(image: Image, rate: float, seed: int, time: float) -> None:
    """Put drops on the lens: each shows its surroundings upside down and out of focus."""
    height, width = image.shape[:2]
    size = (max(1, width // _LENS_SHRINK), max(1, height // _LENS_SHRINK))
    blurred = cv2.blur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (3, 3))
    world = cv2.rotate(blurred, cv2.ROTATE_180)
    rng = random_stream(seed, 0x1E45)
    for places in rng.random((round(3 * rate**0.35), _LENS_LIVES, 4)):
        # A drop stays for 3 to 9 seconds, then runs off, and another hits elsewhere.
        age, life = math.modf(time / (3 + 6 * places[0, 3]) + places[1, 3])
        x, y, bulk, stretch = places[int(life) % _LENS_LIVES].tolist()
        radius_x = (0.01 + 0.035 * bulk**2) * max(height, width) * (0.85 + 0.15 * age)
        radius_y = radius_x * (1 + 0.35 * stretch)
        centre_x, centre_y = x * width, y * height + 0.3 * radius_y * age
        left, right = max(0, int(centre_x - radius_x)), min(width, int(centre_x + radius_x) + 1)
        top, bottom = max(0, int(centre_y - radius_y)), min(height, int(centre_y + radius_y) + 1)
        if left >= right or top >= bottom:
            continue
        u = (np.arange(left, right, dtype=np.float32) + np.float32(0.5 - centre_x)) / radius_x
        v = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - centre_y)) / radius_y
        alpha = np.clip(1.4 * (1 - u * u - v[:, None] * v[:, None]), 0, 1) * 0.9
        # A drop's span is half the picture, and it is the world that stands upside down.
        seen_x = np.clip(1 - x + u / 4, 0, 1) * (size[0] - 1)
        seen_y = np.clip(1 - y + v / 4, 0, 1) * (size[1] - 1)
        map_x, map_y = np.meshgrid(seen_x.astype(np.float32), seen_y.astype(np.float32))
        seen = cv2.remap(world, map_x, map_y, cv2.INTER_LINEAR)
        alpha = alpha.astype(np.float32)
        behind = image[top:bottom, left:right]
        behind[:] = cv2.blendLinear(seen, behind.copy(), alpha, 1 - alpha)

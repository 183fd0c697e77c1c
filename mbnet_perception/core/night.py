"""A daylight picture of a road as a camera would take it between dusk and an unlit night."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core.fog import random_stream, usable_depth
from mbnet_perception.core.light import Image, Light, check_picture, strips
from mbnet_perception.core.road_depth import HORIZON, estimate_road_depth
from mbnet_perception.core.severity import at_severity


class Night(NamedTuple):
    """What a camera makes of the light of one evening.

    Attributes:
        illuminance: Of the road without the own headlamps, in lux.
        exposure: Time the sensor gathers light for one picture, in seconds.
        gain: Of the sensor; 1 is what daylight needs.
    """

    illuminance: float
    exposure: float
    gain: float

    @property
    def growth(self) -> float:
        """Share by which the picture grows during the exposure, as the car drives into it."""
        return SPEED * self.exposure / BLUR_DISTANCE


NIGHTS: tuple[Night, ...] = (
    Night(100.0, 0.010, 3.0),
    Night(25.0, 0.020, 4.0),
    Night(7.0, 0.030, 6.0),
    Night(2.0, 0.033, 7.0),
    Night(0.4, 0.033, 8.0),
)
"""Severity 1 to 5: dusk; late dusk in a lit street; a lit street (EN 13201-2 classes its lamps by
15 to 2 lx, P1 to P6); a badly lit one; and a road without lamps. A camera at 30 Hz has no more than
33 ms. Before the headlamps are on, the picture is 1.7, 2.3, 3.0, 4.4 and 6.6 stops darker than that
of `DAY`, as illuminance x exposure x gain goes down."""

DAY = Night(10_000.0, 0.001, 1.0)
"""The overcast day for which the picture that is given is taken to be exposed."""

MEAN_BY_DAY = 0.2
"""Mean linear value of an average picture by day. One that is darker may be taken at night."""

SPARED = 2 / 3
"""Share of the stops by which a picture is darker than that, which it is not darkened once more."""

FULL_WELL = 4_000.0
"""Electrons that fill a pixel at gain 1, as in small cameras with pixels of about 1.2 um."""

READ_NOISE = 3.0
"""Standard deviation of reading a pixel, in electrons."""

HEADLAMPS = 20.0
"""Illuminance in lux by the own low beam of what stands right before the car."""

HEADLAMP_RANGE = 14.0
"""Metres at which it is half of that; far beyond, it falls with the distance's square."""

STREET_LAMPS = 10.0
"""Most illuminance in lux that comes from street lamps; what exceeds it comes from the sky."""

AIRLIGHT = 0.6
"""Reflectance of a surface as bright as dense fog is in the light around."""

BLOOM = 0.6
"""Light around a lamp that the lens scatters, as a share of the lamp's."""

SPEED = 10.0
"""Of the own car in m/s, for the motion blur."""

BLUR_DISTANCE = 15.0
"""Metres at which everything is taken to stand, for the motion blur."""

_SRGB = np.arange(256) / 255
_LINEAR = np.where(_SRGB <= 0.04045, _SRGB / 12.92, ((_SRGB + 0.055) / 1.055) ** 2.4)
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
_XYZ_TO_RGB = np.array(
    [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]
)
_LINEAR_TABLE = _LINEAR.astype(np.float32)
_SHARE_TABLE = (np.arange(256) / 255).astype(np.float32)
_BLOCK = 4
_strips = partial(strips, pixels=16_384, block=_BLOCK)


def night_illuminance(severity: float) -> float:
    """Illuminance in lux at a severity from 1 to 5."""
    return at_severity([night.illuminance for night in NIGHTS], severity)


def night_of(illuminance: float) -> Night:
    """Tell how the camera answers to so little light, between the rows of `NIGHTS`.

    Args:
        illuminance: In lux, positive. Below the last row and above the first one the camera does
            as there.

    Raises:
        ValueError: If illuminance is not positive and finite.
    """
    if not 0 < illuminance < float("inf"):
        raise ValueError(f"illuminance must be positive and finite (lux), got {illuminance}")
    dark_first = np.log(np.array(NIGHTS[::-1]))
    at = np.log(illuminance)
    exposure, gain = (np.exp(np.interp(at, dark_first[:, 0], dark_first[:, i])) for i in (1, 2))
    return Night(float(illuminance), float(exposure), float(gain))


class NightLight(NamedTuple):
    """The light of one evening on one scene, as shares of a daylight picture's linear values.

    Attributes:
        around: (3,) float64 RGB share that the light of sky and street lamps leaves.
        headlamps: (3,) float64 RGB share that the own headlamps add right before the car.
        from_sky: How much of the light around comes from the sky, 0 to 1.
        brightness: Of the picture's scene, as a share of an average one by day, at most 1.
        spared: What is held back from a picture that is dark already: 1 for one by day, else more.
    """

    around: NDArray[np.float64]
    headlamps: NDArray[np.float64]
    from_sky: float
    brightness: float
    spared: float


def add_night(
    image: Image,
    illuminance: float,
    seed: int,
    frame: int = 0,
    *,
    depth: Light | None = None,
) -> Image:
    """Take a picture again at night.

    Args:
        image: (H, W, 3) uint8 RGB (sRGB), a driver's view; not written to.
        illuminance: Of the road without the own headlamps, in lux; see `NIGHTS`.
        seed: Decides the colours of the lamps and, with the frame, the noise.
        frame: Number of the picture in its video.
        depth: (H, W) float32 metres; without it `estimate_road_depth`'s.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: If image or depth has another shape or type, or illuminance is not positive.
    """
    check_picture(image)
    night = night_of(illuminance)
    light = light_by_night(image, night_light(image, night, seed), depth)
    return expose(light, night.gain, seed, frame, growth=night.growth)


def night_light(image: Image, night: Night, seed: int) -> NightLight:
    """Find the light of an evening for a picture.

    Args:
        image: (H, W, 3) uint8 RGB (sRGB).
        night: The light in lux, and the camera.
        seed: Decides the colours of the lamps.
    """
    rng = random_stream(seed, 0x417)
    mean = _LINEAR[image[::4, ::4]].mean(axis=(0, 1)) @ _LUMINANCE
    brightness = min(max(float(mean), 1e-4) / MEAN_BY_DAY, 1.0)
    spared = brightness**-SPARED
    per_lux = spared * night.exposure * night.gain
    per_lux /= DAY.illuminance * DAY.exposure * DAY.gain

    street_kelvin = rng.uniform(2000, 2400) if rng.random() < 0.5 else rng.uniform(3500, 5000)
    sky_kelvin = rng.uniform(9000, 14000)
    own_kelvin = rng.uniform(3000, 3400) if rng.random() < 0.5 else rng.uniform(5000, 6000)
    from_sky = max(0.0, 1 - STREET_LAMPS / night.illuminance)
    colour = from_sky * light_colour(sky_kelvin) + (1 - from_sky) * light_colour(street_kelvin)
    # A dark picture has the colours of its own night.
    return NightLight(
        min(1.0, per_lux * night.illuminance) * colour ** (1 / spared),
        HEADLAMPS * per_lux * light_colour(own_kelvin) ** (1 / spared),
        from_sky,
        brightness,
        spared,
    )


def light_by_night(image: Image, lighting: NightLight, depth: Light | None = None) -> Light:
    """Exchange daylight for dusk, street lamps and headlamps.

    Args:
        image: (H, W, 3) uint8 RGB (sRGB); not written to.
        lighting: The light, of `night_light`.
        depth: (H, W) float32 metres; without it `estimate_road_depth`'s.

    Returns:
        (H, W, 3) float32 linear RGB, not negative, 1 where the sensor is full.
    """
    beam = _beam(*image.shape[:2]) if depth is None else _beam_at(usable_depth(image, depth))
    sky_share = (1 - lighting.from_sky) / lighting.spared
    lamps = _find_lamps(image, 1 - 1 / lighting.spared)
    glow = None if lamps is None else _bloom(image, lamps, BLOOM / lighting.spared)
    light = np.empty(image.shape, np.float32)
    for rows in _strips(image):
        shares = [
            beam[rows] * np.float32(own) + np.float32(around)
            for own, around in zip(lighting.headlamps, lighting.around, strict=True)
        ]
        if lighting.spared > 1:  # light that was there is not added once more
            shares = [np.minimum(share, 1) for share in shares]
        if sky_share > 0:
            sky = _dark_sky(image, rows, sky_share)
            shares = [share * sky for share in shares]
        if lamps is not None:
            shining = np.asarray(cv2.LUT(lamps[rows], _SHARE_TABLE), np.float32)
            shares = [np.maximum(share, shining) for share in shares]
        np.multiply(from_srgb(image[rows]), cv2.merge(shares), out=light[rows])
        if glow is not None:
            light[rows] += _enlarged(glow, rows, image.shape[1])
    return light


def night_airlight(lighting: NightLight) -> Light:
    """Light of sky and street lamps that fog or rain scatters to the camera: (3,) linear RGB."""
    airlight = np.minimum(AIRLIGHT * lighting.brightness * lighting.around, 1)
    return np.asarray(airlight, np.float32)


def add_headlamp_glow(light: Light, lighting: NightLight, reflectance: Light) -> None:
    """Add the own headlamps' light that comes back from what is in the air before them.

    Args:
        light: (H, W, 3) float32 linear RGB, to which it is added.
        lighting: The light, of `night_light`.
        reflectance: (H, W) float32 share of the light in the beam that comes back, 0 to 1.
    """
    beam = _beam_in_air(*light.shape[:2])
    colour = lighting.headlamps / lighting.spared
    for rows in _strips(light):
        glow = reflectance[rows] * beam[rows]
        light[rows] += cv2.merge([glow * np.float32(share) for share in colour])


def expose(light: Light, gain: float, seed: int, frame: int = 0, *, growth: float = 0.0) -> Image:
    """Take a picture with a moving sensor that has shot noise and read noise.

    Their variances add up as in EMVA 1288's linear camera model.

    Args:
        light: (H, W, 3) float32 linear RGB, not negative, 1 where the sensor is full at this
            gain; not written to.
        gain: Of the sensor, 1 by day.
        seed: Decides, with the frame, the noise.
        frame: Number of the picture in its video.
        growth: Share by which the picture grows during the exposure, for the motion blur.

    Returns:
        (H, W, 3) uint8 RGB (sRGB).
    """
    # White is FULL_WELL / gain electrons. They arrive as a Poisson process, for which a normal
    # distribution of the same variance stands here, as it is scaled from stored grains.
    electron = np.float32(gain / FULL_WELL)
    grains = _grains()
    start = int(random_stream(seed, 0x6A1, frame).integers(len(grains)))
    picture = np.empty(light.shape, np.uint8)
    for rows in _strips(light):
        part = _blurred(light, rows, growth)
        noise = part * electron
        noise += np.float32((electron * READ_NOISE) ** 2)
        cv2.sqrt(noise, noise)
        # A run of the stored values that begins anywhere.
        at = (start + rows.start * light[0].size) % (len(grains) - noise.size)
        noise *= grains[at : at + noise.size].reshape(noise.shape)
        picture[rows] = _encoded(part, noise)
    return picture


def from_srgb(image: Image) -> Light:
    """Linear light of an sRGB picture, (H, W, 3) float32, 0 to 1."""
    return np.asarray(cv2.LUT(image, _LINEAR_TABLE), np.float32)


def to_srgb(light: Light, *, growth: float = 0.0) -> Image:
    """The sRGB picture, (H, W, 3) uint8, of linear light, without noise.

    What exceeds 0 to 1 is clipped; there is motion blur as in `expose`.
    """
    picture = np.empty(light.shape, np.uint8)
    for rows in _strips(light):
        part = _blurred(light, rows, growth)
        picture[rows] = _encoded(part, np.zeros_like(part))
    return picture


def light_colour(kelvin: float) -> NDArray[np.float64]:
    """Linear RGB of luminance 1 of a black body, of whose tint the camera has balanced half.

    Chromaticity by the cubics of Kim et al. (US patent 7,024,034), for 1667 to 25000 K.
    """
    t = 1000 / kelvin
    if kelvin < 4000:
        x = ((-0.2661239 * t - 0.2343589) * t + 0.8776956) * t + 0.179910
    else:
        x = ((-3.0258469 * t + 2.1070379) * t + 0.2226347) * t + 0.240390
    if kelvin < 2222:
        y = ((-1.1063814 * x - 1.34811020) * x + 2.18555832) * x - 0.20219683
    elif kelvin < 4000:
        y = ((-0.9549476 * x - 1.37418593) * x + 2.09137015) * x - 0.16748867
    else:
        y = ((3.0817580 * x - 5.87338670) * x + 3.75112997) * x - 0.37001483
    rgb = np.sqrt(np.maximum(_XYZ_TO_RGB @ [x / y, 1, (1 - x - y) / y], 0.01))
    return np.asarray(rgb / (_LUMINANCE @ rgb))


def _dark_sky(image: Image, rows: slice, share: float) -> Light:
    """Share of its light that what is bright above the horizon keeps: the sky, by day a lamp.

    Args:
        image: (H, W, 3) uint8 RGB.
        rows: Those that are asked for.
        share: How much of the sky's light is gone.

    Returns:
        (rows, W) float32, 0 to 1.
    """
    # Clouds and blue sky alike are bright in blue.
    bright = np.clip((_LINEAR - 0.15) / 0.5, 0, 1)
    lost = 0.9 * share * bright * bright * (3 - 2 * bright)
    sky = np.asarray(cv2.LUT(cv2.extractChannel(image[rows], 2), lost.astype(np.float32)))
    horizon = max(1, round(HORIZON * len(image)))
    above = np.clip(8 * (1 - np.arange(rows.start, rows.stop) / horizon), 0, 1)
    return np.asarray(1 - sky * above[:, None].astype(np.float32), np.float32)


@lru_cache(maxsize=16)
def _beam(height: int, width: int) -> Light:
    """`_beam_at` the road's proxy depth; read-only."""
    beam = _beam_at(estimate_road_depth(height, width))
    beam.flags.writeable = False
    return beam


def _beam_at(depth: Light) -> Light:
    """Share of the own headlamps' light that falls on each pixel: (H, W) float32, 0 to 1."""
    # What stands above the road is nearer than the road seen at the same place.
    near = np.minimum(depth, 40.0)
    fall = 1 / (1 + (near / HEADLAMP_RANGE) ** 2)
    return np.asarray(fall * _beam_in_air(*depth.shape), np.float32)


@lru_cache(maxsize=16)
def _beam_in_air(height: int, width: int) -> Light:
    """The low beam's strength in each direction: (H, W) float32, 0 to 1, read-only."""
    aside = (np.arange(width) + 0.5) / width - 0.5
    above = np.maximum(HORIZON - (np.arange(height) + 0.5) / height, 0)
    lateral = np.exp(-0.5 * (aside / 0.28) ** 2)
    cut_off = np.exp(-0.5 * (above / 0.1) ** 2)
    beam = (cut_off[:, None] * lateral).astype(np.float32)
    beam.flags.writeable = False
    return beam


def _find_lamps(image: Image, dark: float) -> Image | None:
    """Find small regions that shine by themselves.

    By day only colour tells a lamp from what is lit. In a dark picture white ones are told as well.

    Args:
        image: (H, W, 3) uint8 RGB.
        dark: 0 for a picture by day to 1 for one in the dark.

    Returns:
        (H, W) uint8, 255 where there is one for sure, or None without any.
    """
    height, width = image.shape[:2]
    red, green, blue = (np.asarray(plane, np.uint8) for plane in cv2.split(image))
    # Red and amber, but not yellow and skin.
    warm = cv2.min(_ramp(cv2.subtract(red, green), 35, 60), _ramp(red, 195, 220))
    warm = cv2.min(warm, _ramp(cv2.subtract(red, blue), 70, 120))
    # The blueish green of signals, but not leaves, nor blue.
    cool = cv2.min(_ramp(cv2.subtract(green, red), 70, 120), _ramp(green, 110, 160))
    cool = cv2.min(cool, _ramp(cv2.subtract(blue, red), 10, 60))
    cool = cv2.min(cool, cv2.bitwise_not(_ramp(cv2.subtract(blue, green), 0, 40)))
    lamps = cv2.max(warm, cool)
    if dark > 0:
        white = _ramp(cv2.min(cv2.min(red, green), blue), 225, 250)
        lamps = cv2.max(lamps, cv2.convertScaleAbs(white, alpha=dark))
    if cv2.countNonZero(lamps) == 0:
        return None
    side = max(3, round(0.2 * min(height, width)))
    # Fades out where more than an eighth to a third of the surroundings shines alike.
    crowded = _ramp(cv2.blur(lamps, (side, side)), 32, 85)
    lamps = cv2.min(lamps, cv2.bitwise_not(crowded))
    # The middle of a lamp is too bright to have a colour.
    middle = np.ones((side // 6 | 1, side // 6 | 1), np.uint8)
    return np.asarray(cv2.morphologyEx(lamps, cv2.MORPH_CLOSE, middle), np.uint8)


def _ramp(plane: NDArray[Any], low: int, high: int) -> Image:
    """0 for values up to the low one, 255 from the high one, and in proportion between."""
    table = np.clip(255 * (np.arange(256) - low) / (high - low), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(plane, table), np.uint8)


def _bloom(image: Image, lamps: Image, share: float) -> Light:
    """This share of the lamps' light, scattered by the lens around them.

    Args:
        image: (H, W, 3) uint8 RGB.
        lamps: (H, W) uint8, 255 where there is one for sure.
        share: Of the light.

    Returns:
        (H / 4, W / 4, 3) float32 linear RGB, both sides rounded up.
    """
    height, width = lamps.shape
    small = (-(-height // _BLOCK), -(-width // _BLOCK))
    shining = np.zeros((*small, 3), np.float32)
    for rows in _strips(image):
        if cv2.countNonZero(lamps[rows]) == 0:
            continue
        alight = np.asarray(cv2.LUT(lamps[rows], _SHARE_TABLE), np.float32)[..., None]
        into = shining[rows.start // _BLOCK : -(-rows.stop // _BLOCK)]
        alight = from_srgb(image[rows]) * alight
        into[:] = cv2.resize(alight, into.shape[1::-1], interpolation=cv2.INTER_AREA)
    shining = cv2.GaussianBlur(shining, (0, 0), max(0.8, small[0] / 30))
    return np.asarray(shining * np.float32(share), np.float32)


def _enlarged(small: Light, rows: slice, width: int) -> Light:
    """Some rows of what is `_BLOCK` times as high as this, and so wide."""
    first, last = rows.start // _BLOCK, -(-rows.stop // _BLOCK)
    # With a row more on either side, as strips are to meet without a seam.
    part = small[np.clip(np.arange(first - 1, last + 1), 0, len(small) - 1)]
    large = cv2.resize(part, (width, _BLOCK * len(part)))
    return np.asarray(large[_BLOCK : _BLOCK + rows.stop - rows.start], np.float32)


def _blurred(light: Light, rows: slice, growth: float) -> Light:
    """Some rows of a picture that grows by this share while exposed, around the point driven at."""
    height, width = light.shape[:2]
    sharp = light[rows]
    if growth * max(height, width) < 1:
        return sharp
    x, y = (width - 1) / 2, HORIZON * height - 0.5
    size = (width, rows.stop - rows.start)
    moments = []
    for scale in (1 / (1 - growth / 2), 1 / (1 + growth / 2)):
        zoom = np.array([[scale, 0, x - scale * x], [0, scale, y + scale * (rows.start - y)]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        moments.append(
            cv2.warpAffine(light, zoom, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        )
    before, after = moments
    cv2.addWeighted(before, 1 / 3, after, 1 / 3, 0, before)
    return np.asarray(cv2.scaleAdd(sharp, 1 / 3, before, before), np.float32)


@lru_cache(maxsize=1)
def _grains() -> Light:
    """Standard normal values, read-only. Fresh ones would take as long as all the rest."""
    grains = np.random.default_rng(0).standard_normal(1 << 21, np.float32)
    grains.flags.writeable = False
    return grains


def _encoded(light: Light, noise: Light) -> Image:
    """The sRGB picture, (H, W, 3) uint8, of the sum of both, clipped to 0 to 1."""
    linear = cv2.addWeighted(light, 65535, noise, 65535, 0, dtype=cv2.CV_16U)
    return np.asarray(_encoding().take(np.asarray(linear, np.uint16)), np.uint8)


@lru_cache(maxsize=1)
def _encoding() -> Image:
    """(65536,) uint8 sRGB value of each linear one of 16 bits."""
    linear = np.arange(65536) / 65535
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * curve), np.uint8)

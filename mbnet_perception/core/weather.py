"""Any weather over a picture, by name and severity."""

from __future__ import annotations

import math
import operator

import cv2
import numpy as np

from mbnet_perception.core.fog import KOSCHMIEDER, add_fog, fog_visibility, usable_depth
from mbnet_perception.core.light import Image, Light, check_picture
from mbnet_perception.core.night import (
    add_headlamp_glow,
    add_night,
    expose,
    from_srgb,
    light_by_night,
    night_airlight,
    night_illuminance,
    night_light,
    night_of,
    to_srgb,
)
from mbnet_perception.core.rain import add_rain, rain_rate, rain_streaks
from mbnet_perception.core.severity import SEVERITIES

__all__ = ["CONDITIONS", "SEVERITIES", "WeatherTime", "apply_weather", "milliseconds_since"]

CONDITIONS = ("clear", "fog", "rain", "night", "rain_night", "fog_night")
"""Conditions of `apply_weather`; for all but the first, severity counts."""

FOG_REFLECTANCE = 0.15
"""Share of the own headlamps' light that dense fog sends back."""

GLOW_REACH = 15.0
"""Metres of fog before the car that do so."""

RESTART = 10**9
"""ns; a stamp that goes back by more begins a drive anew, as when a recording is looped."""

DROP_REFLECTANCE = 0.4
"""Share of it that falling drops send back, where they make an opaque streak."""


def milliseconds_since(first: int, stamp: int) -> int:
    """The `frame` of a picture for `apply_weather` at a rate of 1000, by its stamp.

    By stamps and not by counting, a video's weather is the same whichever pictures are missing.

    Args:
        first: Stamp of the video's first picture, ns.
        stamp: Of this one, ns.
    """
    return round((stamp - first) / 10**6)


class WeatherTime:
    """Tells the weather's time of a drive, live and from a bag alike."""

    def __init__(self) -> None:
        self._first: int | None = None
        self._newest = 0

    def at(self, stamp: int) -> int:
        """Milliseconds since the drive's first picture, for the next one's stamp in ns.

        Begins anew where a stamp goes back by more than `RESTART`.
        """
        if self._first is None or stamp < self._newest - RESTART:
            self._first = self._newest = stamp
        self._newest = max(self._newest, stamp)
        return milliseconds_since(self._first, stamp)


def apply_weather(
    image: Image,
    condition: str,
    severity: float,
    seed: int,
    frame: int = 0,
    rate: float = 15.0,
    depth: Light | None = None,
) -> Image:
    """Show a picture as it would look in another weather.

    A function of its arguments alone, so that a video's frames may come in any order: what belongs
    to the scene follows from the seed, what moves from the time, `frame / rate`. Everything stays
    where it is in the picture, and so do its boxes.

    Args:
        image: (H, W, 3) uint8 RGB, by day and in clear weather; not written to.
        condition: One of `CONDITIONS`.
        severity: From 1 to 5; one of `SEVERITIES` or between. Each kernel states what it means.
        seed: Any integer.
        frame: Number of the picture in its video.
        rate: Pictures a second of the video, positive.
        depth: (H, W) float32 metres; without it a straight road is assumed.

    Returns:
        (H, W, 3) uint8 RGB; the image itself when the condition is clear.

    Raises:
        ValueError: If an argument is not of that kind.
    """
    check_picture(image)
    if condition not in CONDITIONS:
        raise ValueError(f"condition must be one of {', '.join(CONDITIONS)}, got {condition!r}")
    try:
        seed, frame = operator.index(seed), operator.index(frame)
    except TypeError:
        raise ValueError(f"seed and frame must be integers, got {seed!r} and {frame!r}") from None
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f"rate must be positive and finite (pictures a second), got {rate!r}")
    if condition == "clear":
        return image
    time = frame / rate
    if condition == "fog":
        return add_fog(image, fog_visibility(severity), seed, time, depth=depth)
    if condition == "rain":
        return add_rain(image, rain_rate(severity), seed, time, depth=depth)
    if condition == "night":
        return add_night(image, night_illuminance(severity), seed, frame, depth=depth)

    # Fog and rain lie between a scene in the night's light and the camera with its noise. They
    # scatter the light around, and glow where the own headlamps shine into them.
    night = night_of(night_illuminance(severity))
    lighting = night_light(image, night, seed)
    picture = to_srgb(light_by_night(image, lighting, depth), growth=night.growth)
    airlight = night_airlight(lighting)
    if condition == "fog_night":
        visibility = fog_visibility(severity)
        picture = add_fog(picture, visibility, seed, time, depth=depth, airlight=airlight)
        # The headlamps' light passes the fog twice.
        lit = np.minimum(usable_depth(image, depth), GLOW_REACH)
        back = np.asarray(cv2.exp(lit * np.float32(-2 * KOSCHMIEDER / visibility)), np.float32)
        reflectance = FOG_REFLECTANCE * (1 - back)
    else:
        rain = rain_rate(severity)
        streaks = rain_streaks(image.shape[:2], rain, seed, time, exposure=night.exposure)
        picture = add_rain(
            picture, rain, seed, time, depth=depth, airlight=airlight, streaks=streaks
        )
        reflectance = streaks * np.float32(DROP_REFLECTANCE / 255)
    light = from_srgb(picture)
    add_headlamp_glow(light, lighting, reflectance)
    return expose(light, night.gain, seed, frame)

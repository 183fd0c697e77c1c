"""The pictures of a bag, when they were taken, and how they look under a condition."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import cv2
import numpy as np

from mbnet_perception.core.detections import Detections
from mbnet_perception.core.images import ImageFormatError
from mbnet_perception.core.light import Image
from mbnet_perception.core.weather import WeatherTime, apply_weather
from mbnet_perception.evaluation.bag_cache import BagCache
from mbnet_perception.evaluation.bag_results import BagFacts, Moment
from mbnet_perception.evaluation.bags import Bag, BagError, Message, picture_of, stamp
from mbnet_perception.evaluation.corruptions import CORRUPTIONS
from mbnet_perception.evaluation.robustness import CLEAR, Condition, degrade


class ShownMoment(NamedTuple):
    """What there is to see of a moment.

    Attributes:
        clean, degraded: (H, W, 3) uint8 RGB, in clear weather and under the condition.
        in_clear, in_weather: What the moment's operating point sees in each.
        classes: Names that the detections' class indices mean.
    """

    clean: Image
    degraded: Image
    in_clear: Detections
    in_weather: Detections
    classes: tuple[str, ...]


class TimedMessage(NamedTuple):
    """A picture's message.

    Attributes:
        place: Among those of its topic.
        message: As read.
        stamp: ns since the epoch; None for a message that is too short to have one.
        milliseconds: Since the first picture of the drive.
    """

    place: int
    message: Message
    stamp: int | None
    milliseconds: int


def timed_messages(bag: Bag, topic: str) -> Iterator[TimedMessage]:
    """The messages of a topic of pictures, with times as the weather node tells them.

    Raises:
        BagError: If there is not even a first one.
    """
    weather_time = WeatherTime()
    for place, message in enumerate(bag.messages([topic])):
        try:
            time = stamp(message.data)
        except BagError:
            yield TimedMessage(place, message, None, 0)
            continue
        now = time or message.log_time  # for a camera that does not stamp
        yield TimedMessage(place, message, time, weather_time.at(now))


def whole_rgb(message: Message) -> Image:
    """(H, W, 3) uint8 RGB, not reduced.

    Raises:
        ImageFormatError: As :func:`picture_of`.
    """
    return np.asarray(cv2.cvtColor(picture_of(message).bgr(), cv2.COLOR_BGR2RGB), np.uint8)


def degrade_frame(rgb: Image, condition: Condition, milliseconds: int, seed: int) -> Image:
    """Show a bag's picture under a condition.

    Args:
        rgb: (H, W, 3) uint8 RGB, stays as it is.
        condition: What it is to look like.
        milliseconds: Since the first picture of the drive: weather moves on with them.
        seed: Of the weather or corruption, not negative.
    """
    if condition.name in CORRUPTIONS:
        return degrade(rgb, condition, max(0, milliseconds), seed)
    return apply_weather(rgb, condition.name, condition.severity, seed, milliseconds, 1000.0)


def moment_pictures(cache: BagCache, moments: Sequence[Moment]) -> list[tuple[Image, Image] | None]:
    """Open the bags again, and show moments as the operating points saw them.

    Args:
        cache: Results that the moments were found in.
        moments: Of any bags and conditions.

    Returns:
        For each moment (H, W, 3) uint8 RGB in clear weather and under its condition; None where
        the bag is not there, or is another now.

    Raises:
        CacheError: If results of a bag are missing or damaged.
    """
    pictures: list[tuple[Image, Image] | None] = [None] * len(moments)
    for bag in cache.all_facts():
        rows_at: dict[int, list[int]] = {}
        for row, moment in enumerate(moments):
            if moment.bag == bag.name:
                place = cache.place(bag, moment.point, moment.number)
                rows_at.setdefault(place, []).append(row)
        for row, clean, milliseconds in _find_pictures(bag, rows_at, moments):
            condition = moments[row].condition
            pictures[row] = clean, degrade_frame(clean, condition, milliseconds, cache.plan.seed)
    return pictures


def show_moments(
    cache: BagCache, moments: Sequence[Moment]
) -> Callable[[Moment], ShownMoment | None]:
    """What a report shows of moments, bags opened once.

    Returns:
        Gives for one of these moments what is shown, or None where the bag is not there.

    Raises:
        CacheError: If results of a bag are missing or damaged.
    """
    bags = {bag.name: bag for bag in cache.all_facts()}
    classes = {each.point: each.classes for each in cache.plan.points}
    shown: dict[int, ShownMoment] = {}
    for moment, pictures in zip(moments, moment_pictures(cache, moments), strict=True):
        if pictures:
            in_clear, in_weather = (
                cache.run(bags[moment.bag], moment.point, condition).detections()[moment.number]
                for condition in (CLEAR, moment.condition)
            )
            shown[id(moment)] = ShownMoment(*pictures, in_clear, in_weather, classes[moment.point])
    return lambda moment: shown.get(id(moment))


def _find_pictures(
    bag: BagFacts, rows_at: dict[int, list[int]], moments: Sequence[Moment]
) -> Iterator[tuple[int, Image, int]]:
    """Row of each moment, its picture as RGB, and milliseconds since the drive's first picture.

    Args:
        bag: Where to look.
        rows_at: Rows of the moments that are at a place.
        moments: Those and others.
    """
    last = max(rows_at, default=-1)
    with suppress(BagError, ImageFormatError), Bag(bag.path) as opened:
        for place, message, time, milliseconds in timed_messages(opened, bag.topic):
            rows = [row for row in rows_at.get(place, []) if moments[row].stamp == time]
            if rows:
                clean = whole_rgb(message)
                yield from ((row, clean, milliseconds) for row in rows)
            if place >= last:
                return

"""How much a figure would differ if other pictures of the same kind had been labelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Figure:
    """A measured value and its 95 % interval; None where it cannot be told.

    Attributes:
        value: Of the pictures as they are.
        low, high: Ends of the interval; None where no resamples were drawn.
    """

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f})"


def draw_resamples(groups: Sequence[str], count: int, seed: int) -> tuple[NDArray[np.float64], int]:
    """How often each picture is in each resample.

    A resample is as many scenes as there are, drawn with putting back (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 6): pictures of one scene resemble each other, so
    that each alone would tell less than it seems to. Figures of several models or conditions are
    compared within each resample, so that the luck of the pictures cancels out.

    Args:
        groups: For each picture, the scene that it is of; empty for one of its own.
        count: How many resamples.
        seed: Not negative.

    Returns:
        (pictures, count) whole numbers, and the number of scenes.

    Raises:
        ValueError: If there are no pictures, or count or seed is negative.
    """
    if not groups or count < 0 or seed < 0:
        raise ValueError(
            f"expected at least one picture, and a count of resamples and a seed that are not "
            f"negative; got {len(groups)} pictures, count {count}, seed {seed}"
        )
    # A picture without a group is a scene that its place names.
    scenes = [group or place for place, group in enumerate(groups)]
    rows = {scene: row for row, scene in enumerate(dict.fromkeys(scenes))}
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), count)
    return times.T[[rows[scene] for scene in scenes]].astype(np.float64), len(rows)


def figure_of(values: NDArray[np.float64]) -> Figure:
    """A figure from its value, first, and its values in the resamples behind it: (1 + N,).

    The interval is the percentile one (Efron and Tibshirani, chapter 13). Resamples in which the
    value cannot be told (NaN), such as those without a box of the class, are left out.
    """
    known = values[1:][np.isfinite(values[1:])]
    value = float(values[0]) if np.isfinite(values[0]) else None
    if value is None or not len(known):
        return Figure(value)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(known, [tail, 100 - tail])
    return Figure(value, float(low), float(high))

"""Latency figures over the newest frames."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

RANKS = (0, 50, 90, 99, 100)


@dataclass(frozen=True)
class StageSummary:
    """How long a stage took over some frames, in seconds; percentiles are by nearest rank.

    Attributes:
        count: Frames of which the duration is known.
        deviation: Standard deviation of these frames, that is, divided by their count.
    """

    count: int
    mean: float
    deviation: float
    minimum: float
    p50: float
    p90: float
    p99: float
    maximum: float


@dataclass(frozen=True)
class LatencySummary:
    """What a window holds.

    Attributes:
        since: Time of the earliest frame, nanoseconds of the clock that the frames came with.
        until: Time of the latest frame, likewise.
        frames: How many there are.
        throttled: How many of them were taken in while the board was slowed down.
        stages: By name, in the window's order; none for a stage that no frame knows.
    """

    since: int
    until: int
    frames: int
    throttled: int
    stages: dict[str, StageSummary]


class LatencyWindow:
    """Durations of the stages of the newest frames; one thread may add while another reads.

    Args:
        stages: Their names.
        size: How many frames are kept.

    Raises:
        ValueError: If the size is less than 1.
    """

    def __init__(self, stages: Sequence[str], size: int) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self._unknown = dict.fromkeys(stages, math.nan)
        # Time, whether throttled, and one duration for each stage, NaN where it is not known.
        self._frames: deque[tuple[int, bool, tuple[float, ...]]] = deque(maxlen=size)
        self._lock = Lock()

    def add(self, at: int, durations: Mapping[str, float], throttled: bool = False) -> None:
        """Take in a frame; the oldest goes when the window is full.

        Args:
            at: When it was answered, nanoseconds.
            durations: Seconds by stage; a stage that is missing is not known.
            throttled: Whether the board was slowed down.

        Raises:
            ValueError: If a duration is negative or not finite, as clocks that disagree are for the
                caller, or a stage is not one of the window's.
        """
        row = {**self._unknown, **durations}
        if len(row) > len(self._unknown):
            stage = next(stage for stage in durations if stage not in self._unknown)
            raise ValueError(f"stage must be one of {', '.join(self._unknown)}, got {stage!r}")
        for stage, seconds in durations.items():
            if not 0 <= seconds < math.inf:
                raise ValueError(
                    f"duration of {stage} must be finite and not negative, got {seconds} s"
                )
        with self._lock:
            self._frames.append((at, throttled, tuple(row.values())))

    def clear(self) -> None:
        """Forget all frames, as after a jump of the clock."""
        with self._lock:
            self._frames.clear()

    def summarise(self) -> LatencySummary | None:
        """Figures over the frames in the window; None if it is empty."""
        with self._lock:
            frames = list(self._frames)
        if not frames:
            return None
        times, throttled, rows = zip(*frames, strict=True)
        seconds = np.sort(np.array(rows, np.float64), axis=0)  # what is not known goes to the end
        known = ~np.isnan(seconds)
        counts = known.sum(axis=0)
        divisors = np.maximum(counts, 1)
        means = np.sum(seconds, axis=0, where=known) / divisors
        variances = np.sum((seconds - means) ** 2, axis=0, where=known) / divisors
        places = _places(np.array(RANKS)[:, None], divisors)
        least, *ranked = np.take_along_axis(seconds, places, axis=0)
        figures = np.stack([means, np.sqrt(variances), least, *ranked], axis=1).tolist()
        return LatencySummary(
            since=min(times),
            until=max(times),
            frames=len(frames),
            throttled=sum(throttled),
            stages={
                stage: StageSummary(count, *row)
                for stage, count, row in zip(self._unknown, counts.tolist(), figures, strict=True)
                if count
            },
        )


def percentile(values: Iterable[float], rank: float) -> float:
    """Value that so many percent of the values stay within, by nearest rank: one of them.

    Args:
        values: In any order.
        rank: 0-100; 0 asks for the least, 100 for the most.

    Raises:
        ValueError: If there are no values, or the rank is outside 0-100.
    """
    if not 0 <= rank <= 100:
        raise ValueError(f"percentile must be in [0, 100], got {rank}")
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values have no percentiles")
    return ordered[int(_places(rank, len(ordered)))]


def _places(ranks: float | NDArray[np.int_], counts: int | NDArray[np.int_]) -> NDArray[np.int_]:
    """Where the nearest ranks are among so many ordered values."""
    # Multiplied first: 7 / 100 * 100 is more than 7.
    return np.maximum(np.ceil(np.multiply(ranks, counts) / 100).astype(np.int_) - 1, 0)

"""Latency figures over the newest frames."""

from __future__ import annotations

import math
from collections import deque
from threading import Lock


class LatencyWindow:
    """The newest durations; one thread may add while another reads.

    Attributes:
        size: How many durations are kept.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self.size = size
        self._seconds: deque[float] = deque(maxlen=size)
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._seconds)

    def add(self, seconds: float) -> None:
        """Take in a duration; the oldest goes when the window is full.

        Raises:
            ValueError: If it is negative or not finite: clocks that disagree are for the caller.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"duration must be finite and not negative, got {seconds} s")
        with self._lock:
            self._seconds.append(seconds)

    def percentile(self, rank: float) -> float:
        """Duration in seconds that so many percent stay within, by nearest rank.

        It is one of the durations that were added.

        Args:
            rank: 0-100; 0 asks for the least, 100 for the most.

        Raises:
            ValueError: If the window is empty, or the rank is outside 0-100.
        """
        if not 0 <= rank <= 100:
            raise ValueError(f"percentile must be in [0, 100], got {rank}")
        with self._lock:
            ordered = sorted(self._seconds)
        if not ordered:
            raise ValueError("an empty window has no percentiles")
        return ordered[max(0, math.ceil(rank / 100 * len(ordered)) - 1)]

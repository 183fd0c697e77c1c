"""What became of every frame of a camera."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from threading import Lock
from typing import Literal, get_args

Outcome = Literal["processed", "superseded", "stale", "failed"]

PERIODS = 15
"""The usual time between two stamps is the median of this many newest ones."""

ENOUGH_PERIODS = 5
"""With fewer of them nothing is told from stamps."""

LONGEST_GAP = 2 * 10**9
"""Nanoseconds; beyond it a camera was off rather than its frames lost."""


@dataclass(frozen=True)
class FrameCounts:
    """Frames of one camera; received = processed + superseded + stale + failed + waiting.

    Attributes:
        received: All that reached us.
        processed: Answered with detections.
        superseded: Dropped, as a newer one came before their turn.
        stale: Dropped, as they were too old when their turn came, or still waited when the node
            was deactivated.
        failed: Could not be read or processed.
        waiting: In the queue or being processed.
        lost: Sent, but never received, by their numbers; not part of the sum.
        lost_by_stamps: The same where there are no numbers, as estimated from the gaps between
            stamps; not part of the sum.
    """

    received: int = 0
    processed: int = 0
    superseded: int = 0
    stale: int = 0
    failed: int = 0
    waiting: int = 0
    lost: int = 0
    lost_by_stamps: int = 0


class FrameLedger:
    """Books each frame once in and once out; any thread may book, and the books always balance."""

    def __init__(self) -> None:
        self._received = 0
        self._settled = dict.fromkeys(get_args(Outcome), 0)
        self._lost = 0
        self._lost_by_stamps = 0
        self._number: int | None = None
        self._anew = False  # whether the last number was not above the one before
        self._stamps = _StampGaps()
        self._lock = Lock()

    @property
    def counts(self) -> FrameCounts:
        """The counts of one moment."""
        with self._lock:
            return FrameCounts(
                received=self._received,
                waiting=self._waiting,
                lost=self._lost,
                lost_by_stamps=self._lost_by_stamps,
                **self._settled,
            )

    @property
    def _waiting(self) -> int:
        return self._received - sum(self._settled.values())

    def resume(self) -> None:
        """Tell nothing from the number and the stamp of the next frame.

        Those before it were not asked for, so that they are not lost.
        """
        with self._lock:
            self._number, self._anew = None, False
            self._stamps = _StampGaps()

    def receive(self, number: int | None = None, stamp: int | None = None) -> None:
        """Book a frame in; it waits from now on.

        Args:
            number: Its place in what the camera sent, where that is known: a gap before it counts
                as lost. A number that is not above the last one is of a camera that began anew, or
                of a second one; so nothing is told from the number right after it.
            stamp: Its stamp in nanoseconds, None where it is of no use: after a jump of the clock,
                or where several send pictures by turns, whose stamps have no usual gap. Where there
                is no number, a gap before it that is longer than usual tells what was lost. Nothing
                is told before the usual time between stamps is known, after a stamp that is zero or
                not above the last one, or for a gap of more than 2 s.
        """
        with self._lock:
            last, self._number = self._number, number
            gap = number - last - 1 if number is not None and last is not None else 0
            anew, self._anew = self._anew, gap < 0
            missing = self._stamps.add(stamp)
            self._received += 1
            if number is None:
                self._lost_by_stamps += missing
            elif not anew:
                self._lost += max(0, gap)

    def settle(self, outcome: Outcome) -> None:
        """Book one of the waiting frames out.

        Raises:
            ValueError: If no frame is waiting.
        """
        with self._lock:
            if self._waiting == 0:
                raise ValueError(f"no frame is waiting that could be {outcome}")
            self._settled[outcome] += 1


class _StampGaps:
    """Tells from stamps how many frames are missing between two of them."""

    def __init__(self) -> None:
        self._last = 0
        # Gaps are kept as they are: were they divided by the frames that they seem to hold, a
        # camera that halves its rate would seem to lose every other frame for ever.
        self._periods: deque[int] = deque(maxlen=PERIODS)

    def add(self, stamp: int | None) -> int:
        """Frames that seem to be missing before this one."""
        stamp = stamp or 0
        period, self._last = stamp - self._last, stamp
        if not 0 < period <= LONGEST_GAP:
            self._periods.clear()
            return 0
        missing = 0
        if len(self._periods) >= ENOUGH_PERIODS:
            usual = sorted(self._periods)[len(self._periods) // 2]
            missing = max(0, (period + usual // 2) // usual - 1)
        self._periods.append(period)
        return missing

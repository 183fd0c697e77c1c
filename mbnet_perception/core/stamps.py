"""How old a frame is by its stamp, told by clocks that may be wrong, jump, or be simulated."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Literal

StampFault = Literal["zero", "future", "old", "jumped"]
"""Why a stamp tells no age.

zero: it was never set. future, old: it is ahead of the clock, or more than MAX_AGE behind it, so
one of the two is wrong. jumped: the clock jumped after it was taken.
"""

SECOND = 10**9  # nanoseconds
MAX_AGE = 60 * SECOND
"""Nobody detects on a frame that is a minute old."""

TOLERANCE = SECOND // 10
"""A smaller change of the clock is no jump.

The system clock is slewed by less; /clock comes in ticks; and two threads that read the clock may
tell it in the other order.
"""

WAY = SECOND
"""Frames from before a jump are taken to be on their way for this long at most."""


@dataclass(frozen=True)
class _Observation:
    """The clock in nanoseconds, and monotonic seconds at that time."""

    now: int
    monotonic: float


@dataclass(frozen=True)
class _Jump:
    """A jump of the clock; all in nanoseconds of the clock.

    Attributes:
        after: Earlier stamps may be from before the jump.
        before: Where the clock would be without the jump, and what may have been stamped since.
        end: From here on the jump is past, and all stamps are from after it.
    """

    after: int
    before: int
    end: int


class StampClock:
    """Judges stamps against the node's clock, and tells when that clock jumps; any thread may ask.

    A jump of the system clock shows against the monotonic clock. A simulated clock runs at its own
    pace and may leap forward; only a step back, as when a bag begins anew, is a jump.

    Args:
        simulated: Whether the node's clock follows /clock (`use_sim_time`).
    """

    def __init__(self, simulated: bool) -> None:
        self._simulated = simulated
        self._newest: _Observation | None = None
        self._jump: _Jump | None = None
        self._lock = Lock()

    def observe(self, now: int, monotonic: float) -> float | None:
        """Look at the clock; best for each frame that comes and each that goes.

        Args:
            now: The node's clock in nanoseconds.
            monotonic: Monotonic seconds, read together with it. What was read before the newest
                observation is ignored.

        Returns:
            Seconds that the clock has jumped since the last observation, negative for a jump
            back; None if it has not.
        """
        with self._lock:
            newest, observation = self._newest, _Observation(now, monotonic)
            if newest is None:
                self._newest = observation
                return None
            if monotonic < newest.monotonic:
                return None
            change = now - newest.now
            if self._simulated:
                change = min(0, change)
            else:
                change -= round((monotonic - newest.monotonic) * SECOND)
            if abs(change) <= TOLERANCE:
                if not self._simulated or now > newest.now:  # many small steps back are one
                    self._newest = observation
                return None
            self._newest = observation
            # After a short step back, stamps from before it look like new ones. After a long one
            # they lie in the future.
            doubt = -change if -WAY <= change < 0 else 0
            self._jump = _Jump(
                after=now + doubt, before=now - change + WAY, end=now + doubt + MAX_AGE
            )
            return change / SECOND

    def age(self, stamp: int, now: int) -> float | StampFault:
        """Seconds from a stamp to now, or why that cannot be told.

        Args:
            stamp: Nanoseconds.
            now: The node's clock in nanoseconds, as observed.
        """
        if stamp <= 0:
            return "zero"
        # /clock comes in ticks, and a frame may have been stamped by the next one.
        latest = now + TOLERANCE if self._simulated else now
        jump = self._jump
        if jump and now < jump.end and (stamp < jump.after or latest < stamp <= jump.before):
            return "jumped"
        age = now - stamp
        if age > MAX_AGE:
            return "old"
        if stamp > latest:
            return "future"
        return max(0, age) / SECOND

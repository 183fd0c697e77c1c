"""Which rung of a ladder of operating points holds a latency budget."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

WINDOW = 10.0
"""Seconds of newest frames whose p90 is judged: it rises within 1 s after all became slow."""

ENOUGH = (10, 1.0), (2, 3.0)
"""Frames that are judged, and the seconds they span: many soon, or a few slow ones later."""

BACKLOG = 5.0
"""Seconds after a change for which frames that were stamped before it do not count.

They waited for the rung before. Where stamps are always so far behind, they are judged after all.
"""

ROOM = 0.85
"""Share of the budget that a rung must be expected to stay within before it is stepped on."""

ALARM_ROOM = 0.6
"""Share of the budget to stay within while the board alarms.

A clock that falls from 1500 to 900 MHz is then no miss; hot boards get there step by step.
"""

DWELL = 10.0
"""Seconds for which a higher rung must have been expected to fit before it is climbed."""

LONGEST_DWELL = 600.0
"""Seconds of dwell after many climbs in vain, and of a climb's trial: a case is warm by then."""

REFUTED = 60.0
"""A climb that is over the budget within so many seconds was wrongly expected to fit."""

MEMORY = 1200.0
"""Seconds for which a rung is not tried again that was wrongly expected to fit.

It is twice as long each time this happens again. After so many seconds on a rung half of the dwell
is forgotten, and what was learnt of the fixed part, of this rung, and of those below.
"""


@dataclass(frozen=True)
class Step:
    """A change to another rung, and why."""

    rung: int
    reason: str


@dataclass(frozen=True)
class _Refuted:
    """A climb that was over the budget at once.

    Attributes:
        p90: Seconds on the rung below, before the climb.
        wait: Seconds for which it is not tried again.
        until: When they are over.
    """

    p90: float
    wait: float
    until: float


class Governor:
    """Holds the p90 of stamp-to-publish within a budget, on as high a rung as can be.

    A frame is taken to last `fixed + load * rungs[i]` on rung i. No rung changes the fixed part
    (transport, waiting for a turn); it is what frames ever took longer than their rung at least.
    The load follows from the newest p90.

    Down as soon as the p90 is over the budget, to the best rung that is expected to fit; and by
    one rung while the board alarms and the p90 leaves it little room. Up by one rung once that was
    expected to fit for all of the dwell, without an alarm. A climb that has to be taken back
    doubles the dwell; one that was over the budget at once is not tried again for MEMORY, and each
    time for twice as long, unless the p90 is clearly lower than it was then. So a constant load
    costs ever rarer climbs to a rung that is too slow for it, log2(T / MEMORY + 1) + 1 within a
    time T; and one that comes and goes costs ever fewer.

    One thread at a time may use it. Times are monotonic seconds.

    Args:
        rungs: Seconds that a frame takes on each rung, rising.
        budget: Seconds.
        start: The rung that runs.

    Raises:
        ValueError: If the rungs do not rise from above 0 s, the budget is not above 0 s, or there
            is no such rung to start.
    """

    def __init__(self, rungs: Sequence[float], budget: float, start: int) -> None:
        if not all(lower < higher < math.inf for lower, higher in pairwise((0.0, *rungs))):
            raise ValueError(f"rungs must be seconds that rise from above 0, got {list(rungs)}")
        if not 0 < budget < math.inf:
            raise ValueError(f"budget must be finite and above 0 s, got {budget}")
        if not 0 <= start < len(rungs):
            raise ValueError(f"start must be one of {len(rungs)} rungs, got {start}")
        self._rungs = tuple(rungs)
        self._budget = budget
        self._rung = start
        self._frames: deque[tuple[float, float]] = deque()  # seconds, and when
        self._news = False  # whether a frame came since the last decision
        self._pending = False
        self._shortfall = ""
        self._settled = -math.inf
        self._fixed = math.inf
        self._dwell = DWELL
        self._steady_since = -math.inf
        self._fits_since: float | None = None  # is about the next higher rung
        self._climbed = -math.inf  # when it began the climb that is on trial
        self._before_climb = math.inf  # p90
        self._refuted: dict[int, _Refuted] = {}

    @property
    def rung(self) -> int:
        """The rung that runs."""
        return self._rung

    @property
    def shortfall(self) -> str:
        """By how much the budget is missed with no lower rung left; empty if no frame tells so."""
        return self._shortfall

    def add(self, seconds: float, now: float) -> None:
        """Take in the stamp-to-publish of a frame that was answered on the rung that runs.

        Args:
            seconds: From its stamp until it was published.
            now: When it was published.

        Raises:
            ValueError: If it is negative or not finite.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"duration must be finite and not negative, got {seconds} s")
        if now - min(seconds, BACKLOG) < self._settled:
            return
        self._frames.append((seconds, now))
        self._news = True

    def decide(self, now: float, alarm: str = "") -> Step | None:
        """The step to take now, if any; until a rung settles, there is no other.

        Args:
            now: Time of the question; a few each second are enough.
            alarm: Why the board is slow or about to be; empty if it is not.
        """
        if now - self._steady_since > MEMORY:
            self._steady_since, self._fixed = now, math.inf
            self._refuted = {r: what for r, what in self._refuted.items() if r > self._rung}
            self._dwell = max(DWELL, self._dwell / 2)
        while self._frames and now - self._frames[0][1] > WINDOW:
            self._frames.popleft()
        if not self._frames:
            self._shortfall = ""
        if alarm:
            self._fits_since = None
        if self._pending or not self._news:
            return None
        self._news = False
        p90 = self._p90(now)
        if p90 is None:
            self._fits_since = None
            return None
        self._fixed = min(self._fixed, max(0.0, p90 - self._rungs[self._rung]))
        step = self._down(p90, now, alarm) or (None if alarm else self._up(p90, now))
        self._pending = step is not None
        return step

    def settle(self, rung: int, now: float) -> None:
        """Go on from a rung that runs from now on."""
        if rung > self._rung:
            self._climbed = now
        self._rung, self._settled, self._steady_since, self._pending = rung, now, now, False
        self._frames.clear()

    def _down(self, p90: float, now: float, alarm: str) -> Step | None:
        lower = range(self._rung)
        over = p90 > self._budget
        p90_text, budget_text = f"p90 {_ms(p90)}", f"the budget of {_ms(self._budget)}"
        reason = f"{p90_text} is over {budget_text}"
        self._shortfall = reason if over and not lower else ""
        if not over:
            if not alarm or p90 <= ALARM_ROOM * self._budget:
                return None
            reason = f"{alarm}, and {p90_text} leaves little of {budget_text}"
        if not lower:
            return None
        target = lower[-1]
        if over and now - self._climbed < REFUTED:
            before = self._refuted.get(self._rung)
            wait = 2 * before.wait if before else MEMORY
            self._refuted[self._rung] = _Refuted(self._before_climb, wait, now + wait)
        elif over:
            fit = [r for r in lower if self._expect(r, p90) <= ROOM * self._budget]
            target = max(fit, default=lower[0])
        if now - self._climbed < LONGEST_DWELL:
            self._dwell, self._climbed = min(2 * self._dwell, LONGEST_DWELL), -math.inf
        return Step(target, reason)

    def _up(self, p90: float, now: float) -> Step | None:
        target = self._rung + 1
        refuted = self._refuted.get(target)
        if (
            target == len(self._rungs)
            or (expected := self._expect(target, p90)) > ROOM * self._budget
            or (refuted and now < refuted.until and p90 > ROOM * refuted.p90)
        ):
            self._fits_since = None
            return None
        if self._fits_since is None:
            self._fits_since = now
        if now - self._fits_since < self._dwell:
            return None
        self._before_climb = p90
        room = f"{_ms(expected)} are expected there, the budget is {_ms(self._budget)}"
        return Step(target, f"p90 {_ms(p90)} leaves room: {room}")

    def _expect(self, rung: int, p90: float) -> float:
        fixed = min(self._fixed, p90)
        return fixed + (p90 - fixed) * self._rungs[rung] / self._rungs[self._rung]

    def _p90(self, now: float) -> float | None:
        """p90 of the newest frames by nearest rank, but never the slowest one; None: too few."""
        count = len(self._frames)
        span = now - self._frames[0][1] if self._frames else 0.0
        if not any(count >= frames and span >= seconds for frames, seconds in ENOUGH):
            return None
        ordered = sorted(seconds for seconds, _ in self._frames)
        return ordered[min(math.ceil(0.9 * count), count - 1) - 1]


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms"

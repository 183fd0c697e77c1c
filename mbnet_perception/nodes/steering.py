"""Who chooses the operating point: the governor, or the user."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from diagnostic_msgs.msg import DiagnosticStatus

from mbnet_perception.core.governor import Governor
from mbnet_perception.inference.ladder import LadderRung, measure_ladder, read_ladder
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint
from mbnet_perception.nodes.diagnostics import make_status
from mbnet_perception.nodes.running import was_told_to_end

# Answered frames that may wait to be looked at; the governor looks several times a second.
SAMPLES = 1000


class Steering:
    """Holds the latency budget, as far as the user lets it.

    All methods but :meth:`add` belong to the executor's thread.

    Args:
        library: Where the operating points come from.
        num_threads: Of ONNX Runtime.
        ladder_file: What to read the ladder from; None measures it when it is needed.
        on_measured: Called by another thread when :meth:`begin` can go on.

    Raises:
        ModelError: If the file cannot be used.
    """

    def __init__(
        self,
        library: ModelLibrary,
        num_threads: int,
        ladder_file: Path | None,
        on_measured: Callable[[], None],
    ) -> None:
        self._library = library
        self._num_threads = num_threads
        self._on_measured = on_measured
        self._ladder: tuple[LadderRung, ...] = ()
        self._unusable: set[OperatingPoint] = set()
        self._rungs: list[LadderRung] = []  # of the governor: the ladder without what is unusable
        if ladder_file:
            self._ladder = read_ladder(ladder_file, library)
        self._samples: deque[tuple[float, float, OperatingPoint]] = deque(maxlen=SAMPLES)
        self._governor: Governor | None = None
        self._thread: Thread | None = None
        self._stopping = False
        self._error = ""
        self._last_step = ""
        self._stepping: OperatingPoint | None = None
        self._steps = 0
        self._budget = 0.0
        self._by_hand = self._by_hand_before = False

    def set_budget(self, seconds: float, point: OperatingPoint, now: float) -> None:
        """Begin to steer from an operating point, measuring the ladder first where it is missing.

        A budget takes the choice back from the user's hand, and gives what failed another chance.

        Args:
            seconds: The budget; 0 ends the steering.
            point: What is asked for; a change to it may still be under way.
            now: Monotonic seconds.
        """
        self._budget, self._by_hand, self._governor, self._error = seconds, False, None, ""
        self._unusable.clear()
        if seconds > 0:
            if self._ladder:
                self.begin(point, now)
            elif self._thread is None or not self._thread.is_alive():
                self._thread = Thread(
                    target=self._measure, args=(point,), name="ladder", daemon=True
                )
                self._thread.start()

    def wait(self) -> None:
        """Wait until the ladder is measured, if it is being measured."""
        if self._thread:
            self._thread.join()

    def begin(self, point: OperatingPoint, now: float) -> None:
        """Steer from what is asked for, if that is still wanted and there is a ladder."""
        if self._budget <= 0 or self._by_hand or not self._ladder:
            return
        self._rungs = [rung for rung in self._ladder if rung.point not in self._unusable]
        if not self._rungs:
            self._governor = None
            self._error = (
                f"expected a ladder of operating points that work, but the change to each of its "
                f"{len(self._ladder)} failed, as the log tells; mend models_folder or ladder_file, "
                "then set latency_budget_ms again"
            )
            return
        seconds, start = [rung.seconds for rung in self._rungs], self._rung(point)
        self._governor = Governor(seconds, self._budget, start)
        self._governor.settle(start, now)  # frames from before tell nothing

    def hold(self) -> None:
        """Leave the operating point to the user, who has just set it."""
        self._by_hand_before, self._by_hand, self._governor = self._by_hand, True, None

    def release(self, running: OperatingPoint, now: float) -> None:
        """Take back the newest :meth:`hold`, as the change that it was for failed."""
        if self._by_hand and not self._by_hand_before:
            self._by_hand = False
            self.begin(running, now)

    def add(self, seconds: float, now: float, point: OperatingPoint) -> None:
        """Take in what an answered frame took, stamp to publish, on this operating point."""
        self._samples.append((seconds, now, point))

    def decide(self, now: float, alarm: str, point: OperatingPoint) -> OperatingPoint | None:
        """The operating point to change to, if it is time; the reason is then in :meth:`report`.

        Args:
            now: Monotonic seconds.
            alarm: Why the computer is slow or about to be; empty if it is not.
            point: What runs; no change is under way.
        """
        governor = self._governor
        if governor is None:
            return None
        if point != self._rungs[governor.rung].point:  # where it began beside the ladder
            return self._note(governor.rung, f"{point} is on no rung of the ladder")
        for _ in range(len(self._samples)):
            seconds, when, of = self._samples.popleft()
            if of == point:
                governor.add(seconds, when)
        step = governor.decide(now, alarm)
        return self._note(step.rung, step.reason) if step else None

    def settle(self, point: OperatingPoint, now: float) -> None:
        """A change to this operating point took effect."""
        self._stepping = None
        if self._governor:
            self._governor.settle(self._rung(point), now)

    def exclude(self, point: OperatingPoint, now: float, running: OperatingPoint) -> None:
        """A change to this operating point failed: go on from what runs, without it."""
        if point == self._stepping:
            self._last_step += "; this change failed"
            self._stepping = None
        self._unusable.add(point)
        if self._governor:
            self.begin(running, now)

    def stop(self) -> None:
        """End the measuring, if it goes on."""
        self._stopping = True
        self.wait()

    @property
    def last_step(self) -> str:
        """The newest step and its reason, for people."""
        return self._last_step

    def report(self, node_name: str) -> DiagnosticStatus:
        """Status of the governor: who chooses, between what, and why it stepped last."""
        level, message = DiagnosticStatus.OK, "off: latency_budget_ms is 0"
        if self._budget > 0:
            message = f"holds {1e3 * self._budget:.0f} ms"
            if self._error:
                level, message = DiagnosticStatus.ERROR, self._error
            elif self._by_hand:
                message = "the operating point was set by hand; set latency_budget_ms to go on"
            elif self._governor is None:
                message = "measures the operating points"
            elif self._governor.shortfall:
                level = DiagnosticStatus.WARN
                message = f"no operating point is fast enough: {self._governor.shortfall}"
            elif self._last_step:
                message = f"{message}; last step: {self._last_step}"
        values = {
            "budget_ms": f"{1e3 * self._budget:.0f}",
            "steps": str(self._steps),
            "last_step": self._last_step,
        }
        for i, rung in enumerate(self._ladder):
            values[f"rung_{i}"] = f"{rung.point}: {1e3 * rung.seconds:.1f} ms"
        return make_status(level, f"{node_name}: governor", message, values)

    def _note(self, rung: int, reason: str) -> OperatingPoint:
        point = self._stepping = self._rungs[rung].point
        self._steps += 1
        self._last_step = f"to {point}, as {reason}"
        return point

    def _rung(self, point: OperatingPoint) -> int:
        """Of an operating point; where it is on no rung the fastest, which is safe."""
        return next((i for i, rung in enumerate(self._rungs) if rung.point == point), 0)

    def _measure(self, point: OperatingPoint) -> None:
        try:
            self._ladder = measure_ladder(
                self._library,
                point,
                self._num_threads,
                # A signal's end of the node waits for us while the node is made.
                lambda: self._stopping or was_told_to_end(),
            )
        except Exception as error:
            self._error = f"the operating points cannot be measured: {error}"
        if not self._stopping:
            self._on_measured()

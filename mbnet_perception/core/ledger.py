"""What became of every frame of a camera."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock
from typing import Literal

Outcome = Literal["processed", "superseded", "stale", "failed"]


@dataclass(frozen=True)
class FrameCounts:
    """Frames of one camera; received = processed + superseded + stale + failed + waiting.

    Attributes:
        received: All that reached us.
        processed: Answered with detections.
        superseded: Dropped, as a newer one came before their turn.
        stale: Dropped, as they were too old when their turn came.
        failed: Could not be read or processed.
        waiting: In the queue or being processed.
        lost: Sent, but never received; not part of the sum.
    """

    received: int = 0
    processed: int = 0
    superseded: int = 0
    stale: int = 0
    failed: int = 0
    waiting: int = 0
    lost: int = 0


class FrameLedger:
    """Books each frame once in and once out; any thread may book, and the books always balance."""

    def __init__(self) -> None:
        self._counts = FrameCounts()
        self._last: int | None = None
        self._lock = Lock()

    @property
    def counts(self) -> FrameCounts:
        """The counts of one moment."""
        return self._counts

    def receive(self, number: int | None = None) -> None:
        """Book a frame in; it waits from now on.

        Args:
            number: Its place in what the camera sent, where that is known: a gap before it counts
                as lost. A number that is not above the last one is of a camera that began anew.
        """
        with self._lock:
            counts, last, self._last = self._counts, self._last, number
            gap = number - last - 1 if number is not None and last is not None else 0
            self._counts = replace(
                counts,
                received=counts.received + 1,
                waiting=counts.waiting + 1,
                lost=counts.lost + max(0, gap),
            )

    def settle(self, outcome: Outcome) -> None:
        """Book one of the waiting frames out.

        Raises:
            ValueError: If no frame is waiting.
        """
        with self._lock:
            counts = self._counts
            if counts.waiting == 0:
                raise ValueError(f"no frame is waiting that could be {outcome}")
            settled = {outcome: getattr(counts, outcome) + 1}
            self._counts = replace(counts, waiting=counts.waiting - 1, **settled)

"""The newest frame of each camera, and whose turn it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from queue import SimpleQueue
from threading import Lock
from typing import Generic, TypeVar

from mbnet_perception.core.ledger import FrameLedger

T = TypeVar("T")


class FrameQueue(Generic[T]):
    """Keeps the newest frame of each camera for a worker, and books what comes and what is dropped.

    Cameras take turns by start-time fair queueing: each frame taken moves its camera 1 / weight
    ahead, and the camera that is the least ahead is next. While all have frames, one with twice the
    weight of another is taken twice as often. A camera that was silent does not catch up. Frames
    are counted, not time, as all go through the same network.

    Args:
        ledgers: One for each camera. Frames taken are for the taker to settle.
        weights: Of the cameras, in relation to each other.

    Raises:
        ValueError: If there is not one weight for each ledger, or one is not above 0.
    """

    def __init__(self, ledgers: Sequence[FrameLedger], weights: Sequence[float]) -> None:
        if len(weights) != len(ledgers):
            raise ValueError(
                f"expected one weight for each camera ({len(ledgers)}), got {len(weights)}"
            )
        for weight in weights:
            if not 0 < weight < math.inf:
                raise ValueError(f"weight of a camera must be above 0 and finite, got {weight}")
        self._ledgers = tuple(ledgers)
        self._steps = [max(weights) / weight for weight in weights]
        self._ahead = [0.0] * len(ledgers)  # of the frame that was taken last
        self._waiting: dict[int, T] = {}
        self._closed = False
        self._idle = False
        self._lock = Lock()
        # A condition would wake the worker while its lock is still held, and so twice.
        self._news: SimpleQueue[None] = SimpleQueue()

    def put(
        self, camera: int, frame: T, number: int | None = None, stamp: int | None = None
    ) -> None:
        """Take in a frame; one of this camera that still waits is superseded.

        Args:
            camera: Its place among the ledgers.
            frame: Whatever the worker wants to know.
            number: See :meth:`FrameLedger.receive`.
            stamp: Likewise.
        """
        ledger = self._ledgers[camera]
        with self._lock:
            ledger.receive(number, stamp)
            if self._closed:
                ledger.settle("stale")
                return
            if camera in self._waiting:
                ledger.settle("superseded")
            self._waiting[camera] = frame
            idle, self._idle = self._idle, False
        if idle:
            self._news.put(None)

    def take(self, wait: bool = True) -> tuple[int, T] | None:
        """Take the next frame; for one thread alone.

        Args:
            wait: Whether to wait for one where there is none.

        Returns:
            The camera and its frame; None when there is none, or the queue is closed.
        """
        while True:
            with self._lock:
                if self._waiting:
                    return self._next()
                if self._closed or not wait:
                    return None
                self._idle = True
            self._news.get()

    def _next(self) -> tuple[int, T]:
        camera = min(self._waiting, key=self._ahead.__getitem__)
        frame = self._waiting.pop(camera)
        passed = self._ahead[camera]
        # What is counted from here never grows large, and nobody is behind who did not wait.
        self._ahead = [max(0.0, ahead - passed) for ahead in self._ahead]
        self._ahead[camera] = self._steps[camera]
        return camera, frame

    def close(self) -> None:
        """End it for good: what waits and what still comes is booked out as stale."""
        with self._lock:
            self._closed = True
            for camera in self._waiting:
                self._ledgers[camera].settle("stale")
            self._waiting.clear()
        self._news.put(None)

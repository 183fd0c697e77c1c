"""Does what is left to do for a frame, at once or beside the thread that has the next one."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Answerer(Generic[T]):
    """Answers one frame after the other, in the order in which one thread asks for it.

    A thread pool does the same, but takes the asking thread's time: it makes a future for each.

    Args:
        answer: Called with what is to be answered; it must not raise.
    """

    def __init__(self, answer: Callable[[T], None]) -> None:
        self._answer = answer
        self._turn = Lock()  # so that none overtakes the one before
        self._due: SimpleQueue[T | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="answerer", daemon=True)
        self._thread.start()

    def answer_here(self, due: T) -> None:
        """Answer it before returning."""
        with self._turn:
            self._answer(due)

    def answer_beside(self, due: T) -> None:
        """Have it answered by another thread; waits for the one before."""
        self._turn.acquire()
        self._due.put(due)

    def close(self) -> None:
        """End the other thread, when all is answered."""
        self._due.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (due := self._due.get()) is not None:
            self._answer(due)
            del due  # as the next one may be long in coming
            self._turn.release()

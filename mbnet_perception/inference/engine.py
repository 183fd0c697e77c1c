"""A detector that can be exchanged while it runs."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from mbnet_perception.inference.detector import Detector, count_threads
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

# Detectors beside the one that runs. A governor steps to and fro between neighbours, just when the
# board is short of time, and building takes a core for as long as several pictures. Each costs
# memory for every shape of camera (figures in docs/decisions.md).
KEPT = 2

NICENESS = 10  # more for a thread that builds

LONGEST_WAIT = 0.1  # seconds; where no picture comes in that time, none is held up


class Engine:
    """Runs one operating point, and changes to another between two pictures.

    One thread takes :attr:`detector` for each picture; :meth:`switch` may run on another meanwhile.
    That should be the same one each time, as what a thread gives back, the C library keeps for it;
    and one that called :func:`lower_priority`.

    Args:
        library: Where models come from.
        point: What to run first.
        num_threads: Of ONNX Runtime; 0 means one less than there are cores.

    Raises:
        ModelError: If there is no such model, or it cannot be used.
    """

    def __init__(self, library: ModelLibrary, point: OperatingPoint, num_threads: int = 0) -> None:
        self._library = library
        self._threads = num_threads
        self._switching = threading.Lock()
        self._active = (point, load_detector(library, point, num_threads))
        self._kept: dict[OperatingPoint, Detector] = {}  # least recently used first

    @property
    def point(self) -> OperatingPoint:
        """What runs now."""
        return self._active[0]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the model that runs now."""
        return self._active[1].classes

    @property
    def detector(self) -> Detector:
        """What runs now; take it once for a picture, as the next moment it may be another."""
        return self._active[1]

    def switch(
        self, point: OperatingPoint, judge: Callable[[tuple[str, ...]], object] = lambda _: None
    ) -> None:
        """Put another detector in the place of the present one: one that was kept, or a new one.

        It is checked, and warm for the pictures of the present one. Of those left behind the
        newest stay, built and warm. Nothing is done where the point runs already.

        Args:
            point: Of the other one.
            judge: Told its class names right before it takes the place; what it raises, this does.

        Raises:
            ModelError: If that fails; the present one stays, and so do those that are kept.
        """
        with self._switching:
            here, old = self._active
            if point == here:
                return
            new = self._kept.get(point) or self._build(point)
            for size in old.seen:
                if size not in new.seen:
                    new.warm(size)
            judge(new.classes)
            self._active = (point, new)
            self._kept.pop(point, None)
            self._kept[here] = old
            del old
            if len(self._kept) > KEPT:
                gone = self._kept.pop(next(iter(self._kept)))
                # ONNX Runtime takes a session down with Python's lock held, for some milliseconds.
                # The thread that detects does not need it while the network runs.
                new.wait_for_run(LONGEST_WAIT)
                del gone

    def _build(self, point: OperatingPoint) -> Detector:
        """Make a detector, out of the file's content where one of those at hand has it."""
        entry = self._library.find(point)
        at_hand = (self._active, *self._kept.items())
        model = next((d.model for at, d in at_hand if self._library.find(at) == entry), None)
        camera = next(reversed(self.detector.seen), None)
        return load_detector(self._library, point, self._threads, model, camera)


def lower_priority(num_threads: int) -> None:
    """Have the calling thread, which makes the changes, leave a core to those that need it.

    For good, as without privileges no thread raises its priority again. The threads of ONNX Runtime
    that run the network are made by the one that builds, and inherit its priority; so nothing is
    done where it has any besides the one that calls it, nor where niceness is not a thread's.

    Args:
        num_threads: Of ONNX Runtime; 0 means one less than there are cores.
    """
    if sys.platform == "linux" and count_threads(num_threads) == 1:
        with suppress(OSError):  # a sandbox may forbid it
            os.nice(NICENESS)


def load_detector(
    library: ModelLibrary,
    point: OperatingPoint,
    num_threads: int = 0,
    model: bytes | None = None,
    camera: tuple[int, int] | None = None,
) -> Detector:
    """The detector of an operating point.

    Args:
        library: Where models come from.
        point: What it runs at.
        num_threads: Of ONNX Runtime; 0 means one less than there are cores.
        model: Content of the point's file, where it was read and checked already.
        camera: Height and width of the pictures to be warm for; None for the usual ones.

    Raises:
        ModelError: If there is no such model, or it cannot be used.
    """
    entry = library.find(point)
    origin = str(library.folder / entry.file)
    return Detector(model or library.read(entry), point.resolution, num_threads, origin, camera)

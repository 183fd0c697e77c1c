"""A detector that can be exchanged while it runs."""

from __future__ import annotations

import ctypes
import threading

from mbnet_perception.inference.detector import USUAL_CAMERA, Detector
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

LONGEST_WAIT = 0.1  # seconds; where no picture comes in that time, none is held up


class Engine:
    """Runs one operating point, and changes to another between two pictures.

    One thread takes :attr:`detector` for each picture; :meth:`switch` may run on another meanwhile.

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
        self._active = (point, self._build(point, (USUAL_CAMERA,)))

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

    def switch(self, point: OperatingPoint) -> None:
        """Make, check and warm another detector, then put it in the place of the present one.

        Raises:
            ModelError: If that fails; the present one stays.
        """
        with self._switching:
            old = self.detector
            new = self._build(point, old.seen)
            self._active = (point, new)
            # ONNX Runtime takes a session down with Python's lock held, for some milliseconds. The
            # thread that detects does not need it while the network runs, nor has the old one then.
            new.wait_for_run(LONGEST_WAIT)
            del old
            new.wait_for_run(LONGEST_WAIT)
            return_memory()

    def _build(self, point: OperatingPoint, sizes: tuple[tuple[int, int], ...]) -> Detector:
        """Make a detector, and warm it for pictures of these heights and widths."""
        detector = load_detector(self._library, point, self._threads)
        for size in sizes:
            detector.warm(size)
        return detector


def load_detector(library: ModelLibrary, point: OperatingPoint, num_threads: int = 0) -> Detector:
    """The detector of an operating point.

    Raises:
        ModelError: If there is no such model, or it cannot be used.
    """
    entry = library.find(point)
    origin = str(library.folder / entry.file)
    return Detector(library.read(entry), point.resolution, num_threads, origin)


def return_memory() -> None:
    """Give memory that nobody uses back to the system, where the C library is glibc.

    It keeps what sessions had for later ones, which do not fit into the pieces.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)

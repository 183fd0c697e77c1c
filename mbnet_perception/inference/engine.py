"""A detector that can be exchanged while it runs."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core.detections import Detections, Selection
from mbnet_perception.inference.detector import MAX_SESSIONS, Detector, Timing
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

# Height and width that are warmed before any picture has come: most cameras are 4:3.
USUAL_CAMERA = (480, 640)


class Engine:
    """Runs one operating point, and changes to another between two pictures.

    :meth:`detect` belongs to one thread, :meth:`switch` may run on another meanwhile.

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
        self._seen: tuple[tuple[int, int], ...] = (USUAL_CAMERA,)
        self._switching = threading.Lock()
        self._active = (point, self._build(point))

    @property
    def point(self) -> OperatingPoint:
        """What runs now."""
        return self._active[0]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the model that runs now."""
        return self._active[1].classes

    def detect(
        self, image: NDArray[np.uint8], selection: Selection
    ) -> tuple[Detections, Timing, tuple[str, ...]]:
        """See :meth:`Detector.detect`; also returns the class names of the model that ran."""
        detector = self._active[1]
        detections, timing = detector.detect(image, selection)
        size = (image.shape[0], image.shape[1])
        if size not in self._seen:
            self._seen = (*self._seen, size)[-MAX_SESSIONS:]
        return detections, timing, detector.classes

    def switch(self, point: OperatingPoint) -> None:
        """Make, check and warm another detector, then put it in the place of the present one.

        Raises:
            ModelError: If that fails; the present one stays.
        """
        with self._switching:
            self._active = (point, self._build(point))

    def _build(self, point: OperatingPoint) -> Detector:
        entry = self._library.find(point)
        model = self._library.read(entry)
        origin = str(self._library.folder / entry.file)
        detector = Detector(model, point.resolution, self._threads, origin)
        for size in self._seen:
            detector.warm(size)
        return detector

"""One model file at one resolution, from a picture to detections."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from mbnet_perception.core.detections import Detections, Selection, select_detections
from mbnet_perception.core.geometry import input_size
from mbnet_perception.core.images import Picture
from mbnet_perception.inference.format import ModelError, metadata_from

# Shapes of cameras that one detector serves by turns without building a session again: more than a
# car has. Only what came costs memory, some 10 MB for each, with alpha 1.0 some 25 MB; the limit is
# for a camera whose shape changes all the time.
MAX_SESSIONS = 16

# Height and width that a detector is made for before any picture has come: most cameras are 4:3.
USUAL_CAMERA = (480, 640)

# ONNX Runtime learns in a session's first run what memory it needs, and takes it in the second.
WARM_RUNS = 2

POLL = 0.0005  # seconds; a good deal less than any network takes
LONGEST_WAIT = 0.1  # seconds; where no picture comes in that time, none is held up


@dataclass(frozen=True)
class Timing:
    """Seconds spent on one picture."""

    preprocess: float
    inference: float
    postprocess: float


class Output(NamedTuple):
    """What the network says of one picture.

    Attributes:
        boxes, scores: As :func:`select_detections` takes them.
        size: Height and width of the picture.
        preprocess, inference: Seconds.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    size: tuple[int, int]
    preprocess: float
    inference: float


class ModelContent:
    """Content of a model file, to make sessions of several input sizes from.

    Where the system allows it, it is kept as a file in memory: ONNX Runtime holds Python's lock
    while it parses bytes, and lets go of it for a file. It is written there once, as that takes
    milliseconds too. The file that was read and checked is not looked at again, as it may be
    another by now.

    Args:
        content: Of the file.

    Attributes:
        source: What ONNX Runtime is to read: a path, good for as long as this object lives, or
            bytes.
    """

    def __init__(self, content: bytes) -> None:
        self.source: str | bytes = content
        try:
            stream = os.fdopen(os.memfd_create("model"), "wb")
        except (AttributeError, OSError):  # not Linux, or a sandbox forbids it
            return
        weakref.finalize(self, stream.close)
        stream.write(content)
        stream.flush()
        self.source = f"/proc/self/fd/{stream.fileno()}"


class Detector:
    """Runs a model on pictures of any size.

    ONNX Runtime plans one session per input size, so the first picture of each aspect ratio takes
    longer; :meth:`warm` takes that away from the first frame. Of its sessions it keeps the
    MAX_SESSIONS that were used last. Not for two threads at a time, but for :meth:`select`.

    Args:
        model: Content of a model file, or that of a detector that has the same.
        resolution: Long side of the network input in pixels.
        num_threads: Of ONNX Runtime; 0 means one less than there are cores.
        origin: Name of the file, for messages.
        camera: Height and width of the pictures to be warm for; None for the usual ones.
        beside: One that another thread runs meanwhile, which is not to be held up.

    Attributes:
        model: What its sessions are made from.
        resolution: As given.
        metadata: What the model says of itself.
        classes: Names, in the order of the scores.

    Raises:
        ModelError: If ONNX Runtime cannot load the model, or it does not keep the contract.
    """

    def __init__(
        self,
        model: bytes | ModelContent,
        resolution: int,
        num_threads: int = 0,
        origin: str = "model",
        camera: tuple[int, int] | None = None,
        beside: Detector | None = None,
    ) -> None:
        self.model = ModelContent(model) if isinstance(model, bytes) else model
        self._threads = num_threads
        self._origin = origin
        # Both least recently used first.
        self._sessions: dict[tuple[int, int], ort.InferenceSession] = {}
        self._seen: tuple[tuple[int, int], ...] = ()
        self._runs = 0
        self.resolution = resolution
        warm_for = camera or USUAL_CAMERA
        session = self._session(input_size(warm_for, resolution))
        self.metadata = metadata_from(session.get_modelmeta().custom_metadata_map, origin)
        self.classes = self.metadata.classes
        selection = Selection()
        self._wanted = (selection, selection.class_mask(self.classes))
        # A model that breaks the contract is refused before it is needed.
        self.warm(warm_for, beside)
        if camera is None:
            self._seen = ()  # a guess, of no meaning for the detector that comes after this one

    @property
    def seen(self) -> tuple[tuple[int, int], ...]:
        """Height and width of the kinds of pictures it ran on, or was made warm for; newest last.

        They are the MAX_SESSIONS newest ones, for each of which it has its session.
        """
        return self._seen

    def wait_for_run(self) -> None:
        """Wait until the network has begun on another picture, but at most LONGEST_WAIT.

        It then leaves Python's lock to others for as long as it takes.
        """
        before, end = self._runs, time.monotonic() + LONGEST_WAIT
        while self._runs == before and time.monotonic() < end:
            time.sleep(POLL)

    def detect(self, picture: Picture, selection: Selection) -> tuple[Detections, Timing]:
        """Find objects.

        Args:
            picture: Of any size; also one that was decoded at reduced scale.
            selection: Thresholds and classes.

        Returns:
            Detections in pixels of the camera's picture, and where the time went.

        Raises:
            ValueError: If a class is unknown.
            ModelError: If the model fails on pictures of this shape, or breaks the contract.
        """
        output = self.run(picture)
        started = time.perf_counter()
        found = self.select(output, selection)
        ended = time.perf_counter()
        return found, Timing(output.preprocess, output.inference, ended - started)

    def run(self, picture: Picture, on_run: Callable[[], None] | None = None) -> Output:
        """The first part of :meth:`detect`, up to what the network says.

        Args:
            picture: As there.
            on_run: Called right before the network runs, which leaves Python's lock to others.

        Raises:
            ModelError: If the model fails on pictures of this shape, or breaks the contract.
        """
        started = time.perf_counter()
        size = (picture.height, picture.width)
        session = self._session(input_size(size, self.resolution))
        pixels = prepare_image(picture, self.resolution)
        if on_run:
            on_run()
        prepared = time.perf_counter()
        boxes, scores = self._run(session, pixels)
        ended = time.perf_counter()
        if self._seen[-1:] != (size,):
            others = [kind for kind in self._seen if kind != size]
            self._seen = (*others, size)[-MAX_SESSIONS:]
        return Output(boxes[0], scores[0], size, prepared - started, ended - prepared)

    def select(self, output: Output, selection: Selection) -> Detections:
        """The second part of :meth:`detect`; any thread may do it.

        Raises:
            ValueError: If a class is unknown.
        """
        last, mask = self._wanted
        if selection is not last:
            mask = selection.class_mask(self.classes)
            self._wanted = (selection, mask)
        return select_detections(output.boxes, output.scores, output.size, selection, mask)

    def warm(self, image_hw: tuple[int, int], beside: Detector | None = None) -> None:
        """Build what pictures of this height and width will need, and run it till it is ready.

        Args:
            image_hw: Height and width.
            beside: As for the class. Sessions take the memory for a run from one another: begun
                between two of its runs, this one would take what it needs for the next, and it
                would have to get new memory from the system meanwhile.

        Raises:
            ModelError: If the model fails on pictures of this shape, or breaks the contract.
        """
        self._session(input_size(image_hw, self.resolution))  # which takes longer than a run
        picture = Picture.of_bgr(np.zeros((*image_hw, 3), np.uint8))
        for _ in range(WARM_RUNS):
            if beside:
                beside.wait_for_run()
            self.detect(picture, Selection())

    def _session(self, input_hw: tuple[int, int]) -> ort.InferenceSession:
        session = self._sessions.pop(input_hw, None)
        if session is None:
            if len(self._sessions) == MAX_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            session = make_session(self.model.source, input_hw, self._threads, self._origin)
        self._sessions[input_hw] = session
        return session

    def _run(
        self, session: ort.InferenceSession, image: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self._runs += 1
        try:
            boxes, scores = session.run(["boxes", "scores"], {"image": image})
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            raise ModelError(f"{self._origin}: does not run: {error}") from error
        expected = (1, *boxes.shape[1:2])
        if boxes.shape != (*expected, 4) or scores.shape != (*expected, len(self.classes)):
            raise ModelError(
                f"{self._origin}: expected boxes (1, A, 4) and scores (1, A, "
                f"{len(self.classes)}), got {boxes.shape} and {scores.shape}"
            )
        return boxes, scores


def prepare_image(picture: Picture, resolution: int) -> NDArray[np.uint8]:
    """The network input, (1, height, width, 3) uint8 RGB, from a picture of any size.

    The input's size follows from the camera's picture, whatever the scale it was decoded at.
    """
    size = input_size((picture.height, picture.width), resolution)
    return picture.resized_rgb(size)[None]


def make_session(
    model: str | bytes, input_hw: tuple[int, int], num_threads: int, origin: str
) -> ort.InferenceSession:
    """An ONNX Runtime session for one input height and width; 0 threads means cores - 1.

    Args:
        model: Path of a model file, or its content.
        input_hw: Of the network's input, in pixels.
        num_threads: Of ONNX Runtime.
        origin: Name of the file, for messages.

    Raises:
        ModelError: If ONNX Runtime refuses the model.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads or max(1, (os.cpu_count() or 1) - 1)
    options.inter_op_num_threads = 1
    # Threads that spin between frames would take the cores that the rest of the car needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    _share_memory(options)
    options.add_free_dimension_override_by_name("height", input_hw[0])
    options.add_free_dimension_override_by_name("width", input_hw[1])
    options.log_severity_level = 3  # errors reach us as exceptions
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions have no common base
        raise ModelError(f"{origin}: ONNX Runtime cannot load it: {error}") from error


def _share_memory(options: ort.SessionOptions) -> None:
    """Have a session take its memory from where all do, and where the next finds what it left.

    Each has an allocator of its own otherwise, and what that gives back to the C library is in
    pieces that the next one does not fit into. To return those to the system takes locks for which
    a session that runs has to wait (figures in docs/decisions.md).
    """
    _register_allocator()
    options.add_session_config_entry("session.use_env_allocators", "1")


@cache  # once for the process; ONNX Runtime's older releases raise at a second one
def _register_allocator() -> None:
    memory = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(memory, None)

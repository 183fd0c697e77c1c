"""A detector that can be exchanged while it runs."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from mbnet_perception.inference.detector import Detector, ModelContent
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

# Detectors beside the one that runs. A governor steps to and fro between neighbours, just when the
# board is short of time, and building takes a core for as long as several pictures. Each costs
# memory for every shape of camera (figures in docs/decisions.md).
KEPT = 2

PACE = 0.0005  # seconds that a thread which builds works before it lets another one go first

# Linux's number for sched_setattr(2), which glibc has as a function from 2.41 on alone.
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
KEEP_POLICY = 0x08  # SCHED_FLAG_KEEP_POLICY
SHORT_SLICE = 100_000  # ns; Linux grants no less


class Engine:
    """Runs one operating point, and changes to another between two pictures.

    One thread takes :attr:`detector` for each picture; :meth:`switch` may run on another meanwhile.
    That should be the same one each time, as what a thread gives back, the C library keeps for it.

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
            with give_way():
                new = self._kept.get(point) or self._build(point)
                for size in old.seen:
                    if size not in new.seen:
                        new.warm(size, old)
            judge(new.classes)
            self._active = (point, new)
            self._kept.pop(point, None)
            self._kept[here] = old
            del old
            if len(self._kept) > KEPT:
                gone = self._kept.pop(next(iter(self._kept)))
                # ONNX Runtime takes a session down with Python's lock held, for some milliseconds.
                # The thread that detects does not need it while the network runs.
                new.wait_for_run()
                del gone

    def _build(self, point: OperatingPoint) -> Detector:
        """Make a detector, from what one of those at hand has of the same file, if there is one."""
        entry = self._library.find(point)
        at_hand = (self._active, *self._kept.items())
        model = next((d.model for at, d in at_hand if self._library.find(at) == entry), None)
        camera = next(reversed(self.detector.seen), None)
        return load_detector(self._library, point, self._threads, model, camera, self.detector)


@contextmanager
def give_way() -> Iterator[None]:
    """Have the calling thread let others that wait for its core go first, again and again.

    ONNX Runtime builds a session in one call. Linux would let it have the core till the next tick,
    some milliseconds that a frame does not have, as threads that were woken time and again have had
    their share. So a thread beside it interrupts it whenever it has worked for PACE, and it calls
    ``sched_yield``. Less often it need not, so that it gets on where cores are never idle.
    Nothing is done where threads cannot be interrupted so: not on Linux, or SIGURG is in use.
    """
    if not _yield_on_signal():
        yield
        return
    builder = threading.get_ident()
    clock = time.pthread_getcpuclockid(builder)
    done = threading.Event()

    def interrupt() -> None:
        _ask_for_short_slices()  # or it waits itself, where it wakes on the builder's core
        since = time.clock_gettime(clock)
        while not done.wait(PACE):
            now = time.clock_gettime(clock)
            if now - since >= PACE:
                signal.pthread_kill(builder, signal.SIGURG)
                since = now

    pacer = threading.Thread(target=interrupt, name="engine pace")
    pacer.start()
    try:
        yield
    finally:
        done.set()
        pacer.join()


def _ask_for_short_slices() -> None:
    """Have the calling thread begin as it wakes, though another one has its core.

    Linux lets a thread go on for a while, and so till a tick, unless the one that wakes asked for a
    shorter slice (from 6.12 on; before, this does nothing).
    """
    number = SCHED_SETATTR.get(platform.machine())
    if number is None:
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)  # Linux has one for each thread
    # struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period.
    attributes = struct.pack("=IIQiIQQQ", 48, 0, KEEP_POLICY, nice, 0, SHORT_SLICE, 0, 0)
    syscall = ctypes.CDLL(None).syscall
    syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_long)
    syscall(number, 0, attributes, 0)


@cache  # once for the process
def _yield_on_signal() -> bool:
    """Have SIGURG make the thread that gets it call ``sched_yield``; whether that can be.

    Nobody sends it for anything else nowadays, and a process that does not expect it ignores it,
    for which Go's runtime interrupts its threads by it too (golang/go, issue 24543).
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    library.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    library.signal.restype = ctypes.c_void_p
    # A function of C, as Python runs its own in the main thread alone; and C's `signal`, which has
    # system calls begun anew that are interrupted.
    handler = ctypes.cast(library.sched_yield, ctypes.c_void_p)
    before = library.signal(signal.SIGURG, handler)
    if before not in (None, int(signal.SIG_IGN)):
        library.signal(signal.SIGURG, before)
        return False
    return True


def load_detector(
    library: ModelLibrary,
    point: OperatingPoint,
    num_threads: int = 0,
    model: ModelContent | None = None,
    camera: tuple[int, int] | None = None,
    beside: Detector | None = None,
) -> Detector:
    """The detector of an operating point.

    Args:
        library: Where models come from.
        point: What it runs at.
        num_threads: Of ONNX Runtime; 0 means one less than there are cores.
        model: What the point's file holds, where it was read and checked already.
        camera: Height and width of the pictures to be warm for; None for the usual ones.
        beside: One that another thread runs meanwhile, which is not to be held up.

    Raises:
        ModelError: If there is no such model, or it cannot be used.
    """
    entry = library.find(point)
    origin = str(library.folder / entry.file)
    content = model or library.read(entry)
    return Detector(content, point.resolution, num_threads, origin, camera, beside)

"""How fast a model is on this computer, without ROS."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from mbnet_perception.core.detections import Selection
from mbnet_perception.core.geometry import input_size
from mbnet_perception.core.images import Picture
from mbnet_perception.core.latency import percentile
from mbnet_perception.core.scene import DrivingScene
from mbnet_perception.inference.detector import make_session, prepare_image
from mbnet_perception.inference.engine import load_detector
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

SIZE = (640, 480)
SCENE_SEED = 58
IN_A_ROW = 15  # pictures before the other way of running has its turn
WARMING = 5  # of them do not count: the other way has emptied the caches


def drive_pictures() -> list[NDArray[np.uint8]]:
    """A few pictures of a synthetic drive, (480, 640, 3) uint8 BGR."""
    scene = DrivingScene(SCENE_SEED, SIZE)
    return [scene.render(i / 2)[0] for i in range(4)]


class BareRun:
    """The network alone: ``session.run`` on one prepared picture, without anything around it.

    Args:
        library: Where the model comes from.
        point: Operating point.
        num_threads: Of ONNX Runtime.

    Raises:
        ModelError: If there is no such model, or it cannot be used.
    """

    def __init__(self, library: ModelLibrary, point: OperatingPoint, num_threads: int) -> None:
        entry = library.find(point)
        size = input_size(SIZE[::-1], point.resolution)
        self._session = make_session(library.read(entry), size, num_threads, entry.file)
        self._image = prepare_image(Picture.of_bgr(drive_pictures()[0]), point.resolution)
        for _ in range(WARMING):
            self()

    def __call__(self) -> float:
        """Run once; returns how long it took in seconds."""
        started = time.perf_counter()
        self._session.run(["boxes", "scores"], {"image": self._image})
        return time.perf_counter() - started


def measure_alone(
    library: ModelLibrary, point: OperatingPoint, num_threads: int, seconds: float
) -> dict[str, Any]:
    """Time ``session.run`` and the whole of ``Detector.detect``, picture after picture.

    Both in turn, so that whatever else the computer does disturbs both alike.

    Args:
        library: Where the model comes from.
        point: Operating point.
        num_threads: Of ONNX Runtime.
        seconds: How long to measure.

    Returns:
        Figures in milliseconds and pictures a second, ready for JSON.

    Raises:
        ModelError: If there is no such model, or it cannot be used.
    """
    bare = BareRun(library, point, num_threads)
    detector = load_detector(library, point, num_threads)
    pictures = [Picture.of_bgr(bgr) for bgr in drive_pictures()]
    detector.detect(pictures[0], Selection())
    runs: list[float] = []
    whole: list[float] = []
    stages: dict[str, list[float]] = {"preprocess": [], "inference": [], "postprocess": []}
    objects = 0
    end = time.perf_counter() + seconds
    while not runs or time.perf_counter() < end:
        runs += [bare() for _ in range(IN_A_ROW)][WARMING:]
        for i in range(IN_A_ROW):
            started = time.perf_counter()
            found, timing = detector.detect(pictures[i % len(pictures)], Selection())
            if i >= WARMING:
                whole.append(time.perf_counter() - started)
                objects += len(found)
                for name, values in stages.items():
                    values.append(getattr(timing, name))
    return {
        "session_run": milliseconds(runs),
        "detect": milliseconds(whole),
        "stages_p50_ms": {name: 1e3 * percentile(values, 50) for name, values in stages.items()},
        "session_run_rate_hz": len(runs) / sum(runs),
        "detect_rate_hz": len(whole) / sum(whole),
        "objects_per_picture": objects / len(whole),
    }


def milliseconds(seconds: Iterable[float]) -> dict[str, float]:
    """Percentiles, mean and maximum of durations, in milliseconds, ready for JSON.

    Raises:
        ValueError: If there are none.
    """
    values = list(seconds)
    return {f"p{rank}_ms": 1e3 * percentile(values, rank) for rank in (50, 90, 99)} | {
        "mean_ms": 1e3 * mean(values),
        "max_ms": 1e3 * max(values),
        "count": len(values),
    }


def memory_of(process: int | str = "self") -> int:
    """Bytes that a process holds, by its number: resident, or in files in memory (Linux)."""
    folder = Path(f"/proc/{process}")
    held = int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    for descriptor in (folder / "fd").iterdir():
        try:
            if str(descriptor.readlink()).startswith("/memfd:"):
                held += descriptor.stat().st_size
        except OSError:  # closed meanwhile
            continue
    return held


def describe_machine() -> dict[str, Any]:
    """What was measured on: the board or processor, its cores, and the versions of what ran."""
    return {
        "machine": _machine_name(),
        "cores": os.cpu_count(),
        "versions": {
            "python": platform.python_version(),
            "onnxruntime": ort.__version__,
            "opencv": cv2.__version__,
            "numpy": np.__version__,
        },
    }


def _machine_name() -> str:
    board = Path("/proc/device-tree/model")  # of a Raspberry Pi and the like
    if board.is_file():
        return board.read_text(errors="replace").rstrip("\0")
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

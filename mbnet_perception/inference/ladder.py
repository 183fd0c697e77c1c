"""The operating points that are worth their time on this computer, fastest first."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mbnet_perception.core import architecture
from mbnet_perception.core.detections import Selection
from mbnet_perception.core.geometry import input_size
from mbnet_perception.core.images import Picture
from mbnet_perception.core.latency import percentile
from mbnet_perception.inference.detector import USUAL_CAMERA, Detector
from mbnet_perception.inference.engine import load_detector
from mbnet_perception.inference.format import ModelError
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

LADDER_VERSION = 1

# Pictures that are timed, and the seconds they take together: both are reached.
PICTURES = 10
SECONDS = 0.3


@dataclass(frozen=True)
class LadderRung:
    """An operating point and what a picture takes there.

    Attributes:
        point: The operating point.
        seconds: Of :meth:`Detector.detect` on a picture of 640x480.
        ap50: Of the validation pictures, None where nobody has measured it.
    """

    point: OperatingPoint
    seconds: float
    ap50: float | None = None


def measure_ladder(
    library: ModelLibrary, point: OperatingPoint, num_threads: int, stop: Callable[[], bool]
) -> tuple[LadderRung, ...]:
    """Time the operating points of a library one after the other, and keep those worth it.

    A model that cannot be used is left out with a warning, and so is one that knows other classes
    than the one that runs. What else the computer does meanwhile is in the figures.

    Args:
        library: Where models come from.
        point: What runs.
        num_threads: Of ONNX Runtime; 0 means one less than there are cores.
        stop: Asked often; once it is true, the measuring ends without a result.

    Returns:
        :func:`frontier` of what was measured; empty if it was stopped.

    Raises:
        ModelError: If the model that runs is not there, or cannot be used.
    """
    classes = load_detector(library, point, num_threads).classes
    rungs = []
    for entry in library.entries:
        for resolution in entry.resolutions:
            if stop():
                return ()
            at = OperatingPoint(entry.backbone, entry.alpha, resolution, entry.precision)
            try:
                detector = load_detector(library, at, num_threads)
            except ModelError as error:
                logging.getLogger(__name__).warning("left out of the ladder: %s", error)
                break
            if detector.classes != classes:
                break
            seconds = time_detector(detector, stop)
            rungs.append(LadderRung(at, seconds, entry.ap50.get(resolution)))
    return () if stop() else frontier(rungs)


def time_detector(detector: Detector, stop: Callable[[], bool] = lambda: False) -> float:
    """Seconds of :meth:`Detector.detect` on a picture of 640x480.

    The lower quartile: other programs' turns on the processor are in fewer of those.
    """
    # Noise: nothing of it is constant, or rounds to nothing.
    pixels = np.random.default_rng(0).integers(0, 256, (*USUAL_CAMERA, 3), np.uint8)
    picture, selection = Picture.of_bgr(pixels), Selection()
    detector.detect(picture, selection)
    durations: list[float] = []
    while not durations or not (
        stop() or (len(durations) >= PICTURES and sum(durations) >= SECONDS)
    ):
        started = time.perf_counter()
        detector.detect(picture, selection)
        durations.append(time.perf_counter() - started)
    return percentile(durations, 25)


def frontier(rungs: Iterable[LadderRung]) -> tuple[LadderRung, ...]:
    """Those that nothing beats: none that is slower than another and not more accurate.

    More accurate is what has the greater AP50. Where one of them lacks it, the number of
    multiplications stands in for all, and float32 for more than int8.

    Returns:
        Fastest first; seconds and accuracy both rise.
    """
    candidates = list(rungs)
    known = all(rung.ap50 is not None for rung in candidates)

    def accuracy(rung: LadderRung) -> tuple[float, ...]:
        return (rung.ap50 or 0.0,) if known else _cost(rung.point)

    kept: list[LadderRung] = []
    # Of two that take the same time the better one comes first, and then beats the other.
    for rung in sorted(candidates, key=lambda r: (r.seconds, [-a for a in accuracy(r)])):
        if not kept or accuracy(rung) > accuracy(kept[-1]):
            kept.append(rung)
    return tuple(kept)


def write_ladder(path: Path, rungs: Sequence[LadderRung]) -> None:
    """Write a ladder as YAML, for :func:`read_ladder` and for people."""
    rows: list[dict[str, Any]] = []
    for rung in rungs:
        row = asdict(rung.point) | {"seconds": rung.seconds}
        rows.append(row if rung.ap50 is None else row | {"ap50": rung.ap50})
    content = {"ladder_version": LADDER_VERSION, "rungs": rows}
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def read_ladder(path: Path, library: ModelLibrary) -> tuple[LadderRung, ...]:
    """Read a ladder, whose operating points the library must have.

    Raises:
        ModelError: If the file cannot be read, is no ladder, or names a model that is not there.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(
            f"ladder {path}: cannot be read: {error.strerror}; mbnet benchmark --ladder writes one"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"ladder {path}: expected YAML: {error}") from error
    try:
        if content["ladder_version"] != LADDER_VERSION:
            raise ModelError(
                f"ladder {path}: has version {content['ladder_version']}, this package reads "
                f"{LADDER_VERSION}; write it again with mbnet benchmark --ladder"
            )
        rungs = tuple(_rungs_from(content["rungs"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"ladder {path}: expected ladder_version and a list of rungs, each with backbone, "
            f"alpha, resolution, precision, seconds and maybe ap50; {type(error).__name__}: {error}"
        ) from error
    seconds = [rung.seconds for rung in rungs]
    if not seconds or not all(low < high < math.inf for low, high in pairwise((0.0, *seconds))):
        raise ModelError(
            f"ladder {path}: expected rungs whose seconds rise from above 0, got {seconds}"
        )
    for rung in rungs:
        try:
            library.find(rung.point)
        except ModelError as error:
            raise ModelError(f"ladder {path}: {error}") from error
    return rungs


def _rungs_from(rows: Sequence[dict[str, Any]]) -> Iterator[LadderRung]:
    for row in rows:
        point = OperatingPoint(
            str(row["backbone"]), float(row["alpha"]), int(row["resolution"]), str(row["precision"])
        )
        ap50 = row.get("ap50")
        yield LadderRung(point, float(row["seconds"]), None if ap50 is None else float(ap50))


def _cost(point: OperatingPoint) -> tuple[float, ...]:
    """Multiplications on a picture of 640x480, and whether the arithmetic is exact."""
    # The classes, the same for all here, do not change the order.
    network = architecture.make_detector(point.backbone, point.alpha, classes=1)
    return network.macs(*input_size(USUAL_CAMERA, point.resolution)), point.precision == "fp32"

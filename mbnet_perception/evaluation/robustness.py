"""How detectors hold up in synthetic weather and under corruptions, on labelled pictures.

mPC is the mean AP over conditions and severities, rPC is mPC / clear AP (Michaelis et al., arXiv
1907.07484, section 3.2), here for AP (IoU 0.50 to 0.95) and for AP50.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mbnet_perception.core import images
from mbnet_perception.core.light import Image
from mbnet_perception.core.weather import CONDITIONS, SEVERITIES, apply_weather
from mbnet_perception.evaluation.accuracy import MEASURING
from mbnet_perception.evaluation.average_precision import (
    Matches,
    count_boxes,
    join_matches,
    match,
    precision_at_recalls,
    weighted_ap,
)
from mbnet_perception.evaluation.bootstrap import CONFIDENCE, Figure, draw_resamples, figure_of
from mbnet_perception.evaluation.corruptions import CORRUPTIONS, apply_corruption
from mbnet_perception.evaluation.dataset import Dataset, Picture, read_picture
from mbnet_perception.inference.detector import Detector

# Pictures that a process takes at a time: few enough for progress to show and for the last
# process not to keep the others waiting long.
PICTURES_AT_A_TIME = 16

Step = TypeVar("Step")

SYNTHETIC = "Weather and corruptions are synthetic: computed from pictures taken without them."


@dataclass(frozen=True, order=True)
class Condition:
    """Weather or a corruption at a severity, 1 to 5; clear has severity 0."""

    name: str
    severity: int

    def __str__(self) -> str:
        return f"{self.name} {self.severity}" if self.severity else self.name


CLEAR = Condition("clear", 0)


@dataclass(frozen=True)
class Contender:
    """A model that is measured.

    Attributes:
        name: In the results; differs from the others'.
        model: Content of the model file.
        resolution: Long side of the network input in pixels.
    """

    name: str
    model: bytes
    resolution: int


@dataclass(frozen=True)
class Accuracy:
    """AP (IoU 0.50 to 0.95) and AP50, or what is made of them."""

    ap: Figure
    ap50: Figure


@dataclass(frozen=True)
class ConditionResult:
    """Accuracy under one condition: the mean over classes that have boxes, and each of those."""

    condition: Condition
    mean: Accuracy
    classes: dict[str, Accuracy]


@dataclass(frozen=True)
class Summary:
    """Some conditions at all their severities together.

    Attributes:
        mpc, rpc: Mean performance under corruption, and its share of the clear one.
        mpc_difference, rpc_difference: This model's less the first model's.
    """

    mpc: Accuracy
    rpc: Accuracy
    mpc_difference: Accuracy
    rpc_difference: Accuracy


@dataclass(frozen=True)
class ModelResult:
    """One model under all conditions.

    Attributes:
        name, resolution: Of the contender.
        conditions: In the order of :attr:`Robustness.conditions`.
        clear_difference: This model's clear accuracy less the first model's.
        summaries: By "weather", "corruptions", and the name of each condition.
        curves: (conditions, classes, 101) precision at IoU 0.5 at each of RECALLS; NaN for classes
            without boxes.
        found: (conditions, boxes) float32 score of the detection that is right about each box of
            the truth at IoU 0.5; 0 where there is none.
    """

    name: str
    resolution: int
    conditions: tuple[ConditionResult, ...]
    clear_difference: Accuracy
    summaries: dict[str, Summary]
    curves: NDArray[np.float64]
    found: NDArray[np.float32]


@dataclass(frozen=True)
class Robustness:
    """Models under the same conditions, with the same resamples of the same pictures.

    Attributes:
        conditions: The first is clear.
        models: Results, in the order of the contenders.
        seed: Of the weather, the corruptions and the resamples.
        resamples: That the intervals are made of.
        scenes: That they draw from; of a handful, an interval says little.
    """

    conditions: tuple[Condition, ...]
    models: tuple[ModelResult, ...]
    seed: int
    resamples: int
    scenes: int


def as_json(result: Robustness) -> dict[str, Any]:
    """The figures as JSON can hold them; each has ``value``, ``low`` and ``high``."""
    return {
        "note": SYNTHETIC,
        "seed": result.seed,
        "resamples": result.resamples,
        "scenes": result.scenes,
        "confidence": CONFIDENCE,
        "models": [
            {
                "name": model.name,
                "resolution": model.resolution,
                "conditions": [
                    {
                        "condition": each.condition.name,
                        "severity": each.condition.severity,
                        **asdict(each.mean),
                        "classes": {name: asdict(own) for name, own in each.classes.items()},
                    }
                    for each in model.conditions
                ],
                "summaries": {name: asdict(own) for name, own in model.summaries.items()},
                "clear_difference": asdict(model.clear_difference),
            }
            for model in result.models
        ],
    }


def describe(result: Robustness) -> list[str]:
    """The figures as lines for a terminal."""
    lines = [SYNTHETIC]
    for model in result.models:
        lines += ["", f"{model.name} at {model.resolution}"]
        lines.append(f"{'condition':20} {'AP':20} {'AP50':20}")
        for each in model.conditions:
            lines.append(f"{each.condition!s:20} {_row(each.mean)}")
        for name, summary in model.summaries.items():
            lines.append(f"{'mPC ' + name:20} {_row(summary.mpc)}")
        for name, summary in model.summaries.items():
            lines.append(f"{'rPC ' + name:20} {_row(summary.rpc)}")
    return lines


def list_conditions(
    weather: Iterable[str], corruptions: Iterable[str], severities: Iterable[int]
) -> tuple[Condition, ...]:
    """Every kind at every severity, clear first, whether named or not, because rPC needs it.

    Raises:
        ValueError: If a name or a severity is unknown; says what is known.
    """
    names = []
    for kind, given, known in (
        ("weather", weather, CONDITIONS),
        ("corruption", corruptions, CORRUPTIONS),
    ):
        for name in given:
            if name not in known:
                raise ValueError(f"{kind} {name!r} is unknown; known: {', '.join(known)}")
            names.append(name)
    levels = sorted(set(severities))
    if not levels or not set(levels) <= set(SEVERITIES):
        raise ValueError(f"severities must be among {SEVERITIES}, got {tuple(levels)}")
    names = [name for name in dict.fromkeys(names) if name != CLEAR.name]
    return (CLEAR, *(Condition(name, level) for name in names for level in levels))


def rows_by_name(conditions: Sequence[Condition]) -> dict[str, list[int]]:
    """Places of the conditions of each name, in their order."""
    rows: dict[str, list[int]] = {}
    for row, condition in enumerate(conditions):
        rows.setdefault(condition.name, []).append(row)
    return rows


def degrade(image: Image, condition: Condition, place: int, seed: int) -> Image:
    """Show a picture under a condition.

    All severities have the same drops and patches, grown, as they follow from the seed, the
    picture's place in the data set and the condition's name, and from nothing else.

    Args:
        image: (H, W, 3) uint8 RGB, stays as it is.
        condition: What it is to look like.
        place: Of the picture in its data set.
        seed: Not negative.
    """
    if condition.name == CLEAR.name:
        return image
    name = int.from_bytes(condition.name.encode(), "big")
    own = int(np.random.SeedSequence([seed, place, name]).generate_state(1)[0])
    if condition.name in CORRUPTIONS:
        return apply_corruption(image, condition.name, condition.severity, own)
    return apply_weather(image, condition.name, condition.severity, own)


def evaluate_robustness(
    dataset: Dataset,
    contenders: Sequence[Contender],
    conditions: Sequence[Condition],
    seed: int = 0,
    jobs: int = 1,
    resamples: int = 1000,
) -> Robustness:
    """Measure models under conditions.

    Each picture is decoded once, and degraded once for all models. Results are the same for any
    number of jobs.

    Args:
        dataset: Pictures and truth.
        contenders: Models, with different names; differences are against the first.
        conditions: As from :func:`list_conditions`; the first is clear.
        seed: Of weather, corruptions and resamples; not negative.
        jobs: Processes that work at a time.
        resamples: For the intervals; 0 gives none.

    Raises:
        ValueError: If an argument is not of that kind, or the data holds no boxes.
        DatasetError: If a picture cannot be read.
        ModelError: If a model cannot be used.
    """
    names = [contender.name for contender in contenders]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"models must have different names, and be at least one; got {names}")
    if conditions[0] != CLEAR:
        raise ValueError(f"the first condition must be clear, got {conditions[0]}")
    if jobs < 1 or resamples < 0 or seed < 0:
        raise ValueError(
            f"jobs must be positive, resamples and seed must not be negative; got jobs {jobs}, "
            f"resamples {resamples}, seed {seed}"
        )
    boxes = count_boxes(dataset)
    matches = _match_everywhere(dataset, contenders, conditions, seed, jobs)
    groups = [picture.scene_group for picture in dataset.pictures]
    weights, scenes = draw_resamples(groups, resamples, seed)
    weights = np.column_stack([np.ones(len(weights)), weights])  # first the pictures as they are
    with ThreadPoolExecutor(jobs) as pool:  # most of it is NumPy's, which lets threads run
        areas = pool.map(lambda each: weighted_ap(each, boxes, weights), matches)
        values = np.array(list(_progress(areas, "intervals", len(matches))))
    values = values.reshape(len(contenders), len(conditions), *values.shape[1:])
    means = _mean_over_classes(values)
    models = []
    for number, contender in enumerate(contenders):
        own = matches[number * len(conditions) :][: len(conditions)]
        models.append(
            ModelResult(
                name=contender.name,
                resolution=contender.resolution,
                conditions=tuple(
                    _condition_result(condition, of, dataset.classes)
                    for condition, of in zip(conditions, values[number], strict=True)
                ),
                clear_difference=_accuracy(means[number][0] - means[0][0]),
                summaries=_summarise(conditions, means[number], means[0]),
                curves=np.array([precision_at_recalls(each, boxes) for each in own]),
                found=np.array([each.found for each in own]),
            )
        )
    return Robustness(tuple(conditions), tuple(models), seed, resamples, scenes)


def _row(accuracy: Accuracy) -> str:
    return f"{accuracy.ap!s:20} {accuracy.ap50!s:20}"


def _condition_result(
    condition: Condition, values: NDArray[np.float64], classes: Sequence[str]
) -> ConditionResult:
    """From (2, classes, 1 + N) AP and AP50."""
    return ConditionResult(
        condition,
        _accuracy(_mean_over_classes(values)),
        {
            name: _accuracy(values[:, k])
            for k, name in enumerate(classes)
            if np.isfinite(values[0, k, 0])
        },
    )


def _summarise(
    conditions: Sequence[Condition], own: NDArray[np.float64], first: NDArray[np.float64]
) -> dict[str, Summary]:
    """Take conditions together; own and first, the model compared with: (conditions, 2, 1 + N)."""
    kinds = {
        "weather": [n for n, c in enumerate(conditions) if c.name in CONDITIONS and c != CLEAR],
        "corruptions": [n for n, c in enumerate(conditions) if c.name in CORRUPTIONS],
    }
    kinds |= {name: rows for name, rows in rows_by_name(conditions).items() if name != CLEAR.name}
    summaries = {}
    for kind, rows in kinds.items():
        if rows:
            mpc, first_mpc = own[rows].mean(0), first[rows].mean(0)
            rpc, first_rpc = _ratio(mpc, own[0]), _ratio(first_mpc, first[0])
            summaries[kind] = Summary(
                mpc=_accuracy(mpc),
                rpc=_accuracy(rpc),
                mpc_difference=_accuracy(mpc - first_mpc),
                rpc_difference=_accuracy(rpc - first_rpc),
            )
    return summaries


def _mean_over_classes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the classes that have boxes in a resample: (..., classes, 1 + N) to (..., 1 + N)."""
    known = np.isfinite(values)
    count = np.maximum(known.sum(-2), 1)
    return np.asarray(np.where(known, values, 0).sum(-2) / count)


def _ratio(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)


def _accuracy(values: NDArray[np.float64]) -> Accuracy:
    """From (2, 1 + N) AP and AP50."""
    return Accuracy(figure_of(values[0]), figure_of(values[1]))


def _match_everywhere(
    dataset: Dataset,
    contenders: Sequence[Contender],
    conditions: Sequence[Condition],
    seed: int,
    jobs: int,
) -> list[Matches]:
    """One for each condition of the first model, then of the second, and so on."""
    # ONNX Runtime plans anew for each input shape, so pictures of one shape go together.
    order = sorted(
        enumerate(dataset.pictures), key=lambda item: (item[1].height, item[1].width, item[0])
    )
    size = max(1, min(PICTURES_AT_A_TIME, len(order) // (4 * jobs)))
    tasks = [order[start : start + size] for start in range(0, len(order), size)]
    arguments = (dataset.classes, tuple(contenders), tuple(conditions), seed)
    jobs = min(jobs, len(tasks))
    if jobs == 1:
        parts = list(_progress(map(_Matching(*arguments), tasks), "evaluate", len(tasks)))
    else:
        # Not forked: ONNX Runtime's threads would not survive that.
        with ProcessPoolExecutor(jobs, get_context("spawn"), _prepare, arguments) as pool:
            parts = list(_progress(pool.map(_run, tasks), "evaluate", len(tasks)))
    places = [[place for place, _ in task] for task in tasks]
    return [join_matches(dataset, places, column) for column in zip(*parts, strict=True)]


class _Matching:
    """Detects in some pictures, under all conditions and with all models."""

    def __init__(
        self,
        classes: tuple[str, ...],
        contenders: Sequence[Contender],
        conditions: Sequence[Condition],
        seed: int,
    ) -> None:
        self._classes = classes
        # One thread each, so that the figures don't depend on the computer or the other jobs.
        self._detectors = [
            Detector(each.model, each.resolution, num_threads=1, origin=each.name)
            for each in contenders
        ]
        self._conditions = conditions
        self._seed = seed

    def __call__(self, task: Sequence[tuple[int, Picture]]) -> list[Matches]:
        found: list[list[Any]] = [[] for _ in range(len(self._detectors) * len(self._conditions))]
        for place, labelled in task:
            image = np.asarray(cv2.cvtColor(read_picture(labelled), cv2.COLOR_BGR2RGB), np.uint8)
            for column, condition in enumerate(self._conditions):
                shown = degrade(image, condition, place, self._seed)
                picture = images.Picture(shown, "rgb", *shown.shape[:2])
                for row, detector in enumerate(self._detectors):
                    detections, _ = detector.detect(picture, MEASURING)
                    found[row * len(self._conditions) + column].append(detections)
        part = Dataset(self._classes, tuple(picture for _, picture in task))
        names = [each.classes for each in self._detectors for _ in self._conditions]
        return [match(part, each, own) for each, own in zip(found, names, strict=True)]


_worker: _Matching


def _prepare(*arguments: Any) -> None:
    global _worker
    cv2.setNumThreads(1)  # the other jobs have the other cores
    _worker = _Matching(*arguments)


def _run(task: Sequence[tuple[int, Picture]]) -> list[Matches]:
    return _worker(task)


def _progress(steps: Iterable[Step], label: str, total: int) -> Iterable[Step]:
    """Show on stderr how many of the steps are done, where somebody is looking."""
    return tqdm(steps, label, total, file=sys.stderr, mininterval=2, disable=None, leave=False)

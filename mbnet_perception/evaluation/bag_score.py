"""Figures made of what operating points saw in bags: accuracy, dropouts, the worst moments."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mbnet_perception.core.detections import Selection
from mbnet_perception.evaluation.average_precision import (
    ANY_HEIGHT,
    NEITHER,
    Matches,
    are_within,
    match,
    weighted_ap,
)
from mbnet_perception.evaluation.bag_cache import PlannedPoint
from mbnet_perception.evaluation.bag_results import (
    BagEvaluation,
    BagFacts,
    FrameDetections,
    HeightResult,
    Latency,
    Moment,
    RunResult,
)
from mbnet_perception.evaluation.bag_truth import Truth
from mbnet_perception.evaluation.dataset import Dataset, Picture
from mbnet_perception.evaluation.robustness import CLEAR, SYNTHETIC, Condition, rows_by_name
from mbnet_perception.evaluation.tracks import follow_objects, frame_seconds, measure_dropouts
from mbnet_perception.inference.models import OperatingPoint

Load: TypeAlias = Callable[[BagFacts, OperatingPoint, Condition], FrameDetections]
"""Gets what a run saw in a bag. All runs of a bag have the same frames in the same order."""

# Ends of the ranges of heights, in shares of the picture's: at 480 rows 24, 48 and 96.
HEIGHTS = (0.0, 0.05, 0.1, 0.2, 1.0)

# As the node reports by default.
FOUND = Selection().score_threshold

# Pictures matched at a time: enough for NumPy, and no burden on memory.
CHUNK = 1024

MOMENTS = 3  # for each condition's name
APART = 10**9  # between two of them in a bag, ns


def score(
    bags: Sequence[BagFacts],
    truths: Sequence[Truth | None],
    planned: Sequence[PlannedPoint],
    conditions: Sequence[Condition],
    load: Load,
    *,
    seed: int = 0,
    every: int = 1,
    machine: str = "",
    jobs: int = 1,
) -> BagEvaluation:
    """Hold what was seen against ground truth, or else against the most accurate in clear weather.

    One run's detections are in memory at a time, for each job.

    Args:
        bags: With different names.
        truths: Of each bag. Where all are None, what the most accurate point sees in clear
            weather with the node's default score threshold is the truth: the one with the best
            AP50 in the manifest or, where it is not known of all, the largest.
        planned: Operating points, at least one; all different.
        conditions: As from `list_conditions`; the first is clear.
        load: Gets the detections; can be pickled if there are several jobs.
        seed, every, machine: As in the result.
        jobs: Processes that work at a time.

    Raises:
        ValueError: If an argument is not of that kind, no model knows a class of the truth, or
            there is nothing to find in any picture.
    """
    points = [each.point for each in planned]
    _check(bags, truths, points, conditions, jobs)
    given = [truth for truth in truths if truth is not None]
    best = _most_accurate(planned)
    told = dict.fromkeys(name for truth in given for name in truth.classes)
    known = {name for each in planned for name in each.classes}
    classes = tuple(name for name in told if name in known) if given else best.classes
    unknown = tuple(name for name in told if name not in known)
    if not classes:
        raise ValueError(
            f"no model knows a class of the truth: it has {', '.join(told) or 'none'}; the models "
            f"know {', '.join(sorted(known))}"
        )
    sources = dict.fromkeys(truth.source for truth in given)
    reference = ", ".join(sources) if given else str(best.point)
    labelled, sights = [], []
    for facts, truth in zip(bags, truths, strict=True):
        bag, identities = _label(facts, load(facts, best.point, CLEAR), truth, classes)
        labelled.append(bag)
        sights.append(_follow(bag, identities))
    if not any(len(sight.owner) for sight in sights):
        raise ValueError(_nothing_to_find(labelled, given, reference))
    runs = [(own, condition) for own in planned for condition in conditions]
    judged = list(_judge_all((labelled, classes, load), runs, jobs))
    rows = [judged[n : n + len(conditions)] for n in range(0, len(runs), len(conditions))]
    results, latency, rpc = [], [], []
    for point, row in zip(points, rows, strict=True):
        results.append(
            tuple(
                _result(point, condition, own, classes, labelled, sights)
                for condition, own in zip(conditions, row, strict=True)
            )
        )
        p50, p90 = 1000 * np.percentile(row[0].seconds, [50, 90])
        latency.append(Latency(float(p50), float(p90)))
        clear, *weather = (each.ap50 for each in results[-1])
        rpc.append(float(np.mean(weather)) / clear if weather and clear > 0 else None)
    return BagEvaluation(
        against="ground truth" if given else "consistency",
        reference=reference,
        bags=tuple(bags),
        points=tuple(points),
        conditions=tuple(conditions),
        results=tuple(results),
        latency=tuple(latency),
        rpc=tuple(rpc),
        moments=_worst_moments(labelled, sights, classes, points, conditions, rows),
        unmatched=sum(len(bag.stamps) - len(bag.places) for bag in labelled),
        unknown_classes=unknown,
        seed=seed,
        every=every,
        machine=machine,
    )


def as_json(evaluation: BagEvaluation) -> dict[str, Any]:
    """The figures as JSON can hold them; null where there is none."""
    return {
        "note": SYNTHETIC,
        "against": evaluation.against,
        "reference": evaluation.reference,
        "seed": evaluation.seed,
        "every": evaluation.every,
        "machine": evaluation.machine,
        "bags": [asdict(facts) for facts in evaluation.bags],
        "frames_without_truth": evaluation.unmatched,
        "unknown_classes": list(evaluation.unknown_classes),
        "points": [
            {
                **asdict(point),
                "latency": asdict(latency),
                "rpc": rpc,
                "conditions": [_run_as_json(run) for run in runs],
            }
            for point, latency, rpc, runs in zip(
                evaluation.points,
                evaluation.latency,
                evaluation.rpc,
                evaluation.results,
                strict=True,
            )
        ],
        "moments": [
            {
                **asdict(moment),
                "missed": list(moment.missed),
                "boxes": moment.boxes.tolist(),
                "names": list(moment.names),
            }
            for moment in evaluation.moments
        ],
    }


def describe(evaluation: BagEvaluation) -> list[str]:
    """The figures as lines for a terminal."""
    lines, heading = [SYNTHETIC], "condition"
    if evaluation.against == "consistency":
        heading = "consistency"
        lines.append(
            f"No ground truth: consistency with {evaluation.reference} in clear weather, not "
            "accuracy."
        )
    else:
        lines.append(f"Ground truth: {evaluation.reference}")
    for facts in evaluation.bags:
        lines.append(f"{facts.name}: {facts.frames} pictures, {facts.seconds:.1f} s")
        if facts.failed:
            lines.append(f"  {facts.failed} more could not be read: {facts.first_failure}")
        if facts.backwards:
            lines.append(f"  stamps went back {facts.backwards} times")
        if facts.broken:
            lines.append(f"  {facts.broken}")
    if evaluation.unmatched:
        lines.append(f"{evaluation.unmatched} pictures without truth are left out")
    if evaluation.unknown_classes:
        names = ", ".join(evaluation.unknown_classes)
        lines.append(f"classes that no model knows are left out: {names}")
    for point, latency, rpc, runs in zip(
        evaluation.points, evaluation.latency, evaluation.rpc, evaluation.results, strict=True
    ):
        lines += ["", f"{point}: p50 {latency.p50_ms:.1f} ms, p90 {latency.p90_ms:.1f} ms"]
        lines.append(
            f"{heading:12} {'AP50':>6} {'AP':>6} {'dropouts':>9} {'mean s':>7} {'longest s':>10} "
            f"{'never found':>12}"
        )
        for run in runs:
            lost = run.dropouts
            lines.append(
                f"{run.condition!s:12} {run.ap50:6.3f} {run.ap:6.3f} {lost.count:9} "
                f"{lost.mean_seconds:7.2f} {lost.longest_seconds:10.2f} "
                f"{f'{lost.never} of {lost.objects}':>12}"
            )
        if rpc is not None:
            lines.append(f"{'rPC':12} {rpc:6.3f}")
    return lines


@dataclass(frozen=True)
class _Bag:
    """What is known to be in a bag.

    Attributes:
        facts: Of the bag.
        stamps: (F,) of all frames, ns.
        places: (G,) of the labelled frames among them.
        pictures: G pictures with their labels, whose classes are those of the evaluation.
    """

    facts: BagFacts
    stamps: NDArray[np.int64]
    places: NDArray[np.int64]
    pictures: list[Picture]


@dataclass(frozen=True)
class _Sight:
    """The boxes of a bag's truth in the course of time, each (B,).

    Attributes:
        owner: Row of each box's picture among the labelled ones.
        objects: Number of the object that it is of.
        seconds: For how long it is in sight.
        second: In which second of the bag it is.
        length: Seconds of the bag.
        share: Of the picture's area that it has.
    """

    owner: NDArray[np.int64]
    objects: NDArray[np.int64]
    seconds: NDArray[np.float64]
    second: NDArray[np.int64]
    length: int
    share: NDArray[np.float64]


@dataclass(frozen=True)
class _Judged:
    """What came of a run.

    Attributes:
        ap, ap50: (classes,); NaN for those without boxes.
        heights: As in the result.
        bags: AP50 of each.
        found: For each bag, (B,) which boxes of its truth are found.
        seconds: (F,) that detecting took, for the frames of all bags.
    """

    ap: NDArray[np.float64]
    ap50: NDArray[np.float64]
    heights: tuple[HeightResult, ...]
    bags: tuple[float | None, ...]
    found: list[NDArray[np.bool_]]
    seconds: NDArray[np.float32]


def _check(
    bags: Sequence[BagFacts],
    truths: Sequence[Truth | None],
    points: Sequence[OperatingPoint],
    conditions: Sequence[Condition],
    jobs: int,
) -> None:
    names = [facts.name for facts in bags]
    if not names or len(set(names)) < len(names) or len(truths) != len(names):
        raise ValueError(
            f"expected at least one bag, different names, and a truth or None for each; got "
            f"{names} and {len(truths)} truths"
        )
    without = [facts.name for facts, truth in zip(bags, truths, strict=True) if truth is None]
    if without and len(without) < len(names):
        raise ValueError(
            f"these bags have no ground truth, but others have: {', '.join(without)}; name it for "
            "them, or evaluate them by themselves"
        )
    if not points or len(set(points)) < len(points):
        raise ValueError(f"operating points must differ, and be at least one; got {points}")
    if not conditions or conditions[0] != CLEAR:
        raise ValueError(f"the first condition must be clear, got {list(map(str, conditions))}")
    if jobs < 1:
        raise ValueError(f"jobs must be positive, got {jobs}")


def _most_accurate(planned: Sequence[PlannedPoint]) -> PlannedPoint:
    """By the manifest or, where that does not tell of all, the largest."""
    if any(each.ap50 is None for each in planned):
        return max(planned, key=lambda each: (each.point.alpha, each.point.resolution))
    return max(planned, key=lambda each: each.ap50 or 0)


def _label(
    facts: BagFacts, frames: FrameDetections, truth: Truth | None, classes: tuple[str, ...]
) -> tuple[_Bag, list[tuple[str, ...] | None]]:
    """The labels of a bag, and which objects the boxes of each labelled picture are.

    Args:
        facts: Of the bag.
        frames: What the most accurate point sees in clear weather.
        truth: None takes just that.
        classes: Of the evaluation; boxes of others are left out.
    """
    labels = _seen(frames, classes) if truth is None else _told(frames, truth, classes)
    places, pictures, identities = [], [], []
    for place, (picture, objects) in enumerate(labels):
        if picture is not None:
            places.append(place)
            pictures.append(picture)
            identities.append(objects)
    return _Bag(facts, frames.stamps, np.array(places, np.int64), pictures), identities


_Labels: TypeAlias = Iterator[tuple[Picture | None, tuple[str, ...] | None]]


def _seen(frames: FrameDetections, classes: tuple[str, ...]) -> _Labels:
    """Detections as the node reports them, taken for the truth."""
    everywhere = np.ones(len(classes), bool)
    nothing = np.zeros((0, 4), np.float32)
    each = zip(frames.detections(), frames.sizes.tolist(), strict=True)
    for place, (found, (height, width)) in enumerate(each):
        sure = found.scores >= FOUND
        boxes, own = found.boxes[sure], found.classes[sure]
        yield (
            Picture(place, Path(), height, width, boxes, own, everywhere, everywhere, nothing),
            None,
        )


def _told(frames: FrameDetections, truth: Truth, classes: tuple[str, ...]) -> _Labels:
    """Ground truth of the frames that have it."""
    row = {name: k for k, name in enumerate(classes)}
    column = np.array([row.get(name, -1) for name in truth.classes], np.int64)
    known = np.flatnonzero(column >= 0)
    for stamp, size in zip(frames.stamps.tolist(), frames.sizes.tolist(), strict=True):
        picture = truth.picture(stamp, *size)
        if picture is None:
            yield None, None
            continue
        own = column[picture.classes]
        verified, exhaustive = np.zeros((2, len(classes)), bool)
        verified[column[known]] = picture.verified[known]
        exhaustive[column[known]] = picture.exhaustive[known]
        objects = truth.identities(stamp, *size)
        if objects is not None:
            objects = tuple(each for each, k in zip(objects, own, strict=True) if k >= 0)
        yield (
            replace(
                picture,
                boxes=picture.boxes[own >= 0],
                classes=own[own >= 0],
                verified=verified,
                exhaustive=exhaustive,
            ),
            objects,
        )


def _follow(bag: _Bag, identities: Sequence[tuple[str, ...] | None]) -> _Sight:
    counts = [len(picture.boxes) for picture in bag.pictures]
    owner = np.repeat(np.arange(len(counts)), counts)
    stamps = bag.stamps[bag.places]
    each = frame_seconds(bag.stamps)
    second = np.floor(np.round(np.cumsum(each) - each, 6)).astype(np.int64)
    areas = [_sides(picture).prod(1) / picture.height / picture.width for picture in bag.pictures]
    return _Sight(
        owner=owner,
        objects=follow_objects(bag.pictures, identities, stamps),
        seconds=frame_seconds(stamps)[owner],
        second=second[bag.places][owner],
        length=int(second.max(initial=-1)) + 1,
        share=np.concatenate([np.zeros(0), *areas]),
    )


def _sides(picture: Picture) -> NDArray[np.float64]:
    """Width and height of each box."""
    return (picture.boxes[:, 2:] - picture.boxes[:, :2]).astype(np.float64)


def _nothing_to_find(bags: Sequence[_Bag], given: Sequence[Truth], reference: str) -> str:
    if not given:
        return (
            f"no ground truth, and {reference} sees nothing in clear weather that the others "
            "could be held against; name a topic or a file with ground truth"
        )
    if any(bag.pictures for bag in bags):
        return f"{reference} has no box of a class that a model knows in any of the pictures"
    stamps = next((bag.stamps[0] for bag in bags if len(bag.stamps)), "none")
    labelled = next((truth.stamps[0] for truth in given if len(truth.stamps)), "none")
    return (
        f"{reference} has no labels for any of the pictures: they belong together by stamp, and "
        f"the first picture's is {stamps}, the first label's {labelled} (ns)"
    )


_Part: TypeAlias = tuple[Matches, NDArray[np.int64]]
"""Detections held against the truth, and the boxes of each class in each picture."""


class _Judge:
    """Holds the detections of runs against the truth."""

    def __init__(self, bags: Sequence[_Bag], classes: tuple[str, ...], load: Load) -> None:
        self._bags = bags
        self._classes = classes
        self._load = load

    def __call__(self, run: tuple[PlannedPoint, Condition]) -> _Judged:
        planned, condition = run
        parts: list[list[_Part]] = []
        seconds = []
        for bag in self._bags:
            frames = self._load(bag.facts, planned.point, condition)
            if not np.array_equal(frames.stamps, bag.stamps):
                raise ValueError(
                    f"bag {bag.facts.name}: {planned.point} under {condition} has "
                    f"{len(frames)} frames that are not the {len(bag.stamps)} others have; "
                    "evaluate it again into another folder"
                )
            seconds.append(frames.seconds)
            parts.append(self._match(bag, frames, planned.classes))
        ap, ap50 = _average(_join([own[0] for own in parts]))
        each = [_mean(_average(own[0])[1]) for own in parts] if len(parts) > 1 else [_mean(ap50)]
        heights = []
        for n, (low, high) in enumerate(pairwise(HEIGHTS), start=1):
            whole = _join([own[n] for own in parts])
            own_ap, own_ap50 = map(_mean, _average(whole))
            heights.append(HeightResult(low, high, own_ap, own_ap50, int(whole[1].sum())))
        found = [own[0][0].found >= FOUND for own in parts]
        return _Judged(ap, ap50, tuple(heights), tuple(each), found, np.concatenate(seconds))

    def _match(self, bag: _Bag, frames: FrameDetections, classes: tuple[str, ...]) -> list[_Part]:
        """For all heights, and for each range of them."""
        detections = frames.detections()
        # The last range has no end, as boxes may stick out of the picture.
        ranges = [ANY_HEIGHT, *pairwise((*HEIGHTS[:-1], np.inf))]
        chunks: list[list[_Part]] = []
        for start in range(0, len(bag.places) or 1, CHUNK):
            pictures = bag.pictures[start : start + CHUNK]
            dataset = Dataset(self._classes, tuple(pictures))
            own = [detections[place] for place in bag.places[start : start + CHUNK]]
            chunks.append(
                [
                    (_lean(match(dataset, own, classes, limits)), _count(dataset, limits))
                    for limits in ranges
                ]
            )
        return [_join(column) for column in zip(*chunks, strict=True)]


def _lean(matches: Matches) -> Matches:
    """Without detections that count neither way, which are most in a range of heights."""
    rows = (matches.status != NEITHER).any(1)
    return replace(
        matches,
        picture=matches.picture[rows],
        label=matches.label[rows],
        score=matches.score[rows],
        status=matches.status[rows],
    )


def _count(dataset: Dataset, height_range: tuple[float, float]) -> NDArray[np.int64]:
    """Boxes of such heights, of each class in each picture: (pictures, classes)."""
    counts = [
        np.bincount(
            picture.classes[are_within(_sides(picture)[:, 1] / picture.height, height_range)],
            minlength=len(dataset.classes),
        )
        for picture in dataset.pictures
    ]
    return np.array(counts, np.int64).reshape(-1, len(dataset.classes))


def _join(parts: Sequence[_Part]) -> _Part:
    """Of pictures that follow one another."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(boxes) for _, boxes in parts)])
    each = [matches for matches, _ in parts]
    matches = Matches(
        picture=np.concatenate(
            [own.picture + np.int32(start) for own, start in zip(each, starts, strict=False)]
        ),
        label=np.concatenate([own.label for own in each]),
        score=np.concatenate([own.score for own in each]),
        status=np.concatenate([own.status for own in each]),
        found=np.concatenate([own.found for own in each]),
    )
    return matches, np.concatenate([boxes for _, boxes in parts])


def _average(part: _Part) -> NDArray[np.float64]:
    """AP and AP50 of each class: (2, classes), NaN for those without boxes."""
    matches, boxes = part
    return weighted_ap(matches, boxes, np.ones((len(boxes), 1)))[:, :, 0]


def _mean(values: NDArray[np.float64]) -> float | None:
    """Over the classes that have boxes."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


_worker: _Judge


def _prepare(*arguments: Any) -> None:
    global _worker
    _worker = _Judge(*arguments)


def _run(run: tuple[PlannedPoint, Condition]) -> _Judged:
    return _worker(run)


def _judge_all(
    arguments: tuple[Sequence[_Bag], tuple[str, ...], Load],
    runs: Sequence[tuple[PlannedPoint, Condition]],
    jobs: int,
) -> Iterator[_Judged]:
    jobs = min(jobs, len(runs))
    if jobs == 1:
        yield from _progress(map(_Judge(*arguments), runs), len(runs))
    else:
        # Not forked: the caller may have threads.
        with ProcessPoolExecutor(jobs, get_context("spawn"), _prepare, arguments) as pool:
            yield from _progress(pool.map(_run, runs), len(runs))


def _progress(steps: Iterable[_Judged], total: int) -> Iterable[_Judged]:
    """Show on stderr how many runs are scored, where somebody is looking."""
    return tqdm(steps, "score", total, file=sys.stderr, mininterval=2, disable=None, leave=False)


def _result(
    point: OperatingPoint,
    condition: Condition,
    judged: _Judged,
    classes: tuple[str, ...],
    bags: Sequence[_Bag],
    sights: Sequence[_Sight],
) -> RunResult:
    # Objects of different bags are different.
    starts = np.cumsum([0, *(sight.objects.max(initial=-1) + 1 for sight in sights)])
    names = [bag.facts.name for bag in bags]
    return RunResult(
        point=point,
        condition=condition,
        ap=float(np.nanmean(judged.ap)),
        ap50=float(np.nanmean(judged.ap50)),
        classes={
            name: (float(ap), float(ap50))
            for name, ap, ap50 in zip(classes, judged.ap, judged.ap50, strict=True)
            if np.isfinite(ap)
        },
        heights=judged.heights,
        dropouts=measure_dropouts(
            np.concatenate([own.objects + n for own, n in zip(sights, starts, strict=False)]),
            np.concatenate([sight.seconds for sight in sights]),
            np.concatenate(judged.found),
        ),
        bags=dict(zip(names, judged.bags, strict=True)),
        timeline={
            name: _found_by_second(sight, found)
            for name, sight, found in zip(names, sights, judged.found, strict=True)
        },
    )


def _found_by_second(sight: _Sight, found: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of the objects in sight that are found in each second; NaN where there are none."""
    there = np.bincount(sight.second, minlength=sight.length)
    hits = np.bincount(sight.second, found, sight.length)
    return np.asarray(np.divide(hits, there, out=np.full(len(there), np.nan), where=there > 0))


def _worst_moments(
    bags: Sequence[_Bag],
    sights: Sequence[_Sight],
    classes: tuple[str, ...],
    points: Sequence[OperatingPoint],
    conditions: Sequence[Condition],
    judged: Sequence[Sequence[_Judged]],
) -> tuple[Moment, ...]:
    """Where most is lost that the same point finds in clear weather, for each condition's name.

    A picture ranks by its losses' share of its area, summed over severities and points: large,
    near objects that are lost early come first, as in `gallery.worst_misses`. It is shown at the
    mildest severity at which something is lost, for the point that loses most then.
    """
    moments: list[tuple[float, Moment]] = []
    for name, rows in rows_by_name(conditions).items():
        if name == CLEAR.name:
            continue
        ranked = []
        for b, sight in enumerate(sights):
            badness = np.zeros(len(bags[b].places))
            for row in rows:
                for own in judged:
                    lost = own[0].found[b] & ~own[row].found[b]
                    badness += np.bincount(sight.owner[lost], sight.share[lost], len(badness))
            ranked += [(float(badness[i]), b, int(i)) for i in np.flatnonzero(badness)]
        ranked.sort(key=lambda each: (-each[0], *each[1:]))
        shown: list[tuple[int, int]] = []
        for worst, b, i in ranked:
            stamp = int(bags[b].stamps[bags[b].places[i]])
            if any(other == b and abs(stamp - at) < APART for other, at in shown):
                continue
            here = np.flatnonzero(sights[b].owner == i)
            clear = np.array([own[0].found[b][here] for own in judged])
            lost = clear & ~np.array([[own[row].found[b][here] for own in judged] for row in rows])
            r = int(np.argmax(lost.any((1, 2))))
            n = int(np.argmax((lost[r] * sights[b].share[here]).sum(1)))
            picture = bags[b].pictures[i]
            moment = Moment(
                bag=bags[b].facts.name,
                number=int(bags[b].places[i]),
                stamp=stamp,
                condition=conditions[rows[r]],
                point=points[n],
                missed=tuple(np.flatnonzero(lost[r, n]).tolist()),
                found_clear=int(clear[n].sum()),
                boxes=picture.boxes,
                names=tuple(classes[k] for k in picture.classes),
            )
            moments.append((worst, moment))
            shown.append((b, stamp))
            if len(shown) == MOMENTS:
                break
    return tuple(moment for _, moment in sorted(moments, key=lambda each: -each[0]))


def _run_as_json(run: RunResult) -> dict[str, Any]:
    return {
        "condition": run.condition.name,
        "severity": run.condition.severity,
        "ap": run.ap,
        "ap50": run.ap50,
        "classes": {name: {"ap": ap, "ap50": ap50} for name, (ap, ap50) in run.classes.items()},
        "heights": [asdict(each) for each in run.heights],
        "dropouts": asdict(run.dropouts),
        "bags": run.bags,
        "timeline": {
            name: [None if np.isnan(share) else round(share, 4) for share in shares.tolist()]
            for name, shares in run.timeline.items()
        },
    }

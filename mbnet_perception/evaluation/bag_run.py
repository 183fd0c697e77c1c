"""Bags shown to operating points under conditions, each picture decoded and degraded once."""

from __future__ import annotations

import hashlib
import itertools
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from queue import Full, Queue
from typing import NamedTuple, NoReturn, TypeAlias, TypeVar

import cv2
import numpy as np
from tqdm import tqdm

from mbnet_perception.core.detections import Detections
from mbnet_perception.core.images import ImageFormatError, Picture
from mbnet_perception.core.stamps import SECOND
from mbnet_perception.evaluation.accuracy import MEASURING
from mbnet_perception.evaluation.bag_cache import (
    CHUNK,
    BagCache,
    CacheError,
    CachePlan,
    Chunk,
    PlannedBag,
    PlannedPoint,
    chunks_of,
)
from mbnet_perception.evaluation.bag_pictures import degrade_frame, timed_messages, whole_rgb
from mbnet_perception.evaluation.bag_results import BagFacts, FrameDetections
from mbnet_perception.evaluation.bag_truth import (
    Truth,
    truth_from_file,
    truth_from_topic,
    truth_topics,
)
from mbnet_perception.evaluation.bags import Bag, BagError, Message, picture_of
from mbnet_perception.evaluation.dataset import read_bytes
from mbnet_perception.evaluation.robustness import CLEAR, Condition
from mbnet_perception.inference.benchmark import describe_machine
from mbnet_perception.inference.detector import Detector
from mbnet_perception.inference.engine import load_detector
from mbnet_perception.inference.models import ModelEntry, ModelLibrary, OperatingPoint

AHEAD = 8
"""Pictures that are read, decoded and degraded before the network takes them."""

Run: TypeAlias = tuple[OperatingPoint, Condition]
T = TypeVar("T")


class BagRunError(RuntimeError):
    """Work that ended early; what was done stays, and the message says how to go on."""


@dataclass(frozen=True)
class BagPlan:
    """What is asked for.

    Attributes:
        bags: Where they lie.
        points: Operating points.
        conditions: As from :func:`robustness.list_conditions`; the first is clear.
        topic: Of the pictures, in every bag; empty for the only one that has pictures.
        seed: Of weather and corruptions, not negative.
        every: Every how manyth picture is taken.
        models: Folder of the models; None for the one that comes with the package.
        truth_topic: Of ground truth, in every bag; empty for the only one, if there is one.
        truth_file: COCO JSON with ground truth of all bags, instead of a topic.
        use_truth: Whether ground truth is wanted at all.

    Raises:
        ValueError: If an argument is not of that kind.
    """

    bags: tuple[Path, ...]
    points: tuple[OperatingPoint, ...]
    conditions: tuple[Condition, ...] = (CLEAR,)
    topic: str = ""
    seed: int = 0
    every: int = 1
    models: Path | None = None
    truth_topic: str = ""
    truth_file: Path | None = None
    use_truth: bool = True

    def __post_init__(self) -> None:
        for name in ("bags", "points", "conditions"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                told = ", ".join(map(str, values)) or "none"
                raise ValueError(f"{name} must be at least one, and all different; got {told}")
        if self.conditions[0] != CLEAR:
            raise ValueError(f"the first condition must be clear, got {self.conditions[0]}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.every < 1:
            raise ValueError(f"every must be positive, got {self.every}")
        sources = [str(each) for each in (self.truth_topic, self.truth_file) if each]
        if len(sources) > self.use_truth:
            wanted = "a topic or a file" if self.use_truth else "none"
            raise ValueError(f"ground truth must be {wanted}, got {' and '.join(sources)}")


def evaluate_bags(
    plan: BagPlan, folder: Path, jobs: int = 1, shard: tuple[int, int] = (1, 1)
) -> BagCache:
    """Run every operating point on every bag under every condition, as far as not done before.

    What is done stays when the work is interrupted, and the next call goes on from there. Bags
    that break off and pictures that cannot be read are told in the facts.

    Args:
        plan: What to do.
        folder: For the results; made if missing.
        jobs: Processes that work at a time.
        shard: Which part of the work to do, and of how many: (1, 2) is the first half. The parts
            may be done on different computers, and joined by :func:`bag_cache.merge`.

    Returns:
        Where the results are.

    Raises:
        ValueError: If jobs or shard is not of that kind.
        BagError: If a bag cannot be opened, has no such topic, or is the same as another.
        DatasetError: If ground truth in a file cannot be used.
        ModelError: If a model cannot be used.
        CacheError: If results cannot be written.
        BagRunError: If a process was ended from outside.
    """
    part, parts = shard
    if jobs < 1:
        raise ValueError(f"jobs must be positive, got {jobs}")
    if not 1 <= part <= parts:
        raise ValueError(f"shard must be from 1 to how many there are, got {part} of {parts}")
    library = ModelLibrary(plan.models)
    detectors = _load_detectors(library, plan.points)
    bags, counts = _look_at_bags(plan)
    cache = BagCache(
        folder,
        CachePlan(
            bags=bags,
            points=tuple(
                _planned(point, library.find(point), detector)
                for point, detector in detectors.items()
            ),
            conditions=plan.conditions,
            seed=plan.seed,
            every=plan.every,
            truth=_truth_source(plan),
        ),
    )
    cache.keep_plan()
    _keep_truth(cache, plan)
    tasks = _share_out(cache, jobs, shard)
    total = sum(
        len(range(0, counts[task.bag.name], plan.every)) * len(task.conditions) for task in tasks
    )
    with tqdm(
        total=total,
        desc="bags",
        unit="picture",
        file=sys.stderr,
        mininterval=2,
        disable=None,
        leave=False,
    ) as bar:
        if min(jobs, len(tasks)) > 1:
            _run_in_processes(cache, plan.models, tasks, jobs, bar)
        else:
            with _one_thread():
                for task in tasks:
                    cache.keep_facts(_run(cache, detectors, task, bar.update))
    return cache


@dataclass(frozen=True)
class _Task:
    """One way through a bag, under some of the conditions."""

    bag: PlannedBag
    conditions: tuple[Condition, ...]


def _load_detectors(
    library: ModelLibrary, points: Sequence[OperatingPoint]
) -> dict[OperatingPoint, Detector]:
    # One thread each, so that latencies mean the same on all computers, and whatever the jobs.
    return {point: load_detector(library, point, num_threads=1) for point in points}


def _planned(point: OperatingPoint, entry: ModelEntry, detector: Detector) -> PlannedPoint:
    return PlannedPoint(point, entry.sha256, detector.classes, entry.ap50.get(point.resolution))


def _look_at_bags(plan: BagPlan) -> tuple[tuple[PlannedBag, ...], dict[str, int]]:
    """Open every bag, so that what is wrong with one is told before the work begins.

    Returns:
        The bags, and how many pictures they tell of, by name.
    """
    bags: dict[str, PlannedBag] = {}
    counts = {}
    for path in plan.bags:
        with Bag(path) as bag:
            topics = list(bag.image_topics([plan.topic] if plan.topic else []))
            if len(topics) > 1:
                raise BagError(
                    f"bag '{path}' has several image topics; choose one of {', '.join(topics)}"
                )
            if next(bag.messages(topics), None) is None:
                raise BagError(f"bag '{path}' has no picture on its topic '{topics[0]}'")
            fingerprint = bag.fingerprint()
            count = bag.counts[topics[0]]
        for other in bags.values():
            if other.fingerprint == fingerprint:
                raise BagError(f"bags '{other.path}' and '{path}' are the same; leave one out")
        own = path.absolute().name if path.is_dir() else path.stem
        names = itertools.chain([own], (f"{own}-{number}" for number in itertools.count(2)))
        name = next(name for name in names if name not in bags)
        bags[name] = PlannedBag(name, str(path), fingerprint, topics[0])
        counts[name] = count
    return tuple(bags.values()), counts


def _truth_source(plan: BagPlan) -> str:
    if not plan.use_truth:
        return "none"
    if plan.truth_file:
        content = read_bytes(plan.truth_file)
        return f"file {hashlib.blake2b(content, digest_size=16).hexdigest()}"
    return f"topic {plan.truth_topic}" if plan.truth_topic else ""


def _keep_truth(cache: BagCache, plan: BagPlan) -> None:
    """Look for ground truth of each bag, unless that was done."""
    of_all = truth_from_file(plan.truth_file) if plan.truth_file else None
    for bag in cache.plan.bags:
        try:
            cache.truth(bag)
        except CacheError:
            cache.keep_truth(bag, of_all or _truth_in(bag, plan))


def _truth_in(bag: PlannedBag, plan: BagPlan) -> Truth | None:
    if not plan.use_truth:
        return None
    with Bag(bag.path) as opened:
        if plan.truth_topic or truth_topics(opened):
            return truth_from_topic(opened, plan.truth_topic)
        return None


def _share_out(cache: BagCache, jobs: int, shard: tuple[int, int]) -> list[_Task]:
    """What is still to be done of a shard, in enough tasks for all jobs."""
    part, parts = shard
    units = [(bag, condition) for bag in cache.plan.bags for condition in cache.plan.conditions]
    wanted: dict[PlannedBag, list[Condition]] = {}
    for bag, condition in units[part - 1 :: parts]:
        if not _is_done(cache, bag, condition):
            wanted.setdefault(bag, []).append(condition)
    # A bag is read once if possible, and more often if there would be jobs without work.
    ways = -(-jobs // max(1, len(wanted)))
    return [
        _Task(bag, tuple(conditions[way::ways]))
        for bag, conditions in wanted.items()
        for way in range(min(ways, len(conditions)))
    ]


def _is_done(cache: BagCache, bag: PlannedBag, condition: Condition) -> bool:
    facts = cache.facts(bag)
    return facts is not None and all(
        cache.chunk(bag, each.point, condition, number) is not None
        for each in cache.plan.points
        for number in range(chunks_of(facts))
    )


def _run(
    cache: BagCache,
    detectors: Mapping[OperatingPoint, Detector],
    task: _Task,
    advance: Callable[[int], object],
) -> BagFacts:
    """Do a task.

    Args:
        cache: Where chunks are kept, and looked for.
        detectors: Of all operating points.
        task: What to do.
        advance: Is told of so many more pictures that are done, each under one condition.
    """
    reading = _Reading(cache, task)
    machine = str(describe_machine()["machine"])
    with _ahead(reading.steps(), AHEAD) as steps:
        chunk: _OpenChunk | None = None
        for step in steps:
            if isinstance(step, _Begin):
                if chunk:
                    chunk.keep(cache, task.bag, machine)
                chunk = _OpenChunk(step)
            assert chunk is not None  # a chunk is begun before its pictures come
            if isinstance(step, _Failed):
                chunk.fail(step.reason)
            elif isinstance(step, _Shown):
                for point, detector in detectors.items():
                    if (point, step.condition) in chunk.rows:
                        chunk.add(point, step, *_detect(detector, step.pictures[point.resolution]))
            advance(step.settled)
        if chunk:
            chunk.keep(cache, task.bag, machine)
    return reading.facts()


def _detect(detector: Detector, picture: Picture) -> tuple[Detections, float]:
    """Detections, and the seconds that resizing and the network took.

    Picking boxes is left out: with all scores, as AP wants them, it takes longer than in a node.
    """
    size = (picture.height, picture.width)
    if size not in detector.seen:
        detector.warm(size)  # or the first picture would be timed with what is built for all
    detections, timing = detector.detect(picture, MEASURING)
    return detections, timing.preprocess + timing.inference


class _Begin(NamedTuple):
    """A chunk begins; `settled` counts what need not be computed again.

    Attributes:
        number: Of the chunk.
        missing: Runs that have to be computed.
    """

    number: int
    missing: tuple[Run, ...]
    settled: int


class _Shown(NamedTuple):
    """A picture under a condition, by the resolution that it was decoded for."""

    place: int
    stamp: int
    condition: Condition
    pictures: Mapping[int, Picture]
    settled: int = 1


class _Failed(NamedTuple):
    """A picture that could not be read."""

    reason: str
    settled: int


@dataclass
class _Reading:
    """Reads a bag and shows its pictures as the network is to see them; counts what it meets."""

    cache: BagCache
    task: _Task
    backwards: int = 0
    frames: int = 0
    failed: int = 0
    first_failure: str = ""
    broken: str = ""
    _last: int | None = None
    _lowest: int | None = None
    _highest: int | None = None

    def facts(self) -> BagFacts:
        """What was met, after the last of the steps."""
        return BagFacts(
            **asdict(self.task.bag),
            frames=self.frames,
            failed=self.failed,
            first_failure=self.first_failure,
            seconds=((self._highest or 0) - (self._lowest or 0)) / SECOND,
            broken=self.broken,
            backwards=self.backwards,
        )

    def steps(self) -> Generator[_Begin | _Shown | _Failed, None, None]:
        """From the bag's begin to its end."""
        begin = _Begin(0, (), 0)
        every = self.cache.plan.every
        with Bag(self.task.bag.path) as bag:
            for place, message, time, milliseconds in timed_messages(bag, self.task.bag.topic):
                if time is not None:
                    self._count(time)
                if place % every:
                    continue
                number, within = divmod(place // every, CHUNK)
                if not within:
                    begin = self._begin(number)
                    yield begin
                if begin.missing:
                    yield from self._show(place, message, time, milliseconds, begin.missing)
            self.broken = bag.broken

    def _count(self, time: int) -> None:
        if self._last is not None and time < self._last:
            self.backwards += 1
        self._last = time
        self._lowest = time if self._lowest is None else min(time, self._lowest)
        self._highest = time if self._highest is None else max(time, self._highest)

    def _begin(self, number: int) -> _Begin:
        """See which runs have a chunk already."""
        runs = [(p.point, c) for p in self.cache.plan.points for c in self.task.conditions]
        chunks = {run: self.cache.chunk(self.task.bag, *run, number) for run in runs}
        missing = tuple(run for run, chunk in chunks.items() if chunk is None)
        there = next((chunk for chunk in chunks.values() if chunk), None)
        settled = 0
        if there:
            shown = len(self.task.conditions) - len(_conditions(missing))
            settled = shown * (len(there.found) + there.failed)
            if not missing:
                self.frames += len(there.found)
                self._fail(there.failed, there.first_failure)
        return _Begin(number, missing, settled)

    def _fail(self, number: int, reason: str) -> None:
        self.failed += number
        self.first_failure = self.first_failure or reason

    def _show(
        self,
        place: int,
        message: Message,
        time: int | None,
        milliseconds: int,
        missing: Sequence[Run],
    ) -> Iterator[_Shown | _Failed]:
        conditions = _conditions(missing)
        points = {point for point, _ in missing}
        try:
            if time is None:
                raise ImageFormatError(f"a message of {len(message.data)} bytes has no header")
            # As the node does: a JPEG is decoded no larger than it is needed.
            clear = {
                point.resolution: picture_of(message, point.resolution)
                for point, condition in missing
                if condition == CLEAR
            }
            whole = whole_rgb(message) if set(conditions) - {CLEAR} else None
        except (ImageFormatError, BagError) as error:
            reason = f"picture {place + 1}: {error}"
            self._fail(1, reason)
            yield _Failed(reason, len(conditions))
            return
        self.frames += 1
        for condition in conditions:
            if condition == CLEAR:
                pictures = clear
            else:
                assert whole is not None
                shown = degrade_frame(whole, condition, milliseconds, self.cache.plan.seed)
                picture = Picture(shown, "rgb", *shown.shape[:2])
                pictures = {point.resolution: picture for point in points}
            yield _Shown(place, time, condition, pictures)


class _Row(NamedTuple):
    """What was found in a picture."""

    place: int
    stamp: int
    size: tuple[int, int]
    seconds: float
    detections: Detections


_NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


class _OpenChunk:
    """A chunk of each of the runs that have none yet."""

    def __init__(self, begin: _Begin) -> None:
        self.rows: dict[Run, list[_Row]] = {run: [] for run in begin.missing}
        self._number = begin.number
        self._failed = 0
        self._first_failure = ""

    def fail(self, reason: str) -> None:
        self._failed += 1
        self._first_failure = self._first_failure or reason

    def add(
        self, point: OperatingPoint, step: _Shown, detections: Detections, seconds: float
    ) -> None:
        picture = step.pictures[point.resolution]
        size = (picture.height, picture.width)
        self.rows[point, step.condition].append(
            _Row(step.place, step.stamp, size, seconds, detections)
        )

    def keep(self, cache: BagCache, bag: PlannedBag, machine: str) -> None:
        for (point, condition), rows in self.rows.items():
            found = [_NOTHING, *(row.detections for row in rows)]
            frames = FrameDetections(
                stamps=np.array([row.stamp for row in rows], np.int64),
                sizes=np.array([row.size for row in rows], np.int32).reshape(-1, 2),
                seconds=np.array([row.seconds for row in rows], np.float32),
                counts=np.array([len(row.detections) for row in rows], np.int32),
                boxes=np.concatenate([each.boxes for each in found]),
                scores=np.concatenate([each.scores for each in found]),
                classes=np.concatenate([each.classes for each in found]),
            )
            places = np.array([row.place for row in rows], np.int64)
            chunk = Chunk(frames, places, self._failed, self._first_failure, machine)
            cache.keep_chunk(bag, point, condition, self._number, chunk)


def _conditions(runs: Sequence[Run]) -> list[Condition]:
    return list(dict.fromkeys(condition for _, condition in runs))


class _End(NamedTuple):
    error: BaseException | None


@contextmanager
def _ahead(steps: Generator[T, None, None], depth: int) -> Iterator[Iterator[T]]:
    """Take steps on a thread of their own, so many ahead at most.

    All of the generator runs on that thread, as SQLite asks for. What it raises is raised where the
    step would have come.
    """
    queue: Queue[T | _End] = Queue(depth)
    left = threading.Event()

    def put(item: T | _End) -> None:
        while not left.is_set():
            with suppress(Full):
                queue.put(item, timeout=0.1)
                return

    def work() -> None:
        error = None
        try:
            for step in steps:
                put(step)
                if left.is_set():
                    break
            steps.close()
        except BaseException as raised:
            error = raised
        put(_End(error))

    def taken() -> Iterator[T]:
        while not isinstance(item := queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        left.set()
        thread.join()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let OpenCV use one thread, so that latencies do not depend on the cores."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


class Progress:
    """What processes tell one another: how far they are, and that they are to stop.

    Nothing here waits for a lock, because who is killed while holding one never gives it back, and
    all others would wait for ever.

    Args:
        context: The way in which the processes start.
        tasks: How many tasks there are. Each is done by one process at a time.
    """

    def __init__(self, context: BaseContext, tasks: int) -> None:
        self._done = context.RawArray("q", tasks)
        self._stopped = context.RawValue("b", False)

    def advance(self, task: int, pictures: int) -> None:
        """Tell that so many more pictures of a task are done."""
        self._done[task] += pictures

    @property
    def done(self) -> int:
        """How many pictures of all tasks are done."""
        return sum(self._done)

    def stop(self) -> None:
        """Tell that nobody is to go on."""
        self._stopped.value = True

    @property
    def stopped(self) -> bool:
        """Whether nobody is to go on."""
        return bool(self._stopped.value)


def _run_in_processes(
    cache: BagCache, models: Path | None, tasks: Sequence[_Task], jobs: int, bar: tqdm[NoReturn]
) -> None:
    # Not forked: ONNX Runtime's threads would not survive that.
    context = get_context("spawn")
    progress = Progress(context, len(tasks))
    arguments = (cache, models, progress)
    with ProcessPoolExecutor(min(jobs, len(tasks)), context, _prepare, arguments) as pool:
        try:
            waiting = {pool.submit(_work, number, task) for number, task in enumerate(tasks)}
            while waiting:
                finished, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                bar.update(progress.done - bar.n)
                for future in finished:
                    cache.keep_facts(future.result())
        except BrokenProcessPool as error:
            raise BagRunError(
                "a process was ended from outside, perhaps because memory ran out; what is done "
                "stays, so go on with the same command and fewer jobs"
            ) from error
        finally:
            progress.stop()
            pool.shutdown(cancel_futures=True)


class _StoppedError(Exception):
    """Another process failed, or the user has had enough."""


class _Worker:
    """One of several processes."""

    def __init__(self, cache: BagCache, models: Path | None, progress: Progress) -> None:
        self._cache = cache
        points = [each.point for each in cache.plan.points]
        self._detectors = _load_detectors(ModelLibrary(models), points)
        self._progress = progress

    def __call__(self, number: int, task: _Task) -> BagFacts:
        return _run(self._cache, self._detectors, task, partial(self._advance, number))

    def _advance(self, number: int, pictures: int) -> None:
        if self._progress.stopped:
            raise _StoppedError
        self._progress.advance(number, pictures)


_worker: _Worker


def _prepare(cache: BagCache, models: Path | None, progress: Progress) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process tells the others to stop
    cv2.setNumThreads(1)
    _worker = _Worker(cache, models, progress)


def _work(number: int, task: _Task) -> BagFacts:
    return _worker(number, task)

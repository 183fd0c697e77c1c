"""What operating points saw in bags, kept in a folder, so that nothing is computed twice."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mbnet_perception.core.files import replace_file
from mbnet_perception.evaluation.accuracy import MEASURING
from mbnet_perception.evaluation.bag_results import BagFacts, FrameDetections
from mbnet_perception.evaluation.bag_truth import Truth
from mbnet_perception.evaluation.robustness import CLEAR, Condition
from mbnet_perception.inference.models import OperatingPoint

CHUNK = 256
"""Pictures in a file: so many at most are lost when the work is interrupted."""

FORMAT = 1
"""To be raised when pictures are read, degraded or looked at in another way, or files written so.

What was computed before is not used any more then.
"""

PLAN = "plan.json"
FACTS = "facts.json"


class CacheError(RuntimeError):
    """Results that are missing, damaged, or not of the same work; the message says what to do."""


@dataclass(frozen=True)
class PlannedBag:
    """A bag that is worked on; the attributes are those of :class:`BagFacts`."""

    name: str
    path: str
    fingerprint: str
    topic: str


@dataclass(frozen=True)
class PlannedPoint:
    """An operating point and the model behind it.

    Attributes:
        point: What runs.
        sha256: Of the model file.
        classes: Names that the indices of its detections mean.
        ap50: Of the validation pictures, as the manifest tells it; None where it does not.
    """

    point: OperatingPoint
    sha256: str
    classes: tuple[str, ...]
    ap50: float | None


@dataclass(frozen=True)
class CachePlan:
    """Everything that results follow from.

    Attributes:
        bags: In the order in which they were given.
        points: Operating points.
        conditions: That each of them is run under.
        seed: Of weather and corruptions.
        every: Every how manyth picture is taken.
        truth: Where ground truth was looked for: ``topic NAME``, ``file HASH``, ``none``; empty for
            the topic that a bag may have.
    """

    bags: tuple[PlannedBag, ...]
    points: tuple[PlannedPoint, ...]
    conditions: tuple[Condition, ...]
    seed: int
    every: int
    truth: str


@dataclass(frozen=True)
class Chunk:
    """What an operating point saw in `CHUNK` pictures of a bag, or fewer at its end.

    Attributes:
        found: In the pictures that could be read.
        places: (F,) int64 place of each among all pictures of the topic, from 0.
        failed: Pictures that could not be read.
        first_failure: Why the first of those could not; empty where none failed.
        machine: That it ran on, in words.
    """

    found: FrameDetections
    places: NDArray[np.int64]
    failed: int
    first_failure: str
    machine: str


@dataclass(frozen=True)
class BagCache:
    """Results in a folder, by what they follow from; other results in it do no harm.

    A folder for each bag holds its facts, its ground truth, and a folder of chunks for each run.
    Whatever is there is whole: files take their place when they are complete.

    Attributes:
        folder: Is made when something is kept.
        plan: What is to be in it.
    """

    folder: Path
    plan: CachePlan

    @classmethod
    def open(cls, folder: Path) -> BagCache:
        """The cache as it was last worked on.

        Raises:
            CacheError: If the folder is none, or its plan is damaged or of another version.
        """
        path = folder / PLAN
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise CacheError(
                f"{path}: cannot be read: {error.strerror}; expected a folder that "
                "mbnet evaluate-bag worked in"
            ) from error
        except ValueError as error:
            raise CacheError(f"{path}: expected JSON: {error}") from error
        try:
            if content["format"] != FORMAT:
                raise CacheError(
                    f"{path}: has format {content['format']}, this version reads {FORMAT}; "
                    "evaluate the bags again"
                )
            return cls(folder, _plan_from(content))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CacheError(
                f"{path}: expected the plan of an evaluation of bags; "
                f"{type(error).__name__}: {error}"
            ) from error

    def keep_plan(self) -> None:
        """Write down what the folder is now used for.

        Raises:
            CacheError: If it cannot be written.
        """
        content = {"format": FORMAT, **asdict(self.plan)}
        self._write(self.folder / PLAN, json.dumps(content, indent=1).encode())

    def facts(self, bag: PlannedBag) -> BagFacts | None:
        """What was read of a bag, None as long as nobody has read it to its end."""
        path = self._bag_folder(bag) / FACTS
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            known = asdict(bag)  # the bag may have another name or place now
            return BagFacts(
                **known,
                frames=int(content["frames"]),
                failed=int(content["failed"]),
                first_failure=str(content["first_failure"]),
                seconds=float(content["seconds"]),
                broken=str(content["broken"]),
                backwards=int(content["backwards"]),
            )
        except FileNotFoundError:
            return None
        except (OSError, KeyError, TypeError, ValueError) as error:
            _warn_of_damage(path, error)
            return None

    def keep_facts(self, facts: BagFacts) -> None:
        """Keep what was read of a bag.

        Raises:
            CacheError: If it cannot be written.
        """
        self._write(self._bag_folder(facts) / FACTS, json.dumps(asdict(facts), indent=1).encode())

    def all_facts(self) -> list[BagFacts]:
        """What was read of each bag, in the order of the plan.

        Raises:
            CacheError: If a bag has not been read to its end.
        """
        found = [(bag, self.facts(bag)) for bag in self.plan.bags]
        absent = [bag.name for bag, facts in found if facts is None]
        if absent:
            raise CacheError(
                f"{self.folder}: not read to their ends: {', '.join(absent)}; evaluate them again, "
                "or merge what is missing"
            )
        return [facts for _, facts in found if facts is not None]

    def has_truth(self, bag: PlannedBag | BagFacts) -> bool:
        """Tell whether it is known what ground truth a bag has, be it none."""
        return self._truth_file(bag).is_file()

    def truth(self, bag: PlannedBag | BagFacts) -> Truth | None:
        """Ground truth of a bag, None if it has none.

        Raises:
            CacheError: If nobody has looked for it, or the file is damaged.
        """
        path = self._truth_file(bag)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return Truth.of_arrays(arrays) if arrays.files else None
        except Exception as error:  # a damaged archive fails in many ways
            raise CacheError(f"{path}: {_reason(error)}; {_AGAIN}") from error

    def keep_truth(self, bag: PlannedBag | BagFacts, truth: Truth | None) -> None:
        """Keep ground truth, or that there is none.

        Raises:
            CacheError: If it cannot be written.
        """
        self._write_arrays(self._truth_file(bag), truth.arrays() if truth else {})

    def chunk(
        self,
        bag: PlannedBag | BagFacts,
        point: OperatingPoint,
        condition: Condition,
        number: int,
    ) -> Chunk | None:
        """A part of a run, counted from 0; None if it is not there, or damaged, which is told."""
        path = self._chunk_file(bag, point, condition, number)
        try:
            return _read_chunk(path)
        except FileNotFoundError:
            return None
        except Exception as error:  # a damaged archive fails in many ways
            _warn_of_damage(path, error)
            return None

    def keep_chunk(
        self,
        bag: PlannedBag | BagFacts,
        point: OperatingPoint,
        condition: Condition,
        number: int,
        chunk: Chunk,
    ) -> None:
        """Keep a part of a run.

        Raises:
            CacheError: If it cannot be written.
        """
        found = {**vars(chunk.found), "classes": chunk.found.classes.astype(np.int16)}
        rest = {name: value for name, value in vars(chunk).items() if name != "found"}
        self._write_arrays(self._chunk_file(bag, point, condition, number), found | rest)

    def run(self, bag: BagFacts, point: OperatingPoint, condition: Condition) -> FrameDetections:
        """What an operating point saw in a bag under a condition.

        Raises:
            CacheError: If a part is missing or damaged.
            ValueError: If the point is not in the plan.
        """
        # Begun with nothing, so that a bag without pictures has arrays too.
        parts = [_nothing(), *(each.found for each in self._chunks(bag, point, condition))]
        names = vars(parts[0])
        found = FrameDetections(
            **{name: np.concatenate([vars(each)[name] for each in parts]) for name in names}
        )
        if len(found) != bag.frames:
            raise CacheError(
                f"{self.folder}: {point}, {condition} has {len(found)} frames of bag "
                f"{bag.name!r}, expected {bag.frames}; evaluate it in another folder"
            )
        return found

    def place(self, bag: BagFacts, point: OperatingPoint, number: int) -> int:
        """Where a frame of a run lies among all pictures of its topic, from 0.

        Args:
            bag, point: Whose runs, as all conditions have the same frames.
            number: Place in :class:`FrameDetections`.

        Raises:
            CacheError: If a part is missing or damaged.
            IndexError: If there are fewer frames.
        """
        before = 0
        for each in self._chunks(bag, point, self.plan.conditions[0]):
            if number < before + len(each.places):
                return int(each.places[number - before])
            before += len(each.places)
        raise IndexError(f"bag {bag.name!r} has {before} frames, got number {number}")

    def machines(self) -> tuple[str, ...]:
        """What clear runs were computed on, in words: one, unless they are from several."""
        found = [
            chunk.machine
            for bag in self.plan.bags
            for each in self.plan.points
            if (chunk := self.chunk(bag, each.point, CLEAR, 0)) is not None
        ]
        return tuple(dict.fromkeys(found))

    def missing(self) -> list[str]:
        """In words what is not there, for each bag; empty when everything is."""
        words = []
        for bag in self.plan.bags:
            if not self.has_truth(bag):
                words.append(f"bag {bag.name!r}: not looked at for ground truth")
            facts = self.facts(bag)
            if facts is None:
                words.append(f"bag {bag.name!r}: not read to its end")
                continue
            numbers = range(chunks_of(facts))
            total = len(numbers) * len(self.plan.points)
            for condition in self.plan.conditions:
                there = sum(
                    self._chunk_file(bag, each.point, condition, number).is_file()
                    for each in self.plan.points
                    for number in numbers
                )
                if there < total:
                    words.append(f"bag {bag.name!r}, {condition}: {total - there} of {total} parts")
        return words

    def _chunks(
        self, bag: BagFacts, point: OperatingPoint, condition: Condition
    ) -> Iterator[Chunk]:
        for number in range(chunks_of(bag)):
            path = self._chunk_file(bag, point, condition, number)
            try:
                yield _read_chunk(path)
            except Exception as error:  # a damaged archive fails in many ways
                raise CacheError(f"{path}: {_reason(error)}; {_AGAIN}") from error

    # Names in bags and plans are not to be trusted as names of files, so files are named by hashes.

    def _bag_folder(self, bag: PlannedBag | BagFacts) -> Path:
        return self.folder / _hash(bag.fingerprint, bag.topic, self.plan.every)

    def _truth_file(self, bag: PlannedBag | BagFacts) -> Path:
        return self._bag_folder(bag) / f"truth_{_hash(self.plan.truth)}.npz"

    def _chunk_file(
        self, bag: PlannedBag | BagFacts, point: OperatingPoint, condition: Condition, number: int
    ) -> Path:
        model = next((each for each in self.plan.points if each.point == point), None)
        if model is None:
            known = "; ".join(str(each.point) for each in self.plan.points)
            raise ValueError(f"operating point {point} was not evaluated; there is {known}")
        seed = None if condition == CLEAR else self.plan.seed
        run = (model.sha256, point.resolution, condition.name, condition.severity, seed)
        key = _hash(FORMAT, asdict(MEASURING), CHUNK, *run)
        return self._bag_folder(bag) / key / f"{number:06}.npz"

    def _write_arrays(self, path: Path, arrays: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        self._write(path, buffer.getbuffer())

    def _write(self, path: Path, content: bytes | memoryview) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content)
        except OSError as error:
            raise CacheError(f"{path}: cannot be written: {error.strerror}") from error


def chunks_of(facts: BagFacts) -> int:
    """Parts that each run of a bag has."""
    return -(-(facts.frames + facts.failed) // CHUNK)


def merge(folders: Sequence[Path], into: Path) -> BagCache:
    """Join what several computers, or runs, worked out for the same plan.

    Args:
        folders: Where they kept it.
        into: Folder to make; what is there already of the same plan stays.

    Returns:
        The joined results; see :meth:`BagCache.missing` for what none of them has.

    Raises:
        CacheError: If a folder holds no results, the plans differ, or a file cannot be written.
        ValueError: If there are no folders.
    """
    if not folders:
        raise ValueError("expected folders to merge, got none")
    sources = [BagCache.open(folder) for folder in folders]
    if (into / PLAN).exists():
        sources.insert(0, BagCache.open(into))
    first = sources[0]
    for other in sources[1:]:
        differences = _differences(first.plan, other.plan)
        if differences:
            raise CacheError(
                f"{first.folder} and {other.folder} hold results of different work: "
                f"{'; '.join(differences)}"
            )
    joined = BagCache(into, first.plan)
    joined.keep_plan()
    for bag in joined.plan.bags:
        _join_bag(bag, sources, joined)
    return joined


def _join_bag(bag: PlannedBag, sources: Sequence[BagCache], joined: BagCache) -> None:
    with_facts = [(each, facts) for each in sources if (facts := each.facts(bag)) is not None]
    if not with_facts:
        return
    if joined.facts(bag) is None:
        joined.keep_facts(with_facts[0][1])
    for source in sources:
        if source.has_truth(bag) and not joined.has_truth(bag):
            joined.keep_truth(bag, source.truth(bag))
    runs = [(p.point, c) for p in joined.plan.points for c in joined.plan.conditions]
    for point, condition in runs:
        for number in range(chunks_of(with_facts[0][1])):
            for source in sources:
                if joined.chunk(bag, point, condition, number) is not None:
                    break
                chunk = source.chunk(bag, point, condition, number)
                if chunk is not None:
                    joined.keep_chunk(bag, point, condition, number, chunk)


_AGAIN = "evaluate the bag again, which computes what is missing or damaged"


def _differences(one: CachePlan, other: CachePlan) -> list[str]:
    """In words how two plans differ, but for the names and places that bags have."""
    told, other_told = _told(one), _told(other)
    return [
        f"{name} {told[name]} against {other_told[name]}"
        for name in told
        if told[name] != other_told[name]
    ]


def _told(plan: CachePlan) -> dict[str, str]:
    return {
        "bags": ", ".join(f"{bag.topic} of {bag.fingerprint}" for bag in plan.bags),
        "operating points": ", ".join(f"{each.point} ({each.sha256})" for each in plan.points),
        "conditions": ", ".join(map(str, plan.conditions)),
        "seed": str(plan.seed),
        "every": str(plan.every),
        "ground truth": plan.truth or "of the bags",
    }


def _plan_from(content: dict[str, Any]) -> CachePlan:
    return CachePlan(
        bags=tuple(
            PlannedBag(
                str(bag["name"]), str(bag["path"]), str(bag["fingerprint"]), str(bag["topic"])
            )
            for bag in content["bags"]
        ),
        points=tuple(
            PlannedPoint(
                point=OperatingPoint(
                    backbone=str(each["point"]["backbone"]),
                    alpha=float(each["point"]["alpha"]),
                    resolution=int(each["point"]["resolution"]),
                    precision=str(each["point"]["precision"]),
                ),
                sha256=str(each["sha256"]),
                classes=tuple(map(str, each["classes"])),
                ap50=None if each["ap50"] is None else float(each["ap50"]),
            )
            for each in content["points"]
        ),
        conditions=tuple(
            Condition(str(each["name"]), int(each["severity"])) for each in content["conditions"]
        ),
        seed=int(content["seed"]),
        every=int(content["every"]),
        truth=str(content["truth"]),
    )


def _read_chunk(path: Path) -> Chunk:
    """Read a chunk, or raise one of many errors if it is not there or damaged."""
    with np.load(path, allow_pickle=False) as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    nothing = _nothing()
    found = FrameDetections(
        **{name: kept[name].astype(like.dtype) for name, like in vars(nothing).items()}
    )
    places = kept["places"]
    frames, boxes = len(found), int(found.counts.sum())
    shapes = {name: (frames, *like.shape[1:]) for name, like in vars(nothing).items()}
    shapes |= {"boxes": (boxes, 4), "scores": (boxes,), "classes": (boxes,)}
    wrong = [name for name, shape in shapes.items() if vars(found)[name].shape != shape]
    if wrong or places.shape != (frames,) or (found.counts < 0).any():
        raise ValueError(f"expected arrays that fit together, got wrong {', '.join(wrong)}")
    return Chunk(
        found=found,
        places=places,
        failed=int(kept["failed"]),
        first_failure=str(kept["first_failure"]),
        machine=str(kept["machine"]),
    )


def _nothing() -> FrameDetections:
    return FrameDetections(
        stamps=np.zeros(0, np.int64),
        sizes=np.zeros((0, 2), np.int32),
        seconds=np.zeros(0, np.float32),
        counts=np.zeros(0, np.int32),
        boxes=np.zeros((0, 4), np.float32),
        scores=np.zeros(0, np.float32),
        classes=np.zeros(0, np.int64),
    )


def _hash(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _warn_of_damage(path: Path, error: Exception) -> None:
    tqdm.write(f"warning: {path} is damaged and not used: {_reason(error)}", file=sys.stderr)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__

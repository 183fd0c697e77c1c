"""What an evaluation of bags hands on: detections by frame, and the figures made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core.detections import Detections
from mbnet_perception.evaluation.robustness import Condition
from mbnet_perception.inference.models import OperatingPoint


@dataclass(frozen=True)
class FrameDetections:
    """What an operating point saw in the frames of a bag under a condition.

    Attributes:
        stamps: (F,) int64 stamp of each frame's header, ns since the epoch, in the bag's order.
        sizes: (F, 2) int32 height and width of each picture.
        seconds: (F,) float32 that resizing and the network took for each.
        counts: (F,) int32 detections of each.
        boxes: (D, 4) float32 xyxy, picture pixels: of all frames, one after another, best first.
        scores: (D,) float32, 0-1.
        classes: (D,) int64 index into the model's class names.
    """

    stamps: NDArray[np.int64]
    sizes: NDArray[np.int32]
    seconds: NDArray[np.float32]
    counts: NDArray[np.int32]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.stamps)

    def detections(self) -> list[Detections]:
        """Of each frame."""
        if not len(self):
            return []  # of nothing, `split` makes one part
        ends = np.cumsum(self.counts)[:-1]
        parts = (np.split(each, ends) for each in (self.boxes, self.scores, self.classes))
        return [Detections(*each) for each in zip(*parts, strict=True)]


@dataclass(frozen=True)
class BagFacts:
    """What was read of a bag.

    Attributes:
        name: Short, and different from the other bags'.
        path: As the user gave it; where it was, if its results came from another computer.
        fingerprint: Hash of its content.
        topic: Of the pictures.
        frames: Pictures that were evaluated.
        failed: Pictures that could not be read.
        first_failure: Why the first of those could not; empty where none failed.
        seconds: From the first stamp to the last.
        broken: In words, why reading ended before the bag's end; empty where it did not.
        backwards: How many times a stamp was before the one of the frame before it.
    """

    name: str
    path: str
    fingerprint: str
    topic: str
    frames: int
    failed: int
    first_failure: str
    seconds: float
    broken: str
    backwards: int


@dataclass(frozen=True)
class Dropouts:
    """How objects are lost and found again while they are in sight.

    An object is found in a frame by a detection of its class with IoU 0.5 and the node's default
    score threshold. A dropout is an unbroken run of frames in which an object that was found
    before is not found; times at the end of an object's life count.

    Attributes:
        objects: That were followed.
        frames: Times an object was in sight, frames of all objects added up.
        found: Of those, how many times it was found.
        never: Objects that were never found.
        count: Dropouts.
        mean_frames, longest_frames: Length of a dropout; 0 where there is none.
        mean_seconds, longest_seconds: The same in time.
        flicker: Changes between found and lost, per object and second in sight; an object's first
            finding is none.
    """

    objects: int
    frames: int
    found: int
    never: int
    count: int
    mean_frames: float
    longest_frames: int
    mean_seconds: float
    longest_seconds: float
    flicker: float


@dataclass(frozen=True)
class HeightResult:
    """AP and AP50 of objects by how high their boxes are.

    Attributes:
        low, high: Ends of the range, in shares of the picture's height; high is not included.
        ap, ap50: Means over the classes with such boxes; None where there are none.
        boxes: Of the truth.
    """

    low: float
    high: float
    ap: float | None
    ap50: float | None
    boxes: int


@dataclass(frozen=True)
class RunResult:
    """One operating point under one condition, all bags together.

    Attributes:
        point, condition: What ran, and on what.
        ap, ap50: Means over the classes that have boxes in the truth.
        classes: AP and AP50 of each of those.
        heights: From small boxes to large ones.
        dropouts: How objects were lost.
        bags: AP50 by the name of the bag; None where a bag has no boxes.
        timeline: By the name of the bag, (S,) share of the objects in sight that were found in
            each second of the bag, pauses of the recording left out; NaN where none was in sight.
    """

    point: OperatingPoint
    condition: Condition
    ap: float
    ap50: float
    classes: dict[str, tuple[float, float]]
    heights: tuple[HeightResult, ...]
    dropouts: Dropouts
    bags: dict[str, float | None]
    timeline: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Moment:
    """A moment to be shown: a frame in which much is lost that is found in clear weather.

    Attributes:
        bag: Name of the bag.
        number: Of the frame, as a place in `FrameDetections`.
        stamp: Of the frame.
        condition: Under which it is lost.
        point: That loses it.
        missed: Rows of the truth's boxes of that frame that are lost.
        found_clear: Of those in the frame, how many the point finds in clear weather.
        boxes: (N, 4) float32 xyxy, picture pixels: the truth.
        names: N class names.
    """

    bag: str
    number: int
    stamp: int
    condition: Condition
    point: OperatingPoint
    missed: tuple[int, ...]
    found_clear: int
    boxes: NDArray[np.float32]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Latency:
    """Time of resizing and the network for a picture on one thread, in ms, in clear weather."""

    p50_ms: float
    p90_ms: float


@dataclass(frozen=True)
class BagEvaluation:
    """The whole result.

    Attributes:
        against: What detections were held against: ground truth, or else what the most accurate
            operating point sees in clear weather, which is consistency and not accuracy.
        reference: Where the truth came from in words: a topic, a file, or an operating point.
        bags: What was read.
        points: Operating points.
        conditions: The first is clear.
        results: For each point, in the order of `points`, one for each condition.
        latency: Of each point.
        rpc: Of each point, the mean AP50 in weather as a share of the one in clear weather; None
            where there is no weather or nothing is found in clear weather.
        moments: Worst first, at most a few for each condition's name.
        unmatched: Frames without truth, which are left out of the figures.
        unknown_classes: Classes of the truth that no model knows; left out of the figures.
        seed, every: Of the weather; every how manyth frame was taken.
        machine: That latencies were measured on, in words.
    """

    against: Literal["ground truth", "consistency"]
    reference: str
    bags: tuple[BagFacts, ...]
    points: tuple[OperatingPoint, ...]
    conditions: tuple[Condition, ...]
    results: tuple[tuple[RunResult, ...], ...]
    latency: tuple[Latency, ...]
    rpc: tuple[float | None, ...]
    moments: tuple[Moment, ...]
    unmatched: int
    unknown_classes: tuple[str, ...]
    seed: int
    every: int
    machine: str

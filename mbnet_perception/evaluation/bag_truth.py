"""What is known to be in the pictures of a bag: from a topic of it, or from a file of labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mbnet_perception.evaluation import bags
from mbnet_perception.evaluation.bags import DETECTIONS, Bag, BagError
from mbnet_perception.evaluation.dataset import DatasetError, Picture, coco_dataset, read_json

ROS1_DETECTIONS = "vision_msgs/Detection2DArray"
"""As `Bag.topics` names the message of ROS 1, whose classes are numbers without names."""

FROM_FILE = "ground truth can also come from a file: --ground-truth FILE"

_AREA = -1  # instead of a class: counts neither way
_NOBODY = -1  # instead of an identity


@dataclass(frozen=True)
class Truth:
    """Labels of many pictures, found by the stamp of the picture.

    Attributes:
        source: Where they came from in words: ``topic /camera/ground_truth``.
        classes: Names of all classes that are told of.
        repeated: How many labels gave way to later ones of the same stamp.
        stamps: (F,) int64 ns since the epoch, rising: pictures that are labelled.
        sizes: (F, 2) int32 height and width the labels are for; 0 where they do not say.
        verified, exhaustive: (F, classes) bool as in `dataset.Picture`.
        starts: (F + 1,) int64 where each picture's rows begin in what follows.
        boxes: (N, 4) float32 xyxy, picture pixels.
        labels: (N,) int32 index into `classes`; -1 for an area that counts neither way.
        objects: (N,) int32 index into `names`; -1 where nobody tells.
        names: Of objects, as the labels tell them apart.
    """

    source: str
    classes: tuple[str, ...]
    repeated: int
    stamps: NDArray[np.int64]
    sizes: NDArray[np.int32]
    verified: NDArray[np.bool_]
    exhaustive: NDArray[np.bool_]
    starts: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int32]
    objects: NDArray[np.int32]
    names: tuple[str, ...]

    def picture(self, stamp: int, height: int, width: int) -> Picture | None:
        """Labels of the picture of a stamp, None where there are none.

        Args:
            stamp: Of the picture's header, ns since the epoch.
            height, width: Of the picture, pixels. Boxes without area inside it are left out.

        Raises:
            DatasetError: If the labels are for a picture of another size.
        """
        place = self._place(stamp)
        if place is None:
            return None
        if self.sizes[place].any() and (height, width) != tuple(self.sizes[place].tolist()):
            raise DatasetError(
                f"{self.source}: the picture of stamp {stamp} is {width} x {height} pixels, but "
                f"its labels are for {self.sizes[place, 1]} x {self.sizes[place, 0]}"
            )
        rows = self._rows(place, height, width)
        labels, boxes = self.labels[rows], self.boxes[rows]
        return Picture(
            identifier=place + 1,
            path=Path(str(stamp)),
            height=height,
            width=width,
            boxes=boxes[labels != _AREA],
            classes=labels[labels != _AREA].astype(np.int64),
            verified=self.verified[place],
            exhaustive=self.exhaustive[place],
            ignore=boxes[labels == _AREA],
        )

    def identities(self, stamp: int, height: int = 0, width: int = 0) -> tuple[str, ...] | None:
        """Which object each box of `picture` is.

        Args:
            stamp: As for `picture`.
            height, width: Likewise; 0 takes the boxes outside the picture as well.

        Returns:
            None where the labels do not tell for all of them, or not apart.
        """
        place = self._place(stamp)
        if place is None:
            return None
        rows = self._rows(place, height or np.inf, width or np.inf)
        objects = self.objects[rows[self.labels[rows] != _AREA]].tolist()
        if _NOBODY in objects or len(set(objects)) < len(objects):
            return None
        return tuple(self.names[number] for number in objects)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as arrays that `numpy.savez` keeps without pickling."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Truth:
        """From what `arrays` gave, also as `numpy.load` reads it.

        Raises:
            ValueError: If one is missing.
        """
        try:
            values: dict[str, Any] = {field.name: arrays[field.name] for field in fields(cls)}
        except KeyError as error:
            raise ValueError(f"expected the arrays of a Truth: {error}") from error
        for name in ("source", "repeated"):
            values[name] = values[name].item()
        for name in ("classes", "names"):
            values[name] = tuple(values[name].tolist())
        return cls(**values)

    def _place(self, stamp: int) -> int | None:
        place = int(np.searchsorted(self.stamps, stamp))
        return place if place < len(self.stamps) and self.stamps[place] == stamp else None

    def _rows(self, place: int, height: float, width: float) -> NDArray[np.int64]:
        """Of the boxes that have area inside a picture."""
        rows = np.arange(self.starts[place], self.starts[place + 1], dtype=np.int64)
        x1, y1, x2, y2 = self.boxes[rows].T
        inside = np.minimum(x2, width) > np.maximum(x1, 0)
        inside &= np.minimum(y2, height) > np.maximum(y1, 0)
        return np.asarray(rows[inside], np.int64)


class _Labels(NamedTuple):
    """Of one picture, on their way to a `Truth`."""

    boxes: NDArray[np.float32]
    labels: Iterable[int]
    objects: Iterable[int]
    size: tuple[int, int] = (0, 0)
    verified: NDArray[np.bool_] | None = None
    exhaustive: NDArray[np.bool_] | None = None


def truth_topics(bag: Bag) -> tuple[str, ...]:
    """Topics that may hold ground truth: those of type Detection2DArray, be it of ROS 1."""
    kinds = (DETECTIONS, ROS1_DETECTIONS)
    return tuple(sorted(name for name, kind in bag.topics.items() if kind in kinds))


def truth_from_topic(bag: Bag, topic: str = "") -> Truth:
    """Read a Detection2DArray topic: every class that occurs in it is looked for in every picture.

    Args:
        bag: Open.
        topic: Its name; empty takes the only one there is.

    Raises:
        BagError: If there is no such topic, or several and none is named; or if its messages
            cannot be decoded; or if it is not named, and what a detector saw: scores tell.
    """
    named = bool(topic)
    topic = topic or _only_topic(bag)
    if bag.topics.get(topic) == ROS1_DETECTIONS:
        raise BagError(
            f"topic '{topic}' of bag '{bag.path}' is a Detection2DArray of ROS 1, whose classes "
            f"are numbers without names; {FROM_FILE}"
        )
    if bag.topics.get(topic) != DETECTIONS:
        have = ", ".join(truth_topics(bag)) or "none"
        raise BagError(
            f"bag '{bag.path}' has no topic '{topic}' of type {DETECTIONS}; it has: {have}; "
            f"{FROM_FILE}"
        )
    classes: dict[str, int] = {}
    names: dict[str, int] = {}
    found: dict[int, _Labels] = {}
    read = 0
    for recorded in bag.messages([topic]):
        read += 1
        try:
            message = bags.decode(recorded.data, recorded.type)
        except BagError as error:
            raise BagError(
                f"topic '{topic}' of bag '{bag.path}': {error}; it may be of an older "
                f"vision_msgs than 4; {FROM_FILE}"
            ) from error
        if not named and is_unsure(message):
            raise BagError(
                f"topic '{topic}' of bag '{bag.path}' has scores between 0 and 1, so it is what a "
                f"detector saw; --ground-truth none does without, and --ground-truth {topic} takes "
                "it for ground truth all the same"
            )
        boxes, kinds, identities = labels_of(message)
        found[bags.stamp(recorded.data)] = _Labels(
            boxes,
            [classes.setdefault(kind, len(classes)) for kind in kinds],
            [names.setdefault(name, len(names)) if name else _NOBODY for name in identities],
        )
    return _truth(f"topic {topic}", classes, found, read, names)


def _only_topic(bag: Bag) -> str:
    topics = truth_topics(bag)
    if len(topics) > 1:
        raise BagError(
            f"bag '{bag.path}' has several topics that may be its ground truth; name one of: "
            f"{', '.join(topics)}"
        )
    if not topics:
        raise BagError(f"bag '{bag.path}' has no topic of type {DETECTIONS}; {FROM_FILE}")
    return topics[0]


def truth_from_file(path: Path) -> Truth:
    """Read COCO JSON, as `dataset.read_coco` does, whose pictures are found by stamp.

    An image's stamp is its ``stamp``, in ns since the epoch, or else the name of its file, such
    as ``1750000000123456789.jpg``. Of a stamp that comes twice, the later image counts.

    Raises:
        DatasetError: If the file cannot be used, or an image has no stamp.
    """
    content = read_json(path)
    dataset = coco_dataset(content, path)
    found: dict[int, _Labels] = {}
    for image, picture in zip(content["images"], dataset.pictures, strict=True):
        areas = [_AREA] * len(picture.ignore)
        found[_stamp_of(image, path)] = _Labels(
            np.concatenate([picture.boxes, picture.ignore]),
            [*picture.classes.tolist(), *areas],
            [_NOBODY] * (len(picture.boxes) + len(areas)),
            (picture.height, picture.width),
            picture.verified,
            picture.exhaustive,
        )
    return _truth(f"file {path.name}", dataset.classes, found, len(dataset.pictures))


def _stamp_of(image: dict[str, Any], origin: Path) -> int:
    # Also as a string: there are JSON writers that round whole numbers of this length.
    stamp = str(image.get("stamp", PurePath(image["file_name"]).stem))
    if not stamp.isdecimal() or int(stamp) >= 1 << 63:
        raise DatasetError(
            f"{origin}, picture {image['id']}: expected `stamp`, the ns since the epoch of the "
            f"picture's header as a whole number, or a file name that is such a number; got {stamp}"
        )
    return int(stamp)


def _truth(
    source: str,
    classes: Iterable[str],
    found: dict[int, _Labels],
    read: int,
    names: Iterable[str] = (),
) -> Truth:
    """Lay labels one behind another, in the order of their stamps."""
    classes = tuple(classes)
    stamps = sorted(found)
    rows = [found[stamp] for stamp in stamps]
    known: NDArray[np.bool_] = np.ones((len(rows), len(classes)), np.bool_)
    verified = exhaustive = known
    if rows and rows[0].verified is not None:
        verified = np.array([row.verified for row in rows], np.bool_)
        exhaustive = np.array([row.exhaustive for row in rows], np.bool_)
    return Truth(
        source=source,
        classes=classes,
        repeated=read - len(rows),
        stamps=np.array(stamps, np.int64),
        sizes=np.array([row.size for row in rows], np.int32).reshape(-1, 2),
        verified=verified,
        exhaustive=exhaustive,
        starts=np.cumsum([0, *(len(row.boxes) for row in rows)], dtype=np.int64),
        boxes=np.concatenate([np.zeros((0, 4), np.float32), *(row.boxes for row in rows)]),
        labels=np.array([label for row in rows for label in row.labels], np.int32),
        objects=np.array([each for row in rows for each in row.objects], np.int32),
        names=tuple(names),
    )


def is_unsure(message: Any) -> bool:
    """Whether a Detection2DArray has scores between 0 and 1: a detector's, and no ground truth."""
    return any(0 < _best(each).score < 1 for each in message.detections if each.results)


class Told(NamedTuple):
    """What a Detection2DArray tells: its detections' best hypotheses.

    Attributes:
        boxes: (N, 4) float32 xyxy, picture pixels.
        names: N class names.
        scores: (N,) float32.
        identities: Of the objects; empty where nobody tells.
    """

    boxes: NDArray[np.float32]
    names: tuple[str, ...]
    scores: NDArray[np.float32]
    identities: tuple[str, ...]


def told_by(message: Any) -> Told:
    """Read a Detection2DArray of rclpy or `bags.decode`; without hypotheses, it is no detection."""
    told = [detection for detection in message.detections if detection.results]
    best = [_best(detection) for detection in told]
    return Told(
        np.array([_xyxy(detection.bbox) for detection in told], np.float32).reshape(-1, 4),
        tuple(hypothesis.class_id for hypothesis in best),
        np.array([hypothesis.score for hypothesis in best], np.float32),
        tuple(detection.id for detection in told),
    )


def labels_of(message: Any) -> tuple[NDArray[np.float32], tuple[str, ...], tuple[str, ...]]:
    """Boxes, class names and identities as `told_by` gives them, of boxes that have area."""
    told = told_by(message)
    finite = np.isfinite(told.boxes).all(axis=1)
    solid = np.flatnonzero(finite & (told.boxes[:, :2] < told.boxes[:, 2:]).all(axis=1))
    names, identities = (
        tuple(each[row] for row in solid) for each in (told.names, told.identities)
    )
    return told.boxes[solid], names, identities


def _best(detection: Any) -> Any:
    return max((result.hypothesis for result in detection.results), key=lambda h: h.score)


def _xyxy(box: Any) -> tuple[float, float, float, float]:
    x, y = box.center.position.x, box.center.position.y
    return x - box.size_x / 2, y - box.size_y / 2, x + box.size_x / 2, y + box.size_y / 2

"""Data sets of any format, with their classes called as the model calls them.

The format is told from what lies at the path:

- a folder with ``data.yaml``, or a YAML file: YOLO, ``evaluation.yolo``;
- a folder with ``Annotations``: Pascal VOC, ``evaluation.voc``;
- JSON that holds ``images``: COCO, ``evaluation.dataset``;
- JSON that is a list, or holds ``frames``: BDD100K, ``evaluation.bdd100k``.

YOLO and VOC keep several splits at one path; which one is meant stands behind a colon, as in
``data.yaml:train`` or ``VOC2012:val``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mbnet_perception.evaluation.bdd100k import bdd100k_dataset
from mbnet_perception.evaluation.dataset import (
    Dataset,
    DatasetError,
    Faults,
    OnBad,
    Picture,
    check_size,
    coco_dataset,
    read_json,
    read_picture,
    read_yaml,
    size_of,
)
from mbnet_perception.evaluation.voc import find_annotations, read_voc
from mbnet_perception.evaluation.yolo import read_yolo

YOLO_FILE = "data.yaml"


@dataclass(frozen=True)
class ClassMap:
    """What the classes of data sets are to a model.

    Attributes:
        classes: The model's, in its order.
        names: What sources call them; None makes such objects areas that count neither way, which
            is right for what may be taken for one of the classes. A class of the model needs no
            entry for its own name.
        background: Names of objects that are none of the classes, whose boxes are left out.
        origin: The file it was read from, for messages.

    Raises:
        ValueError: If there are no classes, one stands twice, or a name leads to no class.
    """

    classes: tuple[str, ...]
    names: Mapping[str, str | None] = field(default_factory=dict)
    background: frozenset[str] = frozenset()
    origin: str = "class map"

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must be given, each once, got {list(self.classes)}")
        wrong = {k: v for k, v in self.names.items() if v is not None and v not in self.classes}
        if wrong:
            raise ValueError(f"names {wrong} lead to none of the classes {list(self.classes)}")
        twice = sorted(self.background & {*self.names, *self.classes})
        if twice:
            raise ValueError(f"{twice} cannot be background and something else")


def read_class_map(path: Path) -> ClassMap:
    """Read a class map from YAML with ``classes``, and maybe ``names`` and ``background``.

    Raises:
        DatasetError: If the file cannot be read, is no YAML, has another key, or is no class map.
    """
    content = read_yaml(path)
    known = {"classes", "names", "background"}
    if not isinstance(content, dict) or "classes" not in content or set(content) - known:
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise DatasetError(f"{path}: expected classes and maybe names, background; got {found}")
    classes, background = content["classes"], content.get("background") or []
    names = content.get("names") or {}
    for key, value in (("classes", classes), ("background", background)):
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise DatasetError(f"{path}: {key} must be a list of names, got {value!r}")
    if not isinstance(names, dict) or not all(
        isinstance(k, str) and (v is None or isinstance(v, str)) for k, v in names.items()
    ):
        raise DatasetError(
            f"{path}: names must be a mapping from names to classes or null, got {names!r}"
        )
    try:
        return ClassMap(tuple(classes), names, frozenset(background), str(path))
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error


@dataclass(frozen=True)
class Source:
    """One of several data sets to learn from.

    Attributes:
        labels: What :func:`read_labels` reads.
        pictures: Folder of the pictures where it is not the format's usual one.
        weight: How often each of its pictures comes, relative to one of a source of weight 1.

    Raises:
        ValueError: If weight is not positive.
    """

    labels: Path
    pictures: Path | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"{self.labels}: weight must be positive, got {self.weight}")


def read_sources(
    sources: Sequence[Source], class_map: ClassMap | None = None, on_bad: OnBad = "stop"
) -> list[tuple[Dataset, float]]:
    """Read data sets that are to be mixed, with their weights.

    All have the same classes: those of the map, or without one those of the first source, among
    which the others' must be.

    Raises:
        DatasetError: As :func:`read_labels` does.
        ValueError: If there are no sources.
    """
    if not sources:
        raise ValueError("expected at least one data set to read")
    read = []
    for source in sources:
        dataset = read_labels(source.labels, class_map, source.pictures, on_bad)
        if class_map is None:
            class_map = ClassMap(dataset.classes, origin=str(source.labels))
        read.append((dataset, source.weight))
    return read


def read_labels(
    path: Path,
    class_map: ClassMap | None = None,
    pictures: Path | None = None,
    on_bad: OnBad = "stop",
) -> Dataset:
    """Read a data set, and look at every picture file.

    Args:
        path: Label file or folder, see the module; may end in a colon and a split.
        class_map: What its classes are to the model; without one they stay as they are.
        pictures: Folder that its picture files are relative to, where it is not the usual one.
        on_bad: With ``stop`` the first label file that cannot be read, box without area, or
            picture that is missing, truncated or of another size than its labels raises; with
            ``skip`` they are left out and told in :attr:`Dataset.skipped`, and every picture is
            decoded, so that none fails later.

    Returns:
        The data set. A class of the map that it cannot name is unknown in its pictures: neither
        verified nor exhaustive. Where two of its names are one class, this is exhaustive in
        pictures where both are.

    Raises:
        DatasetError: If there is no data set in one of the formats, it has boxes of a name that
            the map does not list, or no picture is left.
    """
    return _without_bad_files(parse_labels(path, class_map, pictures, on_bad), path, on_bad)


def parse_labels(
    path: Path,
    class_map: ClassMap | None = None,
    pictures: Path | None = None,
    on_bad: OnBad = "stop",
) -> Dataset:
    """Like :func:`read_labels`, without a look at pictures whose size the labels tell."""
    dataset = _read(path, pictures, on_bad)
    return dataset if class_map is None else map_classes(dataset, class_map, path)


def map_classes(dataset: Dataset, class_map: ClassMap, origin: Path) -> Dataset:
    """Call a data set's classes as a map says, see :func:`read_labels`; origin is its file."""
    position = {name: i for i, name in enumerate(class_map.classes)}
    targets = np.full(len(dataset.classes), -1)
    ignored = np.zeros(len(dataset.classes), bool)
    unlisted = np.zeros(len(dataset.classes), bool)
    for i, name in enumerate(dataset.classes):
        target = class_map.names.get(name, name)
        ignored[i] = target is None
        targets[i] = position.get(target or "", -1)
        unlisted[i] = targets[i] < 0 and not ignored[i] and name not in class_map.background
    used = {int(k) for picture in dataset.pictures for k in picture.classes}
    unknown = [name for i, name in enumerate(dataset.classes) if unlisted[i] and i in used]
    if unknown:
        raise DatasetError(
            f"{origin}: classes {unknown} are not among {list(class_map.classes)} of "
            f"{class_map.origin}; a class map says what they are, under names or background"
        )
    if (targets < 0).all():
        raise DatasetError(
            f"{origin}: none of its classes {list(dataset.classes)} is one of "
            f"{list(class_map.classes)} ({class_map.origin})"
        )
    members = targets[None] == np.arange(len(class_map.classes))[:, None]

    def mapped(picture: Picture) -> Picture:
        known = picture.verified & picture.exhaustive
        keep = targets[picture.classes] >= 0
        return replace(
            picture,
            boxes=picture.boxes[keep],
            classes=targets[picture.classes[keep]],
            verified=(members & picture.verified).any(1),
            exhaustive=(~members | known).all(1) & members.any(1),
            ignore=np.concatenate([picture.ignore, picture.boxes[ignored[picture.classes]]]),
        )

    return replace(
        dataset, classes=class_map.classes, pictures=tuple(map(mapped, dataset.pictures))
    )


def _read(path: Path, pictures: Path | None, on_bad: OnBad) -> Dataset:
    split: str | None
    name, colon, split = path.name.rpartition(":")
    if colon and name and not path.exists():
        path = path.with_name(name)
    else:
        split = None
    if path.is_dir():
        if (path / YOLO_FILE).is_file():
            return read_yolo(path / YOLO_FILE, split, pictures, on_bad)
        if find_annotations(path):
            return read_voc(path, split, pictures, on_bad)
        raise DatasetError(
            f"{path}: expected {YOLO_FILE} (YOLO) or Annotations/*.xml (Pascal VOC) in it, "
            "or a JSON file (COCO, BDD100K)"
        )
    if path.suffix in (".yaml", ".yml"):
        return read_yolo(path, split, pictures, on_bad)
    content = read_json(path)
    if split is not None:
        raise DatasetError(f"{path}: a JSON file has no splits, got {split!r}")
    if isinstance(content, list) or (isinstance(content, dict) and "frames" in content):
        return bdd100k_dataset(content, path, pictures, on_bad)
    return coco_dataset(content, path, pictures, on_bad)


def _without_bad_files(dataset: Dataset, origin: Path, on_bad: OnBad) -> Dataset:
    def fault_of(picture: Picture) -> str | None:
        try:
            if on_bad == "skip":
                read_picture(picture)
            else:
                check_size(picture, *size_of(picture.path))
        except DatasetError as error:
            return str(error)
        return None

    faults = Faults(on_bad)
    good = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = tqdm(
            pool.map(fault_of, dataset.pictures),
            f"look at {origin.name}",
            len(dataset.pictures),
            file=sys.stderr,
            mininterval=2,
            disable=None,
            leave=False,
        )
        for picture, fault in zip(dataset.pictures, list(found), strict=True):
            if fault is None:
                good.append(picture)
            else:
                faults.add(fault)
    if not good:
        raise DatasetError(
            f"{origin}: none of its {len(dataset.pictures)} pictures can be used; the first: "
            f"{faults.found[0]}"
        )
    return Dataset(dataset.classes, tuple(good), (*dataset.skipped, *faults.found))

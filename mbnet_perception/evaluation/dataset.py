"""Labelled pictures: COCO JSON with LVIS's federated fields, and what all formats share.

Data sets label different classes, so a picture says what was looked for: classes that have boxes
in it, and ``neg_category_ids``. Any other class is unknown there. ``not_exhaustive_category_ids``
have right boxes but may have more objects than boxes, and ``ignore_boxes`` count neither way
(LVIS, arXiv 1908.03195, section 3.2). Plain COCO, without these fields, is read as looked for
in every class.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import yaml
from numpy.typing import NDArray

from mbnet_perception.evaluation.picture_file import PictureFileError, decode, picture_size

OnBad: TypeAlias = Literal["stop", "skip"]
"""What to do about a bad picture, label file or box: raise, or leave it out and say so."""

Box: TypeAlias = tuple[float, float, float, float]


class DatasetError(ValueError):
    """A label file that cannot be used; the message names the file and the record."""


@dataclass(frozen=True)
class Picture:
    """One picture and what is known of it.

    Attributes:
        identifier: ``id`` in the file; for formats without one, the picture's place from 1 on.
        path: Where the picture lies.
        height, width: Pixels.
        boxes: (N, 4) float32 xyxy, picture pixels. They have area inside the picture but may
            stick out of it.
        classes: (N,) int64 index into :attr:`Dataset.classes`.
        verified: (classes,) bool: was looked for, so that its absence means something.
        exhaustive: (classes,) bool: every object of the class has a box. A verified class that is
            not exhaustive has right boxes, and more objects may be there.
        ignore: (M, 4) float32 xyxy, picture pixels: areas that count neither way.
        scene_group: Pictures of one drive or scene share it; empty where nobody says.
    """

    identifier: int
    path: Path
    height: int
    width: int
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    verified: NDArray[np.bool_]
    exhaustive: NDArray[np.bool_]
    ignore: NDArray[np.float32]
    scene_group: str = ""


@dataclass(frozen=True)
class Dataset:
    """Pictures, the names of their classes in the file's order, and what was left out and why."""

    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    skipped: tuple[str, ...] = ()


class Faults:
    """What is wrong with a data set: the first fault stops, or each is noted and left out.

    Raises:
        ValueError: If on_bad is neither ``stop`` nor ``skip``.
    """

    def __init__(self, on_bad: OnBad) -> None:
        if on_bad not in ("stop", "skip"):
            raise ValueError(f"on_bad must be 'stop' or 'skip', got {on_bad!r}")
        self.on_bad = on_bad
        self.found: list[str] = []

    def add(self, fault: str) -> None:
        """Note a fault, told as ``file: what was expected and what came``.

        Raises:
            DatasetError: If faults are to stop.
        """
        if self.on_bad == "stop":
            raise DatasetError(f"{fault}; mend it, or leave such out with on_bad: skip")
        self.found.append(fault)


def read_coco(path: Path, pictures: Path | None = None, on_bad: OnBad = "stop") -> Dataset:
    """Read a COCO JSON file.

    Boxes that ``iscrowd`` marks become ignore areas.

    Args:
        path: Label file.
        pictures: Folder that ``file_name`` is relative to; that of the label file by default.
        on_bad: What to do about boxes without area.

    Raises:
        DatasetError: If the file is missing, is no COCO JSON, holds no pictures, refers to an
            unknown picture or category, or names a picture outside the folder.
    """
    return coco_dataset(read_json(path), path, pictures, on_bad)


def coco_dataset(
    content: Any, path: Path, pictures: Path | None = None, on_bad: OnBad = "stop"
) -> Dataset:
    """Like :func:`read_coco`, of JSON that was read already."""
    try:
        return _parse_coco(content, path, pictures or path.parent, Faults(on_bad))
    except DatasetError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DatasetError(
            f"{path}: expected COCO JSON with images, annotations and categories; "
            f"{type(error).__name__}: {error}"
        ) from error


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DatasetError: If it cannot be read, or is no JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}: expected JSON: {error}") from error


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        DatasetError: If it cannot be read, or is no YAML.
    """
    try:
        return yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise DatasetError(f"{path}: expected YAML: {error}") from error


def read_text(path: Path) -> str:
    """What a text file holds.

    Raises:
        DatasetError: If it cannot be read, or is no text in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: expected text in UTF-8: {error}") from error


def read_picture(picture: Picture) -> NDArray[np.uint8]:
    """Decode a picture: (height, width, 3) uint8 BGR, turned as its EXIF orientation says.

    Raises:
        DatasetError: If it is missing, truncated or cannot be decoded, or its size is not the one
            that its labels are for.
    """
    return decode_picture(picture, read_bytes(picture.path))


def decode_picture(picture: Picture, content: bytes) -> NDArray[np.uint8]:
    """Like :func:`read_picture`, of a file's content that was read already."""
    try:
        image = decode(content)
    except PictureFileError as error:
        raise DatasetError(f"{picture.path}: {error}") from error
    check_size(picture, image.shape[0], image.shape[1])
    return image


def read_bytes(path: Path) -> bytes:
    """What a picture file holds.

    Raises:
        DatasetError: If it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: missing or unreadable: {error.strerror}") from error


def size_of(path: Path) -> tuple[int, int]:
    """Height and width in pixels of a picture file.

    Raises:
        DatasetError: If it cannot be read, is truncated, or is no picture.
    """
    try:
        return picture_size(read_bytes(path))
    except PictureFileError as error:
        raise DatasetError(f"{path}: {error}") from error


def check_size(picture: Picture, height: int, width: int) -> None:
    """Raise DatasetError if the picture's file has other pixels than its labels are for."""
    if (height, width) != (picture.height, picture.width):
        raise DatasetError(
            f"{picture.path}: is {width} x {height} pixels, but its labels are for "
            f"{picture.width} x {picture.height}"
        )


def inside(folder: Path, name: str, origin: Path) -> Path:
    """The file that a label file names, which must not lie outside the folder.

    Raises:
        DatasetError: If it does; names origin, the label file.
    """
    try:
        file = (folder / name).resolve()
    except (OSError, ValueError) as error:  # a name that no file can have
        raise DatasetError(f"{origin}: {name!r} is no file name: {error}") from error
    if not file.is_relative_to(folder.resolve()):
        raise DatasetError(f"{origin}: {name!r} lies outside the folder {folder}")
    return file


@dataclass(frozen=True)
class PictureLabels:
    """What a label file says of one picture, on its way to a :class:`Picture`.

    Attributes:
        origin: Where it says so, as a fault names it.
        verified, exhaustive: As a picture has them.
        objects: Class, or None for an area that counts neither way, and xyxy in picture pixels.
    """

    origin: str
    path: Path
    height: int
    width: int
    verified: NDArray[np.bool_]
    exhaustive: NDArray[np.bool_]
    objects: list[tuple[int | None, Box]]
    scene_group: str = ""

    def picture(self, identifier: int, faults: Faults) -> Picture:
        """Make the picture, without boxes that have no area inside it.

        A class that loses a box so has more objects than boxes, and is not exhaustive any more.
        """
        exhaustive = self.exhaustive.copy()
        boxes: list[tuple[int, Box]] = []
        areas: list[Box] = []
        for index, box in self.objects:
            if not self._has_area(box):
                faults.add(
                    f"{self.origin}: a box from ({box[0]:g}, {box[1]:g}) to ({box[2]:g}, "
                    f"{box[3]:g}) has no area inside the {self.width} x {self.height} pixels of "
                    f"{self.path.name}"
                )
                if index is not None:
                    exhaustive[index] = False
            elif index is None:
                areas.append(box)
            else:
                boxes.append((index, box))
        return Picture(
            identifier=identifier,
            path=self.path,
            height=self.height,
            width=self.width,
            boxes=np.array([box for _, box in boxes], np.float32).reshape(-1, 4),
            classes=np.array([index for index, _ in boxes], np.int64),
            verified=self.verified,
            exhaustive=exhaustive,
            ignore=np.array(areas, np.float32).reshape(-1, 4),
            scene_group=self.scene_group,
        )

    def _has_area(self, box: Box) -> bool:
        x1, y1, x2, y2 = box
        # Written so that a NaN has none either.
        return min(x2, self.width) > max(x1, 0) and min(y2, self.height) > max(y1, 0)


def _parse_coco(content: dict[str, Any], path: Path, folder: Path, faults: Faults) -> Dataset:
    categories = content["categories"]
    index = {category["id"]: i for i, category in enumerate(categories)}
    objects_of: dict[int, list[tuple[int | None, Box]]] = defaultdict(list)
    for annotation in content["annotations"]:
        if annotation["category_id"] not in index:
            raise DatasetError(
                f"{path}: annotation {annotation['id']} has category "
                f"{annotation['category_id']}, which is not among the categories"
            )
        kind = None if annotation.get("iscrowd") else index[annotation["category_id"]]
        objects_of[annotation["image_id"]].append((kind, _xyxy(annotation["bbox"])))
    if len({image["id"] for image in content["images"]}) < len(content["images"]):
        raise DatasetError(f"{path}: two pictures have the same id")
    federated = any("neg_category_ids" in image for image in content["images"])
    pictures = []
    for image in content["images"]:
        objects = objects_of.pop(image["id"], [])
        verified = np.full(len(categories), not federated)
        verified[[index[i] for i in image.get("neg_category_ids", [])]] = True
        verified[[i for i, _ in objects if i is not None]] = True
        exhaustive = verified.copy()
        exhaustive[[index[i] for i in image.get("not_exhaustive_category_ids", [])]] = False
        areas = [(None, _xyxy(box)) for box in image.get("ignore_boxes", [])]
        labels = PictureLabels(
            origin=f"{path}, picture {image['id']}",
            path=inside(folder, image["file_name"], path),
            height=image["height"],
            width=image["width"],
            verified=verified,
            exhaustive=exhaustive,
            objects=[*objects, *areas],
            scene_group=str(image.get("scene_group", "")),
        )
        pictures.append(labels.picture(image["id"], faults))
    unknown = sorted(objects_of)
    if unknown:
        raise DatasetError(f"{path}: annotations refer to unknown picture ids {unknown[:5]}")
    if not pictures:
        raise DatasetError(f"{path}: holds no pictures")
    classes = tuple(category["name"] for category in categories)
    return Dataset(classes, tuple(pictures), tuple(faults.found))


def _xyxy(xywh: Sequence[float]) -> Box:
    x, y, width, height = map(float, xywh)
    return x, y, x + width, y + height

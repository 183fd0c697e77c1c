"""Labelled pictures: COCO JSON with LVIS's federated fields.

Data sets label different classes, so a picture says what was looked for: classes that have boxes
in it, and ``neg_category_ids``. Any other class is unknown there. ``not_exhaustive_category_ids``
have right boxes but may have more objects than boxes, and ``ignore_boxes`` count neither way
(LVIS, arXiv 1908.03195, section 3.2). Plain COCO, without these fields, is read as looked for
in every class.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


class DatasetError(ValueError):
    """A label file that cannot be used; the message names the file and the record."""


@dataclass(frozen=True)
class Picture:
    """One picture and what is known of it.

    Attributes:
        identifier: ``id`` in the file.
        path: Where the picture lies.
        height, width: Pixels.
        boxes: (N, 4) float32 xyxy, picture pixels.
        classes: (N,) int64 index into :attr:`Dataset.classes`.
        verified: (classes,) bool: was looked for, so that its absence means something.
        exhaustive: (classes,) bool: every object of the class has a box. A verified class that is
            not exhaustive has right boxes, and more objects may be there.
        ignore: (M, 4) float32 xyxy, picture pixels: areas that count neither way.
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


@dataclass(frozen=True)
class Dataset:
    """Pictures and the names of their classes, in the order of the file's categories."""

    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]


def read_coco(path: Path) -> Dataset:
    """Read a COCO JSON file; picture paths are relative to its folder.

    Boxes that ``iscrowd`` marks become ignore areas. Boxes without area are left out.

    Raises:
        DatasetError: If the file is missing, is no COCO JSON, holds no pictures, refers to an
            unknown picture or category, or names a picture outside its folder.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(f"{path}: expected COCO JSON: {error}") from error
    try:
        return _parse_coco(content, path)
    except DatasetError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DatasetError(
            f"{path}: expected COCO JSON with images, annotations and categories; "
            f"{type(error).__name__}: {error}"
        ) from error


def read_picture(picture: Picture) -> NDArray[np.uint8]:
    """Decode a picture: (height, width, 3) uint8 BGR.

    Raises:
        DatasetError: If it cannot be decoded, or its size is not the one that its labels are for.
    """
    image = cv2.imread(str(picture.path), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError(f"{picture.path}: missing, or no picture that OpenCV can decode")
    if image.shape[:2] != (picture.height, picture.width):
        raise DatasetError(
            f"{picture.path}: is {image.shape[1]} x {image.shape[0]} pixels, but its labels are "
            f"for {picture.width} x {picture.height}"
        )
    return np.asarray(image, np.uint8)


def _parse_coco(content: dict[str, Any], path: Path) -> Dataset:
    folder = path.parent.resolve()
    categories = content["categories"]
    index = {category["id"]: i for i, category in enumerate(categories)}
    boxes_of: dict[int, list[tuple[int, list[float]]]] = defaultdict(list)
    ignored: dict[int, list[list[float]]] = defaultdict(list)
    for annotation in content["annotations"]:
        if annotation["category_id"] not in index:
            raise DatasetError(
                f"{path}: annotation {annotation['id']} has category "
                f"{annotation['category_id']}, which is not among the categories"
            )
        x, y, width, height = annotation["bbox"]
        if annotation.get("iscrowd"):
            ignored[annotation["image_id"]].append([x, y, x + width, y + height])
        elif width > 0 and height > 0:
            boxes_of[annotation["image_id"]].append(
                (index[annotation["category_id"]], [x, y, x + width, y + height])
            )
    if len({image["id"] for image in content["images"]}) < len(content["images"]):
        raise DatasetError(f"{path}: two pictures have the same id")
    federated = any("neg_category_ids" in image for image in content["images"])
    pictures = []
    for image in content["images"]:
        file = (folder / image["file_name"]).resolve()
        if not file.is_relative_to(folder):
            raise DatasetError(
                f"{path}: picture {image['file_name']!r} lies outside the folder of the label file"
            )
        objects = boxes_of.pop(image["id"], [])
        verified = np.full(len(categories), not federated)
        verified[[index[i] for i in image.get("neg_category_ids", [])]] = True
        verified[[i for i, _ in objects]] = True
        exhaustive = verified.copy()
        exhaustive[[index[i] for i in image.get("not_exhaustive_category_ids", [])]] = False
        areas = ignored.pop(image["id"], [])
        areas += [[x, y, x + w, y + h] for x, y, w, h in image.get("ignore_boxes", [])]
        pictures.append(
            Picture(
                identifier=image["id"],
                path=file,
                height=image["height"],
                width=image["width"],
                boxes=np.array([box for _, box in objects], np.float32).reshape(-1, 4),
                classes=np.array([i for i, _ in objects], np.int64),
                verified=verified,
                exhaustive=exhaustive,
                ignore=np.array(areas, np.float32).reshape(-1, 4),
            )
        )
    unknown = sorted({*boxes_of, *ignored})
    if unknown:
        raise DatasetError(f"{path}: annotations refer to unknown picture ids {unknown[:5]}")
    if not pictures:
        raise DatasetError(f"{path}: holds no pictures")
    return Dataset(tuple(category["name"] for category in categories), tuple(pictures))

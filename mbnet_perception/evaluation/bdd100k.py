"""Labels of BDD100K: JSON in the format of Scalabel, a list of frames.

Read as doc.scalabel.ai/format.html and doc.bdd100k.com/format.html have it: the list of the 2018
release (``bdd100k_labels_images_train.json``) and of 2020 (``det_20/det_train.json``), and what
Scalabel exports, where the list is called ``frames`` and ``config`` stands beside it. A frame has
``name``, the picture's file, maybe ``videoName``, ``size``, and ``labels``; of these the ones with
``box2d`` are read. Its corners are pixels from 0, and the last pixel belongs to the box
(scalabel.label.transforms.box2d_to_xyxy).

The two releases name classes differently (bike, motor, person became bicycle, motorcycle,
pedestrian), and 2020 has ``other person``, ``other vehicle`` and ``trailer``, which BDD100K's own
measure passes over: a class map says what they are to be.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mbnet_perception.evaluation.dataset import (
    Box,
    Dataset,
    DatasetError,
    Faults,
    OnBad,
    Picture,
    PictureLabels,
    inside,
    size_of,
)


def bdd100k_dataset(
    content: Any, path: Path, pictures: Path | None = None, on_bad: OnBad = "stop"
) -> Dataset:
    """Make a data set of BDD100K's JSON.

    The classes of the boxes that occur in the file, and those that ``config`` lists, in order of
    the alphabet, were looked for in every picture. Boxes with the attribute ``crowd`` or
    ``ignored`` become ignore areas; ``occluded`` and ``truncated`` change nothing. A frame's
    ``videoName`` is its scene group.

    Args:
        content: What the JSON file holds.
        path: That file.
        pictures: Folder of the pictures; that of the label file by default.
        on_bad: What to do about a picture that cannot be read, or a box without area.

    Raises:
        DatasetError: If the content is not in this format, names a picture outside the folder, or
            no picture is left.
    """
    try:
        return _parse(content, path, pictures or path.parent, Faults(on_bad))
    except DatasetError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DatasetError(
            f"{path}: expected BDD100K JSON, a list of frames with name and labels; "
            f"{type(error).__name__}: {error}"
        ) from error


def _parse(content: Any, path: Path, folder: Path, faults: Faults) -> Dataset:
    config: dict[str, Any] = {}
    frames = content
    if isinstance(content, dict):
        frames, config = content["frames"], content.get("config") or {}
    boxes = [list(_boxes(frame)) for frame in frames]
    names = {name for objects in boxes for name, _, _ in objects}
    classes = sorted(names | set(_leaves(config.get("categories") or [])))
    index = {name: i for i, name in enumerate(classes)}
    default = config.get("imageSize") or config.get("image_size")
    made: list[Picture] = []
    for frame, objects in zip(frames, boxes, strict=True):
        file = _picture_of(frame, folder, path)
        try:
            height, width = _size(frame.get("size") or default, file)
        except DatasetError as error:
            faults.add(str(error))
            continue
        labels = PictureLabels(
            origin=f"{path}, frame {frame['name']}",
            path=file,
            height=height,
            width=width,
            verified=np.ones(len(classes), bool),
            exhaustive=np.ones(len(classes), bool),
            objects=[(None if ignored else index[name], box) for name, ignored, box in objects],
            scene_group=str(frame.get("videoName") or ""),
        )
        made.append(labels.picture(len(made) + 1, faults))
    if not made:
        raise DatasetError(f"{path}: holds no pictures that can be used")
    return Dataset(tuple(classes), tuple(made), tuple(faults.found))


def _boxes(frame: dict[str, Any]) -> Iterator[tuple[str, bool, Box]]:
    """Class, whether it counts neither way, and xyxy of each box of a frame."""
    for label in frame.get("labels") or []:
        box = label.get("box2d")
        if box is not None:
            attributes = label.get("attributes") or {}
            ignored = bool(attributes.get("crowd") or attributes.get("ignored"))
            x1, y1, x2, y2 = (float(box[key]) for key in ("x1", "y1", "x2", "y2"))
            yield str(label["category"]), ignored, (x1, y1, x2 + 1, y2 + 1)


def _leaves(categories: list[Any]) -> Iterator[str]:
    """Names of a config's categories, which are strings, or trees of which the leaves count."""
    for category in categories:
        if isinstance(category, str):
            yield category
        elif category.get("subcategories"):
            yield from _leaves(category["subcategories"])
        else:
            yield str(category["name"])


def _picture_of(frame: dict[str, Any], folder: Path, origin: Path) -> Path:
    """Frames of a video may lie in a folder of its name."""
    path = inside(folder, frame["name"], origin)
    if frame.get("videoName"):
        of_video = inside(folder, f"{frame['videoName']}/{frame['name']}", origin)
        if of_video.is_file():
            return of_video
    return path


def _size(size: dict[str, Any] | None, file: Path) -> tuple[int, int]:
    return (int(size["height"]), int(size["width"])) if size else size_of(file)

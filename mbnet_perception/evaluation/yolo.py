"""Labels of YOLO: a ``data.yaml``, and one text file per picture.

Read as Ultralytics has it (docs.ultralytics.com/datasets/detect), and Roboflow and CVAT write it:

- ``names``: list of classes, or mapping from their numbers, which count from 0;
- ``train``, ``val``, ``test``: a folder of pictures, a text file that lists pictures, or a list of
  either, relative to ``path``, and that to the file; a ``../`` in front that leads nowhere is
  passed over, as Ultralytics does;
- the labels of ``images/a/b.jpg`` are ``labels/a/b.txt``, one object a line: class, centre x and y,
  width, height as fractions of the picture, or the corners of a polygon, whose box is taken.
  A picture without such a file has no objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mbnet_perception.core.images import SUFFIXES
from mbnet_perception.evaluation.dataset import (
    Box,
    Dataset,
    DatasetError,
    Faults,
    OnBad,
    Picture,
    PictureLabels,
    inside,
    read_text,
    read_yaml,
    size_of,
)

SPLITS = ("train", "val", "test")

# How far a fraction may leave 0 to 1 by rounding; more means that it is no fraction.
ROUNDING = 0.01


def read_yolo(
    file: Path, split: str | None = None, pictures: Path | None = None, on_bad: OnBad = "stop"
) -> Dataset:
    """Read one split of a YOLO data set. All its classes were looked for in every picture.

    Args:
        file: The YAML file.
        split: ``train``, ``val`` or ``test``; may be left out where the file has but one.
        pictures: Folder that the splits are relative to; by default what the file says, unless
            that leads out of the file's folder.
        on_bad: What to do about a label file that is none, a picture that cannot be read, or a
            box without area.

    Raises:
        DatasetError: If the file is no such YAML, names no such split or something outside its
            folder, there are no pictures or no labels at all, or no picture is left.
    """
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise DatasetError(f"{file}: expected keys and values, got {type(content).__name__}")
    classes = _classes(content, file)
    offered = [name for name in SPLITS if content.get(name)]
    if split is None and len(offered) == 1:
        split = offered[0]
    if split not in offered:
        raise DatasetError(
            f"{file}: expected one of the splits {offered} behind a colon, as {file.name}:train; "
            f"got {split!r}"
        )
    root = pictures or inside(file.parent, str(content.get("path") or "."), file)
    faults = Faults(on_bad)
    paths = list(dict.fromkeys(_pictures(content[split], root.resolve(), file)))
    if not paths:
        raise DatasetError(f"{file}: {split} holds no pictures ({', '.join(SUFFIXES)})")
    files = [_label_file(path, root.resolve()) for path in paths]
    if not any(label_file.is_file() for label_file in files):
        raise DatasetError(
            f"{file}: none of the {len(paths)} pictures of {split} has labels; expected "
            f"{files[0]} for {paths[0].name}, and so on"
        )
    made: list[Picture] = []
    for path, label_file in zip(paths, files, strict=True):
        try:
            height, width = size_of(path)
            fractions = _read_labels(label_file, len(classes)) if label_file.is_file() else []
        except DatasetError as error:
            faults.add(str(error))
            continue
        labels = PictureLabels(
            origin=str(label_file),
            path=path,
            height=height,
            width=width,
            verified=np.ones(len(classes), bool),
            exhaustive=np.ones(len(classes), bool),
            objects=[
                (index, (x1 * width, y1 * height, x2 * width, y2 * height))
                for index, (x1, y1, x2, y2) in fractions
            ],
        )
        made.append(labels.picture(len(made) + 1, faults))
    if not made:
        raise DatasetError(f"{file}: {split} holds no pictures that can be used")
    return Dataset(classes, tuple(made), tuple(faults.found))


def _classes(content: dict[str, Any], file: Path) -> tuple[str, ...]:
    names = content.get("names")
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DatasetError(
            f"{file}: expected names, a list of classes or a mapping from 0, 1, ...; got {names!r}"
        )
    return tuple(map(str, names))


def _pictures(entry: object, root: Path, origin: Path) -> Iterator[Path]:
    """Picture files of an entry: a folder's in alphabetical order, a list's in its own."""
    for name in entry if isinstance(entry, list) else [entry]:
        path = root / str(name)
        if str(name).startswith("../") and not path.exists():
            name = str(name)[len("../") :]
        path = inside(root, str(name), origin)
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        elif path.suffix == ".txt":
            lines = (line.strip() for line in read_text(path).splitlines())
            yield from (inside(root, line, path) for line in lines if line)
        else:
            raise DatasetError(f"{origin}: expected a folder or a .txt file, {path} is neither")


def _label_file(picture: Path, root: Path) -> Path:
    parts = list(picture.relative_to(root).parts)
    folders = parts[:-1]
    if "images" in folders:
        parts[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return root.joinpath(*parts).with_suffix(".txt")


def _read_labels(file: Path, classes: int) -> list[tuple[int, Box]]:
    """Class and xyxy as fractions of the picture, one for each line that is not empty."""
    objects = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        try:
            if line.strip():
                objects.append(_read_line(line.split(), classes))
        except ValueError as error:
            raise DatasetError(f"{file}, line {number}: {error}") from error
    return objects


def _read_line(words: list[str], classes: int) -> tuple[int, Box]:
    values = [float(word) for word in words]
    if values[0] not in range(classes):
        raise ValueError(f"expected a class from 0 to {classes - 1}, got {words[0]}")
    # Six numbers more may be three corners, or a box and its score, which is no label.
    if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
        raise ValueError(
            f"expected class, x, y, width, height or a polygon, got {len(values)} numbers"
        )
    if not all(-ROUNDING <= value <= 1 + ROUNDING for value in values[1:]):
        raise ValueError(f"expected fractions of the picture, from 0 to 1, got {' '.join(words)}")
    index = int(values[0])
    if len(values) == 5:
        x, y, width, height = values[1:]
        return index, (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    xs, ys = values[1::2], values[2::2]
    return index, (min(xs), min(ys), max(xs), max(ys))

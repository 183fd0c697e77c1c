"""Labels of Pascal VOC: one XML file per picture.

Read as the development kit of VOC2012 has it (host.robots.ox.ac.uk/pascal/VOC/voc2012), and as
labelling tools write it, which call the folders ``annotations`` and ``images`` at times:

- ``Annotations/NAME.xml`` with ``size``, and for each ``object`` a ``name``, a ``bndbox`` and
  maybe ``difficult``;
- ``JPEGImages``: the picture that ``filename`` tells, or else the one called as the XML file;
- ``ImageSets/Main/SPLIT.txt``: names of a split, one a line, behind which anything may follow.

Pixels are counted from 1 and the last one belongs to the box: xmin 1 and xmax W is the whole width,
which is 0 to W here.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

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
    read_bytes,
    read_text,
    size_of,
)

ANNOTATIONS = ("Annotations", "annotations")
PICTURES = ("JPEGImages", "images")


def find_annotations(folder: Path) -> Path | None:
    """The folder of XML files in a folder that is laid out like VOC, None in any other."""
    found = (folder / name for name in ANNOTATIONS)
    return next((path for path in found if path.is_dir() and any(path.glob("*.xml"))), None)


def read_voc(
    folder: Path, split: str | None = None, pictures: Path | None = None, on_bad: OnBad = "stop"
) -> Dataset:
    """Read a Pascal VOC folder.

    The names that occur in any of its annotations, in order of the alphabet, were looked for in
    every picture. Objects that ``difficult`` marks become ignore areas, as in VOC's own measure.

    Args:
        folder: Holds ``Annotations``.
        split: Name of a list in ``ImageSets/Main``; without it every annotated picture is read.
        pictures: Folder of the pictures; ``JPEGImages`` by default.
        on_bad: What to do about an XML file that is none, a picture that is missing, or a box
            without area.

    Raises:
        DatasetError: If there are no annotations, or no such split, or none is left.
    """
    annotations = find_annotations(folder)
    if annotations is None:
        raise DatasetError(f"{folder}: expected a folder Annotations with XML files")
    if pictures is None:
        found = (folder / name for name in PICTURES)
        pictures = next((path for path in found if path.is_dir()), folder / PICTURES[0])
    faults = Faults(on_bad)
    files = sorted(annotations.glob("*.xml"))
    wanted = {file.stem for file in files}
    if split is not None:
        listing = folder / "ImageSets" / "Main" / f"{split}.txt"
        listed = {line.split()[0] for line in read_text(listing).splitlines() if line.strip()}
        for name in sorted(listed - wanted):
            faults.add(f"{listing}: {name!r} has no file {annotations / name}.xml")
        wanted &= listed
    # All are parsed: a class that occurs in another split alone was looked for in this one too.
    parsed: dict[Path, _Annotation] = {}
    for file in files:
        try:
            parsed[file] = _parse(file)
        except DatasetError as error:
            if file.stem in wanted:
                faults.add(str(error))
    classes = sorted({name for annotation in parsed.values() for name, _, _ in annotation.objects})
    index = {name: i for i, name in enumerate(classes)}
    made: list[Picture] = []
    for file, annotation in parsed.items():
        if file.stem not in wanted:
            continue
        try:
            path = _picture_of(annotation, file, pictures)
            height, width = annotation.size or size_of(path)
        except DatasetError as error:
            faults.add(str(error))
            continue
        labels = PictureLabels(
            origin=str(file),
            path=path,
            height=height,
            width=width,
            verified=np.ones(len(classes), bool),
            exhaustive=np.ones(len(classes), bool),
            objects=[
                (None if difficult else index[name], box)
                for name, difficult, box in annotation.objects
            ],
        )
        made.append(labels.picture(len(made) + 1, faults))
    if not made:
        raise DatasetError(f"{folder}: holds no pictures with labels that can be read")
    return Dataset(tuple(classes), tuple(made), tuple(faults.found))


class _Annotation(NamedTuple):
    """One XML file: objects are name, whether difficult, and box; size is height and width."""

    file_name: str
    size: tuple[int, int] | None
    objects: list[tuple[str, bool, Box]]


class _WithoutDoctype(ElementTree.TreeBuilder):
    """VOC has no document type, and only there can entities be declared that blow up."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Refuse it as soon as it begins."""
        raise ValueError(f"a document type ({name}) is not read")


def _parse(file: Path) -> _Annotation:
    content = read_bytes(file)
    parser = ElementTree.XMLParser(target=_WithoutDoctype())
    try:
        parser.feed(content)
        root = parser.close()
        height, width = (int(float(root.findtext(f"size/{k}", "0"))) for k in ("height", "width"))
        objects = [
            (
                _text(item, "name"),
                item.findtext("difficult", "0").strip() not in ("", "0"),
                _box(item),
            )
            for item in root.iterfind("object")
        ]
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise DatasetError(f"{file}: expected VOC XML: {error}") from error
    size = (height, width) if height > 0 and width > 0 else None
    return _Annotation(root.findtext("filename", "").strip(), size, objects)


def _box(item: ElementTree.Element) -> Box:
    x1, y1, x2, y2 = (float(_text(item, f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax"))
    return x1 - 1, y1 - 1, x2, y2


def _text(item: ElementTree.Element, path: str) -> str:
    text = item.findtext(path, "").strip()
    if not text:
        raise ValueError(f"an object has no {path}")
    return text


def _picture_of(annotation: _Annotation, file: Path, folder: Path) -> Path:
    named = inside(folder, annotation.file_name or f"{file.stem}{SUFFIXES[0]}", file)
    # Tools that rename or convert pictures leave the old file name in the labels.
    alike = (folder / f"{file.stem}{suffix}" for suffix in SUFFIXES)
    return next((path for path in (named, *alike) if path.is_file()), named)

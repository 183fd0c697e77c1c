"""What is wrong with a data set, before a network learns it."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mbnet_perception.core.drawing import FONT, class_colour, text_colour
from mbnet_perception.evaluation.dataset import (
    Dataset,
    DatasetError,
    Picture,
    decode_picture,
    read_bytes,
    read_picture,
)

# Side of a difference hash in bits, and in how many of its 256 bits nearly equal pictures differ
# at most. Among 9,207 driving pictures the pairs up to 25 that were looked at were of one scene;
# from 31 on there were different objects before white.
HASH_SIDE = 16
NEAR = 20
BLOCK = 1024

# Sides of objects (geometric mean) in pixels of an input whose long side is RESOLUTION.
RESOLUTION = 320
SIDES = (8, 16, 32, 64, 128)

# Boxes may leave their picture by so many pixels, which labelling tools do by rounding.
ROUNDING = 1.0

# Kinds of errors, and of warnings.
BAD = "bad files and boxes"
SHARED_SCENES = "scene groups on both sides"
SHARED_PICTURES = "pictures on both sides"
REPEATED_PICTURES = "pictures given twice"
OUTSIDE = "boxes that stick out of their picture"
REPEATED_BOXES = "boxes given twice"
NO_BOXES = "classes without boxes"

# Of the contact sheet, in pixels: a picture with its name, and the legend.
CELL = 320, 240
NAME = 16
LEGEND = 28
GREY = (128, 128, 128)


@dataclass(frozen=True)
class ClassCount:
    """What there is of a class.

    Attributes:
        boxes: Objects.
        pictures: Pictures with objects.
        without: Pictures that were searched for it in vain.
        sides: Objects by side, in pixels at a long side of ``RESOLUTION``: under the first of
            ``SIDES``, from there to the second, and so on.
    """

    boxes: int
    pictures: int
    without: int
    sides: tuple[int, ...]


@dataclass(frozen=True)
class Report:
    """What a check found. Errors are what must not be; warnings are worth a look.

    Attributes:
        pictures: How many can be used.
        empty: Of these, the ones without an object.
        ignore_areas: Areas that count neither way.
        classes: By name.
        errors, warnings: Findings by kind, each a line that names its file.
    """

    pictures: int
    empty: int
    ignore_areas: int
    classes: dict[str, ClassCount]
    errors: dict[str, list[str]]
    warnings: dict[str, list[str]]


class Fingerprint(NamedTuple):
    """What tells pictures apart: a hash of the file, and the difference hash."""

    file: bytes
    bits: NDArray[np.float32]


def check(datasets: Sequence[Dataset], against: Sequence[Dataset] = ()) -> Report:
    """Decode every picture, and look for what misleads a network or its measure.

    Args:
        datasets: To be used together; of the same classes, and read with ``skip``, so that what
            is bad stands in :attr:`Dataset.skipped`.
        against: Data sets that must share nothing with them, such as those to measure on.

    Raises:
        ValueError: If there are no data sets.
    """
    if not datasets:
        raise ValueError("expected at least one data set to check")
    bad = [fault for dataset in (*datasets, *against) for fault in dataset.skipped]
    pictures, prints = _look_at(datasets, bad)
    others, other_prints = _look_at(against, bad)
    classes = datasets[0].classes
    counts = _count(pictures, classes)
    errors = {
        BAD: bad,
        SHARED_SCENES: _shared_scenes(pictures, others),
        SHARED_PICTURES: _repeats(pictures, prints, others, other_prints) if others else [],
    }
    warnings = {
        REPEATED_PICTURES: _repeats(pictures, prints),
        OUTSIDE: [line for picture in pictures for line in _outside(picture, classes)],
        REPEATED_BOXES: [
            line for picture in pictures for line in _repeated_boxes(picture, classes)
        ],
        NO_BOXES: [name for name, count in counts.items() if not count.boxes],
    }
    return Report(
        pictures=len(pictures),
        empty=sum(not len(picture.boxes) for picture in pictures),
        ignore_areas=sum(len(picture.ignore) for picture in pictures),
        classes=counts,
        errors={kind: lines for kind, lines in errors.items() if lines},
        warnings={kind: lines for kind, lines in warnings.items() if lines},
    )


def describe(report: Report, most: int = 5) -> list[str]:
    """The report as lines for a terminal, with at most so many findings of a kind."""
    sides = [f"<{side}" for side in SIDES] + [f">={SIDES[-1]}"]
    lines = [
        f"{report.pictures} pictures, {report.empty} of them without objects, "
        f"{report.ignore_areas} areas that count neither way",
        f"{'':38} boxes by side in pixels at a long side of {RESOLUTION}",
        f"{'class':18} {'boxes':>6} {'with':>6} {'without':>7}"
        + "".join(f" {side:>6}" for side in sides),
    ]
    lines += [
        f"{name:18} {count.boxes:6} {count.pictures:6} {count.without:7}"
        + "".join(f" {n:6}" for n in count.sides)
        for name, count in report.classes.items()
    ]
    for title, findings in (("error", report.errors), ("warning", report.warnings)):
        for kind, found in findings.items():
            lines.append(f"{title}: {kind}: {len(found)}")
            lines += [f"  {line}" for line in found[:most]]
            lines += [f"  ... and {len(found) - most} more"] if len(found) > most else []
    return lines


def difference_hash(bgr: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Whether each of 16 x 16 places of a picture is brighter than the one to its right.

    Another size, compression or brightness changes few of the bits (N. Krawetz, "Kind of Like
    That", 2013).

    Args:
        bgr: (H, W, 3) uint8.

    Returns:
        (256,) float32 of -1 and 1, so that a matrix product counts the bits that agree.
    """
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA)
    return np.where(small[:, :-1] > small[:, 1:], 1, -1).astype(np.float32).ravel()


def nearest(
    bits: NDArray[np.float32], others: NDArray[np.float32] | None = None
) -> dict[int, tuple[int, int]]:
    """For each picture the other one with the nearest difference hash, where one is near.

    Args:
        bits: (N, 256) of -1 and 1.
        others: (M, 256) likewise, M > 0; without them, the pictures before each.

    Returns:
        From the place of a picture, that of the other one and in how many bits they differ.
    """
    found = {}
    for start in range(0, len(bits), BLOCK):
        block = bits[start : start + BLOCK]
        among = bits[: start + len(block)] if others is None else others
        differing = (block.shape[1] - block @ among.T) / 2
        if others is None:
            places = np.arange(len(among))
            differing[places >= places[start:, None]] = np.inf
        best, least = differing.argmin(1), differing.min(1)
        for i in np.flatnonzero(least <= NEAR):
            found[start + int(i)] = int(best[i]), int(least[i])
    return found


def draw_sheet(datasets: Sequence[Dataset], columns: int = 6, rows: int = 6) -> NDArray[np.uint8]:
    """Draw some pictures of data sets with their boxes, for people to look at.

    Classes take turns, so that rare ones are there too. Areas that count neither way are grey.

    Args:
        datasets: Of the same classes.
        columns, rows: How many pictures; fewer where there are not so many.

    Returns:
        (H, W, 3) uint8 BGR. In place of a picture that cannot be read it says so.
    """
    classes = datasets[0].classes
    chosen = _choose([p for d in datasets for p in d.pictures], len(classes), columns * rows)
    cells = [_draw_cell(picture) for picture in chosen]
    cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    bands = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    return np.vstack([*bands, *_draw_legend(classes, bands[0].shape[1])])


def _look_at(
    datasets: Sequence[Dataset], bad: list[str]
) -> tuple[list[Picture], list[Fingerprint]]:
    """The pictures that can be decoded, with their fingerprints; why others cannot goes to bad."""

    def look(picture: Picture) -> Fingerprint | str:
        try:
            content = read_bytes(picture.path)
            image = decode_picture(picture, content)
        except DatasetError as error:
            return str(error)
        return Fingerprint(hashlib.blake2b(content).digest(), difference_hash(image))

    pictures = [picture for dataset in datasets for picture in dataset.pictures]
    good, prints = [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = tqdm(
            pool.map(look, pictures),
            "check",
            len(pictures),
            file=sys.stderr,
            mininterval=2,
            disable=None,
        )
        for picture, result in zip(pictures, results, strict=True):
            if isinstance(result, str):
                bad.append(result)
            else:
                good.append(picture)
                prints.append(result)
    return good, prints


def _count(pictures: Sequence[Picture], classes: Sequence[str]) -> dict[str, ClassCount]:
    sides: list[list[float]] = [[] for _ in classes]
    found = np.zeros(len(classes), np.int64)
    without = np.zeros(len(classes), np.int64)
    for picture in pictures:
        present = np.bincount(picture.classes, minlength=len(classes)) > 0
        found += present
        without += picture.verified & picture.exhaustive & ~present
        scale = RESOLUTION / max(picture.height, picture.width)
        size = picture.boxes[:, 2:] - picture.boxes[:, :2]
        for index, side in zip(picture.classes, np.sqrt(size.prod(1)) * scale, strict=True):
            sides[index].append(float(side))
    counts = {}
    for i, name in enumerate(classes):
        histogram = np.bincount(np.digitize(sides[i], SIDES), minlength=len(SIDES) + 1)
        counts[name] = ClassCount(
            len(sides[i]), int(found[i]), int(without[i]), tuple(histogram.tolist())
        )
    return counts


def _shared_scenes(pictures: Sequence[Picture], others: Sequence[Picture]) -> list[str]:
    scenes = {picture.scene_group: picture for picture in others if picture.scene_group}
    return [
        f"{picture.path}: scene group {picture.scene_group!r} as {scenes[picture.scene_group].path}"
        for picture in pictures
        if picture.scene_group in scenes
    ]


def _repeats(
    pictures: Sequence[Picture],
    prints: Sequence[Fingerprint],
    others: Sequence[Picture] | None = None,
    other_prints: Sequence[Fingerprint] = (),
) -> list[str]:
    """Pictures that are, or nearly are, one of the others, or one before where there are none."""
    if not pictures:
        return []
    bits = np.stack([one.bits for one in prints])
    near = nearest(bits, None if others is None else np.stack([o.bits for o in other_prints]))
    among = pictures if others is None else others
    same = {one.file: picture for one, picture in zip(other_prints, among, strict=False)}
    lines = []
    for i, (picture, one) in enumerate(zip(pictures, prints, strict=True)):
        if one.file in same:
            lines.append(f"{picture.path}: the same file as {same[one.file].path}")
        elif i in near:
            place, differing = near[i]
            lines.append(
                f"{picture.path}: nearly {among[place].path} "
                f"({differing} of {bits.shape[1]} bits differ)"
            )
        if others is None:
            same.setdefault(one.file, picture)
    return lines


def _outside(picture: Picture, classes: Sequence[str]) -> Iterator[str]:
    edge = np.array([picture.width, picture.height], np.float32)
    beyond = np.concatenate([-picture.boxes[:, :2], picture.boxes[:, 2:] - edge], 1)
    for i in np.flatnonzero((beyond > ROUNDING).any(1)):
        yield f"{picture.path}: {_box(picture, classes, int(i))}, by {beyond[i].max():.0f} pixels"


def _repeated_boxes(picture: Picture, classes: Sequence[str]) -> Iterator[str]:
    rows = np.concatenate([picture.classes[:, None], picture.boxes], 1)
    _, first = np.unique(rows, axis=0, return_index=True)
    for i in sorted({*range(len(rows))} - {*first.tolist()}):
        yield f"{picture.path}: {_box(picture, classes, i)}"


def _box(picture: Picture, classes: Sequence[str], index: int) -> str:
    corners = " ".join(f"{value:g}" for value in picture.boxes[index])
    return f"{classes[picture.classes[index]]} {corners}"


def _choose(pictures: Sequence[Picture], classes: int, count: int) -> list[Picture]:
    """Pictures for a contact sheet: always the same ones, spread over classes and the set."""
    order = np.random.default_rng(0).permutation(len(pictures)).tolist()
    waiting = [[i for i in order if k in pictures[i].classes] for k in range(classes)]
    waiting.append(order)  # with the others take turns pictures with whatever is in them
    chosen: dict[int, Picture] = {}
    while len(chosen) < min(count, len(pictures)):
        for queue in waiting:
            left = [i for i in queue if i not in chosen]
            if left and len(chosen) < count:
                chosen[left[0]] = pictures[left[0]]
    return list(chosen.values())


def _draw_cell(picture: Picture) -> NDArray[np.uint8]:
    width, height = CELL
    cell = np.full((height, width, 3), 255, np.uint8)
    cv2.putText(cell, picture.path.name, (2, height - 4), FONT, 0.35, (0, 0, 0), 1, cv2.LINE_AA)
    try:
        image = read_picture(picture)
    except DatasetError:
        cv2.putText(cell, "cannot be read", (2, 20), FONT, 0.5, (0, 0, 255), 1, cv2.LINE_AA)
        return cell
    scale = min(width / picture.width, (height - NAME) / picture.height)
    size = max(1, int(picture.width * scale)), max(1, int(picture.height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    for area in (picture.ignore * scale).astype(int).tolist():
        cv2.rectangle(small, area[:2], area[2:], GREY, cv2.FILLED)
    boxes = np.rint(picture.boxes * scale).astype(int).tolist()
    for box, index in zip(boxes, picture.classes.tolist(), strict=True):
        cv2.rectangle(small, box[:2], box[2:], class_colour(index), 1)
    cell[: size[1], : size[0]] = small
    return cell


def _draw_legend(classes: Sequence[str], width: int) -> list[NDArray[np.uint8]]:
    """Strips with the classes' names in their colours, as many as it takes."""
    strips = [np.full((LEGEND, width, 3), 255, np.uint8)]
    x = 0
    for i, name in enumerate(classes):
        needed = cv2.getTextSize(name, FONT, 0.5, 1)[0][0] + 16
        if x and x + needed > width:
            strips.append(np.full_like(strips[0], 255))
            x = 0
        colour = class_colour(i)
        cv2.rectangle(strips[-1], (x, 0), (x + needed, LEGEND), colour, cv2.FILLED)
        cv2.putText(strips[-1], name, (x + 8, 19), FONT, 0.5, text_colour(colour), 1, cv2.LINE_AA)
        x += needed
    return strips

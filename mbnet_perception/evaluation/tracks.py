"""Objects followed through the pictures of a bag, and how a detector loses them on the way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core.detections import iou_matrix
from mbnet_perception.evaluation.bag_results import Dropouts
from mbnet_perception.evaluation.dataset import Picture

# Where nobody says which object is which, a box goes on with the one that it overlaps by so much,
# and that was out of sight for at most so many pictures.
LEAST_OVERLAP = 0.3
GAP = 2

# A picture stands for the time until the next one, but for no more than as many usual intervals,
# and for no more seconds. The rest of a longer one is a pause in the recording.
LONGEST_INTERVAL = 3
LONGEST_SECONDS = 60.0


def follow_objects(
    pictures: Sequence[Picture],
    identities: Sequence[tuple[str, ...] | None],
    stamps: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Tell which boxes of the truth are the same object.

    Where the labels give each box of the bag an identity, boxes of a class with the same one are.
    Otherwise overlap from picture to picture decides, the greatest first. Where stamps go back,
    as in a bag of several recordings, all objects are new.

    Args:
        pictures: Labelled pictures in the bag's order.
        identities: Of each picture's boxes, all different; None where the labels do not say.
        stamps: Of each picture, ns.

    Returns:
        (B,) number of the object of each box, by picture and then in its order, from 0 on.
    """
    anew = np.diff(stamps, prepend=stamps[:1]) < 0
    if all(names is not None for names in identities):
        return _follow_identities(pictures, identities, anew)
    return _follow_overlaps(pictures, anew)


def frame_seconds(stamps: NDArray[np.int64]) -> NDArray[np.float64]:
    """Time that each picture stands for: until the next one, without pauses in the recording.

    The last one, and one before stamps go back, stand for the usual interval (the median).

    Args:
        stamps: (F,) in the bag's order, ns.

    Returns:
        (F,) seconds; 0 where there is only one picture.
    """
    seconds = np.diff(stamps, append=stamps[-1:] - 1) / 1e9
    usual = float(np.median(seconds[seconds > 0])) if (seconds > 0).any() else 0.0
    longest = min(LONGEST_INTERVAL * usual, LONGEST_SECONDS)
    return np.minimum(np.where(seconds < 0, usual, seconds), longest)


def measure_dropouts(
    objects: NDArray[np.int64], seconds: NDArray[np.float64], found: NDArray[np.bool_]
) -> Dropouts:
    """Count how often and how long objects are lost that were found before.

    Args:
        objects: (B,) number of the object that is in sight.
        seconds: (B,) for how long it is.
        found: (B,) whether it is found. Each object's rows are in the order of time.
    """
    order = np.argsort(objects, kind="stable")
    own, time, seen = objects[order], seconds[order], found[order]
    first = np.diff(own, prepend=-1) != 0
    # How often its object was found up to each row.
    count = np.cumsum(seen, dtype=np.int64)
    rows = np.diff(np.flatnonzero(first), append=len(own))
    count = count - np.repeat((count - seen)[first], rows)
    lost = ~seen & (count > 0)
    begins = lost & ~np.append(False, lost[:-1])  # an object's first row is never lost
    dropout = np.cumsum(begins)[lost] - 1
    frames, lengths = np.bincount(dropout), np.bincount(dropout, time[lost])
    # Found again: after a row that is lost. The first time an object is found is no flicker.
    changes = int(begins.sum()) + int((~first[1:] & seen[1:] & lost[:-1]).sum())
    last = np.append(first[1:], True)[: len(own)]
    sight = float(time.sum())
    return Dropouts(
        objects=int(first.sum()),
        frames=len(own),
        found=int(seen.sum()),
        never=int((count[last] == 0).sum()),
        count=len(frames),
        mean_frames=float(frames.mean()) if len(frames) else 0.0,
        longest_frames=int(frames.max(initial=0)),
        mean_seconds=float(lengths.mean()) if len(frames) else 0.0,
        longest_seconds=float(lengths.max(initial=0)),
        flicker=changes / sight if sight else 0.0,
    )


def _follow_identities(
    pictures: Sequence[Picture],
    identities: Sequence[tuple[str, ...] | None],
    anew: NDArray[np.bool_],
) -> NDArray[np.int64]:
    numbers: dict[tuple[int, str, int], int] = {}
    recording = np.cumsum(anew).tolist()
    objects = [
        numbers.setdefault((part, name, k), len(numbers))
        for part, picture, names in zip(recording, pictures, identities, strict=True)
        for name, k in zip(names or (), picture.classes.tolist(), strict=True)
    ]
    return np.array(objects, np.int64)


def _follow_overlaps(pictures: Sequence[Picture], anew: NDArray[np.bool_]) -> NDArray[np.int64]:
    objects: list[int] = []
    count = 0
    # Objects that a box may go on with: when and where each was seen last.
    number, place = np.zeros(0, np.int64), np.zeros(0, np.int64)
    boxes, classes = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    for i, picture in enumerate(pictures):
        alive = (i - place <= GAP + 1) & ~anew[i]
        number, place, boxes, classes = number[alive], place[alive], boxes[alive], classes[alive]
        own = np.full(len(picture.boxes), -1, np.int64)
        overlap = iou_matrix(picture.boxes, boxes)
        overlap[picture.classes[:, None] != classes] = 0
        rows, columns = np.nonzero(overlap >= LEAST_OVERLAP)
        free = np.ones(len(number), bool)
        for pair in np.argsort(-overlap[rows, columns], kind="stable").tolist():
            row, column = rows[pair], columns[pair]
            if own[row] < 0 and free[column]:
                own[row], free[column] = number[column], False
        new = np.flatnonzero(own < 0)
        own[new] = np.arange(count, count + len(new))
        count += len(new)
        objects += own.tolist()
        number = np.concatenate([number[free], own])
        place = np.concatenate([place[free], np.full(len(own), i)])
        boxes = np.concatenate([boxes[free], picture.boxes])
        classes = np.concatenate([classes[free], picture.classes])
    return np.array(objects, np.int64)

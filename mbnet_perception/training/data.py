"""Labelled pictures to augmented batches.

Whatever happens to a picture follows from the recipe's seed, the epoch and its place in the epoch,
so batches are the same whether a run was resumed or not and however many workers load them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from mbnet_perception.evaluation.dataset import Dataset, DatasetError, Picture, read_picture
from mbnet_perception.training.loss import Targets

if TYPE_CHECKING:
    from mbnet_perception.training.policy import Policy

Image = NDArray[np.uint8]

# Height over width of a batch: cameras are 4:3, most pictures in the public sets are square.
ASPECTS = (0.75, 1.0)
# What a crop leaves of an object to still call it one, and the smallest object in input pixels
# (geometric mean of the sides) that is worth a label. Anything less counts neither way.
VISIBLE = 0.4
SMALLEST = 5.0
WHOLE_PICTURES = 0.25
SMALLEST_CROP = 0.35
# Where the four pictures of a mosaic meet, as shares of its sides.
MOSAIC_CENTRE = (0.35, 0.65)


@dataclass(frozen=True)
class Draw:
    """One picture of a batch: which, at what input size in pixels, and its random seed."""

    index: int
    height: int
    width: int
    seed: tuple[int, ...]


class BatchSampler(Sampler[list[Draw]]):
    """Shuffled batches, all pictures of a batch at one input size.

    The run starts with the smallest two sizes and takes in the larger ones one by one: early steps
    are cheap, and in the end the network knows every size that the car may use. A size is drawn as
    often as it has area: the deep maps of a large input hold more that a small one never shows.

    ``repeats`` holds how often each picture comes, relative to the others; an epoch has as many
    draws as there are pictures. Where all are alike, each comes once.

    Several processes share out each batch: this one has draw ``rank`` and each ``processes``
    further. A last batch that does not come out even, or at one picture each, which gives
    normalisation nothing to go by, is filled up from its start.

    Set ``epoch`` before each pass, and ``skip`` to the number of batches that were had already.
    """

    def __init__(
        self,
        repeats: NDArray[np.float64],
        batch_size: int,
        sizes: Sequence[int],
        epochs: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        if batch_size % processes or batch_size < 2 * processes:
            raise ValueError(
                f"batch_size {batch_size} cannot be shared out to {processes} processes: "
                "each must have as many, and two at least"
            )
        self.repeats = repeats
        self.pictures = len(repeats)
        self.batch_size = batch_size
        self.sizes = sorted(sizes)
        self.epochs = epochs
        self.seed = seed
        self.rank = rank
        self.processes = processes
        self.epoch = 0
        self.skip = 0

    def __len__(self) -> int:
        return -(-self.pictures // self.batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(self.pictures)
        if np.ptp(self.repeats):
            order = rng.choice(self.pictures, self.pictures, p=self.repeats / self.repeats.sum())
        progress = self.epoch / max(1, self.epochs - 1)
        sizes = np.array(self.sizes[: 2 + round(progress * len(self.sizes))])
        share = sizes**2 / (sizes**2).sum()
        for batch in range(len(self)):
            start = batch * self.batch_size
            size = int(rng.choice(sizes, p=share))
            height = round(size * float(rng.choice(ASPECTS)))
            draws = [
                Draw(int(i), height, size, (self.seed, self.epoch, start + k))
                for k, i in enumerate(order[start : start + self.batch_size])
            ]
            if batch >= self.skip:
                each = max(2, -(-len(draws) // self.processes))
                draws = list(islice(cycle(draws), each * self.processes))
                yield draws[self.rank :: self.processes]


class TrainingData(TorchDataset[tuple[Image, Targets]]):
    """Augmented pictures of several data sets.

    Args:
        sources: Data sets of the same classes, each with how often its pictures come, relative to
            the others'.
        policy: What else happens to each picture; it leaves boxes where they are.
        mosaic: Share of draws that show four pictures at about half size (YOLOv4, arXiv
            2004.10934, section 3.3). Crops only ever make objects larger; this makes small ones.

    Raises:
        DatasetError: If there is nothing to learn.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Dataset, float]],
        policy: Policy | None = None,
        mosaic: float = 0.0,
    ) -> None:
        self.classes = sources[0][0].classes
        assert all(source.classes == self.classes for source, _ in sources)
        self.policy = policy
        self.mosaic = mosaic
        self.pictures = [picture for source, _ in sources for picture in source.pictures]
        counts = [len(source.pictures) for source, _ in sources]
        self.weights = np.repeat([weight for _, weight in sources], counts)
        if not any(len(picture.boxes) for picture in self.pictures):
            raise DatasetError(
                f"there is nothing to learn: {len(self)} pictures for training, and no box in them"
            )

    def __len__(self) -> int:
        return len(self.pictures)

    def repeat_factors(self, balance: float) -> NDArray[np.float64]:
        """How often each picture should come: by its source's weight, and so that rare classes do.

        See ``Recipe.balance``.
        """
        classes_of = [set(picture.classes.tolist()) for picture in self.pictures]
        count = Counter(k for classes in classes_of for k in classes)
        factor = {k: max(1.0, math.sqrt(balance * len(self) / n)) for k, n in count.items()}
        repeats = [max((factor[k] for k in classes), default=1.0) for classes in classes_of]
        return np.array(repeats) * self.weights

    def indices(self, draw: Draw) -> list[int]:
        """The pictures that a draw shows: one, or the four of a mosaic."""
        # Random numbers of their own, so that a mosaic changes nothing for the other draws.
        rng = np.random.default_rng((*draw.seed, 2))
        if rng.random() >= self.mosaic:
            return [draw.index]
        return [draw.index, *rng.integers(len(self), size=3).tolist()]

    def __getitem__(self, draw: Draw) -> tuple[Image, Targets]:
        rng = np.random.default_rng(draw.seed)
        height, width = draw.height, draw.width
        indices = self.indices(draw)
        if len(indices) == 1:
            view = self._view(draw.index, height, width, rng)
        else:
            x, y = (round(side * rng.uniform(*MOSAIC_CENTRE)) for side in (width, height))
            corners = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
            parts = [
                (self._view(index, y2 - y1, x2 - x1, rng), (x1, y1))
                for index, (x1, y1, x2, y2) in zip(indices, corners, strict=True)
            ]
            view = join_views(parts, height, width)
        if rng.random() < 0.5:
            view = view.mirrored()
        image = shift_colours(view.image, rng)
        if self.policy:
            image = self.policy.apply(image, seed=(*draw.seed, 1))
        return image, Targets(
            boxes=torch.from_numpy(view.boxes),
            classes=torch.from_numpy(view.classes),
            countable=torch.from_numpy(view.countable),
            ignore=torch.from_numpy(view.ignore),
            ignored=torch.from_numpy(view.ignored),
        )

    def _view(self, index: int, height: int, width: int, rng: np.random.Generator) -> View:
        """A random part of a picture, ``height`` x ``width`` pixels large."""
        picture = self.pictures[index]
        image = cv2.cvtColor(read_picture(picture), cv2.COLOR_BGR2RGB)
        crop = choose_crop(picture.height, picture.width, height / width, rng)
        x, y, crop_width, crop_height = crop
        resized = cv2.resize(
            image[y : y + crop_height, x : x + crop_width],
            (width, height),
            interpolation=cv2.INTER_AREA if crop_width > width else cv2.INTER_LINEAR,
        )
        boxes, classes, ignore = crop_boxes(picture, crop, (height, width))
        countable = picture.verified & picture.exhaustive
        ignored = np.ones((len(ignore), len(self.classes)), bool)
        return View(np.asarray(resized, np.uint8), boxes, classes, countable, ignore, ignored)


@dataclass(frozen=True)
class View:
    """An input in the making: (height, width, 3) uint8 RGB, the rest as in :class:`Targets`."""

    image: Image
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    countable: NDArray[np.bool_]
    ignore: NDArray[np.float32]
    ignored: NDArray[np.bool_]

    def mirrored(self) -> View:
        """Left to right."""
        return replace(
            self,
            image=np.asarray(cv2.flip(self.image, 1), np.uint8),
            boxes=mirror_boxes(self.boxes),
            ignore=mirror_boxes(self.ignore),
        )


def join_views(parts: Sequence[tuple[View, tuple[int, int]]], height: int, width: int) -> View:
    """Lay views side by side in a ``height`` x ``width`` input.

    What may be counted as absent differs from part to part, so each part is an ignore area for the
    classes that cannot be counted in it.

    Args:
        parts: Views, each with the pixel x, y of its upper left corner. They fill the input.
        height, width: Of the input, pixels.
    """
    image = np.empty((height, width, 3), np.uint8)
    boxes, ignore, ignored = [], [], []
    for view, (x, y) in parts:
        h, w = view.image.shape[:2]
        image[y : y + h, x : x + w] = view.image
        scale = np.array([w / width, h / height] * 2, np.float32)
        corner = np.array([x / width, y / height] * 2, np.float32)
        # Half a pixel more each way: no anchor on the border is to fall between two parts.
        seam = np.array([-0.5, -0.5, w + 0.5, h + 0.5], np.float32) / [w, h, w, h]
        boxes.append(view.boxes * scale + corner)
        areas = np.concatenate([view.ignore, seam[None].astype(np.float32)])
        ignore.append(areas * scale + corner)
        ignored += [view.ignored, ~view.countable[None]]
    return View(
        image,
        np.concatenate(boxes),
        np.concatenate([view.classes for view, _ in parts]),
        np.ones(len(parts[0][0].countable), bool),
        np.concatenate(ignore),
        np.concatenate(ignored),
    )


def collate(samples: Sequence[tuple[Image, Targets]]) -> tuple[Tensor, list[Targets]]:
    """Stack pictures to (B, H, W, 3) uint8 RGB."""
    return torch.from_numpy(np.stack([image for image, _ in samples])), [t for _, t in samples]


def choose_crop(
    height: int, width: int, aspect: float, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """A random part of the picture, near ``aspect`` (height over width), or all of it.

    Public sets come squeezed into squares, so shapes may be stretched by a fifth either way.

    Returns:
        x, y, width, height in picture pixels, inside the picture.
    """
    if rng.random() < WHOLE_PICTURES:
        return 0, 0, width, height
    aspect *= float(np.exp(rng.uniform(-0.2, 0.2)))
    widest = min(width, height / aspect)
    crop_width = widest * rng.uniform(SMALLEST_CROP, 1)
    w, h = max(1, round(crop_width)), max(1, min(height, round(crop_width * aspect)))
    return int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h


def crop_boxes(
    picture: Picture, crop: tuple[int, int, int, int], input_hw: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Labels of a crop as fractions of it.

    Returns:
        Boxes (N, 4) xyxy and their classes (N,) in the data set's order, and areas (M, 4) xyxy
        that count neither way: those of the picture, and objects that the crop or the input size
        leaves too little of.
    """
    x, y, width, height = crop
    corner = np.array([x, y, x, y], np.float32)
    size = np.array([width, height] * 2, np.float32)
    boxes = np.clip((picture.boxes - corner) / size, 0, 1)
    visible = _area(boxes) * width * height / _area(picture.boxes)
    side = np.sqrt(_area(boxes) * input_hw[0] * input_hw[1])
    keep = (visible >= VISIBLE) & (side >= SMALLEST)
    ignore = np.clip((picture.ignore - corner) / size, 0, 1)
    ignore = np.concatenate([boxes[~keep], ignore])
    return boxes[keep], picture.classes[keep], ignore[_area(ignore) > 0]


def mirror_boxes(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 4) xyxy fractions of a picture to those of the picture turned left to right."""
    mirrored = boxes[:, [2, 1, 0, 3]]
    mirrored[:, [0, 2]] = 1 - mirrored[:, [0, 2]]
    return mirrored


def shift_colours(image: Image, rng: np.random.Generator) -> Image:
    """Random brightness, contrast, gamma, saturation and hue; one in twenty turns grey."""
    contrast, brightness = rng.uniform(0.7, 1.3), rng.uniform(-25, 25)
    gamma = float(np.exp(rng.uniform(-0.35, 0.35)))
    levels = (np.arange(256) / 255) ** gamma * 255
    levels = (levels - 128) * contrast + 128 + brightness
    image = np.asarray(cv2.LUT(image, np.clip(levels, 0, 255).astype(np.uint8)), np.uint8)
    if rng.random() < 0.05:
        return np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))
    if rng.random() < 0.5:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        turn, saturation = rng.integers(-6, 7), rng.uniform(0.6, 1.4)
        hue = ((np.arange(256) + turn) % 180).astype(np.uint8)
        strength = np.clip(np.arange(256) * saturation, 0, 255).astype(np.uint8)
        same = np.arange(256, dtype=np.uint8)
        hsv = cv2.LUT(hsv, np.stack([hue, strength, same], -1)[None])
        image = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
    return image


def _area(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), np.float32)

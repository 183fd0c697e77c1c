"""Labelled pictures to augmented batches.

Whatever happens to a picture follows from the recipe's seed, the epoch and its place in the epoch,
so batches are the same whether a run was resumed or not and however many workers load them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from mbnet_perception.evaluation.dataset import Dataset, DatasetError, Picture, read_picture
from mbnet_perception.training.loss import Targets

Image = NDArray[np.uint8]

# Height over width of a batch: cameras are 4:3, most pictures in the public sets are square.
ASPECTS = (0.75, 1.0)
# What a crop leaves of an object to still call it one, and the smallest object in input pixels
# (geometric mean of the sides) that is worth a label. Anything less counts neither way.
VISIBLE = 0.4
SMALLEST = 5.0
WHOLE_PICTURES = 0.25
SMALLEST_CROP = 0.35


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
    """

    def __init__(
        self,
        repeats: NDArray[np.float64],
        batch_size: int,
        sizes: Sequence[int],
        epochs: int,
        seed: int,
    ) -> None:
        self.repeats = repeats
        self.pictures = len(repeats)
        self.batch_size = batch_size
        self.sizes = sorted(sizes)
        self.epochs = epochs
        self.seed = seed
        self.epoch = 0

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
        for start in range(0, self.pictures, self.batch_size):
            size = int(rng.choice(sizes, p=share))
            height = round(size * float(rng.choice(ASPECTS)))
            yield [
                Draw(int(i), height, size, (self.seed, self.epoch, start + k))
                for k, i in enumerate(order[start : start + self.batch_size])
            ]


class TrainingData(TorchDataset[tuple[Image, Targets]]):
    """Augmented pictures of several data sets, with their classes mapped by name."""

    def __init__(self, sources: Sequence[Dataset], classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.pictures: list[tuple[Picture, NDArray[np.int64]]] = []
        for source in sources:
            unknown = sorted(set(source.classes) - set(classes))
            if unknown:
                raise DatasetError(f"classes {unknown} are not among the model's: {list(classes)}")
            mapping = np.array([self.classes.index(name) for name in source.classes], np.int64)
            self.pictures += [(picture, mapping) for picture in source.pictures]

    def __len__(self) -> int:
        return len(self.pictures)

    def repeat_factors(self, balance: float) -> NDArray[np.float64]:
        """How often each picture should come so that rare classes do (see ``Recipe.balance``)."""
        classes_of = [set(mapping[picture.classes]) for picture, mapping in self.pictures]
        count = Counter(k for classes in classes_of for k in classes)
        factor = {k: max(1.0, math.sqrt(balance * len(self) / n)) for k, n in count.items()}
        return np.array([max((factor[k] for k in classes), default=1.0) for classes in classes_of])

    def __getitem__(self, draw: Draw) -> tuple[Image, Targets]:
        picture, mapping = self.pictures[draw.index]
        rng = np.random.default_rng(draw.seed)
        image = cv2.cvtColor(read_picture(picture), cv2.COLOR_BGR2RGB)
        crop = choose_crop(picture.height, picture.width, draw.height / draw.width, rng)
        x, y, width, height = crop
        resized = cv2.resize(
            image[y : y + height, x : x + width],
            (draw.width, draw.height),
            interpolation=cv2.INTER_AREA if width > draw.width else cv2.INTER_LINEAR,
        )
        boxes, classes, ignore = crop_boxes(picture, crop, (draw.height, draw.width))
        if rng.random() < 0.5:
            resized = cv2.flip(resized, 1)
            boxes, ignore = mirror_boxes(boxes), mirror_boxes(ignore)
        countable = np.zeros(len(self.classes), bool)
        countable[mapping] = picture.verified & picture.exhaustive
        return shift_colours(np.asarray(resized, np.uint8), rng), Targets(
            boxes=torch.from_numpy(boxes),
            classes=torch.from_numpy(mapping[classes]),
            countable=torch.from_numpy(countable),
            ignore=torch.from_numpy(ignore),
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

"""What a training run is made of, as a YAML file says it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from mbnet_perception.core.architecture import BACKBONES


@dataclass(frozen=True)
class Recipe:
    """Settings of one run. Paths in the file are relative to the folder ``mbnet train`` runs in.

    Attributes:
        train: COCO label files to learn from; classes are those of the first.
        validation: COCO label file to measure on.
        backbone, alpha: The network.
        start_from: Checkpoint whose averaged weights to begin with; empty begins at random.
        epochs: Passes over all pictures.
        batch_size: Pictures in a step.
        balance: Share of pictures up to which a class counts as rare; pictures with rare classes
            come more often (repeat factors of LVIS, arXiv 1908.03195, section 4.2). 0 takes each
            picture once an epoch.
        sizes: Long sides of the input in pixels, see ``training.data.BatchSampler``.
        settling_sizes: Long sides at which the normalisation is measured anew at the end: those
            that the model is meant for. Others lose by it.
        learning_rate: Peak of AdamW's, reached after ``warmup_steps``, then a cosine to zero.
        weight_decay: On the weights of the convolutions across channels; depthwise filters,
            biases and normalisation have none (MobileNetV1, section 3.2).
        ema: Decay per step of the averaged weights, which are the ones that count.
        workers: Processes that load pictures; 0 loads in the run's own.
        bfloat16: Multiply in bfloat16 where PyTorch holds it safe; weights stay float32.
        threads: Threads of the arithmetic on the CPU; 0 leaves it to PyTorch.
        seed: Of the weights, the order of the pictures and what happens to them.
    """

    train: tuple[str, ...]
    validation: str
    backbone: str = "mobilenet_v2"
    alpha: float = 0.5
    start_from: str = ""
    epochs: int = 30
    batch_size: int = 32
    balance: float = 0.0
    sizes: tuple[int, ...] = (160, 192, 224, 256, 288, 320)
    settling_sizes: tuple[int, ...] = (256, 288, 320)
    learning_rate: float = 2e-3
    warmup_steps: int = 300
    weight_decay: float = 0.02
    ema: float = 0.998
    workers: int = 1
    bfloat16: bool = True
    threads: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("alpha", "epochs", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("warmup_steps", "weight_decay", "workers", "threads", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.backbone not in BACKBONES:
            raise ValueError(f"backbone must be one of {list(BACKBONES)}, got {self.backbone!r}")
        if not self.train:
            raise ValueError("train must name at least one label file")
        for name in ("sizes", "settling_sizes"):
            if not getattr(self, name) or min(getattr(self, name)) < 32:
                raise ValueError(
                    f"{name} must be at least 32 pixels, got {list(getattr(self, name))}"
                )
        for name in ("ema", "balance"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for YAML and checkpoints."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def recipe_from(content: object, origin: str) -> Recipe:
    """Make a recipe of what a YAML file holds.

    Raises:
        ValueError: Names ``origin``, the key, what was expected and what came.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{origin}: expected keys and values, got {type(content).__name__}")
    known = {field.name: field for field in fields(Recipe)}
    unknown = sorted(set(map(str, content)) - set(known))
    if unknown:
        raise ValueError(f"{origin}: unknown keys {unknown}; known are {sorted(known)}")
    values: dict[str, Any] = {}
    for name, value in content.items():
        kind = str(known[name].type)
        if kind.startswith("tuple"):
            item = int if "int" in kind else str
            if not isinstance(value, list) or not all(type(v) is item for v in value):
                raise ValueError(f"{origin}: {name} must be a list of {item.__name__}")
            value = tuple(value)
        elif kind == "float" and type(value) is int:
            value = float(value)
        elif type(value).__name__ != kind:
            raise ValueError(f"{origin}: {name} must be {kind}, got {value!r}")
        values[name] = value
    try:
        return Recipe(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{origin}: {error}") from error


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from a YAML file.

    Raises:
        ValueError: If the file cannot be read, is no YAML, or is no recipe.
    """
    try:
        return recipe_from(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: is no YAML: {error}") from error

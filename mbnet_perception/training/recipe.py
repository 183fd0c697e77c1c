"""What a training run is made of, as a YAML file says it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import yaml

from mbnet_perception.core.anchors import DEFAULT_SCALES, cell_anchors
from mbnet_perception.core.architecture import BACKBONES
from mbnet_perception.evaluation.dataset import OnBad
from mbnet_perception.evaluation.sources import Source


@dataclass(frozen=True)
class Recipe:
    """Settings of one run. Paths in the file are relative to the folder ``mbnet train`` runs in.

    Attributes:
        train: What to learn from; each entry is the path of labels (see ``evaluation.sources``),
            or ``labels`` with ``pictures``, the folder that they lie in, and ``weight``, how often
            each of its pictures comes relative to those of weight 1.
        validation: Labels to measure on.
        class_map: YAML file that says what the sources' names mean, see ``evaluation.sources``;
            empty takes the classes of the first source.
        on_bad: What a bad picture or label does: ``stop`` the run, or be left out (``skip``).
        backbone, alpha: The network.
        start_from: File whose weights to begin with, see ``training.checkpoints.load_start``;
            empty begins at random.
        teacher: Checkpoint of a larger network to learn from as well, see
            ``training.distillation``; empty means none.
        distillation: Weight of what the teacher asks for, next to the labels' 1.
        epochs: Passes over all pictures.
        validate_every: Epochs from one measuring to the next; the last one is always measured.
        batch_size: Pictures in a step.
        balance: Share of pictures up to which a class counts as rare; pictures with rare classes
            come more often (repeat factors of LVIS, arXiv 1908.03195, section 4.2). 0 takes each
            picture once an epoch.
        sizes: Long sides of the input in pixels, see ``training.data.BatchSampler``.
        settling_sizes: Long sides at which the normalisation is measured anew at the end: those
            that the model is meant for. Others lose by it.
        mosaic: Share of the draws that show four pictures at about half size, which makes objects
            small; crops make them large.
        policy: YAML file of what else happens to each picture, see ``training.policy``; empty
            means nothing.
        anchor_scales: See ``core.anchors``; `mbnet data anchors` fits them to data.
        learning_rate: Peak of AdamW's, reached after ``warmup_steps``, then a cosine to zero.
        weight_decay: On the weights of the convolutions across channels; depthwise filters,
            biases and normalisation have none (MobileNetV1, section 3.2).
        ema: Decay per step of the averaged weights, which are the ones that count.
        workers: Processes that load pictures; 0 loads in the run's own.
        bfloat16: Multiply in bfloat16 where PyTorch holds it safe; weights stay float32.
        threads: Threads of the arithmetic on the CPU; 0 leaves it to PyTorch.
        seed: Of the weights, the order of the pictures and what happens to them.
    """

    train: tuple[Source, ...]
    validation: str
    class_map: str = ""
    on_bad: OnBad = "stop"
    backbone: str = "mobilenet_v2"
    alpha: float = 0.5
    start_from: str = ""
    teacher: str = ""
    distillation: float = 1.0
    epochs: int = 30
    validate_every: int = 5
    batch_size: int = 32
    balance: float = 0.0
    sizes: tuple[int, ...] = (160, 192, 224, 256, 288, 320)
    settling_sizes: tuple[int, ...] = (256, 288, 320)
    mosaic: float = 0.0
    policy: str = ""
    anchor_scales: tuple[float, ...] = DEFAULT_SCALES
    learning_rate: float = 2e-3
    warmup_steps: int = 300
    weight_decay: float = 0.02
    ema: float = 0.998
    workers: int = 1
    bfloat16: bool = True
    threads: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        # Asked so that a value that is no number fails too.
        for name in ("alpha", "epochs", "batch_size", "learning_rate", "validate_every"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        not_negative = ("warmup_steps", "weight_decay", "distillation")
        for name in (*not_negative, "workers", "threads", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.backbone not in BACKBONES:
            raise ValueError(f"backbone must be one of {list(BACKBONES)}, got {self.backbone!r}")
        if self.on_bad not in get_args(OnBad):
            raise ValueError(f"on_bad must be one of {list(get_args(OnBad))}, got {self.on_bad!r}")
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
        if not 0 <= self.mosaic <= 1:
            raise ValueError(f"mosaic must be in [0, 1], got {self.mosaic}")
        cell_anchors(self.anchor_scales)

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for YAML and checkpoints."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}
        return plain | {"train": [_plain_source(source) for source in self.train]}


def recipe_from(content: object, origin: str) -> Recipe:
    """Make a recipe of what a YAML file holds.

    Raises:
        ValueError: Names ``origin``, the key, what was expected and what came.
    """
    _check_keys(content, [field.name for field in fields(Recipe)], origin)
    assert isinstance(content, dict)
    kinds = {field.name: str(field.type) for field in fields(Recipe)}
    try:
        return Recipe(**{name: _value(kinds[name], name, v) for name, v in content.items()})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{origin}: {error}") from error


def _check_keys(content: object, known: list[str], origin: str) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{origin}: expected keys and values, got {type(content).__name__}")
    unknown = sorted(set(map(str, content)) - set(known))
    if unknown:
        raise ValueError(f"{origin}: unknown keys {unknown}; known are {sorted(known)}")


def _value(kind: str, name: str, value: Any) -> Any:
    """A value of YAML as its field wants it, or an error that names the field."""
    if kind == "tuple[Source, ...]":
        if not isinstance(value, list):
            raise ValueError(f"{name} must be a list of label files, got {value!r}")
        return tuple(_source(entry, f"{name}[{i}]") for i, entry in enumerate(value))
    if kind.startswith("tuple"):
        item = int if "int" in kind else float
        kinds = {int, item}
        if not isinstance(value, list) or not {type(v) for v in value} <= kinds:
            raise ValueError(f"{name} must be a list of {item.__name__}")
        return tuple(item(v) for v in value)
    if kind == "float" and type(value) is int:
        return float(value)
    if type(value).__name__ != kind.replace("OnBad", "str"):
        raise ValueError(f"{name} must be {kind}, got {value!r}")
    return value


def _source(entry: object, name: str) -> Source:
    """A path, or ``labels`` with ``pictures`` and ``weight``."""
    if isinstance(entry, str):
        entry = {"labels": entry}
    _check_keys(entry, ["labels", "pictures", "weight"], name)
    assert isinstance(entry, dict)
    labels, pictures = entry.get("labels"), entry.get("pictures")
    weight = entry.get("weight", 1.0)
    if not isinstance(labels, str) or not isinstance(pictures, str | None):
        raise ValueError(f"{name}: labels and pictures must be paths, got {labels!r}, {pictures!r}")
    if type(weight) not in (int, float):
        raise ValueError(f"{name}: weight must be a number, got {weight!r}")
    return Source(Path(labels), Path(pictures) if pictures else None, float(weight))


def _plain_source(source: Source) -> str | dict[str, Any]:
    plain: dict[str, Any] = {"labels": str(source.labels)}
    if source.pictures:
        plain["pictures"] = str(source.pictures)
    if source.weight != 1:
        plain["weight"] = source.weight
    return plain if len(plain) > 1 else str(source.labels)


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

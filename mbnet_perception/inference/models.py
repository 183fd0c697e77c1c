"""The model files at hand, and the manifest that vouches for them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import mbnet_perception
from mbnet_perception.core.files import replace_file
from mbnet_perception.inference.format import Metadata, ModelError

MANIFEST = "manifest.yaml"
MANIFEST_VERSION = 1
PACKAGE = Path(mbnet_perception.__file__).resolve().parent


@dataclass(frozen=True)
class OperatingPoint:
    """Which network runs, and at what input size.

    Attributes:
        backbone, alpha, precision: Which file.
        resolution: Long side of the network input in pixels.
    """

    backbone: str = "mobilenet_v2"
    alpha: float = 0.5
    resolution: int = 320
    precision: str = "fp32"

    def __str__(self) -> str:
        return f"{self.backbone} alpha {self.alpha:g} {self.precision} at {self.resolution}"


@dataclass(frozen=True)
class ModelEntry:
    """One file of the manifest.

    Attributes:
        file: Its name.
        sha256: Of its content.
        backbone, alpha, precision: The network.
        resolutions: Those it was tested at.
        ap50: Of the validation pictures by resolution, as far as it was measured.
    """

    file: str
    sha256: str
    backbone: str
    alpha: float
    precision: str
    resolutions: tuple[int, ...]
    ap50: Mapping[int, float] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self.resolutions))
        return f"{self.backbone} alpha {self.alpha:g} {self.precision} at {sizes}"


class ModelLibrary:
    """The models of one folder, by its manifest.

    Args:
        folder: Holds ``manifest.yaml`` and the files; default is :func:`find_models_folder`.

    Raises:
        ModelError: If the manifest is missing or damaged, or names a file outside the folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or find_models_folder()
        self.entries = _read_manifest(self.folder / MANIFEST)

    def find(self, point: OperatingPoint) -> ModelEntry:
        """The file for an operating point.

        Raises:
            ModelError: If there is none; lists what there is.
        """
        for entry in self.entries:
            same = entry.backbone == point.backbone and entry.precision == point.precision
            if same and abs(entry.alpha - point.alpha) < 1e-6:
                if point.resolution in entry.resolutions:
                    return entry
                sizes = ", ".join(map(str, entry.resolutions))
                raise ModelError(
                    f"resolution {point.resolution} is not available for {point.backbone} "
                    f"alpha {point.alpha:g} {point.precision}; there is {sizes}"
                )
        available = "; ".join(map(str, self.entries))
        raise ModelError(f"no model {point}; available: {available}")

    def read(self, entry: ModelEntry) -> bytes:
        """The file's content, after checking its hash.

        Raises:
            ModelError: If the file is missing or is not the one that the manifest lists.
        """
        path = self.folder / entry.file
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(
                f"model {path}: cannot be read: {error.strerror}; it is listed in {MANIFEST}, "
                "so reinstall the package or run mbnet export again"
            ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != entry.sha256:
            raise ModelError(
                f"model {path}: has sha256 {found[:12]}..., {MANIFEST} lists "
                f"{entry.sha256[:12]}...: it is truncated, or another file; reinstall the "
                "package or run mbnet export again"
            )
        return content


def find_models_folder() -> Path:
    """``models/`` of the checkout the package runs from, or where it was installed to.

    Raises:
        ModelError: If there is neither.
    """
    manifest = find_file("models", MANIFEST)
    if manifest is None:
        raise ModelError(
            f"no models folder with a {MANIFEST} above {PACKAGE}; reinstall the package, or name "
            "one"
        )
    return manifest.parent


def find_file(folder: str, name: str) -> Path | None:
    """A file that comes with the package, in the checkout it runs from or where it was installed.

    Args:
        folder: `models` or `config`.
        name: Of the file.
    """
    for parent in PACKAGE.parents:
        for place in (parent, parent / "share" / PACKAGE.name):
            if (place / folder / name).is_file():
                return place / folder / name
    return None


def add_model(folder: Path, model: bytes, metadata: Metadata, measured: dict[str, Any]) -> Path:
    """Put a model file into a folder and list it in the manifest, in the place of its like.

    Args:
        folder: Of the models; made, with a manifest, if missing.
        model: Content of the file.
        metadata: What the file says of itself.
        measured: Figures for the manifest, as plain numbers and text.

    Returns:
        The file.

    Raises:
        ModelError: If the manifest that is there is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / MANIFEST
    name = f"{metadata.backbone}_ssdlite_a{metadata.alpha:g}_{metadata.precision}.onnx"
    models = []
    if manifest.exists():
        _read_manifest(manifest)
        content = yaml.safe_load(manifest.read_text(encoding="utf-8"))
        models = [entry for entry in content["models"] if entry["file"] != name]
    models.append(
        {
            "file": name,
            "sha256": hashlib.sha256(model).hexdigest(),
            "backbone": metadata.backbone,
            "alpha": metadata.alpha,
            "precision": metadata.precision,
            "resolutions": list(metadata.resolutions),
            "measured": measured,
        }
    )
    models.sort(key=lambda entry: (entry["backbone"], entry["precision"], entry["alpha"]))
    content = {"manifest_version": MANIFEST_VERSION, "models": models}
    # The file first: a manifest must never list what is not there.
    replace_file(folder / name, model)
    replace_file(manifest, yaml.safe_dump(content, sort_keys=False).encode())
    return folder / name


def _read_manifest(path: Path) -> tuple[ModelEntry, ...]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: expected YAML: {error}") from error
    try:
        if content["manifest_version"] != MANIFEST_VERSION:
            raise ModelError(
                f"{path}: has version {content['manifest_version']}, this package reads "
                f"{MANIFEST_VERSION}"
            )
        entries = tuple(
            ModelEntry(
                file=str(model["file"]),
                sha256=str(model["sha256"]),
                backbone=str(model["backbone"]),
                alpha=float(model["alpha"]),
                precision=str(model["precision"]),
                resolutions=tuple(int(size) for size in model["resolutions"]),
                ap50=_ap50_from(model.get("measured") or {}),
            )
            for model in content["models"]
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path}: expected manifest_version and a list of models, each with file, sha256, "
            f"backbone, alpha, precision and resolutions; {type(error).__name__}: {error}"
        ) from error
    for entry in entries:
        if Path(entry.file).name != entry.file:
            raise ModelError(f"{path}: file must be a plain name, got {entry.file!r}")
    return entries


def _ap50_from(measured: Mapping[str, Any]) -> dict[int, float]:
    accuracy = measured.get("accuracy") or {}
    return {int(size): float(row["ap50"]) for size, row in accuracy.items()}

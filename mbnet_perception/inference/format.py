"""What a model file says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

FORMAT_VERSION = 1


class ModelError(RuntimeError):
    """A model that cannot be had; the message names the file, the reason and what there is."""


@dataclass(frozen=True)
class Metadata:
    """``metadata_props`` of a model file, each value as JSON.

    Attributes:
        backbone, alpha, precision: The network; precision is ``fp32`` or ``int8``.
        classes: Names, in the order of the score columns.
        anchor_scales: One per map, fractions of the input's long side.
        resolutions: Long sides of the input, in pixels, that the file was tested at.
        trained_with: The recipe and data, for people.
        format_version: Of this contract.
    """

    backbone: str
    alpha: float
    precision: str
    classes: tuple[str, ...]
    anchor_scales: tuple[float, ...]
    resolutions: tuple[int, ...]
    trained_with: str
    format_version: int = FORMAT_VERSION

    def as_props(self) -> dict[str, str]:
        return {key: json.dumps(value) for key, value in asdict(self).items()}


def metadata_from(props: Mapping[str, str], origin: str) -> Metadata:
    """Read ``metadata_props``.

    Raises:
        ModelError: If a key is missing or of another kind, or the format is a newer one.
    """

    def read(key: str) -> Any:
        try:
            value = json.loads(props[key])
        except (KeyError, ValueError) as error:
            raise ModelError(
                f"{origin}: is no model of mbnet_perception: its metadata lacks {key!r}"
            ) from error
        return tuple(value) if isinstance(value, list) else value

    version = read("format_version")  # first: another version may have other keys
    if version != FORMAT_VERSION:
        raise ModelError(
            f"{origin}: has format version {version}, this package reads "
            f"{FORMAT_VERSION}; export the model again, or update the package"
        )
    values = {field.name: read(field.name) for field in fields(Metadata)}
    classes = values["classes"]
    if not (classes and isinstance(classes, tuple) and all(isinstance(c, str) for c in classes)):
        raise ModelError(f"{origin}: its metadata holds no class names")
    return Metadata(**values)

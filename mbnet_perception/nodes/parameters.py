"""Parameters of the detector and the weather node: defaults, ranges, and what they mean."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from mbnet_perception.core.detections import Selection
from mbnet_perception.core.weather import CONDITIONS, SEVERITIES
from mbnet_perception.inference.models import OperatingPoint

TRANSPORTS = ("raw", "compressed")
POINT = tuple(f.name for f in fields(OperatingPoint))
"""Parameters that make up the operating point."""

SettingsT = TypeVar("SettingsT", bound="Settings")


def parameter(
    default: Any,
    description: str,
    span: tuple[float, float] | None = None,
    constraints: str = "",
    read_only: bool = False,
    of: type = str,
) -> Any:
    """A field of a table of parameters; `span` is the least and the greatest value.

    Of a list, `of` is the type of its values.
    """
    metadata = {
        "of": of,
        "description": description,
        "span": span,
        "constraints": constraints,
        "read_only": read_only,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """A table of parameters, whose rows `parameter` makes, and one consistent set of values.

    Raises:
        ValueError: If a value makes no sense.
    """

    def __post_init__(self) -> None:
        for row in fields(self):
            span, value = row.metadata["span"], getattr(self, row.name)
            if span and not span[0] <= value <= span[1]:
                raise ValueError(f"{row.name} must be in [{span[0]}, {span[1]}], got {value}")

    def changed(self: SettingsT, parameters: Sequence[Parameter]) -> SettingsT:
        """The settings with these parameters; others than those of the table are not looked at.

        Raises:
            ValueError: If a value makes no sense.
        """
        rows = {row.name: row for row in fields(self)}
        return replace(
            self, **{p.name: _value(rows[p.name], p) for p in parameters if p.name in rows}
        )


def check_cameras(topics: Sequence[str], transport: str) -> None:
    """Refuse camera topics and a transport that make no sense.

    Raises:
        ValueError: In words.
    """
    if not topics:
        raise ValueError("camera_topics must name at least one image topic, got none")
    if not all(topics):
        raise ValueError(f"camera_topics must not be empty names, got {list(topics)}")
    if len(set(topics)) < len(topics):
        raise ValueError(f"camera_topics must differ, got {list(topics)}")
    if transport not in TRANSPORTS:
        raise ValueError(f"image_transport must be {' or '.join(TRANSPORTS)}, got {transport!r}")
    for topic in topics:
        if transport == "compressed" and topic.endswith("/compressed"):
            raise ValueError(
                f"camera topic {topic!r} must come without /compressed, which image_transport adds"
            )


@dataclass(frozen=True)
class DetectorSettings(Settings):
    """One consistent set of parameter values; raises ValueError on those that make no sense.

    Whether there is a model for the operating point is not known here.
    """

    camera_topics: tuple[str, ...] = parameter(
        ("image_raw",),
        "Image topics. The detections of one camera go to ~/detections, those of several to "
        "<camera topic>/detections.",
        constraints="without the /compressed that image_transport adds",
        read_only=True,
    )
    camera_weights: tuple[float, ...] = parameter(
        (),
        "Shares of the frames that the cameras get when there is not time for all, in the order "
        "of camera_topics; empty means equal ones.",
        constraints="greater than 0, one for each camera, such as [2.0, 1.0]",
        read_only=True,
        of=float,
    )
    image_transport: str = parameter(
        "raw",
        "Which messages to subscribe to: sensor_msgs/Image on the camera topic, or "
        "sensor_msgs/CompressedImage on <camera topic>/compressed.",
        constraints=" or ".join(TRANSPORTS),
        read_only=True,
    )
    backbone: str = parameter(
        OperatingPoint.backbone,
        "Family of the network.",
        constraints="of one of the models at hand",
    )
    alpha: float = parameter(
        OperatingPoint.alpha,
        "Width multiplier of the network: less is faster and sees less.",
        constraints="of one of the models at hand",
    )
    resolution: int = parameter(
        OperatingPoint.resolution,
        "Long side of the network's input in pixels: less is faster and sees less far.",
        constraints="one that the model at hand was tested at",
    )
    precision: str = parameter(
        OperatingPoint.precision,
        "Arithmetic of the network.",
        constraints="of one of the models at hand",
    )
    score_threshold: float = parameter(
        Selection.score_threshold, "Least score of what is reported.", (0.0, 1.0)
    )
    iou_threshold: float = parameter(
        Selection.iou_threshold,
        "Of two boxes of a class with a greater intersection over union, the better one stays.",
        (0.0, 1.0),
    )
    max_detections: int = parameter(
        Selection.max_detections, "At most so many objects are reported, the best.", (1, 300)
    )
    classes: tuple[str, ...] = parameter(
        Selection.classes,
        "Names of the classes to report; empty means all.",
        constraints="names that the model knows",
    )
    max_age_ms: int = parameter(
        0, "Frames older than this many milliseconds are dropped; 0 keeps all.", (0, 60_000)
    )
    latency_budget_ms: int = parameter(
        0,
        "The governor chooses the operating point such that nine of ten frames are published "
        "within this many milliseconds of their stamp; 0 leaves the choice to you. Setting a part "
        "of the operating point by hand holds it until this is set again.",
        (0, 60_000),
    )
    ladder_file: str = parameter(
        "",
        "File with the operating points that the governor may take and how long each takes, as "
        "mbnet benchmark --ladder writes it; empty measures them when the governor starts.",
        read_only=True,
    )
    stale_after_ms: int = parameter(
        1000,
        "/diagnostics says that perception is stale once the newest answered picture of a camera "
        "is older than this many milliseconds.",
        (1, 60_000),
    )
    overlay_rate_hz: int = parameter(
        5,
        "Pictures with boxes a second and camera on the overlay topics, while somebody listens; "
        "0 means none.",
        (0, 60),
    )
    autostart: bool = parameter(
        True,
        "Whether the node configures and activates itself; otherwise a lifecycle manager does.",
        read_only=True,
    )
    num_threads: int = parameter(
        0, "Threads of the network; 0 means one less than there are cores.", (0, 64), read_only=True
    )
    models_folder: str = parameter(
        "",
        "Folder of manifest.yaml and the models; empty means the installed ones.",
        read_only=True,
    )

    def __post_init__(self) -> None:
        check_cameras(self.camera_topics, self.image_transport)
        if self.camera_weights and len(self.camera_weights) != len(self.camera_topics):
            raise ValueError(
                f"camera_weights must be one for each of the {len(self.camera_topics)} cameras, "
                f"or none, got {list(self.camera_weights)}"
            )
        if not all(math.isfinite(weight) and weight > 0 for weight in self.camera_weights):
            raise ValueError(
                f"camera_weights must be greater than 0, got {list(self.camera_weights)}"
            )
        super().__post_init__()
        # What these refuse is refused here, not when the next frame comes.
        _ = self.point, self.selection

    @property
    def point(self) -> OperatingPoint:
        """The operating point that is asked for."""
        return OperatingPoint(**{name: getattr(self, name) for name in POINT})

    @cached_property
    def selection(self) -> Selection:
        """Which detections to report."""
        return Selection(
            self.score_threshold, self.iou_threshold, self.max_detections, self.classes
        )


@dataclass(frozen=True)
class WeatherSettings(Settings):
    """What the weather node does to pictures; raises ValueError on values that make no sense."""

    camera_topics: tuple[str, ...] = parameter(
        ("image_raw",),
        "Image topics. The pictures of each go to ~/<camera topic> in the weather asked for.",
        constraints="without the /compressed that image_transport adds",
        read_only=True,
    )
    image_transport: str = parameter(
        "raw",
        "Which messages to take and to give: sensor_msgs/Image on the camera topic, or "
        "sensor_msgs/CompressedImage on <camera topic>/compressed.",
        constraints=" or ".join(TRANSPORTS),
        read_only=True,
    )
    condition: str = parameter(
        "clear",
        "The weather; clear passes pictures on as they came.",
        constraints=f"one of {', '.join(CONDITIONS)}",
    )
    severity: float = parameter(
        3.0, "How bad the weather is.", (float(min(SEVERITIES)), float(max(SEVERITIES)))
    )
    seed: int = parameter(0, "Decides where drops, patches of fog and lamps are.")
    jpeg_quality: int = parameter(
        95, "Of compressed pictures that are sent in bad weather.", (1, 100)
    )

    def __post_init__(self) -> None:
        check_cameras(self.camera_topics, self.image_transport)
        if self.condition not in CONDITIONS:
            raise ValueError(
                f"condition must be one of {', '.join(CONDITIONS)}, got {self.condition!r}"
            )
        super().__post_init__()


def declare_settings(node: Node, table: type[SettingsT]) -> SettingsT:
    """Declare a table's parameters on a node; read what the command line and files say of them.

    Raises:
        ValueError: If a value makes no sense.
        rclpy.exceptions.ParameterException: If a value has the wrong type or is out of range.
    """
    rows = fields(table)
    for row in rows:
        default = list(row.default) if isinstance(row.default, tuple) else row.default
        node.declare_parameter(row.name, default, _descriptor(row))
    settings = table().changed([node.get_parameter(row.name) for row in rows])
    for row in rows:
        if getattr(settings, row.name) == () and not row.metadata["read_only"]:
            # rclpy takes an empty list for one of bytes, and one in a parameter file for no value.
            node.set_parameters([Parameter(row.name, Parameter.Type.STRING_ARRAY, [])])
    return settings


def values_from_text(table: type[Settings], texts: Mapping[str, str]) -> dict[str, Any]:
    """Values of parameters from the arguments of a launch, without those that are empty.

    Args:
        table: Of the node. `use_sim_time`, which every node has, may be given as well.
        texts: By name; lists are written with commas.

    Raises:
        ValueError: If a text is none of the parameter's type.
    """
    rows = {row.name: row for row in fields(table)}
    values: dict[str, Any] = {}
    for name, text in texts.items():
        default = rows[name].default if name in rows else False
        if text and isinstance(default, tuple):
            of = rows[name].metadata["of"]
            values[name] = [_from_text(name, of, part.strip()) for part in text.split(",")]
        elif text:
            values[name] = _from_text(name, type(default), text)
    return values


def _from_text(name: str, kind: type, text: str) -> Any:
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        expected = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise ValueError(f"argument {name} must be {expected}, got '{text}'") from None


def _descriptor(row: Field[Any]) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=row.metadata["description"],
        additional_constraints=row.metadata["constraints"],
        read_only=row.metadata["read_only"],
        # An empty list says nothing about its type, and a user's 1 means 1.0; `_value` checks both.
        dynamic_typing=isinstance(row.default, tuple | float),
    )
    if row.metadata["span"]:
        low, high = row.metadata["span"]
        if isinstance(row.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        else:
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
    return descriptor


def _value(row: Field[Any], parameter: Parameter) -> Any:
    """A parameter's value as the dataclass has it."""
    if parameter.value is None and not isinstance(row.default, tuple):
        raise ValueError(f"{row.name} must have a value")
    if isinstance(row.default, float):
        if isinstance(parameter.value, bool) or not isinstance(parameter.value, int | float):
            raise ValueError(f"{row.name} must be a number, got {parameter.value!r}")
        return float(parameter.value)
    if not isinstance(row.default, tuple):
        return parameter.value
    # An empty list comes as one of any type, or as no value at all.
    value = [] if parameter.value is None else parameter.value
    of = row.metadata["of"]
    kinds = (int, float) if of is float else of
    if not isinstance(value, list | tuple | array) or not all(
        isinstance(one, kinds) and not isinstance(one, bool) for one in value
    ):
        noun = "numbers" if of is float else "strings"
        raise ValueError(f"{row.name} must be a list of {noun}, got {parameter.value!r}")
    return tuple(of(one) for one in value)

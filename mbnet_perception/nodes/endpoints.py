"""Topics and services of the detector node: their names, types and QoS, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image
from statistics_msgs.msg import MetricsMessage
from std_srvs.srv import SetBool
from vision_msgs.msg import Detection2DArray, LabelInfo

CAMERA = "{camera}"
"""Stands for a camera's topic in the name of an endpoint that each camera has."""


@dataclass(frozen=True)
class Endpoint:
    """One row of the table of topics and services.

    Attributes:
        direction: Whether the node subscribes, publishes or serves.
        type: Class of the messages, or of the service.
        name: Name where the node has one camera.
        name_of_several: Name where it has several; differs where each camera has its own.
        meaning: One sentence or more for people.
        depth, reliable, latched: QoS of a topic; latched is transient local durability.
    """

    direction: Literal["in", "out", "service"]
    type: type[Any]
    name: str
    name_of_several: str
    meaning: str
    depth: int = 10
    reliable: bool = True
    latched: bool = False

    def name_for(self, camera: str, cameras: int) -> str:
        """Name of this endpoint.

        Args:
            camera: The camera's topic, remapped already, without /compressed.
            cameras: How many cameras the node has.
        """
        name = self.name_of_several if cameras > 1 else self.name
        return name.replace(CAMERA, camera)

    @property
    def type_name(self) -> str:
        """The type as ROS 2 writes it, such as sensor_msgs/msg/Image."""
        package, kind, _ = self.type.__module__.split(".")
        return f"{package}/{kind}/{self.type.__name__}"

    @property
    def qos(self) -> QoSProfile:
        """A new profile each time, as rclpy writes overrides into the one that it is given."""
        durability = DurabilityPolicy.TRANSIENT_LOCAL if self.latched else DurabilityPolicy.VOLATILE
        reliability = ReliabilityPolicy.RELIABLE if self.reliable else ReliabilityPolicy.BEST_EFFORT
        return QoSProfile(depth=self.depth, reliability=reliability, durability=durability)


def overrides() -> QoSOverridingOptions:
    """Which QoS policies a user may override: also those that rclpy leaves out by default.

    A car that wants to be told when detections miss a deadline, or when the node dies, only gets
    detections from a publisher that offers as much.
    """
    return QoSOverridingOptions(
        (
            QoSPolicyKind.HISTORY,
            QoSPolicyKind.DEPTH,
            QoSPolicyKind.RELIABILITY,
            QoSPolicyKind.DURABILITY,
            QoSPolicyKind.DEADLINE,
            QoSPolicyKind.LIVELINESS,
            QoSPolicyKind.LIVELINESS_LEASE_DURATION,
        )
    )


IMAGE = Endpoint(
    "in",
    Image,
    CAMERA,
    CAMERA,
    "Pictures, where image_transport is raw. The newest one of each camera waits for its turn.",
    depth=1,
    reliable=False,
)
COMPRESSED_IMAGE = Endpoint(
    "in",
    CompressedImage,
    f"{CAMERA}/compressed",
    f"{CAMERA}/compressed",
    "Pictures, where image_transport is compressed: JPEG or PNG.",
    depth=1,
    reliable=False,
)
DETECTIONS = Endpoint(
    "out",
    Detection2DArray,
    "~/detections",
    f"{CAMERA}/detections",
    "One message per processed picture, an empty one where nothing is seen, with the picture's own "
    "header; boxes in pixels of the picture, class_id is the class name.",
)
LABELS = Endpoint(
    "out",
    LabelInfo,
    "~/labels",
    "~/labels",
    "Class names and score threshold; published anew when they or the operating point change.",
    depth=1,
    latched=True,
)
LATENCY = Endpoint(
    "out",
    MetricsMessage,
    "~/latency",
    "~/latency",
    "Each second, while somebody listens, one message per camera and stage: mean, deviation, least "
    "and greatest duration of the newest frames in ms, and how many these are; and one with the "
    "percentage of them that the board was slowed down for.",
    depth=100,  # all messages of a second come at once
)
OVERLAY = Endpoint(
    "out",
    Image,
    "~/overlay",
    f"{CAMERA}/overlay",
    "The picture with its detections drawn in, in the size that it was decoded to; made only while "
    "somebody listens, at most overlay_rate_hz times a second.",
    depth=1,
)
COMPRESSED_OVERLAY = Endpoint(
    "out",
    CompressedImage,
    "~/overlay/compressed",
    f"{CAMERA}/overlay/compressed",
    "The same as JPEG.",
    depth=1,
)
DIAGNOSTICS = Endpoint(
    "out",
    DiagnosticArray,
    "/diagnostics",
    "/diagnostics",
    "Each second, and at once when something changes, what the node says of itself; see below.",
)
ENABLE = Endpoint(
    "service",
    SetBool,
    "~/enable",
    "~/enable",
    "false unsubscribes from all cameras, so that nothing is received or computed; true goes on.",
)

ENDPOINTS = (
    IMAGE,
    COMPRESSED_IMAGE,
    DETECTIONS,
    LABELS,
    LATENCY,
    OVERLAY,
    COMPRESSED_OVERLAY,
    DIAGNOSTICS,
    ENABLE,
)
"""The whole table, in the order in which the README shows it."""


def image_endpoint(transport: str) -> Endpoint:
    """What to subscribe to for a value of the parameter image_transport."""
    return COMPRESSED_IMAGE if transport == "compressed" else IMAGE


def name_to_subscribe(image: Endpoint, topic: str, remapped: str) -> str:
    """Name to give to rclpy for the pictures of a camera.

    rclpy remaps what it is given, and what was remapped already may have a rule, too, as where two
    cameras are swapped.

    Args:
        image: From :func:`image_endpoint`.
        topic: Of the camera, as in the parameter.
        remapped: The same, remapped.
    """
    name = image.name_for(remapped, 1)
    return topic if name == remapped else name

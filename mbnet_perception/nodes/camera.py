"""One camera of the detector node: its topics, and what became of its frames."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.subscription import Subscription

from mbnet_perception.nodes.cdr import read_compressed_image, read_image
from mbnet_perception.nodes.diagnostics import CameraRecord
from mbnet_perception.nodes.endpoints import (
    COMPRESSED_OVERLAY,
    DETECTIONS,
    OVERLAY,
    Endpoint,
    image_endpoint,
    name_to_subscribe,
    overrides,
)
from mbnet_perception.nodes.overlay import OverlayPainter
from mbnet_perception.nodes.receiver import subscribe_for_receiver
from mbnet_perception.nodes.silence import why_silent


class Camera:
    """Publishers of a camera, and its subscription while it is wanted.

    Args:
        node: That all belongs to.
        topic: As in `camera_topics`.
        cameras: How many there are.
        transport: Value of `image_transport`.

    Attributes:
        record: What became of the frames.
        read: Reads a message that was taken.
        several_publishers: Whether the topic has more than one, when that was last looked at.
            Neither numbers nor stamps tell then what was lost.
    """

    def __init__(self, node: Node, topic: str, cameras: int, transport: str) -> None:
        self._node = node
        # Remapped before a suffix is added, as image_transport does it.
        self.topic = node.resolve_topic_name(topic)
        self.record = CameraRecord(self.topic)
        self.several_publishers = False
        self._expected: int | None = None
        self._image = image_endpoint(transport)
        self._image_topic = name_to_subscribe(self._image, topic, self.topic)
        self.read = read_compressed_image if transport == "compressed" else read_image
        self._cameras = cameras
        self._publishers: list[Publisher] = []
        self._subscription: Subscription | None = None
        self.detections = self._create_publisher(DETECTIONS)
        self.overlay = OverlayPainter(
            self._create_publisher(OVERLAY),
            self._create_publisher(COMPRESSED_OVERLAY),
            self._report_overlay,
        )

    def subscribe(self) -> Subscription:
        """Receive images from now on, as bytes; a :class:`Receiver` is to take them."""
        self.record.subscribed = self.record.taken = monotonic()
        self.record.ledger.resume()
        self._subscription = subscribe_for_receiver(
            self._node, self._image.type, self._image_topic, self._image.qos
        )
        return self._subscription

    def unsubscribe(self) -> None:
        """Receive no more."""
        if self._subscription:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
        self.record.subscribed = None

    def count_publishers(self) -> None:
        """Look whether more than one node sends images."""
        if self._subscription:
            # By the name that it has, as this does not remap. What it counts itself, Humble lacks.
            publishers = self._node.count_publishers(self._subscription.topic_name)
            self.several_publishers = publishers > 1

    def usable_number(self, info: Mapping[str, Any]) -> int | None:
        """The publication sequence number of a message, if it tells what was lost before it.

        Each publisher counts for itself, and rclpy does not say whose number it is.

        Args:
            info: What the middleware says of the message; on Humble no number is among it.
        """
        number: int | None = info.get("publication_sequence_number")
        if number is not None:
            if number != self._expected:  # a gap, or the number of another publisher
                self.count_publishers()
            self._expected = number + 1
        return None if self.several_publishers else number

    def explain_silence(self) -> str:
        """Why no image comes, as far as the ROS graph tells."""
        return why_silent(self._node, self._image_topic)

    def close(self) -> None:
        """Give everything back."""
        self.unsubscribe()
        self.overlay.close()
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)

    def _create_publisher(self, endpoint: Endpoint) -> Publisher:
        publisher = self._node.create_publisher(
            endpoint.type,
            endpoint.name_for(self.topic, self._cameras),
            endpoint.qos,
            qos_overriding_options=overrides(),
        )
        self._publishers.append(publisher)
        return publisher

    def _report_overlay(self, error: Exception) -> None:
        if self._node.context.ok():
            self._node.get_logger().error(
                f"overlay of {self.topic} failed: {error}", throttle_duration_sec=1.0
            )

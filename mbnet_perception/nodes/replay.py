"""Replay node: publishes the camera pictures of a bag as if the camera were there.

Besides the images it publishes the CameraInfo and the ground truth (Detection2DArray) of the bag.
It is the one node that leans on `evaluation`, for reading bags.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from mbnet_perception.core.images import ImageFormatError, picture_from_compressed
from mbnet_perception.evaluation import bags
from mbnet_perception.evaluation.bags import Bag, BagError, Message

MESSAGE_CLASSES = {
    bags.IMAGE: Image,
    bags.COMPRESSED_IMAGE: CompressedImage,
    bags.CAMERA_INFO: CameraInfo,
    bags.DETECTIONS: Detection2DArray,
}

CLOCK_PERIOD = 0.01  # seconds
SETTLING = 0.3  # seconds from when a subscriber is seen to when it has seen us too
STAMPS_KEPT = 100
# Messages kept to be sent again. With 10, a subscriber that was held up for 0.3 s lost pictures at
# 150 a second; Fast DDS alone may hold one up for as long (Fast-DDS, issue 6535).
DEPTH = 100
LONGEST_RESENDING = 10.0  # seconds at the end; many large pictures may take several heartbeats


@dataclass(frozen=True)
class ReplaySettings:
    """What to replay and how; the node's parameters.

    Attributes:
        bag: Folder, .mcap or .db3 file, or .bag file of ROS 1.
        topics: Image topics to publish; empty means all.
        rate: Factor on the pace of the recording.
        fps: Pictures a second, whatever the recording's pace; of several image topics, the one
            with most pictures. 0 keeps the recording's pace.
        loop: Begin again at the end.
        clock: Keep the stamps and publish the recording's time on /clock, instead of stamping
            everything with the present time.
        raw: Publish compressed images decoded, on their topics without `/compressed`.
        wait_for_subscribers: Longest time in seconds to wait until each image topic has its
            subscribers; 0 begins at once.
        subscribers: How many subscribers each image topic waits for.
    """

    bag: str = ""
    topics: Sequence[str] = ()
    rate: float = 1.0
    fps: float = 0.0
    loop: bool = False
    clock: bool = False
    raw: bool = False
    wait_for_subscribers: float = 5.0
    subscribers: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: If a value is of the wrong type or out of its range.
        """
        for name in ("loop", "clock", "raw"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        for name in ("rate", "fps", "wait_for_subscribers"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise ValueError(f"{name} must be a number >= 0, got {value!r}")
        if isinstance(self.subscribers, bool) or not isinstance(self.subscribers, int):
            raise ValueError(f"subscribers must be a whole number, got {self.subscribers!r}")
        if not self.rate:
            raise ValueError("rate must be greater than 0")
        if self.fps and self.rate != 1:
            raise ValueError("rate and fps exclude each other: set only one of them")
        if not isinstance(self.bag, str) or not self.bag:
            raise ValueError("bag must name a bag: --ros-args -p bag:=PATH")
        if isinstance(self.topics, str) or not all(isinstance(t, str) for t in self.topics):
            raise ValueError(f"topics must be a list of topic names, got {self.topics!r}")


def schedule(
    messages: Iterable[Message], rate: float = 1.0, fps: float = 0.0
) -> Iterator[tuple[float, Message]]:
    """Yield when each message is due, in seconds since the start, and the message.

    Args:
        messages: In the order of recording.
        rate: Factor on the pace of the recording.
        fps: If not 0, pictures a second; other messages go with the picture before them.
    """
    due, first = 0.0, None
    pictures: Counter[str] = Counter()
    for message in messages:
        if not fps:
            first = message.log_time if first is None else first
            due = max(due, (message.log_time - first) / 1e9 / rate)
        elif message.type in bags.IMAGE_TYPES:
            due = max(due, pictures[message.topic] / fps)
            pictures[message.topic] += 1
        yield due, message


def _raw_name(topic: str) -> str:
    return topic.removesuffix("/compressed")


class ReplayNode(Node):
    """Publishes a bag once or in a loop.

    Attributes:
        images: Pictures published so far.
        others: Other messages published so far, those on /clock not counted.
    """

    def __init__(self) -> None:
        """Open the bag and advertise its topics.

        Raises:
            BagError: If the bag cannot be used.
            ValueError: If a parameter cannot be used.
        """
        super().__init__("replay")
        self._settings = self._read_parameters()
        self.images = self.others = 0
        self._stamps: OrderedDict[int, int] = OrderedDict()
        self._bag_time = 0
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._bag = Bag(self._settings.bag)
        types = self._bag.image_topics(self._settings.topics)
        if self._settings.raw:  # where the bag has the raw images too, they need no decoding
            types = {n: t for n, t in types.items() if _raw_name(n) not in types or t == bags.IMAGE}
        companions = (bags.CAMERA_INFO, bags.DETECTIONS)
        types |= {n: t for n, t in self._bag.topics.items() if t in companions}
        self._publishers_of = {name: self._advertise(name, kind) for name, kind in types.items()}
        self._images_of = [
            p for n, p in self._publishers_of.items() if types[n] in bags.IMAGE_TYPES
        ]
        self._clock_publisher = (
            self.create_publisher(Clock, "/clock", 10) if self._settings.clock else None
        )

    def play(self) -> None:
        """Publish the bag.

        Raises:
            BagError: If the bag is damaged or its image topics are empty.
            ExternalShutdownException: If ROS is shut down meanwhile.
        """
        with self._bag:
            self._play()

    def _play(self) -> None:
        self._wait_for_subscribers()
        settings = self._settings
        start = time.monotonic()
        while True:
            last, gap = 0.0, 1 / (settings.fps or 10.0)
            messages = self._bag.messages(self._publishers_of)
            for due, message in schedule(messages, settings.rate, settings.fps):
                if due > last:
                    last, gap = due, due - last
                ready = self._decoded(message)
                if ready is None:
                    continue
                # Having been held up, go on from here: a camera does not catch up in a burst.
                start = max(start, time.monotonic() - due - gap / 2)
                self._wait(start + due, message.log_time)
                self._publish(message, ready)
            broken = self._bag.broken
            if not self.images:
                raise BagError(
                    f"bag '{settings.bag}' has no usable picture on its image topics"
                    + (f": {broken}" if broken else "")
                )
            if broken:
                self.get_logger().warning(f"that is not all of the bag: {broken}", once=True)
            if not settings.loop:
                break
            start += last + gap
            self._bag_time = 0
            self._stamps.clear()  # the same pictures come again, at another time
        # What was lost on the way is sent again when a subscriber asks for it, which it does at the
        # middleware's next heartbeat: every 3 s with Fast DDS.
        end = time.monotonic() + LONGEST_RESENDING
        for publisher in self._publishers_of.values():
            publisher.wait_for_all_acked(Duration(seconds=max(0.0, end - time.monotonic())))

    def _read_parameters(self) -> ReplaySettings:
        # Any type is let in, so that `fps:=5` need not be `fps:=5.0`; the settings judge.
        descriptor = ParameterDescriptor(dynamic_typing=True, read_only=True)
        values: dict[str, Any] = {
            entry.name: self.declare_parameter(entry.name, entry.default, descriptor).value
            for entry in fields(ReplaySettings)
        }
        return ReplaySettings(**values)

    def _advertise(self, topic: str, message_type: str) -> Publisher:
        if self._settings.raw and message_type == bags.COMPRESSED_IMAGE:
            topic, message_type = _raw_name(topic), bags.IMAGE
        # Reliable publishers serve reliable and best-effort subscribers alike.
        return self.create_publisher(
            MESSAGE_CLASSES[message_type],
            topic,
            QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.RELIABLE),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _wait_for_subscribers(self) -> None:
        if not self._settings.wait_for_subscribers:
            return
        end = time.monotonic() + self._settings.wait_for_subscribers
        wanted = self._settings.subscribers
        while unheard := [p for p in self._images_of if p.get_subscription_count() < wanted]:
            if time.monotonic() > end:
                names = ", ".join(p.topic_name for p in unheard)
                self.get_logger().warning(f"fewer than {wanted} on {names}; starting anyway")
                return
            self._executor.spin_once(timeout_sec=0.05)
        end = time.monotonic() + SETTLING
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.05)

    def _decoded(self, message: Message) -> Message | None:
        """Return the message to publish, or None where a picture is damaged."""
        if not self._settings.raw or message.type != bags.COMPRESSED_IMAGE:
            return message
        try:
            image = bags.decode(message.data, message.type)
            picture = picture_from_compressed(image.data, image.format)
        except (BagError, ImageFormatError) as error:
            self._leave_out(message, error)
            return None
        data = bags.raw_image(picture.bgr(), image.header)
        return Message(message.topic, bags.IMAGE, message.log_time, data)

    def _leave_out(self, message: Message, error: Exception) -> None:
        self.get_logger().warning(
            f"message on {message.topic} left out: {error}", throttle_duration_sec=1.0
        )

    def _wait(self, due: float, bag_time: int) -> None:
        """Wait until a message is due, serving requests and letting /clock run up to it.

        Args:
            due: Time of the monotonic clock in seconds.
            bag_time: When the message was recorded, ns since the epoch.
        """
        began, bag_began = time.monotonic(), self._bag_time or bag_time
        period = CLOCK_PERIOD if self._clock_publisher else 1.0
        while True:
            rest = due - time.monotonic()
            # Even when late: a call of its own is how requests and the end of ROS are noticed.
            self._executor.spin_once(timeout_sec=max(0.0, min(rest, period)))
            now = time.monotonic()
            if now >= due:
                break
            share = (now - began) / (due - began)
            self._publish_clock(bag_began + int((bag_time - bag_began) * share))
        self._publish_clock(bag_time)
        self._bag_time = bag_time

    def _publish_clock(self, bag_time: int) -> None:
        if self._clock_publisher:
            clock = Clock()
            clock.clock.sec, clock.clock.nanosec = divmod(bag_time, 10**9)
            self._clock_publisher.publish(clock)

    def _publish(self, original: Message, ready: Message) -> None:
        data = ready.data
        try:
            stamp = bags.stamp(original.data)
            if not self._settings.clock:
                data = bags.with_stamp(ready, self._new_stamp(stamp))
        except BagError as error:  # damaged, or ground truth of an older vision_msgs
            self._leave_out(original, error)
            return
        # Counted first, so that an interruption leaves nothing out that was sent.
        if original.type in bags.IMAGE_TYPES:
            self.images += 1
        else:
            self.others += 1
        self._publishers_of[original.topic].publish(data)

    def _new_stamp(self, old: int) -> int:
        """Return the present time, or what it was for an earlier message with the same stamp.

        So a picture's CameraInfo and ground truth keep belonging to it.
        """
        if old not in self._stamps:
            self._stamps[old] = time.time_ns()
            if len(self._stamps) > STAMPS_KEPT:
                self._stamps.popitem(last=False)
        return self._stamps[old]


def main(args: list[str] | None = None) -> int:
    """Replay the bag that the parameters name; return the exit status."""
    rclpy.init(args=args)
    try:
        node = ReplayNode()
        try:
            node.play()
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
        except RuntimeError:  # of rclpy, where a signal has ended ROS between two waits
            if rclpy.ok():
                raise
        print(f"replayed {node.images} images and {node.others} other messages")
        node.destroy_node()
    except (BagError, ValueError) as error:
        print(f"replay: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

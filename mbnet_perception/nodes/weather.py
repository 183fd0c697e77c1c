"""The weather node: camera pictures in, the same pictures in another weather out.

It subscribes to a camera only while somebody listens to what it makes of its pictures.
"""

from __future__ import annotations

import sys
from array import array
from collections import deque
from time import monotonic, time_ns
from typing import TypeAlias

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from mbnet_perception.core.latency import LatencyWindow
from mbnet_perception.core.weather import WeatherTime, apply_weather
from mbnet_perception.nodes.diagnostics import RECENT, SILENCE, WINDOW, make_status
from mbnet_perception.nodes.endpoints import (
    DIAGNOSTICS,
    image_endpoint,
    name_to_subscribe,
    overrides,
)
from mbnet_perception.nodes.messages import picture_from_message
from mbnet_perception.nodes.parameters import WeatherSettings, declare_settings
from mbnet_perception.nodes.running import run_node
from mbnet_perception.nodes.silence import why_silent

ImageMessage: TypeAlias = "Image | CompressedImage"

STAGES: tuple[str, ...] = ("decode", "weather", "encode", "publish")
"""What is timed of each picture; in clear weather, where pictures are passed on, publish alone."""

QUEUE = 10
"""Pictures that may be on their way to a subscriber."""

DIAGNOSTICS_PERIOD = 1.0
WATCH_PERIOD = 0.2


class WeatherCamera:
    """One camera: its topics, the time of its weather, and what became of its pictures.

    Args:
        node: That all belongs to.
        topic: As in `camera_topics`.

    Attributes:
        topic: Resolved.
        received, sent, failed: Pictures.
        last_error: Why the newest picture that failed did.
    """

    def __init__(self, node: WeatherNode, topic: str) -> None:
        self._node = node
        self.topic = node.resolve_topic_name(topic)
        self.received = self.sent = self.failed = 0
        self.last_error = ""
        self._image = image_endpoint(node.settings.image_transport)
        self._image_topic = name_to_subscribe(self._image, topic, self.topic)
        self._window = LatencyWindow(STAGES, WINDOW)
        self._reports: deque[tuple[float, int, int]] = deque([(monotonic(), 0, 0)])
        self._time = WeatherTime()
        self._last_arrival = 0.0
        self._subscription: Subscription | None = None
        self._publisher = node.create_publisher(
            self._image.type,
            self._image.name_for(f"~{self.topic}", 1),
            QUEUE,
            qos_overriding_options=overrides(),
        )

    def follow_listeners(self) -> None:
        """Subscribe while somebody listens, and only then."""
        wanted = self._publisher.get_subscription_count() > 0
        if wanted and not self._subscription:
            self._last_arrival = monotonic()
            self._subscription = self._node.create_subscription(
                self._image.type,
                self._image_topic,
                self._on_image,
                self._image.qos,
                qos_overriding_options=overrides(),
            )
        elif not wanted and self._subscription:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _on_image(self, message: ImageMessage) -> None:
        self.received += 1
        self._last_arrival = monotonic()
        try:
            self._send(message)
            self.sent += 1
        except Exception as error:  # whatever a picture holds, the next one gets its chance
            self.failed += 1
            self.last_error = f"{type(error).__name__}: {error}"
            if self._node.context.ok():
                self._node.get_logger().error(
                    f"picture of {self.topic} failed: {self.last_error}",
                    throttle_duration_sec=1.0,
                )

    def _send(self, message: ImageMessage) -> None:
        settings = self._node.settings  # one consistent set for the whole picture
        frame = self._frame(message)
        times, stages = [monotonic()], STAGES
        if settings.condition == "clear":
            stages = STAGES[-1:]
        else:
            picture = picture_from_message(message)
            rgb = np.asarray(cv2.cvtColor(picture.bgr(), cv2.COLOR_BGR2RGB), np.uint8)
            times.append(monotonic())
            rgb = apply_weather(
                rgb, settings.condition, settings.severity, settings.seed, frame, rate=1000.0
            )
            times.append(monotonic())
            message = _with_picture(message, rgb, settings.jpeg_quality)
            times.append(monotonic())
        self._publisher.publish(message)
        times.append(monotonic())
        durations = dict(zip(stages, np.diff(times).tolist(), strict=True))
        self._window.add(time_ns(), durations)

    def _frame(self, message: ImageMessage) -> int:
        """Milliseconds since the first picture; by its arrival where a picture has no stamp."""
        stamp = message.header.stamp
        now = stamp.sec * 10**9 + stamp.nanosec or time_ns()
        return self._time.at(now)

    def report(self) -> DiagnosticStatus:
        """Status of this camera, for /diagnostics."""
        now, settings = monotonic(), self._node.settings
        while len(self._reports) > 1 and now - self._reports[1][0] >= RECENT:
            self._reports.popleft()
        since, sent, failed = self._reports[0]
        self._reports.append((now, self.sent, self.failed))
        rate, failed = (self.sent - sent) / max(now - since, 1e-9), self.failed - failed
        weather = settings.condition
        if weather != "clear":
            weather += f" {settings.severity:g}"
        level, text = DiagnosticStatus.OK, f"{weather}, {rate:.1f} Hz"
        if not self._subscription:
            text = f"{weather}, nobody listens"
        elif failed:
            level = DiagnosticStatus.ERROR
            text = f"{failed} pictures failed in {now - since:.0f} s: {self.last_error}"
        elif now - self._last_arrival > SILENCE:
            level, text = DiagnosticStatus.WARN, why_silent(self._node, self._image_topic)
        values = {"topic": self.topic, "weather": weather, "seed": str(settings.seed)}
        values |= {name: str(getattr(self, name)) for name in ("received", "sent", "failed")}
        values |= {"rate_hz": f"{rate:.2f}", "last_error": self.last_error}
        summary = self._window.summarise()
        for stage, figures in summary.stages.items() if summary else ():
            for name in ("p50", "p90"):
                values[f"{stage}_{name}_ms"] = f"{1e3 * getattr(figures, name):.2f}"
        name = self._node.get_fully_qualified_name().lstrip("/")
        return make_status(level, f"{name}: {self.topic}", text, values)


class WeatherNode(Node):
    """Publishes the pictures of cameras in another weather, on ~/<camera topic>.

    Attributes:
        settings: What the parameters say.

    Raises:
        ValueError: If a parameter makes no sense.
        rclpy.exceptions.ParameterException: If one has the wrong type or is out of range.
    """

    def __init__(self) -> None:
        super().__init__("weather")
        self.settings = declare_settings(self, WeatherSettings)
        self._cameras = [WeatherCamera(self, topic) for topic in self.settings.camera_topics]
        self._diagnostics = self.create_publisher(
            DIAGNOSTICS.type,
            DIAGNOSTICS.name,
            DIAGNOSTICS.qos,
            qos_overriding_options=overrides(),
        )
        # By a steady clock: a stopped simulation shows as such, not as a dead node.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DIAGNOSTICS_PERIOD, self._report, clock=steady)
        self.create_timer(WATCH_PERIOD, self._follow_listeners, clock=steady)
        self.add_on_set_parameters_callback(self._judge_parameters)
        if hasattr(self, "add_post_set_parameters_callback"):
            self.add_post_set_parameters_callback(self._apply_parameters)

    def _judge_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            self.settings.changed(parameters)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if not hasattr(self, "add_post_set_parameters_callback"):  # came after Humble
            self._apply_parameters(parameters)
        return SetParametersResult(successful=True)

    def _apply_parameters(self, parameters: list[Parameter]) -> None:
        self.settings = self.settings.changed(parameters)

    def _follow_listeners(self) -> None:
        for camera in self._cameras:
            camera.follow_listeners()

    def _report(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status = [camera.report() for camera in self._cameras]
        self._diagnostics.publish(message)


def _with_picture(message: ImageMessage, rgb: NDArray[np.uint8], quality: int) -> ImageMessage:
    """A message of the same kind with another picture: bgr8, or a JPEG of this quality."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    if isinstance(message, CompressedImage):
        _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return CompressedImage(
            header=message.header,
            format="bgr8; jpeg compressed bgr8",
            data=array("B", encoded.tobytes()),
        )
    return Image(
        header=message.header,
        height=bgr.shape[0],
        width=bgr.shape[1],
        encoding="bgr8",
        step=3 * bgr.shape[1],
        data=array("B", bgr.tobytes()),
    )


def main(args: list[str] | None = None) -> int:
    """Run the node until a signal ends it; 1 where it cannot start."""
    cv2.setNumThreads(1)  # the other cores are the detector's
    return run_node("weather", WeatherNode, args)


if __name__ == "__main__":
    sys.exit(main())

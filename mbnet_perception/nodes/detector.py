"""The detector node: camera topics in, detections out.

A callback keeps the newest frame of each camera; one worker thread takes them in turn. rclpy holds
the GIL while it takes an image and ONNX Runtime releases it, so that the executor stays free for
parameters and the next frames.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from threading import Condition, Thread
from time import monotonic
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import InvalidQosOverridesError, QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray, LabelInfo

from mbnet_perception.core.ledger import Outcome
from mbnet_perception.inference.engine import Engine
from mbnet_perception.inference.format import ModelError
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint
from mbnet_perception.nodes.diagnostics import CameraRecord, engine_report
from mbnet_perception.nodes.messages import bgr_from_message, detections_message, label_message
from mbnet_perception.nodes.parameters import POINT, DetectorSettings, declare_settings

DIAGNOSTICS_PERIOD = 1.0
SETTINGS = tuple(row.name for row in fields(DetectorSettings))

# What the user can put right; rclpy's own errors are RuntimeErrors, as is ModelError.
START_ERRORS = (
    RuntimeError,
    ValueError,
    ParameterException,
    NameValidationException,
    InvalidQosOverridesError,
)


@dataclass(frozen=True)
class Frame:
    """An image message that waits for its turn.

    Attributes:
        message: As it came.
        arrival: When it came, monotonic seconds.
        stamped: Whether its stamp can be compared with the node's clock.
    """

    message: Image | CompressedImage
    arrival: float
    stamped: bool


class Camera:
    """One image topic: where its detections go, and its newest frame until the worker takes it."""

    def __init__(self, topic: str, publisher: Publisher) -> None:
        self.record = CameraRecord(topic)
        self.publisher = publisher
        self.newest: Frame | None = None


@dataclass
class Switch:
    """A change of the operating point under way.

    Attributes:
        point: What is being built.
        thread: Where it is built.
        error: Why it failed; empty if it did not.
    """

    point: OperatingPoint
    thread: Thread
    error: str = ""


class DetectorNode(Node):
    """Detects objects on camera topics.

    Raises:
        ModelError: If there is no usable model for the operating point; names the file.
        ValueError: If a parameter makes no sense.
        rclpy.exceptions.ParameterException: If one has the wrong type or is out of range.
    """

    def __init__(self) -> None:
        super().__init__("detector")
        # First, as since Kilted a node that could not start is destroyed like any other.
        self._stopping = False
        self._wake = Condition()
        self._switch: Switch | None = None
        self._worker = Thread(target=self._work, name="detector worker", daemon=True)
        self._settings = declare_settings(self)
        folder = self._settings.models_folder
        self._library = ModelLibrary(Path(folder) if folder else None)
        self._engine = Engine(self._library, self._settings.point, self._settings.num_threads)
        self._settings.selection.class_mask(self._engine.classes)  # refuses unknown names
        self._engine_error = ""
        self._switched = self.create_guard_condition(self._on_switched)

        self._labels: LabelInfo | None = None
        self._label_publisher = self.create_publisher(
            LabelInfo,
            "~/labels",
            QoSProfile(
                depth=1,
                reliability=ReliabilityPolicy.RELIABLE,
                durability=DurabilityPolicy.TRANSIENT_LOCAL,
            ),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._publish_labels()
        self._diagnostics_publisher = self.create_publisher(
            DiagnosticArray,
            "/diagnostics",
            10,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        # By a steady clock: a stopped simulation shows as such, not as a dead node.
        self.create_timer(
            DIAGNOSTICS_PERIOD,
            self._publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

        self.add_on_set_parameters_callback(self._judge_parameters)
        if hasattr(self, "add_post_set_parameters_callback"):
            self.add_post_set_parameters_callback(self._apply_parameters)

        self._cameras = [self._create_camera(topic) for topic in self._settings.camera_topics]
        self._worker.start()

    def _create_camera(self, topic: str) -> Camera:
        # Remapped before the suffix is added, as image_transport does it.
        topic = self.resolve_topic_name(topic)
        several = len(self._settings.camera_topics) > 1
        camera = Camera(
            topic,
            self.create_publisher(
                Detection2DArray,
                f"{topic}/detections" if several else "~/detections",
                10,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            ),
        )

        # rclpy looks at the number of arguments. On Humble it has one, the message, to give.
        def on_image(message: Image | CompressedImage, info: Mapping[str, Any]) -> None:
            self._on_image(camera, message, info.get("publication_sequence_number"))

        def on_image_alone(message: Image | CompressedImage) -> None:
            self._on_image(camera, message, None)

        callback: Callable[..., None] = on_image
        if not hasattr(Subscription, "CallbackType"):
            callback = on_image_alone
        compressed = self._settings.image_transport == "compressed"
        self.create_subscription(
            CompressedImage if compressed else Image,
            f"{topic}/compressed" if compressed else topic,
            callback,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        return camera

    def destroy_node(self) -> None:
        """End the threads, then the node."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._worker.is_alive():
            self._worker.join()
        if self._switch:
            self._switch.thread.join()
        super().destroy_node()

    # Frames

    def _on_image(
        self, camera: Camera, message: Image | CompressedImage, number: int | None
    ) -> None:
        arrival = monotonic()
        age = self._age(message)
        if age is None:
            camera.record.bad_stamps += 1
        else:
            camera.record.windows["transport"].add(age)
        with self._wake:
            camera.record.ledger.receive(number)
            camera.record.last_arrival = arrival
            if camera.newest:
                camera.record.ledger.settle("superseded")
            camera.newest = Frame(message, arrival, age is not None)
            self._wake.notify()

    def _age(self, message: Image | CompressedImage) -> float | None:
        """Seconds from the stamp to now; None for a stamp of zero or from the future."""
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        age = self.get_clock().now().nanoseconds - stamp
        return age / 1e9 if stamp > 0 and age >= 0 else None

    def _work(self) -> None:
        """The worker thread: takes the cameras' newest frames in turn."""
        turns = deque(self._cameras)
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._stopping or any(c.newest for c in turns))
                if self._stopping:
                    return
                camera, frame = next((c, c.newest) for c in turns if c.newest)
                camera.newest = None
            turns.remove(camera)
            turns.append(camera)
            outcome: Outcome = "failed"
            try:
                outcome = self._process(camera, frame)
            except Exception as error:  # whatever a frame holds, the next one gets its chance
                if self._stopping or not self.context.ok():
                    return
                camera.record.last_error = f"{type(error).__name__}: {error}"
                self.get_logger().error(
                    f"frame of {camera.record.topic} failed: {camera.record.last_error}",
                    throttle_duration_sec=1.0,
                )
            camera.record.ledger.settle(outcome)

    def _process(self, camera: Camera, frame: Frame) -> Outcome:
        settings = self._settings  # one consistent set for the whole frame
        started = monotonic()
        age = self._age(frame.message) if frame.stamped else None
        if settings.max_age_ms and age is not None and age * 1e3 > settings.max_age_ms:
            return "stale"
        bgr = bgr_from_message(frame.message)
        decoded = monotonic()
        detections, timing, names = self._engine.detect(bgr, settings.selection)
        detected = monotonic()
        camera.publisher.publish(detections_message(detections, names, frame.message.header))
        published = monotonic()
        durations = {
            "wait": started - frame.arrival,
            "decode": decoded - started,
            "preprocess": timing.preprocess,
            "inference": timing.inference,
            "postprocess": timing.postprocess,
            "publish": published - detected,
            "stamp_to_publish": self._age(frame.message) if frame.stamped else None,
        }
        for stage, seconds in durations.items():
            if seconds is not None:
                camera.record.windows[stage].add(seconds)
        return "processed"

    # Parameters

    def _judge_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            for parameter in parameters:
                if parameter.type_ == Parameter.Type.NOT_SET and parameter.name in SETTINGS:
                    raise ValueError(f"{parameter.name} must have a value")
            settings = self._settings.changed(parameters)
            self._library.find(settings.point)
            settings.selection.class_mask(self._engine.classes)
        except (ValueError, ModelError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        if not hasattr(self, "add_post_set_parameters_callback"):  # came after Humble
            self._apply_parameters(parameters)
        return SetParametersResult(successful=True)

    def _apply_parameters(self, parameters: list[Parameter]) -> None:
        self._settings = self._settings.changed(parameters)
        if any(parameter.name in POINT for parameter in parameters):
            self._engine_error = ""
        self._publish_labels()
        self._start_switch()

    def _start_switch(self) -> None:
        """Have the requested operating point built, one at a time, while the old one goes on."""
        point = self._settings.point
        if self._switch is None and point != self._engine.point:
            self._switch = Switch(
                point, Thread(target=self._run_switch, name="engine switch", daemon=True)
            )
            self._switch.thread.start()

    def _run_switch(self) -> None:
        assert self._switch is not None
        try:
            self._engine.switch(self._switch.point)
        except Exception as error:
            self._switch.error = f"{type(error).__name__}: {error}"
        if not self._stopping and self.context.ok():
            self._switched.trigger()

    def _on_switched(self) -> None:
        """End a change of the operating point, on the executor's thread like all of parameters."""
        if self._switch is None:
            return
        self._switch.thread.join()
        point, error, self._switch = self._switch.point, self._switch.error, None
        running = self._engine.point
        if error and self._settings.point == point:
            self.set_parameters_atomically(
                [Parameter(name, value=getattr(running, name)) for name in POINT]
            )
            self._engine_error = f"change to {point} failed: {error}"
            self.get_logger().error(f"{self._engine_error}; {running} goes on")
        elif not error:
            self.get_logger().info(f"operating point is now {running}")
        self._publish_labels()
        self._start_switch()  # where another one was asked for meanwhile

    # Reports

    def _publish_labels(self) -> None:
        """Publish what can be reported, where that has changed."""
        labels = label_message(
            self._engine.classes, self._settings.score_threshold, self.get_clock().now().to_msg()
        )
        if self._labels is None or (labels.class_map, labels.threshold) != (
            self._labels.class_map,
            self._labels.threshold,
        ):
            self._labels = labels
            self._label_publisher.publish(labels)

    def _publish_diagnostics(self) -> None:
        name = self.get_fully_qualified_name().lstrip("/")
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status = [
            engine_report(name, self._engine.point, self._settings.point, self._engine_error)
        ]
        message.status += [camera.record.report(name) for camera in self._cameras]
        self._diagnostics_publisher.publish(message)


def main(args: list[str] | None = None) -> int:
    """Run the node until a signal ends it; 1 where it cannot start."""
    node = None
    try:
        rclpy.init(args=args)
        node = DetectorNode()
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception as error:
        # A signal shuts ROS down, and what is being made or used just then fails.
        if not rclpy.ok():
            return 0
        if node or not isinstance(error, START_ERRORS):
            raise
        get_logger("detector").fatal(f"cannot start: {error}")
        return 1
    finally:
        if node:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

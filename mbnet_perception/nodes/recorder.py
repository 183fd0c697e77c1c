"""The recorder: what a live detector made of a drive, counted and measured from outside.

It subscribes to the pictures, to the detector's answers and to the ground truth, matches them by
stamp, and prints latency, losses and accuracy when it is asked to end. It is for a desk: it leans
on `evaluation`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, TypeAlias

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from vision_msgs.msg import Detection2DArray, LabelInfo

from mbnet_perception.core.detections import Detections
from mbnet_perception.core.files import replace_file
from mbnet_perception.core.latency import percentile
from mbnet_perception.evaluation import bags
from mbnet_perception.evaluation.accuracy import MEASURING
from mbnet_perception.evaluation.average_precision import measure
from mbnet_perception.evaluation.bag_truth import Told, labels_of, told_by
from mbnet_perception.evaluation.dataset import Dataset, Picture
from mbnet_perception.nodes.endpoints import (
    DIAGNOSTICS,
    LABELS,
    image_endpoint,
    name_to_subscribe,
    overrides,
)
from mbnet_perception.nodes.parameters import (
    Settings,
    check_cameras,
    declare_settings,
    parameter,
)
from mbnet_perception.nodes.processes import interruption
from mbnet_perception.nodes.running import START_ERRORS

WATCH_PERIOD = 0.1  # seconds
QUIET = 2.0  # seconds without a message, after which no more answers are waited for
DEPTH = 100  # messages that may wait for us, where every one is counted
LONGEST_LATENCY = 60e3  # ms; beyond it the stamps are of another clock

Labels: TypeAlias = "tuple[NDArray[np.float32], tuple[str, ...]]"
"""Boxes, (N, 4) xyxy in picture pixels, and their class names."""

NO_BOXES = np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class RecorderSettings(Settings):
    """What to listen to, and where to write."""

    camera_topic: str = parameter(
        "image_raw", "The camera's image topic, without the /compressed of its transport."
    )
    image_transport: str = parameter("raw", "raw or compressed, as the camera sends.")
    ground_truth_topic: str = parameter("", "Detection2DArray with what is there; may be empty.")
    detector: str = parameter("/detector", "Name of the detector node, which has one camera.")
    output: str = parameter("", "JSON file to write; may be empty.")

    def __post_init__(self) -> None:
        check_cameras((self.camera_topic,), self.image_transport)
        super().__post_init__()


@dataclass
class Recording:
    """What came, by stamp in ns.

    Attributes:
        sent: Stamps of the camera's pictures.
        answers: What the detector saw.
        latency: Milliseconds from stamp to publication of each answer.
        truth: What is there.
        classes: Names that the detector knows; empty where it did not say.
        score_threshold: That the detector said last.
        engine: Its operating point in words.
        accounts: Values of the newest status of each camera of each node that counts pictures.
    """

    sent: set[int] = field(default_factory=set)
    answers: dict[int, Told] = field(default_factory=dict)
    latency: dict[int, float] = field(default_factory=dict)
    truth: dict[int, Labels] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    score_threshold: float = 0.0
    engine: str = ""
    accounts: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def unanswered(self) -> list[int]:
        """Places of the pictures without an answer, in the order of the ground truth's stamps.

        Where there is no ground truth, in the order of the pictures' stamps.
        """
        stamps = sorted(self.truth or self.sent)
        return [place for place, stamp in enumerate(stamps) if stamp not in self.answers]

    def summary(self) -> dict[str, Any]:
        """Figures, as the JSON file holds them; `lacking` says in words what is missing."""
        lacking = []
        known = [ms for ms in self.latency.values() if 0 <= ms < LONGEST_LATENCY]
        if not self.sent:
            lacking.append("no picture of the camera came here, so what it sent is not known")
        if not self.answers:
            lacking.append("the detector answered nothing")
        elif len(known) < len(self.latency):
            lacking.append(
                f"latency of {len(self.latency) - len(known)} answers: their stamps are of another "
                "clock; where the bag's own clock is played, use_sim_time must be true"
            )
        if not self.accounts:
            lacking.append("the accounts of the nodes: nothing came on /diagnostics")
        try:
            accuracy = self._accuracy(lacking)
        except ValueError as error:
            accuracy = None
            lacking.append(f"accuracy: {error}")
        ranks = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
        return {
            "engine": self.engine,
            "frames": {
                "sent": len(self.sent),
                "answered": len(self.answers),
                "with_truth": len(self.truth),
            },
            "unanswered": self.unanswered(),
            "latency_ms": {n: round(percentile(known, r), 3) for n, r in ranks.items() if known},
            "accounts": {name: dict(values) for name, values in self.accounts.items()},
            "accuracy": accuracy,
            "lacking": lacking,
        }

    def _accuracy(self, lacking: list[str]) -> dict[str, Any]:
        """AP over the answered pictures that have ground truth.

        Raises:
            ValueError: If it cannot be told, in words.
        """
        if not self.truth:
            raise ValueError("no ground truth came")
        stamps = sorted(set(self.truth) & set(self.answers))
        if not stamps:
            raise ValueError("no picture with ground truth was answered")
        told = {name for _, names in self.truth.values() for name in names}
        unknown = told - set(self.classes) if self.classes else set()
        classes = tuple(sorted(told - unknown))
        if not classes:
            raise ValueError(
                f"the model knows none of the ground truth's classes ({', '.join(sorted(told))}); "
                f"it knows {', '.join(self.classes)}"
            )
        if unknown:
            lacking.append(f"classes that the model does not know: {', '.join(sorted(unknown))}")
        if self.score_threshold > MEASURING.score_threshold:
            lacking.append(
                f"detections of a score below {self.score_threshold:g}, without which AP is lower; "
                f"the detector's score_threshold should be {MEASURING.score_threshold:g}"
            )
        every = np.ones(len(classes), bool)
        pictures, found = [], []
        # Detections of other classes are left out by `measure`.
        names = sorted({*classes, *(n for s in stamps for n in self.answers[s].names)})
        for place, stamp in enumerate(stamps):
            boxes, told_names = self.truth[stamp]
            kept = [i for i, name in enumerate(told_names) if name in classes]
            labels = np.array([classes.index(told_names[i]) for i in kept], np.int64)
            # Height and width matter where some objects have no box, or boxes of some height are
            # asked for: not here.
            pictures.append(
                Picture(place, Path(), 1, 1, boxes[kept], labels, every, every, NO_BOXES)
            )
            seen = self.answers[stamp]
            index = np.array([names.index(name) for name in seen.names], np.int64)
            found.append(Detections(seen.boxes, seen.scores, index))
        result = measure(Dataset(classes, tuple(pictures)), found, names)
        return {
            "ap": result.ap,
            "ap50": result.ap50,
            "pictures": len(stamps),
            "classes": {name: vars(each) for name, each in result.classes.items()},
        }


def describe(summary: Mapping[str, Any]) -> list[str]:
    """Lines for people of what `Recording.summary` gave."""
    frames, accuracy = summary["frames"], summary["accuracy"]
    rows = [
        ("detector", summary["engine"] or "-"),
        (
            "frames",
            f"sent {frames['sent']}   answered {frames['answered']}   "
            f"unanswered {len(summary['unanswered'])}",
        ),
        (
            "stamp to publish",
            "   ".join(f"{n} {ms:.1f} ms" for n, ms in summary["latency_ms"].items()) or "-",
        ),
    ]
    for name, values in summary["accounts"].items():
        counts = {n: v for n, v in values.items() if v.isdecimal() and v != "0" and n != "seed"}
        counts = {n: v for n, v in counts.items() if not n.startswith("window_")}
        stages = {n.removesuffix("_p50_ms"): v for n, v in values.items() if n.endswith("_p50_ms")}
        rows.append((name, "   ".join(f"{n} {v}" for n, v in counts.items())))
        rows.append(("", "p50 of " + "   ".join(f"{n} {v} ms" for n, v in stages.items())))
    if accuracy:
        words = f"AP50 {accuracy['ap50']:.3f}   AP {accuracy['ap']:.3f}   over "
        rows.append(("accuracy", f"{words}{accuracy['pictures']} answered frames"))
    rows += [("lacking", each) for each in summary["lacking"]]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}   {words}" for name, words in rows]


class RecorderNode(Node):
    """Subscribes to all that is to be recorded.

    Attributes:
        settings: What the parameters say.
        recording: What came so far.
    """

    def __init__(self) -> None:
        super().__init__("recorder")
        self.settings = settings = declare_settings(self, RecorderSettings)
        self.recording = Recording()
        self._newest = self._answered = monotonic()
        self._reported: dict[str, float] = {}  # by the node that did
        self._image = image_endpoint(settings.image_transport)
        if settings.ground_truth_topic:
            self._listen(Detection2DArray, settings.ground_truth_topic, self._on_truth)
        self._detector = settings.detector.strip("/")
        answers = f"{settings.detector}/detections"
        # On Humble a callback has one argument, the message.
        has_info = hasattr(Subscription, "CallbackType")
        on_answer = self._on_answer if has_info else lambda message: self._on_answer(message, {})
        self._listen(Detection2DArray, answers, on_answer, reliable=True)
        self.create_subscription(
            LabelInfo, f"{settings.detector}/labels", self._on_labels, LABELS.qos
        )
        self.create_subscription(DiagnosticArray, DIAGNOSTICS.name, self._on_diagnostics, 10)
        self._answers = answers
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._waiting = self.create_timer(WATCH_PERIOD, self._await_detector, clock=steady)

    def _await_detector(self) -> None:
        """Listen to the camera once the detector is there, and who sends it pictures.

        Else its first answers would be missed, and what a weather node between the two says of
        itself. A replay waits for its listeners, and so for both.
        """
        pictures = [
            topic
            for topic, types in self.get_topic_names_and_types()
            if {*types} & {*bags.IMAGE_TYPES}
            and self._detector in map(_name, self.get_subscriptions_info_by_topic(topic))
        ]
        if not self.count_publishers(self._answers) or not any(
            map(self.count_publishers, pictures)
        ):
            return
        self.destroy_timer(self._waiting)
        # The pictures are big and only their stamps are wanted: they are left as bytes.
        camera = self.settings.camera_topic
        topic = name_to_subscribe(self._image, camera, self.resolve_topic_name(camera))
        self._listen(self._image.type, topic, self._on_picture, raw=True)

    @property
    def complete(self) -> bool:
        """Whether all pictures were answered, and all who give account have done so since then."""
        recording = self.recording
        if not recording.sent <= recording.answers.keys():
            return False
        nodes = {self._detector, *map(_name, self.get_publishers_info_by_topic(DIAGNOSTICS.name))}
        return all(self._reported.get(node, 0.0) > self._answered for node in nodes)

    def record(self, check: Callable[[], None]) -> None:
        """Take in what comes until `check` raises KeyboardInterrupt, and then what is still due."""
        executor = SingleThreadedExecutor()
        executor.add_node(self)
        with suppress(KeyboardInterrupt):
            while True:
                check()
                executor.spin_once(timeout_sec=0.1)
        self._newest = monotonic()
        while not self.complete and monotonic() - self._newest < QUIET:
            executor.spin_once(timeout_sec=0.05)
        executor.shutdown()

    def _listen(
        self,
        kind: type,
        topic: str,
        callback: Callable[..., None],
        *,
        raw: bool = False,
        reliable: bool = False,
    ) -> Subscription:
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        return self.create_subscription(
            kind,
            topic,
            callback,
            QoSProfile(depth=DEPTH, reliability=policy),
            qos_overriding_options=overrides(),
            raw=raw,
        )

    def _on_picture(self, data: bytes) -> None:
        self._newest = monotonic()
        with suppress(bags.BagError):  # too short to have a stamp
            self.recording.sent.add(bags.stamp(data))

    def _on_truth(self, message: Detection2DArray) -> None:
        self.recording.truth[_stamp(message)] = labels_of(message)[:2]

    def _on_answer(self, message: Detection2DArray, info: Mapping[str, int]) -> None:
        self._newest = self._answered = monotonic()
        stamp = _stamp(message)
        now = self.get_clock().now().nanoseconds
        if not self.get_parameter("use_sim_time").value:
            now = info.get("source_timestamp", now)
        self.recording.answers[stamp] = told_by(message)
        self.recording.latency[stamp] = (now - stamp) / 1e6

    def _on_labels(self, message: LabelInfo) -> None:
        self.recording.classes = tuple(entry.class_name for entry in message.class_map)
        self.recording.score_threshold = message.threshold

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._reported[status.name.split(": ", 1)[0]] = monotonic()
            values = {pair.key: pair.value for pair in status.values}
            if status.name == f"{self._detector}: engine":
                self.recording.engine = status.message
            elif "received" in values:
                self.recording.accounts[status.name] = values


def _name(info: TopicEndpointInfo) -> str:
    """Of the node that an endpoint belongs to, as it names itself on /diagnostics."""
    return f"{info.node_namespace}/{info.node_name}".strip("/")


def _stamp(message: Detection2DArray) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def main() -> int:
    """Record until a signal comes, then print and write; 1 where nothing was answered."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        with interruption() as check:
            node = RecorderNode()
            node.record(check)
        summary = node.recording.summary()
        print("\n".join(describe(summary)), flush=True)
        if node.settings.output:
            content = json.dumps(summary, indent=2, allow_nan=False) + "\n"
            replace_file(Path(node.settings.output), content.encode())
        node.destroy_node()
    except (*START_ERRORS, OSError) as error:
        get_logger("recorder").fatal(str(error))
        return 1
    finally:
        rclpy.try_shutdown()
    return 0 if summary["frames"]["answered"] else 1


if __name__ == "__main__":
    sys.exit(main())

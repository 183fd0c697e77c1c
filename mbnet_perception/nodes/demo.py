"""The demo: a drive is replayed through the live detector node, and watched from outside.

Replay and detector run as processes of their own, as they do on a car; this process subscribes to
what they publish.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image
from vision_msgs.msg import Detection2DArray, LabelInfo

from mbnet_perception.core.detections import Detections
from mbnet_perception.core.drawing import draw_detections
from mbnet_perception.core.images import ImageFormatError
from mbnet_perception.core.latency import percentile
from mbnet_perception.evaluation import bags
from mbnet_perception.evaluation.bag_truth import told_by
from mbnet_perception.nodes.messages import picture_from_message
from mbnet_perception.nodes.processes import (
    choose_network,
    interruption,
    last_words,
    node_process,
)

DETECTOR = "/detector"
VIDEO = "demo.mp4"
STILL = "demo.png"

PATIENCE = 2.0  # seconds after which a frame without an answer counts as lost
START_LIMIT = 60.0  # seconds for the detector to load its model
VIDEO_FRAMES = 900  # pictures are kept up to here, a minute at 15 Hz
STAGES = ("decode", "preprocess", "inference", "postprocess")


class DemoError(RuntimeError):
    """The demo cannot go on."""


@dataclass
class Frame:
    """One camera frame as seen from outside; either message may come first.

    Attributes:
        seen: When the first of its messages came, monotonic seconds.
        image: The picture, as long as it is kept for the video.
        answer: What the detector published for it.
        latency: Stamp to publication of the answer in seconds.
    """

    seen: float
    image: Image | CompressedImage | None = None
    answer: Detection2DArray | None = None
    latency: float | None = None


class Drive:
    """What was sent and what was answered, matched by header stamp.

    Attributes:
        frames: By stamp, in nanoseconds.
    """

    def __init__(self) -> None:
        self.frames: dict[int, Frame] = {}

    def add_image(self, message: Image | CompressedImage, now: float) -> None:
        """Take in a picture that was sent; `now` in monotonic seconds."""
        frame = self.frames.setdefault(_stamp(message), Frame(now))
        if len(self.frames) <= VIDEO_FRAMES:
            frame.image = message

    def add_answer(self, message: Detection2DArray, published: int, now: float) -> None:
        """Take in an answer, published at `published` ns since the epoch."""
        stamp = _stamp(message)
        frame = self.frames.setdefault(stamp, Frame(now))
        frame.answer, frame.latency = message, (published - stamp) / 1e9

    @property
    def answers(self) -> list[Detection2DArray]:
        """What the detector published so far."""
        return [frame.answer for frame in self.frames.values() if frame.answer is not None]

    @property
    def latencies(self) -> list[float]:
        """Stamp to publication of every answer, in seconds."""
        return [frame.latency for frame in self.frames.values() if frame.latency is not None]

    def lost(self, now: float) -> int:
        """Frames that have waited too long for an answer."""
        return sum(
            frame.answer is None and now - frame.seen > PATIENCE for frame in self.frames.values()
        )

    def rate(self) -> float:
        """Answered frames per second of stamps; 0 for fewer than two."""
        stamps = [stamp for stamp, frame in self.frames.items() if frame.answer is not None]
        return (len(stamps) - 1) / (max(stamps) - min(stamps)) * 1e9 if len(stamps) > 1 else 0.0

    def objects(self) -> Counter[str]:
        """Detections by class."""
        return Counter(
            detection.results[0].hypothesis.class_id
            for answer in self.answers
            for detection in answer.detections
        )


def _stamp(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


class Monitor(Node):
    """Subscribes to the pictures, to the detector's answers and to what it says of itself.

    Attributes:
        drive: Frames so far.
        class_names: The model's, empty until the detector is up.
        engine: The operating point in words.
        stages: Medians of the stages in milliseconds.
    """

    def __init__(self, topic: str, image_class: type, context: Context) -> None:
        super().__init__("demo_monitor", context=context)
        self.drive = Drive()
        self.class_names: tuple[str, ...] = ()
        self.engine = ""
        self.stages: dict[str, float] = {}
        # So deep that nothing is lost here, where frames are counted.
        reliable = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
        latched = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        self.create_subscription(image_class, topic, self._on_image, reliable)
        on_answer: Any = self._on_answer  # takes the message's info, which rclpy's types leave out
        answers = f"{DETECTOR}/detections"
        self.create_subscription(Detection2DArray, answers, on_answer, reliable)
        self.create_subscription(LabelInfo, f"{DETECTOR}/labels", self._on_labels, latched)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_image(self, message: Image | CompressedImage) -> None:
        self.drive.add_image(message, time.monotonic())

    def _on_answer(self, message: Detection2DArray, info: Mapping[str, int]) -> None:
        self.drive.add_answer(message, info["source_timestamp"], time.monotonic())

    def _on_labels(self, message: LabelInfo) -> None:
        self.class_names = tuple(entry.class_name for entry in message.class_map)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith(": engine"):
                self.engine = status.message
            values = {entry.key: entry.value for entry in status.values}
            for stage in STAGES:
                if f"{stage}_p50_ms" in values:
                    self.stages[stage] = float(values[f"{stage}_p50_ms"])


def figures(monitor: Monitor, now: float) -> dict[str, str]:
    """What the live table shows, by the name of its row."""
    drive = monitor.drive
    answered = len(drive.answers)
    latency = "-"
    if answered:
        # A step of the clock must not show as a latency below 0.
        seconds = [max(0.0, seconds) for seconds in drive.latencies]
        ranks = (f"p{rank} {1e3 * percentile(seconds, rank):.1f} ms" for rank in (50, 90, 99))
        latency = "   ".join(ranks)
    stages = "   ".join(f"{stage} {value:.1f} ms" for stage, value in monitor.stages.items())
    objects = "   ".join(f"{name} {count}" for name, count in drive.objects().most_common())
    return {
        "detector": monitor.engine or "-",
        "frames": f"sent {len(drive.frames)}   answered {answered}   lost {drive.lost(now)}",
        "rate": f"{drive.rate():.1f} Hz",
        "stamp to publish": latency,
        "stages, p50": stages or "-",
        "objects": objects or "-",
    }


@dataclass
class LiveTable:
    """Figures that are rewritten in place on a terminal, and one line each second elsewhere."""

    stream: TextIO
    _lines: int = field(default=0, init=False)
    _shown: float = field(default=float("-inf"), init=False)

    def show(self, rows: Callable[[], Mapping[str, str]], now: float) -> None:
        """Show the rows, unless that was done a moment ago; `now` in monotonic seconds."""
        terminal = self.stream.isatty()
        if now - self._shown < (0.2 if terminal else 1.0):
            return
        self._shown = now
        if terminal:
            self._rewrite(table(rows()))
        else:
            kept = ("frames", "rate", "stamp to publish")
            print("   ".join(rows()[name] for name in kept), file=self.stream, flush=True)

    def clear(self) -> None:
        """Take the table off the terminal."""
        if self._lines:
            self._rewrite([])

    def _rewrite(self, lines: Sequence[str]) -> None:
        columns = shutil.get_terminal_size().columns
        back = f"\x1b[{self._lines}A" if self._lines else ""
        # A line that wraps would make the cursor go back by too little.
        text = "".join(f"{line[: columns - 1]}\n" for line in lines)
        self.stream.write(f"{back}\x1b[J{text}")
        self.stream.flush()
        self._lines = len(lines)


def table(rows: Mapping[str, str]) -> list[str]:
    """Lines with the names in one column and the figures in another."""
    width = max(map(len, rows))
    return [f"{name:<{width}}   {text}" for name, text in rows.items()]


def image_topic(bag: Path) -> tuple[str, str, type]:
    """The first image topic of a bag, the camera topic and the class of its messages.

    Raises:
        BagError: If the bag cannot be used.
        DemoError: If the detector could not find the topic.
    """
    with bags.Bag(bag) as opened:
        topic, kind = next(iter(opened.image_topics().items()))
    if kind == bags.IMAGE:
        return topic, topic, Image
    if not topic.endswith("/compressed"):
        raise DemoError(f"compressed image topic {topic!r} of bag '{bag}' must end in /compressed")
    return topic, topic.removesuffix("/compressed"), CompressedImage


def watch_drive(
    bag: Path, output: Path, seconds: float, rate: float, check: Callable[[], None]
) -> Monitor:
    """Run replay and detector for a while, showing a live table.

    Args:
        bag: Recorded drive.
        output: Folder for logs.
        seconds: How long to send pictures; the drive begins anew when it is over.
        rate: Pictures per second.
        check: Called often; what it raises ends everything.

    Returns:
        The monitor, with the whole drive.

    Raises:
        BagError: If the bag cannot be used.
        DemoError: If a process dies or does not get ready.
    """
    topic, camera_topic, image_class = image_topic(bag)
    transport = "raw" if image_class is Image else "compressed"
    os.environ.update(choose_network())
    processes: dict[str, subprocess.Popen[bytes]] = {}
    live = LiveTable(sys.stdout)
    context = Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    monitor = Monitor(topic, image_class, context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(monitor)

    def spin_until(done: Callable[[], bool], limit: float) -> bool:
        end = time.monotonic() + limit
        while not done():
            check()
            for name, process in processes.items():
                if process.poll() is not None:
                    raise DemoError(last_words(name, process.returncode, output))
            if time.monotonic() > end:
                return False
            executor.spin_once(timeout_sec=0.05)
            if monitor.drive.frames:
                live.show(lambda: figures(monitor, time.monotonic()), time.monotonic())
        return True

    detector = {"camera_topics": [camera_topic], "image_transport": transport}
    replay = {"bag": str(bag), "topics": [topic], "fps": rate, "loop": True}
    replay |= {"subscribers": 2, "wait_for_subscribers": START_LIMIT}  # the detector and us
    try:
        with node_process("detector", detector, output, dict(os.environ)) as process:
            processes["detector"] = process

            def ready() -> bool:
                # The other subscription is ours.
                return bool(monitor.class_names) and monitor.count_subscribers(topic) > 1

            if not spin_until(ready, START_LIMIT):
                raise DemoError(f"detector is not ready after {START_LIMIT:.0f} s")
            with node_process("replay", replay, output, dict(os.environ)) as process:
                processes["replay"] = process
                if not spin_until(lambda: bool(monitor.drive.frames), START_LIMIT):
                    raise DemoError(f"no picture came on {topic} within {START_LIMIT:.0f} s")
                spin_until(lambda: False, seconds)
                del processes["replay"]
            # What it sent last is still to be taken in, and answered.
            spin_until(lambda: False, 0.3)
            frames = monitor.drive.frames
            spin_until(lambda: all(frame.answer for frame in frames.values()), PATIENCE)
            del processes["detector"]
    finally:
        live.clear()
        executor.shutdown()
        monitor.destroy_node()
        rclpy.try_shutdown(context=context)
    return monitor


def detections_from(message: Detection2DArray, class_names: Sequence[str]) -> Detections:
    """The detections of a message, classes counted by `class_names`."""
    told = told_by(message)
    classes = np.array([class_names.index(name) for name in told.names], np.int64)
    return Detections(told.boxes, told.scores, classes)


def annotated(frame: Frame, class_names: Sequence[str]) -> NDArray[np.uint8]:
    """The picture of a frame with its answer drawn into it.

    Raises:
        ImageFormatError: If the picture cannot be decoded.
    """
    bgr = picture_from_message(frame.image).bgr()
    if frame.answer is None:
        return bgr
    return draw_detections(bgr, detections_from(frame.answer, class_names), class_names)


def write_pictures(
    monitor: Monitor, output: Path, rate: float, check: Callable[[], None]
) -> tuple[int, Path, Path]:
    """Write the annotated video, and a still of the frame with most objects.

    Pictures of another size than the first are scaled to it; damaged ones are left out.

    Returns:
        The number of frames in the video, its path and that of the still.

    Raises:
        DemoError: If there is no picture, or this OpenCV cannot write the video.
    """
    video, still = output / VIDEO, output / STILL
    writer, size, written, most = None, (0, 0), 0, -1
    try:
        for _, frame in sorted(monitor.drive.frames.items()):
            check()
            if frame.image is None:
                continue
            try:
                picture = annotated(frame, monitor.class_names)
            except ImageFormatError:
                continue
            if writer is None:
                size = (picture.shape[1], picture.shape[0])
                writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
                if not writer.isOpened():
                    raise DemoError(f"this OpenCV cannot write {video}")
            fits = (picture.shape[1], picture.shape[0]) == size
            writer.write(picture if fits else cv2.resize(picture, size))
            written += 1
            objects = len(frame.answer.detections) if frame.answer else 0
            if objects > most:
                most = objects
                cv2.imwrite(str(still), picture)
    finally:
        if writer is not None:
            writer.release()
    if not written:
        raise DemoError("no picture arrived that could be decoded")
    return written, video, still


def run_demo(bag: Path, output: Path, seconds: float, rate: float = 15.0) -> int:
    """Replay a drive through the live detector, show a live table, and write a video and a still.

    Args:
        bag: Recorded drive; its first image topic is used.
        output: Folder for the video, the still and the logs; made if it is not there.
        seconds: How long to send pictures; the drive begins anew when it is over.
        rate: Pictures per second.

    Returns:
        Exit status: 0 if objects were detected, 1 if none were or a process died, 130 if the demo
        was interrupted.
    """
    output.mkdir(parents=True, exist_ok=True)
    for name in (VIDEO, STILL):
        (output / name).unlink(missing_ok=True)
    print(f"replaying {bag} at {rate:g} Hz for {seconds:g} s through the detector", flush=True)
    try:
        with interruption() as check:
            monitor = watch_drive(bag, output, seconds, rate, check)
            print("\n".join(table(figures(monitor, float("inf")))), flush=True)
            written, video, still = write_pictures(monitor, output, rate, check)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (DemoError, bags.BagError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not monitor.drive.objects():
        print(f"error: nothing was detected; see {video} and the logs there", file=sys.stderr)
        return 1
    print(f"video of {written} frames: {video}   still: {still}")
    return 0

"""What the node adds to the network: camera, detector and listener as processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from vision_msgs.msg import Detection2DArray

from mbnet_perception.inference.benchmark import describe_machine, measure_alone, milliseconds
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint, find_file
from mbnet_perception.nodes.benchmark_bare import BEGUN
from mbnet_perception.nodes.benchmark_camera import TOPIC
from mbnet_perception.nodes.diagnostics import STAGES
from mbnet_perception.nodes.processes import last_words, node_process

DETECTOR = "/detector"
OVERLOAD = 3.0  # times the rate that the network alone can hold
SWITCHES = 4  # there and back, twice
REST = 1.0  # seconds between two switches
SETTLING = 1.0  # seconds of pictures before those that count
REPORTS = 1.2  # seconds in which a report comes for sure
START_LIMIT = 60.0  # seconds for a process to get ready
SWITCH_LIMIT = 30.0  # seconds for an operating point to change
PROFILE = "fastdds.xml"
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
COUNTS = ("received", "processed", "superseded", "stale", "failed", "lost", "waiting")


class BenchmarkError(RuntimeError):
    """The benchmark cannot go on."""


class Listener(Node):
    """Subscribes to the detector's answers and to what it says of itself.

    Attributes:
        answers: Stamp of the picture and time of publication of each, ns since the epoch.
        statuses: The newest of each name, as key and value.
    """

    def __init__(self, context: Context) -> None:
        super().__init__("benchmark_listener", context=context)
        self.answers: list[tuple[int, int]] = []
        self.statuses: dict[str, dict[str, str]] = {}
        reliable = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
        on_answer: Any = self._on_answer  # takes the message's info, which rclpy's types leave out
        self.create_subscription(Detection2DArray, f"{DETECTOR}/detections", on_answer, reliable)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.parameters = self.create_client(
            SetParametersAtomically, f"{DETECTOR}/set_parameters_atomically"
        )

    def _on_answer(self, message: Detection2DArray, info: Mapping[str, int]) -> None:
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        self.answers.append((stamp, info["source_timestamp"]))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name = status.name.split(": ", 1)[-1]
            self.statuses[name] = {entry.key: entry.value for entry in status.values}

    @property
    def engine(self) -> dict[str, str]:
        """What the detector says of its network; empty before it has said anything."""
        return self.statuses.get("engine", {})

    def runs(self, point: OperatingPoint) -> bool:
        """Whether the detector says that it runs at this operating point."""
        return all(self.engine.get(name) == str(value) for name, value in asdict(point).items())


class Bench:
    """Runs processes and listens to them.

    Args:
        point: Operating point to measure.
        models: Folder of the models.
        num_threads: Of ONNX Runtime; 0 means one less than there are cores.
        output: Folder for logs.
        check: Called often; what it raises ends everything.
    """

    def __init__(
        self,
        point: OperatingPoint,
        models: Path,
        num_threads: int,
        output: Path,
        check: Callable[[], None],
    ) -> None:
        self._parameters = asdict(point) | {
            "models_folder": str(models.resolve()),
            "num_threads": num_threads,
        }
        self._point = point
        self._output = output
        self._check = check
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # A ROS network of our own: nobody else's images, nobody else's detector.
        network = {
            "ROS_DOMAIN_ID": str(1 + os.getpid() % 101),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        }
        os.environ.update(network)
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._executor = SingleThreadedExecutor(context=self._context)
        self.listener = Listener(self._context)
        self._executor.add_node(self.listener)

    def close(self) -> None:
        """End listening."""
        self._executor.shutdown()
        self.listener.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def spin(self, done: Callable[[], object], limit: float, what: str = "") -> None:
        """Listen until it is done or the time is over.

        Raises:
            BenchmarkError: If a process ends, or, where `what` names it, it is not done in time.
        """
        end = time.monotonic() + limit
        while not done():
            self._check()
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise BenchmarkError(last_words(name, process.returncode, self._output))
            if time.monotonic() > end:
                if what:
                    raise BenchmarkError(f"{what} within {limit:.0f} s")
                return
            self._executor.spin_once(timeout_sec=0.05)

    def wait(self, seconds: float) -> None:
        """Listen for so long."""
        self.spin(lambda: False, seconds)

    @contextmanager
    def process(self, name: str, parameters: Mapping[str, Any]) -> Iterator[None]:
        """A process while the block lasts."""
        environment = dict(os.environ)
        if name == "benchmark_camera":
            environment |= camera_environment(environment)
        with node_process(name, parameters, self._output, environment) as process:
            self._processes[name] = process
            try:
                yield
            finally:
                del self._processes[name]

    def report_of(self, name: str) -> dict[str, Any]:
        """What a process printed when it was ended."""
        lines = (self._output / f"{name}.log").read_text(errors="replace").splitlines()
        for line in reversed(lines):
            if line.startswith("{"):
                report: dict[str, Any] = json.loads(line)
                return report
        raise BenchmarkError(last_words(name, 0, self._output))

    @contextmanager
    def subject(self, name: str) -> Iterator[None]:
        """What takes the camera's pictures, from when it is ready."""
        self.listener.answers.clear()
        self.listener.statuses.clear()
        topics = {"camera_topics": [TOPIC]} if name == "detector" else {}
        with self.process(name, self._parameters | topics):

            def ready() -> bool:
                listener = self.listener
                if not listener.count_subscribers(TOPIC):
                    return False
                return name != "detector" or (
                    listener.engine.get("state") == "active"
                    and listener.count_publishers(f"{DETECTOR}/detections") > 0
                    and listener.parameters.service_is_ready()
                )

            self.spin(ready, START_LIMIT, f"{name} is not ready")
            yield

    def measure_bare(self, rate: float, seconds: float) -> dict[str, Any]:
        """The network alone in the place of the detector, at this rate of the camera."""
        with self.subject("benchmark_bare"), self.process("benchmark_camera", {"rate": rate}):
            log = self._output / "benchmark_bare.log"
            self.spin(
                lambda: BEGUN in log.read_text(errors="replace"),
                START_LIMIT,
                f"no picture came on {TOPIC}",
            )
            self.wait(SETTLING + seconds)
        durations = self.report_of("benchmark_bare")["seconds"]
        return milliseconds(durations[int(SETTLING * rate) :] or durations)

    def measure_detector(
        self, rate: float, seconds: float, meanwhile: Callable[[], None] | None = None
    ) -> dict[str, Any]:
        """The detector at this rate of the camera; something may be done to it meanwhile.

        Returns:
            What was sent, what became of it, latencies, and the gaps between answers.
        """
        answers = self.listener.answers
        with self.subject("detector"):
            with self.process("benchmark_camera", {"rate": rate}):
                self.spin(lambda: answers, START_LIMIT, f"no answer to a picture on {TOPIC}")
                self.wait(SETTLING)
                first = len(answers)
                started = time.monotonic()
                if meanwhile:
                    meanwhile()
                else:
                    self.wait(seconds)
                counted = len(answers)
                lasted = time.monotonic() - started
            self.wait(REPORTS)
            counts = self._counts()
            stages = self._stages()
        steady = answers[first:counted]
        if len(steady) < 2:
            raise BenchmarkError(
                f"{len(steady)} answers in {lasted:.0f} s; see the logs in {self._output}"
            )
        return {
            "camera_rate_hz": rate,
            **self.report_of("benchmark_camera"),
            "answered": len(answers),
            **counts,
            "processed_rate_hz": len(steady) / lasted,
            "stamp_to_publish": milliseconds((done - stamp) / 1e9 for stamp, done in steady),
            "gaps": milliseconds(gaps([done for _, done in steady])),
            "stages_p50_ms": stages,
        }

    def measure_switches(
        self, rate: float, other: OperatingPoint, seconds: float
    ) -> list[dict[str, Any]]:
        """Change to another operating point and back, several times, while pictures come."""
        spans: list[tuple[OperatingPoint, int, int]] = []

        def switch() -> None:
            for turn in range(SWITCHES):
                point = self._point if turn % 2 else other
                begun = time.time_ns()
                self._set(point)
                done = partial(self.listener.runs, point)
                self.spin(done, SWITCH_LIMIT, f"no change to {point}")
                ended = time.time_ns()
                self.wait(REST)
                spans.append((point, begun, ended))
            self.wait(seconds - SWITCHES * REST)

        self.measure_detector(rate, 0.0, switch)
        published = [done for _, done in self.listener.answers]
        return [
            {
                "to": str(point),
                "took_ms": (ended - begun) / 1e6,
                "largest_gap_ms": 1e3 * largest_gap(published, begun, ended),
            }
            for point, begun, ended in spans
        ]

    def _set(self, point: OperatingPoint) -> None:
        parameters = [Parameter(n, value=v).to_parameter_msg() for n, v in asdict(point).items()]
        future = self.listener.parameters.call_async(
            SetParametersAtomically.Request(parameters=parameters)
        )
        self.spin(future.done, SWITCH_LIMIT, f"no answer to the change to {point}")
        result = future.result().result
        if not result.successful:
            raise BenchmarkError(f"the detector refuses {point}: {result.reason}")

    def _counts(self) -> dict[str, int]:
        values = self.listener.statuses.get(TOPIC, {})
        return {name: int(values.get(name, 0)) for name in COUNTS}

    def _stages(self) -> dict[str, float]:
        values = self.listener.statuses.get(TOPIC, {})
        return {s: float(values[f"{s}_p50_ms"]) for s in STAGES if f"{s}_p50_ms" in values}


def gaps(published: Sequence[int]) -> list[float]:
    """Seconds between one answer and the next, from times of publication in ns."""
    return [(later - earlier) / 1e9 for earlier, later in pairwise(sorted(published))]


def largest_gap(published: Sequence[int], begun: int, ended: int) -> float:
    """The largest gap between answers, in seconds, that touches a span of time; all in ns.

    Raises:
        ValueError: If no answer came before the span, or none after it.
    """
    touching = [
        later - earlier
        for earlier, later in pairwise(sorted(published))
        if earlier <= ended and later >= begun
    ]
    if not touching or min(published) > begun or max(published) < ended:
        raise ValueError("answers must come before and after the span of time that is looked at")
    return max(touching) / 1e9


def other_point(library: ModelLibrary, point: OperatingPoint) -> OperatingPoint:
    """The operating point to switch to: the next smaller network, else the next smaller input.

    Where there is nothing smaller, the next larger.

    Raises:
        BenchmarkError: If there is no other.
    """
    own = library.find(point)
    networks = [
        entry
        for entry in library.entries
        if (entry.backbone, entry.precision) == (own.backbone, own.precision)
    ]
    alphas = [e.alpha for e in networks if point.resolution in e.resolutions and e is not own]
    sizes = [size for size in own.resolutions if size != point.resolution]
    for name, value, values in (
        ("alpha", own.alpha, alphas),
        ("resolution", point.resolution, sizes),
    ):
        smaller = [other for other in values if other < value]
        if values:
            return OperatingPoint(
                **asdict(point) | {name: max(smaller) if smaller else min(values)}
            )
    raise BenchmarkError(f"there is no operating point beside {point} to switch to")


def camera_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What lets a camera send raw pictures over Fast DDS without losing them.

    Empty where the user has a profile of their own, or ours was not installed.
    """
    if any(name in environment for name in PROFILE_VARIABLES):
        return {}
    profile = find_file("config", PROFILE)
    return dict.fromkeys(PROFILE_VARIABLES, str(profile)) if profile else {}


def measure_node(
    models: Path | None,
    point: OperatingPoint,
    num_threads: int,
    seconds: float,
    load: float,
    output: Path,
    check: Callable[[], None],
) -> dict[str, Any]:
    """The whole benchmark of the node.

    Args:
        models: Folder of the models; None for the installed one.
        point: Operating point.
        num_threads: Of ONNX Runtime; 0 means one less than there are cores.
        seconds: How long each of the six parts lasts.
        load: Rate of the camera as a share of what `Detector.detect` can hold.
        output: Folder for logs.
        check: Called often; what it raises ends everything.

    Returns:
        Figures ready for JSON; README says what they mean.

    Raises:
        ModelError: If there is no such model, or it cannot be used.
        BenchmarkError: If a process dies, or does not do its part.
    """
    library = ModelLibrary(models)
    other = other_point(library, point)
    alone = measure_alone(library, point, num_threads, seconds)
    rate = load * alone["detect_rate_hz"]
    bench = Bench(point, library.folder, num_threads, output, check)
    try:
        bare = bench.measure_bare(rate, seconds)
        paced = bench.measure_detector(rate, seconds)
        flood = OVERLOAD * alone["session_run_rate_hz"]
        bare_overload = bench.measure_bare(flood, seconds)
        overload = bench.measure_detector(flood, seconds)
        switches = bench.measure_switches(rate, other, seconds)
    finally:
        bench.close()
    largest = max(one["largest_gap_ms"] for one in switches)
    processed, bare_rate = overload["processed_rate_hz"], 1e3 / bare_overload["mean_ms"]
    return {
        "point": str(point),
        "picture": "640x480 bgr8",
        "num_threads": num_threads,
        "seconds": seconds,
        "load": load,
        **describe_machine(),
        "middleware": rclpy.get_rmw_implementation_identifier(),
        "ros": os.environ.get("ROS_DISTRO", ""),
        "camera_profile": bool(camera_environment(os.environ)),
        "how": how_measured(os.cpu_count() or 1),
        "overhead_ratio": paced["stamp_to_publish"]["p50_ms"] / bare["p50_ms"],
        "alone": alone,
        "bare": bare,
        "paced": paced,
        "overload": overload
        | {
            "bare": bare_overload,
            "bare_rate_hz": bare_rate,
            "share_of_bare_rate": processed / bare_rate,
            "share_of_session_run_rate": processed / alone["session_run_rate_hz"],
            "share_of_detect_rate": processed / alone["detect_rate_hz"],
        },
        "switch": {
            "largest_gap_ms": largest,
            "to_usual_p50": largest / paced["gaps"]["p50_ms"],
            "to_usual_max": largest / paced["gaps"]["max_ms"],
            "switches": switches,
        },
    }


def how_measured(cores: int) -> str:
    """In words, for those who read the figures."""
    text = (
        "camera, detector and listener are processes of their own; bare is session.run in a "
        "process that takes the place of the detector and takes the same pictures at the same "
        "rate, alone is without any of them"
    )
    if cores < 4:
        text += (
            f"; they share {cores} cores with the network, so that what the camera and the "
            "listener need is part of the figures"
        )
    return text


def describe(result: Mapping[str, Any]) -> list[str]:
    """The figures as lines for people."""
    alone, bare, paced = result["alone"], result["bare"], result["paced"]
    overload, switch = result["overload"], result["switch"]
    rows = {
        "operating point": f"{result['point']}, {result['num_threads'] or 'cores - 1'} threads",
        "machine": f"{result['machine']}, {result['cores']} cores",
        "alone": f"session.run {ranks(alone['session_run'])}   detect {ranks(alone['detect'])}",
        "bare": f"{ranks(bare)} at {paced['camera_rate_hz']:.1f} Hz",
        "stamp to publish": ranks(paced["stamp_to_publish"]),
        "overhead ratio": f"{result['overhead_ratio']:.3f} of p50",
        "stages, p50": stage_line(paced["stages_p50_ms"]),
        "frames": frame_line(paced),
        "overload": f"{overload['processed_rate_hz']:.1f} Hz of {overload['sent_rate_hz']:.1f}: "
        f"{100 * overload['share_of_bare_rate']:.1f} % of bare, "
        f"{100 * overload['share_of_session_run_rate']:.1f} % of session.run alone, "
        f"{100 * overload['share_of_detect_rate']:.1f} % of detect alone",
        "overload frames": frame_line(overload),
        "switch": f"largest gap {switch['largest_gap_ms']:.1f} ms: "
        f"{switch['to_usual_p50']:.2f} of the usual p50, "
        f"{switch['to_usual_max']:.2f} of the largest without a switch",
        "measured": result["how"],
    }
    width = max(map(len, rows))
    return [f"{name:<{width}}   {text}" for name, text in rows.items()]


def ranks(figures: Mapping[str, float]) -> str:
    """Percentiles in words."""
    return "  ".join(f"p{rank} {figures[f'p{rank}_ms']:.2f} ms" for rank in (50, 90, 99))


def stage_line(stages: Mapping[str, float]) -> str:
    """Medians of stages in words."""
    return "  ".join(f"{name} {value:.2f} ms" for name, value in stages.items())


def frame_line(part: Mapping[str, Any]) -> str:
    """What became of the frames, in words."""
    names = ("sent", "answered", "superseded", "stale", "failed", "lost")
    return "  ".join(f"{name} {part[name]}" for name in names)

"""What the node adds to the network: camera, detector and listener as processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import chain, cycle, islice, pairwise
from pathlib import Path
from statistics import mean, median
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
from std_srvs.srv import SetBool
from vision_msgs.msg import Detection2DArray

from mbnet_perception.core.latency import percentile
from mbnet_perception.inference.benchmark import describe_machine, measure_alone, milliseconds
from mbnet_perception.inference.engine import KEPT
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint, find_file
from mbnet_perception.nodes.benchmark_bare import BEGUN
from mbnet_perception.nodes.benchmark_camera import TOPIC
from mbnet_perception.nodes.diagnostics import STAGES
from mbnet_perception.nodes.processes import choose_network, last_words, node_process

BARE = "benchmark_bare"
DETECTOR = "detector"
OVERLOAD = 3.0  # times the rate that the network alone can hold
TURN = 0.6  # seconds before the other one has its turn: the machine's pace changes that fast
SKIPPED = 0.2  # of them that do not count: the other one has emptied the caches
ENOUGH = 10  # pictures at least in what counts of a turn, and in a rest, however long that takes
TURNS = 3  # of each at least
SWITCHES = 8  # of each kind
LARGEST_GAP = 1.5  # times the usual one; more is beyond the aim (docs/decisions.md)
REST = 0.7  # seconds between two switches, and before the first
SETTLING = 1.0  # seconds of pictures before the first rest
REPORTS = 1.2  # seconds in which a report comes for sure
PAUSE = 0.05  # seconds between two looks at the processes
UNREAD = 5000  # answers that wait to be read; Fast DDS keeps no more
START_LIMIT = 60.0  # seconds for a process to get ready
SWITCH_LIMIT = 30.0  # seconds for an operating point to change
PROFILE = "fastdds.xml"
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
COUNTS = ("received", "processed", "superseded", "stale", "failed", "lost", "waiting")


class BenchmarkError(RuntimeError):
    """The benchmark cannot go on."""


class Listener(Node):
    """Subscribes to the detector's answers and reports, which wait until they are read.

    It is on no executor: reading one as it comes takes a core from those that are measured.

    Attributes:
        answers: Stamp of the picture and time of publication of each, ns since the epoch, in order.
        statuses: The newest of each name, as key and value.
        changed: When the detector first said that it runs where it now does, ns since the epoch.
    """

    def __init__(self, context: Context) -> None:
        super().__init__("benchmark_listener", context=context)
        self.answers: list[tuple[int, int]] = []
        self.statuses: dict[str, dict[str, str]] = {}
        self.changed = 0
        reliable = QoSProfile(depth=UNREAD, reliability=ReliabilityPolicy.RELIABLE)
        self._answers = self.create_subscription(
            Detection2DArray, f"/{DETECTOR}/detections", lambda _: None, reliable
        )
        self._reports = self.create_subscription(
            DiagnosticArray, "/diagnostics", lambda _: None, reliable
        )

    def read_answers(self) -> list[tuple[int, int]]:
        """Read what has come by now; returns all that was read."""
        now, published = time.time_ns(), 0
        # And what comes meanwhile is left: on a busy machine that may be more than is read.
        while published <= now:
            taken = self._answers.handle.take_message(Detection2DArray, False)
            if not taken:
                break
            message, info = taken
            stamp, published = message.header.stamp, info["source_timestamp"]
            self.answers.append((stamp.sec * 10**9 + stamp.nanosec, published))
        return self.answers

    def read_reports(self) -> None:
        """Read what has come."""
        while taken := self._reports.handle.take_message(DiagnosticArray, False):
            message, info = taken
            before = self.point
            for status in message.status:
                name = status.name.split(": ", 1)[-1]
                self.statuses[name] = {entry.key: entry.value for entry in status.values}
            if self.point != before:
                self.changed = info["source_timestamp"]

    @property
    def engine(self) -> dict[str, str]:
        """What the detector says of its network; empty before it has said anything."""
        return self.statuses.get("engine", {})

    @property
    def point(self) -> dict[str, str | None]:
        """Where the detector says that it runs, as parameters in words."""
        return {field.name: self.engine.get(field.name) for field in fields(OperatingPoint)}


class Requests(Node):
    """Asks for changes.

    Attributes:
        parameters: Client that sets the detector's.
        enable: Clients that enable and disable, by the name of the process.
    """

    def __init__(self, context: Context) -> None:
        super().__init__("benchmark_requests", context=context)
        self.parameters = self.create_client(
            SetParametersAtomically, f"/{DETECTOR}/set_parameters_atomically"
        )
        self.enable = {
            name: self.create_client(SetBool, f"/{name}/enable") for name in (BARE, DETECTOR)
        }


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
        os.environ.update(choose_network())
        self._context = Context()
        rclpy.init(context=self._context, signal_handler_options=SignalHandlerOptions.NO)
        self._executor = SingleThreadedExecutor(context=self._context)
        self.listener = Listener(self._context)
        self._requests = Requests(self._context)
        self._executor.add_node(self._requests)

    def close(self) -> None:
        """End listening and asking."""
        self._executor.shutdown()
        for node in (self.listener, self._requests):
            node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def spin(self, done: Callable[[], object], limit: float, what: str) -> None:
        """Wait until it is done.

        Raises:
            BenchmarkError: If a process ends, or it is not done in time; `what` says what is not.
        """
        end = time.monotonic() + limit
        while not done():
            self._look_after()
            if time.monotonic() > end:
                raise BenchmarkError(f"{what} within {limit:.0f} s")
            self._executor.spin_once(timeout_sec=PAUSE)

    def pause(self, seconds: float) -> None:
        """Let the others work undisturbed for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._look_after()
            time.sleep(min(left, PAUSE))

    def _look_after(self) -> None:
        self._check()
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise BenchmarkError(last_words(name, process.returncode, self._output))

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
        """What can take the camera's pictures, from when it is ready; it takes none yet."""
        listener, requests = self.listener, self._requests
        topics = {"camera_topics": [TOPIC]} if name == DETECTOR else {}
        with self.process(name, self._parameters | topics):

            def ready() -> bool:
                listener.read_reports()
                if not requests.enable[name].service_is_ready():
                    return False
                return name != DETECTOR or (
                    listener.engine.get("state") == "active"
                    and listener.count_publishers(f"/{DETECTOR}/detections") > 0
                    and requests.parameters.service_is_ready()
                )

            self.spin(ready, START_LIMIT, f"{name} is not ready")
            self._enable(name, False)
            yield

    @contextmanager
    def detector(self) -> Iterator[None]:
        """The detector as a subject, of which nothing was heard yet."""
        self.listener.read_answers().clear()
        self.listener.read_reports()
        self.listener.statuses.clear()
        with self.subject(DETECTOR):
            yield

    def compare(self, rate: float, seconds: float) -> tuple[dict[str, Any], list[Turn]]:
        """The network alone and the detector in turns, at this rate of the camera.

        Args:
            rate: Of the camera, Hz.
            seconds: For the turns of each.

        Returns:
            Figures of both; and what they are of, turn by turn, the network alone first.
        """
        length = max(TURN, SKIPPED + ENOUGH / rate)
        names = [BARE, DETECTOR] * max(TURNS, round(seconds / length))
        with self.subject(BARE), self.detector():
            with self.process("benchmark_camera", {"rate": rate}):
                for name in (BARE, DETECTOR):  # the first turn of each does not count
                    self._turn(name, 0.0)
                spans = [(name, *self._turn(name, length)) for name in names]
            self.pause(REPORTS)
            self.listener.read_reports()
            counts = self._counts()
            stages = self._stages()
        answers = self.listener.read_answers()
        took = {
            BARE: self.report_of(BARE)["runs"],
            DETECTOR: [(published, (published - stamp) / 1e9) for stamp, published in answers],
        }
        turns = counted_turns(spans, took)
        figures = {
            "camera_rate_hz": rate,
            **self.report_of("benchmark_camera"),
            "bare_received": len(took[BARE]),
            "answered": len(answers),
            **counts,
            "turns_of_each": len(names) // 2,
            "bare": milliseconds(durations(turns, BARE)),
            "stamp_to_publish": milliseconds(durations(turns, DETECTOR)),
            "processed_rate_hz": processed_rate(turns),
            "stages_p50_ms": stages,
        }
        return figures, turns

    def _turn(self, name: str, length: float) -> tuple[int, int]:
        """Give one its turn; returns from when to when it counts, ns since the epoch."""
        before = self._pictures_of(name)
        self.give_turn(name)
        # A busy camera may take a while to find out whom to send to.
        self._expect_pictures(name, lambda: self._pictures_of(name) > before)
        # Not when we wake up, which we may do just when an answer has left a core free.
        begun = time.time_ns() + int(1e9 * SKIPPED)
        ended = begun + int(1e9 * (length - SKIPPED))
        self.pause(length)
        return begun, ended

    def give_turn(self, name: str) -> None:
        """Have one of the two take the camera's pictures, and the other one not."""
        self._enable(DETECTOR if name == BARE else BARE, False)
        self._enable(name, True)

    def _pictures_of(self, name: str) -> int:
        """A number that grows when one of the two takes pictures in its turn."""
        if name == DETECTOR:
            return len(self.listener.read_answers())
        return (self._output / f"{BARE}.log").read_text(errors="replace").count(BEGUN)

    def _expect_pictures(self, name: str, begun: Callable[[], object]) -> None:
        self.spin(begun, START_LIMIT, f"{name} took no picture on {TOPIC}")

    def _enable(self, name: str, wanted: bool) -> None:
        future = self._requests.enable[name].call_async(SetBool.Request(data=wanted))
        self.spin(future.done, START_LIMIT, f"no answer of {name} to ~/enable")
        result = future.result()
        if not result.success:
            raise BenchmarkError(f"{name} cannot be enabled or disabled: {result.message}")

    def measure_switches(
        self, rate: float, built: Sequence[OperatingPoint], kept: Sequence[OperatingPoint]
    ) -> dict[str, Any]:
        """Change from one operating point to another while pictures come.

        Args:
            rate: Of the camera, Hz.
            built: Where to change to first, of :func:`planned_switches`.
            kept: And then.

        Returns:
            :func:`switch_figures` of the two kinds of changes, by their names.
        """
        spans: list[tuple[int, int]] = []
        rests: list[tuple[int, int]] = []
        with self.detector(), self.process("benchmark_camera", {"rate": rate}):
            self._enable(DETECTOR, True)
            self._expect_pictures(DETECTOR, self.listener.read_answers)
            self.pause(SETTLING)
            since = time.time_ns()
            self.pause(REST)
            for point in (*built, *kept):
                begun = time.time_ns()
                rests.append((since, begun))
                self._set(point)
                self.pause(REST / 2)  # the change is over then, or long
                self.spin(partial(self._runs, point), SWITCH_LIMIT, f"no change to {point}")
                ended = self.listener.changed
                spans.append((begun, ended))
                self.listener.read_answers()  # before there are too many
                since = time.time_ns()  # to read them takes a core, just when the network runs
                # So that a time as long as the change fits between two answers of the rest.
                self.pause(max(REST / 2, 2 * (ended - begun) / 1e9, ENOUGH / rate))
            rests.append((since, time.time_ns()))
        published = [done for _, done in self.listener.read_answers()]
        first = len(built)  # of those that are kept
        figures = {
            "built": switch_figures(published, spans[:first], rests[: first + 1]),
            "kept": switch_figures(published, spans[first:], rests[first:]),
        }
        for kind, points in (("built", built), ("kept", kept)):
            for one, point in zip(figures[kind]["switches"], points, strict=True):
                one["to"] = str(point)
        return figures

    def _set(self, point: OperatingPoint) -> None:
        parameters = [Parameter(n, value=v).to_parameter_msg() for n, v in asdict(point).items()]
        future = self._requests.parameters.call_async(
            SetParametersAtomically.Request(parameters=parameters)
        )
        self.spin(future.done, SWITCH_LIMIT, f"no answer to the change to {point}")
        result = future.result().result
        if not result.successful:
            raise BenchmarkError(f"the detector refuses {point}: {result.reason}")

    def _runs(self, point: OperatingPoint) -> bool:
        self.listener.read_reports()
        return self.listener.point == {name: str(value) for name, value in asdict(point).items()}

    def _counts(self) -> dict[str, int]:
        values = self.listener.statuses.get(TOPIC, {})
        return {name: int(values.get(name, 0)) for name in COUNTS}

    def _stages(self) -> dict[str, float]:
        values = self.listener.statuses.get(TOPIC, {})
        return {s: float(values[f"{s}_p50_ms"]) for s in STAGES if f"{s}_p50_ms" in values}


@dataclass(frozen=True)
class Turn:
    """What counts of a turn.

    Attributes:
        name: Of the process whose turn it was.
        seconds: How long it counted.
        durations: Of each ``session.run``, or from each stamp to publication, in seconds.
    """

    name: str
    seconds: float
    durations: Sequence[float]


def counted_turns(
    spans: Iterable[tuple[str, int, int]], took: Mapping[str, Iterable[tuple[int, float]]]
) -> list[Turn]:
    """Sort into turns what each process did.

    Args:
        spans: Name of the process whose turn it was, and from when to when it counts, ns.
        took: Of each process, when something ended, ns, and how long it took, seconds.

    Raises:
        BenchmarkError: If a process did nothing in all of its turns. In one that can be: a busy
            machine may hold a process up for longer than that.
    """
    turns = []
    for name, begun, ended in spans:
        inside = [duration for done, duration in took[name] if begun < done <= ended]
        turns.append(Turn(name, (ended - begun) / 1e9, inside))
    for name in took:
        if not durations(turns, name):
            own = sum(turn.name == name for turn in turns)
            raise BenchmarkError(
                f"{name} did nothing in all its {own} turns; are other programs busy?"
            )
    return turns


def durations(turns: Iterable[Turn], name: str) -> list[float]:
    """All durations of the turns of one process."""
    return [duration for turn in turns if turn.name == name for duration in turn.durations]


def processed_rate(turns: Iterable[Turn]) -> float:
    """Answers of the detector a second of its turns."""
    own = [turn for turn in turns if turn.name == DETECTOR]
    return sum(len(turn.durations) for turn in own) / sum(turn.seconds for turn in own)


def overhead_ratio(turns: Sequence[Turn]) -> float:
    """Median from stamp to publication by the median of ``session.run``."""
    return percentile(durations(turns, DETECTOR), 50) / percentile(durations(turns, BARE), 50)


def share_of_bare_rate(turns: Sequence[Turn]) -> float:
    """Answers a second by the runs a second of which ``session.run`` alone is capable."""
    return processed_rate(turns) * mean(durations(turns, BARE))


def of_pairs(turns: Sequence[Turn], ratio: Callable[[Sequence[Turn]], float]) -> dict[str, Any]:
    """A ratio of each turn and the one after it, to see how far it can be trusted.

    Raises:
        BenchmarkError: If there are no two turns in a row in which something was done.
    """
    ratios = [ratio(pair) for pair in pairwise(turns) if all(turn.durations for turn in pair)]
    if not ratios:
        raise BenchmarkError("of each two turns one had nothing done; are other programs busy?")
    return {"min": min(ratios), "median": median(ratios), "max": max(ratios), "each": ratios}


def gaps(published: Sequence[int]) -> list[float]:
    """Seconds between one answer and the next, from times of publication in ns, in order."""
    return [(later - earlier) / 1e9 for earlier, later in pairwise(published)]


def largest_gap(published: Sequence[int], begun: int, ended: int) -> float:
    """The largest gap between answers, in seconds, that touches a span of time; all in ns.

    Args:
        published: When answers were published, in order.
        begun: Begin of the span.
        ended: Its end.

    Raises:
        ValueError: If no answer came before the span, or none after it.
    """
    touching = [
        later - earlier
        for earlier, later in pairwise(published)
        if earlier <= ended and later >= begun
    ]
    if not touching or published[0] > begun or published[-1] < ended:
        raise ValueError("answers must come before and after the span of time that is looked at")
    return max(touching) / 1e9


def switch_figures(
    published: Sequence[int], spans: Sequence[tuple[int, int]], rests: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """Compare the gaps between answers during switches with those at rest.

    The largest gap is larger the longer one looks. So each switch's is compared with the largest
    gaps of windows of the rests, each of them as long as a switch takes: what a computer
    that is held up itself does to these, it does to switches too.

    Args:
        published: When answers were published, ns, in order.
        spans: From when to when a switch was under way, ns, in order.
        rests: From when to when nothing but the camera and the detector was at work, ns, in order.

    Returns:
        Figures ready for JSON.

    Raises:
        ValueError: If no answer came before and after each switch, or in no rest do answers come
            for as long as a switch takes.
    """
    largest = [largest_gap(published, *span) for span in spans]
    window = int(median(ended - begun for begun, ended in spans))
    answers = [[done for done in published if since <= done <= until] for since, until in rests]
    usual_p50 = percentile(chain.from_iterable(map(gaps, answers)), 50)
    windows = [
        largest_gap(rest, begun, begun + window)
        for rest in answers
        if rest
        for begun in range(rest[0], rest[-1] - window + 1, window)
    ]
    if not windows:
        raise ValueError(f"no answers came for {window / 1e9:.1f} s of rest")

    def median_and_max(seconds: Sequence[float], unit: float) -> dict[str, float]:
        return {"median": median(seconds) / unit, "max": max(seconds) / unit}

    def count_beyond(seconds: Sequence[float]) -> int:
        return sum(gap > LARGEST_GAP * usual_p50 for gap in seconds)

    return {
        "largest_gap_ms": median_and_max(largest, 1e-3),
        "usual_p50_ms": 1e3 * usual_p50,
        "to_usual_p50": median_and_max(largest, usual_p50),
        "to_usual_largest": median_and_max(largest, median(windows)),
        "beyond": count_beyond(largest),
        "windows": {
            "count": len(windows),
            "length_ms": window / 1e6,
            "largest_gap_ms": median_and_max(windows, 1e-3),
            "to_usual_p50": median_and_max(windows, usual_p50),
            "beyond": count_beyond(windows),
        },
        "switches": [
            {"took_ms": (ended - begun) / 1e6, "largest_gap_ms": 1e3 * gap}
            for (begun, ended), gap in zip(spans, largest, strict=True)
        ],
    }


def points_near(library: ModelLibrary, point: OperatingPoint) -> list[OperatingPoint]:
    """The operating points to switch among: this one, and the nearest that ask for no more.

    They have its backbone and precision, and alpha and resolution are no greater: a camera's rate
    is what this one can hold. The nearest come first, by steps from one alpha or resolution of the
    library to the next. Where this one is the smallest, there is the nearest larger one.

    Returns:
        One more than an engine holds, or fewer where there are not so many.

    Raises:
        BenchmarkError: If there is no other.
    """
    own = library.find(point)
    networks = [
        entry
        for entry in library.entries
        if (entry.backbone, entry.precision) == (own.backbone, own.precision)
    ]
    alphas = sorted(entry.alpha for entry in networks)
    sizes = sorted({size for entry in networks for size in entry.resolutions})

    def steps(alpha: float, size: int) -> int:
        return abs(alphas.index(alpha) - alphas.index(own.alpha)) + abs(
            sizes.index(size) - sizes.index(point.resolution)
        )

    itself, *others = sorted(
        ((entry.alpha, size) for entry in networks for size in entry.resolutions),
        key=lambda other: (steps(*other), other),
    )
    if not others:
        raise BenchmarkError(f"there is no operating point beside {point} to switch to")
    no_more = [(alpha, size) for alpha, size in others if alpha <= itself[0] and size <= itself[1]]
    near = (no_more or others[:1])[: KEPT + 1]
    return [point, *(replace(point, alpha=alpha, resolution=size) for alpha, size in near)]


def planned_switches(
    points: Sequence[OperatingPoint],
) -> tuple[list[OperatingPoint], list[OperatingPoint]]:
    """Where to change to from the first of these operating points, the nearest to it first.

    Returns:
        Changes that build: round and round, where there is one point more than an engine holds, so
        that it has given each up when its turn comes again; else only once to each of the others.
        Then changes to and fro, between the last two of those, that build nothing.
    """
    present, *others = points
    built = others[::-1]
    if len(points) > KEPT + 1:
        built = [*islice(cycle([*built, present]), SWITCHES)]
    there, here = [present, *built][-2:]
    return built, [*islice(cycle([there, here]), SWITCHES)]


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
        seconds: How long what is alone, and each of those who take turns, is measured.
        load: Rate of the camera as a share of what the detector holds beside it.
        output: Folder for logs.
        check: Called often; what it raises ends everything.

    Returns:
        Figures ready for JSON.

    Raises:
        ModelError: If there is no such model, or it cannot be used.
        BenchmarkError: If a process dies, or does not do its part.
    """
    library = ModelLibrary(models)
    built, kept = planned_switches(points_near(library, point))
    alone = measure_alone(library, point, num_threads, seconds)
    bench = Bench(point, library.folder, num_threads, output, check)
    try:
        overload, flooded = bench.compare(OVERLOAD * alone["session_run_rate_hz"], seconds)
        rate = load * overload["processed_rate_hz"]
        paced, turns = bench.compare(rate, seconds)
        switch = bench.measure_switches(rate, built, kept)
    finally:
        bench.close()
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
        "overhead_ratio": overhead_ratio(turns),
        "share_of_bare_rate": share_of_bare_rate(flooded),
        "alone": alone,
        "overload": overload | {"share_of_pairs": of_pairs(flooded, share_of_bare_rate)},
        "paced": paced | {"overhead_of_pairs": of_pairs(turns, overhead_ratio)},
        "switch": switch,
    }


def how_measured(cores: int) -> str:
    """In words, for those who read the figures."""
    text = (
        "camera, detector and listener are processes of their own; bare is session.run in a "
        "process that takes pictures of the same camera in turns with the detector, of each turn "
        f"the first {SKIPPED:g} s are not counted; the listener reads answers and reports in "
        "between; alone is without any of them; the usual gaps are those between the switches, "
        "of which some have a detector built and others return to one that was kept"
    )
    if cores < 4:
        text += (
            f"; they share {cores} cores with the network, so that what the camera needs is part "
            "of the figures"
        )
    return text


def describe(result: Mapping[str, Any]) -> list[str]:
    """The figures as lines for people."""
    alone, overload, paced = (result[name] for name in ("alone", "overload", "paced"))
    share, ratio = overload["share_of_pairs"], paced["overhead_of_pairs"]
    rows = {
        "operating point": f"{result['point']}, {result['num_threads'] or 'cores - 1'} threads",
        "machine": f"{result['machine']}, {result['cores']} cores",
        "alone": f"session.run {ranks(alone['session_run'])}   detect {ranks(alone['detect'])}",
        "overload": f"{overload['processed_rate_hz']:.1f} Hz of {overload['sent_rate_hz']:.1f}: "
        f"{100 * result['share_of_bare_rate']:.1f} % of bare; of neighbouring turns "
        f"{100 * share['min']:.1f} to {100 * share['max']:.1f} %",
        "overload frames": frame_line(overload),
        "bare": f"{ranks(paced['bare'])} at {paced['camera_rate_hz']:.1f} Hz",
        "stamp to publish": ranks(paced["stamp_to_publish"]),
        "overhead ratio": f"{result['overhead_ratio']:.3f} of p50; of neighbouring turns "
        f"{ratio['min']:.3f} to {ratio['max']:.3f}, median {ratio['median']:.3f}",
        "stages, p50": stage_line(paced["stages_p50_ms"]),
        "frames": frame_line(paced),
        **{f"switch, {kind}": gap_line(part) for kind, part in result["switch"].items()},
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


def gap_line(part: Mapping[str, Any]) -> str:
    """What switches of one kind did to the gaps, in words."""
    largest, to_p50, to_largest, windows = (
        part[name] for name in ("largest_gap_ms", "to_usual_p50", "to_usual_largest", "windows")
    )
    return (
        f"largest gap of {len(part['switches'])} {largest['median']:.1f} ms, "
        f"at worst {largest['max']:.1f} ms: "
        f"{to_p50['median']:.2f}, at worst {to_p50['max']:.2f} of the usual p50; "
        f"{to_largest['median']:.2f}, at worst {to_largest['max']:.2f} of the usual largest; "
        f"beyond {LARGEST_GAP} of the p50 {part['beyond']}, and {windows['beyond']} of "
        f"{windows['count']} windows as long without one, at worst "
        f"{windows['to_usual_p50']['max']:.2f}"
    )


def frame_line(part: Mapping[str, Any]) -> str:
    """What became of the frames, in words."""
    names = ("received", "answered", "superseded", "stale", "failed", "lost")
    return "  ".join(f"{name} {part[name]}" for name in names)

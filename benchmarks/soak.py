"""Soak: minutes or hours of faults, to see that the detector node recovers from each and says so.

The detector and two cameras run as processes, in a ROS network of their own, on a simulated clock.
Faults come in rounds, each kind once in a random order, until the time is up: half of it with raw
images, half with JPEGs. A fault is survived if /diagnostics told what it should, and if afterwards
detections of both cameras flow and /diagnostics is content again, each within RECOVERY. All the
time the frames of each camera must balance, and no more may be lost than can have been sent.

Memory is looked at in each round after the node was cleaned up and configured again, where it has
one operating point and not those of changes before. The medians of the earlier and the later rounds
are compared; it may grow by GROWTH. With fewer than two of these it is not judged. Round 0 is the
start. The ledger adds up what was seen last of each time that the node was configured.

    python benchmarks/soak.py [--minutes 15] [--seed 0] [--faults "camera killed" ...] [--json]

Ends with status 1 if any of this failed or the detector died, and with 2 if the soak itself hung.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import math
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from statistics_msgs.msg import MetricsMessage
from std_msgs.msg import Header
from std_srvs.srv import SetBool
from vision_msgs.msg import Detection2DArray

from mbnet_perception.core.latency import percentile
from mbnet_perception.core.scene import DrivingScene
from mbnet_perception.inference.benchmark import memory_of
from mbnet_perception.inference.engine import KEPT
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint
from mbnet_perception.nodes.processes import choose_network

TOPICS = ("/front/image_raw", "/rear/image_raw")
SUFFIXES = {"raw": "", "compressed": "/compressed"}
SIZE, RATE, PICTURES = (480, 360), 30.0, 8
OTHER_SIZES = ((640, 480), (320, 240), (200, 360), (333, 217))
NORMAL, OTHER = OperatingPoint(alpha=0.5), OperatingPoint(alpha=0.35)
CHURN: dict[str, tuple[Any, ...]] = {  # the first values are those between faults
    **{"score_threshold": (0.4, 0.0, 1.0), "iou_threshold": (0.45, 0.1, 0.9)},
    **{"max_detections": (100, 1, 300), "classes": ([], ["car"]), "max_age_ms": (0, 500)},
    **{"alpha": (0.5, 0.35), "resolution": (320, 224, 256, 288)},
    **{"latency_budget_ms": (0, 20, 1000), "overlay_rate_hz": (5, 0, 60)},
}

START_LIMIT = 60.0  # seconds for the detector to load its model and the cameras to send
RECOVERY = 20.0  # seconds to tell about a fault, and again to recover from it
CALM = 1.0  # seconds between two faults; latencies are of these alone
ENOUGH = 10  # detections of a camera that say it works
GROWTH = 64  # MB
CLEANED = "cleaned up"
GRACE = 120.0  # seconds beyond the minutes after which the soak kills itself
SETTLED = ("processed", "superseded", "stale", "failed", "waiting")
LOST = ("lost", "lost_by_stamps")
COUNTS = ("received", *SETTLED, *LOST)
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

children: list[subprocess.Popen[bytes]] = []


class SoakError(Exception):
    """Something did not happen in time."""


def start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """A process of this Python that is killed when this one ends, however that happens."""
    libc = ctypes.CDLL(None)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=lambda: libc.prctl(1, signal.SIGKILL),  # PR_SET_PDEATHSIG
        )
    children.append(process)
    return process


def run_camera(topic: str, transport: str) -> None:
    """Send pictures at RATE, stamped by the simulated clock, as standard input asks for them."""
    rclpy.init(args=[])
    simulated = Parameter("use_sim_time", value=True)
    node = Node("camera", namespace=topic.split("/")[1], parameter_overrides=[simulated])
    kind = Image if transport == "raw" else CompressedImage
    threading.Thread(target=rclpy.spin, args=(node,), daemon=True).start()  # for /clock
    scene = DrivingScene(58, SIZE)
    pictures = [scene.render(float(moment))[0] for moment in range(PICTURES)]
    while not node.get_clock().now().nanoseconds:
        time.sleep(0.01)
    publisher = node.create_publisher(kind, topic + SUFFIXES[transport], 1)
    order, made, due = "whole", "", time.monotonic()
    for count in itertools.count():
        while select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
            order = sys.stdin.readline().strip()
            if not order:
                os._exit(0)
        if order != made:
            made = order
            width, height = map(int, order.split("x")) if "x" in order else SIZE
            sized = [cv2.resize(picture, (width, height)) for picture in pictures]
            fields = {"width": width, "height": height, "step": 3 * width, "encoding": "bgr8"}
            if kind is CompressedImage:
                sized = [cv2.imencode(".jpg", picture)[1] for picture in sized]
                fields = {"format": "jpeg"}
            parts = [array("B", picture.tobytes()) for picture in sized]
            if order == "broken":
                parts[::2] = [part[: len(part) // 2] for part in parts[::2]]
        header = Header(stamp=node.get_clock().now().to_msg(), frame_id="camera")
        publisher.publish(kind(header=header, data=parts[count % PICTURES], **fields))
        due += 1 / RATE


class Soak(Node):
    """One detector with two cameras, what is done to them, and what they have to say.

    Args:
        transport: Of the images.
        folder: For logs and a copy of the models.
        chance: What is done, in which order.
        faults: The kinds of them, of FAULTS.
    """

    def __init__(
        self, transport: str, folder: Path, chance: random.Random, faults: Sequence[str]
    ) -> None:
        super().__init__("soak")
        self.transport, self.folder, self.chance = transport, folder, chance
        self.crowd = Node("crowd")  # is never spun
        self.spinner = SingleThreadedExecutor()
        self.spinner.add_node(self)
        self.ahead = 100_000.0 - time.monotonic()  # of the simulated clock
        self.clock = self.create_publisher(Clock, "/clock", 1)
        self.create_timer(0.01, self.tick)
        self.answers: Counter[str] = Counter()
        self.statuses: dict[str, DiagnosticStatus] = {}
        # Counts of each time that the node was configured, and when they were looked at.
        self.lives: dict[str, list[Counter[str]]] = {topic: [Counter()] for topic in TOPICS}
        self.looked = dict.fromkeys(TOPICS, time.monotonic())
        self.calm_since = math.inf
        self.latencies: list[float] = []  # from stamp to publication, seconds
        self.rounds: list[float] = []  # MB at the start, and in each
        self.ended: float | None = None  # MB at the end
        self.faults = {n: {"tried": 0, "survived": 0, "slowest_recovery_s": 0.0} for n in faults}
        self.problems: list[str] = []
        self.create_subscription(DiagnosticArray, "/diagnostics", self.on_diagnostics, 100)
        for topic in TOPICS:
            self.create_subscription(
                Detection2DArray,
                f"{topic}/detections",
                lambda message, info, topic=topic: self.on_answer(topic, message, info),
                100,
            )
        library = ModelLibrary()
        self.models = folder / f"models_{transport}"
        shutil.copytree(library.folder, self.models)
        self.original = library.folder / library.find(OTHER).file
        self.log = folder / f"detector_{transport}.log"
        command = ["-m", "mbnet_perception.nodes.detector", "--ros-args"]
        command += ["-p", f"camera_topics:={json.dumps(TOPICS)}", "-p", "use_sim_time:=true"]
        command += ["-p", f"image_transport:={transport}", "-p", f"models_folder:={self.models}"]
        self.detector = start(command, self.log)
        self.second: subprocess.Popen[bytes] | None = None
        self.cameras = {topic: self.start_camera(topic) for topic in TOPICS}

    # What comes

    def now(self) -> float:
        """Seconds of the simulated clock."""
        return time.monotonic() + self.ahead

    def tick(self) -> None:
        sec, rest = divmod(self.now(), 1)
        self.clock.publish(Clock(clock=Time(sec=int(sec), nanosec=int(1e9 * rest))))

    def on_answer(self, topic: str, message: Detection2DArray, info: dict[str, int]) -> None:
        self.answers[topic] += 1
        # Not when it is read, which may be late where this process has to wait.
        published = self.now() - (time.time_ns() - info["source_timestamp"]) / 1e9
        if published >= self.calm_since:
            stamp = message.header.stamp
            self.latencies.append(published - stamp.sec - stamp.nanosec / 1e9)

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.statuses[status.name.removeprefix("detector: ")] = status
        for topic in self.statuses.keys() & set(TOPICS):
            self.check_books(topic)

    def value(self, name: str, key: str) -> float:
        """A number out of a status; 0 if it is not known."""
        pairs = self.statuses[name].values if name in self.statuses else ()
        return next((float(pair.value) for pair in pairs if pair.key == key), 0.0)

    def check_books(self, topic: str) -> None:
        """Whether each frame is somewhere, and no more were lost than were sent."""
        counts = Counter({n: int(self.value(topic, n)) for n in COUNTS})
        lives, now = self.lives[topic], time.monotonic()
        if counts["received"] < lives[-1]["received"]:
            lives.append(Counter())
        if counts["received"] != sum(counts[name] for name in SETTLED):
            self.problems.append(f"{topic} does not balance: {dict(counts)}")
        lost = sum(counts[name] - lives[-1][name] for name in LOST)
        sent = 2 * RATE * (now - self.looked[topic] + 2)  # of two publishers
        if lost > sent:
            self.problems.append(f"{topic}: {lost} frames lost, at most {sent:.0f} were sent")
        lives[-1], self.looked[topic] = counts, now

    # What all faults need

    def until(self, condition: Callable[[], Any], what: str, limit: float = RECOVERY) -> None:
        """Wait for something; the error says what did not come true, and what /diagnostics said."""
        end = time.monotonic() + limit
        while not condition():
            if self.detector.poll() is not None:
                raise SoakError(f"detector ended with status {self.detector.returncode}")
            if time.monotonic() > end:
                said = {name: status.message for name, status in self.statuses.items()}
                raise SoakError(f"not within {limit:.0f} s: {what}; /diagnostics said {said}")
            self.spinner.spin_once(timeout_sec=0.05)

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end, "the end", seconds + RECOVERY)

    def told(self, name: str, level: bytes, text: str) -> None:
        """Wait until /diagnostics has a new status that says this."""
        self.statuses.pop(name, None)

        def is_told() -> bool:
            status = self.statuses.get(name)
            return status is not None and status.level == level and text in status.message

        self.until(is_told, f"/diagnostics of {name} says {text!r}")

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service of the detector."""
        client = self.create_client(kind, f"/detector/{name}")
        self.until(client.service_is_ready, f"service {name} is there")
        future = client.call_async(request)
        self.until(future.done, f"service {name} answers")
        self.destroy_client(client)
        return future.result()

    def set(self, **values: Any) -> None:
        """Set parameters that are good."""
        parameters = [Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
        request = SetParametersAtomically.Request(parameters=parameters)
        result = self.call(SetParametersAtomically, "set_parameters_atomically", request).result
        if not result.successful:
            raise SoakError(f"{values} refused: {result.reason}")

    def enable(self, value: bool) -> None:
        self.call(SetBool, "enable", SetBool.Request(data=value))

    def change(self, transition: int) -> None:
        """Take the node through its life cycle."""
        request = ChangeState.Request(transition=Transition(id=transition))
        if not self.call(ChangeState, "change_state", request).success:
            raise SoakError(f"transition {transition} of the life cycle failed")

    def start_camera(self, topic: str) -> subprocess.Popen[bytes]:
        return start([__file__, "--camera", topic, self.transport], self.folder / "cameras.log")

    def tell(self, topic: str, order: str) -> None:
        """Tell a camera what to send."""
        pipe = self.cameras[topic].stdin
        assert pipe is not None
        pipe.write(f"{order}\n".encode())
        pipe.flush()

    def restore(self) -> None:
        """Put everything in order that a fault may have left."""
        if self.second:
            self.second.kill()
        for topic in TOPICS:
            if self.cameras[topic].poll() is not None:
                self.cameras[topic] = self.start_camera(topic)
            self.tell(topic, "whole")
        shutil.copy(self.original, self.models)
        state = self.call(GetState, "get_state", GetState.Request()).current_state.id
        if state == State.PRIMARY_STATE_UNCONFIGURED:
            self.change(Transition.TRANSITION_CONFIGURE)
        if state != State.PRIMARY_STATE_ACTIVE:
            self.change(Transition.TRANSITION_ACTIVATE)
        self.enable(True)
        self.set(**{name: values[0] for name, values in CHURN.items()})

    def recover(self, limit: float = RECOVERY) -> None:
        """Wait until detections of each camera flow, and /diagnostics is content."""
        before, names = self.answers.copy(), ("perception", "engine", *TOPICS)
        self.statuses.clear()

        def is_well() -> bool:
            flows = all(self.answers[topic] - before[topic] >= ENOUGH for topic in TOPICS)
            told = self.statuses if self.statuses.keys() >= set(names) else None
            return (
                flows
                and told
                and all(told[name].level == OK for name in names)
                and told["engine"].message == str(NORMAL)
            )

        try:
            self.until(is_well, "recovery", limit)
        except SoakError as error:
            raise SoakError(f"{error}; {dict(self.answers - before)} answers") from error

    # The faults; each ends when /diagnostics has told what it should

    def kill_camera(self, topic: str) -> None:
        self.cameras[topic].kill()
        self.told("perception", ERROR, f"perception stale: no new detections of {topic}")
        self.told(topic, WARN, "no frame for")

    def change_resolution(self, topic: str) -> None:
        for width, height in self.chance.sample(OTHER_SIZES, len(OTHER_SIZES)):
            self.tell(topic, f"{width}x{height}")
            self.wait(0.5)

    def break_pictures(self, topic: str) -> None:
        self.tell(topic, "broken")
        self.told(topic, ERROR, "frames failed")

    def leap_forwards(self, _: str) -> None:
        self.ahead += self.chance.uniform(1, 100)

    def loop_bag(self, topic: str) -> None:
        self.until(lambda: self.value(topic, "window_frames") > 2 * RATE, "latencies are known")
        before = self.value(topic, "window_frames")
        self.ahead -= self.chance.uniform(1, 100)
        self.until(lambda: self.value(topic, "window_frames") < before, "latencies begin anew")

    def delete_model(self, _: str) -> None:
        # First to as many other operating points as are kept, so that none of this model is.
        for resolution in (*CHURN["resolution"][1 : KEPT + 1], NORMAL.resolution):
            self.set(resolution=resolution)
            self.told("engine", OK, str(replace(NORMAL, resolution=resolution)))
        (self.models / self.original.name).unlink()
        self.set(alpha=OTHER.alpha)
        self.told("engine", ERROR, self.original.name)
        shutil.copy(self.original, self.models)
        self.set(alpha=OTHER.alpha)
        self.told("engine", OK, str(OTHER))

    def storm(self, _: str) -> None:
        kinds: dict[str, Any] = {"/detector/latency": MetricsMessage}
        kinds["/diagnostics"] = DiagnosticArray
        for topic in TOPICS:
            kinds[f"{topic}/detections"] = Detection2DArray
            kinds[f"{topic}/overlay"] = Image
            kinds[f"{topic}/overlay/compressed"] = CompressedImage
        for _ in range(3):
            subscriptions = [
                self.crowd.create_subscription(kind, topic, print, 1)
                for topic, kind in kinds.items()
                for _ in range(4)
            ]
            self.wait(1)
            for subscription in subscriptions:
                self.crowd.destroy_subscription(subscription)

    def churn(self, _: str) -> None:
        for _ in range(20):
            names = self.chance.sample(tuple(CHURN), self.chance.randint(1, 3))
            self.set(**{name: self.chance.choice(CHURN[name]) for name in names})
            self.wait(0.1)
        self.set(latency_budget_ms=1000)
        self.told("governor", OK, "holds 1000 ms")
        self.set(latency_budget_ms=0)
        self.told("governor", OK, "off")

    def disable(self, _: str) -> None:
        self.enable(False)
        self.told("perception", WARN, "disabled")

    def deactivate(self, _: str) -> None:
        self.change(Transition.TRANSITION_DEACTIVATE)
        self.told("perception", WARN, "inactive")

    def clean_up(self, _: str) -> None:
        self.change(Transition.TRANSITION_DEACTIVATE)
        self.change(Transition.TRANSITION_CLEANUP)
        self.told("engine", OK, "no model is loaded")

    def add_publisher(self, topic: str) -> None:
        images = topic + SUFFIXES[self.transport]
        # That of a camera that was killed is known until its lease ends.
        self.until(lambda: self.count_publishers(images) == 1, "there is one publisher")
        self.second = self.start_camera(topic)
        self.until(lambda: self.count_publishers(images) == 2, "a second publisher")
        self.wait(2)

    # The whole

    def run(self, end: float) -> None:
        """Do all that in rounds until then, monotonic seconds."""
        try:
            self.until(lambda: "engine" in self.statuses, "the detector is up", START_LIMIT)
            self.recover(START_LIMIT)
            self.rounds.append(self.memory())
            while time.monotonic() < end:
                for name in self.chance.sample(tuple(self.faults), len(self.faults)):
                    if time.monotonic() < end:
                        self.fault(name)
            self.finish()
        except SoakError as error:
            self.problems.append(str(error))
            print(self.log.read_text(errors="replace")[-3000:], file=sys.stderr)

    def fault(self, name: str) -> None:
        """Let one happen and see whether the detector recovers."""
        row, outcome, began = self.faults[name], "survived", time.monotonic()
        row["tried"] += 1
        try:
            FAULTS[name](self, self.chance.choice(TOPICS))
            told = time.monotonic()
            self.restore()
            self.recover()
            row["survived"] += 1
            recovery = round(time.monotonic() - told, 1)
            row["slowest_recovery_s"] = max(row["slowest_recovery_s"], recovery)
        except SoakError as error:
            outcome = f"NOT SURVIVED: {error}"
            seen = {t: self.count_publishers(t + SUFFIXES[self.transport]) for t in TOPICS}
            said = (self.folder / "cameras.log").read_text(errors="replace")[-1000:]
            print(f"publishers seen: {seen}; the cameras said: {said}", file=sys.stderr)
            self.problems.append(f"{name}: {error}")
            self.restore()
            self.recover(START_LIMIT)
        took = time.monotonic() - began
        known = len(self.latencies)
        self.calm_since = self.now()
        self.wait(CALM)
        self.calm_since = math.inf
        memory = self.memory()
        if name == CLEANED:
            self.rounds.append(memory)
        latest = 1e3 * max(self.latencies[known:], default=math.nan)
        line = f"{self.transport:10} {name:26} {took:5.1f} s  then {latest:4.0f} ms at most"
        line += f"  {memory:4.0f} MB  {outcome}"
        print(line, file=sys.stderr, flush=True)

    def memory(self) -> float:
        """MB of memory that the detector holds."""
        return round(memory_of(self.detector.pid) / 2**20, 1)

    def finish(self) -> None:
        """Let the last frames settle, judge memory, and let the detector end by itself."""
        for process in self.cameras.values():
            process.kill()
        self.wait(1)
        self.told("perception", ERROR, "perception stale")
        for topic in TOPICS:
            if self.value(topic, "waiting"):
                self.problems.append(f"{topic}: frames wait though the cameras are gone")
        self.ended = self.memory()
        rounds = self.rounds[1:]
        half = len(rounds) // 2
        if half and median(rounds[half:]) - median(rounds[:half]) > GROWTH:
            self.problems.append(f"memory grew by more than {GROWTH} MB: {self.rounds}")
        self.detector.send_signal(signal.SIGINT)
        try:
            self.detector.wait(RECOVERY)
        except subprocess.TimeoutExpired as error:
            raise SoakError("detector hangs after SIGINT") from error
        if self.detector.returncode:
            raise SoakError(f"detector ended with status {self.detector.returncode}")

    def result(self) -> dict[str, Any]:
        """All figures."""
        late = self.latencies
        totals = {topic: sum(lives, Counter()) for topic, lives in self.lives.items()}
        return {
            "transport": self.transport,
            "faults": self.faults,
            "ledger": {
                topic: {name: counts[name] for name in COUNTS}
                | {"answers_seen": self.answers[topic]}
                for topic, counts in totals.items()
            },
            "memory_mb": {
                **{f"round {i}": mb for i, mb in enumerate(self.rounds)},
                "end": self.ended,
            },
            "latency_ms": {f"p{r}": round(1e3 * percentile(late, r), 1) for r in (50, 99) if late},
            "problems": self.problems,
        }


FAULTS: dict[str, Callable[[Soak, str], None]] = {
    **{"camera killed": Soak.kill_camera, "resolution changed": Soak.change_resolution},
    **{"pictures broken": Soak.break_pictures, "second publisher": Soak.add_publisher},
    **{"clock forwards": Soak.leap_forwards, "clock back, as a bag loops": Soak.loop_bag},
    **{"model deleted": Soak.delete_model, "parameters churned": Soak.churn},
    **{"storm of subscribers": Soak.storm, "disabled": Soak.disable},
    **{"deactivated": Soak.deactivate, CLEANED: Soak.clean_up},
}


def table(result: dict[str, Any]) -> str:
    """The figures of one transport for people."""

    def row(name: str, figures: dict[str, Any]) -> str:
        return f"  {name:26} " + "  ".join(f"{key} {value}" for key, value in figures.items())

    lines = [f"{result['transport']} images"]
    for section in ("faults", "ledger"):
        lines += [row(name, figures) for name, figures in result[section].items()]
    lines.append(row("memory, MB", result["memory_mb"]))
    lines.append(row("latency, ms", result["latency_ms"]))
    return "\n".join([*lines, *(f"  PROBLEM: {problem}" for problem in result["problems"])])


def give_up() -> None:
    """Leave nothing behind where the soak hangs."""
    print("error: the soak took too long and was ended", file=sys.stderr, flush=True)
    for process in children:
        process.kill()
    os._exit(2)


def main() -> int:
    """Soak and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=15.0, help="of both halves (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults (%(default)s)")
    parser.add_argument(
        "--faults",
        nargs="+",
        choices=FAULTS,
        default=list(FAULTS),
        metavar="FAULT",
        help="kinds of them: %(choices)s (all)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no table")
    parser.add_argument("--camera", nargs=2, help=argparse.SUPPRESS)  # is how it starts cameras
    args = parser.parse_args()
    if args.camera:
        run_camera(*args.camera)
    os.environ.update(choose_network())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    watchdog = threading.Timer(60 * args.minutes + GRACE, give_up)
    watchdog.daemon = True
    watchdog.start()
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    results, chance, began = [], random.Random(args.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for half, transport in enumerate(SUFFIXES, 1):
            try:
                soak = Soak(transport, Path(folder), chance, args.faults)
                soak.run(began + 60 * args.minutes * half / len(SUFFIXES))
            finally:
                for process in children:
                    process.kill()
            results.append(soak.result())
            soak.crowd.destroy_node()
            soak.destroy_node()
            if not args.json:
                print(table(results[-1]), flush=True)
    failed = any(result["problems"] for result in results)
    if args.json:
        print(json.dumps({"minutes": args.minutes, "seed": args.seed, "transports": results}))
    else:
        print("problems were found" if failed else "all survived")
    rclpy.try_shutdown()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

import json
import os
import time
from threading import Timer

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, LabelInfo, VisionClass

from mbnet_perception.core.detections import Detections
from mbnet_perception.evaluation import bags
from mbnet_perception.evaluation.accuracy import MEASURING
from mbnet_perception.evaluation.average_precision import measure
from mbnet_perception.evaluation.bag_truth import Told, truth_from_topic
from mbnet_perception.evaluation.bags import Bag, picture_of
from mbnet_perception.evaluation.dataset import Dataset
from mbnet_perception.evaluation.sample_drive import write_drive
from mbnet_perception.inference.detector import Detector
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint
from mbnet_perception.nodes import recorder
from mbnet_perception.nodes.messages import detections_message
from mbnet_perception.nodes.processes import node_process
from mbnet_perception.nodes.recorder import RecorderNode, Recording, describe

DEADLINE = 20.0
BOX = np.array([[10, 10, 50, 60]], np.float32)
ELSEWHERE = np.array([[100, 10, 150, 60]], np.float32)


def car(box=BOX, score=0.9):
    return told(box, [score], "car")


def told(boxes, scores, *names):
    return Told(boxes, names, np.array(scores, np.float32), ("",) * len(names))


NONE = told(np.zeros((0, 4), np.float32), [])


# What the figures are


def test_unanswered_pictures_are_told_by_their_place_in_the_ground_truth():
    recording = Recording(sent={10, 20, 30, 40}, answers={40: NONE, 10: NONE, 25: NONE})
    assert recording.unanswered() == [1, 2]
    # Without its picture, 50 cannot have been answered; the first place is that of 20.
    recording.truth = {50: (BOX, ("car",)), 20: (BOX, ("car",)), 40: (BOX, ("car",))}
    assert recording.unanswered() == [0, 2]


def test_accuracy_is_over_the_pictures_that_were_answered():
    # Two cars, one found: precision 1 up to a recall of 0.5, which 51 of COCO's 101 recalls are.
    # The box found has the true place, so each overlap says so. The third was not answered.
    truth = dict.fromkeys((1, 2, 3), (BOX, ("car",)))
    recording = Recording({1, 2, 3}, {1: car(), 2: NONE}, truth=truth, classes=("car", "person"))
    accuracy = recording.summary()["accuracy"]
    assert accuracy["pictures"] == 2
    assert (accuracy["ap50"], accuracy["ap"]) == pytest.approx((51 / 101, 51 / 101))
    assert accuracy["classes"]["car"]["boxes"] == 2


def test_a_false_detection_of_a_class_that_is_nowhere_in_the_truth_costs_nothing():
    truth = {1: (BOX, ("car",))}
    boxes, scores = np.concatenate([BOX, ELSEWHERE]), [0.5, 0.9]
    recording = Recording({1}, {1: told(boxes, scores, "car", "bird")}, truth=truth)
    assert recording.summary()["accuracy"]["ap50"] == pytest.approx(1)
    # Of the same class it comes first and halves the precision.
    recording.answers[1] = told(boxes, scores, "car", "car")
    assert recording.summary()["accuracy"]["ap50"] == pytest.approx(0.5)


def test_what_keeps_the_figures_from_being_whole_is_said():
    truth = {1: (np.concatenate([BOX, ELSEWHERE]), ("car", "tree"))}
    recording = Recording(
        {1}, {1: car()}, {1: 3.0}, truth, ("car",), score_threshold=0.4, accounts={"detector": {}}
    )
    summary = recording.summary()
    assert summary["accuracy"]["ap50"] == pytest.approx(1)
    unknown, threshold = summary["lacking"]
    assert unknown == "classes that the model does not know: tree"
    assert "below 0.4" in threshold and "should be 0.01" in threshold


@pytest.mark.parametrize(
    ("recording", "reasons"),
    [
        (
            Recording(),
            ["no picture of the camera", "answered nothing", "on /diagnostics", "no ground truth"],
        ),
        (
            Recording({1}, {1: NONE}, {1: 1.0}, {2: (BOX, ("car",))}, accounts={"a": {}}),
            ["accuracy: no picture with ground truth was answered"],
        ),
        (
            Recording(
                {1}, {1: NONE}, {1: 1.0}, {1: (BOX, ("tree",))}, ("car",), accounts={"a": {}}
            ),
            [r"none of the ground truth's classes (tree); it knows car"],
        ),
        (
            Recording({1}, {1: NONE}, {1: 1.0}, {1: NONE[:2]}, ("car",), accounts={"a": {}}),
            ["accuracy: "],
        ),
        (
            Recording(
                {1, 2, 3},
                {1: car(), 2: NONE, 3: NONE},
                {1: 5.0, 2: -1.0, 3: 61e3},
                {1: (BOX, ("car",))},
                accounts={"a": {}},
            ),
            ["latency of 2 answers: their stamps are of another clock"],
        ),
    ],
)
def test_what_cannot_be_told_is_named(recording, reasons):
    lacking = recording.summary()["lacking"]
    assert len(lacking) == len(reasons)
    assert all(reason in said for reason, said in zip(reasons, lacking, strict=True))
    assert all(any(said in line for line in describe(recording.summary())) for said in lacking)


def test_latency_is_told_by_nearest_rank():
    latency = dict(enumerate(range(1, 101))) | {200: -5.0}
    recording = Recording(set(latency), dict.fromkeys(latency, NONE), latency)
    assert recording.summary()["latency_ms"] == {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    assert any("p50 50.0 ms   p90 90.0 ms" in line for line in describe(recording.summary()))


# What is taken in


@pytest.fixture
def start(monkeypatch):
    """Make a recorder and a peer that plays everybody else."""
    monkeypatch.setattr(recorder, "QUIET", 0.5)
    nodes = []

    def make(*ros_args, weather=True):
        parameters = ("-p", "camera_topic:=/camera", "-p", "ground_truth_topic:=/truth")
        rclpy.init(args=["--ros-args", *parameters, *ros_args])
        nodes.extend([RecorderNode(), Peer()])
        if weather:
            nodes[1].send_weather()
        return nodes

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown()


def header(milliseconds):
    sec, milliseconds = divmod(milliseconds, 1000)
    return Header(stamp=Time(sec=sec, nanosec=milliseconds * 10**6))


class Peer(Node):
    """A camera, a detector of pictures in other weather, and somebody who knows what is there."""

    def __init__(self):
        super().__init__("detector")
        self.create_subscription(Image, "/weather/camera", lambda _: None, 10)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.camera = self.create_publisher(Image, "/camera", 10)
        self.truth = self.create_publisher(Detection2DArray, "/truth", 10)
        self.answers = self.create_publisher(Detection2DArray, "/detector/detections", 10)
        self.labels = self.create_publisher(LabelInfo, "/detector/labels", latched)
        self.diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def send_weather(self):
        self.create_publisher(Image, "/weather/camera", 10)

    def found(self):
        every = (self.truth, self.answers, self.labels, self.diagnostics)
        return all(publisher.get_subscription_count() for publisher in every)

    def connected(self):
        return self.found() and self.camera.get_subscription_count()

    def answer(self, milliseconds, box=BOX):
        found = Detections(box, np.full(len(box), 0.5, np.float32), np.zeros(len(box), np.int64))
        self.answers.publish(detections_message(found, ("car",), header(milliseconds)))

    def report(self):
        values = [KeyValue(key="received", value="3"), KeyValue(key="lost", value="1")]
        statuses = [
            DiagnosticStatus(name="detector: engine", message="a model"),
            DiagnosticStatus(name="detector: /weather/camera", values=values),
        ]
        self.diagnostics.publish(DiagnosticArray(status=statuses))


def until(condition):
    """A check for `record` that ends it once the condition holds."""
    deadline = time.monotonic() + DEADLINE

    def check():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        if condition():
            raise KeyboardInterrupt

    return check


def test_pictures_answers_truth_and_accounts_are_matched_by_stamp(start):
    node, peer = start()
    recording = node.recording
    node.record(until(peer.connected))
    began = time.time_ns() // 10**6
    stamps = (began - 20, began - 10, began)
    for stamp in stamps:
        peer.camera.publish(Image(header=header(stamp)))
        found = Detections(BOX, np.ones(1, np.float32), np.zeros(1, np.int64))
        peer.truth.publish(detections_message(found, ("car",), header(stamp)))
    peer.labels.publish(LabelInfo(class_map=[VisionClass(class_name="car")], threshold=0.25))
    peer.answer(stamps[0])
    peer.answer(stamps[2], ELSEWHERE)
    peer.report()
    node.record(until(lambda: len(recording.truth) == 3 and recording.engine and recording.classes))
    nanoseconds = [stamp * 10**6 for stamp in stamps]
    assert recording.sent == set(nanoseconds)
    assert sorted(recording.answers) == [nanoseconds[0], nanoseconds[2]]
    answer = recording.answers[nanoseconds[2]]
    np.testing.assert_allclose(answer.boxes, ELSEWHERE)
    assert (answer.scores.tolist(), answer.names) == ([0.5], ("car",))
    assert 20 <= recording.latency[nanoseconds[0]] < 1000 * DEADLINE
    summary = recording.summary()
    assert summary["engine"] == "a model"
    assert summary["frames"] == {"sent": 3, "answered": 2, "with_truth": 3}
    assert summary["unanswered"] == [1]
    assert summary["accounts"] == {"detector: /weather/camera": {"received": "3", "lost": "1"}}
    # A car found first by rank of equal scores, by picture; the other one is not there.
    assert summary["accuracy"]["ap50"] == pytest.approx(51 / 101)
    assert any("received 3   lost 1" in line for line in describe(summary))


def test_when_asked_to_end_the_last_answers_are_waited_for(start, monkeypatch):
    node, peer = start()
    node.record(until(peer.connected))
    monkeypatch.setattr(recorder, "QUIET", DEADLINE)
    peer.camera.publish(Image(header=header(7000)))

    def late():
        peer.answer(7000)
        peer.report()

    timer = Timer(0.3, late)
    timer.start()
    node.record(until(lambda: node.recording.sent))
    assert node.complete and list(node.recording.answers) == [7 * 10**9]
    timer.join()


def test_a_node_that_gives_account_later_than_the_detector_is_waited_for(start, monkeypatch):
    node, peer = start()
    weather = Node("weather")
    diagnostics = weather.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def report(count):
        values = [KeyValue(key="received", value=count)]
        status = DiagnosticStatus(name="weather: /camera", values=values)
        diagnostics.publish(DiagnosticArray(status=[status]))

    node.record(until(lambda: peer.connected() and diagnostics.get_subscription_count()))
    report("0")
    peer.camera.publish(Image(header=header(7000)))
    node.record(until(lambda: node.recording.sent))
    monkeypatch.setattr(recorder, "QUIET", DEADLINE)
    peer.answer(7000)
    peer.report()
    timer = Timer(0.3, report, ["1"])
    timer.start()
    node.record(until(lambda: len(node.recording.accounts) == 2))
    assert node.complete
    assert node.recording.accounts["weather: /camera"] == {"received": "1"}
    timer.join()
    weather.destroy_node()


def test_the_camera_is_listened_to_once_somebody_sends_the_detector_pictures(start):
    # As one that died, of which the others do not know yet; the older one is found first.
    elsewhere = Context()
    rclpy.init(context=elsewhere)
    dead = Node("detector", context=elsewhere)
    node, peer = start(weather=False)
    node.record(until(lambda: peer.found() and node.count_subscribers("/weather/camera")))
    assert not peer.connected()
    peer.send_weather()
    node.record(until(peer.connected))
    dead.destroy_node()
    rclpy.shutdown(context=elsewhere)


def test_an_answer_that_never_comes_is_waited_for_no_longer_than_it_is_quiet(start):
    node, peer = start()
    node.record(until(peer.connected))
    peer.camera.publish(Image(header=header(7000)))
    node.record(until(lambda: node.recording.sent))
    began = time.monotonic()
    node.record(until(lambda: True))
    assert recorder.QUIET <= time.monotonic() - began < DEADLINE
    assert node.recording.unanswered() == [0]


def test_with_a_simulated_clock_latency_is_by_that(start):
    node, peer = start("-p", "use_sim_time:=true")
    clock = peer.create_publisher(Clock, "/clock", 10)
    node.record(until(lambda: peer.connected() and clock.get_subscription_count()))
    clock.publish(Clock(clock=Time(sec=7, nanosec=50_000_000)))
    node.record(until(lambda: node.get_clock().now().nanoseconds))
    peer.answer(7000)
    node.record(until(lambda: node.recording.answers))
    assert node.recording.latency == {7 * 10**9: 50.0}


@pytest.mark.parametrize(
    ("answers", "output", "status", "said"),
    [
        pytest.param({1: NONE}, "live.json", 0, "answered 1", id="answered"),
        pytest.param({}, "live.json", 1, "the detector answered nothing", id="not answered"),
        pytest.param({1: NONE}, "no/such/live.json", 1, "no/such/live.json", id="not written"),
    ],
)
def test_the_exit_status_tells_whether_there_was_anything(
    answers, output, status, said, tmp_path, monkeypatch, capfd
):
    file = tmp_path / output
    monkeypatch.setattr(
        RecorderNode, "record", lambda node, check: node.recording.answers.update(answers)
    )
    monkeypatch.setattr("sys.argv", ["recorder", "--ros-args", "-p", f"output:={file}"])
    assert recorder.main() == status
    assert said in "".join(capfd.readouterr())
    if output == "live.json":
        assert json.loads(file.read_text())["frames"]["answered"] == len(answers)


def test_a_transport_that_there_is_not_is_refused(monkeypatch, capfd):
    monkeypatch.setattr("sys.argv", ["recorder", "--ros-args", "-p", "image_transport:=theora"])
    assert recorder.main() == 1
    assert "image_transport must be raw or compressed, got 'theora'" in capfd.readouterr().err


# The whole


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "drive"
    write_drive(path, seconds=1.5, rate=10.0, size=(160, 120), seed=3)
    return path


def offline(drive, unanswered):
    """AP50 and AP of the default model on pictures of a bag, but for some places, without ROS."""
    library, point = ModelLibrary(), OperatingPoint()
    detector = Detector(library.read(library.find(point)), point.resolution, 1)
    with Bag(drive) as bag:
        truth = truth_from_topic(bag)
        messages = list(bag.messages([bags.IMAGE_TOPIC]))
    pictures = [picture_of(message, point.resolution) for message in messages]
    labels = [
        truth.picture(bags.stamp(message.data), picture.height, picture.width)
        for message, picture in zip(messages, pictures, strict=True)
    ]
    found = [detector.detect(picture, MEASURING)[0] for picture in pictures]
    answered = [place for place in range(len(found)) if place not in unanswered]
    dataset = Dataset(truth.classes, tuple(labels[place] for place in answered))
    result = measure(dataset, [found[place] for place in answered], detector.classes)
    return result.ap50, result.ap


def test_a_drive_through_all_the_nodes_is_as_accurate_as_without_them(drive, tmp_path):
    topic = bags.IMAGE_TOPIC.removesuffix("/compressed")
    transport = {"image_transport": "compressed"}
    reliable = {f"qos_overrides.{bags.IMAGE_TOPIC}.subscription.reliability": "reliable"}
    shown = f"qos_overrides./weather{bags.IMAGE_TOPIC}.subscription"
    output = tmp_path / "live.json"
    parameters = {
        "weather": {"camera_topics": [topic], **transport, **reliable},
        "detector": {
            "camera_topics": [f"/weather{topic}"],
            "score_threshold": MEASURING.score_threshold,
            **transport,
            f"{shown}.reliability": "reliable",
            f"{shown}.depth": 10,
        },
        "recorder": {
            "camera_topic": topic,
            "ground_truth_topic": bags.GROUND_TRUTH_TOPIC,
            "output": str(output),
            **transport,
            **reliable,
        },
    }
    replay = {"bag": str(drive), "subscribers": 2, "wait_for_subscribers": 30.0}
    environment = dict(os.environ)

    def started(name, values):
        return node_process(name, values, tmp_path, environment)

    with started("weather", parameters["weather"]), started("detector", parameters["detector"]):
        with (
            started("recorder", parameters["recorder"]) as listening,
            started("replay", replay) as playing,
        ):
            assert playing.wait(DEADLINE) == 0
        assert listening.returncode == 0
    summary = json.loads(output.read_text())
    log = (tmp_path / "recorder.log").read_text()
    assert log.splitlines() == describe(summary)
    # On a busy computer the first pictures may come before everybody has found everybody.
    frames, unanswered = summary["frames"], summary["unanswered"]
    assert frames["with_truth"] == 15 and len(unanswered) <= 3, log
    assert frames["answered"] == 15 - len(unanswered)
    assert summary["lacking"] == []
    processed = int(summary["accounts"][f"detector: /weather{topic}"]["processed"])
    assert frames["answered"] <= processed <= 15
    assert processed <= int(summary["accounts"][f"weather: {topic}"]["sent"]) <= 15
    accuracy = summary["accuracy"]
    expected = offline(drive, unanswered)
    assert (accuracy["ap50"], accuracy["ap"]) == pytest.approx(expected, abs=1e-6)

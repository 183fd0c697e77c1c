import re
import time

import numpy as np
import pytest
from builtin_interfaces.msg import Time as Stamp
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header

from mbnet_perception.nodes import detector as detector_module

GREY = np.full((120, 160, 3), 128, np.uint8)
SIMULATED = ("-p", "use_sim_time:=true")
TWO = ("-p", "camera_topics:=[/front/image_raw, /rear/image_raw]")
TOPICS = ("/front/image_raw", "/rear/image_raw")
NAME = "detector: /image_raw"


@pytest.fixture(autouse=True)
def haste(monkeypatch):
    """Reports come sooner."""
    monkeypatch.setattr(detector_module, "DIAGNOSTICS_PERIOD", 0.2)


class Simulation:
    """The clock of a rig's node, in seconds."""

    def __init__(self, rig):
        self.rig = rig
        self.publisher = rig.peer.create_publisher(Clock, "/clock", qos_profile_sensor_data)
        rig.until(self.publisher.get_subscription_count)

    def set(self, seconds):
        """Publish a time until the node has it."""

        def arrived():
            self.publisher.publish(Clock(clock=stamp(seconds)))
            self.rig.executor.spin_once(timeout_sec=0.02)
            return self.rig.detector.get_clock().now().nanoseconds == round(seconds * 1e9)

        self.rig.until(arrived)

    def image(self, seconds):
        return self.rig.raw(GREY, header=Header(stamp=stamp(seconds)))


def stamp(seconds):
    nanoseconds = round(seconds * 1e9)
    return Stamp(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def milliseconds(values, stage, figure="p50"):
    return float(values[f"{stage}_{figure}_ms"])


# A simulated clock


def test_latencies_are_in_simulated_time(rig, gate):
    detector = rig(*SIMULATED)
    simulation = Simulation(detector)
    simulation.set(100.0)
    detector.send(simulation.image(99.95))
    detector.until(lambda: gate.pictures)
    simulation.set(100.2)
    gate.let()
    assert detector.settle().processed == 1
    _, values = detector.status(NAME)
    assert milliseconds(values, "transport") == 50
    assert milliseconds(values, "stamp_to_publish") == 250
    # The rest is what the processor took.
    assert 0 < milliseconds(values, "inference") < 20_000


def test_frames_are_stale_by_simulated_time(rig):
    detector = rig(*SIMULATED, "-p", "max_age_ms:=500")
    simulation = Simulation(detector)
    simulation.set(100.0)
    detector.send(simulation.image(99.4))
    assert detector.settle().stale == 1
    detector.send(simulation.image(99.6))
    assert detector.settle().processed == 1


def test_a_bag_that_begins_anew_clears_the_latencies_and_is_said_once(rig, capfd):
    detector = rig(*SIMULATED)
    simulation = Simulation(detector)
    simulation.set(100.0)
    detector.answer(simulation.image(99.0))
    assert milliseconds(detector.status(NAME)[1], "transport") == 1000
    simulation.set(10.0)
    detector.answer(simulation.image(99.99))  # was on its way
    detector.settle()
    _, values = detector.status(NAME)
    assert "transport_p50_ms" not in values
    assert values["stamp_jumped"] == "1"
    for seconds in (10.1, 10.2, 10.3, 10.4):
        simulation.set(seconds)
        detector.answer(simulation.image(seconds - 0.05))
    detector.settle()
    _, values = detector.status(NAME)
    assert milliseconds(values, "transport") == milliseconds(values, "transport", "max") == 50
    assert milliseconds(values, "stamp_to_publish", "max") == 50
    assert values["stamp_jumped"] == "1"
    assert capfd.readouterr().err.count("the clock jumped by -90.000 s") == 1
    simulation.set(5.0)  # and again
    detector.status(NAME)
    assert capfd.readouterr().err.count("the clock jumped by -5.400 s") == 1


def test_a_clock_that_steps_back_while_a_frame_is_answered_tells_no_latency(rig, gate, capfd):
    detector = rig(*SIMULATED)
    simulation = Simulation(detector)
    simulation.set(40.0)
    detector.send(simulation.image(10.0))  # of the next round, and seems to be 30 s old
    detector.until(lambda: gate.pictures)
    simulation.set(9.9)
    detector.until(lambda: "the clock jumped" in capfd.readouterr().err)
    simulation.set(10.05)
    gate.open()
    detector.settle()
    simulation.set(10.15)
    detector.answer(simulation.image(10.1))
    detector.settle()
    _, values = detector.status(NAME)
    assert (values["processed"], values["window_frames"]) == ("2", "2")
    assert milliseconds(values, "transport", "max") == 50
    assert milliseconds(values, "stamp_to_publish", "max") == 50


def test_a_frame_that_waits_grows_older_by_simulated_time(rig, gate):
    detector = rig(*SIMULATED, "-p", "max_age_ms:=50")
    simulation = Simulation(detector)
    simulation.set(100.0)
    for now, stale in ((100.05, 0), (100.2, 1)):
        detector.send(simulation.image(now - 0.05))
        detector.until(lambda: gate.pictures)
        detector.send(simulation.image(now - 0.02))
        time.sleep(0.1)  # more than the age limit
        simulation.set(now + 0.1 * stale)
        gate.let(2)
        assert detector.settle().stale == stale
        gate.shut()
        gate.pictures.clear()


def test_a_simulated_clock_that_leaps_forward_does_not_jump(rig, capfd):
    detector = rig(*SIMULATED)
    simulation = Simulation(detector)
    for seconds in (100.0, 150.0):
        simulation.set(seconds)
        detector.answer(simulation.image(seconds - 0.05))
    detector.settle()
    _, values = detector.status(NAME)
    assert (values["window_frames"], values["stamp_jumped"]) == ("2", "0")
    assert milliseconds(values, "transport", "max") == 50
    assert "jumped" not in capfd.readouterr().err


def test_simulated_time_without_a_clock_is_named(rig, capfd):
    detector = rig(*SIMULATED)
    for _ in range(4):
        detector.answer(detector.raw(GREY))
    said = capfd.readouterr().err
    assert said.count("is stamped in the future") == 1
    assert "nobody publishes /clock" in said


def test_a_change_to_simulated_time_forgets_what_the_system_clock_told(rig):
    detector = rig()
    detector.answer(detector.raw(GREY, header=detector.now()))
    detector.settle()
    assert detector.set(use_sim_time=True).successful
    simulation = Simulation(detector)
    simulation.set(100.0)
    detector.answer(simulation.image(99.95))
    detector.settle()
    _, values = detector.status(NAME)
    assert values["window_frames"] == "1"
    assert milliseconds(values, "transport", "max") == 50


# Stamps that tell nothing


def test_wrong_stamps_are_said_once_for_each_kind_and_camera_and_left_out(rig, capfd):
    detector = rig(*TWO, topics=TOPICS, detections=[f"{topic}/detections" for topic in TOPICS])

    def header(offset):
        now = detector.now()
        now.stamp.sec += offset
        return now

    faults = {"zero": Header, "future": lambda: header(300), "old": lambda: header(-90)}
    for topic in TOPICS:
        for make in faults.values():
            for _ in range(4):
                detector.send(detector.raw(GREY, header=make()), topic)
                detector.settle(TOPICS.index(topic))
    said = capfd.readouterr().err
    for topic in TOPICS:
        _, values = detector.status(f"detector: {topic}")
        assert [values[f"stamp_{fault}"] for fault in faults] == ["4", "4", "4"]
        assert (values["processed"], values["window_frames"]) == ("12", "12")
        assert "inference_p50_ms" in values
        assert "transport_p50_ms" not in values
        assert "stamp_to_publish_p50_ms" not in values
        for words in ("has no stamp", "in the future", "more than a minute ago"):
            assert len(re.findall(rf"{topic}[^\n]*{words}", said)) == 1
    detector.send(detector.raw(GREY, header=detector.now()), TOPICS[0])
    detector.settle(0)
    _, values = detector.status(f"detector: {TOPICS[0]}")
    assert 0 <= milliseconds(values, "transport", "max") < 60_000


def test_one_wrong_stamp_is_counted_but_not_worth_a_line(rig, capfd):
    detector = rig()
    for header in (Header(), detector.now(), Header(), Header(), detector.now()):
        detector.answer(detector.raw(GREY, header=header))
    status, values = detector.status(NAME)
    assert values["stamp_zero"] == "3"
    assert status.level == DiagnosticStatus.WARN
    assert "of 3 frames the latency is not known, most often: has no stamp" in status.message
    assert "has no stamp" not in capfd.readouterr().err


# The system clock


class SystemClock:
    """The system's clock, as somebody sets it."""

    def __init__(self):
        self.ahead = 0.0

    def now(self):
        return Time(nanoseconds=time.time_ns() + round(1e9 * self.ahead))


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 0.5])
def test_a_system_clock_that_is_set_clears_the_latencies_and_is_said_once(
    rig, gate, monkeypatch, capfd, jump
):
    detector = rig()
    clock = SystemClock()
    monkeypatch.setattr(detector.detector, "get_clock", lambda: clock)
    now = lambda: Header(stamp=clock.now().to_msg())  # noqa: E731
    gate.let(2)
    for _ in range(2):
        detector.answer(detector.raw(GREY, header=now()))
    assert detector.settle().processed == 2
    detector.send(detector.raw(GREY, header=now()))
    detector.until(lambda: len(gate.pictures) == 3)
    before = now()
    clock.ahead += jump
    detector.until(lambda: "the clock jumped" in capfd.readouterr().err)
    gate.open()
    detector.settle()  # was received before: its latency is known
    detector.answer(detector.raw(GREY, header=before))  # was stamped before, and received after
    detector.settle()
    _, values = detector.status(NAME)
    assert (values["window_frames"], values["stamp_jumped"]) == ("2", "1")
    for _ in range(3):
        detector.answer(detector.raw(GREY, header=now()))
    detector.settle()
    _, values = detector.status(NAME)
    assert (values["window_frames"], values["stamp_jumped"]) == ("5", "1")
    assert milliseconds(values, "stamp_to_publish", "max") < 20_000
    assert "the clock jumped" not in capfd.readouterr().err

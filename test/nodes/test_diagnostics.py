from time import monotonic

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from statistics_msgs.msg import MetricsMessage, StatisticDataType
from std_srvs.srv import SetBool

from mbnet_perception.core.board import BoardReader
from mbnet_perception.nodes import detector as detector_module
from mbnet_perception.nodes.diagnostics import STAGES

GREY = np.full((120, 160, 3), 128, np.uint8)
TOPICS = ("/front/image_raw", "/rear/image_raw")
TWO = ("-p", "camera_topics:=[/front/image_raw, /rear/image_raw]")
LATENCY = "/detector/latency"
KINDS = {
    StatisticDataType.STATISTICS_DATA_TYPE_AVERAGE: "average",
    StatisticDataType.STATISTICS_DATA_TYPE_MINIMUM: "minimum",
    StatisticDataType.STATISTICS_DATA_TYPE_MAXIMUM: "maximum",
    StatisticDataType.STATISTICS_DATA_TYPE_STDDEV: "deviation",
    StatisticDataType.STATISTICS_DATA_TYPE_SAMPLE_COUNT: "count",
}


@pytest.fixture
def two_cameras(rig):
    def start(*ros_args):
        detections = [f"{topic}/detections" for topic in TOPICS]
        return rig(*TWO, *ros_args, topics=TOPICS, detections=detections)

    return start


@pytest.fixture(autouse=True)
def haste(monkeypatch):
    """Reports come sooner."""
    monkeypatch.setattr(detector_module, "DIAGNOSTICS_PERIOD", 0.2)


@pytest.fixture
def no_reports(monkeypatch):
    """A node made from now on publishes only what cannot wait for the next report."""
    monkeypatch.setattr(detector_module, "DIAGNOSTICS_PERIOD", 3600.0)


def answer(rig, topic=None, count=1):
    topic = topic or next(iter(rig.cameras))
    index = list(rig.cameras).index(topic)
    for _ in range(count):
        rig.send(rig.raw(GREY, header=rig.now()), topic)
        rig.settle(index)


# ~/latency


def latest(messages):
    """The newest message of each camera and stage, and its statistics by name."""
    return {
        (m.measurement_source_name, m.metrics_source): (
            m,
            {KINDS[s.data_type]: s.data for s in m.statistics},
        )
        for m in messages
    }


def nanoseconds(stamp):
    return stamp.sec * 10**9 + stamp.nanosec


def test_latencies_are_published_per_stage_and_camera(two_cameras):
    detector = two_cameras()
    began = nanoseconds(detector.now().stamp)
    answer(detector, TOPICS[0], 3)
    answer(detector, TOPICS[1], 7)
    ended = nanoseconds(detector.now().stamp)
    came = detector.listen(MetricsMessage, LATENCY, 100)
    kinds = (*STAGES, "throttled_frames")
    wanted = {(topic, stage) for topic in TOPICS for stage in kinds}
    detector.until(lambda: wanted <= latest(came).keys())
    assert latest(came).keys() == wanted
    for (topic, stage), (message, figures) in latest(came).items():
        assert figures["count"] == {TOPICS[0]: 3, TOPICS[1]: 7}[topic]
        start, stop = nanoseconds(message.window_start), nanoseconds(message.window_stop)
        assert began < start < stop < ended
        if stage == "throttled_frames":
            assert (message.unit, figures["average"]) == ("percent", 0)
            continue
        assert message.unit == "ms"
        assert 0 <= figures["minimum"] <= figures["average"] <= figures["maximum"] < 60_000
        assert 0 <= figures["deviation"] <= figures["maximum"] - figures["minimum"]
    for topic in TOPICS:
        means = [latest(came)[topic, stage][1]["average"] for stage in STAGES]
        # The stages are all there is between the stamp and the publication.
        assert sum(means[:-1]) == pytest.approx(means[-1], rel=0.1, abs=2)
        assert min(means) > 0
        assert means[STAGES.index("inference")] > 1


def test_nothing_is_published_on_latency_unless_somebody_listens(rig, monkeypatch):
    detector = rig()
    publisher = detector.detector._latency_publisher
    published, publish = [], publisher.publish
    monkeypatch.setattr(
        publisher, "publish", lambda message: (published.append(message), publish(message))
    )
    answer(detector)
    for _ in range(2):
        assert detector.status("detector: /image_raw")[1]["window_frames"] == "1"
    assert not published
    detector.listen(MetricsMessage, LATENCY, 100)
    detector.until(lambda: published)


# The board


@pytest.fixture
def board(tmp_path):
    """A function that makes the firmware of a Pi say these bits."""
    file = tmp_path / "devices/platform/soc/soc:firmware/get_throttled"
    file.parent.mkdir(parents=True)

    def say(bits):
        file.write_text(f"{bits:x}\n", encoding="ascii")
        return BoardReader(tmp_path)

    return say


def test_frames_of_a_throttled_board_are_told_apart(rig, board):
    detector = rig()
    detector.detector._board_reader = board(0)
    status, values = detector.status("detector: board")
    detector.until(lambda: detector.status("detector: board")[0].message == "fine")
    answer(detector, count=3)
    board(0b100)
    detector.until(
        lambda: detector.status("detector: board")[0].message == "the board is throttled"
    )
    status, values = detector.status("detector: board")
    assert status.level == DiagnosticStatus.WARN
    assert (values["throttled"], values["under_voltage"]) == ("yes", "no")
    answer(detector)
    assert detector.status("detector: /image_raw")[1]["window_throttled_frames"] == "1"
    came = detector.listen(MetricsMessage, LATENCY, 100)
    share = ("/image_raw", "throttled_frames")
    detector.until(lambda: share in latest(came))
    assert latest(came)[share][1] == {"average": 25, "count": 4}


def test_a_computer_that_tells_nothing_of_itself_is_no_alarm(rig, tmp_path):
    detector = rig()
    detector.detector._board_reader = BoardReader(tmp_path)
    detector.until(lambda: "tells nothing" in detector.status("detector: board")[0].message)
    status, values = detector.status("detector: board")
    assert (status.level, values) == (DiagnosticStatus.OK, {})


# Stale perception


class Perception:
    """What the node says about its perception, as it comes."""

    def __init__(self, rig):
        self.said = []
        self.rig = rig
        rig.peer.create_subscription(DiagnosticArray, "/diagnostics", self._hear, 10)

    def _hear(self, message):
        self.said += [s for s in message.status if s.name == "detector: perception"]

    def until(self, level, since=None):
        """Wait for a status of this level; returns it, and when it came.

        It is one that comes from now on, or that was not among the first `since`.
        """
        before = len(self.said) if since is None else since
        found = self.rig.until(lambda: [s for s in self.said[before:] if s.level == level])
        return found[0], monotonic()


def test_perception_is_stale_at_once_when_frames_stop_and_fresh_when_they_come(rig, no_reports):
    detector = rig("-p", "stale_after_ms:=1000")
    perception = Perception(detector)
    began = monotonic()
    answer(detector)
    answered = monotonic()
    status, came = perception.until(DiagnosticStatus.ERROR)
    assert came - began > 1.0
    assert came - answered < 1.9
    assert "perception stale: no new detections of /image_raw for 1." in status.message
    for _ in range(2):
        before = len(perception.said)
        answer(detector)
        detector.until(lambda before=before: len(perception.said) > before)
        assert [s.level for s in perception.said[before:]] == [DiagnosticStatus.OK]
        perception.until(DiagnosticStatus.ERROR)


def test_perception_is_fresh_while_frames_are_answered(rig, no_reports):
    detector = rig("-p", "stale_after_ms:=1500")
    perception = Perception(detector)
    until = monotonic() + 2
    while monotonic() < until:
        answer(detector)
    assert DiagnosticStatus.ERROR not in [s.level for s in perception.said]
    status, _ = perception.until(DiagnosticStatus.ERROR)
    ages = {pair.key: pair.value for pair in status.values}
    assert 1500 < float(ages["age_ms /image_raw"]) < 20_000


@pytest.mark.parametrize("late_s", [30, 1000])  # the age of the latter is not known any more
def test_perception_is_as_old_as_the_picture_when_it_was_taken(rig, no_reports, late_s):
    detector = rig("-p", "stale_after_ms:=2000")
    perception = Perception(detector)
    late = detector.now()
    late.stamp.sec -= late_s
    before = len(perception.said)
    detector.send(detector.raw(GREY, header=late))
    status, _ = perception.until(DiagnosticStatus.ERROR, before)
    assert f"/image_raw for {min(late_s, 60) // 10}" in status.message


def test_frames_that_fail_are_no_perception(rig, no_reports):
    detector = rig("-p", "stale_after_ms:=1000")
    perception = Perception(detector)
    answer(detector)
    heard = []

    def stale():
        detector.send(detector.raw(GREY, header=detector.now(), encoding="odd"))
        heard[:] = [s for s in perception.said if s.level == DiagnosticStatus.ERROR]
        return heard

    detector.until(stale)
    assert "perception stale" in heard[0].message


def test_stale_perception_names_the_camera(two_cameras, no_reports):
    detector = two_cameras("-p", "stale_after_ms:=1000")
    perception = Perception(detector)
    answer(detector, TOPICS[1])

    def stale():
        answer(detector, TOPICS[0])
        return [s for s in perception.said if s.level == DiagnosticStatus.ERROR]

    status = detector.until(stale)[0]
    assert TOPICS[1] in status.message
    assert TOPICS[0] not in status.message


def test_perception_that_is_switched_off_is_not_stale(rig, no_reports):
    detector = rig("-p", "stale_after_ms:=300")
    perception = Perception(detector)
    answer(detector)
    perception.until(DiagnosticStatus.ERROR)
    before = len(perception.said)
    detector.call(SetBool, "enable", SetBool.Request(data=False))
    off = perception.until(DiagnosticStatus.WARN, before)[0]
    assert off.message == "perception off: disabled through ~/enable"
    since = monotonic()
    detector.until(lambda: monotonic() - since > 0.6)
    assert perception.said[-1] == off
    # From now on it has as long as after the start.
    detector.call(SetBool, "enable", SetBool.Request(data=True))
    said = perception.said[perception.said.index(off) + 1 :]
    assert [s.level for s in said] in ([], [DiagnosticStatus.OK])
    perception.until(DiagnosticStatus.ERROR)


# Cameras that do not come


def camera_status(rig, words):
    """The status of the camera once it holds these words."""
    rig.until(lambda: words in rig.status("detector: /image_raw")[0].message)
    return rig.status("detector: /image_raw")[0]


@pytest.mark.parametrize(
    ("policy", "value", "offer"),
    [
        ("reliability", "reliable", "reliability best_effort, we ask for reliable"),
        ("deadline", "100000000", "no deadline, we ask for 0.1 s"),
    ],
)
def test_a_qos_policy_that_does_not_match_is_named_with_its_remedy(
    rig, capfd, policy, value, offer
):
    override = f"qos_overrides./image_raw.subscription.{policy}"
    detector = rig("-p", f"{override}:={value}", topics=(), connected=False)
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    detector.peer.create_publisher(Image, "/image_raw", best_effort)
    status = camera_status(detector, "QoS of /image_raw")
    assert status.level == DiagnosticStatus.WARN
    assert f"/peer offers {offer}" in status.message
    assert f"start this node with {override}: " in status.message
    # The log, too, once: many a user has no look at /diagnostics.
    assert camera_status(detector, "QoS of /image_raw").message == status.message
    assert capfd.readouterr().err.count(f"no frame of /image_raw: {status.message}") == 1


def test_a_camera_that_was_enabled_just_now_is_not_silent_yet(rig):
    detector = rig()
    answer(detector)
    camera_status(detector, "no frame for")
    detector.call(SetBool, "enable", SetBool.Request(data=False))
    detector.diagnostics.clear()
    detector.call(SetBool, "enable", SetBool.Request(data=True))
    status = detector.until(lambda: detector.diagnostics.get("detector: /image_raw"))
    assert "no frame for" not in status.message

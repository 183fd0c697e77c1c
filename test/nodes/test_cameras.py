import subprocess
import sys
from array import array
from random import Random

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from mbnet_perception.nodes import detector as detector_module

GREY = np.full((120, 160, 3), 128, np.uint8)
TOPICS = ("/front/image_raw", "/rear/image_raw")
TWO = ("-p", "camera_topics:=[/front/image_raw, /rear/image_raw]")
OUTCOMES = ("processed", "superseded", "stale", "failed", "waiting")

TWO_CAMERAS_AT_30_HZ = """
from array import array
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

rclpy.init(args=[])
node = rclpy.create_node("cameras")
data = array("B", bytes(480 * 640 * 3))

def publish(publisher, name):
    message = Image(height=480, width=640, step=1920, encoding="bgr8", data=data)
    message.header.frame_id = name
    message.header.stamp = node.get_clock().now().to_msg()
    publisher.publish(message)

for name in ("front", "rear"):
    publisher = node.create_publisher(Image, f"/{name}/image_raw", qos_profile_sensor_data)
    node.create_timer(1 / 30, lambda publisher=publisher, name=name: publish(publisher, name))
rclpy.spin(node)
"""


def assert_balanced(*ledgers):
    for ledger in ledgers:
        counts = ledger.counts
        assert counts.received == sum(getattr(counts, name) for name in OUTCOMES), counts


def ledgers(detector):
    return [camera.record.ledger for camera in detector.detector._cameras]


def two_cameras(rig, *ros_args, **options):
    detections = [f"{topic}/detections" for topic in TOPICS]
    return rig(*TWO, *ros_args, topics=TOPICS, detections=detections, **options)


# Two at once


def test_two_cameras_at_30_hz_are_both_served_and_the_books_balance_at_each_look(rig):
    detector = rig(
        *TWO, topics=(), detections=[f"{topic}/detections" for topic in TOPICS], connected=False
    )
    cameras = subprocess.Popen([sys.executable, "-c", TWO_CAMERAS_AT_30_HZ])
    try:

        def enough():
            assert_balanced(*ledgers(detector))
            sent = [ledger.counts.received + ledger.counts.lost for ledger in ledgers(detector)]
            return min(sent) >= 90

        detector.until(enough)
    finally:
        cameras.kill()
        cameras.wait()
    counts = [detector.settle(index) for index in range(2)]
    assert_balanced(*ledgers(detector))
    # All of them on an idle machine. On a busy one the two get as much of it.
    shares = [count.processed / count.received for count in counts]
    assert min(shares) > 0.1
    assert max(shares) - min(shares) < 0.2
    assert all(count.failed == count.stale == 0 for count in counts)
    for topic, messages in detector.received.items():
        stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in messages]
        assert stamps == sorted(set(stamps))
        assert {m.header.frame_id for m in messages} == {topic.split("/")[1]}


def pictures(detector):
    """A picture for each camera by which the gate can tell them apart."""
    return [detector.raw(np.full_like(GREY, 255 * index)) for index in range(2)]


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 1.0), (1.0, 2.5)])
def test_an_overloaded_node_serves_cameras_by_their_weights(rig, gate, weights):
    detector = two_cameras(rig, "-p", f"camera_weights:=[{weights[0]}, {weights[1]}]")
    messages = pictures(detector)
    detector.send(messages[0], TOPICS[0])
    detector.until(lambda: gate.pictures)
    served = [0, 0]
    for topic, message in zip(TOPICS, messages, strict=True):
        detector.send(message, topic)
    for turn in range(1, 25):  # from here on one of each camera waits at each turn
        gate.let()
        detector.until(lambda turn=turn: len(gate.pictures) > turn)
        camera = int(gate.pictures[turn].pixels[0, 0, 0] == 255)
        served[camera] += 1
        detector.send(messages[camera], TOPICS[camera])
        assert_balanced(*ledgers(detector))
        for index in range(2):
            share = weights[index] / sum(weights)
            assert abs(served[index] - share * turn) <= 1, served
    assert [detector.counts(index).superseded for index in range(2)] == [0, 0]


def test_old_frames_of_one_camera_do_not_keep_the_other_waiting(rig, gate):
    detector = two_cameras(rig, "-p", "max_age_ms:=2000")
    old = detector.now()
    old.stamp.sec -= 3
    detector.send(detector.raw(GREY, header=detector.now()), TOPICS[0])
    detector.until(lambda: gate.pictures)
    detector.send(detector.raw(GREY, header=old), TOPICS[0])
    detector.send(detector.raw(GREY, header=detector.now()), TOPICS[1])
    gate.open()
    front, rear = (detector.settle(index) for index in range(2))
    assert (front.processed, front.stale) == (1, 1)
    assert (rear.processed, rear.stale) == (1, 0)


def test_a_frame_that_grows_too_old_while_it_waits_is_stale(rig, gate):
    detector = rig("-p", "max_age_ms:=300")
    detector.send(detector.raw(GREY, header=detector.now()))
    detector.until(lambda: gate.pictures)
    detector.send(detector.raw(GREY, header=detector.now()))
    arrived = detector.peer.get_clock().now()
    detector.until(lambda: (detector.peer.get_clock().now() - arrived).nanoseconds > 0.3e9)
    gate.open()
    counts = detector.settle()
    assert (counts.processed, counts.stale) == (1, 1)


# Names and numbers


def test_detections_are_named_after_the_camera_as_it_was_remapped(rig):
    detector = rig(
        *("-r", "__ns:=/car", "-r", "right/image_raw:=/usb/pictures"),
        *("-p", "camera_topics:=[left/image_raw, right/image_raw, /roof]"),
        topics=(),
        detections=(),
        connected=False,
    )
    wanted = {"/car/left/image_raw", "/usb/pictures", "/roof"}
    names = [
        f"{topic}/{name}"
        for topic in wanted
        for name in ("detections", "overlay", "overlay/compressed")
    ]
    detector.until(lambda: all(detector.peer.count_publishers(name) for name in names))
    detector.until(lambda: all(detector.peer.count_subscribers(topic) for topic in wanted))
    assert not detector.peer.count_publishers("/car/detector/detections")
    for topic in wanted:
        detector.status(f"car/detector: {topic}")


@pytest.mark.parametrize("rear_is", ["/front/image_raw", "/usb/pictures"], ids=["swap", "chain"])
def test_a_camera_topic_is_remapped_once(rig, rear_is):
    front, rear = TOPICS
    remaps = (f"detector:{front}:={rear}", f"detector:{rear}:={rear_is}")
    detector = rig(
        *TWO,
        *(argument for remap in remaps for argument in ("-r", remap)),
        topics=(rear, rear_is),
        detections=[f"{rear}/detections", f"{rear_is}/detections"],
    )
    for index, topic in enumerate((rear, rear_is)):
        said = detector.detector._cameras[index].explain_silence()
        assert said.startswith(f"/peer publishes {topic} and its QoS matches")
        detector.status(f"detector: {topic}")
        detector.send(detector.raw(GREY, header=Header(frame_id=topic)), topic)
        came = detector.received[f"{topic}/detections"]
        detector.until(lambda came=came: came)
        assert [message.header.frame_id for message in came] == [topic]


def stamped(milliseconds):
    seconds, rest = divmod(milliseconds, 1000)
    return Header(stamp=Time(sec=1_700_000_000 + seconds, nanosec=rest * 10**6))


# Milliseconds at which two cameras take pictures, at 20 and at 30 Hz.
FIRST_AND_SECOND = [range(0, 2000, 50), range(1005, 2000, 33)]


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_a_second_publisher_of_a_topic_is_no_reason_to_report_lost_frames(
    rig, monkeypatch, transport
):
    monkeypatch.setattr(detector_module, "WATCH_PERIOD", 3600.0)  # the frames are first to tell
    topic, image_type = "/image_raw", Image if transport == "raw" else CompressedImage
    # Where the pictures of the camera come is remapped as well, by the whole name.
    name = "/usb/pictures"
    asked_for = topic if transport == "raw" else f"{topic}/compressed"
    detector = rig(
        *("-p", f"image_transport:={transport}", "-r", f"{asked_for}:={name}"),
        topics=(topic,),
        image_type=image_type,
    )

    def send(publisher, milliseconds):
        message = detector.raw(GREY) if transport == "raw" else detector.compressed(GREY)
        message.header = stamped(milliseconds)
        detector.cameras[topic] = publisher
        detector.send(message)

    first, second = detector.cameras[topic], None
    times = sorted((at, index) for index in (0, 1) for at in FIRST_AND_SECOND[index])
    for at, index in times:
        if index and not second:
            second = detector.peer.create_publisher(image_type, name, 10)
            detector.until(second.get_subscription_count)
        send(second if index else first, at)
    detector.peer.destroy_publisher(second)
    detector.until(lambda: detector.peer.count_publishers(name) == 1)
    for at in range(2000, 2500, 50):
        send(first, at)
    counts = detector.settle()
    assert (counts.received, counts.lost, counts.lost_by_stamps) == (len(times) + 10, 0, 0)


# The ledger as an invariant


class Life:
    """Does to a detector node what comes to a camera and a car, in any order."""

    def __init__(self, rig, gate):
        self.rig = rig
        self.gate = gate
        self.state = "active"
        self.enabled = True
        self.ledgers = ledgers(rig)

    def pictures(self, random):
        self.send(random, random.randint(1, 6), header=self.rig.now())

    def bad_picture(self, random):
        self.send(random, header=self.rig.now(), data=array("B", b"abc"))

    def old_picture(self, random):
        self.send(random)

    def send(self, random, times=1, **changes):
        """Send pictures, and wait for one to come."""
        index = random.randrange(2)
        before = self.rig.counts(index).received if self.listens else 0
        for _ in range(times):
            self.rig.cameras[TOPICS[index]].publish(self.rig.raw(GREY, **changes))
        if self.listens:
            self.rig.until(lambda: self.rig.counts(index).received > before)

    def let(self, random):
        self.gate.let()

    def hold(self, random):
        self.gate.shut()

    def operating_point(self, random):
        alpha, resolution = random.choice((0.35, 0.5)), random.choice((224, 320))
        assert self.rig.set(alpha=alpha, resolution=resolution).successful

    def enable(self, random):
        self.enabled = random.random() < 0.7
        assert self.rig.call(SetBool, "enable", SetBool.Request(data=self.enabled)).success
        self.meet()

    def activate_or_deactivate(self, random):
        self.gate.open()  # deactivating waits for the frame that is being processed
        if self.state == "active":
            self.change(Transition.TRANSITION_DEACTIVATE, "inactive")
        else:
            self.change(Transition.TRANSITION_ACTIVATE, "active")

    def configure_anew(self, random):
        self.gate.open()
        if self.state == "active":
            self.change(Transition.TRANSITION_DEACTIVATE, "inactive")
        self.change(Transition.TRANSITION_CLEANUP, "unconfigured")
        self.change(Transition.TRANSITION_CONFIGURE, "inactive")
        self.ledgers += ledgers(self.rig)
        self.change(Transition.TRANSITION_ACTIVATE, "active")

    def change(self, transition, state):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert self.rig.call(ChangeState, "change_state", request).success
        self.state = state
        self.meet()

    @property
    def listens(self):
        return self.enabled and self.state == "active"

    def meet(self):
        """Wait until cameras know whether the node listens, and it knows them."""
        rig = self.rig
        for topic, camera in rig.cameras.items():
            rig.until(lambda camera=camera: self.listens == bool(camera.get_subscription_count()))
            rig.until(lambda topic=topic: not self.listens or rig.known(topic))


@pytest.mark.parametrize("seed", range(3))
def test_the_books_balance_whatever_happens_and_nothing_waits_in_the_end(rig, gate, seed):
    random = Random(seed)
    life = Life(two_cameras(rig, "-p", "max_age_ms:=60000"), gate)
    steps = [
        *4 * [life.pictures],
        *2 * [life.bad_picture],
        *2 * [life.old_picture],
        *2 * [life.let],
        *4 * [life.hold],
        life.operating_point,
        life.enable,
        life.activate_or_deactivate,
    ]
    done = [random.choice(steps) for _ in range(50)]
    done[20] = life.configure_anew
    gate.open()
    for step in (life.bad_picture, life.old_picture, life.pictures):
        step(random)
        life.rig.until(lambda: not any(ledger.counts.waiting for ledger in life.ledgers))
    gate.shut()
    for _ in range(4):  # one is being processed, and three are too many for two cameras
        life.pictures(random)
    for step in done:
        step(random)
        for _ in range(random.randint(0, 5)):
            life.rig.executor.spin_once(timeout_sec=0.005)
            assert_balanced(*life.ledgers)
    gate.open()
    shutdown = {
        "active": Transition.TRANSITION_ACTIVE_SHUTDOWN,
        "inactive": Transition.TRANSITION_INACTIVE_SHUTDOWN,
    }
    life.change(shutdown[life.state], "finalized")
    assert_balanced(*life.ledgers)
    counts = [ledger.counts for ledger in life.ledgers]
    assert all(count.waiting == 0 for count in counts)
    for outcome in ("processed", "superseded", "stale", "failed"):
        assert sum(getattr(count, outcome) for count in counts), f"no frame was {outcome}"

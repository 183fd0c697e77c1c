import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from rosbags.convert.converter import convert
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from vision_msgs.msg import Detection2DArray

from mbnet_perception.evaluation import bags
from mbnet_perception.evaluation.bags import Bag, CameraBagWriter, Message
from mbnet_perception.evaluation.sample_drive import write_drive
from mbnet_perception.nodes import replay

SAMPLE = Path(__file__).parents[1] / "data" / "sample_drive"
DEADLINE = 30.0
RATE = 15.0
PICTURES = 45


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "drive"
    assert write_drive(path, seconds=3.0, rate=RATE, size=(160, 120), seed=3) == PICTURES
    return path


def recorded(path, topic):
    with Bag(path) as bag:
        return [bags.decode(m.data, m.type) for m in bag.messages([topic])]


def nanoseconds(header):
    return header.stamp.sec * 10**9 + header.stamp.nanosec


# Stops itself at the first picture; once it is made to go on, prints how many pictures came.
STOPPING = """
import os, signal, sys, time, rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("stopping")
heard = []
node.create_subscription(Image, sys.argv[1], heard.append, 100)
while not heard:
    rclpy.spin_once(node, timeout_sec=1.0)
os.kill(os.getpid(), signal.SIGSTOP)
end = time.monotonic() + float(sys.argv[3])
while len(heard) < int(sys.argv[2]) and time.monotonic() < end:
    rclpy.spin_once(node, timeout_sec=0.1)
print(len(heard))
"""


class Listener:
    """Subscribes to topics; starts replays and waits for what they bring."""

    def __init__(self):
        rclpy.init()
        self.node = rclpy.create_node("listener")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.processes = []

    def hear(self, message_type, topic, qos=100):
        heard = []
        self.node.create_subscription(message_type, topic, heard.append, qos)
        return heard

    def start(self, bag, **parameters):
        command = [sys.executable, "-m", "mbnet_perception.nodes.replay", "--ros-args"]
        parameters = {"bag": bag, "wait_for_subscribers": DEADLINE, **parameters}
        for name, value in parameters.items():
            command += ["-p", f"{name}:={value}"]
        pipe = subprocess.PIPE
        self.processes.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True))
        return self.processes[-1]

    def until(self, condition):
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            self.executor.spin_once(timeout_sec=0.02)

    def ended(self, process):
        """Spin until the process has ended; return its status, output and errors."""
        self.until(lambda: process.poll() is not None)
        out, errors = process.communicate()
        return process.returncode, out, errors

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.node.destroy_node()
        rclpy.shutdown()


@pytest.fixture
def listener():
    listener = Listener()
    yield listener
    listener.close()


def test_every_picture_arrives_in_order_with_a_current_stamp(listener, drive):
    infos = listener.hear(CameraInfo, bags.CAMERA_INFO_TOPIC)
    truths = listener.hear(Detection2DArray, bags.GROUND_TRUTH_TOPIC)
    images = listener.hear(CompressedImage, bags.IMAGE_TOPIC)  # last, as the replay waits for it
    began = time.time_ns()
    process = listener.start(drive, fps=150)
    listener.until(lambda: len(images) == len(infos) == len(truths) == PICTURES)
    status, out, errors = listener.ended(process)
    assert (status, errors) == (0, "")
    assert out.startswith(f"replayed {PICTURES} images and {2 * PICTURES} other messages")
    assert [bytes(i.data) for i in images] == [
        i.data.tobytes() for i in recorded(drive, bags.IMAGE_TOPIC)
    ]
    stamps = [nanoseconds(i.header) for i in images]
    assert began < stamps[0]
    assert stamps == sorted(set(stamps))
    assert stamps[-1] < time.time_ns()
    assert [nanoseconds(t.header) for t in truths] == stamps
    assert [nanoseconds(i.header) for i in infos] == stamps
    assert [len(t.detections) for t in truths] == [
        len(t.detections) for t in recorded(drive, bags.GROUND_TRUTH_TOPIC)
    ]


def test_the_first_picture_waits_for_as_many_subscribers_as_asked(listener, drive):
    first = listener.hear(CompressedImage, bags.IMAGE_TOPIC)
    listener.start(drive, fps=150, subscribers=2)
    # Long past the start: the replay has found the one subscriber there is.
    listener.until(lambda: listener.node.count_publishers(bags.IMAGE_TOPIC) == 1)
    assert not first
    second = listener.hear(CompressedImage, bags.IMAGE_TOPIC)
    listener.until(lambda: len(first) == len(second) == PICTURES)


def test_a_subscriber_that_is_held_up_gets_every_picture_afterwards(listener, drive):
    topic = "/camera/image_raw"  # raw: more than the middleware's shared memory holds
    arguments = [topic, str(PICTURES), str(DEADLINE / 2)]
    pipe = subprocess.PIPE
    stopping = subprocess.Popen(
        [sys.executable, "-c", STOPPING, *arguments], stdout=pipe, stderr=pipe, text=True
    )
    listener.processes.append(stopping)
    images = listener.hear(Image, topic)
    listener.start(drive, fps=150, raw="true", subscribers=2)
    listener.until(lambda: len(images) > PICTURES // 2)
    stopping.send_signal(signal.SIGCONT)
    assert listener.ended(stopping) == (0, f"{PICTURES}\n", "")
    listener.until(lambda: len(images) == PICTURES)


def test_the_pace_is_that_of_the_recording_times_the_rate(listener, drive):
    images = listener.hear(CompressedImage, bags.IMAGE_TOPIC)
    listener.start(drive, rate=3)
    listener.until(lambda: len(images) == PICTURES)
    gaps = np.diff([nanoseconds(i.header) / 1e9 for i in images])
    due = 1 / (3 * RATE)
    # Never ahead of the recording; a busy machine may make single pictures late, not half of them.
    assert gaps.sum() > 0.9 * due * len(gaps)
    assert np.median(gaps) < 2 * due


def test_with_clock_the_stamps_stay_and_the_clock_runs(listener, drive):
    clocks = listener.hear(Clock, "/clock", 1000)
    images = listener.hear(CompressedImage, bags.IMAGE_TOPIC)
    stamps = [nanoseconds(i.header) for i in recorded(drive, bags.IMAGE_TOPIC)]

    def times():
        return [c.clock.sec * 10**9 + c.clock.nanosec for c in clocks]

    listener.start(drive, clock="true", rate=3)
    listener.until(lambda: len(images) == PICTURES and times()[-1] == stamps[-1])
    assert [nanoseconds(i.header) for i in images] == stamps
    assert times() == sorted(times())
    assert set(times()) >= set(stamps)
    assert set(times()) - set(stamps), "the clock must run between pictures too"


def test_a_loop_goes_on_until_it_is_interrupted(listener, drive):
    images = listener.hear(CompressedImage, bags.IMAGE_TOPIC, qos_profile_sensor_data)
    process = listener.start(drive, loop="true", fps=100)
    listener.until(lambda: len(images) > 2 * PICTURES)
    process.send_signal(signal.SIGINT)
    status, out, errors = listener.ended(process)
    assert (status, errors) == (0, "")
    assert int(out.split()[1]) >= len(images)
    stamps = [nanoseconds(i.header) for i in images]
    assert stamps == sorted(set(stamps))


def test_compressed_pictures_are_decoded_if_asked_and_damaged_ones_left_out(listener, tmp_path):
    picture = np.zeros((20, 30, 3), np.uint8)
    nothing = np.zeros((0, 4), np.float32)
    with CameraBagWriter(tmp_path / "bag") as bag:
        for number in range(3):
            picture[:] = 100 * number
            encoded = cv2.imencode(".png", picture)[1]
            kept = encoded[:-20] if number == 1 else encoded
            bag.add(bags.START + number * 10**8, kept, "png", (30, 20), nothing, [])
    images = listener.hear(Image, "/camera/image_raw")
    process = listener.start(tmp_path / "bag", raw="true")
    status, out, errors = listener.ended(process)
    listener.until(lambda: len(images) == 2)
    assert status == 0
    assert "replayed 2 images" in out
    assert "left out: PNG image is truncated" in errors
    assert [(i.width, i.height, i.encoding, set(i.data)) for i in images] == [
        (30, 20, "bgr8", {0}),
        (30, 20, "bgr8", {200}),
    ]


def test_raw_images_of_an_sqlite_bag_are_replayed(listener, tmp_path):
    store = get_typestore(Stores.ROS2_JAZZY)
    types = store.types
    with Writer(tmp_path / "raw", version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        for topic in ("/left", "/right"):
            connection = writer.add_connection(topic, bags.IMAGE, typestore=store)
            for number in range(5):
                stamp = types["builtin_interfaces/msg/Time"](sec=5, nanosec=number)
                header = types["std_msgs/msg/Header"](stamp=stamp, frame_id=topic)
                data = np.full(18, number, np.uint8)
                message = types[bags.IMAGE](header, 2, 3, "rgb8", 0, 9, data)
                data = store.serialize_cdr(message, bags.IMAGE)
                writer.write(connection, 5 * 10**9 + number * 10**7, data)
    left, right = listener.hear(Image, "/left"), listener.hear(Image, "/right")
    listener.start(tmp_path / "raw", topics="[/left]")
    listener.until(lambda: len(left) == 5)
    assert right == []
    assert [i.data[0] for i in left] == [0, 1, 2, 3, 4]
    assert {(i.width, i.height, i.encoding, i.header.frame_id) for i in left} == {
        (3, 2, "rgb8", "/left")
    }


def test_a_bag_of_ros_1_is_replayed(listener, drive, tmp_path):
    convert([drive], tmp_path / "d.bag", "", 9, None, "", None, None, (), (), (), ())
    truths = listener.hear(Detection2DArray, bags.GROUND_TRUTH_TOPIC)
    images = listener.hear(CompressedImage, bags.IMAGE_TOPIC)
    process = listener.start(tmp_path / "d.bag", fps=150)
    listener.until(lambda: len(images) == len(truths) == PICTURES)
    assert listener.ended(process)[0] == 0
    assert [bytes(i.data) for i in images] == [
        i.data.tobytes() for i in recorded(drive, bags.IMAGE_TOPIC)
    ]
    assert [nanoseconds(t.header) for t in truths] == [nanoseconds(i.header) for i in images]
    assert [len(t.detections) for t in truths] == [
        len(t.detections) for t in recorded(drive, bags.GROUND_TRUTH_TOPIC)
    ]


def test_a_bag_that_is_cut_short_is_replayed_up_to_the_break(listener, tmp_path):
    content = (SAMPLE / "sample_drive.mcap").read_bytes()
    (tmp_path / "cut.mcap").write_bytes(content[: len(content) // 3])
    images = listener.hear(CompressedImage, bags.IMAGE_TOPIC)
    process = listener.start(tmp_path / "cut.mcap", fps=150)
    status, out, errors = listener.ended(process)
    whole = recorded(tmp_path / "cut.mcap", bags.IMAGE_TOPIC)
    listener.until(lambda: len(images) == len(whole))
    assert status == 0
    assert f"replayed {len(whole)} images" in out
    assert "that is not all of the bag: cut.mcap is cut short: its end is missing" in errors


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        pytest.param({"bag": "nowhere"}, "bag 'nowhere' does not exist", id="no bag"),
        pytest.param({}, "bag must name a bag: --ros-args -p bag:=PATH", id="bag not named"),
        pytest.param(
            {"topics": "[/front]"},
            "no image topic '/front'; it has: /camera/image_raw/compressed "
            "(sensor_msgs/msg/CompressedImage)",
            id="no such topic",
        ),
        pytest.param({"rate": "-1"}, "rate must be a number >= 0, got -1", id="rate below 0"),
        pytest.param({"fps": "fast"}, "fps must be a number >= 0, got 'fast'", id="fps no number"),
        pytest.param({"rate": "2", "fps": "5"}, "rate and fps exclude each other", id="both"),
        pytest.param({"loop": "7"}, "loop must be true or false, got 7", id="loop no bool"),
    ],
)
def test_what_cannot_be_replayed_ends_with_one_clear_line(drive, capfd, parameters, reason):
    if parameters and "bag" not in parameters:
        parameters = {"bag": drive, **parameters}
    arguments = [part for n, v in parameters.items() for part in ("-p", f"{n}:={v}")]
    assert replay.main(["--ros-args", *arguments]) == 1
    out, errors = capfd.readouterr()
    assert out == ""
    assert errors.startswith("replay: ")
    assert reason in errors
    assert errors.count("\n") == 1


def test_the_schedule_follows_the_recording():
    messages = [Message("/a", bags.IMAGE, t * 10**9, b"") for t in (50, 51, 54)]
    assert [due for due, _ in replay.schedule(messages, rate=2.0)] == [0.0, 0.5, 2.0]


def test_at_a_fixed_rate_the_other_messages_go_with_their_picture():
    kinds = [bags.IMAGE, bags.CAMERA_INFO, bags.CAMERA_INFO, bags.IMAGE, bags.DETECTIONS]
    messages = [Message(kind, kind, number**3, b"") for number, kind in enumerate(kinds)]
    assert [due for due, _ in replay.schedule(messages, fps=4.0)] == [0.0, 0.0, 0.0, 0.25, 0.25]


def test_at_a_fixed_rate_the_busiest_topic_sets_the_pace():
    topics = ["/a", "/b", "/a", "/a", "/b"]
    messages = [Message(topic, bags.IMAGE, 0, b"") for topic in topics]
    assert [due for due, _ in replay.schedule(messages, fps=1.0)] == [0.0, 0.0, 1.0, 2.0, 2.0]

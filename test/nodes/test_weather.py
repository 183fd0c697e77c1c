import re
import signal
import subprocess
import sys
import time
from array import array
from dataclasses import fields

import cv2
import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from mbnet_perception.core.images import picture_from_compressed
from mbnet_perception.core.scene import DrivingScene
from mbnet_perception.core.weather import apply_weather
from mbnet_perception.nodes import weather
from mbnet_perception.nodes.parameters import WeatherSettings
from mbnet_perception.nodes.weather import WeatherNode

DEADLINE = 20.0
CAMERA = "/front/image_raw"
START = 1_700_000_000_000_000_000
RAIN = ("-p", "condition:=rain", "-p", "severity:=4", "-p", "seed:=7")


@pytest.fixture(scope="module")
def street():
    """RGB."""
    return np.ascontiguousarray(DrivingScene(seed=3, size=(160, 120)).render(1.0)[0][..., ::-1])


class Rig:
    """A weather node between a camera and a listener, all on one executor."""

    def __init__(self, image_type=Image, cameras=(CAMERA,)):
        self.executor = SingleThreadedExecutor()
        self.weather, self.peer = WeatherNode(), Node("peer")
        for node in (self.weather, self.peer):
            self.executor.add_node(node)
        suffix = "/compressed" if image_type is CompressedImage else ""
        self.image_type = image_type
        self.outputs = {camera: f"/weather{camera}{suffix}" for camera in cameras}
        self.cameras = {c: self.peer.create_publisher(image_type, c + suffix, 10) for c in cameras}
        self.came = {camera: [] for camera in cameras}
        self.listeners = {}
        self.status = {}
        self.peer.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.parameters = self.peer.create_client(
            SetParametersAtomically, "/weather/set_parameters_atomically"
        )

    def _on_diagnostics(self, message):
        for status in message.status:
            self.status[status.name] = status

    def until(self, condition):
        deadline = time.monotonic() + DEADLINE
        while not (value := condition()):
            assert time.monotonic() < deadline, "the condition did not come true in time"
            self.executor.spin_once(timeout_sec=0.02)
        return value

    def listen(self, camera=CAMERA):
        self.listeners[camera] = self.peer.create_subscription(
            self.image_type, self.outputs[camera], self.came[camera].append, 10
        )
        self.until(self.cameras[camera].get_subscription_count)
        # Both ways: the node's subscription knows the camera, and ours the node.
        own = next(c for c in self.weather._cameras if c.topic == camera)
        self.until(own._subscription.get_publisher_count)
        self.until(self.listeners[camera].get_publisher_count)

    def pictures(self, *messages, camera=CAMERA):
        """What comes for these messages."""
        before = len(self.came[camera])
        for message in messages:
            self.cameras[camera].publish(message)
            before += 1
            self.until(lambda end=before: len(self.came[camera]) >= end)
        return self.came[camera][-len(messages) :]

    def set(self, **values):
        request = SetParametersAtomically.Request(
            parameters=[Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
        )
        self.until(self.parameters.service_is_ready)
        future = self.parameters.call_async(request)
        return self.until(future.result).result

    def next_status(self, camera=CAMERA):
        name = f"weather: {camera}"
        self.status.pop(name, None)
        status = self.until(lambda: self.status.get(name))
        return status, {pair.key: pair.value for pair in status.values}

    def close(self):
        self.executor.shutdown()
        self.weather.destroy_node()
        self.peer.destroy_node()


@pytest.fixture
def rig(monkeypatch):
    monkeypatch.setattr(weather, "DIAGNOSTICS_PERIOD", 0.1)
    monkeypatch.setattr(weather, "WATCH_PERIOD", 0.05)
    started = []

    def start(*ros_args, listening=True, cameras=(CAMERA,), **options):
        topics = f"camera_topics:=[{', '.join(cameras)}]"
        rclpy.init(args=["--ros-args", "-p", topics, *ros_args])
        one = Rig(cameras=cameras, **options)
        started.append(one)
        for camera in cameras if listening else ():
            one.listen(camera)
        return one

    yield start
    for one in started:
        one.close()
    rclpy.try_shutdown()


def header(milliseconds=0):
    sec, nanosec = divmod(START + milliseconds * 10**6, 10**9)
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id="optical")


def raw(rgb, milliseconds=0, **changes):
    height, width, _ = rgb.shape
    fields = {
        "header": header(milliseconds),
        "height": height,
        "width": width,
        "encoding": "rgb8",
        "step": 3 * width,
        "data": array("B", rgb.tobytes()),
    }
    return Image(**fields | changes)


def compressed(rgb, milliseconds=0, keep=1.0):
    content = cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()
    data = array("B", content[: int(keep * len(content))])
    return CompressedImage(header=header(milliseconds), format="rgb8; png", data=data)


def rgb_of(message):
    assert (message.encoding, message.step) == ("bgr8", 3 * message.width)
    bgr = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
    return bgr[..., ::-1]


def test_in_clear_weather_messages_pass_on_as_they_came(rig, street):
    one = rig()
    odd = raw(street, encoding="mystery", step=7, is_bigendian=1)
    assert one.pictures(odd) == [odd]


def test_compressed_messages_pass_on_as_they_came_even_damaged_ones(rig, street):
    one = rig("-p", "image_transport:=compressed", image_type=CompressedImage)
    damaged = compressed(street, keep=0.5)
    assert one.pictures(damaged) == [damaged]


def layouts(street):
    grey = cv2.cvtColor(street, cv2.COLOR_RGB2GRAY)
    padded = np.concatenate([street.reshape(120, 480), np.zeros((120, 8), np.uint8)], axis=1)
    yield raw(street), street
    yield raw(street, encoding="bgr8", data=array("B", street[..., ::-1].tobytes())), street
    yield raw(street, step=488, data=array("B", padded.tobytes())), street
    yield (
        raw(street, encoding="mono8", step=160, data=array("B", grey.tobytes())),
        cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB),
    )


def test_raw_pictures_of_any_layout_come_in_the_weather_with_their_own_header(rig, street):
    one = rig(*RAIN)
    for message, shown in layouts(street):
        (picture,) = one.pictures(message)
        assert picture.header == message.header
        np.testing.assert_array_equal(rgb_of(picture), apply_weather(shown, "rain", 4, 7))


def test_compressed_pictures_come_as_jpeg_of_the_quality_asked_for(rig, street):
    transport = ("-p", "image_transport:=compressed", "-p", "jpeg_quality:=100")
    one = rig(*RAIN, *transport, image_type=CompressedImage)
    (fine,) = one.pictures(compressed(street))
    assert fine.header == header()
    assert fine.format == "bgr8; jpeg compressed bgr8"
    shown = picture_from_compressed(fine.data, fine.format).bgr()[..., ::-1].astype(int)
    expected = apply_weather(street, "rain", 4, 7).astype(int)
    # JPEG halves the colours' resolution.
    assert np.abs(shown - expected).mean() < np.abs(street.astype(int) - expected).mean() / 4
    assert one.set(jpeg_quality=10).successful
    (coarse,) = one.pictures(compressed(street))
    assert len(coarse.data) < len(fine.data) / 3


def test_the_weather_moves_with_the_stamps_and_not_with_the_count_of_pictures(rig, street):
    one = rig(*RAIN)
    times = [0, 40, 5000, 4900, 40, 140]
    # 4900 is late, 40 is of a bag that has begun anew.
    frames = [0, 40, 5000, 4900, 0, 100]
    came = one.pictures(*(raw(street, milliseconds) for milliseconds in times))
    for picture, frame in zip(came, frames, strict=True):
        np.testing.assert_array_equal(
            rgb_of(picture), apply_weather(street, "rain", 4, 7, frame, rate=1000.0)
        )


def test_without_stamps_the_weather_moves_by_arrival(rig, street):
    one = rig(*RAIN)
    first, second = one.pictures(raw(street, header=Header()), raw(street, header=Header()))
    assert first.header == second.header == Header()
    assert np.any(rgb_of(first) != rgb_of(second))


def test_condition_severity_and_seed_change_between_two_pictures(rig, street):
    one = rig()
    one.pictures(raw(street))
    assert one.set(condition="fog", severity=5, seed=2).successful
    (picture,) = one.pictures(raw(street))
    np.testing.assert_array_equal(rgb_of(picture), apply_weather(street, "fog", 5, 2))
    assert one.set(severity=1.5).successful
    (picture,) = one.pictures(raw(street))
    np.testing.assert_array_equal(rgb_of(picture), apply_weather(street, "fog", 1.5, 2))
    assert one.set(condition="clear").successful
    assert one.pictures(raw(street)) == [raw(street)]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"condition": "snow"}, "condition must be one of clear, fog, rain, night, .*got 'snow'"),
        ({"severity": 6}, r"severity must be in \[1.0, 5.0\], got 6.0"),
        ({"severity": "bad"}, "severity must be a number, got 'bad'"),
        ({"condition": "fog", "jpeg_quality": 0}, "jpeg_quality out of range"),
        ({"image_transport": "compressed"}, "read-only"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_changes(rig, values, reason):
    one = rig(*RAIN, listening=False)
    before = one.weather.settings
    result = one.set(**values)
    assert not result.successful
    assert re.search(reason, result.reason)
    assert one.weather.settings == before


def test_pictures_that_cannot_be_read_are_counted_and_the_next_ones_come(rig, street):
    one = rig(*RAIN)
    broken = [
        raw(street, data=array("B", bytes(100))),
        raw(street, encoding="mystery"),
        raw(street, width=0),
        raw(street, height=2**31, step=2**31),
    ]
    for number, message in enumerate(broken, start=1):
        one.cameras[CAMERA].publish(message)
        one.until(lambda number=number: one.weather._cameras[0].failed == number)
    assert len(one.pictures(raw(street), raw(street))) == 2
    status, values = one.next_status()
    assert status.level == DiagnosticStatus.ERROR
    assert "4 pictures failed" in status.message and "ImageFormatError" in status.message
    assert (values["received"], values["sent"], values["failed"]) == ("6", "2", "4")


def test_diagnostics_tell_the_weather_and_how_long_a_picture_takes(rig, street):
    one = rig()
    one.pictures(raw(street))
    status, values = one.next_status()
    assert (status.level, values["weather"]) == (DiagnosticStatus.OK, "clear")
    assert float(values["publish_p90_ms"]) >= 0
    assert "weather_p50_ms" not in values
    one.set(condition="fog_night", severity=2.5, seed=4)
    one.pictures(raw(street))
    status, values = one.next_status()
    assert status.message.startswith("fog_night 2.5, ")
    assert (values["weather"], values["seed"], values["sent"]) == ("fog_night 2.5", "4", "2")
    for stage in weather.STAGES:
        assert float(values[f"{stage}_p50_ms"]) <= float(values[f"{stage}_p90_ms"])
    assert float(values["weather_p50_ms"]) > 0


def test_a_camera_is_subscribed_to_only_while_somebody_listens(rig, street):
    one = rig(listening=False)
    status, _ = one.next_status()
    assert status.message == "clear, nobody listens"
    assert one.cameras[CAMERA].get_subscription_count() == 0
    one.listen()
    one.pictures(raw(street))
    one.peer.destroy_subscription(one.listeners[CAMERA])
    one.until(lambda: one.cameras[CAMERA].get_subscription_count() == 0)
    one.listen()
    one.pictures(raw(street))


def test_when_no_picture_comes_the_status_says_why(rig, monkeypatch):
    monkeypatch.setattr(weather, "SILENCE", 0.3)
    one = rig()
    one.peer.destroy_publisher(one.cameras[CAMERA])
    one.until(lambda: one.next_status()[0].level == DiagnosticStatus.WARN)
    assert "/front/image_raw" in one.next_status()[0].message


def test_each_camera_has_its_own_topic_and_time(rig, street):
    one = rig(*RAIN, cameras=("/left/image", "/right/image"))
    one.pictures(raw(street, 0), camera="/left/image")
    (right,) = one.pictures(raw(street, 500), camera="/right/image")
    (left,) = one.pictures(raw(street, 500), camera="/left/image")
    np.testing.assert_array_equal(rgb_of(right), apply_weather(street, "rain", 4, 7))
    np.testing.assert_array_equal(
        rgb_of(left), apply_weather(street, "rain", 4, 7, frame=500, rate=1000.0)
    )


def test_a_camera_topic_is_remapped_once(rig, street):
    rules = ("-r", "weather:/image_raw:=/front", "-r", "weather:/front:=/rear")
    one = rig("-p", "camera_topics:=[/image_raw]", *rules, cameras=("/front",))
    one.pictures(raw(street), camera="/front")
    status, values = one.next_status("/front")
    assert (status.level, values["received"]) == (DiagnosticStatus.OK, "1")


def test_each_parameter_is_described_and_what_needs_a_restart_is_read_only(rig):
    one = rig(listening=False)
    names = [row.name for row in fields(WeatherSettings)]
    described = dict(zip(names, one.weather.describe_parameters(names), strict=True))
    assert all(each.description.endswith(".") for each in described.values())
    read_only = {name for name, each in described.items() if each.read_only}
    assert read_only == {"camera_topics", "image_transport"}
    (span,) = described["severity"].floating_point_range
    assert (span.from_value, span.to_value) == (1, 5)


def test_qos_of_both_sides_is_as_told_and_takes_overrides(rig):
    override = f"qos_overrides.{CAMERA}.subscription.reliability:=reliable"
    for arguments, expected in [
        ((), ReliabilityPolicy.BEST_EFFORT),
        (("-p", override), ReliabilityPolicy.RELIABLE),
    ]:
        one = rig(*arguments)
        infos = one.peer.get_subscriptions_info_by_topic(CAMERA)
        assert [info.qos_profile.reliability for info in infos] == [expected]
        infos = one.peer.get_publishers_info_by_topic(one.outputs[CAMERA])
        assert [i.qos_profile.reliability for i in infos] == [ReliabilityPolicy.RELIABLE]
        one.close()
        rclpy.try_shutdown()


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("condition:=snow", "condition must be one of clear, fog,"),
        ("camera_topics:=[]", "at least one image topic"),
        ("camera_topics:=[/a/compressed]", "must come without /compressed"),
        ("severity:=0.5", "severity"),
    ],
)
def test_a_node_that_cannot_start_says_why(argument, reason, capfd):
    transport = ("-p", "image_transport:=compressed")
    assert weather.main(["--ros-args", "-p", argument, *transport]) == 1
    errors = capfd.readouterr().err
    assert "cannot start: " in errors and reason in errors


def test_a_signal_ends_the_process_in_order(rig, street):
    one = rig(listening=False)
    command = [sys.executable, "-m", "mbnet_perception.nodes.weather", "--ros-args"]
    command += ["-r", "__node:=other", "-p", f"camera_topics:=[{CAMERA}]"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    try:
        came = []
        one.peer.create_subscription(Image, f"/other{CAMERA}", came.append, 10)

        def heard():
            one.cameras[CAMERA].publish(raw(street))
            return came

        one.until(heard)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert (process.returncode, out, errors) == (0, "", "")

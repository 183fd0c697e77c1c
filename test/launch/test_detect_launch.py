"""The launch file by the real launch system, and the parameter file by the real parser."""

import asyncio
import importlib.util
import re
import time
from dataclasses import fields
from pathlib import Path

import pytest
import rclpy
import yaml
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import Parameter, parameter_value_to_python
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from mbnet_perception.nodes.parameters import DetectorSettings
from mbnet_perception.nodes.processes import choose_network

PROJECT = Path(__file__).resolve().parents[2]
PARAMS_FILE = PROJECT / "config" / "detector.yaml"
DEFAULTS = {row.name: row.default for row in fields(DetectorSettings)}

# `launch` itself says nothing: the checkout's own launch folder can be imported by that name.
needs_launch = pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None,
    reason="launch_ros is not installed; it comes with ROS 2, not with its Python wheels",
)


# config/detector.yaml


def uncommented():
    """The parameter file with its examples, which are comments that hold `name: value`."""
    text = PARAMS_FILE.read_text()
    return yaml.safe_load(re.sub(r"^    # (\w+: )", r"    \1", text, flags=re.MULTILINE))


def of_detector(parsed):
    assert list(parsed) == ["/**/detector"] and list(parsed["/**/detector"]) == ["ros__parameters"]
    return parsed["/**/detector"]["ros__parameters"]


def test_the_parameter_file_shows_each_parameter_once_and_no_other():
    text = PARAMS_FILE.read_text()
    names = re.findall(r"^    (?:# )?(\w+): ", text, flags=re.MULTILINE)
    assert sorted(names) == sorted([*DEFAULTS, "use_sim_time"])


def test_the_parameter_file_is_no_second_copy_of_the_defaults():
    examples = of_detector(uncommented())
    set_values = of_detector(yaml.safe_load(PARAMS_FILE.read_text()))
    assert not set(set_values) & set(DEFAULTS)
    for name in DEFAULTS:
        default = DEFAULTS[name]
        given = tuple(examples[name]) if isinstance(default, tuple) else examples[name]
        assert given != default, f"the example of {name} is its default"


def test_the_examples_in_the_parameter_file_are_values_that_the_node_takes():
    examples = of_detector(uncommented())
    del examples["use_sim_time"]
    for name, value in examples.items():
        kind = list if isinstance(DEFAULTS[name], tuple) else type(DEFAULTS[name])
        assert type(value) is kind, name
    settings = DetectorSettings().changed([Parameter(n, value=v) for n, v in examples.items()])
    assert settings.camera_topics == ("/front/image_raw", "/rear/image_raw")


# launch/detect.launch.py


class Launched:
    """A node that sees what the launched detector does, in the same ROS network."""

    def __init__(self, detector):
        self.detector = detector
        self.over = False
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("witness", context=self.context)
        self.executor = rclpy.executors.SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def wait_until(self, condition, seconds=30.0):
        end = time.monotonic() + seconds
        while not condition():
            assert not self.over, "the launch has ended"
            assert time.monotonic() < end, "waited in vain"
            self.executor.spin_once(timeout_sec=0.05)

    def parameters(self, *names):
        """Values that the detector's parameters have."""
        client = self.node.create_client(GetParameters, f"{self.detector}/get_parameters")
        self.wait_until(client.service_is_ready)
        future = client.call_async(GetParameters.Request(names=names))
        self.wait_until(future.done)
        return [parameter_value_to_python(value) for value in future.result().values]

    def answer_to_an_image(self, topic):
        """The detections for a grey 64x48 picture."""
        answers = []
        self.node.create_subscription(
            Detection2DArray, f"{self.detector}/detections", answers.append, 10
        )
        publisher = self.node.create_publisher(Image, topic, 10)
        image = Image(height=48, width=64, encoding="bgr8", step=192, data=bytes(192 * 48))
        image.header.frame_id = "front"

        def answered():
            publisher.publish(image)
            return answers

        self.wait_until(answered)
        return answers[0]


def launch(arguments, check, monkeypatch):
    """Run the launch file with `name:=value` arguments; `check(launched)` once it has started.

    Returns:
        The exit status of the launch.
    """
    from launch import LaunchDescription, LaunchService
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    for name, value in choose_network().items():
        monkeypatch.setenv(name, value)
    given = dict(argument.split(":=") for argument in arguments)
    source = PythonLaunchDescriptionSource(str(PROJECT / "launch" / "detect.launch.py"))
    include = IncludeLaunchDescription(source, launch_arguments=given.items())

    async def scenario():
        service = LaunchService(noninteractive=True)
        service.include_launch_description(LaunchDescription([include]))
        running = asyncio.ensure_future(service.run_async())
        try:
            if check:
                launched = Launched(f"{given.get('namespace', '')}/detector")
                running.add_done_callback(lambda _: setattr(launched, "over", True))
                try:
                    await asyncio.get_running_loop().run_in_executor(None, check, launched)
                finally:
                    launched.close()
            else:
                await asyncio.wait_for(asyncio.shield(running), 30)
        finally:
            stopping = service.shutdown()
            if stopping:
                await stopping
            status = await asyncio.wait_for(running, 30)
        return status

    return asyncio.run(scenario())


@needs_launch
def test_arguments_reach_the_node_with_the_types_of_its_parameters(monkeypatch):
    def check(launched):
        names = ("score_threshold", "iou_threshold", "alpha", "resolution", "camera_topics")
        values = launched.parameters(*names, "classes", "use_sim_time")
        assert values == [1.0, 0.3, 0.35, 224, ["/a/image"], ["car", "person"], True]
        assert [type(value) for value in values[:4]] == [float, float, float, int]

    launch(
        [
            *("score_threshold:=1", "iou_threshold:=.3", "alpha:=0.35", "resolution:=224"),
            *("camera_topics:=/a/image", "classes:=car, person", "use_sim_time:=true"),
        ],
        check,
        monkeypatch,
    )


@needs_launch
def test_images_are_answered_in_the_namespace_with_the_defaults_of_the_node(monkeypatch):
    def check(launched):
        answer = launched.answer_to_an_image("/car_1/front/image")
        assert answer.header.frame_id == "front"
        values = launched.parameters("alpha", "resolution", "score_threshold", "classes")
        default = DetectorSettings()
        assert values == [default.alpha, default.resolution, default.score_threshold, []]

    launch(["namespace:=/car_1", "camera_topics:=front/image"], check, monkeypatch)


@needs_launch
@pytest.mark.parametrize("key", ["/**/detector", "/**", "/detector", "detector"])
def test_an_argument_beats_the_parameter_file_and_an_empty_one_leaves_it(
    key, tmp_path, monkeypatch
):
    file = tmp_path / "car.yaml"
    file.write_text(
        yaml.safe_dump({key: {"ros__parameters": {"score_threshold": 0.7, "iou_threshold": 0.6}}})
    )

    def check(launched):
        assert launched.parameters("score_threshold", "iou_threshold") == [0.2, 0.6]

    arguments = [f"params_file:={file}", "score_threshold:=0.2", "iou_threshold:="]
    launch(arguments, check, monkeypatch)


@needs_launch
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("alpha:=wide", "argument alpha must be a number, got 'wide'"),
        ("resolution:=320.5", "argument resolution must be a whole number, got '320.5'"),
        ("use_sim_time:=1", "argument use_sim_time must be true or false, got '1'"),
        ("params_file:=/no/such.yaml", "argument params_file: there is no file '/no/such.yaml'"),
    ],
)
def test_an_argument_that_cannot_be_meant_is_refused(argument, message, monkeypatch, caplog):
    status = launch([argument], None, monkeypatch)
    assert status != 0
    assert message in caplog.text

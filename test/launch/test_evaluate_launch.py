"""The evaluation of a bag by the real launch system."""

import asyncio
import importlib.util
import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore

from mbnet_perception.evaluation import bags
from mbnet_perception.evaluation.bags import CameraBagWriter
from mbnet_perception.evaluation.sample_drive import write_drive
from mbnet_perception.nodes.processes import choose_network, node_process

PROJECT = Path(__file__).resolve().parents[2]
CAMERA = bags.IMAGE_TOPIC.removesuffix("/compressed")
LIMIT = 60.0

pytestmark = pytest.mark.skipif(
    # `launch` itself says nothing: the checkout's own launch folder can be imported by that name.
    importlib.util.find_spec("launch_ros") is None,
    reason="launch_ros is not installed; it comes with ROS 2, not with its Python wheels",
)


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "drive"
    assert write_drive(path, seconds=1.5, rate=10.0, size=(160, 120), seed=3) == 15
    return path


@pytest.fixture
def launch(monkeypatch):
    """Run the launch file with these arguments, and give its exit status.

    It ends by itself, or after `meanwhile` where that is given.
    """
    from launch import LaunchDescription, LaunchService
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    for name, value in choose_network().items():
        monkeypatch.setenv(name, value)
    source = PythonLaunchDescriptionSource(str(PROJECT / "launch" / "evaluate.launch.py"))

    async def scenario(arguments, meanwhile):
        include = IncludeLaunchDescription(source, launch_arguments=arguments.items())
        service = LaunchService(noninteractive=True)
        service.include_launch_description(LaunchDescription([include]))
        running = asyncio.ensure_future(service.run_async())
        if meanwhile:
            await asyncio.get_running_loop().run_in_executor(None, meanwhile)
            assert not running.done()
            await service.shutdown()
        return await asyncio.wait_for(running, LIMIT)

    def run(meanwhile=None, **arguments):
        texts = {name: str(value) for name, value in arguments.items()}
        return asyncio.run(scenario(texts, meanwhile))

    return run


def test_a_bag_is_evaluated_in_the_weather_and_the_launch_ends_by_itself(launch, drive, tmp_path):
    output = tmp_path / "live.json"
    arguments = {"bag": drive, "weather": "rain", "severity": 4, "seed": 7, "rate": 2}
    model = {"alpha": 0.35, "resolution": 224, "output": output}
    assert launch(**arguments, **model) == 0
    found = json.loads(output.read_text())
    assert found["frames"] == {"sent": 15, "answered": 15, "with_truth": 15}
    assert (found["unanswered"], found["lacking"]) == ([], [])
    assert found["engine"] == "mobilenet_v2 alpha 0.35 fp32 at 224"
    assert found["accounts"][f"weather: {CAMERA}"]["weather"] == "rain 4"
    assert found["accounts"][f"weather: {CAMERA}"]["seed"] == "7"
    assert found["accuracy"]["pictures"] == 15


def test_without_a_bag_it_waits_for_pictures_from_elsewhere(launch, drive, tmp_path):
    output = tmp_path / "live.json"
    replay = {"bag": str(drive), "clock": True, "subscribers": 2, "wait_for_subscribers": 30.0}

    def play():
        with node_process("replay", replay, tmp_path, dict(os.environ)) as process:
            assert process.wait(LIMIT) == 0

    status = launch(
        play,
        camera=CAMERA,
        transport="compressed",
        ground_truth=bags.GROUND_TRUTH_TOPIC,
        use_sim_time="true",
        output=output,
    )
    assert status == 0
    found = json.loads(output.read_text())
    # The replay's pictures may come by best effort here.
    assert found["frames"]["sent"] > 0
    assert found["frames"]["answered"] > 0
    assert 0 <= found["latency_ms"]["max"] < 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "expected bag:= or camera:=, got neither"),
        ({"bag": "/no/such/bag"}, "bag '/no/such/bag' does not exist"),
        ({"weather": "snow"}, "condition must be one of clear, fog"),
        ({"severity": "bad"}, "argument severity must be a number, got 'bad'"),
        ({"rate": "fast"}, "fast"),
        ({"use_sim_time": "true"}, "use_sim_time must be false with bag:="),
        ({"camera": "/rear"}, f"expected one image topic .* it has: camera:={CAMERA} transport:=c"),
        ({"transport": "raw"}, "camera:= transport:=raw, got 0; it has: "),
        ({"ground_truth": "/x"}, "ground_truth:=/x; it has: /camera/ground_truth"),
        ({"models_folder": "/no/such/folder"}, "detector_node-.* ended with status 1"),
    ],
)
def test_what_cannot_be_done_ends_the_launch_with_the_reason(
    launch, drive, arguments, message, capfd, caplog
):
    if arguments and "bag" not in arguments:
        arguments = {"bag": drive, **arguments}
    assert launch(**arguments) != 0
    out, errors = capfd.readouterr()
    said = " ".join((out, errors, caplog.text))
    assert re.search(message, said), said


@pytest.fixture
def find_topics():
    spec = importlib.util.spec_from_file_location(
        "evaluate_launch", PROJECT / "launch" / "evaluate.launch.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.find_topics


@pytest.fixture
def several(tmp_path):
    """A bag with topics of two cameras, one of them in both transports, and of two truths."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types = {
        "/left": bags.IMAGE,
        "/left/compressed": bags.COMPRESSED_IMAGE,
        "/right/jpeg": bags.COMPRESSED_IMAGE,
        "/speed": "std_msgs/msg/Float64",
    }
    with Writer(tmp_path / "several", version=9) as writer:
        for name, kind in types.items():
            writer.add_connection(name, kind, typestore=store)
        for name in ("/people", "/cars"):
            writer.add_connection(name, bags.DETECTIONS, msgdef="string s", rihs01="none")
    return tmp_path / "several"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (("/left", "raw", "/cars"), ("/left", "/left", "raw", "/cars")),
        (("/left", "compressed", "/cars"), ("/left/compressed", "/left", "compressed", "/cars")),
        (("", "raw", "/people"), ("/left", "/left", "raw", "/people")),
        (("/right/jpeg", "", "/people"), ("/right/jpeg", "/right/jpeg", "compressed", "/people")),
    ],
)
def test_of_several_topics_those_that_are_named_are_taken(find_topics, several, wanted, found):
    assert find_topics(str(several), *wanted) == (*found, ["/people", "/cars"])


def test_ground_truth_can_be_left_aside(find_topics, several):
    assert find_topics(str(several), "/left", "raw", "none")[3] == ""


def detector_bag(path, score):
    """A bag with a picture's topic, and one object of that score on /detector/detections."""
    store = get_typestore(Stores.ROS2_JAZZY)
    with CameraBagWriter(path.with_name(f"{path.name}_labelled")) as labelled:
        box = np.array([[1, 1, 9, 9]], np.float32)
        _, picture = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))
        labelled.add(10**18, picture, "jpeg", (16, 16), box, ("car",))
    with bags.Bag(path.with_name(f"{path.name}_labelled")) as bag:
        (message,) = bag.messages([bags.GROUND_TRUTH_TOPIC])
    seen = bags.decode(message.data, bags.DETECTIONS)
    seen.detections[0].results[0].hypothesis.score = score
    with Writer(path, version=9) as writer:
        writer.add_connection("/left", bags.IMAGE, typestore=store)
        connection = writer.add_connection(
            "/detector/detections", bags.DETECTIONS, typestore=bags._typestore()
        )
        writer.write(connection, 10**18, bags._typestore().serialize_cdr(seen, bags.DETECTIONS))
    return str(path)


def test_what_a_detector_saw_is_ground_truth_only_if_somebody_says_so(find_topics, tmp_path):
    seen = detector_bag(tmp_path / "seen", 0.9)
    with pytest.raises(bags.BagError, match=r"scores between 0 and 1.*ground_truth:=none"):
        find_topics(seen, "", "", "")
    assert find_topics(seen, "", "", "/detector/detections")[3] == "/detector/detections"
    assert find_topics(seen, "", "", "none")[3] == ""
    sure = detector_bag(tmp_path / "sure", 1.0)
    assert find_topics(sure, "", "", "")[3] == "/detector/detections"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (("", "", "/cars"), "got 3; it has: camera:=/left transport:=raw, camera:=/left tr"),
        (("/left", "", "/cars"), "camera:=/left transport:=, got 2"),
        (("/left", "raw", ""), "ground_truth:=; it has: /people, /cars"),
    ],
)
def test_of_several_topics_one_must_be_named(find_topics, several, wanted, message):
    with pytest.raises(bags.BagError, match=message):
        find_topics(str(several), *wanted)

"""A running node is what the README's tables say, and so are the files for RViz and Foxglove."""

import gc
import json
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters
from rclpy.duration import Duration
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage
from statistics_msgs.msg import MetricsMessage, StatisticDataType
from vision_msgs.msg import Detection2DArray

from mbnet_perception.nodes.diagnostics import STAGES

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text(encoding="utf-8")

# What rclpy gives to every node, or to every lifecycle node.
RCLPY_TOPICS = {"/rosout", "/parameter_events", "/detector/transition_event"}
RCLPY_SERVICES = {
    "describe_parameters",
    "get_parameter_types",
    "get_parameters",
    "list_parameters",
    "set_parameters",
    "set_parameters_atomically",
    "get_type_description",
}
RCLPY_PARAMETERS = {"use_sim_time", "start_type_description_service"}
TYPES = {
    ParameterType.PARAMETER_BOOL: "boolean",
    ParameterType.PARAMETER_INTEGER: "integer",
    ParameterType.PARAMETER_DOUBLE: "double",
    ParameterType.PARAMETER_STRING: "string",
    ParameterType.PARAMETER_STRING_ARRAY: "string array",
}
POLICIES = {
    *("history", "depth", "reliability", "durability", "deadline"),
    *("liveliness", "liveliness_lease_duration"),
}


def rows(table):
    """Rows of a table of the README, by the words in its head."""
    text = README.split(f"<!-- table: {table} -->\n")[1].split("<!-- end of table -->")[0]
    head, _, *body = ([cell.strip() for cell in line.split(" | ")] for line in text.splitlines())
    head = [cell.strip("| ") for cell in head]
    return [dict(zip(head, [cell.strip("| ") for cell in row], strict=True)) for row in body]


def names(cell, cameras):
    """What a name in the README stands for."""
    names = re.findall(r"`([^`]+)`", cell)
    name = names[-1 if len(cameras) > 1 else 0].replace("~", "/detector")
    return {name.replace("<camera topic>", camera) for camera in cameras}


def expected_topics(direction, cameras, other_image):
    return {
        (name, row["type"].strip("`"))
        for row in rows("topics")
        if row["direction"] == direction and row["type"].strip("`") != other_image
        for name in names(row["topic"], cameras)
    }


def offered(detector, what, besides, expected):
    """(name, type) of what the graph says that the node offers, once that is all discovered."""
    look = getattr(detector.peer, f"get_{what}_names_and_types_by_node")

    def found():
        pairs = {(name, kind) for name, kinds in look("detector", "/") for kind in kinds}
        return {(name, kind) for name, kind in pairs if name not in besides}

    with suppress(AssertionError):  # the caller shows what is missing
        detector.until(lambda: found() >= expected)
    return found()


def bare(cell):
    """Text of a cell without what Markdown needs."""
    return cell.replace("`", "").replace(r"\|", "|")


RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
ONE, TWO = ["/image_raw"], ["/front/image_raw", "/rear/image_raw"]
TWO_COMPRESSED = (
    *("-p", "camera_topics:=[/front/image_raw, /rear/image_raw]"),
    *("-p", "image_transport:=compressed"),
)


@pytest.fixture(autouse=True)
def no_ghosts():
    """A destroyed lifecycle node stays in the graph until its state machine is collected."""
    gc.collect()


@pytest.fixture(params=["one camera", "two compressed cameras"])
def running(request, rig):
    """A rig, its cameras, and the type of image that it does not subscribe to."""
    if request.param == "one camera":
        return rig(), ONE, COMPRESSED
    detections = [f"{topic}/detections" for topic in TWO]
    two = rig(*TWO_COMPRESSED, topics=TWO, image_type=CompressedImage, detections=detections)
    return two, TWO, RAW


def test_topics_are_those_of_the_table(running):
    detector, cameras, other = running
    out = expected_topics("out", cameras, None)
    assert offered(detector, "publisher", RCLPY_TOPICS, out) == out
    into = expected_topics("in", cameras, other)
    assert offered(detector, "subscriber", RCLPY_TOPICS, into) == into


def endpoints(cameras, other_image):
    """Row, name and side of each topic of a running node."""
    for row in rows("topics"):
        if row["type"].strip("`") != other_image or row["direction"] == "out":
            side = "subscription" if row["direction"] == "in" else "publisher"
            for name in names(row["topic"], cameras):
                yield row, name, side


def test_qos_is_that_of_the_table(running):
    detector, cameras, other = running
    for row, name, side in endpoints(cameras, other):
        look = getattr(detector.peer, f"get_{side}s_info_by_topic")

        def profiles(look=look, name=name):
            return [info.qos_profile for info in look(name) if info.node_name == "detector"]

        (qos,) = detector.until(profiles)
        words = row["QoS"].split(", ")
        assert (qos.reliability == ReliabilityPolicy.RELIABLE) == ("reliable" in words)
        assert (qos.durability == DurabilityPolicy.TRANSIENT_LOCAL) == ("transient local" in words)
        depth = detector.detector.get_parameter(f"qos_overrides.{name}.{side}.depth").value
        assert f"depth {depth}" in words


def call(detector, kind, name, **request):
    client = detector.peer.create_client(kind, f"/detector/{name}")
    detector.until(client.service_is_ready)
    future = client.call_async(kind.Request(**request))
    detector.until(future.done)
    return future.result()


def parameter_names(detector):
    return set(call(detector, ListParameters, "list_parameters").result.names)


def test_each_topic_takes_an_override_of_each_policy(running):
    detector, cameras, other = running
    overridable = {
        f"qos_overrides.{name}.{side}.{policy}"
        for _, name, side in endpoints(cameras, other)
        for policy in POLICIES
    }
    names = {name for name in parameter_names(detector) if name.startswith("qos_overrides.")}
    assert names == overridable


def test_services_are_those_of_the_table(rig):
    detector = rig()
    ours = {
        (name, row["type"].strip("`"))
        for row in rows("services")
        for name in names(row["service"], ONE)
    }
    standard = {f"/detector/{name}" for name in RCLPY_SERVICES}
    (listed,) = re.findall(r"every lifecycle node has:(.*?)\n\n", README, re.DOTALL)
    lifecycle = {f"/detector/{name}" for name in re.findall(r"`~/(\w+)`", listed)}
    assert offered(detector, "service", standard | lifecycle, ours) == ours
    assert {name for name, _ in offered(detector, "service", standard, ours)} >= lifecycle
    assert len(lifecycle) == 5


def test_parameters_are_those_of_the_table(rig):
    detector = rig()
    table = {row["name"].strip("`"): row for row in rows("parameters")}
    found = {name for name in parameter_names(detector) if not name.startswith("qos_overrides.")}
    assert found - RCLPY_PARAMETERS == set(table)
    described = call(detector, DescribeParameters, "describe_parameters", names=list(table))
    values = call(detector, GetParameters, "get_parameters", names=list(table))
    for descriptor, value, row in zip(
        described.descriptors, values.values, table.values(), strict=True
    ):
        default = yaml.safe_load(row["default"].strip("`"))
        live = parameter_value_to_python(value)
        assert (default if isinstance(default, list) else type(live)(default)) == live
        assert row["at run time"] == ("no" if descriptor.read_only else "yes")
        assert bare(row["meaning"]) == descriptor.description
        spans = [*descriptor.floating_point_range, *descriptor.integer_range]
        told = [f"{s.from_value:g} to {s.to_value:g}" for s in spans]
        assert bare(row["range"]) == (told[0] if told else descriptor.additional_constraints)
        if live != []:  # whose type rclpy does not know
            assert row["type"] == TYPES[value.type]


def test_statuses_and_their_values_are_those_of_the_text(rig, street):
    detector = rig()
    detector.answer(detector.raw(street, header=detector.now()))
    text = README.split("### What /diagnostics says")[1].split("### Parameters")[0]
    told = re.findall(r"^\| `(detector: [^`]+)` \|", text, re.MULTILINE)
    camera = "detector: /image_raw"
    assert "detector: <camera topic>" in told
    told = {name.replace("<camera topic>", "/image_raw") for name in told}
    detector.until(lambda: told <= set(detector.diagnostics))
    assert set(detector.diagnostics) == told
    _, values = detector.status(camera)
    figures = set(re.findall(r"`(\w+)`", text.split("Frames of a camera")[1]))
    assert {"lost_by_stamps", "stamp_to_publish_p90_ms", "stamp_jumped"} <= figures
    parameters = {row["name"].strip("`") for row in rows("parameters")}
    assert figures - parameters <= set(values)
    for stage in STAGES:
        assert {f"{stage}_{figure}_ms" for figure in ("p50", "p90", "p99", "max")} <= set(values)


def test_a_subscriber_that_asks_for_a_deadline_is_told_when_detections_fail_to_come(rig, street):
    (override,) = re.findall(r"-p (qos_overrides\S+deadline:=\d+)", README)
    detector = rig("-p", override)
    missed, received = [], []
    deadline = Duration(nanoseconds=int(override.split(":=")[1]))
    detector.peer.create_subscription(
        Detection2DArray,
        "/detector/detections",
        received.append,
        QoSProfile(depth=10, deadline=deadline),
        event_callbacks=SubscriptionEventCallbacks(deadline=missed.append),
    )
    detector.until(lambda: detector.detector.count_subscribers("/detector/detections") == 2)

    def heard():
        detector.answer(detector.raw(street))
        return received

    detector.until(heard)
    missed.clear()
    detector.until(lambda: missed)


# config/rviz and config/foxglove


def topics_of_one_camera():
    """Type of each topic of a node with one camera, by name."""
    return {
        name: row["type"].strip("`") for row in rows("topics") for name in names(row["topic"], ONE)
    }


def test_rviz_shows_what_the_node_publishes():
    config = yaml.safe_load((PROJECT / "config/rviz/detector.rviz").read_text(encoding="utf-8"))
    displays = config["Visualization Manager"]["Displays"]
    assert [display["Topic"]["Value"] for display in displays if display["Enabled"]] == [
        "/detector/overlay"
    ]
    for display in displays:
        assert display["Class"] == "rviz_default_plugins/Image"
        assert topics_of_one_camera()[display["Topic"]["Value"]] == RAW


@pytest.fixture
def foxglove():
    return json.loads((PROJECT / "config/foxglove/detector.json").read_text(encoding="utf-8"))


def test_each_panel_of_foxglove_is_in_the_layout_once(foxglove):
    def leaves(node):
        if isinstance(node, str):
            return [node]
        assert node["direction"] in ("row", "column")
        assert 0 < node["splitPercentage"] < 100
        return leaves(node["first"]) + leaves(node["second"])

    assert sorted(leaves(foxglove["layout"])) == sorted(foxglove["configById"])


def test_foxglove_shows_what_the_node_publishes(foxglove):
    panels = foxglove["configById"]
    types = topics_of_one_camera()
    shown = {
        "Image": (panels["Image!overlay"]["imageMode"]["imageTopic"], COMPRESSED),
        "RawMessages": (
            panels["RawMessages!detections"]["topicPath"],
            "vision_msgs/msg/Detection2DArray",
        ),
        "DiagnosticSummary": (
            panels["DiagnosticSummary!detector"]["topicToRender"],
            "diagnostic_msgs/msg/DiagnosticArray",
        ),
    }
    for topic, kind in shown.values():
        assert types[topic] == kind


def test_foxglove_plots_fields_that_the_latency_messages_have(foxglove, rig, street):
    detector = rig()
    messages = []
    detector.peer.create_subscription(MetricsMessage, "/detector/latency", messages.append, 100)
    detector.answer(detector.raw(street, header=detector.now()))
    path = re.compile(
        r'(/[\w/]+)\{metrics_source=="(\w+)"\}\.statistics\[:\]\{data_type==(\d)\}\.data'
    )
    for series in foxglove["configById"]["Plot!latency"]["paths"]:
        topic, source, kind = path.fullmatch(series["value"]).groups()
        assert topics_of_one_camera()[topic] == "statistics_msgs/msg/MetricsMessage"
        word = {"mean": "AVERAGE", "greatest": "MAXIMUM"}[series["label"].split(", ")[1]]
        assert int(kind) == getattr(StatisticDataType, f"STATISTICS_DATA_TYPE_{word}")
        assert source.replace("_", " ") == series["label"].split(", ")[0]

        def plotted(source=source, kind=int(kind)):
            return [
                point.data
                for message in messages
                if message.metrics_source == source
                for point in message.statistics
                if point.data_type == kind
            ]

        detector.until(plotted)


def test_setup_installs_the_files():
    # What `setup` is called with, in the folder where it is called.
    run = (
        "import json, setuptools; seen = {}; setuptools.setup = lambda **given: seen.update(given);"
        "exec(open('setup.py').read()); print(json.dumps(seen['data_files']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", run], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    installed = {file: folder for folder, files in json.loads(done.stdout) for file in files}
    share = "share/mbnet_perception"
    assert installed["config/fastdds.xml"] == f"{share}/config"
    assert installed["config/rviz/detector.rviz"] == f"{share}/config/rviz"
    assert installed["config/foxglove/detector.json"] == f"{share}/config/foxglove"

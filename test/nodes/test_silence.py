from itertools import product

import pytest
import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from mbnet_perception.nodes.endpoints import IMAGE, image_endpoint, overrides
from mbnet_perception.nodes.silence import reason_for_silence, why_silent

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


def qos(**policies):
    return QoSProfile(
        **{"depth": 1, "reliability": ReliabilityPolicy.BEST_EFFORT} | policies,
    )


def publisher(kind=RAW, name="usb_cam", **policies):
    return TopicEndpointInfo(
        node_name=name, node_namespace="/front", topic_type=kind, qos_profile=qos(**policies)
    )


def seconds(value):
    return Duration(nanoseconds=int(value * 1e9))


# What the graph says, and what follows


@pytest.mark.parametrize(
    ("topic", "asked", "pictures", "expected"),
    [
        pytest.param(
            "/cam",
            RAW,
            {},
            "nobody publishes /cam or any other picture; does the camera run, with the same "
            "ROS_DOMAIN_ID?",
            id="nothing at all",
        ),
        pytest.param(
            "/cam",
            RAW,
            {"/cam/compressed": {COMPRESSED}, "/other": {RAW}},
            "nobody publishes /cam, but there is /cam/compressed: set image_transport: compressed",
            id="compressed alone",
        ),
        pytest.param(
            "/cam/compressed",
            COMPRESSED,
            {"/cam": {RAW}},
            "nobody publishes /cam/compressed, but there is /cam: set image_transport: raw",
            id="raw alone",
        ),
        pytest.param(
            "/cam",
            RAW,
            {"/rear/depth": {RAW}, "/camera/cam": {RAW}, "/cam/compressed": {RAW}},
            "nobody publishes /cam; camera_topics could be /camera/cam, /cam/compressed, "
            "/rear/depth",
            id="the likeliest names first",
        ),
        pytest.param(
            "/cam",
            RAW,
            {f"/cam{i}": {RAW} for i in range(5)},
            "nobody publishes /cam; camera_topics could be /cam0, /cam1, /cam2 and 2 more",
            id="many others",
        ),
        pytest.param(
            "/cam/compressed",
            COMPRESSED,
            {"/front/compressed": {COMPRESSED}, "/odd": {COMPRESSED}},
            "nobody publishes /cam/compressed; camera_topics could be /front",
            id="names without the suffix",
        ),
        pytest.param(
            "/cam",
            RAW,
            {"/front/compressed": {COMPRESSED}},
            "nobody publishes /cam; the only pictures are sensor_msgs/msg/CompressedImage on "
            "/front/compressed",
            id="only of the other type",
        ),
    ],
)
def test_a_topic_without_a_publisher(topic, asked, pictures, expected):
    assert reason_for_silence(topic, asked, qos(), [], pictures) == expected


@pytest.mark.parametrize(
    ("topic", "asked", "kind", "expected"),
    [
        pytest.param(
            "/cam",
            RAW,
            COMPRESSED,
            "/front/usb_cam publishes sensor_msgs/msg/CompressedImage on /cam, not "
            "sensor_msgs/msg/Image: set camera_topics: [/cam] and image_transport: compressed, "
            "and remap /cam/compressed to /cam",
            id="compressed pictures without the suffix",
        ),
        pytest.param(
            "/cam/compressed",
            RAW,
            COMPRESSED,
            "/front/usb_cam publishes sensor_msgs/msg/CompressedImage on /cam/compressed, not "
            "sensor_msgs/msg/Image: set camera_topics: [/cam] and image_transport: compressed",
            id="a compressed topic as camera topic",
        ),
        pytest.param(
            "/cam/compressed",
            COMPRESSED,
            RAW,
            "/front/usb_cam publishes sensor_msgs/msg/Image on /cam/compressed, not "
            "sensor_msgs/msg/CompressedImage: set camera_topics: [/cam/compressed] and "
            "image_transport: raw",
            id="raw pictures with the suffix",
        ),
        pytest.param(
            "/cam",
            RAW,
            "std_msgs/msg/String",
            "/front/usb_cam publishes std_msgs/msg/String on /cam, not sensor_msgs/msg/Image",
            id="no pictures",
        ),
    ],
)
def test_publishers_of_another_type(topic, asked, kind, expected):
    assert reason_for_silence(topic, asked, qos(), [publisher(kind)], {}) == expected


AUTOMATIC, BY_TOPIC = LivelinessPolicy.AUTOMATIC, LivelinessPolicy.MANUAL_BY_TOPIC


@pytest.mark.parametrize(
    ("asked", "offered", "expected"),
    [
        pytest.param(
            {"reliability": ReliabilityPolicy.RELIABLE},
            {},
            "offers reliability best_effort, we ask for reliable; start this node with "
            "qos_overrides./cam.subscription.reliability: best_effort",
            id="reliability",
        ),
        pytest.param(
            {"durability": DurabilityPolicy.TRANSIENT_LOCAL},
            {},
            "offers durability volatile, we ask for transient_local; start this node with "
            "qos_overrides./cam.subscription.durability: volatile",
            id="durability",
        ),
        pytest.param(
            {"liveliness": BY_TOPIC},
            {},
            "offers liveliness automatic, we ask for manual_by_topic; start this node with "
            "qos_overrides./cam.subscription.liveliness: automatic",
            id="liveliness",
        ),
        pytest.param(
            {"deadline": seconds(0.1)},
            {},
            "offers no deadline, we ask for 0.1 s; start this node with "
            "qos_overrides./cam.subscription.deadline: 0",
            id="no deadline",
        ),
        pytest.param(
            {"deadline": seconds(0.1)},
            {"deadline": seconds(0.2)},
            "offers a deadline of 0.2 s, we ask for 0.1 s; start this node with "
            "qos_overrides./cam.subscription.deadline: 200000000",
            id="too late a deadline",
        ),
        pytest.param(
            {"liveliness_lease_duration": seconds(1)},
            {"liveliness_lease_duration": seconds(2.5)},
            "offers a liveliness_lease_duration of 2.5 s, we ask for 1 s; start this node with "
            "qos_overrides./cam.subscription.liveliness_lease_duration: 2500000000",
            id="lease",
        ),
        pytest.param(
            {"reliability": ReliabilityPolicy.RELIABLE, "deadline": seconds(0.1)},
            {},
            "offers reliability best_effort, we ask for reliable and no deadline, we ask for "
            "0.1 s; start this node with qos_overrides./cam.subscription.reliability: best_effort "
            "and qos_overrides./cam.subscription.deadline: 0",
            id="two at once",
        ),
    ],
)
def test_publishers_whose_qos_does_not_match(asked, offered, expected):
    offered = {"durability": DurabilityPolicy.VOLATILE, "liveliness": AUTOMATIC} | offered
    reason = reason_for_silence("/cam", RAW, qos(**asked), [publisher(**offered)], {})
    assert reason == f"QoS of /cam: /front/usb_cam {expected}"


IDLE = "/front/usb_cam publishes /cam and its QoS matches, but nothing comes"
LOST = (
    "; it may be idle, or its pictures get lost, as large ones do over best effort: try "
    "image_transport: compressed, or start the camera with config/fastdds.xml"
)
STOOD_STILL = (
    "; it may be idle, or another of its subscribers stood still, after which Fast DDS may send "
    "nothing more: restart the camera, with config/fastdds.xml"
)


@pytest.mark.parametrize(
    ("kind", "asked", "offered", "expected"),
    [
        pytest.param(RAW, "BEST_EFFORT", "BEST_EFFORT", IDLE + LOST, id="nobody is reliable"),
        pytest.param(
            RAW,
            "BEST_EFFORT",
            "RELIABLE",
            f"{IDLE}{LOST}, or qos_overrides./cam.subscription.reliability: reliable",
            id="we could be reliable",
        ),
        pytest.param(RAW, "RELIABLE", "RELIABLE", IDLE, id="both are reliable"),
        pytest.param(
            COMPRESSED, "BEST_EFFORT", "RELIABLE", IDLE + STOOD_STILL, id="somebody waits for JPEGs"
        ),
        pytest.param(COMPRESSED, "BEST_EFFORT", "BEST_EFFORT", IDLE, id="nobody waits for JPEGs"),
    ],
)
def test_publishers_that_send_nothing(kind, asked, offered, expected):
    asked, offered = ReliabilityPolicy[asked], ReliabilityPolicy[offered]
    reason = reason_for_silence(
        "/cam", kind, qos(reliability=asked), [publisher(kind, reliability=offered)], {}
    )
    assert reason == expected


def test_a_publisher_that_fits_is_named_and_then_one_that_does_not():
    publishers = [
        publisher("std_msgs/msg/String", name="talker"),
        publisher(name="weak"),
        publisher(name="strong", reliability=ReliabilityPolicy.RELIABLE),
    ]
    asked = qos(reliability=ReliabilityPolicy.RELIABLE)
    reason = reason_for_silence("/cam", RAW, asked, publishers, {})
    assert reason == (
        "/front/strong publishes /cam and its QoS matches, but nothing comes; "
        "QoS of /cam: /front/weak offers reliability best_effort, we ask for reliable; start this "
        "node with qos_overrides./cam.subscription.reliability: best_effort"
    )


PROFILES = [
    qos(
        reliability=reliability,
        durability=durability,
        liveliness=liveliness,
        deadline=seconds(deadline),
        liveliness_lease_duration=seconds(lease),
    )
    for reliability, durability, liveliness, deadline, lease in product(
        (ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE),
        (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL),
        (AUTOMATIC, BY_TOPIC),
        (0, 0.1, 0.2),
        (0, 1),
    )
]


def test_a_mismatch_is_found_exactly_where_the_middleware_finds_one():
    for offered, asked in product(PROFILES, PROFILES):
        compatibility, _ = qos_check_compatible(offered, asked)
        info = TopicEndpointInfo(node_name="n", topic_type=RAW, qos_profile=offered)
        said = reason_for_silence("/cam", RAW, asked, [info], {})
        assert said.startswith("QoS of /cam") == (compatibility != QoSCompatibility.OK), (
            offered,
            asked,
        )


# Real nodes


class Graph:
    """A camera and a subscriber to its pictures."""

    def __init__(self, *ros_args):
        rclpy.init(args=["--ros-args", *ros_args])
        # Two participants, as one cannot have two types on a topic.
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.camera = Node("camera", context=self.context)
        self.subscriber = Node("subscriber", namespace="/car")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.subscriber)
        self.received = []

    def close(self):
        self.executor.shutdown()
        self.camera.destroy_node()
        self.subscriber.destroy_node()
        rclpy.try_shutdown()
        self.context.try_shutdown()

    def publish(self, kind, topic, **policies):
        return self.camera.create_publisher(kind, topic, qos(**policies))

    def subscribe(self, topic, transport="raw"):
        endpoint = image_endpoint(transport)
        name = endpoint.name_for(topic, 1)
        self.subscriber.create_subscription(
            endpoint.type,
            name,
            self.received.append,
            endpoint.qos,
            qos_overriding_options=overrides(),
        )
        return name

    def until_said(self, topic, part):
        """The reason once it holds this, as discovery takes its time."""
        for _ in range(400):
            said = why_silent(self.subscriber, topic)
            if part in said:
                return said
            self.executor.spin_once(timeout_sec=0.05)
        raise AssertionError(f"{part!r} was not said, but {said!r}")

    def until(self, condition):
        for _ in range(400):
            if condition():
                return
            self.executor.spin_once(timeout_sec=0.05)
        raise AssertionError("the condition did not come true in time")


@pytest.fixture
def graph():
    started = []

    def start(*ros_args):
        started.append(Graph(*ros_args))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.mark.parametrize(
    ("policy", "value", "offered", "remedy"),
    [
        pytest.param("reliability", "reliable", {}, "best_effort", id="reliability"),
        pytest.param("durability", "transient_local", {}, "volatile", id="durability"),
        pytest.param("deadline", "100000000", {}, "0", id="no deadline"),
        pytest.param(
            "deadline",
            "100000000",
            {"deadline": seconds(0.2)},
            "200000000",
            id="too late a deadline",
        ),
        pytest.param("liveliness", "manual_by_topic", {}, "automatic", id="liveliness"),
        pytest.param("liveliness_lease_duration", "1000000000", {}, "0", id="lease"),
    ],
)
def test_an_incompatible_policy_is_named_and_the_remedy_helps(
    graph, policy, value, offered, remedy
):
    override = f"qos_overrides./cam.subscription.{policy}"
    deaf = graph("-p", f"{override}:={value}")
    deaf.publish(Image, "/cam", **offered)
    topic = deaf.subscribe("/cam")
    said = deaf.until_said(topic, "QoS of /cam: /camera offers")
    assert said.endswith(f"start this node with {override}: {remedy}")
    deaf.close()

    hearing = graph("-p", f"{override}:={remedy}")
    source = hearing.publish(Image, "/cam", **offered)
    topic = hearing.subscribe("/cam")
    hearing.until_said(topic, "/camera publishes /cam and its QoS matches")

    def heard():
        source.publish(Image())
        return hearing.received

    hearing.until(heard)


def test_a_publisher_that_comes_and_goes_is_seen(graph):
    one = graph()
    topic = one.subscribe("/cam")
    assert "nobody publishes /cam" in why_silent(one.subscriber, topic)
    source = one.publish(Image, "/cam")
    one.until_said(topic, "but nothing comes")
    one.camera.destroy_publisher(source)
    one.until_said(topic, "nobody publishes /cam")


def test_the_twin_of_the_other_transport_is_seen(graph):
    one = graph()
    one.publish(CompressedImage, "/cam/compressed")
    topic = one.subscribe("/cam")
    one.until_said(topic, "there is /cam/compressed: set image_transport: compressed")
    one.publish(Image, "/rear")
    topic = one.subscribe("/rear", "compressed")
    assert topic == "/rear/compressed"
    one.until_said(topic, "there is /rear: set image_transport: raw")


def test_another_type_is_seen(graph):
    one = graph()
    one.publish(String, "/cam")
    topic = one.subscribe("/cam")
    one.until_said(topic, "/camera publishes std_msgs/msg/String on /cam")


def test_what_the_node_publishes_and_others_only_ask_for_is_no_camera(graph):
    one = graph()
    topic = one.subscribe("/cam")
    one.subscriber.create_publisher(IMAGE.type, "~/overlay", 1)
    one.camera.create_subscription(Image, "/wanted", print, 1)
    one.publish(Image, "/front/image")
    said = one.until_said(topic, "camera_topics could be")
    assert said.endswith("could be /front/image")


def test_a_remapped_topic_is_looked_up_by_its_new_name(graph):
    one = graph("-r", "/cam/compressed:=/front")
    one.publish(CompressedImage, "/front")
    topic = one.subscribe("/cam", "compressed")
    one.until_said(topic, "/camera publishes /front and its QoS matches")


def test_topics_that_are_swapped_are_looked_up_by_what_is_subscribed_to(graph):
    one = graph("-r", "/front:=/rear", "-r", "/rear:=/front")
    one.publish(Image, "/rear")
    front, rear = one.subscribe("/front"), one.subscribe("/rear")
    one.until_said(front, "/camera publishes /rear and its QoS matches")
    said = one.until_said(rear, "camera_topics")
    assert said == "nobody publishes /front; camera_topics could be /rear"


def test_a_node_that_is_not_subscribed_does_not_blame_others(graph):
    assert why_silent(graph().subscriber, "/cam") == "this node does not subscribe to /cam"

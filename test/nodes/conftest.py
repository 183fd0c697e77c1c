"""Live nodes for tests: each pytest run talks in a ROS domain of its own, on this machine alone."""

import os
import time
from array import array

# Before rclpy starts. 1 to 101 are the domains whose ports are free on all systems.
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 101)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

import cv2
import pytest
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from mbnet_perception.core.scene import DrivingScene
from mbnet_perception.nodes.detector import DetectorNode

DEADLINE = 20.0
SIZE = (160, 120)
HEADER = Header(stamp=Time(sec=1_700_000_000, nanosec=123), frame_id="camera_optical_frame")


@pytest.fixture(scope="session")
def street():
    """A picture with objects in it."""
    return DrivingScene(seed=3, size=SIZE).render(1.0)[0]


class Rig:
    """A detector node with a camera and a listener in front of it, all on one executor."""

    def __init__(self, topics=("/image_raw",), image_type=Image, detections=None):
        self.executor = SingleThreadedExecutor()
        self.detector = DetectorNode()
        self.peer = Node("peer")
        for node in (self.detector, self.peer):
            self.executor.add_node(node)
        self.received = {}
        self.diagnostics = {}
        self.cameras = {}
        for topic in topics:
            name = topic + ("/compressed" if image_type is CompressedImage else "")
            self.cameras[topic] = self.peer.create_publisher(image_type, name, 10)
        for topic in detections or ("/detector/detections",):
            self.received[topic] = []
            self.peer.create_subscription(
                Detection2DArray, topic, self.received[topic].append, qos_profile_sensor_data
            )
        self.peer.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.parameters = self.peer.create_client(
            SetParametersAtomically, "/detector/set_parameters_atomically"
        )

    def connect(self):
        """Wait until everybody knows each other."""
        self.until(
            lambda: (
                all(c.get_subscription_count() for c in self.cameras.values())
                and all(self.peer.count_publishers(topic) for topic in self.received)
                and self.parameters.service_is_ready()
            )
        )

    @staticmethod
    def raw(bgr, **changes):
        """An Image of the picture, with these fields changed."""
        height, width, _ = bgr.shape
        fields = {
            "header": HEADER,
            "height": height,
            "width": width,
            "encoding": "bgr8",
            "step": 3 * width,
            "data": array("B", bgr.tobytes()),
        }
        return Image(**fields | changes)

    @staticmethod
    def compressed(bgr, keep=1.0):
        """A CompressedImage of the picture, of which only a share of the bytes is kept."""
        content = cv2.imencode(".jpg", bgr)[1].tobytes()
        data = array("B", content[: int(keep * len(content))])
        return CompressedImage(header=HEADER, format="jpeg", data=data)

    def now(self):
        """A header that is stamped now."""
        return Header(stamp=self.peer.get_clock().now().to_msg(), frame_id="camera")

    def _on_diagnostics(self, message):
        for status in message.status:
            self.diagnostics[status.name] = status

    def until(self, condition):
        """Spin until the condition holds, and return what it returned."""
        deadline = time.monotonic() + DEADLINE
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < deadline, "the condition did not come true in time"
            self.executor.spin_once(timeout_sec=0.02)

    @property
    def detections(self):
        """What came on the only detections topic."""
        (messages,) = self.received.values()
        return messages

    def counts(self, camera=0):
        return self.detector._cameras[camera].record.ledger.counts

    def send(self, message, topic=None):
        """Send an image and wait until it has arrived."""
        topic = topic or next(iter(self.cameras))
        index = list(self.cameras).index(topic)
        before = self.counts(index).received
        self.cameras[topic].publish(message)
        self.until(lambda: self.counts(index).received > before)

    def answer(self, message):
        """Send an image and wait for the detections."""
        before = len(self.detections)
        self.send(message)
        return self.until(lambda: self.detections[before:])[0]

    def settle(self, camera=0):
        """Wait until no frame waits, and return the counts."""
        self.until(lambda: not self.counts(camera).waiting)
        return self.counts(camera)

    def set(self, **values):
        """Set parameters together through the service, as `ros2 param set` does one."""
        request = SetParametersAtomically.Request(
            parameters=[Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
        )
        future = self.parameters.call_async(request)
        return self.until(future.result).result

    def status(self, name):
        """The next status of this name, and its values."""
        self.diagnostics.pop(name, None)
        status = self.until(lambda: self.diagnostics.get(name))
        return status, {pair.key: pair.value for pair in status.values}

    def close(self):
        if rclpy.ok():
            self.detector.destroy_node()
            self.peer.destroy_node()
            rclpy.shutdown()


@pytest.fixture
def rig():
    """Start a :class:`Rig` with these command-line arguments."""
    started = []

    def start(*ros_args, **options):
        rclpy.init(args=["--ros-args", *ros_args])
        one = Rig(**options)
        started.append(one)
        one.connect()
        return one

    yield start
    for one in started:
        one.close()
    rclpy.try_shutdown()

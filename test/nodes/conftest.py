"""Live nodes for tests: each pytest run talks in a ROS domain of its own, on this machine alone."""

import gc
import os
import shutil
import time
from array import array
from threading import Condition, current_thread

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
from mbnet_perception.inference.detector import Detector
from mbnet_perception.inference.models import ModelLibrary, add_model
from mbnet_perception.nodes.detector import DetectorNode
from mbnet_perception.nodes.processes import choose_network

os.environ.update(choose_network())

DEADLINE = 20.0
SIZE = (160, 120)
HEADER = Header(stamp=Time(sec=1_700_000_000, nanosec=123), frame_id="camera_optical_frame")


@pytest.fixture(scope="session")
def street():
    """A picture with objects in it."""
    return DrivingScene(seed=3, size=SIZE).render(1.0)[0]


@pytest.fixture
def models_and_colours(tmp_path, make_model, make_metadata):
    """A folder with the models and one more, of alpha 0.75, which sees red all over and no car."""
    folder = tmp_path / "models_and_colours"
    shutil.copytree(ModelLibrary().folder, folder)
    metadata = make_metadata(alpha=0.75, resolutions=(320,))
    add_model(folder, make_model([(0, 0, 1, 1)], [(0.5, 0, 0)], metadata.as_props()), metadata, {})
    return folder


class Rig:
    """A detector node with a camera and a listener in front of it, all on one executor."""

    def __init__(self, topics=("/image_raw",), image_type=Image, detections=None):
        self.closed = False
        self.executor = SingleThreadedExecutor()
        self.detector = DetectorNode()
        self.peer = Node("peer")
        for node in (self.detector, self.peer):
            self.executor.add_node(node)
        self.received = {}
        self.diagnostics = {}
        self.cameras = {}
        self.clients = {}
        self.listeners = {}
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
                and all(self.known(topic) for topic in self.cameras)
                and all(self.peer.count_publishers(topic) for topic in self.received)
                and self.parameters.service_is_ready()
            )
        )

    def known(self, topic):
        """Whether the detector would receive what its camera sends."""
        index = list(self.cameras).index(topic)
        subscription = self.detector._cameras[index]._subscription
        return bool(subscription and subscription.get_publisher_count())

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

    def call(self, kind, name, request):
        """Call one of the detector's services and return what it answers."""
        client = self.clients.get(name) or self.peer.create_client(kind, f"/detector/{name}")
        self.clients[name] = client
        self.until(client.service_is_ready)
        future = client.call_async(request)
        self.until(future.done)
        return future.result()

    def listen(self, kind, topic, qos=10):
        """The list in which all that comes on a topic of the detector's gathers from now on."""
        came = []
        subscription = self.peer.create_subscription(kind, topic, came.append, qos)
        mine = [p for p in self.detector.publishers if p.topic_name == topic]
        self.until(lambda: any(p.get_subscription_count() for p in mine))
        self.listeners[topic] = subscription
        return came

    def status(self, name):
        """The next status of this name, and its values."""
        self.diagnostics.pop(name, None)
        status = self.until(lambda: self.diagnostics.get(name))
        return status, {pair.key: pair.value for pair in status.values}

    def close(self):
        if not self.closed:
            self.closed = True
            self.detector.destroy_node()
            self.peer.destroy_node()
            # A lifecycle node stays in the ROS graph until its state machine is collected.
            self.detector = None
            gc.collect()
            rclpy.try_shutdown()


@pytest.fixture
def rig():
    """Start a :class:`Rig` with these command-line arguments."""
    started = []

    def start(*ros_args, connected=True, **options):
        rclpy.init(args=["--ros-args", *ros_args])
        one = Rig(**options)
        started.append(one)
        if connected:
            one.connect()
        return one

    yield start
    for one in started:
        one.close()
    rclpy.try_shutdown()


class Gate:
    """Holds the worker before each picture until it is let through.

    Attributes:
        pictures: All that came to the gate.
    """

    def __init__(self):
        self.pictures = []
        self._changed = Condition()
        self._free = 0

    def enter(self, picture):
        with self._changed:
            self.pictures.append(picture)
            assert self._changed.wait_for(lambda: self._free > 0, DEADLINE)
            self._free -= 1

    def let(self, count=1):
        """Let so many pictures through that are there or still come."""
        with self._changed:
            self._free += count
            self._changed.notify_all()

    def open(self):
        """Hold nothing any more."""
        self.let(10**9)

    def shut(self):
        """Let nothing through that comes from now on."""
        with self._changed:
            self._free = 0


@pytest.fixture
def gate(rig, monkeypatch):
    """The :class:`Gate` of the workers of all rigs."""
    one, run = Gate(), Detector.run

    def held(detector, picture, on_run=None):
        if current_thread().name == "detector worker":  # not while a model is warmed
            on_run()
            one.enter(picture)
        return run(detector, picture)

    monkeypatch.setattr(Detector, "run", held)
    yield one
    one.open()

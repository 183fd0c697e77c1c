"""The camera of the benchmark: pictures of a drive at a steady rate, stamped as they are sent."""

from __future__ import annotations

import json
import sys
from array import array
from signal import SIGINT, signal
from threading import Event
from time import monotonic, sleep, time_ns

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mbnet_perception.inference.benchmark import drive_pictures

TOPIC = "/camera/image_raw"
LAST_WORDS = 0.3  # seconds for what was sent last to be delivered


class BenchmarkCamera(Node):
    """Publishes 640x480 bgr8, best effort, on TOPIC, at the parameter `rate` in Hz.

    Attributes:
        sent: How many pictures were sent.
        seconds: How long that took.
    """

    def __init__(self) -> None:
        super().__init__("benchmark_camera")
        self.sent = 0
        self.seconds = 0.0
        self._rate = float(self.declare_parameter("rate", 15.0).value)
        self._publisher = self.create_publisher(
            Image, TOPIC, QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        )
        self._messages = [
            Image(
                header=Header(frame_id="camera_optical_frame"),
                height=bgr.shape[0],
                width=bgr.shape[1],
                encoding="bgr8",
                step=3 * bgr.shape[1],
                data=array("B", bgr.tobytes()),
            )
            for bgr in drive_pictures()
        ]

    def run(self, stop: Event) -> None:
        """Send from the first subscriber on until told to stop."""
        while not self._publisher.get_subscription_count():
            if stop.wait(0.01):
                return
        period = 1 / self._rate
        started = due = monotonic()
        while True:
            # What could not be sent in time is left out, not made up for in a burst.
            due = max(due, monotonic() - period) + period
            if stop.wait(max(0.0, due - monotonic())):
                return
            message = self._messages[self.sent % len(self._messages)]
            stamp = message.header.stamp
            stamp.sec, stamp.nanosec = divmod(time_ns(), 10**9)
            self._publisher.publish(message)
            self.sent += 1
            self.seconds = monotonic() - started


def main(args: list[str] | None = None) -> int:
    """Send until interrupted, then print what was sent as JSON."""
    stop = Event()
    signal(SIGINT, lambda *_: stop.set())
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node = BenchmarkCamera()
    node.run(stop)
    sleep(LAST_WORDS)
    rate = node.sent / node.seconds if node.sent else 0.0
    print(json.dumps({"sent": node.sent, "sent_rate_hz": rate}), flush=True)
    node.destroy_node()
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

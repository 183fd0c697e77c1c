"""The network alone in the place of the detector: what its answers would cost at least.

It takes each picture as the detector does, and then runs the network on a prepared one.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from signal import SIGINT, signal
from threading import Event

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from mbnet_perception.inference.benchmark import BareRun
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint
from mbnet_perception.nodes.benchmark_camera import TOPIC

BEGUN = "pictures come"
"""What it prints with the first one each time that it was enabled."""


class BenchmarkBare(Node):
    """Runs the network once for each picture on TOPIC; parameters as of the detector.

    It subscribes once its service `~/enable` says so, as the detector's does.

    Attributes:
        runs: When each run ended, ns since the epoch, and how long it took, seconds.
    """

    def __init__(self) -> None:
        super().__init__("benchmark_bare")
        self.runs: list[tuple[int, float]] = []
        values = {
            name: self.declare_parameter(name, default).value
            for name, default in (vars(OperatingPoint()) | {"num_threads": 0}).items()
        }
        folder = Path(self.declare_parameter("models_folder", "").value)
        threads = values.pop("num_threads")
        self._run = BareRun(ModelLibrary(folder), OperatingPoint(**values), threads)
        self._subscription: Subscription | None = None
        self._begun = False
        self.create_service(SetBool, "~/enable", self._on_enable)

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if self._subscription:
            self.destroy_subscription(self._subscription)
            self._subscription = None
        if request.data:
            qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
            self._subscription = self.create_subscription(Image, TOPIC, self._on_image, qos)
            self._begun = False
        response.success = True
        return response

    def _on_image(self, message: Image) -> None:
        if not self._begun:
            self._begun = True
            print(BEGUN, flush=True)
        seconds = self._run()
        self.runs.append((time.time_ns(), seconds))


def main(args: list[str] | None = None) -> int:
    """Run until interrupted, then print the runs as JSON."""
    stop = Event()
    signal(SIGINT, lambda *_: stop.set())
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node = BenchmarkBare()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not stop.is_set():
        executor.spin_once(timeout_sec=0.2)
    print(json.dumps({"runs": node.runs}), flush=True)
    node.destroy_node()
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

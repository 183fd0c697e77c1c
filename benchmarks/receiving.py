"""What it takes to receive a picture: by rclpy's executor as a message, and beside it as bytes.

The camera of `mbnet benchmark --node` sends 640x480 bgr8 from a process of its own to a node that
has nothing else, in turns to either way. Prints the age of pictures from stamp to arrival, and the
time of the receiving thread for each, in milliseconds (median of turns). Needs ROS 2.

    python benchmarks/receiving.py [--rate 60] [--turns 6]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image

from mbnet_perception.nodes.benchmark import camera_environment
from mbnet_perception.nodes.benchmark_camera import TOPIC
from mbnet_perception.nodes.cdr import read_stamp
from mbnet_perception.nodes.endpoints import IMAGE
from mbnet_perception.nodes.processes import choose_network, node_process
from mbnet_perception.nodes.receiver import Receiver, subscribe_for_receiver

TURN = 3.0  # seconds
SKIPPED = 20  # pictures of a turn that do not count


class Arrivals:
    """Of each picture its age in seconds, and the receiving thread's time so far."""

    def __init__(self) -> None:
        self.noted: list[tuple[float, float]] = []

    def note(self, stamp: int) -> None:
        """Note a picture as it arrives; its stamp is in ns."""
        self.noted.append((time.time() - stamp / 1e9, time.thread_time()))

    def figures(self) -> tuple[float, float]:
        """Median age, and the thread's time for each picture, both in ms."""
        ages, times = zip(*self.noted[SKIPPED:], strict=True)
        return 1e3 * statistics.median(ages), 1e3 * (times[-1] - times[0]) / (len(times) - 1)


@contextmanager
def by_executor(node: Node, arrivals: Arrivals) -> Iterator[None]:
    """The usual way."""

    def on_image(image: Image) -> None:
        arrivals.note(image.header.stamp.sec * 10**9 + image.header.stamp.nanosec)

    subscription = node.create_subscription(Image, TOPIC, on_image, IMAGE.qos)
    executor, stop = SingleThreadedExecutor(), Event()
    executor.add_node(node)

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.2)

    thread = Thread(target=spin)
    thread.start()
    yield
    stop.set()
    thread.join()
    executor.remove_node(node)
    executor.shutdown()
    node.destroy_subscription(subscription)


@contextmanager
def beside_it(node: Node, arrivals: Arrivals) -> Iterator[None]:
    """The detector's way."""

    def on_image(index: int, message: bytes, info: Any) -> None:
        arrivals.note(read_stamp(message))

    subscription = subscribe_for_receiver(node, Image, TOPIC, IMAGE.qos)
    receiver = Receiver(node.context, [subscription], on_image, print)
    yield
    receiver.close()
    node.destroy_subscription(subscription)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=60.0, help="of the camera, Hz (%(default)s)")
    parser.add_argument("--turns", type=int, default=6, help="of each way (%(default)s)")
    args = parser.parse_args()
    # So that glibc keeps memory of a picture's size, as it does once models were loaded and freed.
    large = bytearray(30 << 20)
    del large
    os.environ.update(choose_network())
    rclpy.init()
    node = Node("receiving")
    ways = {"by the executor": by_executor, "beside it, as bytes": beside_it}
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    environment = dict(os.environ)
    environment |= camera_environment(environment)
    with tempfile.TemporaryDirectory() as logs:
        camera = node_process("benchmark_camera", {"rate": args.rate}, Path(logs), environment)
        with camera:
            for _ in range(args.turns):
                for name, way in ways.items():
                    arrivals = Arrivals()
                    with way(node, arrivals):
                        end = time.monotonic() + TURN
                        while len(arrivals.noted) <= SKIPPED or time.monotonic() < end:
                            time.sleep(0.05)
                    figures[name].append(arrivals.figures())
    print(f"{'':<22}{'age':>8}{'thread':>8}")
    for name, rows in figures.items():
        age, thread = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:<22}{age:8.2f}{thread:8.2f}")
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()

"""Whether pictures still come once another subscriber of the same camera stands still.

A camera sends pictures reliably and keeps ten, the defaults of ROS 2. One process hears them over
best effort, as the detector does. Another one, reliable, stops itself at its first picture, as
Ctrl-Z or a debugger stops a viewer; then it is killed; then the camera is started anew. Prints how
many of the camera's pictures come in each of these times. Needs ROS 2.

    python benchmarks/standing_subscriber.py [--rate 30] [--seconds 10]
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from multiprocessing import get_context
from multiprocessing.process import BaseProcess

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage

from mbnet_perception.nodes.benchmark import camera_environment
from mbnet_perception.nodes.endpoints import COMPRESSED_IMAGE
from mbnet_perception.nodes.processes import choose_network

TOPIC = "image_raw/compressed"
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
SIZES = (3_000, 30_000, 60_000)  # bytes
STARTING = 20.0  # seconds


def send_pictures(rate: float, size: int, roomy: bool) -> None:
    """Be the camera, with config/fastdds.xml if roomy."""
    if roomy:
        os.environ.update(camera_environment(os.environ))
    rclpy.init()
    publisher = Node("camera").create_publisher(CompressedImage, TOPIC, RELIABLE)
    picture = CompressedImage(format="jpeg", data=bytes(size))
    while True:
        publisher.publish(picture)
        time.sleep(1 / rate)


def stop_at_first_picture() -> None:
    """Be the viewer that stands still."""
    rclpy.init()
    node = Node("viewer")
    node.create_subscription(
        CompressedImage, TOPIC, lambda _: os.kill(os.getpid(), signal.SIGSTOP), RELIABLE
    )
    rclpy.spin(node)


def count_pictures(rate: float, size: int, seconds: float, roomy: bool) -> list[int]:
    """How many come within so many seconds: with the viewer stopped, killed, and a new camera.

    Raises:
        RuntimeError: If a camera's pictures do not come at first.
    """
    processes = get_context("spawn")
    started: list[BaseProcess] = []
    node, executor = Node("listener"), SingleThreadedExecutor()
    executor.add_node(node)
    heard: list[CompressedImage] = []
    node.create_subscription(CompressedImage, TOPIC, heard.append, COMPRESSED_IMAGE.qos)

    def start_camera() -> BaseProcess:
        camera = processes.Process(target=send_pictures, args=(rate, size, roomy))
        camera.start()
        started.append(camera)
        heard.clear()
        end = time.monotonic() + STARTING
        while not heard:
            if time.monotonic() > end:
                raise RuntimeError(f"no picture came within {STARTING:g} s")
            executor.spin_once(timeout_sec=0.1)
        return camera

    def listen() -> int:
        before, end = len(heard), time.monotonic() + seconds
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=0.1)
        return len(heard) - before

    try:
        camera = start_camera()
        viewer = processes.Process(target=stop_at_first_picture)
        viewer.start()
        started.append(viewer)
        os.waitpid(viewer.pid or 0, os.WUNTRACED)
        counts = [listen()]
        viewer.kill()
        counts.append(listen())
        camera.kill()
        camera.join()
        start_camera()
        counts.append(listen())
    finally:
        for process in started:
            process.kill()
            process.join()
        executor.shutdown()
        node.destroy_node()
    return counts


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=30.0, help="of the camera, Hz (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each time (%(default)s)")
    args = parser.parse_args()
    os.environ.update(choose_network())
    rclpy.init()
    print(f"pictures in {args.seconds:g} s at {args.rate:g} Hz")
    print(f"{'bytes':>8}  {'camera':<20}{'stopped':>8}{'killed':>8}{'anew':>8}")
    for roomy in (False, True):
        for size in SIZES:
            counts = count_pictures(args.rate, size, args.seconds, roomy)
            camera = "config/fastdds.xml" if roomy else "as it comes"
            print(f"{size:8}  {camera:<20}" + "".join(f"{count:8}" for count in counts), flush=True)
    rclpy.shutdown()


if __name__ == "__main__":
    main()

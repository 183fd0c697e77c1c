"""What it costs to publish detections: as a message of rclpy's, and as bytes.

Publishes the same detections each way in turns, to a subscriber in another process. Prints
microseconds (median) of making and of publishing it: in a loop, and right behind the detector as in
the node, where the network has emptied the processor's caches. Needs ROS 2.

    python benchmarks/detections_message.py [--objects 16] [--models FOLDER] [--alpha 0.5]
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.publisher import Publisher
from rclpy.serialization import deserialize_message
from vision_msgs.msg import Detection2DArray

from mbnet_perception.core.detections import Detections, Selection
from mbnet_perception.core.images import Picture
from mbnet_perception.inference.benchmark import SIZE, drive_pictures
from mbnet_perception.inference.engine import load_detector
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint
from mbnet_perception.nodes.cdr import ImageHeader, detections_bytes
from mbnet_perception.nodes.endpoints import DETECTIONS
from mbnet_perception.nodes.messages import detections_message, header_message

TOPIC = "benchmark/detections"
TURNS = 300
WARMING = 10
HEADER = ImageHeader(1_700_000_000, 0, "camera_optical_frame")


def listen() -> None:
    """Receive and forget, until told to end."""
    rclpy.init()
    node = rclpy.create_node("detections_listener")
    node.create_subscription(Detection2DArray, TOPIC, lambda _: None, DETECTIONS.qos)
    with suppress(ExternalShutdownException):
        rclpy.spin(node)


def measure(
    publisher: Publisher, ways: dict[str, Callable[[], Any]], before: Callable[[], object]
) -> dict[str, tuple[float, float]]:
    """Median microseconds of making and of publishing, by way; something runs before each turn."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(WARMING + TURNS):
        for name, make in ways.items():
            before()
            started = time.perf_counter()
            made = make()
            middle = time.perf_counter()
            publisher.publish(made)
            seconds[name].append((middle - started, time.perf_counter() - middle))
    return {
        name: (
            1e6 * statistics.median(making for making, _ in rows[WARMING:]),
            1e6 * statistics.median(publishing for _, publishing in rows[WARMING:]),
        )
        for name, rows in seconds.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=16, help="in a message (%(default)s)")
    parser.add_argument("--models", type=Path, help="folder with the model (the installed one)")
    parser.add_argument(
        "--alpha", type=float, default=OperatingPoint.alpha, help="of the model (%(default)s)"
    )
    args = parser.parse_args()
    detector = load_detector(ModelLibrary(args.models), OperatingPoint(alpha=args.alpha), 0)
    picture, selection = Picture.of_bgr(drive_pictures()[0]), Selection()
    random = np.random.default_rng(0)
    corners = np.sort(random.uniform(0, SIZE[1], (args.objects, 2, 2)), axis=1)
    found = Detections(
        corners.reshape(-1, 4).astype(np.float32),
        random.random(args.objects, np.float32),
        random.integers(0, len(detector.classes), args.objects),
    )
    ways: dict[str, Callable[[], Any]] = {
        "message": lambda: detections_message(found, detector.classes, header_message(HEADER)),
        "bytes": lambda: detections_bytes(found, detector.classes, HEADER),
    }
    assert deserialize_message(ways["bytes"](), Detection2DArray) == ways["message"]()

    listener = multiprocessing.get_context("spawn").Process(target=listen, daemon=True)
    listener.start()
    rclpy.init()
    node = rclpy.create_node("detections_benchmark")
    publisher = node.create_publisher(Detection2DArray, TOPIC, DETECTIONS.qos)
    try:
        while not publisher.get_subscription_count():
            time.sleep(0.1)
        print(f"{args.objects} objects, {len(ways['bytes']())} bytes; in us")
        print(f"{'':<20}{'':<10}{'made':>10}{'published':>10}{'together':>10}")
        paces: dict[str, Callable[[], object]] = {
            "in a loop": lambda: None,
            "behind the network": lambda: detector.detect(picture, selection),
        }
        for pace, before in paces.items():
            for name, (made, published) in measure(publisher, ways, before).items():
                together = made + published
                print(f"{pace:<20}{name:<10}{made:10.0f}{published:10.0f}{together:10.0f}")
    finally:
        listener.terminate()
        listener.join()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()

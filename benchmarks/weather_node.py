"""Whether the weather node keeps up with a camera of 640x480 at 30 Hz on one core.

First its own work, from message to message: pictures in a second of one core's time for each
condition at severity 3, of raw images and of JPEGs. Then the node as a process of its own between
the replay of a bag and a listener, for some seconds each: how many of the pictures arrived in how
many seconds, their age from stamp to arrival, and the cores that the node used. One or two are
still under way when the replay is ended.

    python benchmarks/weather_node.py [--bag test/data/sample_drive] [--pictures 60] [--seconds 6]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import rclpy
from builtin_interfaces.msg import Time
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image

from mbnet_perception.core.latency import percentile
from mbnet_perception.core.weather import CONDITIONS
from mbnet_perception.evaluation import bags
from mbnet_perception.nodes.processes import choose_network, node_process
from mbnet_perception.nodes.weather import WeatherNode

PROJECT = Path(__file__).resolve().parents[1]
CAMERA = bags.IMAGE_TOPIC.removesuffix("/compressed")
RATE = 30.0
WARM_UP = 5
PROFILE = str(PROJECT / "config" / "fastdds.xml")
ROOM = {"FASTRTPS_DEFAULT_PROFILES_FILE": PROFILE, "FASTDDS_DEFAULT_PROFILES_FILE": PROFILE}
TRANSPORTS = {"raw": Image, "compressed": CompressedImage}


def recorded(bag: Path, kind: type, number: int = 20) -> list[bytes]:
    """The first pictures of a bag, serialised as raw images or as they are."""
    found = []
    with bags.Bag(bag) as opened:
        for message in opened.messages([bags.IMAGE_TOPIC]):
            data = message.data
            if kind is Image:
                image = bags.decode(data, message.type)
                data = bags.raw_image(cv2.imdecode(image.data, cv2.IMREAD_COLOR), image.header)
            found.append(data)
            if len(found) == number:
                break
    return found


def own_rate(messages: list[bytes], kind: type, transport: str, weather: str, times: int) -> float:
    """Pictures in a second of this core's time, from bytes to bytes."""
    arguments = ["-p", f"camera_topics:=[{CAMERA}]", "-p", f"image_transport:={transport}"]
    rclpy.init(args=["--ros-args", *arguments, "-p", f"condition:={weather}"])
    node = WeatherNode()
    (camera,) = node._cameras
    camera._publisher = type("Sink", (), {"publish": staticmethod(serialize_message)})
    seconds = []
    for number in range(WARM_UP + times):
        start = time.process_time()
        message = deserialize_message(messages[number % len(messages)], kind)
        sec, nanosec = divmod(10**18 + number * round(1e9 / RATE), 10**9)
        message.header.stamp = Time(sec=sec, nanosec=nanosec)
        camera._on_image(message)
        seconds.append(time.process_time() - start)
    assert camera.sent == WARM_UP + times, camera.last_error
    node.destroy_node()
    rclpy.shutdown()
    return 1 / statistics.median(seconds[WARM_UP:])


def cores_used(process: int) -> float:
    """Seconds of processor time of a process so far."""
    words = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def live(bag: Path, kind: type, transport: str, weather: str, seconds: float) -> str:
    """Run replay and weather node for a while; what arrived here, in words."""
    suffix = "" if transport == "raw" else "/compressed"
    topics = {"camera_topics": [CAMERA], "image_transport": transport, "condition": weather}
    reliable = {f"qos_overrides.{CAMERA}{suffix}.subscription.reliability": "reliable"}
    replay = {"bag": str(bag), "topics": [bags.IMAGE_TOPIC], "fps": RATE, "loop": True}
    replay |= {"raw": transport == "raw", "wait_for_subscribers": 30}
    ages: list[float] = []
    rclpy.init()
    listener = Node("listener")
    listener.create_subscription(
        kind,
        f"/weather{CAMERA}{suffix}",
        lambda data: ages.append((time.time_ns() - bags.stamp(data)) / 1e6),
        100,
        raw=True,
    )
    executor = SingleThreadedExecutor()
    executor.add_node(listener)

    def spin(limit: float) -> None:
        end = time.monotonic() + limit
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=0.05)

    environment = dict(os.environ) | ROOM
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        with node_process("weather", topics | reliable, output, environment) as node:
            with node_process("replay", replay, output, environment):
                while not ages:
                    executor.spin_once(timeout_sec=0.05)
                before = cores_used(node.pid)
                spin(seconds)
                cores = (cores_used(node.pid) - before) / seconds
            spin(0.5)
        sent = int((output / "replay.log").read_text().split("replayed ")[1].split()[0])
    executor.shutdown()
    listener.destroy_node()
    rclpy.shutdown()
    ranks = "   ".join(f"p{rank} {percentile(ages, rank):5.1f} ms" for rank in (50, 90, 99))
    return f"{len(ages):4} of {sent:4} in {seconds:g} s   {ranks}   {cores:.2f} cores"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bag", type=Path, default=PROJECT / "test" / "data" / "sample_drive")
    parser.add_argument("--pictures", type=int, default=60, help="of each kind (%(default)s)")
    parser.add_argument("--seconds", type=float, default=6, help="of each kind (%(default)s)")
    args = parser.parse_args()
    os.environ.update(choose_network())
    cv2.setNumThreads(1)
    pictures = {transport: recorded(args.bag, kind) for transport, kind in TRANSPORTS.items()}
    print(f"{'pictures/s of a core':<22}" + "".join(f"{transport:>14}" for transport in TRANSPORTS))
    for weather in CONDITIONS:
        rates = [
            own_rate(pictures[transport], kind, transport, weather, args.pictures)
            for transport, kind in TRANSPORTS.items()
        ]
        print(f"{weather:<22}" + "".join(f"{rate:14.0f}" for rate in rates), flush=True)
    for transport, kind in TRANSPORTS.items():
        for weather in CONDITIONS:
            if args.seconds:
                words = live(args.bag, kind, transport, weather, args.seconds)
                print(f"{transport:<12}{weather:<12}{words}", flush=True)


if __name__ == "__main__":
    main()

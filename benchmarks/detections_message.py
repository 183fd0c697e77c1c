"""What a detections message costs: made anew, filled into the parts of the last one, serialised.

Needs ROS 2. Run: python benchmarks/detections_message.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from rclpy.serialization import serialize_message
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D

from mbnet_perception.core.detections import Detections
from mbnet_perception.nodes.messages import detections_message

OBJECTS = 16
REPEATS = 500
NAMES = ("person", "car", "truck")


def measure(run: Callable[[], object]) -> float:
    """Median microseconds of a call."""
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return 1e6 * statistics.median(seconds)


def main() -> None:
    """Print the three figures."""
    random = np.random.default_rng(0)
    corners = np.sort(random.uniform(0, 640, (OBJECTS, 2, 2)), axis=1)
    found = Detections(
        corners.reshape(OBJECTS, 4).astype(np.float32),
        random.random(OBJECTS, np.float32),
        random.integers(0, len(NAMES), OBJECTS),
    )
    header = Header(frame_id="camera")
    parts: list[Detection2D] = []
    message = detections_message(found, NAMES, header)
    assert detections_message(found, NAMES, header, parts) == message
    anew = measure(lambda: detections_message(found, NAMES, header))
    again = measure(lambda: detections_message(found, NAMES, header, parts))
    print(f"{OBJECTS} objects")
    print(f"made anew      {anew:6.1f} us")
    print(f"parts reused   {again:6.1f} us   {anew / again:.1f} times as fast")
    print(f"serialised     {measure(lambda: serialize_message(message)):6.1f} us")


if __name__ == "__main__":
    main()

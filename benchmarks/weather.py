"""How many pictures a second each weather takes on one core.

Prints for each condition the pictures in a second of processor time, with one thread: at 416x312
with a fresh seed for each picture, as in training, and with one seed and running frames, as for a
video, severity 1 to 5 in turn; and at 640x480 and severity 3 with running frames, as in a live
node. Aims: 100 at 416x312, 30 at 640x480.

    python benchmarks/weather.py [--pictures 100]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core.scene import DrivingScene
from mbnet_perception.core.weather import CONDITIONS, SEVERITIES, apply_weather

TRAINING_SIZE = (416, 312)
NODE_SIZE = (640, 480)
WARM_UP = 5


def scenes(size: tuple[int, int], count: int) -> list[NDArray[np.uint8]]:
    """RGB pictures of synthetic drives."""
    drives = [DrivingScene(seed, size) for seed in range(count)]
    return [np.ascontiguousarray(drive.render(2.0)[0][..., ::-1]) for drive in drives]


def rate(task: Callable[[int], object], pictures: int) -> float:
    """Pictures a second, from the median time of one."""
    seconds = []
    for number in range(WARM_UP + pictures):
        start = time.process_time()
        task(number)
        seconds.append(time.process_time() - start)
    return 1 / statistics.median(seconds[WARM_UP:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=100, help="of each kind (%(default)s)")
    pictures = parser.parse_args().pictures
    cv2.setNumThreads(1)
    small, large = scenes(TRAINING_SIZE, 8), scenes(NODE_SIZE, 2)
    print(f"{'pictures/s':<12}{'416x312':>16}{'416x312':>16}{'640x480':>16}")
    print(f"{'':<12}{'fresh seeds':>16}{'one seed':>16}{'one seed, 3':>16}")
    for condition in CONDITIONS[1:]:

        def fresh(number: int, condition: str = condition) -> None:
            severity = SEVERITIES[number % len(SEVERITIES)]
            apply_weather(small[number % len(small)], condition, severity, number)

        def video(number: int, condition: str = condition) -> None:
            severity = SEVERITIES[number % len(SEVERITIES)]
            apply_weather(small[number % len(small)], condition, severity, 0, number)

        def node(number: int, condition: str = condition) -> None:
            apply_weather(large[number % len(large)], condition, 3, 0, number, 30.0)

        rates = [rate(task, pictures) for task in (fresh, video, node)]
        print(f"{condition:<12}" + "".join(f"{value:>16.0f}" for value in rates))


if __name__ == "__main__":
    main()

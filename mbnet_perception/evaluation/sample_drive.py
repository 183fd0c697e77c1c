"""A bag of a synthetic drive, with the truth about every picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mbnet_perception.core.scene import DrivingScene
from mbnet_perception.evaluation.bags import START, CameraBagWriter

SEED = 58
"""A city street with cars, buses, people, traffic lights and signs."""

JPEG_QUALITY = 75  # at 640x480 about 30 kB a picture, with the sensor noise of most scenes


def write_drive(
    path: Path | str,
    seconds: float = 10.0,
    rate: float = 15.0,
    size: tuple[int, int] = (640, 480),
    seed: int = SEED,
) -> int:
    """Write an MCAP bag of a drive through a `DrivingScene`: images, CameraInfo, ground truth.

    Args:
        path: Folder to make; it must not exist.
        seconds: Length of the drive.
        rate: Pictures a second.
        size: Width and height in pixels.
        seed: Of the scene; with the other arguments it decides the bag's content.

    Returns:
        The number of pictures.

    Raises:
        BagError: If the folder exists or cannot be made.
        ValueError: If seconds or rate is not positive, or seed or size is not a scene's.
    """
    pictures = round(seconds * rate)
    if seconds <= 0 or rate <= 0 or not pictures:
        raise ValueError(
            f"seconds and rate must be positive and give at least one picture, "
            f"got seconds {seconds}, rate {rate}"
        )
    scene = DrivingScene(seed, size)
    camera = scene.camera
    intrinsics = np.array(
        [[camera.focal, 0, camera.centre], [0, camera.focal, camera.horizon], [0, 0, 1]], float
    )
    with CameraBagWriter(path, intrinsics) as bag:
        for number in range(pictures):
            picture, boxes, names = scene.render(number / rate)
            done, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            assert done
            time = START + round(number * 10**9 / rate)
            bag.add(time, np.asarray(encoded, np.uint8), "jpeg", size, boxes, names)
    return pictures

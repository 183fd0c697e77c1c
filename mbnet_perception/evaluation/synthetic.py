"""Pictures of synthetic driving scenes with their labels, as COCO JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mbnet_perception.core.scene import CLASSES, DrivingScene

PICTURES_PER_SCENE = 6
SECONDS = 20.0


def write_pictures(
    folder: Path, pictures: int, size: tuple[int, int] = (320, 240), seed: int = 0
) -> Path:
    """Draw scenes and label every object in them.

    Args:
        folder: Gets ``images/*.jpg`` and ``labels.json``; made if missing.
        pictures: How many; six moments of each scene.
        size: Width and height in pixels.
        seed: Of the scenes and the moments.

    Returns:
        The label file.

    Raises:
        ValueError: If pictures is not positive, or size or seed is not a scene's.
    """
    if pictures < 1:
        raise ValueError(f"pictures must be positive, got {pictures}")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(pictures):
        if number % PICTURES_PER_SCENE == 0:
            scene_seed = int(rng.integers(2**31))
            scene = DrivingScene(scene_seed, size)
        picture, boxes, names = scene.render(float(rng.uniform(0, SECONDS)))
        name = f"images/{number:06d}.jpg"
        cv2.imwrite(str(folder / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
        images.append(
            {
                "id": number,
                "file_name": name,
                "width": size[0],
                "height": size[1],
                "source": "synthetic",
                "scene_group": f"synthetic-{scene_seed}",
            }
        )
        for (x1, y1, x2, y2), label in zip(boxes.tolist(), names, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": CLASSES.index(label) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)]
    labels = folder / "labels.json"
    labels.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories}),
        encoding="utf-8",
    )
    return labels

"""ROS messages from what the detector works with, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Time
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import (
    BoundingBox2D,
    Detection2D,
    Detection2DArray,
    LabelInfo,
    ObjectHypothesisWithPose,
    VisionClass,
)

from mbnet_perception.core.detections import Detections
from mbnet_perception.core.images import bgr_from_compressed, bgr_from_raw


def bgr_from_message(message: Image | CompressedImage) -> NDArray[np.uint8]:
    """Picture of an image message, (H, W, 3) uint8 BGR; a view of its data where possible.

    Raises:
        ImageFormatError: If the message holds no usable picture.
    """
    if isinstance(message, CompressedImage):
        return bgr_from_compressed(message.data, message.format)
    return bgr_from_raw(message.data, message.height, message.width, message.encoding, message.step)


def detections_message(
    detections: Detections, class_names: Sequence[str], header: Header
) -> Detection2DArray:
    """Detections under the header of their image, boxes in its pixels, classes by name."""
    array = Detection2DArray(header=header)
    for box, score, index in zip(
        detections.boxes.tolist(),
        detections.scores.tolist(),
        detections.classes.tolist(),
        strict=True,
    ):
        left, top, right, bottom = box
        bbox = BoundingBox2D(size_x=right - left, size_y=bottom - top)
        bbox.center.position.x = (left + right) / 2
        bbox.center.position.y = (top + bottom) / 2
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id = class_names[index]
        result.hypothesis.score = score
        array.detections.append(Detection2D(header=header, results=[result], bbox=bbox))
    return array


def label_message(class_names: Sequence[str], score_threshold: float, stamp: Time) -> LabelInfo:
    """What a detector can report, and from which score; numbers are the model's own order."""
    class_map = [VisionClass(class_id=i, class_name=name) for i, name in enumerate(class_names)]
    return LabelInfo(header=Header(stamp=stamp), class_map=class_map, threshold=score_threshold)

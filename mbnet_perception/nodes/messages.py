"""ROS messages from what the detector works with, and back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from array import array
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import (
    Detection2D,
    Detection2DArray,
    LabelInfo,
    ObjectHypothesisWithPose,
    VisionClass,
)

from mbnet_perception.core.detections import Detections
from mbnet_perception.core.images import (
    ENCODINGS,
    ImageFormatError,
    Picture,
    picture_from_compressed,
    picture_from_raw,
    rows_of,
)
from mbnet_perception.nodes.cdr import CompressedImageView, ImageHeader, ImageView

# Names in sensor_msgs/image_encodings.hpp have up to 12 characters. cv_bridge matches them with a
# std::regex, whose depth of recursion, and so the stack, grows with the name.
LONGEST_ENCODING = 32
# 16UC1 and the like: depth or labels, not light.
NO_COLOURS = re.compile(r"\d+[USF](C\d+)?")
WAY_OUT = f"the camera may send {', '.join(ENCODINGS)}"

TRIAL = """
from array import array
from cv_bridge import CvBridge
from sensor_msgs.msg import Image
grey = Image(height=2, width=2, encoding="mono16", step=4, data=array("B", bytes(8)))
CvBridge().imgmsg_to_cv2(grey, "bgr8")
"""


def picture_from_message(
    message: Image | CompressedImage | ImageView | CompressedImageView, long_side: int = 0
) -> Picture:
    """Picture of an image message; a view of its data where possible.

    Encodings that :func:`picture_from_raw` does not read go through cv_bridge, where it is there.

    Args:
        message: As it came.
        long_side: What a JPEG's long side may be reduced to; see :func:`picture_from_compressed`.

    Raises:
        ImageFormatError: If the message holds no usable picture.
    """
    if isinstance(message, CompressedImage | CompressedImageView):
        return picture_from_compressed(message.data, message.format, long_side)
    if message.encoding in ENCODINGS:
        return picture_from_raw(
            message.data, message.height, message.width, message.encoding, message.step
        )
    return _picture_through_cv_bridge(message)


def _picture_through_cv_bridge(message: Image | ImageView) -> Picture:
    encoding = message.encoding
    if not encoding or len(encoding) > LONGEST_ENCODING:
        raise ImageFormatError(
            f"encoding {encoding[:LONGEST_ENCODING]!r} is none of sensor_msgs/image_encodings.hpp"
        )
    if NO_COLOURS.fullmatch(encoding):
        raise ImageFormatError(
            f"encoding {encoding!r} says nothing of colours, as of a depth image; {WAY_OUT}"
        )
    bridge = _cv_bridge()
    if isinstance(bridge, str):
        raise ImageFormatError(f"encoding {encoding!r} needs cv_bridge: {bridge}; {WAY_OUT}")
    try:
        depth, channels = bridge.encoding_to_dtype_with_channels(encoding)
    except Exception as error:
        raise ImageFormatError(
            f"encoding {encoding!r} is unknown to cv_bridge ({error}); {WAY_OUT}"
        ) from error
    # All is checked here, as the compiled part of cv_bridge does not. It is given rows without
    # padding and in this machine's byte order: it takes a step for whole pixels, so that other
    # padding skews the picture, and swapping bytes fails with NumPy 2.
    value = np.dtype(depth)
    height, width = message.height, message.width
    rows = rows_of(message.data, height, width, encoding, message.step, value.itemsize * channels)
    if bool(message.is_bigendian) != (sys.byteorder == "big"):
        rows = np.ascontiguousarray(rows).view(value).byteswap().view(np.uint8)
    whole = Image(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=sys.byteorder == "big",
        step=rows.shape[1],
        data=array("B", rows.tobytes()),
    )
    try:
        bgr = np.asarray(bridge.imgmsg_to_cv2(whole, "bgr8"))
    except Exception as error:
        raise ImageFormatError(
            f"cv_bridge cannot turn encoding {encoding!r} into bgr8 ({error}); {WAY_OUT}"
        ) from error
    if bgr.shape != (height, width, 3) or bgr.dtype != np.uint8:
        raise ImageFormatError(
            f"cv_bridge must turn encoding {encoding!r} into uint8 {(height, width, 3)}, "
            f"got {bgr.dtype} {bgr.shape}"
        )
    return Picture.of_bgr(bgr)


@cache
def _cv_bridge() -> Any:
    """A CvBridge, or in words why there is none.

    One that was built for another NumPy takes the process with it when it converts. So the first
    conversion happens in another process, which takes a second, once.
    """
    if find_spec("cv_bridge") is None:
        return "not installed here; `sudo apt install ros-$ROS_DISTRO-cv-bridge`"
    try:
        trial = subprocess.run(
            [sys.executable, "-c", TRIAL],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        if trial.returncode < 0:
            return (
                f"it crashes with signal {-trial.returncode}, as one does that was built for "
                f"another NumPy than {np.__version__}, which is here"
            )
        if trial.returncode:
            return f"it fails: {trial.stderr.strip()[-200:]}"
        from cv_bridge import CvBridge

        return CvBridge()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def detections_message(
    detections: Detections, class_names: Sequence[str], header: Header
) -> Detection2DArray:
    """What `cdr.detections_bytes` writes several times as fast, which is held against this.

    Args:
        detections: What was seen.
        class_names: The model's, which `detections.classes` counts.
        header: Of the image.
    """
    message = Detection2DArray(header=header)
    for box, score, index in zip(
        detections.boxes.tolist(),
        detections.scores.tolist(),
        detections.classes.tolist(),
        strict=True,
    ):
        left, top, right, bottom = box
        part = Detection2D(header=header, results=[ObjectHypothesisWithPose()])
        hypothesis, bbox = part.results[0].hypothesis, part.bbox
        hypothesis.class_id, hypothesis.score = class_names[index], score
        bbox.size_x, bbox.size_y = right - left, bottom - top
        bbox.center.position.x, bbox.center.position.y = (left + right) / 2, (top + bottom) / 2
        message.detections.append(part)
    return message


def header_message(header: ImageHeader) -> Header:
    """The same as a message."""
    return Header(stamp=Time(sec=header.sec, nanosec=header.nanosec), frame_id=header.frame_id)


def label_message(class_names: Sequence[str], score_threshold: float, stamp: Time) -> LabelInfo:
    """What a detector can report, and from which score; numbers are the model's own order."""
    class_map = [VisionClass(class_id=i, class_name=name) for i, name in enumerate(class_names)]
    return LabelInfo(header=Header(stamp=stamp), class_map=class_map, threshold=score_threshold)

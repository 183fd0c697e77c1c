from array import array

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from mbnet_perception.core.detections import Detections
from mbnet_perception.core.images import ImageFormatError
from mbnet_perception.nodes.messages import bgr_from_message, detections_message, label_message

HEADER = Header(stamp=Time(sec=12, nanosec=345), frame_id="camera_optical_frame")


def detections(boxes, scores, classes):
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(classes, np.int64),
    )


def test_detections_become_middle_and_sides_with_the_class_by_name():
    found = detections([[10, 20, 50, 100], [0, 0, 3, 1]], [0.75, 0.5], [2, 0])
    message = detections_message(found, ("person", "bicycle", "car"), HEADER)
    assert message.header == HEADER
    assert [d.header for d in message.detections] == [HEADER, HEADER]
    first, second = message.detections
    assert (first.bbox.center.position.x, first.bbox.center.position.y) == (30, 60)
    assert (first.bbox.size_x, first.bbox.size_y, first.bbox.center.theta) == (40, 80, 0)
    assert [(r.hypothesis.class_id, r.hypothesis.score) for r in first.results] == [("car", 0.75)]
    assert (second.bbox.center.position.x, second.bbox.center.position.y) == (1.5, 0.5)
    assert second.results[0].hypothesis.class_id == "person"
    assert first.id == ""


def test_nothing_found_is_an_empty_array():
    message = detections_message(detections([], [], []), ("person",), HEADER)
    assert message.header == HEADER
    assert list(message.detections) == []


def test_labels_number_the_classes_in_the_models_order():
    message = label_message(("person", "car"), 0.25, HEADER.stamp)
    assert [(c.class_id, c.class_name) for c in message.class_map] == [(0, "person"), (1, "car")]
    assert message.threshold == 0.25
    assert message.header.stamp == HEADER.stamp


def test_raw_image_is_read_without_a_copy():
    message = Image(height=1, width=2, encoding="bgr8", step=6, data=array("B", [1, 2, 3, 4, 5, 6]))
    bgr = bgr_from_message(message)
    np.testing.assert_array_equal(bgr, [[[1, 2, 3], [4, 5, 6]]])
    message.data[0] = 99
    assert bgr[0, 0, 0] == 99


def test_compressed_image_names_the_format_it_cannot_read():
    with pytest.raises(ImageFormatError, match="format 'h264'"):
        bgr_from_message(CompressedImage(format="h264", data=array("B", b"\0\0\0\1")))

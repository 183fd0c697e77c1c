import sys
from array import array

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from mbnet_perception.core.detections import Detections
from mbnet_perception.core.images import ImageFormatError
from mbnet_perception.nodes import messages
from mbnet_perception.nodes.messages import (
    detections_message,
    label_message,
    picture_from_message,
)

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
    picture = picture_from_message(message)
    np.testing.assert_array_equal(picture.bgr(), [[[1, 2, 3], [4, 5, 6]]])
    message.data[0] = 99
    assert picture.bgr()[0, 0, 0] == 99


def test_compressed_image_is_reduced_as_far_as_told():
    content = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    message = CompressedImage(format="jpeg", data=array("B", content))
    assert picture_from_message(message).pixels.shape == (48, 64, 3)
    picture = picture_from_message(message, long_side=32)
    assert (picture.height, picture.width, *picture.pixels.shape) == (48, 64, 24, 32, 3)


def test_compressed_image_names_the_format_it_cannot_read():
    with pytest.raises(ImageFormatError, match="format 'h264'"):
        picture_from_message(CompressedImage(format="h264", data=array("B", b"\0\0\0\1")))


def image_of(pixels, encoding, padding=0, big=sys.byteorder == "big"):
    """An Image of (H, W) or (H, W, C) numbers, in this order of bytes."""
    pixels = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<"))
    rows = np.frombuffer(pixels.tobytes(), np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return Image(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=big,
        step=rows.shape[1],
        data=array("B", rows.tobytes()),
    )


@pytest.fixture
def found_anew():
    """Whether cv_bridge is there is found out once; here, in this test and again after it."""
    messages._cv_bridge.cache_clear()
    yield
    messages._cv_bridge.cache_clear()


@pytest.mark.parametrize("encoding", ["bayer_rggb8", "rgb16", "nv24", "mono16"])
def test_without_cv_bridge_the_encoding_and_the_package_are_named(
    monkeypatch, found_anew, encoding
):
    monkeypatch.setitem(sys.modules, "cv_bridge", None)  # importing it fails
    image = image_of(np.zeros((4, 6), np.uint8), encoding)
    with pytest.raises(
        ImageFormatError,
        match=rf"'{encoding}' needs cv_bridge: not installed.* "
        r"`sudo apt install ros-\$ROS_DISTRO-cv-bridge`; the camera may send bgr8, .*yuyv",
    ):
        picture_from_message(image)


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        pytest.param("16UC1", "'16UC1' says nothing of colours, as of a depth image", id="depth"),
        pytest.param("32FC1", "'32FC1' says nothing of colours", id="float"),
        pytest.param("64F", "'64F' says nothing of colours", id="no channels"),
        pytest.param("", "'' is none of sensor_msgs/image_encodings.hpp", id="empty"),
        # cv_bridge's own std::regex overflows the stack at some 100 000 characters.
        pytest.param("8UC" + "1" * 10**6, "'8UC1{29}' is none of", id="a million characters"),
    ],
)
def test_an_encoding_that_no_camera_has_never_reaches_cv_bridge(monkeypatch, encoding, message):
    monkeypatch.setattr(messages, "_cv_bridge", None)  # calling it fails
    with pytest.raises(ImageFormatError, match=message):
        picture_from_message(image_of(np.zeros((4, 6), np.uint8), encoding))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            f"it crashes with signal 11, .* another NumPy than {np.__version__}",
            id="crashes",
        ),
        pytest.param("raise ImportError('no libboost')", "it fails: .*no libboost", id="fails"),
    ],
)
def test_a_cv_bridge_that_does_not_work_ends_no_node(
    tmp_path, monkeypatch, found_anew, body, message
):
    if "cv_bridge" in sys.modules:
        pytest.skip("the real cv_bridge is imported already")
    (tmp_path / "cv_bridge.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):
        with pytest.raises(ImageFormatError, match=f"(?s)'bayer_rggb8' needs cv_bridge: {message}"):
            picture_from_message(image_of(np.zeros((4, 6), np.uint8), "bayer_rggb8"))


class FakeBridge:
    """A cv_bridge of 16 bit grey alone, that gives back what it is told to."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []

    def encoding_to_dtype_with_channels(self, encoding):
        if encoding != "mono16":
            raise RuntimeError(f"Unrecognized image encoding [{encoding}]")
        return "uint16", 1

    def imgmsg_to_cv2(self, message, desired_encoding):
        self.asked.append((message, desired_encoding))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def bridge(monkeypatch):
    fake = FakeBridge(np.full((2, 3, 3), 7, np.uint8))
    monkeypatch.setattr(messages, "_cv_bridge", lambda: fake)
    return fake


GREY16 = np.array([[1, 256, 3], [4, 5, 65535]], np.uint16)


@pytest.mark.parametrize("padding", [0, 1, 6])
@pytest.mark.parametrize("big", [False, True])
def test_cv_bridge_gets_rows_without_padding_in_this_machines_byte_order(bridge, padding, big):
    picture = picture_from_message(image_of(GREY16, "mono16", padding, big))
    assert (picture.height, picture.width) == (2, 3)
    assert (picture.bgr() == 7).all()
    ((message, desired),) = bridge.asked
    assert desired == "bgr8"
    assert (message.encoding, message.height, message.width, message.step) == ("mono16", 2, 3, 6)
    assert message.is_bigendian == (sys.byteorder == "big")
    np.testing.assert_array_equal(np.frombuffer(message.data, np.uint16).reshape(2, 3), GREY16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"encoding": "nv24"}, "'nv24' is unknown to cv_bridge .*nv24.*", id="unknown"),
        pytest.param({"step": 5}, "step of at least 6 bytes, got 5", id="step too small"),
        pytest.param({"height": 3}, "step 6 x height 3 = 18 bytes of data, got 12", id="too short"),
        pytest.param({"height": 0}, "at least one pixel", id="no rows"),
        pytest.param({"width": 0}, "at least one pixel", id="no columns"),
        pytest.param({"height": 2**31, "width": 2**31}, "at most 33554432 pixels", id="huge"),
        pytest.param({"step": 2**31, "height": 2}, "got 12", id="huge step"),
    ],
)
def test_cv_bridge_never_sees_what_does_not_fit(bridge, changes, message):
    image = image_of(GREY16, "mono16")
    for name, value in changes.items():
        setattr(image, name, value)
    with pytest.raises(ImageFormatError, match=message):
        picture_from_message(image)
    assert not bridge.asked


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param(
            RuntimeError("no way"),
            r"cannot turn encoding 'mono16' into bgr8 \(no way\)",
            id="raises",
        ),
        pytest.param(np.zeros((2, 4, 3), np.uint8), r"got uint8 \(2, 4, 3\)", id="other size"),
        pytest.param(np.zeros((2, 3, 3), np.uint16), r"got uint16 \(2, 3, 3\)", id="other type"),
        pytest.param(None, r"got object \(\)", id="nothing"),
    ],
)
def test_what_cv_bridge_cannot_do_is_a_failed_image(bridge, answer, message):
    bridge.answer = answer
    with pytest.raises(ImageFormatError, match=message):
        picture_from_message(image_of(GREY16, "mono16"))


@pytest.fixture
def real_bridge():
    pytest.importorskip("cv_bridge", reason="cv_bridge is on no package index, only in apt's ROS")


@pytest.mark.parametrize("padding", [0, 1, 4, 6])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("encoding", "channels"),
    [
        ("bgr16", [0, 1, 2]),
        ("rgb16", [2, 1, 0]),
        ("bgra16", [0, 1, 2, 0]),
        ("rgba16", [2, 1, 0, 0]),
    ],
)
def test_sixteen_bits_become_eight(real_bridge, encoding, channels, big, padding):
    bgr = np.random.default_rng(2).integers(0, 256, (5, 7, 3), np.uint8)
    image = image_of(bgr[..., channels].astype(np.uint16) * 257, encoding, padding, big)
    np.testing.assert_array_equal(picture_from_message(image).bgr(), bgr)


def test_grey_of_sixteen_bits_becomes_eight(real_bridge):
    grey = np.random.default_rng(3).integers(0, 256, (5, 7), np.uint8)
    picture = picture_from_message(image_of(grey.astype(np.uint16) * 257, "mono16"))
    np.testing.assert_array_equal(picture.bgr(), np.stack([grey] * 3, -1))


# Which channel of BGR the sensor sees at the upper left, right of it, below, and below right.
BAYER = {
    "rggb": (2, 1, 1, 0),
    "bggr": (0, 1, 1, 2),
    "gbrg": (1, 0, 2, 1),
    "grbg": (1, 2, 0, 1),
}


@pytest.mark.parametrize("pattern", BAYER)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_bayer_picture_gets_its_colours(real_bridge, pattern, bits):
    bgr = np.array([30, 90, 200], np.uint8 if bits == 8 else np.uint16)
    mosaic = np.tile(bgr[list(BAYER[pattern])].reshape(2, 2), (4, 5))
    if bits == 16:
        mosaic *= 257
    picture = picture_from_message(image_of(mosaic, f"bayer_{pattern}{bits}", padding=3))
    np.testing.assert_array_equal(picture.bgr(), np.full((8, 10, 3), (30, 90, 200)))


@pytest.mark.parametrize("encoding", ["nv24", "nonsense", "bayer_", "\u00fc"])
def test_what_cv_bridge_does_not_know_is_named(real_bridge, encoding):
    with pytest.raises(ImageFormatError, match=f"'{encoding}' is unknown to cv_bridge"):
        picture_from_message(image_of(np.zeros((4, 6), np.uint8), encoding))


def test_the_smallest_bayer_pictures_do_not_crash(real_bridge):
    for height in range(1, 5):
        for width in range(1, 5):
            image = image_of(np.full((height, width), 9, np.uint8), "bayer_rggb8")
            assert picture_from_message(image).bgr().shape == (height, width, 3)

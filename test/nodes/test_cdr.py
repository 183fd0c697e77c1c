import struct
from array import array
from types import SimpleNamespace

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from mbnet_perception.core.detections import Detections
from mbnet_perception.core.images import ImageFormatError, picture_from_raw
from mbnet_perception.nodes.cdr import (
    CompressedImageView,
    ImageHeader,
    ImageView,
    detections_bytes,
    read_compressed_image,
    read_image,
    read_stamp,
)
from mbnet_perception.nodes.messages import detections_message

HEADER = ImageHeader(1_700_000_000, 123, "camera_optical_frame")

# rclpy loads the code of a message when one is first made, for longer than hypothesis waits.
relaxed = settings(deadline=None)


def message_header(header):
    return Header(stamp=Time(sec=header.sec, nanosec=header.nanosec), frame_id=header.frame_id)


def found(boxes, scores, classes):
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(classes, np.int64),
    )


# Writing


texts = st.text(max_size=20).map(lambda text: text.replace("\0", ""))  # which ends a string
uint32 = st.integers(0, 2**32 - 1)
headers = st.builds(ImageHeader, st.integers(-(2**31), 2**31 - 1), uint32, texts)
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def arrays_of_detections(draw):
    """Detections, and the class names that they count."""
    names = draw(st.lists(texts, min_size=1, max_size=5).map(tuple))
    one = st.tuples(
        st.tuples(numbers, numbers, numbers, numbers), numbers, st.integers(0, len(names) - 1)
    )
    many = draw(st.lists(one, max_size=6))
    return found(*([row[i] for row in many] for i in range(3))), names


def assert_as_rclpy_writes_it(detections, names, header):
    message = detections_message(detections, names, message_header(header))
    theirs = np.frombuffer(serialize_message(message), np.uint8)
    written = detections_bytes(detections, names, header)
    ours = np.frombuffer(written, np.uint8)
    assert len(ours) == len(theirs)
    # Padding is what happened to be there; as it reads the same, the others are no fields.
    assert not ours[ours != theirs].any()
    assert deserialize_message(written, Detection2DArray) == message


@relaxed
@given(arrays_of_detections(), headers)
def test_detections_are_written_as_rclpy_writes_their_message(detections_and_names, header):
    assert_as_rclpy_writes_it(*detections_and_names, header)


# Of each length up to the next multiple of 8, where what is behind has to be aligned anew.
@pytest.mark.parametrize("name", ["n" * i for i in range(9)] + ["K\u00f6nig", "\U0001f6b2"])
@pytest.mark.parametrize("frame_id", ["f" * i for i in range(9)] + ["\u524d", "\u00fcber"])
def test_names_of_any_length_keep_the_numbers_aligned(frame_id, name):
    detections = found([[0, 1, 2, 4]] * 3, [0.5, 0.25, 1], [1, 0, 1])
    assert_as_rclpy_writes_it(detections, ("car", name), ImageHeader(1, 2, frame_id))


def test_as_many_detections_as_there_may_be():
    chance = np.random.default_rng(0)
    boxes = chance.uniform(0, 640, (300, 4))
    detections = found(boxes, chance.random(300), chance.integers(0, 3, 300))
    assert_as_rclpy_writes_it(detections, ("person", "car", "truck"), HEADER)


def test_bytes_are_those_of_the_specification():
    header = ImageHeader(-2, 7, "cam")
    stamp = "feffffff 07000000"
    frame_id = "04000000 63616d00"
    one = f"{stamp} {frame_id} 01000000"
    car = "04000000 63617200"
    before_w = "00" * 8 * 6
    covariance = "00" * 8 * 36
    theta, empty = "00" * 8, "01000000 00"

    def double(value):
        return struct.pack("<d", value).hex()

    def rest(score, x, y, width, height):
        middle, size = (double(x) + double(y), double(width) + double(height))
        pose = before_w + double(1) + covariance
        return double(score) + pose + middle + theta + size + empty

    # Behind the first four bytes, 20 are before the first detection and 20 in front of its class,
    # whose 8 bytes end at 48, a multiple of 8. The second begins at 448, its class at 468; a score
    # begins at a multiple of 8.
    expected = (
        f"00010000 {stamp} {frame_id} 02000000"
        f"{one} {car} {rest(0.5, 2, 3, 2, 2)} 000000"
        f"{one} {car} 00000000 {rest(0.25, 6, 8, 4, 8)}"
    )
    detections = found([[1, 2, 3, 4], [4, 4, 8, 12]], [0.5, 0.25], [0, 0])
    assert detections_bytes(detections, ("car",), header).hex(" ") == (
        bytes.fromhex(expected).hex(" ")
    )


def test_nothing_found_is_a_header_and_a_count_of_zero():
    written = detections_bytes(found([], [], []), ("car",), ImageHeader(1, 2, ""))
    assert written.hex(" ", -4) == "00010000 01000000 02000000 01000000 00000000 00000000"


def test_detections_are_left_as_they_are_and_the_next_ones_are_new():
    first, second = found([[1, 2, 3, 4]], [0.5], [0]), found([[5, 6, 7, 9]], [0.25], [1])
    names, later = ("car", "person"), ImageHeader(5, 6, "other_camera")
    written = detections_bytes(first, names, HEADER)
    assert detections_bytes(second, names, later) != written
    assert detections_bytes(second, ("person", "car"), HEADER) != written
    assert detections_bytes(first, names, HEADER) == written
    assert first.boxes.tolist() == [[1, 2, 3, 4]]


# Reading


raw_images = st.builds(
    ImageView,
    headers,
    height=uint32,
    width=uint32,
    encoding=texts,
    is_bigendian=st.integers(0, 255),
    step=uint32,
    data=st.binary(max_size=40),
)
compressed_images = st.builds(
    CompressedImageView, headers, format=texts, data=st.binary(max_size=40)
)
READERS = {Image: read_image, CompressedImage: read_compressed_image}


def message_of(image):
    """The fields of an image as rclpy's message."""
    fields = image._asdict() | {
        "header": message_header(image.header),
        "data": array("B", image.data),
    }
    return (Image if isinstance(image, ImageView) else CompressedImage)(**fields)


def view_of(message):
    """The same the other way round."""
    stamp = message.header.stamp
    header = ImageHeader(stamp.sec, stamp.nanosec, message.header.frame_id)
    data = memoryview(message.data)
    if isinstance(message, CompressedImage):
        return CompressedImageView(header, message.format, data)
    size = (message.height, message.width)
    layout = (message.encoding, message.is_bigendian, message.step)
    return ImageView(header, *size, *layout, data)


def big_endian(image):
    """The bytes as the specification has them, in the order that rclpy does not write here."""
    written = bytearray()

    def add(form, *values):
        written.extend(bytes(-len(written) % 4 if form != "B" else 0))
        written.extend(struct.pack(f">{form}", *values))

    def add_text(text):
        content = text.encode() + b"\0"
        add("I", len(content))
        written.extend(content)

    add("iI", image.header.sec, image.header.nanosec)
    add_text(image.header.frame_id)
    if isinstance(image, ImageView):
        add("II", image.height, image.width)
        add_text(image.encoding)
        add("B", image.is_bigendian)
        add("I", image.step)
    else:
        add_text(image.format)
    add("I", len(image.data))
    return b"\0\0\0\0" + bytes(written) + image.data


@relaxed
@given(raw_images | compressed_images, st.integers(0, 9))
def test_an_image_is_read_from_either_order_of_bytes_whatever_is_behind_it(image, padding):
    message = message_of(image)
    read = READERS[type(message)]
    for data in (serialize_message(message), big_endian(image)):
        assert deserialize_message(data, type(message)) == message
        assert read(data) == read(data + bytes(padding)) == image
        assert read_stamp(data) == image.header.stamp
        assert read(data).data.obj is data  # no copy


def test_the_stamp_is_in_nanoseconds():
    assert ImageHeader(2, 5, "").stamp == 2_000_000_005
    assert read_stamp(bytes.fromhex("00010000 02000000 05000000")) == 2_000_000_005
    assert read_stamp(bytes.fromhex("00000000 fffffffe 00000005")) == -1_999_999_995


def test_a_picture_is_a_view_of_the_message():
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    data = serialize_message(
        Image(height=2, width=3, encoding="bgr8", step=9, data=array("B", pixels.tobytes()))
    )
    image = read_image(data)
    picture = picture_from_raw(image.data, image.height, image.width, image.encoding, image.step)
    np.testing.assert_array_equal(picture.bgr(), pixels)
    assert np.shares_memory(picture.pixels, np.frombuffer(data, np.uint8))


RAW = ImageView(ImageHeader(3, 4, "cam"), 1, 2, "bgr8", 0, 6, b"abcdef")
COMPRESSED = CompressedImageView(ImageHeader(3, 4, "cam"), "jpeg", b"abcdef")


@pytest.mark.parametrize("image", [RAW, COMPRESSED], ids=["raw", "compressed"])
@pytest.mark.parametrize("write", [big_endian, lambda image: serialize_message(message_of(image))])
def test_a_message_that_ends_early_is_refused_but_tells_its_stamp(image, write):
    data = write(image)
    read = READERS[type(message_of(image))]
    for length in range(len(data)):
        with pytest.raises(ImageFormatError, match=f"got {length}|after {length} bytes"):
            read(data[:length])
        if length < 12:
            with pytest.raises(ImageFormatError, match=f"got {length}|after {length} bytes"):
                read_stamp(data[:length])
        else:
            assert read_stamp(data[:length]) == 3_000_000_004


@pytest.mark.parametrize(
    ("at", "field", "ends"),
    [
        # 4 bytes, the stamp's 8, and the 4 of the length itself, then so many.
        pytest.param(12, "frame_id", 16 + 2**32 - 1, id="frame_id"),
        # frame_id has 4 with its NUL, the size 8, the length 4.
        pytest.param(28, "encoding", 32 + 2**32 - 1, id="encoding"),
        # encoding has 5, is_bigendian 1, padding 2, step 4, the length 4.
        pytest.param(44, "data", 48 + 2**32 - 1, id="data"),
    ],
)
def test_a_length_of_gigabytes_is_named(at, field, ends):
    data = bytearray(serialize_message(message_of(RAW)))
    data[at : at + 4] = b"\xff" * 4
    with pytest.raises(
        ImageFormatError, match=f"must have {ends} bytes at least, where its {field} ends, got 54$"
    ):
        read_image(bytes(data))
    assert read_stamp(bytes(data)) == 3_000_000_004


@pytest.mark.parametrize(
    ("start", "told"),
    [
        pytest.param("", "got 0 bytes that begin with nothing", id="nothing"),
        pytest.param("00", "got 1 bytes that begin with 00$", id="one byte"),
        pytest.param("00030000", "got 4 bytes that begin with 00 03 00 00", id="parameter list"),
        pytest.param("00070000 01", "got 5 bytes that begin with 00 07 00 00", id="version 2"),
        pytest.param("01000000", "got 4 bytes that begin with 01 00 00 00", id="the wrong order"),
    ],
)
@pytest.mark.parametrize("read", [read_stamp, read_image, read_compressed_image])
def test_another_encapsulation_is_named(read, start, told):
    with pytest.raises(ImageFormatError, match=f"plain CDR, .* 00 00 or 00 01, {told}"):
        read(bytes.fromhex(start))


def test_options_behind_the_order_of_bytes_are_passed_over():
    data = serialize_message(message_of(RAW))
    assert read_image(data[:2] + b"\0\3" + data[4:]) == RAW  # how many bytes are padding


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param(b"abc\0", "abc", id="as it should be"),
        pytest.param(b"abcd", "abcd", id="without a NUL"),
        pytest.param(b"a\0cd", "a", id="a NUL inside"),
        pytest.param(b"\xff\xfea\0", "\ufffd\ufffda", id="no UTF-8"),
        pytest.param(b"", "", id="not even a NUL"),
    ],
)
def test_text_is_read_as_rclpy_reads_it(content, text):
    data = b"\0\1\0\0" + bytes(8) + struct.pack("<I", len(content)) + content + bytes(8)
    assert read_compressed_image(data).header.frame_id == text
    assert deserialize_message(data, CompressedImage).header.frame_id == text


@st.composite
def damaged(draw):
    """Bytes of an image of a kind, some of them wrong or missing."""
    image = draw(raw_images | compressed_images)
    kind = type(message_of(image))
    data = bytearray(
        draw(st.sampled_from([serialize_message(message_of(image)), big_endian(image)]))
    )
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data) - 1))
        data[at] = draw(st.integers(0, 255))
    for _ in range(draw(st.integers(0, 2))):
        at = 4 * draw(st.integers(0, (len(data) - 1) // 4))
        data[at : at + 4] = draw(uint32).to_bytes(4, draw(st.sampled_from(["little", "big"])))
    return kind, bytes(data[: draw(st.integers(0, len(data)) | st.just(len(data)))])


@settings(deadline=None, max_examples=500)
@given(damaged() | st.tuples(st.sampled_from(list(READERS)), st.binary(max_size=200)))
def test_damaged_bytes_are_refused_or_read_as_rclpy_reads_them(kind_and_data):
    kind, data = kind_and_data
    try:
        image = READERS[kind](data)
    except ImageFormatError as error:
        assert str(error).startswith("image message ")
    else:
        # Without its options, as Kilted's rclpy refuses a message that counts bytes of its fields
        # as padding there. Jazzy's reads it.
        assert image == view_of(deserialize_message(data[:2] + b"\0\0" + data[4:], kind))
    try:
        stamp = read_stamp(data)
    except ImageFormatError:
        assert len(data) < 12 or data[0] or data[1] > 1
    else:
        little = data[1] == 1
        assert stamp == (
            int.from_bytes(data[4:8], "little" if little else "big", signed=True) * 10**9
            + int.from_bytes(data[8:12], "little" if little else "big")
        )


# Over the network


@pytest.fixture
def peer():
    """A node, and how to spin it until a condition holds."""
    rclpy.init()
    node = rclpy.create_node("cdr")

    def until(condition):
        for _ in range(1000):
            if condition():
                return
            rclpy.spin_once(node, timeout_sec=0.02)
        raise AssertionError("the condition did not come true in time")

    yield SimpleNamespace(node=node, until=until)
    node.destroy_node()
    rclpy.try_shutdown()


def test_others_receive_detections_that_were_published_as_bytes(peer):
    detections = found([[1, 2, 3, 4], [5, 6, 9, 8]], [0.5, 0.25], [1, 0])
    names = ("car", "person")
    publisher = peer.node.create_publisher(Detection2DArray, "detections", 10)
    came = []
    peer.node.create_subscription(Detection2DArray, "detections", came.append, 10)
    peer.until(publisher.get_subscription_count)
    publisher.publish(detections_bytes(detections, names, HEADER))
    peer.until(lambda: came)
    assert came == [detections_message(detections, names, message_header(HEADER))]


@pytest.mark.parametrize("image", [RAW, COMPRESSED], ids=["raw", "compressed"])
def test_images_are_received_as_bytes(peer, image):
    message = message_of(image)
    publisher = peer.node.create_publisher(type(message), "image", 10)
    came = []
    peer.node.create_subscription(type(message), "image", came.append, 10, raw=True)
    peer.until(publisher.get_subscription_count)
    publisher.publish(message)
    peer.until(lambda: came)
    assert [READERS[type(message)](data) for data in came] == [image]

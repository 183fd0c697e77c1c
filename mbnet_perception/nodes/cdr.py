"""Messages as the bytes that ROS 2 sends, written and read without rclpy's message objects.

rclpy turns a message into one of C value by value, and that one into bytes, which takes several
times as long as writing the bytes. They are plain CDR: Object Management Group, "Extensible and
Dynamic Topic Types for DDS" 1.3 (formal/20-02-04), 7.4 (encoding version 1) and 7.6.3.1.2, after
"Common Object Request Broker Architecture" 3.3, part 2 (formal/2012-11-14), 9.3. Four bytes name
the order of bytes. Behind them come the fields in their order, each aligned to its size, counted
from behind those four. A string is its length with the NUL at its end, as uint32, and UTF-8; a
sequence is its length and its elements.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from struct import error as StructError
from typing import NamedTuple

from mbnet_perception.core.detections import Detections
from mbnet_perception.core.images import ImageFormatError

# Written on every machine, as the first four bytes say so.
LITTLE_ENDIAN = b"\0\1\0\0"
STAMP = Struct("<iI")
LENGTH = Struct("<I")
ONE_RESULT = LENGTH.pack(1)
# The numbers of a Detection2D, from the score on: w of the orientation is 1, the rest of the pose
# and its 36 covariances are 0, as is theta behind the middle of the box. Last comes the empty id.
NUMBERS = Struct("<d 48x d 288x 2d 8x 2d Ix")
ID_TO_NEXT = bytes(3)

START = 4  # of the fields; those of images have 4 bytes at most, which may be aligned from byte 0


class _Integers(NamedTuple):
    """Those of images, in one order of bytes."""

    stamp: Struct
    header: Struct
    one: Struct
    two: Struct
    three: Struct


INTEGERS = {
    start: _Integers(*(Struct(order + fields) for fields in ("iI", "iII", "I", "2I", "3I")))
    for start, order in ((b"\0\0", ">"), (b"\0\1", "<"))
}


class ImageHeader(NamedTuple):
    """A std_msgs/Header."""

    sec: int
    nanosec: int
    frame_id: str

    @property
    def stamp(self) -> int:
        """Nanoseconds since the epoch."""
        return self.sec * 10**9 + self.nanosec


class ImageView(NamedTuple):
    """A sensor_msgs/Image; `data` is a view of the message's bytes."""

    header: ImageHeader
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


class CompressedImageView(NamedTuple):
    """A sensor_msgs/CompressedImage; `data` is a view of the message's bytes."""

    header: ImageHeader
    format: str
    data: memoryview


def detections_bytes(
    detections: Detections, class_names: tuple[str, ...], header: ImageHeader
) -> bytes:
    """A vision_msgs/Detection2DArray: boxes in the image's pixels, classes by name.

    Args:
        detections: What was seen.
        class_names: The model's, which `detections.classes` counts.
        header: Of the image.

    Returns:
        What rclpy makes of `detections_message`, but for padding, which is zero here.
    """
    stamp = STAMP.pack(header.sec, header.nanosec)
    frame_id = _frame_id(header.frame_id)
    parts = [LITTLE_ENDIAN, stamp, frame_id, LENGTH.pack(len(detections))]
    # Each detection repeats the header, so that as much is before the first one as is in it before
    # its class: twice a multiple of 4. The others begin at a multiple of 8, behind 8 byte numbers.
    before = stamp + frame_id + ONE_RESULT
    names = _class_ids(class_names, 0)
    other_names = _class_ids(class_names, len(before) % 8)
    other_before = ID_TO_NEXT + before
    for box, score, index in zip(
        detections.boxes.tolist(),
        detections.scores.tolist(),
        detections.classes.tolist(),
        strict=True,
    ):
        left, top, right, bottom = box
        numbers = NUMBERS.pack(
            score, 1.0, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top, 1
        )
        parts += (before, names[index], numbers)
        before, names = other_before, other_names
    return b"".join(parts)


@lru_cache(maxsize=16)
def _frame_id(text: str) -> bytes:
    """The string, and what aligns the length behind it."""
    content = _string(text)
    return content + bytes(-len(content) % 4)


@lru_cache(maxsize=16)
def _class_ids(class_names: tuple[str, ...], start: int) -> tuple[bytes, ...]:
    """Each as a string that begins so far behind a multiple of 8, and what aligns a score."""
    contents = [_string(name) for name in class_names]
    return tuple(content + bytes(-(start + len(content)) % 8) for content in contents)


def _string(text: str) -> bytes:
    content = text.encode() + b"\0"
    return LENGTH.pack(len(content)) + content


def read_stamp(data: bytes) -> int:
    """Stamp of a message that begins with a std_msgs/Header, in ns since the epoch.

    Raises:
        ImageFormatError: If the message ends before, or is no plain CDR.
    """
    try:
        sec, nanosec = INTEGERS[data[:2]].stamp.unpack_from(data, START)
    except (KeyError, StructError):
        raise _refusal(data) from None
    return sec * 10**9 + nanosec


def read_image(data: bytes) -> ImageView:
    """Fields of a sensor_msgs/Image, which are not held against each other.

    Args:
        data: The message; what follows behind it is padding.

    Raises:
        ImageFormatError: If the message ends before its fields do, or is no plain CDR.
    """
    try:
        integers = INTEGERS[data[:2]]
        header, at = _read_header(data, integers)
        height, width, length = integers.three.unpack_from(data, at)
        encoding, at = _read_text(data, at + 12, length, "encoding")
        step_at = _aligned(at + 1)
        step, length = integers.two.unpack_from(data, step_at)
    except (KeyError, StructError):
        raise _refusal(data) from None
    content = _view(data, step_at + 8, length)
    return ImageView(header, height, width, encoding, data[at], step, content)


def read_compressed_image(data: bytes) -> CompressedImageView:
    """Fields of a sensor_msgs/CompressedImage.

    Args:
        data: The message; what follows behind it is padding.

    Raises:
        ImageFormatError: If the message ends before its fields do, or is no plain CDR.
    """
    try:
        integers = INTEGERS[data[:2]]
        header, at = _read_header(data, integers)
        (length,) = integers.one.unpack_from(data, at)
        name, at = _read_text(data, at + 4, length, "format")
        at = _aligned(at)
        (length,) = integers.one.unpack_from(data, at)
    except (KeyError, StructError):
        raise _refusal(data) from None
    return CompressedImageView(header, name, _view(data, at + 4, length))


def _read_header(data: bytes, integers: _Integers) -> tuple[ImageHeader, int]:
    """The header, and where the number behind it begins."""
    sec, nanosec, length = integers.header.unpack_from(data, START)
    frame_id, at = _read_text(data, START + integers.header.size, length, "frame_id")
    return ImageHeader(sec, nanosec, frame_id), _aligned(at)


def _read_text(data: bytes, at: int, length: int, field: str) -> tuple[str, int]:
    """The text up to its NUL, as C takes it, decoded as rclpy does; and where the string ends."""
    end = at + length
    if end > len(data):
        raise _too_short(data, end, field)
    return data[at:end].partition(b"\0")[0].decode(errors="replace"), end


def _view(data: bytes, at: int, length: int) -> memoryview:
    end = at + length
    if end > len(data):
        raise _too_short(data, end, "data")
    return memoryview(data)[at:end]


def _aligned(at: int) -> int:
    return (at + 3) // 4 * 4


def _too_short(data: bytes, end: int, field: str) -> ImageFormatError:
    return ImageFormatError(
        f"image message must have {end} bytes at least, where its {field} ends, got {len(data)}"
    )


def _refusal(data: bytes) -> ImageFormatError:
    """Why not even the numbers of a message can be read."""
    if data[:2] in INTEGERS:
        return ImageFormatError(f"image message is truncated: it ends after {len(data)} bytes")
    return ImageFormatError(
        "image message must be plain CDR, which begins with 00 00 or 00 01, got "
        f"{len(data)} bytes that begin with {data[:4].hex(' ') or 'nothing'}"
    )

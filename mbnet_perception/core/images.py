"""Camera data as BGR pictures: raw pixels in the encodings of sensor_msgs, JPEG and PNG."""

from __future__ import annotations

from array import array
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes: TypeAlias = "bytes | bytearray | memoryview | array[int]"

MAX_PIXELS = 1 << 25
"""8K video fits. A damaged header may claim gigabytes, which a small computer has not."""

JPEG_START = b"\xff\xd8"
JPEG_END = b"\xff\xd9"
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND\xaeB`\x82"


class ImageFormatError(ValueError):
    """Camera data that is no usable picture; the message says what was expected and what came."""


class _Encoding(NamedTuple):
    bytes_per_pixel: int
    to_bgr: int | None


# Names from sensor_msgs/image_encodings.hpp. YUV 4:2:2 is there under two names for each order.
_ENCODINGS = {
    "bgr8": _Encoding(3, None),
    "8UC3": _Encoding(3, None),
    "rgb8": _Encoding(3, cv2.COLOR_RGB2BGR),
    "bgra8": _Encoding(4, cv2.COLOR_BGRA2BGR),
    "rgba8": _Encoding(4, cv2.COLOR_RGBA2BGR),
    "mono8": _Encoding(1, cv2.COLOR_GRAY2BGR),
    "8UC1": _Encoding(1, cv2.COLOR_GRAY2BGR),
    "uyvy": _Encoding(2, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422": _Encoding(2, cv2.COLOR_YUV2BGR_UYVY),
    "yuyv": _Encoding(2, cv2.COLOR_YUV2BGR_YUY2),
    "yuv422_yuy2": _Encoding(2, cv2.COLOR_YUV2BGR_YUY2),
}
_YUV = ("uyvy", "yuv422", "yuyv", "yuv422_yuy2")


def bgr_from_raw(
    data: Bytes, height: int, width: int, encoding: str, step: int
) -> NDArray[np.uint8]:
    """Picture from the fields of a sensor_msgs/Image.

    All encodings read here have one byte per value, so that the byte order does not matter.

    Args:
        data: step * height bytes, row after row.
        height: Rows.
        width: Pixels in a row.
        encoding: Name from sensor_msgs/image_encodings.hpp.
        step: Bytes from one row to the next; more than a row's pixels need is padding.

    Returns:
        (height, width, 3) uint8 BGR. For bgr8 and 8UC3 it is a view of the data: not to be
        written to, and with a row stride where there is padding.

    Raises:
        ImageFormatError: If the encoding is not read here, or the numbers do not fit together.
    """
    if encoding not in _ENCODINGS:
        raise ImageFormatError(
            f"encoding {encoding!r} is not supported; supported: {', '.join(_ENCODINGS)}"
        )
    bytes_per_pixel, to_bgr = _ENCODINGS[encoding]
    if height < 1 or width < 1:
        raise ImageFormatError(
            f"{encoding} image must have at least one pixel, got width {width}, height {height}"
        )
    if encoding in _YUV and width % 2:
        raise ImageFormatError(
            f"{encoding} image must have an even width, as two pixels share their colour; "
            f"got {width}"
        )
    row = width * bytes_per_pixel
    if step < row:
        raise ImageFormatError(
            f"{encoding} image of width {width} needs a step of at least {row} bytes, got {step}"
        )
    values = np.frombuffer(data, np.uint8)
    if values.size != step * height:
        raise ImageFormatError(
            f"{encoding} image must have step {step} x height {height} = {step * height} bytes "
            f"of data, got {values.size}"
        )
    pixels = values.reshape(height, step)[:, :row].reshape(height, width, bytes_per_pixel)
    if to_bgr is None:
        return pixels
    return np.asarray(cv2.cvtColor(pixels, to_bgr), np.uint8)


def bgr_from_compressed(data: Bytes, format: str = "") -> NDArray[np.uint8]:
    """Picture from the fields of a sensor_msgs/CompressedImage.

    The pixels stay where the sensor put them: an EXIF orientation is not applied.

    Args:
        data: A JPEG or PNG file, which may be followed by zero bytes.
        format: What the sender calls it, for the error message alone; the data decides.

    Returns:
        (H, W, 3) uint8 BGR.

    Raises:
        ImageFormatError: If the data is neither, is truncated or damaged, or has more pixels than
            MAX_PIXELS.
    """
    content = bytes(data).rstrip(b"\0")
    if content.startswith(JPEG_START):
        # OpenCV decodes a JPEG without its end to a picture that is grey from there on.
        if not content.endswith(JPEG_END):
            raise ImageFormatError(
                f"JPEG image is truncated: {len(content)} bytes without an end marker (FF D9)"
            )
        size = _jpeg_size(content)
    elif content.startswith(PNG_START):
        if not content.endswith(PNG_END):
            raise ImageFormatError(
                f"PNG image is truncated: {len(content)} bytes without an IEND chunk"
            )
        size = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    else:
        named = f" (format {format!r})" if format else ""
        raise ImageFormatError(
            f"compressed image{named} must be JPEG or PNG; got {len(content)} bytes that start "
            f"with {content[:8].hex(' ') or 'nothing'}"
        )
    if size is None or not 0 < size[0] * size[1] <= MAX_PIXELS:
        found = "no size" if size is None else f"width {size[0]}, height {size[1]}"
        raise ImageFormatError(
            f"compressed image must have 1 to {MAX_PIXELS} pixels, its header says {found}"
        )
    try:
        picture = cv2.imdecode(
            np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error as error:
        raise ImageFormatError(f"compressed image is damaged: {error}") from error
    if picture is None:
        raise ImageFormatError(f"compressed image of {len(content)} bytes is damaged")
    return np.asarray(picture, np.uint8)


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Width and height from a JPEG's frame header, None where there is none (ITU T.81, B.2.2)."""
    at = len(JPEG_START)
    while at + 9 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        # SOF0 to SOF15, among which are the tables DHT, JPG and DAC.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(content[at + 5 : at + 7], "big")
            return int.from_bytes(content[at + 7 : at + 9], "big"), height
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None

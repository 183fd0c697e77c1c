"""Camera data as pictures: raw pixels in the encodings of sensor_msgs, JPEG and PNG."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes: TypeAlias = "bytes | bytearray | memoryview | array[int]"
Order = Literal["bgr", "rgb", "bgra", "rgba", "grey"]

MAX_PIXELS = 1 << 25
"""8K video fits. A damaged header may claim gigabytes, which a small computer has not."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Of picture files, as users have them."""

JPEG_START = b"\xff\xd8"
JPEG_END = b"\xff\xd9"
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND\xaeB`\x82"

# A JPEG spends at least a bit on each block of 8 x 8 pixels. A PNG has at least a bit a pixel
# before it is deflated, which makes it 1032 times smaller at best.
JPEG_PIXELS_PER_BYTE = 8 * 64
PNG_PIXELS_PER_BYTE = 8 * 1032

# The scales at which a JPEG's blocks are cheaper to decode, and how OpenCV is told.
_REDUCED = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}


class ImageFormatError(ValueError):
    """Camera data that is no usable picture; the message says what was expected and what came."""


class _Conversion(NamedTuple):
    channels: int
    to_rgb: int | None
    to_bgr: int | None


_CONVERSIONS: dict[Order, _Conversion] = {
    "bgr": _Conversion(3, cv2.COLOR_BGR2RGB, None),
    "rgb": _Conversion(3, None, cv2.COLOR_RGB2BGR),
    "bgra": _Conversion(4, cv2.COLOR_BGRA2RGB, cv2.COLOR_BGRA2BGR),
    "rgba": _Conversion(4, cv2.COLOR_RGBA2RGB, cv2.COLOR_RGBA2BGR),
    "grey": _Conversion(1, cv2.COLOR_GRAY2RGB, cv2.COLOR_GRAY2BGR),
}


@dataclass(frozen=True)
class Picture:
    """A camera's picture as it came; colours are put in order once it is small.

    Attributes:
        pixels: (h, w, channels) uint8, for grey (h, w). It may be a view of a message, with a row
            stride where there is padding, and is not to be written to.
        order: What the channels are.
        height: Of the camera's picture, in whose pixels boxes are told.
        width: Likewise. Where a JPEG was decoded at reduced scale, `pixels` are fewer by a whole
            factor, rounded up.

    Raises:
        ValueError: If pixels have another shape or type, or there are none.
    """

    pixels: NDArray[np.uint8]
    order: Order
    height: int
    width: int

    def __post_init__(self) -> None:
        channels = _CONVERSIONS[self.order].channels
        shape = self.pixels.shape
        fits = len(shape) == 2 if channels == 1 else len(shape) == 3 and shape[2] == channels
        if not fits or self.pixels.dtype != np.uint8:
            expected = "(H, W)" if channels == 1 else f"(H, W, {channels})"
            raise ValueError(
                f"expected a {expected} uint8 {self.order} picture, got {self.pixels.dtype} {shape}"
            )
        if min(*shape[:2], self.height, self.width) < 1:
            raise ValueError(
                f"picture height and width must be positive, got {self.height} x {self.width} "
                f"in pixels {shape}"
            )

    @classmethod
    def of_bgr(cls, bgr: NDArray[np.uint8]) -> Picture:
        """A whole picture, (H, W, 3) uint8 BGR."""
        if bgr.ndim != 3:
            raise ValueError(f"expected a (H, W, 3) uint8 bgr picture, got {bgr.dtype} {bgr.shape}")
        return cls(bgr, "bgr", bgr.shape[0], bgr.shape[1])

    def bgr(self) -> NDArray[np.uint8]:
        """(h, w, 3) BGR of the size of `pixels`; these themselves where they are BGR."""
        code = _CONVERSIONS[self.order].to_bgr
        if code is None:
            return self.pixels
        return np.asarray(cv2.cvtColor(self.pixels, code), np.uint8)

    def resized_rgb(self, size_hw: tuple[int, int]) -> NDArray[np.uint8]:
        """(height, width, 3) RGB of this size; where it is smaller, no pixel is left out."""
        pixels = self.pixels
        # Beyond a half, interpolation between neighbours leaves pixels out. To average areas in one
        # step takes OpenCV several times as long.
        while max(pixels.shape[:2]) > 2 * max(size_hw):
            half = -(-pixels.shape[1] // 2), -(-pixels.shape[0] // 2)
            pixels = np.asarray(cv2.resize(pixels, half, interpolation=cv2.INTER_AREA), np.uint8)
        # Colours after the resize: nearly always fewer pixels, and no copy of the whole picture.
        resized = cv2.resize(pixels, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
        code = _CONVERSIONS[self.order].to_rgb
        return np.asarray(resized if code is None else cv2.cvtColor(resized, code), np.uint8)


class _Encoding(NamedTuple):
    bytes_per_pixel: int
    order: Order
    from_yuv: int | None = None
    planes: bool = False  # of brightness and, half as high, of colours


# Names from sensor_msgs/image_encodings.hpp. YUV 4:2:2 is there under two names for each order.
# cv_bridge does not know nv12 and nv21 (vision_opencv pull request 544), which libcamera offers.
_ENCODINGS = {
    "bgr8": _Encoding(3, "bgr"),
    "8UC3": _Encoding(3, "bgr"),
    "rgb8": _Encoding(3, "rgb"),
    "bgra8": _Encoding(4, "bgra"),
    "rgba8": _Encoding(4, "rgba"),
    "mono8": _Encoding(1, "grey"),
    "8UC1": _Encoding(1, "grey"),
    "uyvy": _Encoding(2, "rgb", cv2.COLOR_YUV2RGB_UYVY),
    "yuv422": _Encoding(2, "rgb", cv2.COLOR_YUV2RGB_UYVY),
    "yuyv": _Encoding(2, "rgb", cv2.COLOR_YUV2RGB_YUY2),
    "yuv422_yuy2": _Encoding(2, "rgb", cv2.COLOR_YUV2RGB_YUY2),
    "nv12": _Encoding(1, "rgb", cv2.COLOR_YUV2RGB_NV12, planes=True),
    "nv21": _Encoding(1, "rgb", cv2.COLOR_YUV2RGB_NV21, planes=True),
}
ENCODINGS = tuple(_ENCODINGS)
"""What :func:`picture_from_raw` reads."""


def picture_from_raw(data: Bytes, height: int, width: int, encoding: str, step: int) -> Picture:
    """Picture from the fields of a sensor_msgs/Image.

    All encodings read here have one byte per value, so that the byte order does not matter.

    Args:
        data: step * height bytes, row after row; of nv12 and nv21 half as many rows follow, with
            the colours of two by two pixels (ros2/common_interfaces pull request 264).
        height: Rows of pixels.
        width: Pixels in a row.
        encoding: Name from sensor_msgs/image_encodings.hpp, one of ENCODINGS.
        step: Bytes from one row to the next; more than a row's pixels need is padding.

    Returns:
        A view of the data; YUV alone is converted.

    Raises:
        ImageFormatError: If the encoding is not read here, or the numbers do not fit together.
    """
    if encoding not in _ENCODINGS:
        raise ImageFormatError(
            f"encoding {encoding!r} is not supported; supported: {', '.join(ENCODINGS)}"
        )
    bytes_per_pixel, order, from_yuv, planes = _ENCODINGS[encoding]
    if (from_yuv is not None and width % 2) or (planes and height % 2):
        raise ImageFormatError(
            f"{encoding} image must have an even width{' and height' if planes else ''}, as pixels "
            f"share their colour; got width {width}, height {height}"
        )
    colour_rows = height // 2 if planes else 0
    rows = rows_of(data, height, width, encoding, step, bytes_per_pixel, colour_rows)
    pixels = rows if bytes_per_pixel == 1 else rows.reshape(height, width, bytes_per_pixel)
    if from_yuv is not None:
        pixels = np.asarray(cv2.cvtColor(pixels, from_yuv), np.uint8)
    return Picture(pixels, order, height, width)


def rows_of(
    data: Bytes,
    height: int,
    width: int,
    encoding: str,
    step: int,
    bytes_per_pixel: int,
    colour_rows: int = 0,
) -> NDArray[np.uint8]:
    """The bytes of each row of a sensor_msgs/Image, without the padding behind them.

    Returns:
        (height + colour_rows, width * bytes_per_pixel) uint8, a view of the data.

    Raises:
        ImageFormatError: If the numbers do not fit together, or there is no pixel, or there are
            more than MAX_PIXELS.
    """
    if height < 1 or width < 1:
        raise ImageFormatError(
            f"{encoding} image must have at least one pixel, got width {width}, height {height}"
        )
    if height * width > MAX_PIXELS:
        raise ImageFormatError(
            f"{encoding} image must have at most {MAX_PIXELS} pixels, got width {width}, "
            f"height {height}"
        )
    row = width * bytes_per_pixel
    if step < row:
        raise ImageFormatError(
            f"{encoding} image of width {width} needs a step of at least {row} bytes, got {step}"
        )
    length, expected = memoryview(data).nbytes, step * (height + colour_rows)
    if length != expected:
        raise ImageFormatError(
            f"{encoding} image must have step {step} x height {height}"
            f"{' x 3/2' if colour_rows else ''} = {expected} bytes of data, got {length}"
        )
    return np.frombuffer(data, np.uint8).reshape(height + colour_rows, step)[:, :row]


def picture_from_compressed(data: Bytes, format: str = "", long_side: int = 0) -> Picture:
    """Picture from the fields of a sensor_msgs/CompressedImage.

    The pixels stay where the sensor put them: an EXIF orientation is not applied.

    Args:
        data: A JPEG or PNG file; what follows its end is left out, as of a buffer that is longer.
        format: What the sender calls it, for the error message alone; the data decides.
        long_side: A JPEG is decoded at a half, a quarter or an eighth of its size as long as its
            long side keeps so many pixels; 0 decodes it whole.

    Raises:
        ImageFormatError: If the data is neither, is truncated or damaged, or has more pixels than
            MAX_PIXELS.
    """
    content = bytes(data)
    shrink = 1
    if content.startswith(JPEG_START):
        size, scan = _jpeg_header(content)
        # OpenCV decodes a JPEG without its end to a picture that is grey from there on.
        end = content.rfind(JPEG_END, scan)
        if end < 0:
            raise ImageFormatError(
                f"JPEG image is truncated: {len(content)} bytes without an end marker (FF D9)"
            )
        content = content[: end + len(JPEG_END)]
        pixels_per_byte = JPEG_PIXELS_PER_BYTE
        if long_side > 0 and size is not None:
            shrink = next((k for k in _REDUCED if -(-max(size) // k) >= long_side), 1)
    elif content.startswith(PNG_START):
        end = content.rfind(PNG_END)
        if end < 0:
            raise ImageFormatError(
                f"PNG image is truncated: {len(content)} bytes without an IEND chunk"
            )
        content = content[: end + len(PNG_END)]
        size = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
        pixels_per_byte = PNG_PIXELS_PER_BYTE
    else:
        named = f" (format {format[:40]!r})" if format else ""
        raise ImageFormatError(
            f"compressed image{named} must be JPEG or PNG; got {len(content)} bytes that start "
            f"with {content[:8].hex(' ') or 'nothing'}"
        )
    if size is None or not 0 < size[0] * size[1] <= MAX_PIXELS:
        found = "no size" if size is None else f"width {size[0]}, height {size[1]}"
        raise ImageFormatError(
            f"compressed image must have 1 to {MAX_PIXELS} pixels, its header says {found}"
        )
    width, height = size
    if width * height > pixels_per_byte * len(content):
        raise ImageFormatError(
            f"compressed image of {len(content)} bytes cannot hold what its header says: "
            f"width {width}, height {height}"
        )
    try:
        decoded = cv2.imdecode(
            np.frombuffer(content, np.uint8), _REDUCED[shrink] | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error as error:
        raise ImageFormatError(f"compressed image is damaged: {error}") from error
    if decoded is None:
        raise ImageFormatError(f"compressed image of {len(content)} bytes is damaged")
    expected = (-(-height // shrink), -(-width // shrink), 3)
    if decoded.shape != expected:
        raise ImageFormatError(
            f"compressed image is damaged: decoded to {decoded.shape}, its header says {expected}"
        )
    return Picture(np.asarray(decoded, np.uint8), "bgr", height, width)


def jpeg_segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Marker and position of each segment of a JPEG, one behind the other (ITU T.81, B.1.1).

    Stops where the next one should begin and does not, as behind the header of a scan.
    """
    at = len(JPEG_START)
    while at + 9 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        yield marker, at
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")


def jpeg_frame_size(content: bytes, marker: int, at: int) -> tuple[int, int] | None:
    """Width and height that a segment tells, None if it is no frame header (ITU T.81, B.2.2)."""
    # SOF0 to SOF15, among which are the tables DHT, JPG and DAC.
    if not 0xC0 <= marker <= 0xCF or marker in (0xC4, 0xC8, 0xCC):
        return None
    height = int.from_bytes(content[at + 5 : at + 7], "big")
    return int.from_bytes(content[at + 7 : at + 9], "big"), height


def _jpeg_header(content: bytes) -> tuple[tuple[int, int] | None, int]:
    """Width and height, None if it does not tell, and where it ends.

    The end of a thumbnail lies in a segment of the header; in a scan FF is followed by 00.
    """
    size, end = None, len(JPEG_START)
    for marker, at in jpeg_segments(content):
        size = size or jpeg_frame_size(content, marker, at)
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == 0xDA:  # start of scan
            break
    return size, end

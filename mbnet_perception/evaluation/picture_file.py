"""Picture files of data sets: whether they are whole, and their size, without decoding them.

Files from phones go on behind the end of the picture, and hold an orientation (EXIF), unlike what
a camera topic carries (``core.images``).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core.images import (
    JPEG_END,
    JPEG_START,
    PNG_END,
    PNG_START,
    jpeg_frame_size,
    jpeg_segments,
)


class PictureFileError(ValueError):
    """Bytes that are no whole picture; the message says why and leaves the file to be named."""


def picture_size(content: bytes) -> tuple[int, int]:
    """Height and width in pixels of what :func:`decode` makes of a picture file.

    Raises:
        PictureFileError: If the picture is truncated, or no picture at all.
    """
    if content.startswith(JPEG_START):
        header = _jpeg_header(content)
        if not header.has_exif:
            return header.height, header.width
    elif content.startswith(PNG_START):
        _check_png(content)
        return int.from_bytes(content[20:24], "big"), int.from_bytes(content[16:20], "big")
    height, width = decode(content).shape[:2]
    return height, width


def decode(content: bytes) -> NDArray[np.uint8]:
    """Decode a picture file, turned as its EXIF orientation says: (height, width, 3) uint8 BGR.

    Raises:
        PictureFileError: If the picture is truncated, or OpenCV cannot decode it. OpenCV itself
            would make the missing part of a JPEG grey.
    """
    if content.startswith(JPEG_START):
        _jpeg_header(content)
    elif content.startswith(PNG_START):
        _check_png(content)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:  # no bytes at all, or more pixels than OpenCV allows
        raise PictureFileError(f"no picture that OpenCV can decode: {error.err}") from error
    if image is None:
        raise PictureFileError(f"no picture that OpenCV can decode ({len(content)} bytes)")
    return np.asarray(image, np.uint8)


class _JpegHeader(NamedTuple):
    height: int
    width: int
    has_exif: bool


def _jpeg_header(content: bytes) -> _JpegHeader:
    """Walk the segments before the first scan, and look for the end behind it (ITU T.81, B.1).

    A thumbnail's end lies in a segment that the walk steps over, and in a scan FF is followed by
    00, so that the first end marker behind the scan's start is the picture's.
    """
    size = None
    has_exif = False
    for marker, at in jpeg_segments(content):
        if marker == 0xDA:  # start of scan
            if size is None:
                break
            if content.find(JPEG_END, at) < 0:
                raise PictureFileError(
                    f"truncated JPEG: {len(content)} bytes without an end marker (FF D9)"
                )
            width, height = size
            return _JpegHeader(height, width, has_exif)
        size = jpeg_frame_size(content, marker, at) or size
        has_exif |= marker == 0xE1 and content[at + 4 : at + 8] == b"Exif"
    raise PictureFileError(f"truncated or damaged JPEG: {len(content)} bytes without a scan")


def _check_png(content: bytes) -> None:
    if PNG_END not in content:
        raise PictureFileError(f"truncated PNG: {len(content)} bytes without an IEND chunk")

import struct

import cv2
import numpy as np
import pytest

from mbnet_perception.evaluation.picture_file import PictureFileError, decode, picture_size

HEIGHT, WIDTH = 24, 40


def encoded(suffix):
    ramp = np.arange(HEIGHT * WIDTH * 3).reshape(HEIGHT, WIDTH, 3) % 251
    return cv2.imencode(suffix, ramp.astype(np.uint8))[1].tobytes()


def with_exif(jpeg, orientation, thumbnail=b""):
    """Put an EXIF segment of one entry, the orientation (tag 0x0112, one SHORT), behind SOI."""
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b"Exif\0\0" + tiff + thumbnail
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_the_size_is_that_of_the_decoded_picture(suffix):
    content = encoded(suffix)
    assert picture_size(content) == (HEIGHT, WIDTH)
    assert decode(content).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        pytest.param(1, (HEIGHT, WIDTH), id="upright"),
        pytest.param(6, (WIDTH, HEIGHT), id="on its side"),
    ],
)
def test_the_orientation_of_a_phone_counts(orientation, expected):
    content = with_exif(encoded(".jpg"), orientation)
    assert picture_size(content) == decode(content).shape[:2] == expected


@pytest.mark.parametrize("read", [picture_size, decode])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_no_truncated_picture_is_taken_for_a_whole_one(suffix, read):
    content = encoded(suffix)
    for length in range(len(content)):
        with pytest.raises(PictureFileError):
            read(content[:length])


def test_a_truncated_jpeg_is_found_behind_its_whole_thumbnail():
    content = with_exif(encoded(".jpg"), 1, thumbnail=encoded(".jpg"))
    assert decode(content).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(PictureFileError, match=r"truncated JPEG: \d+ bytes without an end marker"):
        decode(content[:-2])


def test_what_a_phone_adds_behind_the_picture_does_not_matter():
    content = encoded(".jpg") + b"SEFT" * 9
    assert picture_size(content) == decode(content).shape[:2] == (HEIGHT, WIDTH)


def test_a_png_says_that_it_is_truncated():
    with pytest.raises(PictureFileError, match="truncated PNG: 30 bytes without an IEND chunk"):
        decode(encoded(".png")[:30])


@pytest.mark.parametrize("content", [b"", b"person,1,2,3", bytes(100)])
def test_what_is_no_picture_is_refused(content):
    with pytest.raises(PictureFileError, match="no picture that OpenCV can decode"):
        picture_size(content)

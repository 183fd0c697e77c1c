import zlib
from array import array

import cv2
import numpy as np
import pytest

from mbnet_perception.core.images import ImageFormatError, bgr_from_compressed, bgr_from_raw

# Two rows of two pixels: red, green; blue, grey. As BGR:
PICTURE = np.array([[[0, 0, 255], [0, 255, 0]], [[255, 0, 0], [90, 90, 90]]], np.uint8)

RAW = {
    "bgr8": (6, [0, 0, 255, 0, 255, 0, 255, 0, 0, 90, 90, 90]),
    "8UC3": (6, [0, 0, 255, 0, 255, 0, 255, 0, 0, 90, 90, 90]),
    "rgb8": (6, [255, 0, 0, 0, 255, 0, 0, 0, 255, 90, 90, 90]),
    "bgra8": (8, [0, 0, 255, 7, 0, 255, 0, 7, 255, 0, 0, 7, 90, 90, 90, 7]),
    "rgba8": (8, [255, 0, 0, 7, 0, 255, 0, 7, 0, 0, 255, 7, 90, 90, 90, 7]),
}
MONO = np.array([[10, 20], [30, 255]], np.uint8)


@pytest.mark.parametrize("encoding", RAW)
def test_colour_encodings(encoding):
    step, values = RAW[encoding]
    bgr = bgr_from_raw(bytes(values), 2, 2, encoding, step)
    assert bgr.dtype == np.uint8
    np.testing.assert_array_equal(bgr, PICTURE)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_mono_becomes_grey(encoding):
    bgr = bgr_from_raw(MONO.tobytes(), 2, 2, encoding, 2)
    np.testing.assert_array_equal(bgr, np.stack([MONO] * 3, axis=-1))


def yuv_pair_to_bgr(y0, u, y1, v):
    """Two pixels that share a colour, by ITU-R BT.601, limited range."""

    def pixel(y):
        luma, blue, red = 1.164 * (y - 16), u - 128, v - 128
        bgr = [luma + 2.018 * blue, luma - 0.813 * red - 0.391 * blue, luma + 1.596 * red]
        return np.clip(bgr, 0, 255)

    return [pixel(y0), pixel(y1)]


# y0, u, y1, v of four pairs: red and dark red, blue, white and black, greenish.
PAIRS = [(81, 90, 50, 240), (41, 240, 41, 110), (235, 128, 16, 128), (145, 54, 120, 34)]


@pytest.mark.parametrize(
    ("encoding", "order"),
    [
        pytest.param("uyvy", (1, 0, 3, 2), id="uyvy"),
        pytest.param("yuv422", (1, 0, 3, 2), id="yuv422 is uyvy"),
        pytest.param("yuyv", (0, 1, 2, 3), id="yuyv"),
        pytest.param("yuv422_yuy2", (0, 1, 2, 3), id="yuv422_yuy2 is yuyv"),
    ],
)
def test_yuv422_follows_bt601(encoding, order):
    data = bytes(pair[i] for pair in PAIRS for i in order)
    expected = np.array([yuv_pair_to_bgr(*pair) for pair in PAIRS]).reshape(2, 4, 3)
    bgr = bgr_from_raw(data, 2, 4, encoding, 8)
    assert bgr.shape == (2, 4, 3)
    np.testing.assert_allclose(bgr, expected, atol=2)
    assert expected[0, 0].argmax() == 2  # the first pixel is red


@pytest.mark.parametrize(
    ("encoding", "row"),
    [("bgr8", 6), ("rgb8", 6), ("rgba8", 8), ("mono8", 2), ("uyvy", 4), ("yuyv", 4)],
)
def test_padding_after_each_row_is_skipped(encoding, row):
    rows = np.random.default_rng(0).integers(0, 256, (2, row), np.uint8)
    padded = np.pad(rows, ((0, 0), (0, 3)), constant_values=99)
    np.testing.assert_array_equal(
        bgr_from_raw(padded.tobytes(), 2, 2, encoding, row + 3),
        bgr_from_raw(rows.tobytes(), 2, 2, encoding, row),
    )


@pytest.mark.parametrize("step", [6, 9])
def test_bgr8_is_not_copied(step):
    data = array("B", bytes(2 * step))  # what a received message holds
    bgr = bgr_from_raw(data, 2, 2, "bgr8", step)
    data[step + 4] = 200
    assert bgr[1, 1, 1] == 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            (bytes(32), 2, 2, "rgb16", 16),
            "'rgb16' is not supported; supported: bgr8, .*uyvy",
            id="unknown encoding",
        ),
        pytest.param(
            (bytes(12), 2, 2, "bgr8", 5),
            "bgr8 image of width 2 needs a step of at least 6 bytes, got 5",
            id="step too small",
        ),
        pytest.param(
            (bytes(11), 2, 2, "bgr8", 6), "step 6 x height 2 = 12 bytes .*got 11", id="too short"
        ),
        pytest.param(
            (bytes(13), 2, 2, "bgr8", 6), "step 6 x height 2 = 12 bytes .*got 13", id="too long"
        ),
        pytest.param((b"", 0, 0, "mono8", 0), "got width 0, height 0", id="no pixel"),
        pytest.param((b"", 0, 2, "mono8", 2), "got width 2, height 0", id="no row"),
        pytest.param(
            (bytes(12), 2, 3, "yuyv", 6), "yuyv image must have an even width.*got 3", id="odd yuv"
        ),
    ],
)
def test_raw_data_that_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ImageFormatError, match=message):
        bgr_from_raw(*arguments)


NOISE = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
SCENE = cv2.GaussianBlur(NOISE, (9, 9), 3)


def encoded(extension):
    return cv2.imencode(extension, SCENE)[1].tobytes()


def test_png_comes_back_exactly():
    np.testing.assert_array_equal(bgr_from_compressed(encoded(".png")), SCENE)


def test_jpeg_comes_back_nearly():
    bgr = bgr_from_compressed(array("B", encoded(".jpg")))
    assert bgr.shape == SCENE.shape
    assert np.abs(bgr.astype(int) - SCENE).mean() < 6


def test_grey_jpeg_has_three_channels():
    content = cv2.imencode(".jpg", SCENE[..., 0])[1].tobytes()
    assert bgr_from_compressed(content).shape == SCENE.shape


def test_zero_bytes_after_a_jpeg_are_tolerated():
    content = encoded(".jpg")
    np.testing.assert_array_equal(
        bgr_from_compressed(content + bytes(100)), bgr_from_compressed(content)
    )


def test_exif_orientation_is_not_applied():
    # A TIFF block with one entry: tag 0x0112 (orientation), SHORT, one value, 6 (rotate by 90).
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    app1 = b"Exif\0\0" + tiff
    content = encoded(".jpg")
    tagged = content[:2] + b"\xff\xe1" + (len(app1) + 2).to_bytes(2, "big") + app1 + content[2:]
    assert cv2.imdecode(np.frombuffer(tagged, np.uint8), cv2.IMREAD_COLOR).shape == (64, 48, 3)
    np.testing.assert_array_equal(bgr_from_compressed(tagged), bgr_from_compressed(content))


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(extension, share):
    content = encoded(extension)
    with pytest.raises(ImageFormatError, match="truncated"):
        bgr_from_compressed(content[: int(share * len(content))])


def jpeg_that_claims(width, height):
    content = encoded(".jpg")
    at = content.index(b"\xff\xc0") + 5
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return content[:at] + size + content[at + 4 :]


def png_that_claims(width, height):
    content = encoded(".png")
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + content[24:29]
    return content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content[33:]


@pytest.mark.parametrize("claiming", [jpeg_that_claims, png_that_claims])
@pytest.mark.parametrize("size", [(65000, 65000), (0, 48)])
def test_absurd_sizes_are_refused_before_decoding(claiming, size):
    assert bgr_from_compressed(claiming(64, 48)).shape == SCENE.shape
    with pytest.raises(
        ImageFormatError, match=rf"1 to 33554432 pixels.*width {size[0]}, height {size[1]}"
    ):
        bgr_from_compressed(claiming(*size))


def test_a_jpeg_without_a_frame_header_is_refused():
    with pytest.raises(ImageFormatError, match="says no size"):
        bgr_from_compressed(b"\xff\xd8\xff\xd9")


def test_a_damaged_png_is_refused():
    content = bytearray(encoded(".png"))
    content[40:] = bytes(b ^ 0x55 for b in content[40:-12]) + content[-12:]
    with pytest.raises(ImageFormatError, match="damaged"):
        bgr_from_compressed(content)


def test_other_formats_are_named():
    with pytest.raises(
        ImageFormatError,
        match=r"\(format 'h264'\) must be JPEG or PNG; got 5 bytes .* 00 00 00 01 67",
    ):
        bgr_from_compressed(b"\0\0\0\x01\x67", "h264")
    with pytest.raises(ImageFormatError, match="got 0 bytes that start with nothing"):
        bgr_from_compressed(b"")

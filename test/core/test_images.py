import zlib
from array import array

import cv2
import numpy as np
import pytest

from mbnet_perception.core.images import (
    ImageFormatError,
    Picture,
    picture_from_compressed,
    picture_from_raw,
)

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
    picture = picture_from_raw(bytes(values), 2, 2, encoding, step)
    assert picture.bgr().dtype == np.uint8
    np.testing.assert_array_equal(picture.bgr(), PICTURE)
    np.testing.assert_array_equal(picture.resized_rgb((2, 2)), PICTURE[..., ::-1])


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_mono_becomes_grey(encoding):
    picture = picture_from_raw(MONO.tobytes(), 2, 2, encoding, 2)
    grey = np.stack([MONO] * 3, axis=-1)
    np.testing.assert_array_equal(picture.bgr(), grey)
    np.testing.assert_array_equal(picture.resized_rgb((2, 2)), grey)


ORDERS = {
    "bgr8": ("bgr", (..., [0, 1, 2])),
    "rgb8": ("rgb", (..., [2, 1, 0])),
    "bgra8": ("bgra", (..., [0, 1, 2, 0])),
    "rgba8": ("rgba", (..., [2, 1, 0, 0])),
    "mono8": ("grey", (..., 1)),
}


@pytest.mark.parametrize("encoding", ORDERS)
@pytest.mark.parametrize("size", [(12, 16), (30, 40), (7, 51), (90, 120)])
def test_colours_after_the_resize_are_those_of_a_picture_converted_before(encoding, size):
    order, channels = ORDERS[encoding]
    values = np.ascontiguousarray(np.random.default_rng(5).integers(0, 256, (60, 80, 3))[channels])
    picture = picture_from_raw(values.astype(np.uint8).tobytes(), 60, 80, encoding, values[0].size)
    assert picture.order == order
    before = Picture.of_bgr(picture.bgr())
    np.testing.assert_array_equal(picture.resized_rgb(size), before.resized_rgb(size))


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
    bgr = picture_from_raw(data, 2, 4, encoding, 8).bgr()
    assert bgr.shape == (2, 4, 3)
    np.testing.assert_allclose(bgr, expected, atol=2)
    assert expected[0, 0].argmax() == 2  # the first pixel is red


@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
def test_yuv420_follows_bt601(encoding):
    """Two by two pixels share a colour: here a red and a blue block, each brighter above."""
    above, below = [81, 81, 41, 70], [50, 50, 30, 30]
    (u, v), (other_u, other_v) = colours = [(90, 240), (240, 110)]
    order = 1 if encoding == "nv12" else -1
    data = bytes([*above, *below, *(value for pair in colours for value in pair[::order])])
    expected = [
        [*yuv_pair_to_bgr(a, u, b, v), *yuv_pair_to_bgr(c, other_u, d, other_v)]
        for a, b, c, d in (above, below)
    ]
    bgr = picture_from_raw(data, 2, 4, encoding, 4).bgr()
    assert bgr.shape == (2, 4, 3)
    np.testing.assert_allclose(bgr, expected, atol=2)
    assert bgr[0, 0].argmax() == 2  # red
    assert bgr[1, 3].argmax() == 0  # blue


@pytest.mark.parametrize(
    ("encoding", "row", "count"),
    [
        *[("bgr8", 6, 2), ("rgb8", 6, 2), ("rgba8", 8, 2), ("mono8", 2, 2), ("uyvy", 4, 2)],
        *[("yuyv", 4, 2), ("nv12", 2, 3), ("nv21", 2, 3)],
    ],
)
def test_padding_after_each_row_is_skipped(encoding, row, count):
    rows = np.random.default_rng(0).integers(0, 256, (count, row), np.uint8)
    padded = np.pad(rows, ((0, 0), (0, 3)), constant_values=99)
    np.testing.assert_array_equal(
        picture_from_raw(padded.tobytes(), 2, 2, encoding, row + 3).bgr(),
        picture_from_raw(rows.tobytes(), 2, 2, encoding, row).bgr(),
    )


@pytest.mark.parametrize(
    ("encoding", "row"),
    [("bgr8", 6), ("8UC3", 6), ("rgb8", 6), ("bgra8", 8), ("rgba8", 8), ("mono8", 2), ("8UC1", 2)],
)
@pytest.mark.parametrize("padding", [0, 3])
def test_pixels_are_not_copied(encoding, row, padding):
    step = row + padding
    data = array("B", bytes(2 * step))  # what a received message holds
    picture = picture_from_raw(data, 2, 2, encoding, step)
    data[step + row - 1] = 200
    assert picture.pixels[1, 1].flat[-1] == 200


def test_a_bgr_picture_is_itself():
    assert Picture.of_bgr(PICTURE).bgr() is PICTURE


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        pytest.param(np.zeros((48, 64), np.uint8), r"got uint8 \(48, 64\)", id="grey"),
        pytest.param(np.zeros((48, 64, 4), np.uint8), r"got uint8 \(48, 64, 4\)", id="alpha"),
        pytest.param(np.zeros((48, 64, 3)), r"got float64 \(48, 64, 3\)", id="float"),
        pytest.param(np.zeros((0, 64, 3), np.uint8), "must be positive, got 0 x 64", id="no rows"),
        pytest.param(np.zeros(0, np.uint8), r"got uint8 \(0,\)", id="nothing"),
    ],
)
def test_what_is_no_picture_is_refused(pixels, message):
    with pytest.raises(ValueError, match=message):
        Picture.of_bgr(pixels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            (bytes(24), 2, 2, "rgb16", 12),
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
        pytest.param((b"", 2, 2, "bgr8", 6), "step 6 x height 2 = 12 bytes .*got 0", id="no data"),
        pytest.param(
            (bytes(12), 2, 2, "bgr8", 2**32 - 1),
            "step 4294967295 x height 2 .*got 12",
            id="huge step",
        ),
        pytest.param(
            (bytes(12), 2**32 - 1, 2**32 - 1, "bgr8", 6),
            "at most 33554432 pixels, got width 4294967295, height 4294967295",
            id="huge size",
        ),
        pytest.param(
            (bytes(12), 2, 3, "yuyv", 6),
            "yuyv image must have an even width, .*got width 3",
            id="odd yuv",
        ),
        pytest.param(
            (bytes(10), 3, 2, "nv12", 2),
            "nv12 image must have an even width and height.*height 3",
            id="odd rows",
        ),
        pytest.param(
            (bytes(8), 2, 4, "nv12", 4),
            "step 4 x height 2 x 3/2 = 12 bytes of data, got 8",
            id="no colours",
        ),
    ],
)
def test_raw_data_that_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ImageFormatError, match=message):
        picture_from_raw(*arguments)


NOISE = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
SCENE = cv2.GaussianBlur(NOISE, (9, 9), 3)


def encoded(extension, bgr=SCENE):
    return cv2.imencode(extension, bgr)[1].tobytes()


def test_png_comes_back_exactly():
    picture = picture_from_compressed(encoded(".png"), long_side=8)
    assert (picture.height, picture.width) == (48, 64)
    np.testing.assert_array_equal(picture.bgr(), SCENE)


def test_jpeg_comes_back_nearly():
    bgr = picture_from_compressed(array("B", encoded(".jpg"))).bgr()
    assert bgr.shape == SCENE.shape
    assert np.abs(bgr.astype(int) - SCENE).mean() < 6


@pytest.mark.parametrize(
    ("size", "long_side", "expected"),
    [
        pytest.param((960, 1280), 320, (240, 320), id="a quarter, to the pixel"),
        pytest.param((960, 1280), 321, (480, 640), id="a half, as a quarter were too few"),
        pytest.param((480, 640), 320, (240, 320), id="a half, to the pixel"),
        pytest.param((480, 640), 224, (240, 320), id="a half, as a quarter is 160"),
        pytest.param((640, 480), 80, (80, 60), id="an eighth of a tall one"),
        pytest.param((640, 480), 10, (80, 60), id="no less than an eighth"),
        pytest.param((47, 63), 32, (24, 32), id="rounded up"),
        pytest.param((48, 64), 33, (48, 64), id="whole, as a half were too few"),
        pytest.param((48, 64), 1000, (48, 64), id="never enlarged"),
        pytest.param((480, 640), 0, (480, 640), id="whole if not told"),
    ],
)
def test_a_jpeg_is_decoded_at_reduced_scale(size, long_side, expected):
    content = cv2.imencode(".jpg", np.full((*size, 3), (200, 100, 50), np.uint8))[1].tobytes()
    picture = picture_from_compressed(content, long_side=long_side)
    assert (picture.height, picture.width) == size
    assert picture.pixels.shape == (*expected, 3)
    assert np.abs(picture.bgr() - np.array([200.0, 100, 50])).max() < 4


def test_a_reduced_jpeg_shows_the_whole_picture():
    picture = picture_from_compressed(encoded(".jpg"), long_side=16)
    averaged = cv2.resize(SCENE, (16, 12), interpolation=cv2.INTER_AREA)
    assert np.abs(picture.bgr().astype(int) - averaged).mean() < 6


def test_grey_jpeg_has_three_channels():
    content = cv2.imencode(".jpg", SCENE[..., 0])[1].tobytes()
    assert picture_from_compressed(content).bgr().shape == SCENE.shape
    assert picture_from_compressed(content, long_side=16).bgr().shape == (12, 16, 3)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(bytes(100), id="zeros"),
        pytest.param(b"\xff" * 4, id="fill bytes"),
        pytest.param(b"junk", id="text"),
        pytest.param(np.random.default_rng(2).bytes(100_000), id="longer than the file"),
        pytest.param(cv2.imencode(".jpg", NOISE)[1].tobytes()[1000:], id="rest of an older one"),
    ],
)
def test_what_follows_the_end_of_a_file_is_left_out(extension, tail):
    content = encoded(extension)
    np.testing.assert_array_equal(
        picture_from_compressed(content + tail).bgr(), picture_from_compressed(content).bgr()
    )


def with_exif(content, tiff):
    app1 = b"Exif\0\0" + tiff
    return content[:2] + b"\xff\xe1" + (len(app1) + 2).to_bytes(2, "big") + app1 + content[2:]


@pytest.mark.parametrize("missing", [0.001, 0.1, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("tail", [b"", bytes(100), b"junk"])
def test_the_end_of_a_thumbnail_is_not_that_of_the_picture(missing, tail):
    content = encoded(".jpg")
    whole = with_exif(content, encoded(".jpg", SCENE[::4, ::4]) + b"II")
    np.testing.assert_array_equal(
        picture_from_compressed(whole + tail).bgr(), picture_from_compressed(content).bgr()
    )
    left = whole[: -int(missing * len(content))]  # the last time, the segment lacks its last bytes
    assert b"\xff\xd9" in left
    with pytest.raises(ImageFormatError, match="truncated"):
        picture_from_compressed(left + tail)


def test_exif_orientation_is_not_applied():
    # A TIFF block with one entry: tag 0x0112 (orientation), SHORT, one value, 6 (rotate by 90).
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    content = encoded(".jpg")
    tagged = with_exif(content, tiff)
    assert cv2.imdecode(np.frombuffer(tagged, np.uint8), cv2.IMREAD_COLOR).shape == (64, 48, 3)
    for long_side in (0, 32):
        np.testing.assert_array_equal(
            picture_from_compressed(tagged, long_side=long_side).bgr(),
            picture_from_compressed(content, long_side=long_side).bgr(),
        )


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(extension, share):
    content = encoded(extension)
    with pytest.raises(ImageFormatError, match="truncated"):
        picture_from_compressed(content[: int(share * len(content))])


def jpeg_that_claims(width, height, bgr=SCENE):
    content = encoded(".jpg", bgr)
    at = content.index(b"\xff\xc0") + 5
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return content[:at] + size + content[at + 4 :]


def png_that_claims(width, height, bgr=SCENE):
    content = encoded(".png", bgr)
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + content[24:29]
    return content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content[33:]


@pytest.fixture
def undecoded(monkeypatch):
    """No decoder is to see this."""

    def decode(*arguments):
        raise AssertionError("the decoder was called")

    monkeypatch.setattr(cv2, "imdecode", decode)


@pytest.mark.parametrize("claiming", [jpeg_that_claims, png_that_claims])
def test_claiming_the_truth_is_fine(claiming):
    assert picture_from_compressed(claiming(64, 48)).bgr().shape == SCENE.shape


@pytest.mark.parametrize("claiming", [jpeg_that_claims, png_that_claims])
@pytest.mark.parametrize("size", [(65000, 65000), (0, 48)])
def test_absurd_sizes_are_refused_before_decoding(undecoded, claiming, size):
    with pytest.raises(
        ImageFormatError, match=rf"1 to 33554432 pixels.*width {size[0]}, height {size[1]}"
    ):
        picture_from_compressed(claiming(*size))


@pytest.mark.parametrize("claiming", [jpeg_that_claims, png_that_claims])
def test_a_size_that_the_bytes_cannot_hold_is_refused_before_decoding(undecoded, claiming):
    content = claiming(8192, 4096, np.zeros_like(SCENE))
    with pytest.raises(ImageFormatError, match=r"cannot hold .* says: width 8192, height 4096"):
        picture_from_compressed(content + bytes(100_000))


@pytest.mark.parametrize(
    ("extension", "options"),
    [
        pytest.param(".png", [cv2.IMWRITE_PNG_BILEVEL, 1], id="png of a bit a pixel"),
        pytest.param(".jpg", [], id="jpeg"),
        pytest.param(".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], id="progressive jpeg"),
    ],
)
def test_the_emptiest_picture_is_held_by_its_bytes(extension, options):
    options += [cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_QUALITY, 1]
    options += [cv2.IMWRITE_PNG_COMPRESSION, 9]
    black = np.zeros((4096, 8192), np.uint8)
    content = cv2.imencode(extension, black, options)[1].tobytes()
    assert picture_from_compressed(content, long_side=1024).bgr().max() < 2


def test_a_jpeg_without_a_frame_header_is_refused():
    with pytest.raises(ImageFormatError, match="says no size"):
        picture_from_compressed(b"\xff\xd8\xff\xd9")


def test_a_damaged_png_is_refused():
    content = bytearray(encoded(".png"))
    content[40:] = bytes(b ^ 0x55 for b in content[40:-12]) + content[-12:]
    with pytest.raises(ImageFormatError, match="damaged"):
        picture_from_compressed(content)


def test_other_formats_are_named():
    with pytest.raises(
        ImageFormatError,
        match=r"\(format 'h264'\) must be JPEG or PNG; got 5 bytes .* 00 00 00 01 67",
    ):
        picture_from_compressed(b"\0\0\0\x01\x67", "h264")
    with pytest.raises(ImageFormatError, match="got 0 bytes that start with nothing"):
        picture_from_compressed(b"")


def test_random_raw_images_are_pictures_or_refused():
    rng = np.random.default_rng(7)
    encodings = [*RAW, "mono8", "8UC1", "uyvy", "yuv422", "yuyv", "yuv422_yuy2"]
    encodings += ["nv12", "nv21", "bayer_rggb8", ""]
    outcomes = []
    for _ in range(3000):
        encoding = encodings[rng.integers(len(encodings))]
        height, width = rng.integers(0, 9, 2).tolist()
        step = int(rng.choice([width, 2 * width, 3 * width, 4 * width, 40, 2**32 - 1]))
        rows = height * 3 // 2 if encoding.startswith("nv") else height
        length = int(rng.choice([min(step, 40) * rows, rng.integers(400)]))
        try:
            picture = picture_from_raw(rng.bytes(length), height, width, encoding, step)
        except ImageFormatError:
            outcomes.append("refused")
            continue
        assert picture.bgr().shape == (height, width, 3)
        assert picture.resized_rgb((32, 48)).shape == (32, 48, 3)
        outcomes.append("read")
    assert min(outcomes.count("read"), outcomes.count("refused")) > 300


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_damaged_files_are_pictures_of_their_size_or_refused(extension):
    rng = np.random.default_rng(8)
    whole = encoded(extension)
    outcomes = []
    for _ in range(1500):
        content = bytearray(whole)
        for _ in range(rng.integers(1, 6)):
            # Half of the damage goes to the headers.
            at = rng.integers(min(len(content), 700) if rng.random() < 0.5 else len(content))
            content[at] = rng.integers(256)
        if rng.random() < 0.3:  # a piece is missing, the ends are there
            start, stop = sorted(rng.integers(2, len(content) - 12, 2))
            del content[start:stop]
        long_side = int(rng.choice([0, 8, 16, 32]))
        try:
            picture = picture_from_compressed(content, long_side=long_side)
        except ImageFormatError:
            outcomes.append("refused")
            continue
        assert picture.pixels.shape[0] * 8 >= picture.height
        assert picture.resized_rgb((32, 48)).shape == (32, 48, 3)
        outcomes.append("read")
    assert outcomes.count("refused") > 100

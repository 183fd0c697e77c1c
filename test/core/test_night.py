import cv2
import numpy as np
import pytest

from mbnet_perception.core.night import (
    DAY,
    NIGHTS,
    Night,
    add_night,
    expose,
    from_srgb,
    light_by_night,
    light_colour,
    night_illuminance,
    night_light,
    night_of,
    to_srgb,
)
from mbnet_perception.core.scene import DrivingScene

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
GREY = 124  # sRGB of the linear value 0.2, the mean of a picture by day


def flat(value, height=120, width=160):
    return np.full((height, width, 3), value, np.uint8)


def street(seed=3):
    return np.ascontiguousarray(DrivingScene(seed, (160, 120)).render(1.0)[0][..., ::-1])


def lit(image, severity, depth=None, seed=0):
    night = night_of(night_illuminance(severity))
    return light_by_night(image, night_light(image, night, seed), depth)


def mean_light(image):
    return from_srgb(image).mean(axis=(0, 1)) @ LUMINANCE


# Share of the light of an overcast day, at 10,000 lx and 1 ms: lux / 10,000 x ms x gain.
@pytest.mark.parametrize(
    ("severity", "share"),
    [
        pytest.param(1, 0.3, id="100 lx, 10 ms, gain 3"),
        pytest.param(2, 0.2, id="25 lx, 20 ms, gain 4"),
        pytest.param(3, 0.126, id="7 lx, 30 ms, gain 6"),
        pytest.param(4, 0.0462, id="2 lx, 33 ms, gain 7"),
        pytest.param(5, 0.01056, id="0.4 lx, 33 ms, gain 8"),
    ],
)
def test_grey_is_as_dark_as_light_and_camera_make_it(severity, share):
    # The top row is far above the headlamps. A grey that dark is hardly taken for sky.
    top = lit(flat(GREY), severity)[0] @ LUMINANCE
    np.testing.assert_allclose(top, 0.2 * share, rtol=0.04)


def test_the_whole_kernel_keeps_the_exposure():
    top = from_srgb(add_night(flat(GREY), NIGHTS[0].illuminance, 1))[:20]
    assert top.mean(axis=(0, 1)) @ LUMINANCE == pytest.approx(0.2 * 0.3, rel=0.03)


def test_linear_light_and_back():
    greys = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
    light = from_srgb(greys)
    np.testing.assert_array_equal(to_srgb(light), greys)
    # IEC 61966-2-1: 0.04045 / 12.92 where the line ends, ((0.5 + 0.055) / 1.055) ** 2.4 = 0.2140.
    assert light[0, 10, 0] == pytest.approx(10 / 255 / 12.92)
    assert light[0, 127, 0] == pytest.approx(0.2122, abs=1e-4)
    assert light[0, 255, 0] == 1


@pytest.mark.parametrize(
    ("value", "gain", "deviation"),
    [
        # Gain 8 leaves 4000 / 8 = 500 electrons for white. 0.25 of it are 125 of variance 125, and
        # 3 squared come from reading: sqrt(134) / 500.
        pytest.param(0.25, 8.0, 0.02315, id="mostly shot noise"),
        # 4000 electrons for white, 2000 here: sqrt(2009) / 4000.
        pytest.param(0.5, 1.0, 0.01121, id="by day"),
        # 400 electrons for white, 40 here: sqrt(49) / 400.
        pytest.param(0.1, 10.0, 0.0175, id="much gain"),
    ],
)
def test_noise_follows_the_count_of_electrons(value, gain, deviation):
    light = np.full((240, 320, 3), value, np.float32)
    pictures = [from_srgb(expose(light, gain, 5, frame)) for frame in range(2)]
    for picture in pictures:
        np.testing.assert_allclose(picture.mean(axis=(0, 1)), value, rtol=0.01)
        np.testing.assert_allclose(picture.std(axis=(0, 1)), deviation, rtol=0.03)
    red, green, _ = np.moveaxis(pictures[0], 2, 0)
    for other in (green, pictures[1][..., 0], np.roll(red, 1, 0), np.roll(red, 1, 1)):
        assert abs(np.corrcoef(red.ravel(), other.ravel())[0, 1]) < 0.02


def test_reading_alone_makes_noise_in_the_dark():
    black = expose(np.zeros((100, 100, 3), np.float32), 10.0, 1)
    # Half of the values fall below black and are clipped.
    assert 0.4 < np.mean(black == 0) < 0.7
    assert black.max() > 10


def test_pictures_larger_than_the_stored_noise():
    picture = from_srgb(expose(np.full((900, 1100, 3), 0.25, np.float32), 8.0, 2))
    assert picture.std() == pytest.approx(0.02315, rel=0.02)


RED, GREEN, AMBER = (250, 60, 50), (60, 220, 170), (255, 170, 60)


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("colour", [RED, GREEN, AMBER], ids=["red", "green", "amber"])
def test_lamps_stay_bright_and_glow(colour, severity):
    image = flat(GREY)
    cv2.circle(image, (80, 20), 3, colour, -1)
    light = lit(image, severity)
    dark = lit(flat(GREY), severity)
    strongest = np.argmax(colour)
    assert light[20, 80, strongest] > 0.85 * from_srgb(image)[20, 80, strongest]
    glow = (light - dark)[20, :, strongest]
    assert glow[86] > 0.002  # three pixels outside
    assert glow[86] > 2 * glow[95] >= 0
    assert abs(glow[10]) < 1e-3


@pytest.mark.parametrize(
    "colour",
    [
        pytest.param((250, 220, 40), id="yellow"),
        pytest.param((220, 180, 150), id="skin"),
        pytest.param((80, 150, 60), id="leaf"),
        pytest.param((30, 110, 220), id="blue"),
        pytest.param((255, 255, 255), id="white"),
    ],
)
def test_bright_things_are_no_lamps_by_day(colour):
    image = flat(GREY)
    cv2.circle(image, (80, 20), 3, colour, -1)
    assert lit(image, 4)[20, 80].max() < 0.1


def test_what_is_large_is_no_lamp():
    image = flat(GREY)
    image[:40, 60:110] = RED
    assert lit(image, 4)[20, 85].max() < 0.1


def test_white_lamps_stay_bright_in_a_dark_picture():
    image = flat(8)
    cv2.circle(image, (80, 20), 3, (255, 255, 255), -1)
    assert lit(image, 5)[20, 80].min() > 0.6


def test_headlamps_light_the_near_road_ahead():
    bright = lit(flat(GREY), 5) @ LUMINANCE
    near, far, side, sky = bright[110, 80], bright[58, 80], bright[110, 2], bright[5, 80]
    assert near > 2 * far
    assert near > 2 * side
    assert near > 10 * sky
    np.testing.assert_allclose(bright, bright[:, ::-1], atol=1e-3)


def test_headlamps_fade_with_the_distance_given():
    image = flat(GREY)
    night = night_of(0.4)
    around = night_light(image, night, 0).around

    def own(distance):
        light = lit(image, 5, np.full(image.shape[:2], distance, np.float32))
        return light[90, 80] - from_srgb(image)[90, 80] * around

    # 1 / (1 + (d / 14 m)^2)
    np.testing.assert_allclose(own(14.0) / own(0.0), 0.5, rtol=0.01)
    np.testing.assert_allclose(own(28.0) / own(0.0), 0.2, rtol=0.01)
    # 20 lx x 33 ms x gain 8 over 10,000 lx x 1 ms.
    assert own(0.0) @ LUMINANCE == pytest.approx(0.2 * 0.528, rel=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_darker_with_severity(seed):
    image = street(seed)
    means = [mean_light(image)]
    means += [mean_light(add_night(image, night_illuminance(s), seed)) for s in (1, 2, 3, 4, 5)]
    assert all(np.diff(means) < 0), means


def test_a_bright_sky_loses_more_than_the_rest_when_lamps_light_the_scene():
    image = flat(GREY)
    image[:40] = (170, 200, 240)
    dusk, night = lit(image, 1), lit(image, 4)
    assert dusk[5, 5] @ LUMINANCE > 2 * dusk[60, 5] @ LUMINANCE
    assert night[5, 5] @ LUMINANCE < night[60, 5] @ LUMINANCE


def test_dark_pictures_are_darkened_by_less_and_can_still_be_told_from_noise():
    image = flat(6)
    image[:, 60:100] = 45
    darker = mean_light(to_srgb(lit(image, 5))) / mean_light(image)
    assert darker > 3 * mean_light(to_srgb(lit(flat(GREY), 5))) / mean_light(flat(GREY))
    night = add_night(image, night_illuminance(5), 1).astype(float)
    assert night[:, 60:100].mean() > 1.5 * night[:, :50].mean()
    dusk = add_night(image, night_illuminance(1), 1)
    assert mean_light(dusk) > 0.7 * mean_light(image)


def test_lights_have_the_colour_of_their_temperature():
    colours = np.array([light_colour(kelvin) for kelvin in range(2000, 15000, 500)])
    assert all(np.diff(colours[:, 0]) < 0)
    assert all(np.diff(colours[:, 2]) > 0)
    for kelvin in (2000, 2221, 2222, 3999, 4000, 14000):
        assert light_colour(kelvin) @ LUMINANCE == pytest.approx(1)
    # A black body of sRGB's white is hardly pinker than that.
    np.testing.assert_allclose(light_colour(6504), 1, atol=0.03)
    # The pieces of the approximation meet.
    np.testing.assert_allclose(light_colour(3999), light_colour(4001), atol=0.005)
    np.testing.assert_allclose(light_colour(2221), light_colour(2223), atol=0.005)


def test_seeds_differ_in_their_lamps():
    tops = np.array([lit(flat(GREY), 4, seed=seed)[0, 0] for seed in range(12)])
    tints = tops[:, 0] / tops[:, 2]
    assert tints.max() > 1.5 * tints.min()
    np.testing.assert_allclose(tops @ LUMINANCE, (tops @ LUMINANCE).mean(), rtol=0.02)


@pytest.mark.parametrize(
    ("column", "spread"),
    [
        # 10 m/s for 33 ms are 0.33 m; what is 15 m away grows by 2.2 %, half of it to either side.
        pytest.param(389, 2, id="181.5 pixels from the middle: 2.0 to either side"),
        pytest.param(207, 0, id="straight ahead"),
    ],
)
def test_a_long_exposure_blurs_away_from_the_middle(column, spread):
    assert NIGHTS[4].growth == pytest.approx(0.022)
    light = np.zeros((240, 416, 3), np.float32)
    light[:, column] = 0.3
    for picture in (to_srgb(light, growth=0.022), expose(light, 1.0, 1, growth=0.022)):
        row = from_srgb(picture)[200, :, 1]
        third = 0.1 if spread else 0.3  # before, in the middle of and after the exposure
        places = [column - spread, column, column + spread]
        np.testing.assert_allclose(row[places], third, atol=0.02)
        assert row[column - 6 : column + 7].sum() == pytest.approx(0.3, abs=0.04)


def test_nothing_moves_up_or_down_at_the_horizon_and_most_at_the_bottom():
    light = np.zeros((400, 416, 3), np.float32)
    light[180] = light[380] = 0.3  # the horizon is at 0.45 of the height: between 179 and 180
    blurred = from_srgb(to_srgb(light, growth=0.022))[:, 207, 0]
    assert blurred[180] == pytest.approx(0.3, abs=0.01)
    # 200.5 rows below: 2.2 up and 2.2 down.
    for row in (378, 380, 382):
        assert 0.06 < blurred[row] < 0.12
    assert blurred[379] < 0.03


def test_strips_meet_without_a_seam():
    # Tall enough for many strips; a lamp's glow and the blur cross their borders.
    image = flat(GREY, 400, 400)
    cv2.circle(image, (200, 160), 8, RED, -1)
    picture = to_srgb(lit(image, 4), growth=0.022).astype(int)
    steps = np.abs(np.diff(picture[100:150, 200, 0]))
    assert steps.max() <= 4
    mirrored = to_srgb(lit(image[:, ::-1], 4), growth=0.022)[:, ::-1].astype(int)
    assert np.abs(picture[:, 20:-20] - mirrored[:, 20:-20]).max() <= 12


def test_follows_from_its_arguments_alone():
    image = street()
    image.flags.writeable = False
    before = image.copy()
    frames = [add_night(image, 2.0, 7, frame) for frame in range(3)]
    np.random.seed(1)  # noqa: NPY002 - the global generator must not matter
    cv2.setRNGSeed(1)
    for frame in (2, 0, 1):
        np.testing.assert_array_equal(add_night(image, 2.0, 7, frame), frames[frame])
    np.testing.assert_array_equal(image, before)
    assert np.any(frames[0] != frames[1])
    # Another frame is the same scene with other noise.
    small = [cv2.resize(f, (8, 6), interpolation=cv2.INTER_AREA).astype(int) for f in frames]
    assert abs(small[0] - small[1]).max() <= 3
    assert np.any(add_night(image, 2.0, 8) != frames[0])
    np.testing.assert_array_equal(add_night(image, 2.0, -7), add_night(image, 2.0, np.int64(-7)))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 3), (5, 7), (33, 61)])
def test_any_size(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for illuminance in (100.0, 0.4):
        night = add_night(image, illuminance, 0)
        assert night.shape == image.shape
        assert night.dtype == np.uint8


def test_views_and_own_memory():
    image = street()
    for view in (image[::-1], image[:, ::-1], image[::2, 1::3], image[..., ::-1]):
        np.testing.assert_array_equal(add_night(view, 5.0, 1), add_night(view.copy(), 5.0, 1))
    assert not np.shares_memory(add_night(image, 5.0, 1), image)


def test_the_camera_answers_between_the_rows_of_the_table():
    for severity, night in enumerate(NIGHTS, start=1):
        assert night_illuminance(severity) == pytest.approx(night.illuminance)
        assert night_of(night.illuminance) == pytest.approx(night)
    # By equal ratios: sqrt(100 x 25) lx, sqrt(10 x 20) ms, sqrt(3 x 4).
    assert night_illuminance(1.5) == pytest.approx(50)
    assert night_of(50) == pytest.approx(Night(50, 0.01414, 3.4641), rel=1e-3)
    assert night_of(0.01)[1:] == pytest.approx(NIGHTS[-1][1:])
    assert night_of(DAY.illuminance)[1:] == pytest.approx(NIGHTS[0][1:])


@pytest.mark.parametrize("illuminance", [0, -1.0, float("inf"), float("nan")])
def test_names_an_illuminance_that_is_none(illuminance):
    with pytest.raises(ValueError, match=rf"positive and finite \(lux\), got {illuminance}"):
        add_night(flat(GREY), illuminance, 0)


def test_names_a_picture_that_is_none():
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8 RGB .* got float32 \(4, 4, 3\)"):
        add_night(np.zeros((4, 4, 3), np.float32), 1.0, 0)

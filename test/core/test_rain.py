import math

import numpy as np
import pytest

from mbnet_perception.core.fog import add_fog
from mbnet_perception.core.rain import (
    RAIN_RATE,
    add_rain,
    drop_slope,
    fall_speed,
    rain_extinction,
    rain_rate,
    rain_streaks,
)

SHAPE = (240, 320)


def street(height=120, width=160):
    """Squares of all colours, and a bright sky."""
    rng = np.random.default_rng(5)
    squares = rng.integers(0, 160, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    picture = squares.repeat(8, axis=0).repeat(8, axis=1)[:height, :width].copy()
    picture[: height // 4] = (150, 180, 210)
    return picture


def light(picture):
    return (picture / 255) ** 2


def centre_of(streaks):
    rows, columns = np.nonzero(streaks)
    weights = streaks[rows, columns]
    return np.average(rows, weights=weights), np.average(columns, weights=weights)


def rain_one_drop(monkeypatch, x):
    """Let it rain one drop of 3 mm, 1 m ahead, at x of the box's width, without wind."""

    class OneDrop:
        def random(self, shape=None, dtype=np.float64):
            if shape is None:
                return 0.5  # of the wind from one side to the other
            # u for D = 3: 1 - exp(-slope (3 - 2)); depth 0.5 + 0.2 * 2.5 = 1.
            share = 1 - math.exp(-drop_slope(1.0))
            return np.array([[x, 0.45, 0.2, share]], dtype)  # 0.45 is the horizon

    monkeypatch.setattr("mbnet_perception.core.rain.random_stream", lambda seed, purpose: OneDrop())


@pytest.fixture
def one_drop(monkeypatch):
    rain_one_drop(monkeypatch, 0.5)


def test_drop_sizes_follow_marshall_and_palmer():
    assert drop_slope(1.0) == pytest.approx(4.1)
    # Their law carries about as much water as falls: D^3 pi / 6 at the speed that goes with D.
    diameter = np.linspace(0.6, 5.8, 2000).astype(np.float32)
    for rate in RAIN_RATE:
        number = 8000 * np.exp(-drop_slope(rate) * diameter)  # in a m3 per mm
        flow = number * np.pi / 6 * (diameter * 1e-3) ** 3 * fall_speed(diameter)  # m/s per mm
        water = flow.sum() * (diameter[1] - diameter[0]) * 3600e3  # mm/h
        assert water == pytest.approx(rate, rel=0.2)


@pytest.mark.parametrize(
    ("diameter", "speed"),
    [  # Gunn and Kinzer (1949), table 2
        pytest.param(1.0, 4.03, id="1 mm"),
        pytest.param(2.0, 6.49, id="2 mm"),
        pytest.param(3.0, 8.06, id="3 mm"),
        pytest.param(5.0, 9.09, id="5 mm"),
    ],
)
def test_drops_fall_as_fast_as_was_measured(diameter, speed):
    assert fall_speed(np.array([diameter], np.float32))[0] == pytest.approx(speed, rel=0.03)


def test_extinction_is_that_of_all_drops():
    diameter = np.linspace(0, 30, 30001)
    for rate in (5.0, 100.0):
        area = np.pi / 4 * (diameter * 1e-3) ** 2 * 8000 * np.exp(-drop_slope(rate) * diameter)
        assert rain_extinction(rate) == pytest.approx(2 * area.sum() * 1e-3, rel=1e-3)


def test_extinction_agrees_with_links_of_light_through_rain():
    # ITU-R P.1814: 1.076 R^0.67 dB/km; 4.343 dB are a factor of e.
    for rate in RAIN_RATE:
        assert rain_extinction(rate) * 4343 == pytest.approx(1.076 * rate**0.67, rel=0.4)


def test_a_streak_is_as_long_as_the_drop_falls_and_the_camera_sees_it(one_drop):
    # 3 mm fall at 7.947 m/s: in 0.01 s and at 1 m, with a focal length of 320 pixels, 25.4 pixels.
    streaks = rain_streaks(SHAPE, 1.0, 0, exposure=0.01, speed=0.0)
    rows, columns = np.nonzero(streaks > 0.3 * streaks.max())
    assert np.ptp(rows) == pytest.approx(25.4, abs=3)
    assert np.ptp(columns) <= 2
    longer = rain_streaks(SHAPE, 1.0, 0, exposure=0.02, speed=0.0)
    assert np.ptp(np.nonzero(longer > 0.3 * longer.max())[0]) == pytest.approx(50.9, abs=3)


def test_a_streak_is_fainter_the_longer_the_shutter_is_open(one_drop):
    short = rain_streaks(SHAPE, 1.0, 0, exposure=0.005, speed=0.0)
    long = rain_streaks(SHAPE, 1.0, 0, exposure=0.02, speed=0.0)
    assert long.max() < 0.5 * short.max()


def test_a_streak_moves_down_by_speed_over_rate(one_drop):
    # 7.947 m/s in a frame of 1/100 s, at 1 m and 320 pixels: as above 25.4 pixels.
    before = centre_of(rain_streaks(SHAPE, 1.0, 0, 0.0, speed=0.0))
    after = centre_of(rain_streaks(SHAPE, 1.0, 0, 1 / 100, speed=0.0))
    assert after[0] - before[0] == pytest.approx(25.4, abs=1)
    assert after[1] == pytest.approx(before[1], abs=0.5)


def test_what_leaves_below_comes_in_again_above(one_drop):
    # Up to 3 m ahead the camera sees 240 / 320 * 3 = 2.25 m from top to bottom.
    once_round = 2.25 / float(fall_speed(np.array([3.0], np.float32))[0])
    first = rain_streaks(SHAPE, 1.0, 0, 0.0, speed=0.0)
    again = rain_streaks(SHAPE, 1.0, 0, once_round, speed=0.0)
    np.testing.assert_allclose(centre_of(first), centre_of(again), atol=0.2)


def test_driving_into_the_rain_draws_streaks_outwards(monkeypatch):
    # The box is 3 m wide: 0.6 of it is 0.3 m right of the middle, 96 pixels at 1 m. At 20 m/s the
    # drop is 0.8 m away when the shutter closes: 120 pixels.
    rain_one_drop(monkeypatch, 0.6)
    streaks = rain_streaks(SHAPE, 1.0, 0, exposure=0.01, speed=20.0)
    columns = np.nonzero(streaks > 0.3 * streaks.max())[1]
    assert columns.min() == pytest.approx(160 + 96, abs=2)
    assert columns.max() == pytest.approx(160 + 120, abs=2)


def test_the_seed_decides_about_the_wind():
    def slant(seed):
        """How far right streaks go on their way down, from the gradients across them."""
        streaks = rain_streaks(SHAPE, 50.0, seed, speed=0.0).astype(float)
        down, right = np.gradient(streaks)
        return -(down * right).sum() / (right * right).sum()

    slants = [slant(seed) for seed in range(8)]
    assert min(slants) < -0.1
    assert max(slants) > 0.1


def test_more_rain_has_more_streaks():
    covered = [np.count_nonzero(rain_streaks(SHAPE, rate, 4)) for rate in RAIN_RATE]
    assert (np.diff(covered) > 0).all()
    assert covered[0] > 0


def test_the_time_may_be_that_of_a_clock():
    # 1.7e9 s since 1970; a float32 would not know the minute.
    now, soon = (rain_streaks(SHAPE, 25.0, 4, 1.7e9 + extra) for extra in (0.0, 0.01))
    assert (now != soon).any()
    assert np.count_nonzero(now) == pytest.approx(np.count_nonzero(soon), rel=0.3)


def test_streaks_brighten_what_is_dark_and_not_the_sky():
    dark, bright = np.full((240, 320, 3), 20, np.uint8), np.full((240, 320, 3), 204, np.uint8)
    near = np.zeros(SHAPE, np.float32)
    sky = np.full(3, 0.64, np.float32)  # grey level 204
    streaks = rain_streaks(SHAPE, 50.0, 4) > 40
    streaks[100:] = False  # where the road is wet
    unlit = add_rain(dark, 50.0, 4, depth=near, airlight=sky)[streaks].astype(int)
    assert np.median(unlit) > 60
    lit = add_rain(bright, 50.0, 4, depth=near, airlight=sky)[streaks].astype(int)
    assert np.median(lit) == 204


def test_the_veil_thickens_with_depth():
    picture = np.full((240, 320, 3), 20, np.uint8)
    air = np.full(3, 0.64, np.float32)
    means = [
        add_rain(picture, 25.0, 4, depth=np.full(SHAPE, metres), airlight=air)[:100].mean()
        for metres in (0, 20, 50, 200)
    ]
    assert (np.diff(means) > 0).all()


def test_the_veil_is_thinner_than_fog():
    picture = street()
    depth = np.full(picture.shape[:2], 50.0)
    for severity in (1, 3, 5):
        rainy = add_rain(picture, rain_rate(severity), 4, depth=depth)
        foggy = add_fog(picture, 65.0, 4, depth=depth)
        assert rainy[30:50].std() > foggy[30:50].std()


def test_a_wet_road_is_darker():
    picture = np.full((240, 320, 3), 120, np.uint8)
    picture[:108] = 20
    # Streaks as bright as the dry road change nothing of their own.
    options = {"depth": np.zeros(SHAPE), "airlight": light(picture)[200, 200]}
    dry, wet, wetter = (
        light(rainy)[-20:].mean()
        for rainy in (picture, *(add_rain(picture, rate, 4, **options) for rate in (5.0, 50.0)))
    )
    assert 0.4 * dry < wetter < 0.9 * wet < 0.8 * dry


def test_a_wet_road_mirrors_what_is_above_it():
    picture = np.full((240, 320, 3), 60, np.uint8)
    lit = picture.copy()
    lit[68:88, :160] = 255  # 20 to 40 rows above the horizon, which is row 108
    options = {"depth": np.zeros(SHAPE), "airlight": np.zeros(3)}
    more = light(add_rain(lit, 50.0, 4, **options)) - light(add_rain(picture, 50.0, 4, **options))
    below = more[128:148, :150].mean()
    assert below > 0.03
    assert more[176:196, :150].mean() < 0.3 * below
    assert more[128:148, 170:].mean() < 0.1 * below


def test_more_severe_rain_changes_more():
    picture = street(240, 320)
    change = [
        np.abs(add_rain(picture, rain_rate(s), 4).astype(int) - picture).mean()
        for s in (1, 1.5, 2, 3, 4, 4.5, 5)
    ]
    assert (np.diff(change) > 0).all()


def test_the_worst_rain_still_shows_what_is_near():
    picture = street(240, 320)
    rainy = add_rain(picture, rain_rate(5), 4)
    assert rainy[-40:].std() > 0.35 * picture[-40:].std()


def test_severities_are_rates():
    assert [rain_rate(s) for s in (1, 2, 3, 4, 5)] == pytest.approx(list(RAIN_RATE))
    assert (np.diff(RAIN_RATE) > 0).all()


@pytest.fixture
def lens_only(monkeypatch):
    """Leaves of the rain only the drops on the lens."""
    monkeypatch.setattr(
        "mbnet_perception.core.rain.rain_streaks",
        lambda shape_hw, *_, **__: np.zeros(shape_hw, np.uint8),
    )
    picture = np.zeros((240, 320, 3), np.uint8)
    picture[..., 0] = np.arange(320) % 256
    picture[..., 1] = np.arange(240)[:, None]
    depth = np.zeros(SHAPE, np.float32)

    def changed(seed, time, rate=5.0):
        rainy = add_rain(picture, rate, seed, time, depth=depth)[:100].astype(int)
        return np.abs(rainy - picture[:100]).max(axis=2) > 12

    return changed


def test_drops_on_the_lens_stay_while_streaks_pass(lens_only):
    seeds = range(6)
    now, next_frame, later = (
        np.stack([lens_only(seed, time) for seed in seeds]) for time in (1.0, 1.0 + 1 / 15, 60.0)
    )
    assert 0 < now.mean() < 0.2

    def shared(a, b):
        return (a & b).sum() / (a | b).sum()

    assert shared(now, next_frame) > 0.85
    assert shared(now, later) < 0.2


def test_more_rain_has_more_drops_on_the_lens(lens_only):
    few, many = (sum(lens_only(seed, 0.0, rate).sum() for seed in range(4)) for rate in (5, 100))
    assert many > 1.5 * few


def test_any_order_of_frames_gives_the_same_pictures():
    picture = street()
    times = [frame / 15 for frame in range(4)]
    forwards = [add_rain(picture, 25.0, 7, time) for time in times]
    backwards = [add_rain(picture, 25.0, 7, time) for time in reversed(times)]
    for one, other in zip(forwards, reversed(backwards), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (forwards[0] != forwards[1]).any()


def test_another_seed_is_another_rain():
    picture = street()
    assert (add_rain(picture, 25.0, 7) != add_rain(picture, 25.0, 8)).any()
    assert (add_rain(picture, 25.0, 7) != add_rain(picture, 25.0, -7)).any()


@pytest.mark.parametrize("seed", [0, -1, 2**80, np.int64(-5), np.uint32(3)])
def test_any_integer_is_a_seed(seed):
    assert add_rain(street(), 25.0, seed).shape == (120, 160, 3)


def test_rain_does_not_touch_the_global_random_numbers():
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    add_rain(street(), 25.0, 7)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_the_input_stays_as_it_is():
    picture = street()
    picture.flags.writeable = False
    depth = np.full(picture.shape[:2], 20, np.float32)
    add_rain(picture, 100.0, 1, depth=depth)
    assert (depth == 20).all()


@pytest.mark.parametrize("shape", [(17, 33), (33, 17), (1, 1), (1, 50), (50, 1), (101, 203)])
def test_any_size(shape):
    picture = np.full((*shape, 3), 90, np.uint8)
    rainy = add_rain(picture, 100.0, 1)
    assert rainy.shape == picture.shape
    assert rainy.dtype == np.uint8


def test_a_grey_picture_stays_grey():
    grey = street()[..., :1].repeat(3, axis=2)
    rainy = add_rain(grey, 50.0, 1).astype(int)
    assert np.abs(rainy - rainy[..., :1]).max() == 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        pytest.param({"image": np.zeros((4, 4), np.uint8)}, r"got uint8 \(4, 4\)", id="grey"),
        pytest.param({"rate": 0}, "above 0 and up to 300 mm/h, got 0", id="no rain"),
        pytest.param({"rate": 301}, "up to 300 mm/h, got 301", id="too much rain"),
        pytest.param({"rate": np.nan}, "mm/h, got nan", id="rate nan"),
        pytest.param({"time": np.inf}, "time must be .* seconds, got inf", id="time inf"),
        pytest.param({"exposure": 0}, "exposure must be a positive number", id="no exposure"),
        pytest.param({"speed": np.inf}, "speed a number of metres in one, got .* inf", id="speed"),
        pytest.param(
            {"depth": np.ones((3, 4))}, r"shape \(4, 4\), got \(3, 4\)", id="depth's shape"
        ),
        pytest.param({"airlight": [2, 0, 0]}, "three numbers from 0 to 1", id="too bright"),
    ],
)
def test_a_wrong_argument_is_named(changes, named):
    arguments = {"image": np.zeros((4, 4, 3), np.uint8), "rate": 25.0, "seed": 1, **changes}
    with pytest.raises(ValueError, match=named):
        add_rain(**arguments)

import cv2
import numpy as np
import pytest

from mbnet_perception.core import weather
from mbnet_perception.core.night import add_night, from_srgb, night_illuminance
from mbnet_perception.core.scene import DrivingScene
from mbnet_perception.core.weather import CONDITIONS, SEVERITIES, apply_weather, milliseconds_since

WEATHERS = CONDITIONS[1:]


def street(size=(160, 120), seed=3):
    return np.ascontiguousarray(DrivingScene(seed, size).render(1.0)[0][..., ::-1])


def mean_light(image):
    return float(from_srgb(image).mean())


def test_what_there_is():
    assert CONDITIONS == ("clear", "fog", "rain", "night", "rain_night", "fog_night")
    assert SEVERITIES == (1, 2, 3, 4, 5)


def test_clear_is_the_picture_itself_whatever_the_severity():
    image = street()
    assert apply_weather(image, "clear", 0, 1) is image


@pytest.mark.parametrize("condition", WEATHERS)
def test_follows_from_its_arguments_alone(condition):
    image = street()
    image.flags.writeable = False
    before = image.copy()
    random_state = np.random.get_state()  # noqa: NPY002
    frames = [apply_weather(image, condition, 3, 11, frame) for frame in range(3)]
    np.testing.assert_array_equal(np.random.get_state()[1], random_state[1])  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    cv2.setRNGSeed(5)
    for frame in (2, 0, 1):
        np.testing.assert_array_equal(
            apply_weather(image, condition, 3.0, np.int64(11), np.int64(frame)), frames[frame]
        )
    np.testing.assert_array_equal(image, before)
    for picture in frames:
        assert picture.shape == image.shape
        assert picture.dtype == np.uint8
        assert not np.shares_memory(picture, image)
        assert np.any(picture != image)
    assert np.any(frames[0] != frames[1])
    assert np.any(apply_weather(image, condition, 3, 12) != frames[0])
    apply_weather(image, condition, 3, -1)


@pytest.mark.parametrize(
    ("nanoseconds", "milliseconds"),
    [
        (0, 0),
        (499_999, 0),
        (500_001, 1),
        (33_333_333, 33),
        (3600 * 10**9, 3_600_000),
        (-(10**9), -1000),
    ],
)
def test_the_number_of_a_picture_follows_from_its_stamp(nanoseconds, milliseconds):
    start = 1_750_000_000 * 10**9
    assert milliseconds_since(start, start + nanoseconds) == milliseconds


@pytest.mark.parametrize("condition", ["fog", "rain"])
def test_weather_moves_with_time_not_with_the_number_of_the_frame(condition):
    image = street()
    np.testing.assert_array_equal(
        apply_weather(image, condition, 4, 2, frame=10, rate=20.0),
        apply_weather(image, condition, 4, 2, frame=5, rate=10.0),
    )


@pytest.mark.parametrize("condition", WEATHERS)
def test_the_scene_is_harder_to_see_the_severer_it_is(condition):
    # How well the picture still follows the clear one: mean of correlations over 8 x 8 cells of
    # 20 x 15 pixels, so that neither brightness nor its fall towards the edges counts.
    def cells(picture):
        luminance = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(float)
        cut = luminance.reshape(8, 15, 8, 20).swapaxes(1, 2).reshape(64, -1)
        return cut - cut.mean(1, keepdims=True)

    likeness = []
    scenes = [street(seed=seed) for seed in (3, 4)]
    for severity in SEVERITIES:
        products = []
        for scene in scenes:
            a, b = cells(scene), cells(apply_weather(scene, condition, severity, 1))
            products.append(np.sum(a * b, 1) / (np.sqrt(np.sum(a * a, 1) * np.sum(b * b, 1)) + 20))
        likeness.append(np.mean(products))
    assert all(np.diff(likeness) < 0), likeness
    assert likeness[0] > 0.6


@pytest.mark.parametrize("condition", WEATHERS)
def test_severities_lie_between_their_neighbours(condition):
    image = street()
    one, between, two = (
        apply_weather(image, condition, s, 1).astype(float).mean() for s in (2, 2.5, 3)
    )
    assert min(one, two) - 1 < between < max(one, two) + 1


@pytest.mark.parametrize("condition", ["rain_night", "fog_night"])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_rain_and_fog_are_dark_at_night(condition, severity):
    image = street()
    by_day = apply_weather(image, condition.removesuffix("_night"), severity, 1)
    assert mean_light(apply_weather(image, condition, severity, 1)) < 0.5 * mean_light(by_day)


def test_fog_glows_in_the_headlamps():
    glow = from_srgb(apply_weather(street(), "fog_night", 5, 1)).mean(axis=2)
    horizon = 54
    ahead, above, aside = glow[horizon : horizon + 6, 70:90], glow[:10], glow[horizon:60, :10]
    assert ahead.mean() > 3 * above.mean()
    assert ahead.mean() > 2 * aside.mean()


@pytest.mark.parametrize("condition", ["rain_night", "fog_night"])
def test_what_headlamps_and_lamps_light_does_not_light_the_sky(condition):
    # A darkest night's fog is 0.6 x 0.4 lx x 33 ms x gain 8 / (10,000 lx x 1 ms) = 0.0063, and the
    # noise that is cut off at black adds 0.001 or so.
    image = np.full((120, 160, 3), 124, np.uint8)
    cv2.circle(image, (80, 60), 5, (250, 60, 50), -1)
    far = np.full((120, 160), 5.0, np.float32)
    far[:40] = 400.0
    top = from_srgb(apply_weather(image, condition, 5, 1, depth=far))[:30]
    assert 0.004 < top.mean() < 0.012


def test_streaks_light_up_in_the_headlamps(monkeypatch):
    image = np.full((240, 320, 3), 90, np.uint8)
    lit = from_srgb(apply_weather(image, "rain_night", 5, 1))
    monkeypatch.setattr(weather, "DROP_REFLECTANCE", 0)
    gain = (lit - from_srgb(apply_weather(image, "rain_night", 5, 1))).mean(axis=2)
    beam = gain[110:200, 100:220]
    assert beam.mean() > 10 * abs(gain[:40].mean())
    # In streaks: the brightest quarter has more than its share.
    assert np.sort(beam.ravel())[-beam.size // 4 :].sum() > 0.4 * beam.sum()


def test_rain_and_fog_at_night_have_the_night_s_noise():
    # In fog too thick to see through, only noise differs from frame to frame in one row.
    image = np.full((120, 160, 3), 120, np.uint8)
    first, second = (
        apply_weather(image, "fog_night", 5, 1, frame, rate=1e6)[:40].astype(float)
        for frame in (0, 1)
    )
    night, other = (add_night(image, night_illuminance(5), 1, f)[:40].astype(float) for f in (0, 1))
    assert (first - second).std() > 0.7 * (night - other).std()


def test_a_lamp_shines_through_fog_at_night():
    image = np.full((120, 160, 3), 60, np.uint8)
    with_lamp = image.copy()
    cv2.circle(with_lamp, (80, 40), 3, (250, 60, 50), -1)
    near = np.full((120, 160), 15, np.float32)
    reds = [
        apply_weather(picture, "fog_night", 4, 1, depth=near)[40, 80, 0].astype(int)
        for picture in (image, with_lamp)
    ]
    assert reds[1] > 3 * reds[0]


@pytest.mark.parametrize("condition", WEATHERS)
@pytest.mark.parametrize("size", [(1, 1), (1, 8), (8, 1), (3, 5), (31, 47)])
def test_any_size(condition, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for severity in (1, 5):
        assert apply_weather(image, condition, severity, 0, 3).shape == image.shape


@pytest.mark.parametrize("condition", WEATHERS)
def test_a_depth_given_counts(condition):
    image = street()
    near, far = (
        apply_weather(image, condition, 4, 1, depth=np.full(image.shape[:2], metres, np.float32))
        for metres in (5, 200)
    )
    assert near.astype(float).std() > far.astype(float).std()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            {"condition": "snow"},
            "must be one of clear, fog, rain, night, rain_night, fog_night, got 'snow'",
            id="condition",
        ),
        pytest.param({"severity": 0}, "from 1 to 5, got 0", id="severity too low"),
        pytest.param({"severity": 5.1}, "from 1 to 5, got 5.1", id="severity too high"),
        pytest.param({"severity": float("nan")}, "from 1 to 5, got nan", id="severity nan"),
        pytest.param({"seed": 1.5}, "must be integers, got 1.5 and 0", id="seed"),
        pytest.param({"frame": "1"}, "must be integers, got 0 and '1'", id="frame"),
        pytest.param(
            {"rate": 0.0}, r"positive and finite \(pictures a second\), got 0.0", id="rate"
        ),
        pytest.param({"image": np.zeros((4, 4), np.uint8)}, r"got uint8 \(4, 4\)", id="grey"),
        pytest.param(
            {"depth": np.ones((4, 5), np.float32)}, r"shape \(4, 4\), got \(4, 5\)", id="depth"
        ),
    ],
)
@pytest.mark.parametrize("condition", ["night", "rain_night", "fog_night"])
def test_errors_name_what_came(arguments, message, condition):
    call = {"image": np.zeros((4, 4, 3), np.uint8), "condition": condition}
    call |= {"severity": 3, "seed": 0}
    with pytest.raises(ValueError, match=message):
        apply_weather(**(call | arguments))

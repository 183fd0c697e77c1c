import numpy as np
import pytest

from mbnet_perception.core.fog import (
    FOG_VISIBILITY,
    KOSCHMIEDER,
    PATCHINESS,
    add_fog,
    fog_visibility,
    veil,
)

GREY = np.full(3, 0.64, np.float32)  # linear; grey level 0.8 of 255 is 204


def street(height=120, width=160):
    """Squares of all colours, and a bright sky."""
    rng = np.random.default_rng(5)
    squares = rng.integers(0, 160, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    picture = squares.repeat(8, axis=0).repeat(8, axis=1)[:height, :width].copy()
    picture[: height // 4] = (150, 180, 210)
    return picture


def at(metres, picture):
    return np.full(picture.shape[:2], metres, np.float32)


def light(picture):
    return (picture / 255) ** 2


def test_at_depth_zero_nothing_changes():
    picture = street()
    np.testing.assert_array_equal(add_fog(picture, 40, 1, depth=at(0, picture)), picture)


def test_infinitely_far_away_there_is_only_airlight():
    picture = street()
    foggy = add_fog(picture, 400, 1, depth=at(np.inf, picture), airlight=GREY)
    np.testing.assert_array_equal(foggy, np.full_like(picture, 204))


@pytest.mark.parametrize("visibility", FOG_VISIBILITY)
def test_five_per_cent_of_the_contrast_are_left_at_the_visibility(visibility):
    dark, bright = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    # Of 1 in linear light 0.05 are left; before a black airlight that is level 57.
    options = {"depth": at(visibility, dark), "airlight": np.zeros(3), "patchiness": 0}
    assert (add_fog(dark, visibility, 1, **options) == 0).all()
    assert (add_fog(bright, visibility, 1, **options) == round(255 * 0.05**0.5)).all()


def test_a_pixel_worked_by_hand():
    # Half of the light comes through where exp(-2.996 d / V) = 0.5: d = 100 ln 2 / 2.996 = 23.14.
    # Of level 51, linear 0.04, and airlight 0.64 that makes 0.34, level 255 * 0.5831 = 148.7.
    picture = np.full((9, 9, 3), 51, np.uint8)
    foggy = add_fog(picture, 100, 1, depth=at(23.136, picture), airlight=GREY, patchiness=0)
    assert (foggy == 149).all()


def test_each_colour_goes_to_its_own_airlight():
    picture = street()
    air = np.array([0.04, 0.16, 0.36], np.float32)
    foggy = add_fog(picture, 40, 1, depth=at(1e4, picture), airlight=air)
    np.testing.assert_array_equal(foggy[7, 9], [51, 102, 153])


def test_scattering_blurs_edges_and_more_so_further_away():
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:, 32:] = 255

    def edge(metres):
        """Contrast across the edge in shares of the contrast far from it."""
        options = {"depth": at(metres, picture), "airlight": np.zeros(3), "patchiness": 0}
        foggy = light(add_fog(picture, 100, 1, **options))[16, :, 0]
        return (foggy[32] - foggy[31]) / (foggy[60] - foggy[3])

    assert edge(0) == 1
    assert 1 > edge(5) > edge(20) > edge(40) > 0.4


def test_fog_keeps_the_light_that_it_blurs():
    picture = street()
    transmission = np.full(picture.shape[:2], 0.6, np.float32)
    veiled = veil(picture, transmission, np.zeros(3, np.float32))
    assert light(veiled).mean() == pytest.approx(0.6 * light(picture).mean(), rel=0.03)


def test_more_severe_fog_leaves_less_contrast_everywhere():
    picture = street(240, 320)
    spread = [
        [
            part.std()
            for part in np.array_split(add_fog(picture, fog_visibility(s), 3)[60:].astype(float), 4)
        ]
        for s in (1, 1.5, 2, 3, 4, 4.5, 5)
    ]
    assert (np.diff(spread, axis=0) < 0).all()


def test_severities_run_from_hardly_fog_to_a_stopping_distance():
    assert [fog_visibility(s) for s in (1, 2, 3, 4, 5)] == pytest.approx(list(FOG_VISIBILITY))
    assert (np.diff(FOG_VISIBILITY) < 0).all()
    assert pytest.approx(-np.log(0.05), abs=1e-3) == KOSCHMIEDER


def test_the_worst_fog_still_shows_what_is_near():
    picture = street(240, 320)
    clear, foggy = light(picture), light(add_fog(picture, fog_visibility(5), 3))
    assert foggy[-20:].std() > 0.5 * clear[-20:].std()
    assert foggy[80:110, 120:200].std() < 0.3 * clear[80:110, 120:200].std()


def test_the_input_stays_as_it_is():
    picture = street()
    picture.flags.writeable = False
    depth = at(20, picture)
    add_fog(picture, 100, 1, depth=depth)
    assert (depth == 20).all()


def test_the_same_arguments_give_the_same_picture_and_another_seed_another():
    picture = street()
    np.testing.assert_array_equal(add_fog(picture, 60, 7, 0.4), add_fog(picture, 60, 7, 0.4))
    assert (add_fog(picture, 60, 7) != add_fog(picture, 60, 8)).any()
    assert (add_fog(picture, 60, 7) != add_fog(picture, 60, -7)).any()


@pytest.mark.parametrize("seed", [0, -1, 2**80, np.int64(-5), np.uint32(3)])
def test_any_integer_is_a_seed(seed):
    assert add_fog(street(), 60, seed).shape == (120, 160, 3)


def test_fog_does_not_touch_the_global_random_numbers():
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    add_fog(street(), 60, 7)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_patches_drift_slowly_and_in_any_order_of_frames():
    picture = street()
    first, next_frame, later = (
        add_fog(picture, 60, 7, time).astype(int) for time in (2.0, 2.0 + 1 / 15, 6.0)
    )
    assert 0 < np.abs(first - next_frame).mean() < 0.2 * np.abs(first - later).mean()
    np.testing.assert_array_equal(add_fog(picture, 60, 7, 2.0), first)


def test_patches_stay_within_their_bounds():
    picture = np.zeros((64, 64, 3), np.uint8)
    white = np.ones(3, np.float32)
    for seed in range(20):
        foggy = light(add_fog(picture, 100, seed, depth=at(50, picture), airlight=white))
        thickness = -np.log(1 - foggy) / (KOSCHMIEDER * 50 / 100)
        assert thickness.min() > 1 - PATCHINESS - 0.03
        assert thickness.max() < 1 + PATCHINESS + 0.03


@pytest.mark.parametrize("shape", [(17, 33), (33, 17), (1, 1), (1, 50), (50, 1), (101, 203)])
def test_any_size(shape):
    picture = np.full((*shape, 3), 90, np.uint8)
    foggy = add_fog(picture, 60, 1)
    assert foggy.shape == picture.shape
    assert foggy.dtype == np.uint8


def test_a_grey_picture_stays_grey():
    grey = street()[..., :1].repeat(3, axis=2)
    foggy = add_fog(grey, 60, 1).astype(int)
    assert np.abs(foggy - foggy[..., :1]).max() == 0


def test_a_depth_of_any_number_type_and_layout_will_do():
    picture = street()
    metres = np.arange(1, 1 + picture[..., 0].size).reshape(picture.shape[:2])
    expected = add_fog(picture, 60, 1, depth=metres.astype(np.float32))
    for depth in (metres, metres.astype(np.float64), np.asfortranarray(metres, np.float32)):
        np.testing.assert_array_equal(add_fog(picture, 60, 1, depth=depth), expected)


def test_a_view_of_a_larger_picture_will_do():
    large = street(120, 320)
    part = large[::2, 40:200]
    np.testing.assert_array_equal(add_fog(part, 60, 1), add_fog(part.copy(), 60, 1))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        pytest.param({"image": np.zeros((4, 4), np.uint8)}, r"got uint8 \(4, 4\)", id="grey"),
        pytest.param({"visibility": 0}, "positive number of metres, got 0", id="no visibility"),
        pytest.param({"visibility": np.inf}, "metres, got inf", id="no fog"),
        pytest.param({"visibility": np.nan}, "metres, got nan", id="visibility nan"),
        pytest.param({"time": np.nan}, "time must be .* seconds, got nan", id="time nan"),
        pytest.param({"patchiness": 1}, "below 1, got 1", id="patches with holes"),
        pytest.param(
            {"depth": np.ones((3, 4))}, r"shape \(4, 4\), got \(3, 4\)", id="depth's shape"
        ),
        pytest.param({"depth": -np.ones((4, 4))}, "has negative ones or NaN", id="depth behind"),
        pytest.param({"depth": np.full((4, 4), np.nan)}, "negative ones or NaN", id="depth nan"),
        pytest.param({"airlight": np.ones(4)}, "three numbers from 0 to 1", id="four colours"),
        pytest.param({"airlight": [2, 0, 0]}, "three numbers from 0 to 1", id="too bright"),
    ],
)
def test_a_wrong_argument_is_named(changes, named):
    arguments = {"image": np.zeros((4, 4, 3), np.uint8), "visibility": 60, "seed": 1, **changes}
    with pytest.raises(ValueError, match=named):
        add_fog(**arguments)

import numpy as np
import pytest

from mbnet_perception.core.light import (
    check_picture,
    estimate_airlight,
    strips,
    to_light,
    to_picture,
)


def plain(*colour, shape=(48, 64)):
    return np.full((*shape, 3), colour, np.uint8)


def test_every_grey_level_comes_back_from_light():
    levels = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    back = np.empty_like(levels)
    to_picture(to_light(levels), back)
    np.testing.assert_array_equal(back, levels)


def test_light_is_the_square_of_the_grey_level():
    light = to_light(plain(0, 51, 255, shape=(1, 1)))
    np.testing.assert_allclose(light[0, 0], [0, 0.04, 1], rtol=1e-6)


def test_the_stand_in_for_srgb_stays_as_near_as_stated():
    level = np.arange(256) / 255
    srgb = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    light = to_light(np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2))[0, :, 0]
    assert np.abs(light - srgb).max() < 0.05


@pytest.mark.parametrize("shape", [(1, 1), (17, 33), (480, 640), (5, 20000), (9000, 1)])
def test_strips_cover_every_row_once_and_in_order(shape):
    picture = plain(0, 0, 0, shape=shape)
    rows = [row for part in strips(picture) for row in range(part.start, part.stop)]
    assert rows == list(range(shape[0]))


@pytest.mark.parametrize(
    ("picture", "named"),
    [
        pytest.param(np.zeros((4, 4), np.uint8), r"uint8 \(4, 4\)", id="grey"),
        pytest.param(np.zeros((4, 4, 4), np.uint8), r"uint8 \(4, 4, 4\)", id="four channels"),
        pytest.param(np.zeros((4, 4, 3), np.float32), r"float32 \(4, 4, 3\)", id="floats"),
        pytest.param(np.zeros((0, 4, 3), np.uint8), r"uint8 \(0, 4, 3\)", id="no pixels"),
        pytest.param([[1, 2, 3]], "list None", id="no array"),
    ],
)
def test_what_is_no_picture_is_named(picture, named):
    with pytest.raises(ValueError, match=rf"expected a \(H, W, 3\) uint8 RGB picture, got {named}"):
        check_picture(picture)


def test_airlight_is_the_sky_drawn_towards_grey():
    scene = plain(20, 20, 20)
    scene[:8] = (153, 178, 204)  # (0.6, 0.7, 0.8) of 255: linear 0.36, 0.487, 0.64
    red, green, blue = estimate_airlight(scene)
    level = (0.36 + 0.487 + 0.64) / 3
    assert (red + green + blue) / 3 == pytest.approx(level, abs=0.01)
    assert 0 < blue - red < 0.2 * (0.64 - 0.36)


def test_airlight_does_not_come_from_a_lamp():
    night = plain(10, 10, 10, shape=(240, 320))
    night[50:54, 100:104] = 255
    assert estimate_airlight(night).max() < 0.03


def test_airlight_without_sky_is_brighter_than_the_scene_and_never_above_white():
    assert estimate_airlight(plain(90, 90, 90)).min() > to_light(plain(90, 90, 90)).mean()
    assert estimate_airlight(plain(255, 255, 255)).max() <= 1


def test_a_black_picture_has_no_airlight():
    np.testing.assert_array_equal(estimate_airlight(plain(0, 0, 0)), [0, 0, 0])

import numpy as np
import pytest

from mbnet_perception.core.road_depth import (
    CAMERA_HEIGHT,
    FOCAL,
    HORIZON,
    SIGHT,
    SKY,
    STREET_SIDE,
    estimate_road_depth,
)


@pytest.mark.parametrize(
    "shape", [(312, 416), (480, 640), (336, 336), (400, 200), (17, 33), (1, 1)]
)
def test_a_depth_for_every_pixel(shape):
    depth = estimate_road_depth(*shape)
    assert depth.shape == shape
    assert depth.dtype == np.float32
    assert (depth > 0).all()
    assert (depth <= SKY).all()


def test_the_road_gets_nearer_towards_the_car():
    depth = estimate_road_depth(312, 416)
    road = depth[int(HORIZON * 312) + 1 :]
    assert (np.diff(road, axis=0) < 0).all()


def test_the_near_road_is_where_the_pinhole_camera_sees_it():
    # Bottom row of a 400 x 400 picture: 219.5 pixels below the horizon at a focal length of 400.
    ground = CAMERA_HEIGHT * FOCAL * 400 / 219.5
    assert estimate_road_depth(400, 400)[-1, 200] == pytest.approx(ground, rel=0.02)


def test_the_view_ends_at_sight_ahead_and_at_sky_above():
    depth = estimate_road_depth(1000, 1000)
    assert depth[450, 500] == pytest.approx(SIGHT, rel=0.01)
    assert depth[0, 500] == pytest.approx(SKY, rel=0.01)


def test_the_sides_of_the_street_are_nearer_than_its_end():
    depth = estimate_road_depth(1000, 1000)
    beside = depth[450, 0]
    assert beside < STREET_SIDE * FOCAL * 1000 / 499.5
    assert beside < 0.8 * depth[450, 500]
    np.testing.assert_array_equal(depth, depth[:, ::-1])


def test_depth_changes_smoothly():
    depth = estimate_road_depth(312, 416)
    ratio = np.maximum(depth[1:] / depth[:-1], depth[:-1] / depth[1:])
    assert ratio.max() < 1.1


def test_pictures_of_one_size_share_a_depth_that_nobody_can_change():
    depth = estimate_road_depth(40, 60)
    assert estimate_road_depth(40, 60) is depth
    with pytest.raises(ValueError, match="read-only"):
        depth[0, 0] = 1


@pytest.mark.parametrize("shape", [(0, 5), (5, -1)])
def test_an_impossible_size_is_named(shape):
    with pytest.raises(ValueError, match=f"must be positive, got {shape[0]} x {shape[1]}"):
        estimate_road_depth(*shape)

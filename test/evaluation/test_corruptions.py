import ast
from pathlib import Path

import numpy as np
import pytest

import mbnet_perception
from mbnet_perception.core.scene import DrivingScene
from mbnet_perception.evaluation.corruptions import (
    BLUR_RADIUS,
    CONTRAST,
    CORRUPTIONS,
    NOISE_DEVIATION,
    apply_corruption,
)

SEVERITIES = (1, 2, 3, 4, 5)


@pytest.fixture(scope="module")
def street():
    bgr, _, _ = DrivingScene(3, (320, 240)).render(1.0)
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    rgb.flags.writeable = False  # corruptions must not change it
    return rgb


def grey(height, width, value=128):
    return np.full((height, width, 3), value, np.uint8)


def distance(a, b):
    return float(np.abs(a.astype(float) - b).mean())


def test_there_are_the_five_of_the_ablation():
    assert CORRUPTIONS == ("noise", "blur", "contrast", "jpeg", "snow")


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_is_worse_than_the_one_before(street, name):
    spoilt = [apply_corruption(street, name, severity, seed=1) for severity in SEVERITIES]
    assert all(each.shape == street.shape and each.dtype == np.uint8 for each in spoilt)
    distances = [distance(each, street) for each in spoilt]
    assert distances == sorted(distances)
    assert distances[0] > 0
    assert distances[-1] > 1.5 * distances[0]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_seed_decides_where_there_is_chance(street, name):
    first, again, other = (apply_corruption(street, name, 3, seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first == other).all() == (name in ("blur", "contrast", "jpeg"))


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3), (700, 900)])
def test_any_size_will_do(name, shape):
    assert apply_corruption(grey(*shape), name, 5, seed=0).shape == (*shape, 3)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_the_deviation_of_its_table(severity):
    # Light enough noise on middle grey is not cut off at black or white.
    noisy = apply_corruption(grey(200, 200), "noise", severity, seed=0).astype(float) - 128
    expected = 255 * NOISE_DEVIATION[severity - 1]
    assert noisy.std() == pytest.approx(expected, rel=0.06)
    assert abs(noisy.mean()) < 1


def test_each_value_has_its_own_noise():
    noise = apply_corruption(grey(200, 200), "noise", 3, seed=0).reshape(-1, 3).astype(float)
    assert abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.02


@pytest.mark.parametrize("long_side", [320, 640])
def test_blur_makes_a_disc_of_a_point_that_grows_with_the_picture(long_side):
    image = grey(240 * long_side // 320, long_side, 0)
    image[100, 100] = 255 * np.array([1, 0, 1])
    radius = BLUR_RADIUS[2] * long_side / 320
    disc = apply_corruption(image, "blur", 3, seed=0)
    assert not disc[..., 1].any()
    rows, columns = np.nonzero(disc[..., 0])
    assert np.hypot(rows - 100, columns - 100).max() == pytest.approx(radius, abs=1)
    assert len(rows) == pytest.approx(np.pi * radius**2, rel=0.25)


def test_blur_leaves_an_even_picture():
    assert (apply_corruption(grey(50, 60, 77), "blur", 5, seed=0) == 77).all()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_shrinks_about_the_mean_of_each_colour(severity):
    image = grey(20, 20)
    image[:10] = (200, 100, 50)
    image[10:] = (100, 60, 30)
    spoilt = apply_corruption(image, "contrast", severity, seed=0).astype(int)
    mean, half_difference = np.array([150, 80, 40]), np.array([50, 20, 10])
    left = CONTRAST[severity - 1] * half_difference
    assert spoilt[0, 0] == pytest.approx(mean + left, abs=0.51)
    assert spoilt[-1, 0] == pytest.approx(mean - left, abs=0.51)


def test_jpeg_keeps_colours_in_their_order():
    image = grey(64, 64)
    image[..., 0] = 250  # red
    mean = apply_corruption(image, "jpeg", 1, seed=0).mean((0, 1))
    assert mean == pytest.approx([250, 128, 128], abs=6)


@pytest.mark.parametrize("size", [(240, 320), (480, 640)])
def test_snow_covers_the_same_share_of_a_picture_of_any_size(size):
    snowy = apply_corruption(grey(*size, 20), "snow", 5, seed=0)
    flakes = (snowy[..., 0].astype(int) > 160).mean()
    assert 0.02 < flakes < 0.3
    same = apply_corruption(grey(240, 320, 20), "snow", 5, seed=0)
    assert flakes == pytest.approx((same[..., 0].astype(int) > 160).mean(), rel=0.3)


def test_snow_is_bright_and_grey(street):
    snowy = apply_corruption(grey(100, 100, 20), "snow", 3, seed=0)
    assert snowy.min() > 20
    assert (snowy == snowy[..., :1]).all()


def test_an_unknown_corruption_is_named(street):
    with pytest.raises(ValueError, match="'fog' is unknown; known: noise, blur, contrast, jpeg"):
        apply_corruption(street, "fog", 1, seed=0)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_ends_at_five(street, name):
    with pytest.raises(ValueError, match="severity must be a number from 1 to 5, got 6"):
        apply_corruption(street, name, 6, seed=0)


def test_a_picture_must_be_one():
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"):
        apply_corruption(np.zeros((4, 4)), "noise", 1, seed=0)


def test_nothing_that_trains_knows_the_corruptions():
    """They stay a test of the unseen only as long as no training can use them."""
    folder = Path(mbnet_perception.__file__).parent / "training"
    files = sorted(folder.rglob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", ())]
            names.append(getattr(node, "module", None) or "")
            if isinstance(node, ast.Import | ast.ImportFrom):
                forbidden = ("corruptions", "robustness")
                assert not [n for n in names if n.split(".")[-1] in forbidden], file

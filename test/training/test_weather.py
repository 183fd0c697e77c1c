import json

import numpy as np
import pytest

from mbnet_perception.core.weather import CONDITIONS, apply_weather
from mbnet_perception.training.weather import (
    TRANSFORMS,
    Fog,
    FogNight,
    Night,
    Rain,
    RainNight,
    albumentations,  # imported there, where it is kept from the network
)

OURS = {"fog": Fog, "rain": Rain, "night": Night, "rain_night": RainNight, "fog_night": FogNight}

each_of_ours = pytest.mark.parametrize("condition", OURS)


@pytest.fixture
def image():
    """Sky over road, with a wall, so that each weather changes something."""
    image = np.full((120, 160, 3), 90, np.uint8)
    image[:50] = (170, 190, 220)
    image[30:90, 60:100] = (140, 60, 40)
    return image


def test_every_condition_has_its_transform():
    assert set(OURS) == set(CONDITIONS) - {"clear"}
    assert {kind.condition for kind in OURS.values()} == set(OURS)
    assert all(TRANSFORMS[kind.__name__] is kind for kind in OURS.values())


def test_the_librarys_transforms_have_their_own_names_and_leave_geometry_alone():
    assert TRANSFORMS["RandomRain"] is albumentations.RandomRain
    assert not {"HorizontalFlip", "RandomCrop", "Compose", "ImageOnlyTransform"} & set(TRANSFORMS)
    assert not {kind.__name__ for kind in OURS.values()} & set(dir(albumentations))


@each_of_ours
def test_a_transform_is_its_kernel_with_what_it_drew(condition, image):
    before = image.copy()
    transform = OURS[condition](severity=(2, 4), p=1)
    transform.set_random_seed(7)
    changed = transform(image=image)["image"]
    drawn = transform.get_applied_params()
    assert 2 <= drawn["severity"] <= 4
    expected = apply_weather(image, condition, drawn["severity"], drawn["seed"])
    np.testing.assert_array_equal(changed, expected)
    assert not np.array_equal(changed, image)
    np.testing.assert_array_equal(image, before)


def test_severity_is_spread_evenly_with_fractions():
    transform = Fog(severity=(1, 3))
    transform.set_random_seed(0)
    drawn = np.array([transform.get_params()["severity"] for _ in range(2000)])
    assert drawn.min() >= 1
    assert drawn.max() <= 3
    # An even spread has a quarter in each quarter, 500 +- 19 of 2000; 5 sigma.
    counts, _ = np.histogram(drawn, bins=4, range=(1, 3))
    np.testing.assert_allclose(counts, 500, atol=97)


def test_every_picture_has_weather_of_its_own(image):
    transform = Rain(severity=(4, 4), p=1)
    transform.set_random_seed(0)
    first, second = (transform(image=image)["image"] for _ in range(2))
    assert not np.array_equal(first, second)


def test_probability_zero_leaves_the_picture(image):
    np.testing.assert_array_equal(Night(p=0)(image=image)["image"], image)


@each_of_ours
def test_arguments_survive_json(condition, image):
    transform = OURS[condition](severity=(1.5, 4), p=0.75)
    text = json.dumps(albumentations.to_dict(transform))
    again = albumentations.from_dict(json.loads(text))
    assert type(again) is OURS[condition]
    assert (tuple(again.severity), again.p) == ((1.5, 4), 0.75)
    for each in (transform, again):
        each.set_random_seed(3)
    np.testing.assert_array_equal(
        transform(image=image, force_apply=True)["image"],
        again(image=image, force_apply=True)["image"],
    )


def test_boxes_stay_in_a_composition_of_the_library(image):
    composed = albumentations.Compose(
        [Rain(p=1), albumentations.RandomShadow(p=1), albumentations.HorizontalFlip(p=0)],
        bbox_params=albumentations.BboxParams("pascal_voc", label_fields=["classes"]),
        seed=1,
    )
    result = composed(image=image, bboxes=[[60, 30, 100, 90]], classes=[2])
    np.testing.assert_allclose(result["bboxes"], [[60, 30, 100, 90]], atol=1e-4)
    assert not np.array_equal(result["image"], image)


@pytest.mark.parametrize(
    "severity",
    [
        pytest.param((0, 5), id="below 1"),
        pytest.param((1, 6), id="above 5"),
        pytest.param((4, 2), id="falling"),
        pytest.param(3, id="one number"),
    ],
)
def test_severity_must_be_a_rising_range_within_1_to_5(severity):
    with pytest.raises(ValueError, match="severity"):
        Fog(severity=severity)

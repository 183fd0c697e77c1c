from pathlib import Path

import numpy as np
import pytest

from mbnet_perception.evaluation.bag_results import Dropouts
from mbnet_perception.evaluation.dataset import Picture
from mbnet_perception.evaluation.tracks import follow_objects, frame_seconds, measure_dropouts

CAR, PERSON = 0, 1
HERE, THERE = (0, 0, 10, 10), (50, 50, 60, 60)
NEAR = (4, 0, 14, 10)  # shares 60 of 140 pixels with HERE: 0.43
FAR = (6, 0, 16, 10)  # shares 40 of 160: 0.25


def picture(*objects):
    """An object is (box, class)."""
    return Picture(
        identifier=0,
        path=Path(),
        height=100,
        width=100,
        boxes=np.array([box for box, _ in objects], np.float32).reshape(-1, 4),
        classes=np.array([k for _, k in objects], np.int64),
        verified=np.ones(2, bool),
        exhaustive=np.ones(2, bool),
        ignore=np.zeros((0, 4), np.float32),
    )


def follow(pictures, identities=None, stamps=None):
    stamps = np.arange(len(pictures)) if stamps is None else np.array(stamps)
    return follow_objects(pictures, identities or [None] * len(pictures), stamps).tolist()


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        pytest.param((HERE, CAR), [0, 0], id="it stands"),
        pytest.param((NEAR, CAR), [0, 0], id="it moves a little"),
        pytest.param((FAR, CAR), [0, 1], id="it is too far away"),
        pytest.param((HERE, PERSON), [0, 1], id="it is of another class"),
    ],
)
def test_overlap_tells_what_is_the_same(second, expected):
    assert follow([picture((HERE, CAR)), picture(second)]) == expected


def test_the_greatest_overlap_goes_first():
    first = picture(((0, 0, 10, 10), CAR), ((4, 0, 14, 10), CAR))
    # With the second, these share 60 of 140 and 90 of 110 pixels.
    assert follow([first, picture(((8, 0, 18, 10), CAR), ((3, 0, 13, 10), CAR))]) == [0, 1, 2, 1]
    # This one shares 70 of 130 pixels with the first and 90 of 110 with the second.
    assert follow([first, picture(((3, 0, 13, 10), CAR))]) == [0, 1, 1]


@pytest.mark.parametrize(
    ("missing", "expected"), [pytest.param(2, [0, 0], id="two"), pytest.param(3, [0, 1], id="3")]
)
def test_an_object_may_be_out_of_sight_for_two_pictures(missing, expected):
    seen = picture((HERE, CAR))
    assert follow([seen, *[picture()] * missing, seen]) == expected


def test_identities_go_before_overlap():
    pictures = [picture((HERE, CAR), (THERE, CAR)), picture((HERE, CAR), (THERE, CAR))]
    assert follow(pictures, [("a", "b"), ("b", "a")]) == [0, 1, 1, 0]


def test_an_identity_lasts_while_the_object_is_out_of_sight():
    pictures = [picture((HERE, CAR)), *[picture()] * 9, picture((THERE, CAR))]
    assert follow(pictures, [("a",), *[()] * 9, ("a",)]) == [0, 0]


def test_an_identity_is_one_within_its_class():
    pictures = [picture((HERE, CAR)), picture((HERE, PERSON))]
    assert follow(pictures, [("1",), ("1",)]) == [0, 1]


def test_overlap_decides_where_a_box_has_no_identity():
    pictures = [picture((HERE, CAR)), picture((HERE, CAR)), picture((THERE, CAR))]
    assert follow(pictures, [("a",), ("b",), None]) == [0, 0, 1]


@pytest.mark.parametrize("identities", [None, [("a",)] * 3])
def test_objects_are_new_where_stamps_go_back(identities):
    assert follow([picture((HERE, CAR))] * 3, identities, [5, 6, 2]) == [0, 0, 1]


def test_following_nothing():
    assert follow([]) == []
    assert follow([picture()]) == []


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        pytest.param([0, 1, 2, 3], [1, 1, 1, 1], id="even"),
        pytest.param([0, 1, 2, 4, 5], [1, 1, 2, 1, 1], id="one was lost on the way"),
        pytest.param([0, 1, 2, 30, 31], [1, 1, 3, 1, 1], id="a pause in the recording"),
        pytest.param([5, 6, 7, 5, 6], [1, 1, 1, 1, 1], id="stamps go back"),
        pytest.param([5, 5, 6, 7], [0, 1, 1, 1], id="the same stamp twice"),
        pytest.param([7], [0], id="one picture"),
        pytest.param([-1_750_000_000, 0], [60, 60], id="a stamp of nought"),
        pytest.param([5, 5], [0, 0], id="no time passes"),
        pytest.param([], [], id="none"),
    ],
)
def test_a_picture_stands_for_the_time_to_the_next(stamps, expected):
    start = 1_750_000_000_000_000_000
    seconds = frame_seconds(np.array([start + stamp * 10**9 for stamp in stamps], np.int64))
    assert seconds.tolist() == expected


def dropouts(*objects, seconds=0.5):
    """Each is the course of an object: f where it is found, l where it is lost."""
    numbers = np.repeat(np.arange(len(objects)), [len(course) for course in objects])
    found = np.array([letter == "f" for course in objects for letter in course], bool)
    return measure_dropouts(numbers, np.full(len(found), seconds), found)


def test_dropouts_of_one_object():
    # Two pictures lost, found again, one lost at the end: 3 changes in 4 seconds.
    assert dropouts("llfllffl") == Dropouts(
        objects=1,
        frames=8,
        found=3,
        never=0,
        count=2,
        mean_frames=1.5,
        longest_frames=2,
        mean_seconds=0.75,
        longest_seconds=1.0,
        flicker=0.75,
    )


def test_dropouts_of_several_objects():
    # Lost at the end and never found at the start of the next is not one dropout.
    assert dropouts("ffll", "llf", "ll", "flf") == Dropouts(
        objects=4,
        frames=12,
        found=5,
        never=1,
        count=2,
        mean_frames=1.5,
        longest_frames=2,
        mean_seconds=0.75,
        longest_seconds=1.0,
        flicker=0.5,  # lost once, and lost and found again once, in 6 seconds
    )


def test_objects_may_come_in_any_order():
    numbers = np.array([7, 2, 7, 2, 7, 2])
    found = np.array([True, True, False, True, True, False])
    seconds = np.array([1.0, 1.0, 0.5, 1.0, 1.0, 2.0])
    result = measure_dropouts(numbers, seconds, found)  # 7: f l f, 2: f f l
    assert (result.objects, result.count, result.mean_frames) == (2, 2, 1)
    assert (result.mean_seconds, result.longest_seconds) == (1.25, 2.0)
    assert result.flicker == pytest.approx(3 / 6.5)


def test_an_object_that_is_found_once_and_for_all_has_no_dropouts():
    result = dropouts("llff", "ffff")
    assert (result.count, result.longest_frames, result.flicker) == (0, 0, 0)


def test_no_objects_have_no_dropouts():
    assert dropouts() == Dropouts(0, 0, 0, 0, 0, 0.0, 0, 0.0, 0.0, 0.0)


def test_without_time_there_is_no_flicker():
    assert dropouts("flf", seconds=0.0).flicker == 0

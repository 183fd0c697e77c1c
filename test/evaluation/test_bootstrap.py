import numpy as np
import pytest

from mbnet_perception.evaluation.bootstrap import Figure, draw_resamples, figure_of


def test_a_resample_has_as_many_pictures_as_the_data():
    weights, _ = draw_resamples([""] * 7, 50, seed=0)
    assert weights.shape == (7, 50)
    assert (weights.sum(0) == 7).all()
    assert (weights >= 0).all()
    assert (weights == np.rint(weights)).all()


def test_the_pictures_of_a_scene_come_together():
    weights, scenes = draw_resamples(["a", "", "b", "a", "", "a"], 50, seed=0)
    assert (weights[0] == weights[3]).all()
    assert (weights[0] == weights[5]).all()
    assert scenes == 4  # a, b, and two pictures by themselves
    assert (weights[[0, 1, 2, 4]].sum(0) == 4).all()
    assert (weights[1] != weights[4]).any()


def test_a_scene_named_like_a_place_is_not_that_place():
    weights, _ = draw_resamples(["", "0"], 50, seed=0)
    assert (weights[0] != weights[1]).any()


def test_the_seed_decides():
    first, again, other = (draw_resamples([""] * 9, 5, seed)[0] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_no_resamples_are_no_resamples():
    assert draw_resamples([""] * 3, 0, seed=0)[0].shape == (3, 0)


@pytest.mark.parametrize(
    ("groups", "count", "seed", "message"),
    [
        pytest.param([], 5, 0, "got 0 pictures", id="no pictures"),
        pytest.param([""], -1, 0, "count -1", id="count"),
        pytest.param([""], 5, -2, "seed -2", id="seed"),
    ],
)
def test_what_cannot_be_drawn_is_said(groups, count, seed, message):
    with pytest.raises(ValueError, match=message):
        draw_resamples(groups, count, seed)


def test_an_interval_leaves_out_a_fortieth_on_either_side():
    values = np.concatenate([[0.5], np.random.default_rng(0).permutation(1001) / 1000])
    assert figure_of(values) == Figure(0.5, pytest.approx(0.025), pytest.approx(0.975))


def test_resamples_that_cannot_tell_are_left_out():
    assert figure_of(np.array([0.5, np.nan, 0.25, np.nan])) == Figure(0.5, 0.25, 0.25)
    assert figure_of(np.array([0.5, np.nan])) == Figure(0.5)
    assert figure_of(np.array([np.nan, 0.5])) == Figure(None)
    assert figure_of(np.array([0.5])) == Figure(0.5)


def test_the_interval_of_a_mean_is_the_textbook_one():
    # 100 pictures, 30 of which have a 1: deviation of the mean is sqrt(0.3 x 0.7 / 100) = 0.0458.
    ones = np.arange(100) < 30
    weights, _ = draw_resamples([""] * 100, 2000, seed=0)
    figure = figure_of(np.concatenate([[0.3], ones @ weights / 100]))
    assert (figure.high - figure.low) / 2 == pytest.approx(1.96 * 0.0458, rel=0.1)
    assert (figure.high + figure.low) / 2 == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (Figure(0.5, 0.25, 0.75), "0.500 (0.250-0.750)"),
        (Figure(0.5), "0.500"),
        (Figure(None), "-"),
    ],
)
def test_a_figure_reads_well(figure, text):
    assert str(figure) == text

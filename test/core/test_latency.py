import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbnet_perception.core.latency import LatencyWindow


def window_of(*seconds, size=100):
    window = LatencyWindow(size)
    for value in seconds:
        window.add(value)
    return window


@pytest.mark.parametrize(
    ("rank", "expected"),
    [
        pytest.param(0, 0.1, id="0 is the least"),
        pytest.param(20, 0.1, id="the first of five covers 20 percent"),
        pytest.param(21, 0.2, id="more than 20 percent needs the second"),
        pytest.param(50, 0.3, id="median"),
        pytest.param(90, 0.5, id="90 percent of five needs the fifth"),
        pytest.param(100, 0.5, id="100 is the most"),
    ],
)
def test_percentile_is_the_nearest_rank(rank, expected):
    assert window_of(0.5, 0.1, 0.4, 0.2, 0.3).percentile(rank) == expected


def test_window_forgets_old_samples():
    window = window_of(9.0, 0.01, 0.02, size=2)
    assert len(window) == 2
    assert window.percentile(100) == 0.02


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=30), st.floats(0, 100))
def test_percentile_is_a_sample_that_enough_samples_stay_within(seconds, rank):
    value = window_of(*seconds).percentile(rank)
    assert value in seconds
    assert sum(s <= value for s in seconds) >= rank / 100 * len(seconds) - 1e-9
    assert sum(s < value for s in seconds) <= rank / 100 * len(seconds) + 1e-9


def test_an_empty_window_has_no_percentile():
    with pytest.raises(ValueError, match="empty window"):
        LatencyWindow(5).percentile(50)


@pytest.mark.parametrize("rank", [-1, 100.5])
def test_percentile_names_the_bad_rank(rank):
    with pytest.raises(ValueError, match=rf"\[0, 100\], got {rank}"):
        window_of(1.0).percentile(rank)


@pytest.mark.parametrize("seconds", [-0.001, math.nan, math.inf])
def test_add_refuses_what_is_no_duration(seconds):
    window = window_of(1.0)
    with pytest.raises(ValueError, match=f"not negative, got {seconds}"):
        window.add(seconds)
    assert len(window) == 1


def test_a_window_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        LatencyWindow(0)

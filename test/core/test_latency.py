import math
import statistics
from dataclasses import astuple
from threading import Thread

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbnet_perception.core.latency import (
    LatencySummary,
    LatencyWindow,
    StageSummary,
    percentile,
)


def window_of(*seconds, size=100):
    window = LatencyWindow(["stage"], size)
    for at, value in enumerate(seconds):
        window.add(at, {"stage": value})
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
    assert percentile([0.5, 0.1, 0.4, 0.2, 0.3], rank) == expected


def test_every_whole_percentile_of_a_hundred_values_is_its_own():
    assert [percentile(range(1, 101), rank) for rank in range(1, 101)] == list(range(1, 101))


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=30), st.floats(0, 100))
def test_percentile_is_a_sample_that_enough_samples_stay_within(seconds, rank):
    value = percentile(seconds, rank)
    assert value in seconds
    assert sum(s <= value for s in seconds) >= rank / 100 * len(seconds) - 1e-9
    assert sum(s < value for s in seconds) <= rank / 100 * len(seconds) + 1e-9


def test_nothing_has_no_percentile():
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


@pytest.mark.parametrize("rank", [-1, 100.5, math.nan])
def test_percentile_names_the_bad_rank(rank):
    with pytest.raises(ValueError, match=rf"\[0, 100\], got {rank}"):
        percentile([1.0], rank)


def test_percentile_leaves_its_argument_alone():
    values = [3.0, 1.0, 2.0]
    percentile(values, 50)
    assert values == [3.0, 1.0, 2.0]


def test_a_summary_holds_the_figures_of_every_stage():
    window = LatencyWindow(["wait", "inference"], 10)
    for at, wait in ((30, 4.0), (40, 2.0), (50, 9.0), (60, 5.0)):
        window.add(at, {"inference": 7.0, "wait": wait}, throttled=at == 50)
    # Of 2, 4, 5, 9 the mean is 5, and the squares of the differences from it are 9, 1, 0, 16.
    assert window.summarise() == LatencySummary(
        since=30,
        until=60,
        frames=4,
        throttled=1,
        stages={
            "wait": StageSummary(4, 5.0, math.sqrt(6.5), 2.0, 4.0, 9.0, 9.0, 9.0),
            "inference": StageSummary(4, 7.0, 0.0, 7.0, 7.0, 7.0, 7.0, 7.0),
        },
    )


def test_a_summary_of_a_hundred_frames_holds_their_ranks():
    figures = window_of(*range(1, 101)).summarise().stages["stage"]
    assert astuple(figures)[3:] == (1, 50, 90, 99, 100)


# A millionth of a second, as differences near zero drown in rounding.
DURATION = st.integers(0, 10**9).map(lambda micros: micros / 1e6)
ROWS = st.lists(
    st.fixed_dictionaries({}, optional={"a": DURATION, "b": DURATION, "c": DURATION}), max_size=40
)


@pytest.mark.filterwarnings("error")
@given(ROWS, st.integers(1, 50))
def test_a_summary_agrees_with_plain_arithmetic_on_the_newest_frames(rows, size):
    window = LatencyWindow("abc", size)
    for at, row in enumerate(rows):
        window.add(at, row, throttled=at % 3 == 0)
    summary, newest = window.summarise(), rows[-size:]
    if not rows:
        assert summary is None
        return
    ats = range(len(rows))[-size:]
    assert (summary.since, summary.until, summary.frames) == (ats[0], ats[-1], len(newest))
    assert summary.throttled == sum(at % 3 == 0 for at in ats)
    assert list(summary.stages) == [stage for stage in "abc" if any(stage in row for row in newest)]
    for stage, figures in summary.stages.items():
        known = [row[stage] for row in newest if stage in row]
        assert figures.count == len(known)
        assert figures.mean == pytest.approx(statistics.fmean(known))
        assert figures.deviation == pytest.approx(statistics.pstdev(known), rel=1e-6, abs=1e-9)
        assert astuple(figures)[3:] == tuple(
            np.percentile(known, [0, 50, 90, 99, 100], method="inverted_cdf")
        )


def test_a_summary_holds_plain_numbers():
    summary = window_of(0.25).summarise()
    numbers = [summary.since, summary.until, summary.frames, summary.throttled]
    assert {type(number) for number in numbers} == {int}
    count, *seconds = astuple(summary.stages["stage"])
    assert type(count) is int
    assert {type(value) for value in seconds} == {float}


def test_window_forgets_old_frames():
    summary = window_of(9.0, 0.01, 0.02, size=2).summarise()
    assert (summary.since, summary.until, summary.frames) == (1, 2, 2)
    assert summary.stages["stage"].maximum == 0.02


def test_a_window_that_was_cleared_is_empty():
    window = window_of(9.0, 0.01)
    window.clear()
    assert window.summarise() is None
    window.add(7, {"stage": 0.03})
    assert window.summarise().stages["stage"].maximum == 0.03


def test_what_is_added_may_change_afterwards():
    window, durations = LatencyWindow(["stage"], 5), {"stage": 1.0}
    window.add(0, durations)
    durations["stage"] = 2.0
    assert window.summarise().stages["stage"].maximum == 1.0


@pytest.mark.parametrize("seconds", [-0.001, math.nan, math.inf])
def test_add_refuses_what_is_no_duration(seconds):
    window = window_of(1.0)
    with pytest.raises(ValueError, match=f"of stage must be .* not negative, got {seconds}"):
        window.add(1, {"stage": seconds})
    assert window.summarise().frames == 1


def test_add_names_the_unknown_stage():
    window = LatencyWindow(["wait", "decode"], 5)
    with pytest.raises(ValueError, match="one of wait, decode, got 'dekode'"):
        window.add(0, {"wait": 1.0, "dekode": 1.0})
    assert window.summarise() is None


def test_a_window_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        LatencyWindow(["stage"], 0)


def test_a_summary_holds_whole_frames_while_others_are_added():
    window = LatencyWindow("ab", 20)

    def work():
        for at in range(3000):
            window.add(at, {"a": float(at), "b": float(at)})

    thread = Thread(target=work)
    thread.start()
    while thread.is_alive():
        summary = window.summarise()
        if summary:
            assert summary.stages["a"] == summary.stages["b"]
            assert summary.stages["a"].maximum - summary.stages["a"].minimum == summary.frames - 1
            assert summary.until == summary.stages["a"].maximum
    thread.join()

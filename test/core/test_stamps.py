import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbnet_perception.core.stamps import StampClock

NOW = 1_700_000_000 * 10**9
MS = 10**6


def ns(seconds):
    return NOW + round(seconds * 1e9)


def clock_after(*observations, simulated=False):
    """A clock that made observations, and what it said about each; both times in seconds."""
    clock = StampClock(simulated)
    return clock, [clock.observe(ns(now), monotonic) for now, monotonic in observations]


@pytest.mark.parametrize("simulated", [False, True])
@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        pytest.param(NOW - 250 * MS, 0.25, id="a quarter of a second"),
        pytest.param(NOW, 0.0, id="just now"),
        pytest.param(NOW - 60_000 * MS, 60.0, id="a minute, which max_age_ms allows"),
        pytest.param(NOW - 60_001 * MS, "old", id="more than a minute"),
        pytest.param(12 * 10**9, "old", id="seconds since the camera was switched on"),
        pytest.param(NOW + 101 * MS, "future", id="ahead"),
        pytest.param(0, "zero", id="never set"),
        pytest.param(-1, "zero", id="before the epoch"),
    ],
)
def test_age_is_time_since_the_stamp(simulated, stamp, expected):
    assert StampClock(simulated).age(stamp, NOW) == expected


def test_a_simulated_stamp_may_be_ahead_by_a_tick():
    assert StampClock(simulated=True).age(NOW + 100 * MS, NOW) == 0.0
    assert StampClock(simulated=False).age(NOW + 1, NOW) == "future"


@pytest.mark.parametrize(
    ("observations", "expected"),
    [
        pytest.param([(0, 50), (1, 51), (9, 59)], [None, None, None], id="steady"),
        pytest.param([(0, 50), (1.09, 51), (2.18, 52)], [None] * 3, id="slewed"),
        pytest.param([(0, 50), (4, 51), (5, 52)], [None, 3.0, None], id="forward, said once"),
        pytest.param([(0, 50), (-2, 51), (-1, 52)], [None, -3.0, None], id="back, said once"),
        pytest.param([(0, 50), (0, 53), (1, 54)], [None, -3.0, None], id="stood still"),
        pytest.param([(0, 50), (9, 49.9), (1, 51)], [None] * 3, id="told late, so ignored"),
    ],
)
def test_the_system_clock_jumps_against_the_monotonic_one(observations, expected):
    _, jumps = clock_after(*observations)
    assert jumps == pytest.approx(expected)


@pytest.mark.parametrize(
    ("observations", "expected"),
    [
        pytest.param([(0, 50), (30, 51), (30, 59)], [None] * 3, id="leaps and stands still"),
        pytest.param([(0, 50), (-0.1, 51), (0.1, 52)], [None] * 3, id="told in the other order"),
        pytest.param([(9, 50), (2, 50.1), (3, 50.2)], [None, -7.0, None], id="the bag begins anew"),
        pytest.param([(0, 50), (-0.08, 51), (-0.16, 52)], [None, None, -0.16], id="bit by bit"),
        pytest.param([(9, 50), (2, 49.9), (9, 51)], [None] * 3, id="told late, so ignored"),
    ],
)
def test_a_simulated_clock_jumps_back_only(observations, expected):
    _, jumps = clock_after(*observations, simulated=True)
    assert jumps == pytest.approx(expected)


def test_the_clock_of_a_simulation_may_begin_long_after_zero():
    clock = StampClock(simulated=True)
    assert clock.observe(0, 50.0) is None
    assert clock.observe(NOW, 50.1) is None
    assert clock.age(NOW - 20 * MS, NOW) == 0.02


def test_stamps_from_before_a_jump_forward_have_no_age():
    clock, _ = clock_after((0, 50), (30, 50.1))
    assert clock.age(ns(0.08), ns(30)) == "jumped"
    assert clock.age(ns(30.02), ns(30.05)) == pytest.approx(0.03)


def test_stamps_from_before_a_jump_back_have_no_age():
    clock, _ = clock_after((0, 50), (-30, 50.1))
    assert clock.age(ns(0.08), ns(-30)) == "jumped"
    assert clock.age(ns(-30.01), ns(-29.9)) == "jumped"  # from either side of the jump
    assert clock.age(ns(-29.95), ns(-29.9)) == pytest.approx(0.05)


def test_after_a_short_jump_back_stamps_that_may_be_from_before_it_have_no_age():
    clock, _ = clock_after((0, 50), (-0.4, 50.1))  # it would be at 0.1
    assert clock.age(ns(0.09), ns(0.12)) == "jumped"
    assert clock.age(ns(0.11), ns(0.12)) == pytest.approx(0.01)


def test_a_stamp_may_be_newer_than_the_clock_was_last_seen_before_a_bag_began_anew():
    clock, _ = clock_after((8, 50), (0.1, 51.2), simulated=True)  # the bag ended at 9
    assert clock.age(ns(8.9), ns(0.1)) == "jumped"


def test_a_stamp_may_be_ahead_by_a_tick_of_a_bag_that_began_anew():
    clock, _ = clock_after((100, 0.0), (50, 1.0), (55, 6.0), simulated=True)
    assert clock.age(ns(55.05), ns(55)) == 0.0
    assert clock.age(ns(56), ns(55)) == "jumped"


def test_a_minute_after_a_jump_a_wrong_clock_is_named_again():
    clock, _ = clock_after((0, 50), (-3600, 50.1))
    assert clock.age(ns(-3595), ns(-3600)) == "jumped"
    assert clock.age(ns(-3535), ns(-3540)) == "future"
    assert clock.age(ns(-3700), ns(-3600)) == "jumped"
    assert clock.age(ns(-3700), ns(-3540)) == "old"


def test_a_clock_that_is_more_ahead_than_ours_jumped_is_wrong():
    clock, _ = clock_after((0, 50), (-30, 50.1))
    assert clock.age(ns(5), ns(-30)) == "future"


# Seconds between jumps are more than two, so that frames see one jump at most.
JUMPS = st.lists(
    st.tuples(st.floats(2.5, 20), st.floats(-100, 100).filter(lambda jump: abs(jump) > 0.11)),
    max_size=4,
)
# When a frame is stamped, and for how long it is on its way.
FRAMES = st.lists(st.tuples(st.floats(0, 60), st.floats(0, 0.99)), min_size=1, max_size=40)


@given(JUMPS, FRAMES)
def test_an_age_that_is_told_is_true_whatever_the_system_clock_does(jumps, frames):
    def told(time):
        offset = due = 0.0
        for pause, jump in jumps:
            due += pause
            offset += jump if time >= due else 0
        return ns(time + offset)

    clock = StampClock(simulated=False)
    clock.observe(told(0), 0.0)
    for taken, way in sorted(frames, key=sum):
        clock.observe(told(taken + way), taken + way)
        age = clock.age(told(taken), told(taken + way))
        if not jumps:
            assert age != "jumped"
        if not isinstance(age, str):
            assert age == pytest.approx(way, abs=1e-6)


@given(st.floats(1.1, 30), FRAMES)
def test_an_age_that_is_told_is_true_when_a_bag_begins_anew(length, frames):
    def told(time):
        return ns(time % length)

    clock = StampClock(simulated=True)
    for taken, way in sorted(frames, key=sum):
        clock.observe(told(taken + way), taken + way)
        age = clock.age(told(taken), told(taken + way))
        if not isinstance(age, str) and age > 0:
            assert age == pytest.approx(way, abs=1e-6)


@given(JUMPS.filter(bool), st.floats(0, 0.99))
def test_a_second_after_a_jump_new_frames_have_ages_again(jumps, way):
    clock, offset, time = StampClock(simulated=False), 0.0, 0.0
    clock.observe(ns(0), 0.0)
    for pause, jump in jumps:
        clock.observe(ns(time + pause + offset), time + pause)
        time, offset = time + pause + 0.01, offset + jump
        assert clock.observe(ns(time + offset), time) == pytest.approx(jump)
        stamp = time + 1.0 + offset
        assert clock.age(ns(stamp), ns(stamp + way)) == pytest.approx(way, abs=1e-6)

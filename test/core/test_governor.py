import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mbnet_perception.core.governor import (
    ALARM_ROOM,
    BACKLOG,
    DWELL,
    LONGEST_DWELL,
    MEMORY,
    ROOM,
    WINDOW,
    Governor,
    Step,
)

RUNGS = (0.020, 0.040, 0.060, 0.080)
BUDGET = 0.100


class Drive:
    """A governor under frames of a known duration, and what it does; 10 frames a second."""

    def __init__(self, start, rungs=RUNGS, budget=BUDGET):
        self.governor = Governor(rungs, budget, start)
        self.frames = 0

    @property
    def now(self):
        return self.frames / 10

    def run(self, seconds, frame, alarm=""):
        """The first step within so many seconds of frames like this one; None if there is none."""
        for _ in range(round(seconds * 10)):
            self.frames += 1
            self.governor.add(frame, self.now)
            if step := self.governor.decide(self.now, alarm):
                return step
        return None

    def take(self, seconds, frame, alarm=""):
        """Do as :meth:`run` and let the step take effect; its rung."""
        step = self.run(seconds, frame, alarm)
        assert step is not None
        self.governor.settle(step.rung, self.now)
        return step.rung


# One step down


def test_the_budget_is_missed_once_ten_frames_in_a_second_tell():
    drive = Drive(start=1)
    assert drive.run(1.0, 0.132) is None
    assert drive.run(0.1, 0.132) == Step(0, "p90 132 ms is over the budget of 100 ms")


def test_frames_that_are_too_slow_to_become_ten_tell_as_well():
    governor = Governor(RUNGS, BUDGET, 1)
    governor.add(1.5, 1.5)
    governor.add(1.5, 3.0)
    assert governor.decide(3.1) is None
    governor.add(1.5, 4.5)
    assert governor.decide(4.5) == Step(0, "p90 1500 ms is over the budget of 100 ms")


@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from([0.01, 0.1, 0.5, 2.0]))
def test_a_lone_spike_does_not_move_it(before, after, period):
    governor = Governor(RUNGS, BUDGET, 3)
    for i in range(before + 1 + after):
        governor.add(9.0 if i == before else 0.09, i * period)
        assert governor.decide(i * period) is None


@pytest.mark.parametrize(("period", "moves"), [(12, False), (8, True)])
def test_one_slow_frame_in_twelve_does_not_move_it_and_one_in_eight_does(period, moves):
    drive = Drive(start=3)
    steps = [drive.run(0.1, 0.5 if i % period == period - 1 else 0.09) for i in range(300)]
    assert any(steps) is moves


@pytest.mark.parametrize(
    ("frame", "rung"),
    [
        # 10 ms are fixed, so these are loads of 1.2, 1.5, 2 and 6.
        pytest.param(0.106, 2, id="82 ms on the next rung"),
        pytest.param(0.130, 1, id="100 ms on the next rung, 70 ms on the one below"),
        pytest.param(0.170, 0, id="90 ms are too near the budget, 50 ms are not"),
        pytest.param(0.490, 0, id="130 ms on the lowest"),
    ],
)
def test_it_goes_down_to_the_best_rung_that_is_expected_to_fit(frame, rung):
    drive = Drive(start=3)
    assert drive.run(10, 0.090) is None
    assert drive.run(10, frame).rung == rung


def test_a_budget_that_no_rung_holds_is_told_and_the_lowest_rung_kept():
    drive = Drive(start=2)
    assert drive.take(5, 0.300) == 0
    assert drive.governor.shortfall == ""
    assert drive.run(100, 0.240) is None
    assert drive.governor.shortfall == "p90 240 ms is over the budget of 100 ms"
    assert drive.run(20, 0.090) is None
    assert drive.governor.shortfall == ""


def test_a_shortfall_is_no_more_told_once_the_frames_that_showed_it_are_past():
    drive = Drive(start=0)
    assert drive.run(5, 0.240) is None
    assert drive.governor.decide(drive.now + WINDOW - 0.1) is None
    assert drive.governor.shortfall
    assert drive.governor.decide(drive.now + WINDOW + 0.1) is None
    assert drive.governor.shortfall == ""


# One step up


def test_it_climbs_one_rung_once_that_was_expected_to_fit_for_the_dwell():
    drive = Drive(start=1)
    assert drive.run(DWELL + 0.9, 0.050) is None
    step = drive.run(0.3, 0.050)
    reason = "p90 50 ms leaves room: 70 ms are expected there, the budget is 100 ms"
    assert step == Step(2, reason)


def test_a_budget_that_every_rung_holds_easily_leads_to_the_top_and_it_stays():
    drive = Drive(start=0)
    assert [drive.take(12, 0.005 + 0.5 * RUNGS[rung]) for rung in (0, 1, 2)] == [1, 2, 3]
    assert drive.run(2 * MEMORY, 0.045) is None
    assert drive.governor.rung == 3


@pytest.mark.parametrize(
    ("frame", "climbs"),
    [
        pytest.param(0.064, True, id="84 ms with 24 ms fixed"),
        pytest.param(0.066, False, id="86 ms with 26 ms fixed"),
    ],
)
def test_it_climbs_only_where_it_expects_some_room(frame, climbs):
    assert (Drive(start=1).run(60, frame) is not None) is climbs


def test_one_moment_without_room_begins_the_dwell_anew():
    drive = Drive(start=1)
    assert drive.run(DWELL - 1, 0.050) is None
    assert drive.run(2, 0.090) is None
    assert drive.run(WINDOW + DWELL - 3, 0.050) is None
    assert drive.run(5, 0.050).rung == 2


def test_it_does_not_climb_while_no_frame_comes():
    drive = Drive(start=1)
    assert drive.run(DWELL - 1, 0.050) is None
    assert not any(drive.governor.decide(drive.now + tick / 5) for tick in range(1000))
    drive.frames += 2000
    assert drive.run(DWELL, 0.050) is None


# Switches


def test_nothing_is_decided_before_the_step_has_settled():
    drive = Drive(start=3)
    assert drive.run(5, 0.101).rung == 2
    assert drive.run(60, 0.500, alarm="hot") is None
    assert drive.governor.rung == 3
    drive.governor.settle(2, drive.now)
    assert drive.governor.rung == 2


def test_frames_from_before_a_switch_are_forgotten():
    drive = Drive(start=3)
    drive.take(5, 0.130)
    assert drive.run(60, 0.090) is None


def test_frames_that_waited_for_the_rung_before_do_not_count():
    governor = Governor(RUNGS, BUDGET, 3)
    governor.settle(3, 100.0)
    for tick in range(40):
        now = 100.0 + tick / 10
        governor.add(now - 99.9, now)  # all stamped before, and most are over the budget
        assert governor.decide(now) is None
    for tick in range(40, 52):
        now = 100.0 + tick / 10
        governor.add(now - 100.0, now)
        assert (governor.decide(now) is not None) is (tick == 50)


def test_stamps_that_are_always_far_behind_are_judged_after_a_while():
    governor = Governor(RUNGS, BUDGET, 3)
    governor.settle(3, 100.0)
    steps = []
    for tick in range(100):
        now = 100.0 + tick / 10
        governor.add(30.0, now)
        steps.append(governor.decide(now))
    # Those of the first 5 s do not count, then it takes ten in 1 s.
    (step,) = filter(None, steps)
    assert (steps.index(step), step.rung) == (round(10 * (BACKLOG + 1.0)), 0)


# Alarms


def test_an_alarm_brings_it_down_one_rung_before_the_budget_is_missed():
    step = Drive(start=3).run(1.1, 0.090, alarm="81 degrees")
    assert step == Step(2, "81 degrees, and p90 90 ms leaves little of the budget of 100 ms")


def test_an_alarm_with_much_room_left_costs_nothing():
    assert Drive(start=3).run(60, ALARM_ROOM * BUDGET, alarm="hot") is None


def test_it_goes_on_down_while_the_alarm_lasts_and_room_is_little():
    drive = Drive(start=3)
    assert [drive.take(2, 0.090, alarm="hot") for _ in range(3)] == [2, 1, 0]
    assert drive.run(60, 0.090, alarm="hot") is None
    assert drive.governor.shortfall == ""


def test_it_never_climbs_during_an_alarm_nor_soon_after():
    drive = Drive(start=1)
    assert drive.run(60, 0.030, alarm="hot") is None
    assert drive.run(DWELL - 0.1, 0.030) is None
    assert drive.run(0.3, 0.030).rung == 2


def test_an_alarm_during_a_switch_counts():
    drive = Drive(start=3)
    drive.run(2, 0.101)
    drive.governor.settle(2, drive.now)
    assert drive.run(5, 0.030) is None
    assert drive.run(0.1, 0.030, alarm="hot") is None
    assert drive.run(DWELL - 0.1, 0.030) is None


# Climbs in vain


def climb_in_vain(drive, below, above, after):
    """Climb from rung 1 to 2 and be taken back after so many seconds; seconds till the climb."""
    began = drive.now
    assert drive.take(5 * MEMORY, below) == 2
    waited = drive.now - began
    assert drive.run(after, 0.080) is None
    assert drive.take(2 * WINDOW, above) == 1
    return waited


def test_a_climb_that_was_over_the_budget_at_once_goes_back_to_where_it_came_from():
    drive = Drive(start=1)
    # A load of 4.5 would leave only rung 0; but it is only this rung that is so slow.
    climb_in_vain(drive, 0.050, 0.280, after=0)


def test_such_a_climb_is_not_tried_again_before_the_p90_is_clearly_lower():
    drive = Drive(start=1)
    climb_in_vain(drive, 0.050, 0.110, after=0)
    assert drive.run(MEMORY - 2, 0.045) is None
    drive = Drive(start=1)
    climb_in_vain(drive, 0.050, 0.110, after=0)
    assert drive.run(40, ROOM * 0.050).rung == 2


def test_such_a_climb_is_tried_again_ever_later():
    drive = Drive(start=1)
    waits = [climb_in_vain(drive, 0.050, 0.110, after=0) for _ in range(4)]
    # The dwell follows the wait, and is halved by it to what it was.
    assert waits == pytest.approx([DWELL + t * MEMORY for t in (0, 1, 2, 4)], abs=1.5)


def test_a_rung_that_held_for_long_has_all_climbs_in_vain_forgiven_up_to_it():
    drive = Drive(start=1)
    for _ in range(2):
        climb_in_vain(drive, 0.050, 0.110, after=0)
    assert drive.take(40, ROOM * 0.050) == 2
    assert drive.take(60, 0.055) == 3
    assert drive.run(MEMORY + 1, 0.090) is None
    assert [drive.take(2, 0.090, alarm="hot") for _ in range(2)] == [2, 1]
    waits = [climb_in_vain(drive, 0.050, 0.110, after=0) for _ in range(2)]
    assert waits == pytest.approx([DWELL, DWELL + MEMORY], abs=1.5)


def test_each_climb_that_is_taken_back_later_doubles_the_dwell_up_to_ten_minutes():
    drive = Drive(start=1)
    waits = [climb_in_vain(drive, 0.050, 0.110, after=100) for _ in range(8)]
    dwells = [10, 20, 40, 80, 160, 320, 600, 600]
    assert waits == pytest.approx([dwell + 1 for dwell in dwells], abs=0.5)


def test_a_climb_that_an_alarm_takes_back_doubles_the_dwell_too():
    drive = Drive(start=1)
    assert drive.take(12, 0.050) == 2
    assert drive.take(2, 0.080, alarm="hot") == 1
    assert drive.run(2 * DWELL, 0.050) is None
    assert drive.run(2, 0.050).rung == 2


def test_a_climb_that_held_is_not_taken_back_by_what_comes_later():
    drive = Drive(start=1)
    climb_in_vain(drive, 0.050, 0.110, after=LONGEST_DWELL)
    assert climb_in_vain(drive, 0.050, 0.110, after=100) < DWELL + 2


def test_a_climb_is_taken_back_only_once():
    drive = Drive(start=1)
    climb_in_vain(drive, 0.050, 0.110, after=100)
    assert drive.take(2 * WINDOW, 0.110) == 0
    assert drive.run(2 * DWELL, 0.030) is None
    assert drive.run(2, 0.030).rung == 1


def test_steps_down_that_follow_no_climb_cost_nothing():
    drive = Drive(start=3)
    assert [drive.take(2, 0.101) for _ in range(2)] == [2, 1]
    assert drive.run(DWELL + 2, 0.050).rung == 2


def test_what_was_learnt_of_the_fixed_part_is_forgotten_after_a_long_time_on_a_rung():
    drive = Drive(start=1)
    assert drive.run(5, 0.045) is None
    assert drive.run(MEMORY - 6, 0.064) is None  # 5 ms fixed, and so 94 ms on the next rung
    assert drive.run(2 * DWELL, 0.064).rung == 2  # 24 ms, and 84 ms


def test_half_of_the_dwell_is_forgotten_after_a_long_time_on_a_rung():
    drive = Drive(start=1)
    waits = [climb_in_vain(drive, 0.050, 0.110, after=100) for _ in range(4)]  # now it is 160 s
    assert drive.run(MEMORY + 1, 0.090) is None
    assert drive.run(WINDOW + 0.5 * 160 - 3, 0.050) is None
    assert drive.run(5, 0.050).rung == 2
    assert waits[-1] < 2 * waits[-2]


# What it refuses


@pytest.mark.parametrize(
    ("rungs", "budget", "start", "message"),
    [
        pytest.param((0.1, 0.1), 0.1, 0, r"rise from above 0, got \[0.1, 0.1\]", id="no rise"),
        pytest.param((0.0, 0.1), 0.1, 0, r"rise from above 0, got \[0.0, 0.1\]", id="zero"),
        pytest.param((0.1, math.nan), 0.1, 0, r"rise from above 0, got \[0.1, nan\]", id="nan"),
        pytest.param((0.1, math.inf), 0.1, 0, r"rise from above 0, got \[0.1, inf\]", id="inf"),
        pytest.param(RUNGS, 0.0, 0, "above 0 s, got 0.0", id="no budget"),
        pytest.param(RUNGS, math.inf, 0, "above 0 s, got inf", id="endless budget"),
        pytest.param(RUNGS, 0.1, 4, "one of 4 rungs, got 4", id="no such rung"),
        pytest.param(RUNGS, 0.1, -1, "one of 4 rungs, got -1", id="no rung from the end"),
        pytest.param((), 0.1, 0, "one of 0 rungs, got 0", id="no rungs"),
    ],
)
def test_a_governor_of_nonsense_is_refused(rungs, budget, start, message):
    with pytest.raises(ValueError, match=message):
        Governor(rungs, budget, start)


@pytest.mark.parametrize("seconds", [-0.001, math.nan, math.inf])
def test_add_refuses_what_is_no_duration(seconds):
    with pytest.raises(ValueError, match=f"not negative, got {seconds}"):
        Governor(RUNGS, BUDGET, 0).add(seconds, 0.0)


# In a simulated node


class Taken(NamedTuple):
    """A step that was taken in a drive; `at` is when."""

    at: float
    left: int
    to: int
    reason: str
    alarm: str


@dataclass
class Car:
    """Cameras, a worker that takes their newest frames in turn, and what slows the worker down.

    Attributes:
        rungs: Seconds that a frame takes on each rung when nothing slows it.
        transport: Seconds from stamp to arrival, the same on every rung.
        cameras: How many there are; each begins when it likes.
        rate: Frames of a camera in a second.
        noise: Deviation of the logarithm of what a frame takes.
        seed: Of the noise, and of when cameras begin.
        load: Factor on what a frame takes, by time.
        heat: Degrees above 40 where it would end if the worker never rested; 0 is no heat. From 80
            degrees on the board alarms, and up to 85 the clock falls to 40 %.
        inertia: Seconds in which two thirds of the heat come.
    """

    rungs: tuple[float, ...]
    transport: float = 0.01
    cameras: int = 1
    rate: float = 30.0
    noise: float = 0.03
    seed: int = 0
    load: Callable[[float], float] = lambda _: 1.0
    alarm: Callable[[float], str] = lambda _: ""
    heat: float = 0.0
    inertia: float = 100.0

    def drive(self, seconds, governor=None, rung=0):
        """Drive for so long, with a switch half a second after each decision.

        Returns:
            When frames were answered with what they took, stamp to publish; and the steps.
        """
        random = Random(self.seed)
        begins = [random.random() / self.rate for _ in range(self.cameras)]
        taken = [-1] * self.cameras
        turns = list(range(self.cameras))  # who was served last is last
        now, tick, degrees = 0.0, 0.0, 40.0
        frames, steps, ready = [], [], math.inf
        rung = governor.rung if governor else rung
        while now < seconds:
            next_ones = [
                begin + (frame + 1) / self.rate + self.transport
                for begin, frame in zip(begins, taken, strict=True)
            ]
            waiting = (camera for camera in turns if next_ones[camera] <= now)
            camera = next(waiting, None)
            if camera is None:
                camera = min(turns, key=next_ones.__getitem__)
            turns.remove(camera)
            turns.append(camera)
            freed, now = now, max(now, next_ones[camera])
            newest = math.floor((now - self.transport - begins[camera]) * self.rate)
            taken[camera] = max(taken[camera] + 1, newest)
            stamp = begins[camera] + taken[camera] / self.rate
            if now >= ready:
                rung, ready = steps[-1].to, math.inf
                governor.settle(rung, now)
            clock = 1 - 0.6 * min(1, max(0, (degrees - 80) / 5))
            busy = self.rungs[rung] * self.load(now) * random.lognormvariate(0, self.noise) / clock
            now += busy
            warmth = self.heat * clock * busy / (now - freed)
            degrees += (40 + warmth - degrees) * (now - freed) / self.inertia
            while governor and tick < now:
                tick += 0.2
                alarm = "hot" if degrees >= 80 else self.alarm(tick)
                if step := governor.decide(tick, alarm):
                    steps.append(Taken(tick, rung, step.rung, step.reason, alarm))
                    ready = tick + 0.5
            frames.append((now, now - stamp))
            if governor:
                governor.add(now - stamp, now)
        return frames, steps

    def p90(self, rung):
        """p90 of stamp-to-publish on a rung, without a governor."""
        return p90(self.drive(max(10, 200 / self.rate), rung=rung)[0])


def p90(frames):
    return sorted(took for _, took in frames)[math.ceil(0.9 * len(frames)) - 1]


def reversals(steps):
    """How often a climb was followed by a step down."""
    up = [step.to > step.left for step in steps]
    return sum(a and not b for a, b in pairwise(up))


@st.composite
def cars(draw, noise=(0.01, 0.05, 0.1), rates=(5.0, 10.0, 30.0, 60.0), cameras=1):
    rungs = [draw(st.floats(0.01, 0.04))]
    for factor in draw(st.lists(st.floats(1.15, 2.0), max_size=5)):
        rungs.append(rungs[-1] * factor)
    return Car(
        rungs=tuple(rungs),
        transport=draw(st.sampled_from([0.0, 0.005, 0.03, 0.1])),
        cameras=draw(st.integers(1, cameras)),
        rate=draw(st.sampled_from(rates)),
        noise=draw(st.sampled_from(noise)),
        seed=draw(st.integers(0, 1000)),
    )


def budget_for(draw, car):
    """A budget near the p90 of one of the rungs."""
    rung = draw(st.integers(0, len(car.rungs) - 1))
    return draw(st.floats(0.8, 1.4)) * car.p90(rung)


def start_of(draw, car):
    return draw(st.integers(0, len(car.rungs) - 1))


def ends_well(car, governor, budget):
    """Whether the rung that runs holds the budget, or is the lowest; and is not needlessly low."""
    if governor.rung and car.p90(governor.rung) > 1.02 * budget:
        return False
    higher = governor.rung + 1
    return higher == len(car.rungs) or car.p90(higher) > 0.8 * budget


# The same drives each time, and none is shrunk when it fails: that takes minutes.
simulated = settings(max_examples=40, deadline=None, derandomize=True, phases=[Phase.generate])
long_simulated = settings(simulated, max_examples=15)


@simulated
@given(st.data())
def test_under_a_constant_load_it_finds_its_rung_and_stays(data):
    car = data.draw(cars(cameras=4))
    load = data.draw(st.sampled_from([1.0, 1.0, 1.5, 3.0]))
    car.load = lambda _: load
    budget = budget_for(data.draw, car)
    governor = Governor(car.rungs, budget, start_of(data.draw, car))
    frames, steps = car.drive(300, governor)
    assert ends_well(car, governor, budget)
    assert reversals(steps) <= 1
    assert len(steps) <= len(car.rungs) + 2
    late = [(at, took) for at, took in frames if at > 200]
    assert p90(late) <= max(budget, 1.05 * car.p90(0))


@pytest.mark.parametrize(
    ("car", "budget"),
    [
        pytest.param(
            Car(rungs=(0.060, 0.084), transport=0.02, rate=15.0, noise=0.05), 0.160, id="one camera"
        ),
        pytest.param(
            Car((0.0238, 0.0299, 0.0406, 0.0482, 0.0491, 0.0512), cameras=4, rate=5.0, noise=0.0),
            0.196,
            id="four cameras, to which the highest rung is just too slow",
        ),
    ],
)
def test_under_a_constant_load_climbs_in_vain_become_ever_rarer(car, budget):
    governor = Governor(car.rungs, budget, 0)
    _, steps = car.drive(7200, governor)
    top = len(car.rungs) - 1
    vain = [step.at for step in steps if step.to == top]
    # One at first, and then after 1200, 2400, and 4800 s, which is beyond the end.
    waits = [b - a for a, b in pairwise(vain)]
    assert len(waits) == 2
    assert all(wait > times * MEMORY for wait, times in zip(waits, (1, 2), strict=True))
    assert reversals(steps) == len(vain)


@pytest.mark.parametrize("seed", range(8))
def test_frames_that_wait_after_a_climb_in_vain_cost_no_further_step(seed):
    # Four frames come each 333 ms, and the highest rung takes 340 ms for them.
    car = Car((0.048, 0.057, 0.071, 0.085), cameras=4, rate=3.0, noise=0.0, seed=seed)
    governor = Governor(car.rungs, 0.328, 1)
    _, steps = car.drive(300, governor)
    assert [step.to for step in steps] in ([2], [2, 3, 2])


@simulated
@given(st.data())
def test_it_follows_a_load_that_steps_or_ramps_up_and_finds_its_rung_again(data):
    car = data.draw(cars())
    factor, ramp = data.draw(st.floats(1.2, 3.0)), data.draw(st.sampled_from([0.1, 10.0, 60.0]))
    car.load = lambda _: factor
    budget = budget_for(data.draw, car)
    car.load = lambda now: 1 + (factor - 1) * min(1, max(0, (now - 60) / ramp))
    governor = Governor(car.rungs, budget, start_of(data.draw, car))
    _, steps = car.drive(360, governor)
    assert reversals(steps) <= 3
    car.load = lambda _: factor
    assert ends_well(car, governor, budget)


@long_simulated
@given(st.data())
def test_a_load_that_comes_and_goes_makes_it_climb_ever_less(data):
    car = data.draw(cars(rates=(5.0, 10.0)))
    factor, phase = data.draw(st.floats(1.2, 3.0)), data.draw(st.sampled_from([1, 5, 20, 60, 200]))
    budget = budget_for(data.draw, car)
    car.load = lambda now: factor if now // phase % 2 else 1.0
    governor = Governor(car.rungs, budget, start_of(data.draw, car))
    hour = 3600
    _, steps = car.drive(hour, governor)
    # 10 + 20 + ... + 320 s are six climbs in vain, and then it is one in 600 s.
    assert reversals(steps) <= 6 + (hour - 630) / LONGEST_DWELL


@long_simulated
@given(st.data())
def test_on_a_board_that_heats_up_it_comes_down_before_a_miss(data):
    car = data.draw(cars(rates=(10.0, 15.0)))
    budget = budget_for(data.draw, car)
    car.load = lambda _: 2.5
    budget = max(budget, 1.05 * car.p90(0))  # the lowest rung holds it even at the lowest clock
    car.load = lambda _: 1.0
    start = max(rung for rung in range(len(car.rungs)) if car.p90(rung) <= ROOM * budget)
    car.heat, car.inertia = data.draw(st.floats(30, 70)), data.draw(st.floats(60, 300))
    governor = Governor(car.rungs, budget, start)
    frames, steps = car.drive(1800, governor)
    assert not [step for step in steps if step.alarm and "is over" in step.reason]
    assert reversals(steps) <= 6 + (1800 - 630) / LONGEST_DWELL
    for begin in range(0, 1800, 60):
        assert p90([(at, took) for at, took in frames if begin <= at < begin + 60]) <= budget


@simulated
@given(st.data())
def test_it_never_climbs_while_the_board_alarms(data):
    car = data.draw(cars(rates=(5.0, 10.0)))
    changes = sorted(data.draw(st.lists(st.floats(0, 300), min_size=1, max_size=8)))
    car.alarm = lambda now: "hot" if sum(at <= now for at in changes) % 2 else ""
    budget = budget_for(data.draw, car)
    governor = Governor(car.rungs, budget, start_of(data.draw, car))
    _, steps = car.drive(300, governor)
    for climb in (step for step in steps if step.to > step.left):
        assert not any(car.alarm(climb.at - DWELL * part / 100) for part in range(100))

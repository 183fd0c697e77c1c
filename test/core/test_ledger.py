from collections import Counter
from dataclasses import astuple
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbnet_perception.core.ledger import FrameCounts, FrameLedger

OUTCOMES = ("processed", "superseded", "stale", "failed")


@given(st.lists(st.sampled_from(("receive", *OUTCOMES)), max_size=50))
def test_the_books_balance_after_every_entry(entries):
    ledger = FrameLedger()
    booked = Counter()
    for entry in entries:
        if entry == "receive":
            ledger.receive()
            booked[entry] += 1
        elif booked["receive"] > sum(booked[outcome] for outcome in OUTCOMES):
            ledger.settle(entry)
            booked[entry] += 1
        else:
            with pytest.raises(ValueError, match=f"no frame is waiting that could be {entry}"):
                ledger.settle(entry)
        received, *outcomes, waiting, lost, lost_by_stamps = astuple(ledger.counts)
        assert received == booked["receive"]
        assert outcomes == [booked[outcome] for outcome in OUTCOMES]
        assert received == sum(outcomes) + waiting
        assert lost == lost_by_stamps == 0


def test_threads_lose_no_entry():
    ledger = FrameLedger()

    def work(outcome):
        for _ in range(500):
            ledger.receive()
            ledger.settle(outcome)

    threads = [Thread(target=work, args=(outcome,)) for outcome in OUTCOMES]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        received, *rest = astuple(ledger.counts)
        assert received == sum(rest)
    assert ledger.counts == FrameCounts(2000, 500, 500, 500, 500)


def test_counts_are_of_one_moment():
    ledger = FrameLedger()
    before = ledger.counts
    ledger.receive()
    assert before == FrameCounts()
    assert ledger.counts == FrameCounts(received=1, waiting=1)


@pytest.mark.parametrize(
    ("numbers", "lost"),
    [
        pytest.param([5], 0, id="frames before the first are not known"),
        pytest.param([5, 6, 7], 0, id="no gap"),
        pytest.param([5, 7, 10], 3, id="6, 8 and 9"),
        pytest.param([7, 1, 2, 4], 1, id="a camera that began anew lost 3"),
        pytest.param([7, 1, 4, 6], 1, id="right after it began anew nothing is told"),
        pytest.param([50, 1, 51, 2, 52, 3], 0, id="two cameras in turn"),
        pytest.param([None, None, None], 0, id="no numbers"),
        pytest.param([1, None, 5], 0, id="a gap that cannot be told"),
    ],
)
def test_gaps_between_numbers_are_lost_frames(numbers, lost):
    ledger = FrameLedger()
    for number in numbers:
        ledger.receive(number)
    assert ledger.counts == FrameCounts(received=len(numbers), waiting=len(numbers), lost=lost)


def test_what_was_sent_while_nothing_was_asked_for_is_not_lost():
    ledger = FrameLedger()
    for number in (1, 2, 4):
        ledger.receive(number)
    ledger.resume()
    for number in (9, 10, 12):
        ledger.receive(number)
    assert ledger.counts.lost == 2  # 3 and 11
    for stamp in stamps_at(*TEN):
        ledger.receive(None, stamp)
    ledger.resume()
    ledger.receive(None, stamps_at(1500)[0])
    assert ledger.counts.lost_by_stamps == 0


MS = 10**6
SECOND = 10**9
START = 1_700_000_000 * SECOND


def lost_by(stamps, numbers=None):
    ledger = FrameLedger()
    for index, stamp in enumerate(stamps):
        ledger.receive(numbers[index] if numbers else None, stamp)
    assert ledger.counts.received == ledger.counts.waiting == len(stamps)
    assert numbers or ledger.counts.lost == 0
    return ledger.counts.lost_by_stamps


def stamps_at(*milliseconds):
    return [START + ms * MS for ms in milliseconds]


TEN = range(0, 1000, 100)  # ten frames, 100 ms apart, up to 900 ms


@pytest.mark.parametrize(
    ("stamps", "lost"),
    [
        pytest.param(stamps_at(*TEN, 1000), 0, id="no gap"),
        pytest.param(stamps_at(*TEN, 1100), 1, id="two periods"),
        pytest.param(stamps_at(*TEN, 1049), 0, id="one and a half, nearly"),
        pytest.param(stamps_at(*TEN, 1050), 1, id="one and a half"),
        pytest.param(stamps_at(*TEN, 1240, 1350), 2, id="three and a half, nearly, then one"),
        pytest.param(stamps_at(*TEN, 910), 0, id="early"),
        pytest.param(stamps_at(*TEN, 2900), 19, id="two seconds"),
        pytest.param(stamps_at(*TEN, 2901, 3101), 0, id="more than two seconds begin anew"),
        pytest.param(stamps_at(*TEN, 900, 1100), 0, id="a stamp that repeats begins anew"),
        pytest.param(stamps_at(*TEN, 850, 1050), 0, id="a stamp that goes back begins anew"),
        pytest.param(stamps_at(*TEN, *TEN, 1100), 1, id="a bag that began anew lost one"),
        pytest.param([*stamps_at(*TEN), 0, *stamps_at(1100, 1300)], 0, id="no stamp begins anew"),
        pytest.param([*stamps_at(*TEN), None, *stamps_at(1100)], 0, id="a useless stamp likewise"),
        pytest.param(stamps_at(*TEN[:6], 700), 1, id="five periods are enough"),
        pytest.param(stamps_at(*TEN[:5], 600), 0, id="four are not"),
        pytest.param([0, 0, 0, 0, 0, 0, 0], 0, id="no stamps"),
    ],
)
def test_gaps_between_stamps_tell_lost_frames(stamps, lost):
    assert lost_by(stamps) == lost


def test_where_there_are_numbers_stamps_tell_nothing():
    stamps = stamps_at(*TEN, 1300, 1500)
    assert lost_by(stamps, numbers=[*range(11), None]) == 1  # of the last one
    assert lost_by(stamps, numbers=list(range(12))) == 0


@pytest.mark.parametrize("before, after", [(33, 66), (66, 33), (100, 900)])
def test_a_camera_that_changes_its_rate_is_believed_soon(before, after):
    stamps = stamps_at(*range(0, 20 * before, before))
    stamps += [stamps[-1] + i * after * MS for i in range(1, 41)]
    # Until most of the fifteen newest periods are the new ones.
    assert lost_by(stamps) == 8 * (round(after / before) - 1 if after > before else 0)


@given(
    st.integers(20, 480),
    st.lists(st.tuples(st.integers(3, 6), st.integers(1, 3)), max_size=20),
    st.lists(st.integers(-3, 3), min_size=1, max_size=10),
)
def test_stamps_tell_all_frames_that_a_steady_camera_lost_now_and_then(period, losses, jitter):
    """After some frames that come, some are lost; stamps are off by up to 3 % of the period."""
    sent = list(range(7))
    for come, lost in losses:
        first = sent[-1] + lost + 1
        sent += range(first, first + come)
    sent.append(sent[-1] + 1)
    stamps = [
        START + frame * period * MS + jitter[frame % len(jitter)] * period * MS // 100
        for frame in sent
    ]
    assert lost_by(stamps) == sum(lost for _, lost in losses)


@given(st.lists(st.none() | st.integers(-10, 10) | st.integers(0, 2**63), max_size=40))
def test_no_stamps_upset_the_books(stamps):
    assert lost_by(stamps) >= 0

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
        received, *outcomes, waiting, lost = astuple(ledger.counts)
        assert received == booked["receive"]
        assert outcomes == [booked[outcome] for outcome in OUTCOMES]
        assert received == sum(outcomes) + waiting
        assert lost == 0


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
        pytest.param([None, None, None], 0, id="no numbers"),
        pytest.param([1, None, 5], 0, id="a gap that cannot be told"),
    ],
)
def test_gaps_between_numbers_are_lost_frames(numbers, lost):
    ledger = FrameLedger()
    for number in numbers:
        ledger.receive(number)
    assert ledger.counts == FrameCounts(received=len(numbers), waiting=len(numbers), lost=lost)

from itertools import count, permutations
from queue import SimpleQueue
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbnet_perception.core.frame_queue import FrameQueue
from mbnet_perception.core.ledger import FrameCounts, FrameLedger

ENOUGH = 60  # seconds that nothing here needs


def queue_of(*weights):
    ledgers = [FrameLedger() for _ in weights]
    return FrameQueue(ledgers, weights), ledgers


def taken_while_all_wait(queue, cameras, times):
    """Which cameras are taken when each has a new frame at every turn."""
    taken = []
    for _ in range(times):
        for camera in range(cameras):
            queue.put(camera, None)
        taken.append(queue.take(wait=False)[0])
    return taken


def balanced(counts):
    return counts.received == (
        counts.processed + counts.superseded + counts.stale + counts.failed + counts.waiting
    )


def test_a_frame_that_waits_is_superseded():
    queue, (ledger,) = queue_of(1)
    queue.put(0, "first")
    queue.put(0, "second")
    assert ledger.counts == FrameCounts(received=2, superseded=1, waiting=1)
    assert queue.take(wait=False) == (0, "second")
    assert queue.take(wait=False) is None
    assert ledger.counts == FrameCounts(received=2, superseded=1, waiting=1)


def test_a_frame_may_be_anything_even_none():
    queue, _ = queue_of(1)
    queue.put(0, None)
    assert queue.take(wait=False) == (0, None)


def test_numbers_and_stamps_reach_the_ledger():
    queue, (ledger, other) = queue_of(1, 1)
    queue.put(0, "frame", number=3)
    queue.put(0, "frame", number=7)
    for stamp in (1, 2, 3, 4, 5, 6, 8):
        queue.put(1, "frame", stamp=stamp * 10**8)
    assert ledger.counts.lost == 3
    assert other.counts.lost_by_stamps == 1


def test_after_closing_frames_are_stale():
    queue, (first, second) = queue_of(1, 1)
    queue.put(0, "waits")
    queue.put(1, "is taken")
    queue.put(1, "replaces it")
    queue.close()
    queue.close()
    assert queue.take() is None
    assert first.counts == FrameCounts(received=1, stale=1)
    assert second.counts == FrameCounts(received=2, superseded=1, stale=1)
    queue.put(0, "comes too late")
    assert queue.take() is None
    assert first.counts == FrameCounts(received=2, stale=2)


def test_a_frame_that_was_taken_before_closing_is_still_the_takers():
    queue, (ledger,) = queue_of(1)
    queue.put(0, "frame")
    queue.take(wait=False)
    queue.close()
    assert ledger.counts == FrameCounts(received=1, waiting=1)
    ledger.settle("processed")
    assert ledger.counts == FrameCounts(received=1, processed=1)


ENTRIES = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 2)),
    st.tuples(st.sampled_from(["take", "processed", "stale", "failed"]), st.none()),
)


@given(st.lists(ENTRIES, max_size=60), st.integers(0, 60))
def test_the_books_balance_whatever_happens(entries, closing):
    queue, ledgers = queue_of(1, 2, 0.5)
    waiting, busy, numbers = {}, [], count()
    for step, (entry, camera) in enumerate(entries):
        if step == closing:
            queue.close()
            waiting.clear()
        if entry == "put":
            frame = (camera, next(numbers))
            queue.put(camera, frame)
            if step < closing:
                waiting[camera] = frame
        elif entry == "take":
            taken = queue.take(wait=False)
            if waiting:
                camera, frame = taken
                assert frame == waiting.pop(camera)
                busy.append(camera)
            else:
                assert taken is None
        elif busy:
            ledgers[busy.pop(0)].settle(entry)
        for camera, ledger in enumerate(ledgers):
            assert balanced(ledger.counts)
            assert ledger.counts.waiting == (camera in waiting) + busy.count(camera)
    queue.close()
    for camera in busy:
        ledgers[camera].settle("processed")
    for ledger in ledgers:
        assert balanced(ledger.counts)
        assert ledger.counts.waiting == 0


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        pytest.param([1], [4], id="one"),
        pytest.param([1, 1], [2, 2], id="equal"),
        pytest.param([5, 5], [2, 2], id="only the ratio counts"),
        pytest.param([1, 3], [1, 3], id="one to three"),
        pytest.param([0.25, 0.75], [1, 3], id="fractions"),
        pytest.param([1, 1, 2], [1, 1, 2], id="three cameras"),
    ],
)
def test_cameras_are_taken_by_weight(weights, expected):
    queue, _ = queue_of(*weights)
    for _ in range(3):
        taken = taken_while_all_wait(queue, len(weights), 4)
        assert [taken.count(camera) for camera in range(len(weights))] == expected


def test_equal_cameras_take_turns():
    queue, _ = queue_of(1, 1, 1)
    assert taken_while_all_wait(queue, 3, 9) == [0, 1, 2] * 3


WEIGHTS = st.lists(st.floats(0.1, 10), min_size=2, max_size=5)


@given(WEIGHTS, st.integers(1, 80))
def test_shares_of_cameras_that_always_wait_are_within_a_frame_of_their_weights(weights, times):
    queue, _ = queue_of(*weights)
    taken = taken_while_all_wait(queue, len(weights), times)
    for one, other in permutations(range(len(weights)), 2):
        due = taken.count(other) / weights[other] * weights[one]
        assert taken.count(one) <= due + 1 + 1e-6


@given(WEIGHTS, st.lists(st.integers(0, 4) | st.just("take"), max_size=150))
def test_no_camera_waits_longer_than_its_weight_says(weights, entries):
    queue, _ = queue_of(*weights)
    patience = [sum(int(other / weight + 1e-6) + 1 for other in weights) - 2 for weight in weights]
    since = {}  # takes of others since a camera began to wait
    for entry in [*entries, *["take"] * len(weights)]:
        if entry == "take":
            taken = queue.take(wait=False)
            if taken:
                since.pop(taken[0])
            for camera in since:
                since[camera] += 1
                assert since[camera] <= patience[camera]
        elif entry < len(weights):
            queue.put(entry, None)
            since.setdefault(entry, 0)


@given(WEIGHTS, st.lists(st.booleans(), max_size=60))
def test_a_camera_that_was_silent_does_not_catch_up(weights, begun):
    """The first camera is alone for a while; what comes then is shared as if from the start."""
    queue, _ = queue_of(*weights)
    for _ in begun:
        queue.put(0, None)
        queue.take(wait=False)
    taken = taken_while_all_wait(queue, len(weights), 60)
    for one, other in permutations(range(len(weights)), 2):
        due = taken.count(other) / weights[other] * weights[one]
        # Whoever was taken last may first have to wait for what it was taken for.
        assert taken.count(one) <= due + 1 + weights[one] / weights[other] + 1e-6


def test_a_camera_of_nearly_no_weight_harms_nobody():
    queue, _ = queue_of(1e-300, 1e300, 1e300)
    queue.put(0, None)
    assert queue.take(wait=False) == (0, None)  # nobody else waits
    for _ in range(3):
        taken = taken_while_all_wait(queue, 3, 100)
        assert abs(taken.count(1) - taken.count(2)) <= 2


@given(st.lists(st.integers(0, 1) | st.just("take"), max_size=80))
def test_of_each_camera_the_newest_frame_is_taken_and_none_twice(entries):
    queue, _ = queue_of(1, 2)
    newest, seen = {}, {0: [-1], 1: [-1]}
    for number, entry in enumerate(entries):
        if entry == "take":
            taken = queue.take(wait=False)
            if taken:
                camera, frame = taken
                assert frame == newest[camera] > seen[camera][-1]
                seen[camera].append(frame)
        else:
            queue.put(entry, number)
            newest[entry] = number


def test_a_worker_that_waits_is_woken_by_a_frame():
    queue, _ = queue_of(1)
    taken = []
    worker = Thread(target=lambda: taken.append(queue.take()), daemon=True)
    worker.start()
    queue.put(0, "frame")
    worker.join(ENOUGH)
    assert taken == [(0, "frame")]


def test_a_worker_that_waits_is_woken_by_closing():
    queue, _ = queue_of(1)
    taken = []
    worker = Thread(target=lambda: taken.append(queue.take()), daemon=True)
    worker.start()
    queue.close()
    worker.join(ENOUGH)
    assert taken == [None]


def test_a_worker_that_answers_each_frame_before_the_next_is_woken_by_each():
    queue, _ = queue_of(1)
    answers = SimpleQueue()

    def work():
        while taken := queue.take():
            answers.put(taken)

    worker = Thread(target=work, daemon=True)
    worker.start()
    for number in range(1000):
        queue.put(0, number)
        assert answers.get(timeout=ENOUGH) == (0, number)
    queue.close()
    worker.join(ENOUGH)
    assert not worker.is_alive()


def test_the_books_balance_while_threads_work():
    queue, ledgers = queue_of(1, 2, 3)
    taken = [0, 0, 0]

    def camera_sends(camera):
        for number in range(400):
            queue.put(camera, number)

    def work():
        while frame := queue.take():
            taken[frame[0]] += 1
            ledgers[frame[0]].settle("processed")

    worker = Thread(target=work, daemon=True)
    senders = [Thread(target=camera_sends, args=(camera,), daemon=True) for camera in range(3)]
    for thread in (worker, *senders):
        thread.start()
    while any(sender.is_alive() for sender in senders):
        assert all(balanced(ledger.counts) for ledger in ledgers)
    queue.close()
    for thread in (worker, *senders):
        thread.join(ENOUGH)
    for ledger, processed in zip(ledgers, taken, strict=True):
        counts = ledger.counts
        assert (counts.received, counts.processed, counts.waiting) == (400, processed, 0)
        assert counts.superseded + counts.stale == 400 - processed


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(ValueError, match=f"above 0 and finite, got {weight}"):
        queue_of(1, weight)


def test_every_camera_needs_a_weight():
    with pytest.raises(ValueError, match=r"each camera \(2\), got 1"):
        FrameQueue([FrameLedger(), FrameLedger()], [1])


def test_a_camera_that_does_not_exist_is_refused():
    queue, (ledger,) = queue_of(1)
    with pytest.raises(IndexError):
        queue.put(1, "frame")
    assert ledger.counts == FrameCounts()

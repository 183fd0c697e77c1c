import gc
import weakref
from threading import Event, Thread, current_thread

import numpy as np
import pytest

from mbnet_perception.core.frame_queue import FrameQueue
from mbnet_perception.inference.detector import Detector
from mbnet_perception.inference.engine import Engine
from mbnet_perception.nodes.answerer import Answerer

GREY = np.full((120, 160, 3), 128, np.uint8)
LIMIT = 20.0  # seconds
SOON = 0.1  # seconds, in which what is wrong would have happened


class Due:
    """What is to be answered; nothing else in these tests is of this class."""


@pytest.fixture
def slow():
    """An answerer that takes until it is let go on, for 1; and what it did, by which thread."""
    go_on, answered = Event(), []

    def answer(due):
        assert due != 1 or go_on.wait(LIMIT)
        answered.append((due, current_thread().name))

    one = Answerer(answer)
    yield one, go_on, answered
    go_on.set()
    one.close()


def test_none_overtakes_the_one_before(slow):
    answerer, go_on, answered = slow
    answerer.answer_beside(1)
    here = Thread(target=answerer.answer_here, args=(2,), name="here")
    here.start()
    here.join(SOON)
    assert not answered
    go_on.set()
    here.join()
    answerer.answer_beside(3)
    answerer.close()
    assert answered == [(1, "answerer"), (2, "here"), (3, "answerer")]


def test_what_was_asked_for_is_answered_before_the_end(slow):
    answerer, go_on, answered = slow
    answerer.answer_beside(1)
    end = Thread(target=answerer.close)
    end.start()
    end.join(SOON)
    assert end.is_alive()
    go_on.set()
    end.join()
    assert answered == [(1, "answerer")]


def test_what_was_answered_is_let_go_of():
    done = Event()
    answerer = Answerer(lambda _: done.set())
    due = Due()
    kept = weakref.ref(due)
    answerer.answer_beside(due)
    del due
    assert done.wait(LIMIT)
    answerer.answer_here(None)  # whose turn comes once the other is let go of
    gc.collect()
    assert kept() is None
    answerer.close()


# In the node


def test_a_frame_is_answered_while_the_network_runs_on_the_next(rig, gate):
    detector = rig()
    detector.send(detector.raw(GREY, header=detector.now()))
    detector.until(lambda: gate.pictures)
    detector.send(detector.raw(GREY, header=detector.now()))
    gate.let()
    detector.until(lambda: detector.detections)
    assert len(gate.pictures) == 2, "the next one has not gone first"
    counts = detector.counts()
    assert (counts.processed, counts.waiting) == (1, 1)
    gate.open()
    assert detector.settle().processed == 2


def test_while_a_change_is_built_a_frame_is_answered_before_the_next(rig, gate, monkeypatch):
    """As another thread might not get a core then."""
    detector = rig()
    go_on, switch, select, answered = Event(), Engine.switch, Detector.select, []

    def held_switch(*arguments):
        assert go_on.wait(LIMIT)
        return switch(*arguments)

    def record(*arguments):
        answered.append((current_thread().name, len(gate.pictures)))
        return select(*arguments)

    monkeypatch.setattr(Engine, "switch", held_switch)
    monkeypatch.setattr(Detector, "select", record)

    def answer_one_while_another_waits():
        answered.clear()
        gate.pictures.clear()
        detector.send(detector.raw(GREY, header=detector.now()))
        detector.until(lambda: gate.pictures)
        detector.send(detector.raw(GREY, header=detector.now()))
        gate.let()
        detector.until(lambda: answered)
        gate.let()
        detector.settle()
        return answered[0]

    assert detector.set(alpha=0.35).successful
    assert answer_one_while_another_waits() == ("detector worker", 1)
    go_on.set()
    detector.until(lambda: detector.detector._switch is None)
    name, _ = answer_one_while_another_waits()
    assert name == "answerer"


def test_no_message_is_held_on_to_once_its_frame_is_answered(rig, gate, monkeypatch):
    detector = rig()
    frames, put = [], FrameQueue.put

    def record(queue, camera, frame, *arguments):
        frames.append(weakref.ref(frame))
        put(queue, camera, frame, *arguments)

    monkeypatch.setattr(FrameQueue, "put", record)
    detector.send(detector.raw(GREY, header=detector.now()))
    detector.until(lambda: gate.pictures)
    detector.send(detector.raw(GREY, header=detector.now()))
    gate.let()
    detector.until(lambda: detector.detections)
    # The network still runs on the second.
    detector.until(lambda: not frames[0]())
    assert frames[1]()
    gate.open()
    detector.settle()
    detector.until(lambda: not frames[1]())


def test_a_frame_that_cannot_be_read_does_not_keep_the_one_before_from_its_answer(rig, gate):
    detector = rig()
    detector.send(detector.raw(GREY, header=detector.now()))
    detector.until(lambda: gate.pictures)
    detector.send(detector.raw(GREY, encoding="nonsense"))
    gate.let()
    counts = detector.settle()
    assert (counts.processed, counts.failed) == (1, 1)
    assert len(gate.pictures) == 1


def test_frames_are_answered_in_their_order(rig):
    detector = rig()
    for _ in range(30):
        detector.send(detector.raw(GREY, header=detector.now()))
    processed = detector.settle().processed
    detector.until(lambda: len(detector.detections) == processed)
    stamps = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in detector.detections]
    assert stamps == sorted(stamps)


def test_an_answer_that_fails_is_counted_and_the_next_one_goes_out(rig, gate, monkeypatch):
    detector = rig()
    select, broken = Detector.select, []

    def fail_once(*arguments):
        if not broken:
            broken.append(current_thread().name)
            raise RuntimeError("no boxes today")
        return select(*arguments)

    monkeypatch.setattr(Detector, "select", fail_once)
    detector.send(detector.raw(GREY, header=detector.now()))
    detector.until(lambda: gate.pictures)
    detector.send(detector.raw(GREY, header=detector.now()))
    gate.open()
    counts = detector.settle()
    assert (counts.processed, counts.failed) == (1, 1)
    assert broken == ["answerer"]
    assert "no boxes today" in detector.detector._cameras[0].record.last_error

from threading import Condition, Event, Thread
from time import sleep
from weakref import ref

import numpy as np
import pytest

from mbnet_perception.core.detections import Selection
from mbnet_perception.core.images import Picture
from mbnet_perception.inference import detector as detector_module
from mbnet_perception.inference import engine as engine_module
from mbnet_perception.inference.detector import Detector
from mbnet_perception.inference.engine import Engine
from mbnet_perception.inference.format import ModelError
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint, add_model

SMALL = OperatingPoint(alpha=0.35, resolution=64)
LARGE = OperatingPoint(alpha=0.5, resolution=96)
IMAGE = Picture.of_bgr(np.zeros((50, 100, 3), np.uint8))
# What each says of IMAGE: one has a box on the left, the other two on the right.
SMALL_ANSWER = ([(0, 0, 50, 50)], [0.75], [0])
LARGE_ANSWER = ([(50, 0, 100, 50), (50, 25, 100, 50)], [0.875, 0.625], [1, 2])


@pytest.fixture
def library(tmp_path, make_model, make_metadata):
    def add(alpha, boxes, scores):
        metadata = make_metadata(alpha=alpha)
        add_model(tmp_path, make_model(boxes, scores, metadata.as_props()), metadata, {})

    add(0.35, [(0, 0, 0.5, 1)], [(0.75, 0, 0)])
    add(0.5, [(0.5, 0, 1, 1), (0.5, 0.5, 1, 1)], [(0, 0.875, 0), (0, 0, 0.625)])
    return ModelLibrary(tmp_path)


def answer(engine, image=IMAGE):
    detector = engine.detector
    found, _ = detector.detect(image, Selection())
    assert detector.classes == ("red", "green", "blue")
    return (
        [tuple(box) for box in found.boxes.tolist()],
        found.scores.tolist(),
        found.classes.tolist(),
    )


def test_switching_changes_the_answer(library):
    engine = Engine(library, SMALL, num_threads=1)
    assert (engine.point, answer(engine)) == (SMALL, SMALL_ANSWER)
    engine.switch(LARGE)
    assert (engine.point, answer(engine)) == (LARGE, LARGE_ANSWER)
    assert engine.classes == ("red", "green", "blue")


def test_the_old_model_is_taken_down_while_the_network_runs_on_a_picture(library, monkeypatch):
    """Which takes Python's lock, that the thread that detects does not need just then."""
    monkeypatch.setattr(engine_module, "LONGEST_WAIT", 20.0)
    engine = Engine(library, SMALL, num_threads=1)
    assert answer(engine) == SMALL_ANSWER
    running, running_at_end, stop = [], [], Event()
    real = Detector._run

    def run(self, *args):
        running.append(self)
        result = real(self, *args)
        sleep(0.02)  # as long as a network takes
        running.pop()
        return result

    monkeypatch.setattr(Detector, "_run", run)
    old = ref(engine.detector, lambda _: running_at_end.extend(running))

    def detect():
        while not stop.is_set():
            answer(engine)
            sleep(0.002)

    thread = Thread(target=detect)
    thread.start()
    try:
        engine.switch(LARGE)
    finally:
        stop.set()
        thread.join()
    assert old() is None
    assert running_at_end == [engine.detector]


def test_a_switch_does_not_wait_for_pictures_that_do_not_come(library, monkeypatch):
    monkeypatch.setattr(engine_module, "LONGEST_WAIT", 0.01)
    engine = Engine(library, SMALL, num_threads=1)
    old = ref(engine.detector)
    engine.switch(LARGE)
    assert old() is None
    assert answer(engine) == LARGE_ANSWER


def damage(library):
    path = library.folder / library.find(LARGE).file
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("prepare", "point", "message"),
    [
        pytest.param(lambda library: None, OperatingPoint(alpha=0.4), "available:", id="unknown"),
        pytest.param(damage, LARGE, "truncated", id="damaged"),
    ],
)
def test_a_failed_switch_keeps_what_runs(library, prepare, point, message):
    engine = Engine(library, SMALL, num_threads=1)
    prepare(library)
    with pytest.raises(ModelError, match=message):
        engine.switch(point)
    assert (engine.point, answer(engine)) == (SMALL, SMALL_ANSWER)


def test_a_model_that_fails_on_the_camera_at_hand_is_not_switched_to(
    library, make_model, make_metadata
):
    metadata = make_metadata(alpha=0.5)
    square = make_model([(0, 0, 1, 1)], [(1, 0, 0)], metadata.as_props(), height=96, width=96)
    add_model(library.folder, square, metadata, {})
    engine = Engine(ModelLibrary(library.folder), SMALL, num_threads=1)
    assert answer(engine) == SMALL_ANSWER
    with pytest.raises(ModelError, match="does not run"):
        engine.switch(LARGE)
    assert (engine.point, answer(engine)) == (SMALL, SMALL_ANSWER)


def test_an_engine_does_not_start_without_its_model(library):
    with pytest.raises(ModelError, match="available:"):
        Engine(library, OperatingPoint(alpha=0.4))


@pytest.fixture
def sessions(monkeypatch):
    """Input height and width of every session that is made."""
    made = []
    make = detector_module.make_session

    def record(model, input_hw, *rest):
        made.append(input_hw)
        return make(model, input_hw, *rest)

    monkeypatch.setattr(detector_module, "make_session", record)
    return made


def test_a_switch_leaves_nothing_to_build_for_the_cameras_at_hand(library, sessions):
    engine = Engine(library, SMALL, num_threads=1)
    tall = Picture.of_bgr(np.zeros((100, 50, 3), np.uint8))
    answer(engine)
    answer(engine, tall)
    for point in (LARGE, SMALL):
        engine.switch(point)
        built = len(sessions)
        answer(engine)
        answer(engine, tall)
        assert len(sessions) == built


def test_an_engine_starts_ready_for_the_usual_camera(library, sessions):
    engine = Engine(library, LARGE, num_threads=1)
    assert (72, 96) in sessions
    assert engine.detector.seen == ((480, 640),)


def test_who_took_the_detector_keeps_it_through_a_switch(library):
    engine = Engine(library, SMALL, num_threads=1)
    detector = engine.detector
    engine.switch(LARGE)
    found, _ = detector.detect(IMAGE, Selection())
    assert found.scores.tolist() == SMALL_ANSWER[1]


def test_switching_is_seamless_for_a_thread_that_detects(library):
    engine = Engine(library, SMALL, num_threads=1)
    answers, errors, more, done = [], [], Condition(), False

    def work():
        try:
            while not done:
                latest = answer(engine)
                with more:
                    answers.append(latest)
                    more.notify()
        except Exception as error:
            errors.append(error)

    worker = Thread(target=work)
    worker.start()
    try:
        for point, expected in 8 * [(LARGE, LARGE_ANSWER), (SMALL, SMALL_ANSWER)]:
            engine.switch(point)
            with more:
                # The second answer from now on is to a picture that came after the switch.
                count = len(answers) + 2
                assert more.wait_for(lambda count=count: len(answers) >= count, timeout=10), errors
                assert answers[-1] == expected
    finally:
        done = True
        worker.join()
    assert not errors
    assert all(one in (SMALL_ANSWER, LARGE_ANSWER) for one in answers)

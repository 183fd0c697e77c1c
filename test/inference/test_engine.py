import hashlib
import os
import platform
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Event, Thread
from time import monotonic, sleep, thread_time
from weakref import WeakSet, ref

import numpy as np
import pytest

from mbnet_perception.core.detections import Selection
from mbnet_perception.core.images import Picture
from mbnet_perception.inference import detector as detector_module
from mbnet_perception.inference import engine as engine_module
from mbnet_perception.inference.detector import Detector
from mbnet_perception.inference.engine import Engine, give_way
from mbnet_perception.inference.format import ModelError
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint, add_model

SMALL = OperatingPoint(alpha=0.35, resolution=64)
LARGE = OperatingPoint(alpha=0.5, resolution=96)
SMALL_AT_96 = OperatingPoint(alpha=0.35, resolution=96)
LARGE_AT_64 = OperatingPoint(alpha=0.5, resolution=64)
IMAGE = Picture.of_bgr(np.zeros((50, 100, 3), np.uint8))
TALL = Picture.of_bgr(np.zeros((100, 50, 3), np.uint8))
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


@pytest.fixture
def alive(monkeypatch):
    """The detectors that there are; none of them waits long for a picture."""
    detectors = WeakSet()
    load = engine_module.load_detector

    def record(*args):
        detector = load(*args)
        detectors.add(detector)
        return detector

    monkeypatch.setattr(engine_module, "load_detector", record)
    monkeypatch.setattr(detector_module, "LONGEST_WAIT", 0.001)
    return detectors


def test_going_back_builds_nothing(library, sessions):
    engine = Engine(library, SMALL, num_threads=1)
    answer(engine)
    points = (LARGE, SMALL_AT_96, SMALL)
    detectors = []
    for point in points:
        engine.switch(point)
        detectors.append(engine.detector)
    built = len(sessions)
    for point, detector in 2 * [*zip(points, detectors, strict=True)]:
        engine.switch(point)
        assert (engine.point, engine.detector) == (point, detector)
        answer(engine)
    assert len(sessions) == built


def test_a_file_that_is_at_hand_is_neither_read_nor_copied_again(library, monkeypatch):
    read = []
    real = ModelLibrary.read

    def record(self, entry):
        read.append(entry.alpha)
        return real(self, entry)

    monkeypatch.setattr(ModelLibrary, "read", record)
    engine = Engine(library, SMALL, num_threads=1)
    content = engine.detector.model
    engine.switch(SMALL_AT_96)  # whose file the one that runs has
    assert engine.detector.model is content
    engine.switch(LARGE)
    assert read == [0.35, 0.5]
    engine = Engine(library, SMALL, num_threads=1)
    engine.switch(LARGE)
    engine.switch(SMALL_AT_96)  # whose file one that is kept has
    assert read == [0.35, 0.5, 0.35, 0.5]
    assert answer(engine) == SMALL_ANSWER


def test_the_least_recently_used_of_those_kept_goes(library, alive):
    engine = Engine(library, SMALL, num_threads=1)
    engine.switch(SMALL_AT_96)
    oldest = ref(engine.detector)
    for point in (LARGE_AT_64, SMALL):
        engine.switch(point)
    assert len(alive) == 3
    engine.switch(LARGE)
    assert oldest() is None
    assert len(alive) == 3


def test_the_detectors_stay_few_however_often_it_switches(library, alive):
    engine = Engine(library, SMALL, num_threads=1)
    for turn in range(3):
        # Both ways round, so that it meets those that are kept as well as those that are not.
        for point in (LARGE, SMALL_AT_96, LARGE_AT_64, SMALL)[:: -1 if turn % 2 else 1]:
            engine.switch(point)
            assert len(alive) <= 3
    assert len(alive) == 3


def test_switching_to_what_runs_does_nothing(library, sessions):
    engine = Engine(library, SMALL, num_threads=1)
    detector, built = engine.detector, len(sessions)
    engine.switch(OperatingPoint(alpha=0.35, resolution=64))
    assert engine.detector is detector
    assert len(sessions) == built


def test_the_old_model_is_taken_down_while_the_network_runs_on_a_picture(library, monkeypatch):
    """Which takes Python's lock, that the thread that detects does not need just then."""
    engine = Engine(library, SMALL, num_threads=1)
    assert answer(engine) == SMALL_ANSWER
    old = engine.detector
    for point in (SMALL_AT_96, LARGE_AT_64):
        engine.switch(point)
    monkeypatch.setattr(detector_module, "LONGEST_WAIT", 20.0)
    running, running_at_end, waited_for, stop = [], [], Event(), Event()
    real_run, real_wait = Detector._run, Detector.wait_for_run

    def run(self, *args):
        running.append(self)
        result = real_run(self, *args)
        sleep(0.02)  # as long as a network takes
        running.pop()
        return result

    def wait_for_run(self):
        waited_for.set()
        real_wait(self)

    monkeypatch.setattr(Detector, "_run", run)
    monkeypatch.setattr(Detector, "wait_for_run", wait_for_run)
    old = ref(old, lambda _: running_at_end.extend(running))

    def detect():
        waited_for.wait()  # so that no run is under way by chance
        while not stop.is_set():
            answer(engine)
            sleep(0.002)

    thread = Thread(target=detect)
    thread.start()
    try:
        engine.switch(LARGE)
    finally:
        stop.set()
        waited_for.set()
        thread.join()
    assert old() is None
    assert running_at_end == [engine.detector]


def test_a_new_model_is_warmed_while_the_old_one_runs_on_a_picture(library, monkeypatch):
    """Else it would take the memory that the old one needs for its next run."""
    engine = Engine(library, SMALL, num_threads=1)
    assert answer(engine) == SMALL_ANSWER
    old = engine.detector
    running, beside, stop = [], [], Event()
    real_run = Detector._run

    def run(self, *args):
        if self is not old:
            beside.append(list(running))
            return real_run(self, *args)
        running.append(self)
        result = real_run(self, *args)
        sleep(0.02)  # as long as a network takes
        running.pop()
        return result

    monkeypatch.setattr(Detector, "_run", run)

    def detect():
        while not stop.is_set():
            old.detect(IMAGE, Selection())
            sleep(0.05)

    thread = Thread(target=detect)
    thread.start()
    try:
        for point in (SMALL_AT_96, LARGE_AT_64, LARGE):
            old.wait_for_run()
            while running:
                sleep(0.001)
            engine.switch(point)
            engine._active = (SMALL, old)  # so that it is beside each of them
    finally:
        stop.set()
        thread.join()
    assert beside == [[old]] * 3 * detector_module.WARM_RUNS


def test_a_switch_does_not_wait_for_pictures_that_do_not_come(library, monkeypatch):
    monkeypatch.setattr(detector_module, "LONGEST_WAIT", 0.01)
    engine = Engine(library, SMALL, num_threads=1)
    old = ref(engine.detector)
    for point in (SMALL_AT_96, LARGE_AT_64, LARGE):
        engine.switch(point)
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
def test_a_failed_switch_keeps_what_runs_and_what_is_kept(
    library, prepare, point, message, monkeypatch
):
    monkeypatch.setattr(engine_module, "KEPT", 1)
    engine = Engine(library, SMALL_AT_96, num_threads=1)
    kept = engine.detector
    engine.switch(SMALL)
    prepare(library)
    with pytest.raises(ModelError, match=message):
        engine.switch(point)
    assert (engine.point, answer(engine)) == (SMALL, SMALL_ANSWER)
    engine.switch(SMALL_AT_96)
    assert engine.detector is kept


def test_one_that_was_kept_and_fails_on_a_new_camera_is_not_switched_to(library, monkeypatch):
    engine = Engine(library, SMALL, num_threads=1)
    kept = engine.detector
    engine.switch(LARGE)
    answer(engine, TALL)

    def fail(self, size, beside):
        raise ModelError(f"does not run on {size}")

    with monkeypatch.context() as patch:
        patch.setattr(Detector, "warm", fail)
        with pytest.raises(ModelError, match=r"does not run on \(100, 50\)"):
            engine.switch(SMALL)
    assert (engine.point, answer(engine)) == (LARGE, LARGE_ANSWER)
    engine.switch(SMALL)
    assert engine.detector is kept


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


def test_a_detector_whose_classes_are_not_wanted_does_not_run(library, alive):
    engine = Engine(library, SMALL, num_threads=1)
    judged = []

    def refuse(classes):
        judged.append((classes, engine.point))
        raise ValueError("no colours")

    with pytest.raises(ValueError, match="no colours"):
        engine.switch(LARGE, refuse)
    assert judged == [(("red", "green", "blue"), SMALL)]
    assert (engine.point, answer(engine)) == (SMALL, SMALL_ANSWER)
    assert len(alive) == 1
    engine.switch(LARGE)
    with pytest.raises(ValueError, match="no colours"):  # one that was kept is judged as well
        engine.switch(SMALL, refuse)
    assert (engine.point, answer(engine)) == (LARGE, LARGE_ANSWER)


def test_an_engine_does_not_start_without_its_model(library):
    with pytest.raises(ModelError, match="available:"):
        Engine(library, OperatingPoint(alpha=0.4))


def test_a_switch_leaves_nothing_to_build_for_the_cameras_at_hand(library, sessions):
    engine = Engine(library, SMALL, num_threads=1)
    answer(engine)
    answer(engine, TALL)
    for point in (LARGE, SMALL):
        engine.switch(point)
        built = len(sessions)
        answer(engine)
        answer(engine, TALL)
        assert len(sessions) == built


def test_going_back_warms_for_the_camera_that_came_meanwhile(library, sessions):
    engine = Engine(library, SMALL, num_threads=1)
    engine.switch(LARGE)
    answer(engine, TALL)
    built = len(sessions)
    engine.switch(SMALL)
    assert sessions[built:] == [(64, 32)]
    answer(engine, TALL)
    assert len(sessions) == built + 1


def test_an_engine_starts_ready_for_the_usual_camera(library, sessions):
    engine = Engine(library, LARGE, num_threads=1)
    assert sessions == [(72, 96)]
    answer(engine, Picture.of_bgr(np.zeros((480, 640, 3), np.uint8)))
    assert sessions == [(72, 96)]


def test_without_a_picture_yet_it_stays_ready_for_the_usual_camera(library, sessions):
    engine = Engine(library, LARGE, num_threads=1)
    engine.switch(SMALL)
    engine.switch(SMALL_AT_96)
    assert sessions == [(72, 96), (48, 64), (72, 96)]


def test_a_switch_builds_once_for_the_one_camera_at_hand(library, sessions, monkeypatch):
    engine = Engine(library, SMALL, num_threads=1)
    answer(engine)
    built = len(sessions)
    ran = []
    run = Detector.run
    monkeypatch.setattr(Detector, "run", lambda self, picture: ran.append(1) or run(self, picture))
    for point in (LARGE, SMALL_AT_96):  # no picture comes in between
        engine.switch(point)
    assert sessions[built:] == [(48, 96), (48, 96)]
    # A session's first run plans its memory, the second one takes it: both would be slow.
    assert len(ran) == 4


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
        there = [(LARGE, LARGE_ANSWER), (SMALL_AT_96, SMALL_ANSWER)]
        back = [(LARGE_AT_64, LARGE_ANSWER), (SMALL, SMALL_ANSWER)]
        # All of the first half are built, all of the second half were kept.
        for point, expected in [*2 * [*there, *back], *4 * back]:
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


GOING_ROUND = """
import sys
from pathlib import Path
from mbnet_perception.inference import detector, engine
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

detector.LONGEST_WAIT = 0.001
if sys.argv[1] == "apart":
    detector._share_memory = lambda options: None
library = ModelLibrary()
points = [OperatingPoint(e.backbone, e.alpha, r) for e in library.entries for r in e.resolutions]
running = engine.Engine(library, points[-1], num_threads=1)
for point in 3 * points:
    running.switch(point)
print(Path("/proc/self/statm").read_text().split()[1])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_sessions_that_share_memory_take_less_of_it():
    shared, apart = (
        int(
            subprocess.run(
                [sys.executable, "-c", GOING_ROUND, how], check=True, capture_output=True
            ).stdout
        )
        for how in ("shared", "apart")
    )
    assert shared < 0.9 * apart


def test_what_is_built_or_made_warm_gives_way(library, monkeypatch):
    within, built = [False], []

    @contextmanager
    def record():
        within[0] = True
        yield
        within[0] = False

    monkeypatch.setattr(engine_module, "give_way", record)
    for where, name in ((engine_module, "load_detector"), (Detector, "warm")):
        real = getattr(where, name)

        def watch(*args, name=name, real=real):
            built.append((name, within[0]))
            return real(*args)

        monkeypatch.setattr(where, name, watch)
    engine = Engine(library, SMALL, num_threads=1)
    answer(engine)
    answer(engine, TALL)
    built.clear()
    engine.switch(LARGE)
    assert {*built} == {("load_detector", True), ("warm", True)}
    assert not within[0]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no thread gives way")
def test_a_thread_is_interrupted_in_the_midst_of_a_call_but_only_as_it_works(monkeypatch):
    interrupted, kill = [], signal.pthread_kill

    def record(thread, number):
        interrupted.append(thread)
        kill(thread, number)

    monkeypatch.setattr(engine_module.signal, "pthread_kill", record)
    content = bytes(200_000_000)
    with give_way():
        before = thread_time()
        hashlib.sha256(content).digest()
        worked = thread_time() - before
    assert {*interrupted} == {threading.get_ident()}
    assert len(interrupted) <= worked / engine_module.PACE + 1
    interrupted.clear()
    with give_way():
        sleep(0.1)
    assert len(interrupted) <= 1  # where others keep all cores busy, what waits gets on


def has_slices():
    """Whether threads can ask for shorter ones, and the system tells of them."""
    version = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
    return sys.platform == "linux" and version >= (6, 12) and slice_of(threading.get_native_id())


def slice_of(thread):
    """In ns, as Linux has it; None where it does not say."""
    try:
        told = Path(f"/proc/self/task/{thread}/sched").read_text()
    except FileNotFoundError:
        return None
    found = re.search(r"^se\.slice +: +(\d+)$", told, re.MULTILINE)
    return found and int(found[1])


@pytest.mark.skipif(not has_slices(), reason="needs slices as of Linux 6.12, in /proc")
def test_the_thread_that_interrupts_has_a_shorter_slice_than_others():
    own = slice_of(threading.get_native_id())
    with give_way():
        pace = next(each for each in threading.enumerate() if each.name == "engine pace")
        give_up = monotonic() + 10
        while slice_of(pace.native_id) != engine_module.SHORT_SLICE and monotonic() < give_up:
            sleep(0.001)
        assert slice_of(pace.native_id) == engine_module.SHORT_SLICE < own
        assert slice_of(threading.get_native_id()) == own


BURNER = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
print(flush=True)
while True:
    pass
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no thread gives way")
def test_a_thread_that_is_interrupted_lets_another_go_first():
    """Fifty signals take far less than a millisecond where nothing gives way."""
    core = min(os.sched_getaffinity(0))

    def interrupt_myself():
        os.sched_setaffinity(0, {core})
        before = count_times_left()
        for _ in range(50):
            signal.pthread_kill(threading.get_ident(), signal.SIGURG)
        return count_times_left() - before

    command = [sys.executable, "-c", BURNER, str(core)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as burner,
        give_way(),
        ThreadPoolExecutor(1) as executor,
    ):
        try:
            assert burner.stdout.readline()
            assert executor.submit(interrupt_myself).result(timeout=60) >= 10
        finally:
            burner.kill()


def count_times_left():
    """How often the calling thread had to leave its core though it could have gone on."""
    status = Path("/proc/thread-self/status").read_text()
    return int(status.split("nonvoluntary_ctxt_switches:")[1])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no thread gives way")
def test_the_thread_that_interrupts_ends_with_the_block():
    def names():
        return [thread.name for thread in threading.enumerate()]

    with pytest.raises(ModelError), give_way():
        assert "engine pace" in names()
        raise ModelError
    assert "engine pace" not in names()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no thread gives way")
def test_a_program_that_uses_the_signal_keeps_it():
    script = """
import hashlib, os, signal
from mbnet_perception.inference.engine import give_way
got = []
signal.signal(signal.SIGURG, lambda *_: got.append("mine"))
with give_way():
    hashlib.sha256(bytes(50_000_000)).digest()
os.kill(os.getpid(), signal.SIGURG)
print(*got)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "mine\n"

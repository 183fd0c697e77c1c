import re
import shutil
import signal
import time
from pathlib import Path
from threading import current_thread

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_srvs.srv import SetBool
from vision_msgs.msg import LabelInfo

from mbnet_perception.core import governor as governor_module
from mbnet_perception.core.board import BoardReader
from mbnet_perception.inference import ladder
from mbnet_perception.inference.detector import Detector, Output
from mbnet_perception.inference.format import ModelError
from mbnet_perception.inference.ladder import LadderRung, write_ladder
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint
from mbnet_perception.nodes import detector as detector_module
from mbnet_perception.nodes import running as running_module
from mbnet_perception.nodes import steering

GREY = np.full((120, 160, 3), 128, np.uint8)
FASTEST, FAST, SLOW, SLOWEST = (
    OperatingPoint(alpha=alpha, resolution=resolution)
    for alpha in (0.35, 0.5)
    for resolution in (224, 320)
)
assert OperatingPoint() == SLOWEST, "what a node begins with"
BESIDE = OperatingPoint(alpha=0.35, resolution=256)  # on no rung
SECONDS = {FASTEST: 0.005, FAST: 0.02, SLOW: 0.06, SLOWEST: 0.15}
NOTHING = np.zeros((1, 4), np.float32), np.zeros((1, 3), np.float32)  # boxes and scores


@pytest.fixture(autouse=True)
def haste(monkeypatch):
    """Reports come sooner, and the governor judges sooner."""
    monkeypatch.setattr(detector_module, "DIAGNOSTICS_PERIOD", 0.2)
    monkeypatch.setattr(governor_module, "ENOUGH", ((8, 0.5),))


@pytest.fixture
def ladder_file(tmp_path):
    """A node's arguments with a ladder of four rungs."""
    file = tmp_path / "ladder.yaml"
    write_ladder(file, [LadderRung(point, seconds) for point, seconds in SECONDS.items()])
    return ("-p", f"ladder_file:={file}")


@pytest.fixture
def seconds(monkeypatch):
    """What a frame takes at each operating point; a test may change it."""
    durations, run = dict(SECONDS), Detector.run

    def sleep(detector, picture, on_run=None):
        if current_thread().name != "detector worker":
            return run(detector, picture)
        on_run()
        point = OperatingPoint(alpha=detector.metadata.alpha, resolution=detector.resolution)
        time.sleep(durations[point])
        return Output(*NOTHING, GREY.shape[:2], 0.0, durations[point])

    monkeypatch.setattr(Detector, "run", sleep)
    return durations


def drive(rig, condition):
    """Send one frame after the other until the condition holds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        rig.send(rig.raw(GREY, header=rig.now()))
        rig.settle()


def running(rig):
    return rig.detector._engine.point


def asked_for(rig):
    """The operating point that the node's parameters tell."""
    names = ("backbone", "alpha", "resolution", "precision")
    return OperatingPoint(*(rig.detector.get_parameter(name).value for name in names))


def governor(rig):
    return rig.status("detector: governor")


def judged(rig):
    """Send so many frames that the governor has judged them."""
    began, before = time.monotonic(), rig.counts().received
    drive(rig, lambda: time.monotonic() - began > 1.6 and rig.counts().received >= before + 9)


# The budget


def test_a_budget_is_held_by_stepping_down_and_every_step_is_told(rig, ladder_file, seconds, capfd):
    detector = rig(*ladder_file, "-p", "latency_budget_ms:=100")
    assert governor(detector)[0].message == "holds 100 ms"
    drive(detector, lambda: running(detector) != SLOWEST)
    detector.until(lambda: asked_for(detector) == running(detector))
    status, values = governor(detector)
    assert status.level == DiagnosticStatus.OK
    assert int(values["steps"]) >= 1
    step = values["last_step"]
    p90 = re.search(r"as p90 (\d+) ms is over the budget of 100 ms", step)
    assert f"to {running(detector)}, {p90[0]}" in step
    assert int(p90[1]) >= 150
    assert step in status.message
    assert values["rung_3"] == f"{SLOWEST}: 150.0 ms"
    assert f"governor steps to {running(detector)}" in capfd.readouterr().err
    assert detector.counts().failed == 0


def test_frames_within_the_budget_leave_the_operating_point_as_it_is(rig, ladder_file, seconds):
    detector = rig(*ladder_file, "-p", "latency_budget_ms:=2000")
    judged(detector)
    assert running(detector) == SLOWEST
    assert governor(detector)[1]["steps"] == "0"


def test_a_hand_on_the_operating_point_holds_it_until_the_budget_is_set_again(
    rig, ladder_file, seconds
):
    detector = rig(*ladder_file, "-p", "latency_budget_ms:=100")
    assert detector.set(alpha=0.5, resolution=320).successful
    judged(detector)
    assert running(detector) == SLOWEST
    status, values = governor(detector)
    assert "set by hand; set latency_budget_ms to go on" in status.message
    assert (status.level, values["steps"]) == (DiagnosticStatus.OK, "0")
    assert detector.set(latency_budget_ms=100).successful
    drive(detector, lambda: running(detector) != SLOWEST)
    # The governor's own steps are no hand's.
    assert "holds 100 ms" in governor(detector)[0].message
    assert detector.set(latency_budget_ms=0).successful
    seconds.update(dict.fromkeys(seconds, 0.15))
    before = running(detector)
    judged(detector)
    assert running(detector) == before
    assert governor(detector)[0].message == "off: latency_budget_ms is 0"


def test_a_hand_that_moves_while_the_governor_steps_wins(rig, ladder_file, seconds):
    detector = rig(*ladder_file, "-p", "latency_budget_ms:=100")
    drive(detector, lambda: asked_for(detector) != SLOWEST)
    assert detector.set(alpha=0.5, resolution=320).successful
    detector.until(lambda: running(detector) == SLOWEST and detector.detector._switch is None)
    judged(detector)
    assert running(detector) == asked_for(detector) == SLOWEST
    assert "set by hand" in governor(detector)[0].message


def test_a_rung_of_other_classes_is_left_out(rig, seconds, tmp_path, models_and_colours, capfd):
    other = OperatingPoint(alpha=0.75)
    file = tmp_path / "ladder.yaml"
    # So far apart that a machine which stands still for a third of a second skips none.
    seconds[SLOWEST] = 0.6
    rungs = {FASTEST: 0.005, other: 0.06, SLOWEST: 0.6}
    write_ladder(file, [LadderRung(point, took) for point, took in rungs.items()])
    given = {"ladder_file": file, "models_folder": models_and_colours, "latency_budget_ms": 580}
    detector = rig(*(part for name in given for part in ("-p", f"{name}:={given[name]}")))
    drive(detector, lambda: running(detector) == FASTEST)
    assert detector.counts().failed == 0
    errors = capfd.readouterr().err
    assert f"change to {other} failed" in errors
    assert "expected a model of the classes" in errors


@pytest.fixture
def steers(ladder_file):
    """What steers between the four rungs, beside a node."""
    file = Path(ladder_file[1].removeprefix("ladder_file:="))
    return steering.Steering(ModelLibrary(), 1, file, lambda: None)


def ten_slow_frames(steers, now, of, running):
    for i in range(10):
        steers.add(0.15, now + i / 10, of)
    return steers.decide(now + 1, "", running)


def test_frames_of_the_operating_point_before_are_not_held_against_the_new_one(steers):
    steers.set_budget(0.1, SLOWEST, time.monotonic())
    now = time.monotonic() + 1
    assert ten_slow_frames(steers, now, SLOWEST, SLOWEST) == SLOW
    steers.settle(SLOW, now + 1)
    assert ten_slow_frames(steers, now + 2, SLOWEST, SLOW) is None
    assert ten_slow_frames(steers, now + 4, SLOW, SLOW) == FAST


def test_frames_from_before_it_steers_are_not_held_against_the_operating_point(steers):
    now = time.monotonic()
    steers.set_budget(0.1, SLOWEST, time.monotonic())
    assert ten_slow_frames(steers, now - 1, SLOWEST, SLOWEST) is None


def test_what_is_beside_the_ladder_makes_way_for_the_fastest_whatever_ran_before(steers):
    now = time.monotonic() + 1
    steers.set_budget(0.1, BESIDE, time.monotonic())
    steers.settle(SLOW, now)  # a change that was under way
    steers.settle(BESIDE, now + 1)
    assert steers.decide(now + 2, "", BESIDE) == FASTEST
    assert steers.last_step == f"to {FASTEST}, as {BESIDE} is on no rung of the ladder"


def test_a_step_that_failed_is_told_and_not_taken_again(steers):
    now = time.monotonic() + 1
    steers.set_budget(0.1, SLOWEST, time.monotonic())
    assert ten_slow_frames(steers, now, SLOWEST, SLOWEST) == SLOW
    steers.exclude(SLOW, now + 2, SLOWEST)
    assert steers.last_step.endswith("over the budget of 100 ms; this change failed")
    assert ten_slow_frames(steers, now + 1, SLOWEST, SLOWEST) is None, "from before it failed"
    assert ten_slow_frames(steers, now + 3, SLOWEST, SLOWEST) == FAST
    steers.settle(FAST, now + 4)
    assert ten_slow_frames(steers, now + 5, FAST, FAST) == FASTEST
    steers.settle(FASTEST, now + 6)
    steers.exclude(FASTEST, now + 7, SLOWEST)
    assert "failed" not in steers.last_step, "that was no step of the governor's"
    steers.set_budget(0.1, SLOWEST, time.monotonic())
    assert ten_slow_frames(steers, now + 8, SLOWEST, SLOWEST) == SLOW, "another chance"


@pytest.fixture
def models(tmp_path):
    """A node's arguments with a folder of models, and a function that loses the file of one."""
    library, folder = ModelLibrary(), tmp_path / "models"
    shutil.copytree(library.folder, folder)

    def lose(point):
        (folder / library.find(point).file).unlink()

    return ("-p", f"models_folder:={folder}"), lose


def test_a_node_begins_with_the_fastest_rung_that_works(rig, tmp_path, models, seconds):
    arguments, lose = models
    file, middle = tmp_path / "ladder.yaml", OperatingPoint(alpha=0.5, resolution=288)
    rungs = {FASTEST: 0.005, SLOW: 0.06, middle: 0.09}
    write_ladder(file, [LadderRung(point, took) for point, took in rungs.items()])
    detector = rig(*arguments, "-p", f"ladder_file:={file}")
    lose(FASTEST)
    assert detector.set(latency_budget_ms=100).successful
    detector.until(lambda: running(detector) == SLOW)
    status, values = governor(detector)
    assert (status.level, values["steps"]) == (DiagnosticStatus.OK, "2")
    assert f"to {SLOW}, as {SLOWEST} is on no rung" in status.message


def test_a_ladder_without_a_rung_that_works_is_an_error_until_the_budget_is_set_again(
    rig, tmp_path, models, seconds
):
    arguments, lose = models
    file = tmp_path / "ladder.yaml"
    write_ladder(file, [LadderRung(FASTEST, 0.005), LadderRung(FAST, 0.02)])
    detector = rig(*arguments, "-p", f"ladder_file:={file}")
    lose(FAST)
    assert detector.set(latency_budget_ms=100).successful
    detector.until(lambda: governor(detector)[0].level == DiagnosticStatus.ERROR)
    status, values = governor(detector)
    assert "the change to each of its 2 failed" in status.message
    assert values["last_step"].endswith("this change failed")
    assert running(detector) == asked_for(detector) == SLOWEST
    shutil.copytree(ModelLibrary().folder, tmp_path / "models", dirs_exist_ok=True)
    assert detector.set(latency_budget_ms=100).successful
    detector.until(lambda: running(detector) == FASTEST)
    assert "holds 100 ms" in governor(detector)[0].message


def test_a_budget_and_an_operating_point_that_are_set_together_begin_there(
    rig, ladder_file, seconds
):
    detector = rig(*ladder_file)
    assert detector.set(alpha=0.35, resolution=320, latency_budget_ms=2000).successful
    judged(detector)
    assert running(detector) == FAST
    assert governor(detector)[1]["steps"] == "0"
    assert detector.set(alpha=0.35, resolution=256, latency_budget_ms=2000).successful
    detector.until(lambda: governor(detector)[1]["steps"] == "1")
    detector.until(lambda: running(detector) == FASTEST)
    assert f"{BESIDE} is on no rung" in governor(detector)[0].message


def test_a_change_by_hand_that_fails_leaves_the_choice_to_whose_it_was(
    rig, ladder_file, models, seconds
):
    arguments, lose = models
    detector = rig(*ladder_file, *arguments, "-p", "latency_budget_ms:=2000")
    lose(FAST)

    def fail():
        assert detector.set(alpha=0.35, resolution=320).successful
        detector.until(lambda: asked_for(detector) == SLOWEST)
        return governor(detector)[0].message

    assert fail() == "holds 2000 ms"
    assert detector.set(alpha=0.5, resolution=320).successful
    assert "set by hand" in fail()


def test_a_shortfall_is_no_more_told_once_no_frame_comes(rig, ladder_file, seconds, monkeypatch):
    monkeypatch.setattr(governor_module, "WINDOW", 2.0)
    detector = rig(*ladder_file, "-p", "latency_budget_ms:=1", "-p", "alpha:=0.35")
    governor(detector)
    told = detector.diagnostics
    drive(detector, lambda: "is fast enough" in told["detector: governor"].message)
    assert detector.call(SetBool, "enable", SetBool.Request(data=False)).success
    detector.until(lambda: governor(detector)[0].level == DiagnosticStatus.OK)


def test_a_rung_whose_file_is_gone_is_left_out_and_the_node_goes_on(
    rig, ladder_file, seconds, tmp_path
):
    library = ModelLibrary()
    models = tmp_path / "models"
    shutil.copytree(library.folder, models)
    detector = rig(*ladder_file, "-p", "latency_budget_ms:=40", "-p", f"models_folder:={models}")
    (models / library.find(FAST).file).unlink()
    drive(detector, lambda: running(detector) == SLOW)
    assert asked_for(detector) == SLOW
    drive(detector, lambda: "is fast enough" in governor(detector)[0].message)
    status, values = governor(detector)
    assert status.level == DiagnosticStatus.WARN
    assert values["steps"] == "3", "two in vain"
    counts = detector.settle()
    assert counts.processed == counts.received
    assert detector.status("detector: engine")[0].level == DiagnosticStatus.OK, "another one runs"


def test_a_hot_board_is_a_reason_to_step_down_before_a_miss(rig, ladder_file, seconds, tmp_path):
    sysfs = tmp_path / "sys"
    file = sysfs / "devices/platform/soc/soc:firmware/get_throttled"
    file.parent.mkdir(parents=True)
    file.write_text("0\n", encoding="ascii")
    # So much that a machine which stands still for a third of a second is no miss.
    seconds[SLOWEST] = 0.6
    detector = rig(*ladder_file, "-p", "latency_budget_ms:=980")
    detector.detector._board_reader = BoardReader(sysfs)
    judged(detector)
    assert running(detector) == SLOWEST
    file.write_text("4\n", encoding="ascii")
    drive(detector, lambda: running(detector) != SLOWEST)
    assert running(detector) == SLOW
    reason = governor(detector)[1]["last_step"]
    assert f"to {SLOW}, as the board is throttled, and p90" in reason


# The ladder


@pytest.fixture
def quick(monkeypatch):
    """The ladder is measured, roughly."""
    monkeypatch.setattr(ladder, "PICTURES", 2)
    monkeypatch.setattr(ladder, "SECONDS", 0.01)


@pytest.fixture
def measured(monkeypatch):
    """Ladders that were measured; how many rungs they have depends on the computer."""
    found, measure = [], steering.measure_ladder

    def observed(*arguments):
        found.append(measure(*arguments))
        return found[-1]

    monkeypatch.setattr(steering, "measure_ladder", observed)
    return found


def rungs_told(detector):
    values = governor(detector)[1]
    return [value for name, value in sorted(values.items()) if name.startswith("rung_")]


def as_told(rungs):
    return [f"{rung.point}: {1e3 * rung.seconds:.1f} ms" for rung in rungs]


def test_a_node_without_a_ladder_measures_one_before_it_listens(rig, quick, measured):
    detector = rig("-p", "latency_budget_ms:=10000", connected=False)
    assert len(measured) == 1
    detector.connect()
    detector.until(lambda: governor(detector)[0].message == "holds 10000 ms")
    assert rungs_told(detector) == as_told(measured[0])
    assert detector.set(latency_budget_ms=5000).successful
    assert governor(detector)[0].message == "holds 5000 ms"
    assert len(measured) == 1, "once is enough"


def test_a_signal_ends_the_measuring(rig, measured, monkeypatch):
    """With as many pictures as it takes an hour to detect."""
    monkeypatch.setattr(ladder, "SECONDS", 3600)

    def signalled(*arguments):
        monkeypatch.setattr(running_module, "_signals", [signal.SIGTERM])
        return run(*arguments)

    run = Detector.run
    monkeypatch.setattr(Detector, "run", signalled)
    rig("-p", "latency_budget_ms:=10000", connected=False)
    assert measured == [()]


def test_a_ladder_is_measured_while_frames_are_answered(rig, quick, measured, monkeypatch):
    def fail(*_):
        raise ModelError("no ladder today")

    detector = rig()
    with monkeypatch.context() as broken:
        broken.setattr(steering, "measure_ladder", fail)
        assert detector.set(latency_budget_ms=10_000).successful
        detector.until(lambda: "no ladder today" in governor(detector)[0].message)
    assert governor(detector)[0].level == DiagnosticStatus.ERROR
    assert detector.set(latency_budget_ms=10_000).successful
    drive(detector, lambda: detector.diagnostics["detector: governor"].message == "holds 10000 ms")
    assert len(measured) == 1
    assert rungs_told(detector) == as_told(measured[0])


def test_an_operating_point_beside_the_ladder_makes_way_for_the_fastest(rig, tmp_path):
    file = tmp_path / "ladder.yaml"
    write_ladder(file, [LadderRung(FASTEST, 0.005), LadderRung(SLOW, 0.06)])
    detector = rig("-p", f"ladder_file:={file}", "-p", "latency_budget_ms:=1000")
    detector.until(lambda: asked_for(detector) == running(detector) == FASTEST)
    assert f"{SLOWEST} is on no rung of the ladder" in governor(detector)[1]["last_step"]


def test_a_ladder_that_cannot_be_read_is_named_and_the_node_does_not_start(rig, tmp_path):
    file = tmp_path / "ladder.yaml"
    file.write_text("ladder_version: 1\nrungs: 3\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"ladder .*ladder\.yaml: expected"):
        rig("-p", f"ladder_file:={file}")


# The announcement


def test_each_change_of_the_operating_point_is_announced(rig):
    detector = rig()
    latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    came = detector.listen(LabelInfo, "/detector/labels", latched)
    detector.until(lambda: came)
    for number, alpha in enumerate((0.35, 0.5, 0.35), start=2):
        assert detector.set(alpha=alpha).successful
        detector.until(lambda number=number: len(came) == number)
        assert running(detector).alpha == alpha
    assert detector.set(max_detections=7, alpha=0.35).successful
    detector.status("detector: engine")
    assert len(came) == 4, "nothing else changed the model"
    stamps = [(label.header.stamp.sec, label.header.stamp.nanosec) for label in came]
    assert stamps == sorted(set(stamps))
    assert all(label.class_map == came[0].class_map for label in came)

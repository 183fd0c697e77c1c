import shutil
from threading import Timer, current_thread

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from std_srvs.srv import SetBool

from mbnet_perception.inference.engine import Engine
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

GREY = np.full((120, 160, 3), 128, np.uint8)
MANAGED = ("-p", "autostart:=false")


@pytest.fixture
def ask(rig):
    """Start a rig, and give a function that calls one of the detector's services."""

    def start(*ros_args, **options):
        one = rig(*ros_args, **options)
        clients = {}

        def call(kind, name, request):
            client = clients.get(name) or one.peer.create_client(kind, f"/detector/{name}")
            clients[name] = client
            one.until(client.service_is_ready)
            future = client.call_async(request)
            one.until(future.done)
            return future.result()

        return one, call

    return start


def change(call, transition):
    request = ChangeState.Request(transition=Transition(id=transition))
    return call(ChangeState, "change_state", request).success


def state(call):
    return call(GetState, "get_state", GetState.Request()).current_state.id


def enable(call, value):
    return call(SetBool, "enable", SetBool.Request(data=value))


def test_the_node_starts_itself(ask):
    detector, call = ask()
    assert state(call) == State.PRIMARY_STATE_ACTIVE
    assert detector.answer(detector.raw(GREY))


def test_a_manager_takes_the_node_up_and_down_and_up_again(ask):
    detector, call = ask(*MANAGED, connected=False)
    assert state(call) == State.PRIMARY_STATE_UNCONFIGURED
    assert not detector.peer.count_publishers("/detector/detections")
    for _ in range(2):
        assert change(call, Transition.TRANSITION_CONFIGURE)
        detector.until(lambda: detector.peer.count_publishers("/detector/detections"))
        assert not detector.peer.count_subscribers("/image_raw")
        for _ in range(2):
            assert change(call, Transition.TRANSITION_ACTIVATE)
            detector.connect()
            detector.answer(detector.raw(GREY))
            assert change(call, Transition.TRANSITION_DEACTIVATE)
            detector.until(lambda: not detector.peer.count_subscribers("/image_raw"))
        assert change(call, Transition.TRANSITION_CLEANUP)
        detector.until(lambda: not detector.peer.count_publishers("/detector/detections"))
    assert change(call, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert state(call) == State.PRIMARY_STATE_FINALIZED


def test_all_changes_are_made_by_one_thread_through_the_whole_life(ask, monkeypatch):
    """As what a thread gives back, the C library keeps for it."""
    detector, call = ask()
    threads, switch = [], Engine.switch

    def record(engine, *args):
        threads.append(current_thread())
        switch(engine, *args)

    monkeypatch.setattr(Engine, "switch", record)
    for alpha, resolution in ((0.35, 320), (0.5, 224)):
        assert detector.set(alpha=alpha, resolution=resolution).successful
        wanted = OperatingPoint(alpha=alpha, resolution=resolution)
        detector.until(lambda wanted=wanted: detector.detector._engine.point == wanted)
        detector.until(lambda: detector.detector._switch is None)
        for transition in (
            Transition.TRANSITION_DEACTIVATE,
            Transition.TRANSITION_CLEANUP,
            Transition.TRANSITION_CONFIGURE,
            Transition.TRANSITION_ACTIVATE,
        ):
            assert change(call, transition)
    assert len(threads) == 2
    assert len({*threads}) == 1
    assert current_thread() not in threads


def test_a_transition_that_the_state_does_not_allow_is_answered(ask, capfd):
    _, call = ask(*MANAGED, connected=False)
    assert not change(call, Transition.TRANSITION_ACTIVATE)
    assert state(call) == State.PRIMARY_STATE_UNCONFIGURED
    assert "unconfigured" in capfd.readouterr().err
    assert change(call, Transition.TRANSITION_CONFIGURE)


def test_an_active_node_can_be_shut_down(ask):
    detector, call = ask()
    detector.answer(detector.raw(GREY))
    assert change(call, Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert state(call) == State.PRIMARY_STATE_FINALIZED
    detector.until(lambda: not detector.peer.count_subscribers("/image_raw"))


def test_a_transition_that_fails_says_why_and_can_be_tried_again(ask, tmp_path, capfd):
    library = ModelLibrary()
    models = tmp_path / "models"
    shutil.copytree(library.folder, models)
    file = library.find(OperatingPoint()).file
    (models / file).unlink()
    _, call = ask(*MANAGED, "-p", f"models_folder:={models}", connected=False)
    assert not change(call, Transition.TRANSITION_CONFIGURE)
    assert state(call) == State.PRIMARY_STATE_UNCONFIGURED
    said = capfd.readouterr().err
    assert "on_configure failed" in said
    assert file in said
    shutil.copy(library.folder / file, models / file)
    assert change(call, Transition.TRANSITION_CONFIGURE)
    assert state(call) == State.PRIMARY_STATE_INACTIVE


def test_parameters_change_while_the_node_is_not_configured(ask):
    detector, call = ask(*MANAGED, connected=False)
    assert detector.set(alpha=0.35, score_threshold=0.5).successful
    assert change(call, Transition.TRANSITION_CONFIGURE)
    assert detector.detector._engine.point == OperatingPoint(alpha=0.35)


def test_frames_that_wait_when_the_node_is_deactivated_are_stale_and_the_books_balance(ask, gate):
    detector, call = ask()
    detector.send(detector.raw(GREY))
    detector.until(lambda: gate.pictures)
    detector.send(detector.raw(GREY))
    assert detector.counts().waiting == 2
    Timer(0.2, gate.open).start()  # while the node is being deactivated
    assert change(call, Transition.TRANSITION_DEACTIVATE)
    counts = detector.counts()
    assert (counts.received, counts.processed, counts.stale, counts.waiting) == (2, 1, 1, 0)


def test_enable_unsubscribes_and_subscribes(ask):
    detector, call = ask("-p", "stale_after_ms:=20000")
    detector.answer(detector.raw(GREY, header=detector.now()))
    response = enable(call, False)
    assert (response.success, response.message) == (True, "disabled")
    detector.until(lambda: not detector.peer.count_subscribers("/image_raw"))
    status, _ = detector.status("detector: perception")
    assert status.level == DiagnosticStatus.WARN
    assert "disabled through ~/enable" in status.message
    assert enable(call, False).success
    for _ in range(2):  # asking twice subscribes once
        assert enable(call, True).message == "enabled"
        detector.until(lambda: detector.peer.count_subscribers("/image_raw") == 1)
    detector.connect()
    detector.answer(detector.raw(GREY, header=detector.now()))
    status, _ = detector.status("detector: perception")
    assert status.level == DiagnosticStatus.OK


def test_a_node_that_was_disabled_while_inactive_activates_without_subscribing(ask):
    detector, call = ask(*MANAGED, connected=False)
    assert "once the node is active" in enable(call, False).message
    assert change(call, Transition.TRANSITION_CONFIGURE)
    assert change(call, Transition.TRANSITION_ACTIVATE)
    assert not detector.peer.count_subscribers("/image_raw")
    enable(call, True)
    detector.connect()
    detector.answer(detector.raw(GREY))


def test_enable_that_cannot_subscribe_says_why_and_the_node_goes_on(ask):
    wrong = ("-p", "qos_overrides./image_raw.subscription.reliability:=garbage")
    detector, call = ask(*MANAGED, *wrong, connected=False)
    enable(call, False)
    assert change(call, Transition.TRANSITION_CONFIGURE)
    assert change(call, Transition.TRANSITION_ACTIVATE)
    response = enable(call, True)
    assert not response.success
    assert "cannot subscribe" in response.message
    assert "garbage" in response.message
    assert state(call) == State.PRIMARY_STATE_ACTIVE
    status, _ = detector.status("detector: perception")
    assert "disabled" in status.message


def test_frames_that_waited_when_the_node_stopped_are_no_fault(ask, gate):
    detector, call = ask()
    for _ in range(2):
        detector.send(detector.raw(GREY, header=detector.now()))
        detector.until(lambda: gate.pictures)
    Timer(0.2, gate.open).start()
    assert change(call, Transition.TRANSITION_DEACTIVATE)
    assert detector.counts().stale == 1
    assert change(call, Transition.TRANSITION_ACTIVATE)
    detector.connect()
    detector.answer(detector.raw(GREY, header=detector.now()))
    status, values = detector.status("detector: /image_raw")
    assert (status.level, values["stale"]) == (DiagnosticStatus.OK, "1")


def test_two_names_of_one_topic_are_refused(ask):
    detector, call = ask(
        *(*MANAGED, "-p", "camera_topics:=[/front, front, /rear]"),
        topics=(),
        detections=(),
        connected=False,
    )
    assert not change(call, Transition.TRANSITION_CONFIGURE)
    reason = "camera_topics must differ, got ['/front', '/front', '/rear']"
    assert str(detector.detector.failure) == reason
    assert state(call) == State.PRIMARY_STATE_UNCONFIGURED

import os
import re
import shutil
import signal
import subprocess
import sys
from array import array
from itertools import pairwise
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header
from vision_msgs.msg import LabelInfo

from mbnet_perception.inference.detector import Detector
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint
from mbnet_perception.nodes.diagnostics import STAGES

SEES_ALL = ("-p", "score_threshold:=0.02")
GREY = np.full((120, 160, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def library():
    return ModelLibrary()


@pytest.fixture
def models(tmp_path, library):
    """A copy of the models that a test may damage."""
    folder = tmp_path / "models"
    shutil.copytree(library.folder, folder)
    return folder


def model_file(library, alpha):
    return library.find(OperatingPoint(alpha=alpha)).file


def seen(message):
    """Class and box of each detection."""
    return [
        (
            d.results[0].hypothesis.class_id,
            d.results[0].hypothesis.score,
            d.bbox.center.position.x,
            d.bbox.center.position.y,
            d.bbox.size_x,
            d.bbox.size_y,
        )
        for d in message.detections
    ]


# Frames


def test_detections_carry_the_header_of_their_image(rig, street, library):
    detector = rig(*SEES_ALL)
    image = detector.raw(street)
    answer = detector.answer(image)
    assert answer.header == image.header
    assert answer.detections, "a street holds something at so low a threshold"
    assert all(d.header == image.header for d in answer.detections)
    names = Detector(library.read(library.find(OperatingPoint())), 320).classes
    for name, score, x, y, width, height in seen(answer):
        assert name in names
        assert 0.02 <= score <= 1
        assert 0 <= x - width / 2 <= x + width / 2 <= 160
        assert 0 <= y - height / 2 <= y + height / 2 <= 120


def test_a_picture_in_which_nothing_is_found_is_answered_with_an_empty_array(rig):
    detector = rig("-p", "score_threshold:=1.0")
    image = detector.raw(GREY)
    answer = detector.answer(image)
    assert answer.header == image.header
    assert list(answer.detections) == []


def test_the_order_of_colours_is_understood(rig, street):
    detector = rig(*SEES_ALL)
    swapped = array("B", street[..., ::-1].tobytes())
    as_bgr = detector.answer(detector.raw(street))
    as_rgb = detector.answer(detector.raw(street, encoding="rgb8", data=swapped))
    misread = detector.answer(detector.raw(street, data=swapped))
    assert seen(as_bgr) == seen(as_rgb) != seen(misread)


def test_compressed_images_are_read(rig, street):
    detector = rig(*SEES_ALL, "-p", "image_transport:=compressed", image_type=CompressedImage)
    image = detector.compressed(street)
    answer = detector.answer(image)
    assert answer.header == image.header
    assert answer.detections


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"step": 479}, "step of at least 480 bytes, got 479", id="wrong step"),
        pytest.param({"data": array("B", b"abc")}, "got 3", id="too few bytes"),
        pytest.param({"encoding": "rgb16"}, "encoding 'rgb16'", id="unknown encoding"),
        pytest.param(
            {"height": 0, "width": 0, "step": 0, "data": array("B")}, "width 0", id="no pixels"
        ),
    ],
)
def test_a_bad_image_is_counted_and_the_next_one_processed(rig, changes, reason):
    detector = rig()
    detector.send(detector.raw(GREY, **changes))
    counts = detector.settle()
    assert (counts.received, counts.failed, counts.processed) == (1, 1, 0)
    detector.answer(detector.raw(GREY))
    counts = detector.settle()
    assert (counts.received, counts.failed, counts.processed) == (2, 1, 1)
    status, values = detector.status("detector: /image_raw")
    assert status.level == DiagnosticStatus.ERROR
    assert "1 frames failed" in status.message
    assert reason in values["last_error"]


def test_a_truncated_jpeg_is_counted_and_the_next_one_processed(rig):
    detector = rig("-p", "image_transport:=compressed", image_type=CompressedImage)
    detector.send(detector.compressed(GREY, keep=0.7))
    assert detector.settle().failed == 1
    detector.answer(detector.compressed(GREY))
    counts = detector.settle()
    assert (counts.received, counts.failed, counts.processed) == (2, 1, 1)


def test_bad_images_are_logged_at_most_once_a_second(rig, capfd):
    detector = rig()
    began = detector.now().stamp
    for _ in range(10):
        detector.send(detector.raw(GREY, encoding="odd"))
        detector.settle()
    ended = detector.now().stamp
    assert detector.counts().failed == 10
    lines = [line for line in capfd.readouterr().err.splitlines() if "'odd'" in line]
    assert 1 <= len(lines) <= 2 + ended.sec - began.sec
    assert "frame of /image_raw failed" in lines[0]


def test_the_newest_frame_wins_while_the_worker_is_busy(rig, gate):
    detector = rig()
    headers = [Header(stamp=Time(sec=second)) for second in (1, 2, 3)]
    detector.send(detector.raw(GREY, header=headers[0]))
    detector.until(lambda: gate.pictures)
    detector.send(detector.raw(GREY, header=headers[1]))
    detector.send(detector.raw(GREY, header=headers[2]))
    counts = detector.counts()
    assert (counts.received, counts.superseded, counts.waiting) == (3, 1, 2)
    gate.open()
    detector.until(lambda: len(detector.detections) == 2)
    assert [message.header for message in detector.detections] == [headers[0], headers[2]]
    counts = detector.settle()
    assert (counts.received, counts.processed, counts.superseded) == (3, 2, 1)


def test_old_frames_are_dropped_and_bad_stamps_are_counted(rig):
    detector = rig("-p", "max_age_ms:=1000")
    old = detector.now()
    old.stamp.sec -= 2
    detector.send(detector.raw(GREY, header=old))
    assert detector.settle().stale == 1
    detector.send(detector.raw(GREY))  # of the year 2023
    assert detector.settle().stale == 2
    future = detector.now()
    future.stamp.sec += 1000
    for header in (detector.now(), Header(), future):
        answer = detector.answer(detector.raw(GREY, header=header))
        assert answer.header == header
    counts = detector.settle()
    assert (counts.received, counts.stale, counts.processed) == (5, 2, 3)
    _, values = detector.status("detector: /image_raw")
    assert [values[f"stamp_{fault}"] for fault in ("zero", "future", "old")] == ["1", "1", "1"]
    # The one frame with a good stamp that was answered; the year 2023 is not in it.
    assert 0 < float(values["stamp_to_publish_max_ms"]) < 1e5


def test_several_cameras_have_a_topic_each(rig):
    topics = ("/front/image_raw", "/rear/image_raw")
    detector = rig(
        *("-p", "camera_topics:=[/front/image_raw, /rear/image_raw]"),
        topics=topics,
        detections=[f"{topic}/detections" for topic in topics],
    )
    headers = [Header(frame_id=name) for name in ("front", "rear")]
    for topic, header in zip(topics, headers, strict=True):
        detector.send(detector.raw(GREY, header=header), topic)
    detector.until(lambda: all(detector.received.values()))
    assert [m.header for messages in detector.received.values() for m in messages] == headers
    for topic in topics:
        _, values = detector.status(f"detector: {topic}")
        assert (values["received"], values["processed"]) == ("1", "1")


def test_frames_that_never_arrived_are_counted_apart(rig):
    detector = rig()
    detector.answer(detector.raw(GREY))
    for _ in range(3):  # the queue holds one, so that two are lost
        detector.cameras["/image_raw"].publish(detector.raw(GREY))
    detector.until(lambda: detector.counts().received + detector.counts().lost == 4)
    counts = detector.settle()
    assert counts.lost >= 1
    assert counts.received == counts.processed + counts.superseded == 4 - counts.lost


# Topics


def test_labels_reach_a_late_subscriber(rig, library):
    detector = rig()
    detector.answer(detector.raw(GREY))
    labels = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    detector.peer.create_subscription(LabelInfo, "/detector/labels", labels.append, latched)
    detector.until(lambda: labels)
    names = Detector(library.read(library.find(OperatingPoint())), 320).classes
    assert [(c.class_id, c.class_name) for c in labels[0].class_map] == list(enumerate(names))
    assert labels[0].threshold == pytest.approx(0.4)
    detector.set(score_threshold=0.75)
    detector.until(lambda: labels[1:])
    assert labels[1].threshold == 0.75


def test_images_come_best_effort_and_the_file_may_say_otherwise(rig, tmp_path):
    detector = rig()
    (image,) = detector.peer.get_subscriptions_info_by_topic("/image_raw")
    assert image.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
    (out,) = detector.peer.get_publishers_info_by_topic("/detector/detections")
    assert out.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    detector.close()
    file = tmp_path / "qos.yaml"
    file.write_text(
        """
        detector:
          ros__parameters:
            score_threshold: 0.75
            qos_overrides:
              /image_raw: {subscription: {reliability: reliable}}
              /detector/detections: {publisher: {reliability: best_effort}}
        """
    )
    detector = rig("--params-file", str(file))
    assert detector.detector.get_parameter("score_threshold").value == 0.75
    (image,) = detector.peer.get_subscriptions_info_by_topic("/image_raw")
    assert image.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    (out,) = detector.peer.get_publishers_info_by_topic("/detector/detections")
    assert out.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT


def test_diagnostics_tell_counts_latencies_and_the_operating_point(rig):
    detector = rig()
    while (status := detector.status("detector: /image_raw")[0]).level == DiagnosticStatus.OK:
        pass  # a camera has a moment to begin
    assert status.level == DiagnosticStatus.WARN
    assert "/image_raw" in status.message
    for _ in range(3):
        detector.answer(detector.raw(GREY, header=detector.now()))
    detector.settle()
    status, values = detector.status("detector: /image_raw")
    assert status.level == DiagnosticStatus.OK
    names = (
        "received",
        "processed",
        "superseded",
        "stale",
        "failed",
        "waiting",
        "lost",
        "lost_by_stamps",
        "stamp_zero",
    )
    assert [values[name] for name in names] == ["3", "3", *7 * "0"]
    assert float(values["rate_hz"]) > 0
    for stage in STAGES:
        figures = [float(values[f"{stage}_{q}_ms"]) for q in ("p50", "p90", "p99", "max")]
        assert figures == sorted(figures)
    parts = sum(float(values[f"{stage}_p50_ms"]) for stage in STAGES[:-1])
    assert 0 < parts < 3 * float(values["stamp_to_publish_max_ms"])
    status, values = detector.status("detector: engine")
    assert status.level == DiagnosticStatus.OK
    assert status.message == "mobilenet_v2 alpha 0.5 fp32 at 320"
    assert (values["alpha"], values["resolution"]) == ("0.5", "320")


# Parameters


def test_an_operating_point_without_a_model_is_refused_with_a_list(rig):
    detector = rig()
    result = detector.set(alpha=0.4)
    assert not result.successful
    for part in ("0.4", "mobilenet_v2", "0.35", "0.5", "fp32"):
        assert part in result.reason
    result = detector.set(resolution=321)
    assert not result.successful
    for part in ("321", "224", "320"):
        assert part in result.reason
    assert not detector.set(backbone="resnet").successful
    assert detector.detector.get_parameter("alpha").value == 0.5
    assert detector.detector._engine.point == OperatingPoint()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"score_threshold": 1.5}, "score_threshold"),
        ({"max_detections": 0}, "max_detections"),
        ({"max_age_ms": -1}, "max_age_ms"),
        ({"classes": ["car", "cat"]}, r"\['cat'\] are unknown; the model knows .*'car'"),
        ({"classes": None}, "classes must have a value"),
        ({"alpha": "wide"}, "must be a number"),
        ({"camera_topics": ["/other"]}, "read-only"),
        ({"alpha": 0.35, "score_threshold": -1.0}, "score_threshold"),
    ],
)
def test_invalid_values_are_refused_and_nothing_changes(rig, values, reason):
    detector = rig()
    settings = detector.detector._settings
    result = detector.set(**values)
    assert not result.successful
    assert re.search(reason, result.reason)
    assert detector.detector._settings == settings


def test_thresholds_and_classes_change_at_run_time(rig, street):
    detector = rig(*SEES_ALL)
    image = detector.raw(street)
    every = seen(detector.answer(image))
    best = every[0]
    assert detector.set(max_detections=1).successful
    assert seen(detector.answer(image)) == [best]
    assert detector.set(max_detections=100, classes=[best[0]]).successful
    alike = seen(detector.answer(image))
    assert {name for name, *_ in alike} == {best[0]}
    # They are at least those that were among the best of all classes.
    before = [one for one in every if one[0] == best[0]]
    assert alike[: len(before)] == before
    assert detector.set(classes=[], score_threshold=1.0).successful
    assert seen(detector.answer(image)) == []


def test_the_operating_point_changes_while_frames_flow(rig, street):
    detector = rig(*SEES_ALL)
    image = detector.raw(street)
    wide = seen(detector.answer(image))
    for values, point in (
        ({"alpha": 0.35}, OperatingPoint(alpha=0.35)),
        ({"resolution": 224}, OperatingPoint(alpha=0.35, resolution=224)),
    ):
        assert detector.set(**values).successful
        for _ in range(200):
            assert detector.answer(image).detections
            if detector.detector._engine.point == point:
                break
        assert detector.detector._engine.point == point
        status, _ = detector.status("detector: engine")
        assert (status.level, status.message) == (DiagnosticStatus.OK, str(point))
    narrow = seen(detector.answer(image))
    assert narrow
    assert narrow != wide
    counts = detector.settle()
    assert counts.processed == counts.received


def test_a_change_is_told_once_the_network_runs_again(rig, monkeypatch):
    """To tell takes Python's lock, which a frame needs but for as long as its network runs."""
    detector = rig()
    waits, begun = [], Event()

    def wait_for_run(waited_for):
        waits.append(waited_for.resolution)
        if waited_for.resolution == 224:
            begun.wait(20)

    monkeypatch.setattr(Detector, "wait_for_run", wait_for_run)
    assert detector.set(resolution=224).successful
    detector.until(lambda: 224 in waits)
    for _ in range(10):
        detector.executor.spin_once(timeout_sec=0.01)
    assert detector.detector._engine.point.resolution == 224
    assert detector.detector._switch
    begun.set()
    detector.until(lambda: detector.detector._switch is None)
    assert waits.count(224) == 1


def test_the_last_of_several_changes_wins(rig):
    detector = rig()
    for values in ({"alpha": 0.35}, {"resolution": 224}, {"alpha": 0.5}):
        assert detector.set(**values).successful
    detector.until(lambda: detector.detector._engine.point == OperatingPoint(resolution=224))
    assert detector.detector.get_parameter("alpha").value == 0.5


def test_a_change_that_fails_leaves_the_old_model_and_takes_the_parameter_back(
    rig, models, library, street, capfd
):
    detector = rig(*SEES_ALL, "-p", f"models_folder:={models}")
    file = models / model_file(library, 0.35)
    file.write_bytes(file.read_bytes()[:1000])
    before = seen(detector.answer(detector.raw(street)))
    assert detector.set(alpha=0.35).successful
    detector.until(lambda: detector.detector.get_parameter("alpha").value == 0.5)
    status, values = detector.status("detector: engine")
    assert status.level == DiagnosticStatus.ERROR
    assert file.name in values["last_error"]
    assert values["alpha"] == "0.5"
    assert file.name in capfd.readouterr().err
    assert seen(detector.answer(detector.raw(street))) == before
    # A later change that works ends the alarm.
    assert detector.set(resolution=224).successful
    detector.until(lambda: detector.detector._engine.point == OperatingPoint(resolution=224))
    status, values = detector.status("detector: engine")
    assert (status.level, values["last_error"]) == (DiagnosticStatus.OK, "")


def test_a_change_that_fails_is_told_though_another_one_was_asked_for_meanwhile(
    rig, models, library
):
    detector = rig("-p", f"models_folder:={models}")
    file = models / model_file(library, 0.35)
    file.write_bytes(file.read_bytes()[:1000])
    reports = detector.listen(DiagnosticArray, "/diagnostics")
    # Both before the executor can end the first.
    node = detector.detector
    for name, value in (("alpha", 0.35), ("resolution", 224), ("alpha", 0.5)):
        assert node.set_parameters([Parameter(name, value=value)])[0].successful
    detector.until(lambda: node._engine.point == OperatingPoint(resolution=224))
    errors = [
        pair.value
        for report in reports
        for status in report.status
        for pair in status.values
        if status.name == "detector: engine" and pair.key == "last_error" and pair.value
    ]
    assert len(set(errors)) == 1
    assert file.name in errors[0]
    assert detector.status("detector: engine")[1]["last_error"] == ""


def test_without_a_callback_after_parameters_are_set_they_take_effect_as_well(rig, monkeypatch):
    """As on Humble."""
    monkeypatch.delattr(Node, "add_post_set_parameters_callback")
    detector = rig()
    for simulated in (True, False):
        assert detector.set(use_sim_time=simulated).successful
        assert detector.detector._simulated is simulated
    assert detector.set(alpha=0.35, resolution=224).successful
    wanted = OperatingPoint(alpha=0.35, resolution=224)
    detector.until(lambda: detector.detector._engine.point == wanted)
    assert not detector.set(alpha=0.4).successful
    assert detector.detector.get_parameter("alpha").value == 0.35
    assert detector.set(score_threshold=1.0).successful
    assert detector.answer(detector.raw(GREY)).detections == []


def test_a_model_without_the_classes_that_are_looked_for_is_not_changed_to(
    rig, models_and_colours, street
):
    folder = f"models_folder:={models_and_colours}"
    detector = rig(*SEES_ALL, "-p", folder, "-p", "classes:=[car]")
    image = detector.raw(street)
    before = seen(detector.answer(image))
    assert detector.set(alpha=0.75).successful
    detector.until(lambda: detector.detector.get_parameter("alpha").value == 0.5)
    _, values = detector.status("detector: engine")
    assert (
        "classes ['car'] are unknown; the model knows ['red', 'green', 'blue']"
        in (values["last_error"])
    )
    assert seen(detector.answer(image)) == before
    # Without that filter the user may have it.
    assert detector.set(classes=[]).successful
    assert detector.set(alpha=0.75).successful
    detector.until(lambda: detector.detector._engine.point.alpha == 0.75)
    assert [name for name, *_ in seen(detector.answer(image))] == ["red"]
    assert detector.counts().failed == 0


# The executable


def start(*ros_args):
    executable = Path(sys.executable).with_name("detector_node")
    return subprocess.Popen(
        [executable, "--ros-args", *ros_args],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"RCUTILS_COLORIZED_OUTPUT": "0"},
    )


def truncate(folder, file):
    (folder / file).write_bytes((folder / file).read_bytes()[:10_000])


def remove(folder, file):
    (folder / file).unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(remove, "", id="missing"),
        pytest.param(truncate, "sha256", id="truncated"),
        pytest.param("swap", "sha256", id="swapped"),
    ],
)
def test_a_bad_model_is_named_and_the_node_does_not_start(models, library, damage, reason):
    file = model_file(library, 0.5)
    if damage == "swap":
        shutil.copy(models / model_file(library, 0.35), models / file)
    else:
        damage(models, file)
    process = start("-p", f"models_folder:={models}")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot start" in errors
    assert file in errors
    assert reason in errors
    assert "Traceback" not in errors


def test_a_bad_parameter_is_named_and_the_node_does_not_start():
    process = start("-p", "alpha:=wide")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "alpha must be a number, got 'wide'" in errors
    assert "Traceback" not in errors


def test_arguments_that_ros_cannot_read_are_named_and_the_node_does_not_start(tmp_path):
    process = start("--params-file", str(tmp_path / "missing.yaml"))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot start: " in errors
    assert "missing.yaml" in errors
    assert "Traceback" not in errors


def await_start(peer, name, reports=True):
    came = []
    peer.create_subscription(DiagnosticArray, "/diagnostics", came.append, 10)
    for _ in range(600):
        # Detections are announced while the node is being configured, diagnostics come later.
        if came if reports else peer.count_publishers(f"/{name}/detections"):
            return
        rclpy.spin_once(peer, timeout_sec=0.05)
    pytest.fail("the node did not start")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("started", [True, False])
def test_a_signal_ends_the_node_quietly(started, number):
    name = f"ended_by_{number}_{'late' if started else 'early'}"
    process = start("-r", f"__node:={name}")
    try:
        rclpy.init(args=[])
        await_start(Node("peer"), name, reports=started)
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        rclpy.try_shutdown()
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "ERROR" not in errors


def thread_arenas(process):
    """How many glibc made beside the first: it reserves 64 MB at a multiple of that for each."""
    span, regions = 64 << 20, []
    for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
        addresses, access, *_ = line.split()
        regions.append((*(int(address, 16) for address in addresses.split("-")), access))
    return sum(
        start % span == 0 and end == following and access == "rw-p" and reserved == "---p"
        for (start, end, access), (following, _, reserved) in pairwise(regions)
    )


def test_threads_share_their_memory():
    process = start("-r", "__node:=frugal")
    try:
        rclpy.init(args=[])
        await_start(Node("peer"), "frugal")
        # Of a dozen threads; two that trace ROS begin as it is imported.
        assert thread_arenas(process) <= 2
    finally:
        process.kill()
        rclpy.try_shutdown()


def test_a_request_that_rclpy_stumbles_over_does_not_end_the_node():
    process = start("-r", "__node:=stubborn")
    try:
        rclpy.init(args=[])
        peer = Node("peer")
        service = "/stubborn/set_parameters_atomically"
        client = peer.create_client(SetParametersAtomically, service)
        assert client.wait_for_service(timeout_sec=30)
        unknown = ParameterMessage(name="alpha", value=ParameterValue(type=200))
        client.call_async(SetParametersAtomically.Request(parameters=[unknown]))  # never answered
        good = Parameter("score_threshold", value=0.75).to_parameter_msg()
        answer = client.call_async(SetParametersAtomically.Request(parameters=[good]))
        rclpy.spin_until_future_complete(peer, answer, timeout_sec=30)
        assert answer.result().result.successful
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        rclpy.try_shutdown()
    assert "goes on after ValueError" in errors
    assert process.returncode == 0

from array import array
from dataclasses import replace

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from mbnet_perception.core.drawing import draw_detections
from mbnet_perception.core.images import Picture, picture_from_compressed
from mbnet_perception.core.scene import DrivingScene
from mbnet_perception.nodes import overlay

SEES_ALL = ("-p", "score_threshold:=0.02")
RAW, COMPRESSED = "/detector/overlay", "/detector/overlay/compressed"


@pytest.fixture
def drawn(monkeypatch):
    """What was drawn so far."""
    done, draw = [], overlay.draw_overlay
    monkeypatch.setattr(overlay, "draw_overlay", lambda what: (done.append(what), draw(what))[1])
    return done


@pytest.fixture
def clock(monkeypatch):
    """A list whose only value is the time by which pictures are due."""
    time = [1000.0]
    monkeypatch.setattr(overlay, "monotonic", lambda: time[0])
    return time


def pixels(message):
    assert (message.encoding, message.step) == ("bgr8", 3 * message.width)
    return np.array(message.data, np.uint8).reshape(message.height, message.width, 3)


def detected(rig, picture):
    """What the rig's detector finds in a picture."""
    node = rig.detector
    return node._engine.detector.detect(picture, node._settings.selection)[0]


def test_nothing_is_drawn_unless_somebody_listens(rig, street, drawn, clock):
    detector = rig()
    for _ in range(3):
        clock[0] += 10
        detector.answer(detector.raw(street))
        detector.settle()
    assert not drawn
    came = detector.listen(Image, RAW)
    clock[0] += 10
    detector.answer(detector.raw(street))
    detector.until(lambda: came)
    detector.settle()
    detector.peer.destroy_subscription(detector.listeners[RAW])
    detector.until(lambda: not detector.detector.count_subscribers(RAW))
    clock[0] += 10
    detector.answer(detector.raw(street))
    detector.settle()
    assert len(drawn) == 1


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8"])
def test_the_overlay_is_the_picture_with_its_detections(rig, street, encoding):
    detector = rig(*SEES_ALL)
    came = detector.listen(Image, RAW)
    header = Header(stamp=detector.now().stamp, frame_id="optical")
    data = street if encoding == "bgr8" else street[..., ::-1]
    message = detector.raw(
        street, header=header, encoding=encoding, data=array("B", data.tobytes())
    )
    answer = detector.answer(message)
    picture = detector.until(lambda: came)[0]
    assert picture.header == header
    found = detected(detector, Picture.of_bgr(street))
    assert len(found) == len(answer.detections) > 0
    expected = draw_detections(street, found, detector.detector._engine.classes)
    assert np.array_equal(pixels(picture), expected)
    assert not np.array_equal(pixels(picture), street)


def test_the_compressed_overlay_is_the_same_as_a_jpeg(rig, street):
    detector = rig(*SEES_ALL)
    came = detector.listen(CompressedImage, COMPRESSED)
    message = detector.raw(street)
    detector.answer(message)
    picture = detector.until(lambda: came)[0]
    assert (picture.header, picture.format) == (message.header, "jpeg")
    assert bytes(picture.data[:2]) == b"\xff\xd8"
    decoded = cv2.imdecode(np.array(picture.data, np.uint8), cv2.IMREAD_COLOR)
    found = detected(detector, Picture.of_bgr(street))
    expected = draw_detections(street, found, detector.detector._engine.classes)
    again = cv2.imdecode(cv2.imencode(".jpg", expected)[1], cv2.IMREAD_COLOR)
    assert np.array_equal(decoded, again)


def test_a_jpeg_that_is_decoded_at_reduced_scale_gives_a_reduced_overlay(rig):
    detector = rig(*SEES_ALL, "-p", "image_transport:=compressed", image_type=CompressedImage)
    came = detector.listen(Image, RAW)
    scene = DrivingScene(seed=3, size=(1280, 960)).render(1.0)[0]
    message = detector.compressed(scene)
    answer = detector.answer(message)
    picture = detector.until(lambda: came)[0]
    assert (picture.width, picture.height) == (320, 240)
    reduced = picture_from_compressed(message.data, "jpeg", 320)
    found = detected(detector, reduced)
    edges = [d.bbox.center.position.x + d.bbox.size_x / 2 for d in answer.detections]
    assert 320 < max(edges) <= 1280, "detections are in the camera's pixels"
    expected = draw_detections(
        reduced.bgr(), replace(found, boxes=found.boxes / 4), detector.detector._engine.classes
    )
    assert np.array_equal(pixels(picture), expected)


def test_overlays_are_limited_to_their_rate(rig, street, drawn, clock):
    detector = rig("-p", "overlay_rate_hz:=5")
    came = detector.listen(Image, RAW)

    def two_seconds_at_30_hz():
        clock[0] += 10
        for _ in range(60):
            clock[0] += 1 / 30
            detector.answer(detector.raw(street))
            detector.settle()
            detector.until(lambda: painter._waiting is None)

    painter = detector.detector._cameras[0].overlay
    two_seconds_at_30_hz()
    detector.until(lambda: len(came) == 10)
    assert detector.set(overlay_rate_hz=10).successful
    two_seconds_at_30_hz()
    detector.until(lambda: len(came) == 10 + 20)
    assert detector.set(overlay_rate_hz=0).successful
    two_seconds_at_30_hz()
    assert len(came) == len(drawn) == 30
    assert detector.counts().failed == 0


def test_a_picture_that_cannot_be_drawn_costs_no_detections(rig, street, clock, monkeypatch, capfd):
    detector = rig()
    came = detector.listen(Image, RAW)

    def fail(*_):
        raise ValueError("no ink")

    with monkeypatch.context() as broken:
        broken.setattr(overlay, "draw_detections", fail)
        for _ in range(3):
            clock[0] += 10
            detector.answer(detector.raw(street))
            detector.settle()
        detector.until(lambda: "overlay of /image_raw failed: no ink" in capfd.readouterr().err)
    assert detector.counts().processed == 3
    assert not came
    clock[0] += 10
    detector.answer(detector.raw(street))
    detector.until(lambda: came)


def test_each_camera_has_its_own_overlay(rig, street):
    topics = ("/front/image_raw", "/rear/image_raw")
    detector = rig(
        *("-p", "camera_topics:=[/front/image_raw, /rear/image_raw]"),
        topics=topics,
        detections=[f"{topic}/detections" for topic in topics],
    )
    came = {topic: detector.listen(Image, f"{topic}/overlay") for topic in topics}
    for topic in topics:
        detector.send(detector.raw(street, header=Header(frame_id=topic)), topic)
    detector.until(lambda: all(came.values()))
    for topic, messages in came.items():
        assert [message.header.frame_id for message in messages] == [topic]

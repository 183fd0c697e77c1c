"""The node under bad input and faults: all of it is answered, counted or refused with a reason."""

import gc
import math
import random
import time
from array import array
from dataclasses import fields

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.exceptions import ParameterNotDeclaredException
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray

from mbnet_perception.core.images import ENCODINGS
from mbnet_perception.inference.benchmark import memory_of
from mbnet_perception.inference.models import OperatingPoint, add_model
from mbnet_perception.nodes.parameters import POINT, DetectorSettings

SEED = 20
IMAGES = {"raw": 6000, "compressed": 4000}
PARAMETER_SETS = 1000
THROUGH_ROS = 0.04  # of the images, and of the parameter sets; the others are handed over directly
WARM_UP = 0.2  # of the images

# More than comes and goes by itself, which is 5 MB; were the images kept, it would be 40 and more.
GROWTH = 25 * 2**20

# Resolutions by alpha; the box is in the middle, and the scores are the mean colours.
WIDTHS = {0.35: (64, 96), 0.5: (64, 128)}
BOX = (0.25, 0.25, 0.75, 0.75)
START = OperatingPoint(alpha=0.5, resolution=64)
WHITE = np.full((120, 160, 3), 255, np.uint8)

BYTES = dict.fromkeys(ENCODINGS, 2) | {"bgr8": 3, "8UC3": 3, "rgb8": 3, "bgra8": 4, "rgba8": 4}
BYTES |= dict.fromkeys(("mono8", "8UC1", "nv12", "nv21"), 1)
OTHER_ENCODINGS = ("", "rgb16", "mono16", "bayer_rggb8", "nv24", "16UC1", "32FC1", "BGR8", "8UC")
LONG_TEXT = "\N{SNOWMAN}" * 10_000


@pytest.fixture
def models(tmp_path, make_model, make_metadata):
    """A folder with models that cost next to nothing."""
    folder = tmp_path / "models"
    for alpha, resolutions in WIDTHS.items():
        metadata = make_metadata(alpha=alpha, resolutions=resolutions)
        add_model(folder, make_model([BOX], props=metadata.as_props()), metadata, {})
    return folder


@pytest.fixture
def fuzzed(rig, models):
    """Start a rig with those models."""

    def start(*ros_args, **options):
        point = ("-p", f"alpha:={START.alpha}", "-p", f"resolution:={START.resolution}")
        return rig("-p", f"models_folder:={models}", *point, *ros_args, **options)

    return start


def memory():
    """Bytes of memory that this process holds."""
    gc.collect()
    return memory_of()


def balanced(counts):
    settled = counts.processed + counts.superseded + counts.stale + counts.failed
    assert min(vars(counts).values()) >= 0
    assert counts.received == settled + counts.waiting
    return counts


def hand_over(detector, image, number=None, damage=None):
    """Give an image to the node as its receiver would; its bytes may be damaged by a Random."""
    content = bytearray(serialize_message(image))
    if damage:
        for _ in range(damage.randint(0, 3)):
            content[damage.randrange(min(len(content), 120))] ^= 1 << damage.randrange(8)
        del content[damage.choice((len(content), damage.randrange(len(content)))) :]
    info = {"publication_sequence_number": number}
    detector.detector._on_image(0, bytes(content), info)


def settle(detector):
    """Wait for the worker; nothing else of the node runs meanwhile."""
    deadline = time.monotonic() + 20
    while balanced(detector.counts()).waiting:
        assert time.monotonic() < deadline
        time.sleep(1e-4)
    return detector.counts()


def answer_to(detector, image):
    """Send an image and wait for its own answer, where others are still on their way."""
    detector.send(image)
    (answer,) = detector.until(lambda: [m for m in detector.detections if m.header == image.header])
    return answer


# Images


class Images:
    """Random image messages, most of them wrong.

    What must become of an image is "processed", "stale", "failed", or "read", which stands for the
    first or the last of them, where its bytes decide.
    """

    def __init__(self, transport, clock):
        self.random = random.Random(SEED)
        self._clock = clock
        self._make = self._raw if transport == "raw" else self._compressed
        noise = np.random.default_rng(SEED)
        self._noise = noise.integers(0, 256, 400_000, np.uint8).tobytes()
        self._files = []
        for _ in range(30):
            height, width = self._size()
            coarse = noise.integers(0, 256, (60, 60, 3), np.uint8)
            smooth = cv2.resize(coarse, (width, height))
            for suffix in (".jpg", ".png"):
                self._files.append(cv2.imencode(suffix, smooth)[1].tobytes())

    def next(self):
        """A message, and what must become of it where frames older than 30 s are stale."""
        message, fate = self._make()
        message.header, old = self._header()
        return message, "stale" if old else fate

    def _size(self):
        if self.random.random() < 0.1:
            return self.random.choice([(1, 1), (1, 160), (120, 1), (2, 3)])
        return self.random.randint(1, 240), self.random.randint(1, 320)

    def _header(self):
        now, at = self._clock.now().nanoseconds, self.random.random
        kind = self.random.choice(("now", "now", "now", "zero", "future", "late", "old", "odd"))
        seconds, nanoseconds = divmod(now, 10**9)
        if kind == "odd":  # before 1970, or more nanoseconds than a second has
            stamp = self.random.choice([Time(sec=-(2**31)), Time(sec=seconds, nanosec=2**32 - 1)])
        elif kind == "zero":
            stamp = Time()
        else:
            seconds += {"now": 0, "future": 1 + int(1e5 * at()), "late": -31, "old": -90}[kind]
            stamp = Time(sec=seconds, nanosec=nanoseconds)
        frame_id = self.random.choice(("", "camera", LONG_TEXT[:50]))
        return Header(stamp=stamp, frame_id=frame_id), kind in ("late", "old")

    def _raw(self):
        encoding = self.random.choice(ENCODINGS)
        height, width = self._size()
        planes = encoding.startswith("nv")
        pair = planes or BYTES[encoding] == 2
        width += width % 2 * pair
        height += height % 2 * planes
        row = width * BYTES[encoding]
        step = row + self.random.choice((0, 0, 1, 7))
        fields = {"height": height, "width": width, "encoding": encoding, "step": step}
        length, fate = step * (height * 3 // 2 if planes else height), "failed"
        fault = self.random.choice(("", "", "", "encoding", "step", "length", "empty", "huge"))
        if fault == "encoding":
            fields["encoding"] = self.random.choice((*OTHER_ENCODINGS, LONG_TEXT[:500]))
            fate = "read"  # where cv_bridge is installed
        elif fault == "step":
            fields["step"] = self.random.choice((0, row - 1, step + 1, 2**32 - 1))
        elif fault == "length":
            others = {0, 1, length - 1, length + 1, length // 2} - {length}
            length = self.random.choice(sorted(others))
        elif fault == "empty":
            fields[self.random.choice(("height", "width"))] = 0
        elif fault == "huge":
            fields[self.random.choice(("height", "width", "step"))] = 2**31
        elif pair and self.random.random() < 0.3:
            fields |= {"width": width + 1, "step": step + 2}
            length += 2 * height
        else:
            fate = "processed"
        data = array("B", self._noise[:length])
        return Image(**fields, is_bigendian=self.random.randint(0, 1), data=data), fate

    def _compressed(self):
        content, fate = bytearray(self.random.choice(self._files)), "processed"
        fault = self.random.choice(("", "", "cut", "flip", "flip", "header", "splice", "noise"))
        middle = self.random.randrange(len(content) - 1)
        if fault == "cut":
            content, fate = content[:middle], "failed"
        elif fault in ("flip", "header"):
            fate = "read"
            end = len(content) if fault == "flip" else 30
            for _ in range(self.random.randint(1, 20)):
                content[self.random.randrange(end)] ^= 1 << self.random.randrange(8)
        elif fault == "splice":
            content, fate = content[:middle] + self.random.choice(self._files)[middle:], "read"
        elif fault == "noise":
            content, fate = self._noise[middle : 2 * middle], "failed"
        else:
            content += bytes(self.random.choice((0, 0, 100)))  # as some drivers pad them
        name = self.random.choice(("jpeg", "png", "", "bgr8; jpeg compressed bgr8", LONG_TEXT))
        return CompressedImage(format=name, data=array("B", bytes(content))), fate


@pytest.mark.parametrize("transport", IMAGES)
def test_whatever_images_come_each_is_answered_or_counted_and_memory_does_not_grow(
    fuzzed, capfd, transport
):
    kind = Image if transport == "raw" else CompressedImage
    detector = fuzzed(
        *("-p", f"image_transport:={transport}", "-p", "max_age_ms:=30000"),
        *("-p", "score_threshold:=0.1", "-p", "overlay_rate_hz:=60"),
        image_type=kind,
    )
    overlays = []
    detector.peer.create_subscription(
        Image, "/detector/overlay", lambda _: overlays.append(1), qos_profile_sensor_data
    )
    images = Images(transport, detector.peer.get_clock())
    chance, record = images.random.random, detector.detector._cameras[0].record
    handed, outcomes, at_first = 0, set(), 0
    while handed < IMAGES[transport]:
        before = settle(detector)
        assert before.received == handed
        record.last_error = ""
        message, fate = images.next()
        handed += 1
        if chance() < THROUGH_ROS:
            detector.send(message)
        elif chance() < 0.1:
            hand_over(detector, message, handed, images.random)
            fate = ""  # as long as it is counted, and the next one is as well
        else:
            hand_over(detector, message, images.random.choice((None, 0, handed, handed + 9)))
        while chance() < 0.1:  # faster than the worker
            balanced(detector.counts())
            hand_over(detector, images.next()[0])
            handed, fate = handed + 1, ""
        after = settle(detector)
        if fate:
            names = ("processed", "stale", "failed", "superseded")
            (outcome,) = (n for n in names if getattr(after, n) > getattr(before, n))
            assert outcome in (("processed", "failed") if fate == "read" else (fate,)), message
            outcomes.add((fate, outcome))
        if after.failed > before.failed:
            assert record.last_error.startswith("ImageFormatError: "), message
        if handed % 10 == 0:
            detector.executor.spin_once(timeout_sec=0)
        if not at_first and handed > WARM_UP * IMAGES[transport]:
            at_first = memory()
    assert memory() - at_first < GROWTH
    assert ("read", "failed") in outcomes
    assert {outcome for _, outcome in outcomes} == {"processed", "stale", "failed"}
    assert detector.counts().superseded
    detector.until(lambda: overlays)
    said = capfd.readouterr().err
    assert "overlay of" not in said
    assert "Traceback" not in said
    good = detector.raw(WHITE) if transport == "raw" else detector.compressed(WHITE)
    good.header = detector.now()
    assert len(answer_to(detector, good).detections) == 3


# Parameters


def within(low, high, *kinds):
    return lambda value: type(value) in kinds and low <= value <= high


def known_classes(value):
    return isinstance(value, list) and all(one in ("red", "green", "blue") for one in value)


# What a value must be, beside the operating point; other parameters cannot be set at all.
RULES = {
    "score_threshold": within(0, 1, int, float),  # a user's 1 means 1.0
    "iou_threshold": within(0, 1, int, float),
    "max_detections": within(1, 300, int),
    "max_age_ms": within(0, 60_000, int),
    "latency_budget_ms": within(0, 60_000, int),
    "stale_after_ms": within(1, 60_000, int),
    "overlay_rate_hz": within(0, 60, int),
    "classes": known_classes,
    "use_sim_time": within(False, True, bool),
}
GOOD = {
    "score_threshold": (0.0, 0.4, 1.0),
    "iou_threshold": (0.0, 0.45, 1.0),
    "max_detections": (1, 100, 300),
    "max_age_ms": (0, 1, 60_000),
    "latency_budget_ms": (0, 0, 50),
    "stale_after_ms": (1, 1000),
    "overlay_rate_hz": (0, 60),
    "classes": ([], ["red"], ["blue", "green"]),
    "use_sim_time": (False, True),
    "backbone": ("mobilenet_v2",),
    "alpha": tuple(WIDTHS),
    "resolution": (64, 96, 128),
    "precision": ("fp32",),
}
OTHERS = ("camera_topics", "camera_weights", "models_folder", "autostart", "no such", LONG_TEXT)
VALUES = (
    *(None, True, False, 0, 1, -1, 2**63 - 1, -(2**63), 0.5, -0.5, 1.5, math.nan, math.inf, 1e308),
    *("", "0.5", "mobilenet_v1", "int8", LONG_TEXT, [], [True], [1], [0.5, math.nan], [b"\x00"]),
    *(["red", "cat"], [LONG_TEXT], ["red"] * 1000),
)


def random_set(chance):
    """Parameters by name; half of the sets could be accepted."""
    sane = chance.random() < 0.5
    names = chance.sample(tuple(GOOD), chance.randint(0, 4))
    values = {name: chance.choice(GOOD[name]) for name in names}
    if not sane:
        values[chance.choice((*GOOD, *OTHERS))] = chance.choice(VALUES)
    return values


def acceptable(values, point):
    """Whether these can be set together on this operating point, its values by name."""
    point = point | {name: value for name, value in values.items() if name in POINT}
    return (
        all(rule(values[name]) for name, rule in RULES.items() if name in values)
        and not values.keys() - RULES.keys() - set(POINT)
        and (point["backbone"], point["precision"]) == ("mobilenet_v2", "fp32")
        and type(point["alpha"]) in (int, float)
        and type(point["resolution"]) is int
        and point["resolution"] in WIDTHS.get(point["alpha"], ())
    )


def test_each_parameter_set_is_in_force_or_refused_with_a_reason_and_nothing_changed(fuzzed):
    detector = fuzzed()
    node, chance = detector.detector, random.Random(SEED)
    white = detector.raw(WHITE, header=Header())  # without a stamp it is never stale
    verdicts = []

    def state():
        parameters = node.get_parameters_by_prefix("")
        return {name: repr(parameter.value) for name, parameter in parameters.items()}

    for _ in range(PARAMETER_SETS):
        values = random_set(chance)
        through_ros = chance.random() < THROUGH_ROS
        if through_ros:  # the governor may change these while the answer is awaited
            values = {name: value for name, value in values.items() if name not in POINT}
        before = state()
        point = {name: getattr(node._settings, name) for name in POINT}
        if through_ros:
            result = detector.set(**values)
        else:
            try:
                result = node.set_parameters_atomically(
                    [Parameter(name, value=value) for name, value in values.items()]
                )
            except ParameterNotDeclaredException as error:  # which the service makes a refusal
                result = SetParametersAtomically.Response().result
                result.reason = str(error)
        after = state()
        if through_ros:
            before, after = (
                {name: value for name, value in one.items() if name not in POINT}
                for one in (before, after)
            )
        verdicts.append(result.successful)
        assert result.successful == acceptable(values, point), f"{values}"[:2000]
        if result.successful:
            assert after == before | {name: repr(value) for name, value in values.items()}
        else:
            assert result.reason
            assert after == before
        assert node._settings == DetectorSettings().changed(
            [node.get_parameter(row.name) for row in fields(DetectorSettings)]
        )
        if chance.random() < 0.1:
            done = settle(detector).processed
            hand_over(detector, white)
            assert settle(detector).processed == done + 1
            detector.executor.spin_once(timeout_sec=0)
    assert 0.3 < sum(verdicts) / PARAMETER_SETS < 0.7
    plain = {"use_sim_time": False, "max_age_ms": 0, "score_threshold": 0.5, "classes": []}
    assert detector.set(latency_budget_ms=0, max_detections=100, **plain).successful
    detector.until(lambda: node._switch is None and node._engine.point == node._settings.point)
    good = detector.raw(WHITE, header=detector.now())
    assert len(answer_to(detector, good).detections) == 3


# Faults


def test_a_camera_that_was_restarted_is_followed_without_counting_losses(fuzzed):
    detector = fuzzed()
    for life in range(3):
        for _ in range(5):
            detector.answer(detector.raw(WHITE))
        detector.peer.destroy_publisher(detector.cameras["/image_raw"])
        detector.until(lambda: not detector.detector.count_publishers("/image_raw"))
        detector.cameras["/image_raw"] = detector.peer.create_publisher(Image, "/image_raw", 10)
        detector.connect()
        counts = balanced(detector.settle())
        assert (counts.received, counts.processed) == (5 * (life + 1), 5 * (life + 1))
        assert (counts.lost, counts.lost_by_stamps) == (0, 0)


def test_bytes_that_are_no_image_are_counted_and_the_next_image_is_answered(fuzzed):
    detector = fuzzed("-p", "score_threshold:=0.5")
    good = serialize_message(detector.raw(WHITE, header=detector.now()))
    for content in (b"\0\1\0\0", b"\0\1\0\0\1", b"not CDR", good[:1000], bytes(200)):
        before = detector.counts().failed
        detector.cameras["/image_raw"].publish(content)
        detector.until(lambda before=before: detector.counts().failed > before)
    assert len(detector.answer(detector.raw(WHITE)).detections) == 3
    counts = balanced(detector.settle())
    assert (counts.processed, counts.failed) == (1, 5)


def test_a_camera_may_change_its_resolution(fuzzed):
    detector = fuzzed("-p", "score_threshold:=0.5")
    for height, width in ((120, 160), (240, 320), (90, 160), (7, 33), (160, 120), (120, 160)):
        answer = detector.answer(detector.raw(np.full((height, width, 3), 255, np.uint8)))
        assert len(answer.detections) == 3
        box = answer.detections[0].bbox
        assert (box.center.position.x, box.center.position.y) == (width / 2, height / 2)
        assert (box.size_x, box.size_y) == (width / 2, height / 2)
    counts = balanced(detector.settle())
    assert counts.processed == counts.received == 6


def test_a_model_that_is_deleted_meanwhile_is_named_and_the_old_one_goes_on(fuzzed, models):
    detector = fuzzed()
    node, (file,) = detector.detector, models.glob("*0.35*")
    content = file.read_bytes()
    file.unlink()
    assert detector.set(alpha=0.35).successful
    detector.until(lambda: node.get_parameter("alpha").value == START.alpha)
    status, values = detector.status("detector: engine")
    assert status.level == DiagnosticStatus.ERROR
    assert file.name in values["last_error"]
    assert (values["alpha"], node._engine.point) == (str(START.alpha), START)
    assert detector.answer(detector.raw(WHITE))
    file.write_bytes(content)
    assert detector.set(alpha=0.35).successful
    detector.until(lambda: node._engine.point.alpha == 0.35)
    status, _ = detector.status("detector: engine")
    assert status.level == DiagnosticStatus.OK
    assert detector.answer(detector.raw(WHITE))


def test_subscribers_may_come_and_go_in_storms(fuzzed):
    detector = fuzzed("-p", "overlay_rate_hz:=60")
    kinds = {
        "detections": Detection2DArray,
        "overlay": Image,
        "overlay/compressed": CompressedImage,
    }
    for _ in range(3):
        came = {topic: [] for topic in kinds}
        storm = [
            detector.peer.create_subscription(kind, f"/detector/{topic}", came[topic].append, 10)
            for topic, kind in kinds.items()
            for _ in range(10)
        ]

        def all_came(came=came):
            detector.answer(detector.raw(WHITE))
            return all(len(messages) >= 10 for messages in came.values())

        detector.until(all_came)
        for subscription in storm:
            detector.peer.destroy_subscription(subscription)
    detector.answer(detector.raw(WHITE))
    counts = balanced(detector.settle())
    assert counts.processed == counts.received == len(detector.detections)

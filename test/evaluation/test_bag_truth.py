import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rosbags.convert.converter import convert
from rosbags.rosbag2 import StoragePlugin, Writer

from mbnet_perception.evaluation import bags
from mbnet_perception.evaluation.bag_truth import (
    ROS1_DETECTIONS,
    Truth,
    labels_of,
    truth_from_file,
    truth_from_topic,
    truth_topics,
)
from mbnet_perception.evaluation.bags import Bag, BagError
from mbnet_perception.evaluation.dataset import DatasetError

SAMPLE = Path(__file__).parents[1] / "data" / "sample_drive"
SECOND = 10**9


def detection(box, *hypotheses, identity=""):
    """Like one of vision_msgs; box is the centre and the size."""
    x, y, width, height = box
    results = [
        SimpleNamespace(hypothesis=SimpleNamespace(class_id=name, score=score))
        for name, score in hypotheses
    ]
    position = SimpleNamespace(x=float(x), y=float(y))
    bbox = SimpleNamespace(
        center=SimpleNamespace(position=position), size_x=float(width), size_y=float(height)
    )
    return SimpleNamespace(results=results, bbox=bbox, id=identity)


CAR = detection((10, 20, 4, 6), ("car", 1.0))


def recorded(message, stamp):
    """The message as `rosbags` serialises it."""
    types = bags._typestore().types
    time = types["builtin_interfaces/msg/Time"](*divmod(stamp, SECOND))
    header = types["std_msgs/msg/Header"](time, "camera")
    pose = types["geometry_msgs/msg/PoseWithCovariance"](
        types["geometry_msgs/msg/Pose"](
            types["geometry_msgs/msg/Point"](0.0, 0.0, 0.0),
            types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0),
        ),
        np.zeros(36),
    )
    detections = []
    for one in message.detections:
        at = one.bbox.center.position
        center = types["vision_msgs/msg/Pose2D"](types["vision_msgs/msg/Point2D"](at.x, at.y), 0.0)
        results = [
            types["vision_msgs/msg/ObjectHypothesisWithPose"](
                types["vision_msgs/msg/ObjectHypothesis"](
                    result.hypothesis.class_id, result.hypothesis.score
                ),
                pose,
            )
            for result in one.results
        ]
        box = types["vision_msgs/msg/BoundingBox2D"](center, one.bbox.size_x, one.bbox.size_y)
        detections.append(types["vision_msgs/msg/Detection2D"](header, results, box, one.id))
    return types[bags.DETECTIONS](header, detections)


def write(path, topics, kind=bags.DETECTIONS):
    """Write a bag: of each topic the stamp and the detections of each message."""
    store = bags._typestore()
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic, rows in topics.items():
            connection = writer.add_connection(topic, kind, typestore=store)
            for number, (stamp, detections) in enumerate(rows):
                message = recorded(SimpleNamespace(detections=detections), stamp)
                data = store.serialize_cdr(message, bags.DETECTIONS)
                writer.write(connection, SECOND + number, data)
    return path


def truth_of(path, topic=""):
    with Bag(path) as bag:
        return truth_from_topic(bag, topic)


def test_labels_are_boxes_by_corners_and_best_hypotheses():
    message = SimpleNamespace(
        detections=[
            CAR,
            detection((5, 5, 2, 2)),  # of nothing
            detection((50, 40, 20, 10), ("bus", 0.2), ("truck", 0.7), ("car", 0.1), identity="7"),
        ]
    )
    boxes, names, identities = labels_of(message)
    assert boxes.dtype == np.float32
    assert boxes.tolist() == [[8, 17, 12, 23], [40, 35, 60, 45]]
    assert names == ("car", "truck")
    assert identities == ("", "7")


def test_nothing_is_labels_too():
    boxes, names, identities = labels_of(SimpleNamespace(detections=[]))
    assert (boxes.shape, names, identities) == ((0, 4), (), ())


@pytest.mark.parametrize(
    "box",
    [(5, 5, 0, 3), (5, 5, 3, -1), (float("nan"), 5, 2, 2), (5, 5, float("inf"), 2)],
    ids=["no width", "negative height", "nowhere", "endless"],
)
def test_boxes_without_area_are_left_out(box):
    boxes, names, _ = labels_of(SimpleNamespace(detections=[detection(box, ("bus", 1.0)), CAR]))
    assert boxes.tolist() == [[8, 17, 12, 23]]
    assert names == ("car",)


def test_labels_are_the_same_from_rclpy():
    messages = pytest.importorskip("vision_msgs.msg")
    told = messages.Detection2D(id="7")
    told.bbox.center.position.x, told.bbox.center.position.y = 10.0, 20.0
    told.bbox.size_x, told.bbox.size_y = 4.0, 6.0
    told.results.append(messages.ObjectHypothesisWithPose())
    told.results[0].hypothesis.class_id = "car"
    boxes, names, identities = labels_of(messages.Detection2DArray(detections=[told]))
    assert (boxes.tolist(), names, identities) == ([[8, 17, 12, 23]], ("car",), ("7",))


@pytest.fixture(scope="module")
def sample():
    return truth_of(SAMPLE)


def test_the_sample_drive_knows_all_its_pictures(sample):
    with Bag(SAMPLE) as bag:
        messages = list(bag.messages([bags.GROUND_TRUTH_TOPIC]))
    assert sample.source == f"topic {bags.GROUND_TRUTH_TOPIC}"
    assert sample.stamps.tolist() == sorted(bags.stamp(m.data) for m in messages)
    assert (len(sample.stamps), sample.repeated) == (150, 0)
    for message in messages[::50]:
        stamp = bags.stamp(message.data)
        boxes, names, _ = labels_of(bags.decode(message.data, message.type))
        picture = sample.picture(stamp, 480, 640)
        assert len(boxes) > 0
        assert np.array_equal(picture.boxes, boxes)
        assert [sample.classes[i] for i in picture.classes] == list(names)
        # What one picture has was looked for in all of them.
        assert picture.verified.all() and picture.exhaustive.all()
        assert len(picture.verified) == len(sample.classes)
        assert sample.identities(stamp, 480, 640) is None  # it tells nobody apart
    assert sample.picture(stamp + 1, 480, 640) is None
    assert sample.identities(stamp + 1, 480, 640) is None


@pytest.mark.parametrize("name", ["drive", "drive.bag"], ids=["sqlite", "ROS 1"])
def test_truth_is_the_same_from_every_kind_of_bag(sample, tmp_path, name):
    path, kinds = tmp_path / name, [bags.DETECTIONS]
    convert([SAMPLE], path, "sqlite3", 9, None, "file", None, None, (), (), (), kinds)
    other = truth_of(path)
    assert other.arrays().keys() == sample.arrays().keys()
    for key, array in sample.arrays().items():
        assert np.array_equal(other.arrays()[key], array), key


def test_truth_survives_a_file_without_pickling(tmp_path):
    rows = [(5, [detection((10, 20, 4, 6), ("car", 1.0), identity="a")]), (6, []), (5, [])]
    for truth in (truth_of(write(tmp_path / "bag", {"/truth": rows})), truth_of(SAMPLE)):
        file = io.BytesIO()
        np.savez(file, **truth.arrays())
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            again = Truth.of_arrays(arrays)
        assert (again.source, again.repeated) == (truth.source, truth.repeated)
        assert (again.classes, again.names) == (truth.classes, truth.names)
        for stamp in truth.stamps.tolist():
            before, after = (each.picture(stamp, 480, 640) for each in (truth, again))
            assert np.array_equal(before.boxes, after.boxes)
            assert np.array_equal(before.classes, after.classes)
            assert np.array_equal(before.verified, after.verified)
            assert before.identifier == after.identifier
            assert truth.identities(stamp) == again.identities(stamp)


def test_arrays_of_something_else_are_refused():
    with pytest.raises(ValueError, match=r"expected the arrays of a Truth: .*source"):
        Truth.of_arrays({"boxes": np.zeros((0, 4))})


def test_stamps_in_any_order_are_found_and_the_later_label_counts(tmp_path):
    bus = detection((30, 30, 10, 10), ("bus", 1.0))
    rows = [(9 * SECOND, [CAR]), (3 * SECOND, [bus]), (9 * SECOND, [bus, CAR])]
    truth = truth_of(write(tmp_path / "bag", {"/truth": rows}))
    assert truth.stamps.tolist() == [3 * SECOND, 9 * SECOND]
    assert truth.repeated == 1
    later = truth.picture(9 * SECOND, 100, 100)
    assert later.boxes.tolist() == [[25, 25, 35, 35], [8, 17, 12, 23]]
    assert [truth.classes[i] for i in later.classes] == ["bus", "car"]
    assert truth.picture(3 * SECOND, 100, 100).boxes.tolist() == [[25, 25, 35, 35]]


def test_a_picture_of_nothing_is_labelled_all_the_same(tmp_path):
    truth = truth_of(write(tmp_path / "bag", {"/truth": [(1, []), (2, [CAR])]}))
    picture = truth.picture(1, 100, 100)
    assert picture.boxes.shape == (0, 4)
    assert picture.verified.tolist() == [True]  # no car there, and that is known
    assert truth.identities(1) == ()


def test_what_is_outside_the_picture_is_not_in_it(tmp_path):
    row = [
        detection((10, 20, 4, 6), ("car", 1.0), identity="in"),
        detection((120, 20, 10, 10), ("car", 1.0), identity="right of 100"),
        detection((-9, 20, 10, 10), ("car", 1.0), identity="left"),
        detection((50, 98, 10, 10), ("car", 1.0), identity="sticks out below 100"),
    ]
    truth = truth_of(write(tmp_path / "bag", {"/truth": [(1, row)]}))
    small, large = truth.picture(1, 100, 100), truth.picture(1, 100, 200)
    assert small.boxes.tolist() == [[8, 17, 12, 23], [45, 93, 55, 103]]
    assert len(small.classes) == 2
    assert truth.identities(1, 100, 100) == ("in", "sticks out below 100")
    assert len(large.boxes) == len(truth.identities(1, 100, 200)) == 3
    assert truth.identities(1) == ("in", "right of 100", "sticks out below 100")


@pytest.mark.parametrize(
    "names",
    [pytest.param(("7", ""), id="one unknown"), pytest.param(("7", "7"), id="not told apart")],
)
def test_identities_are_of_all_boxes_or_none(tmp_path, names):
    rows = [detection((10, 20, 4, 6), ("car", 1.0), identity=name) for name in names]
    truth = truth_of(write(tmp_path / "bag", {"/truth": [(1, rows), (2, rows[:1])]}))
    assert truth.identities(1) is None
    assert truth.identities(2) == ("7",)


def test_of_several_topics_one_must_be_named(tmp_path):
    bus = detection((30, 30, 10, 10), ("bus", 1.0))
    path = write(tmp_path / "bag", {"/left": [(1, [CAR])], "/right": [(1, [bus])]})
    with Bag(path) as bag:
        assert truth_topics(bag) == ("/left", "/right")
        with pytest.raises(BagError, match=r"several topics .* name one of: /left, /right"):
            truth_from_topic(bag)
        assert truth_from_topic(bag, "/right").classes == ("bus",)
        with pytest.raises(BagError, match=r"no topic '/front' .*; it has: /left, /right; ground"):
            truth_from_topic(bag, "/front")


def test_a_bag_without_truth_names_the_way_out(tmp_path):
    path = write(tmp_path / "bag", {"/other": [(1, [])]}, "vision_msgs/msg/ObjectHypothesis")
    with pytest.raises(BagError, match=r"no topic of type vision_msgs.*--ground-truth FILE"):
        truth_of(path)


def test_what_a_detector_saw_is_truth_only_if_it_is_named(tmp_path):
    unsure = detection((30, 30, 10, 10), ("bus", 0.6))
    path = write(tmp_path / "bag", {"/detections": [(1, [CAR]), (2, [CAR, unsure])]})
    with pytest.raises(
        BagError, match=r"'/detections' .* scores between 0 and 1.* --ground-truth /detections"
    ):
        truth_of(path)
    assert truth_of(path, "/detections").classes == ("car", "bus")


def test_detections_of_ros_1_point_to_a_file():
    bag = SimpleNamespace(path="old.bag", topics={"/truth": ROS1_DETECTIONS})
    for topic in ("", "/truth"):
        with pytest.raises(BagError, match=r"'/truth' .* of ROS 1.* --ground-truth FILE"):
            truth_from_topic(bag, topic)


def test_messages_of_another_definition_are_refused(tmp_path):
    store = bags._typestore()
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/truth", bags.DETECTIONS, typestore=store)
        writer.write(connection, 1, b"\0\1\0\0" + bytes(16) + b"\xff" * 40)
    with pytest.raises(BagError, match=r"topic '/truth' .*cannot decode .*older vision_msgs"):
        truth_of(tmp_path / "bag")


def write_labels(path, images, annotations=()):
    content = {
        "images": [{"width": 100, "height": 80, **image} for image in images],
        "annotations": list(annotations),
        "categories": [{"id": 3, "name": "person"}, {"id": 4, "name": "car"}],
    }
    path.write_text(json.dumps(content))
    return path


def test_labels_of_a_file_are_found_by_stamp(tmp_path):
    images = [
        {"id": 1, "file_name": "any.jpg", "stamp": 1_750_000_000_123_456_789},
        {"id": 2, "file_name": "folder/1750000000000000001.jpg", "neg_category_ids": [3]},
        {"id": 3, "file_name": "7.jpg", "stamp": "12", "ignore_boxes": [[1, 2, 3, 4]]},
    ]
    annotations = [
        {"id": 1, "image_id": 3, "category_id": 4, "bbox": [10, 20, 5, 6]},
        {"id": 2, "image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 8]},
        {"id": 3, "image_id": 3, "category_id": 4, "bbox": [50, 20, 5, 6], "iscrowd": 1},
    ]
    truth = truth_from_file(write_labels(tmp_path / "labels.json", images, annotations))
    assert truth.source == "file labels.json"
    assert truth.classes == ("person", "car")
    assert truth.stamps.tolist() == [12, 1_750_000_000_000_000_001, 1_750_000_000_123_456_789]
    third = truth.picture(12, 80, 100)
    assert third.boxes.tolist() == [[10, 20, 15, 26]]
    assert third.classes.tolist() == [1]
    assert sorted(third.ignore.tolist()) == [[1, 2, 4, 6], [50, 20, 55, 26]]
    # Federated: looked for are the classes with boxes and those said to be absent.
    assert third.verified.tolist() == [False, True]
    second = truth.picture(1_750_000_000_000_000_001, 80, 100)
    assert (second.boxes.shape, second.verified.tolist()) == ((0, 4), [True, False])
    assert truth.picture(1_750_000_000_123_456_789, 80, 100).verified.tolist() == [True, False]
    assert truth.identities(12, 80, 100) is None


def test_classes_that_are_not_exhaustive_stay_so(tmp_path):
    image = {"id": 1, "file_name": "5.jpg", "not_exhaustive_category_ids": [4]}
    truth = truth_from_file(write_labels(tmp_path / "labels.json", [image]))
    picture = truth.picture(5, 80, 100)
    assert picture.verified.tolist() == [True, True]
    assert picture.exhaustive.tolist() == [True, False]


def test_labels_for_another_size_are_refused(tmp_path):
    truth = truth_from_file(
        write_labels(tmp_path / "labels.json", [{"id": 1, "file_name": "5.jpg"}])
    )
    with pytest.raises(DatasetError, match=r"stamp 5 is 200 x 160 pixels, .* are for 100 x 80"):
        truth.picture(5, 160, 200)


def test_of_two_images_with_one_stamp_the_later_counts(tmp_path):
    images = [{"id": i, "file_name": f"{i}.jpg", "stamp": 5} for i in (1, 2)]
    box = {"id": 1, "image_id": 2, "category_id": 4, "bbox": [10, 20, 5, 6]}
    truth = truth_from_file(write_labels(tmp_path / "labels.json", images, [box]))
    assert (truth.stamps.tolist(), truth.repeated) == ([5], 1)
    assert truth.picture(5, 80, 100).boxes.tolist() == [[10, 20, 15, 26]]


@pytest.mark.parametrize(
    "image",
    [
        pytest.param({"file_name": "front.jpg"}, id="a name in words"),
        pytest.param({"file_name": "-5.jpg"}, id="before the epoch"),
        pytest.param({"file_name": "5.jpg", "stamp": 1.5}, id="part of a nanosecond"),
        pytest.param({"file_name": "5.jpg", "stamp": None}, id="null"),
        pytest.param({"file_name": "5.jpg", "stamp": 1 << 63}, id="too large"),
    ],
)
def test_an_image_without_stamp_is_refused(tmp_path, image):
    path = write_labels(tmp_path / "labels.json", [{"id": 8, **image}])
    with pytest.raises(DatasetError, match=r"labels\.json, picture 8: expected `stamp`, the ns"):
        truth_from_file(path)


def test_what_is_no_coco_file_is_refused(tmp_path):
    (tmp_path / "labels.json").write_text("[]")
    with pytest.raises(DatasetError, match="expected COCO JSON"):
        truth_from_file(tmp_path / "labels.json")

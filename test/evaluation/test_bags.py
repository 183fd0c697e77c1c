import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from mbnet_perception.core.scene import DrivingScene
from mbnet_perception.evaluation import bags
from mbnet_perception.evaluation.bags import Bag, BagError, Message
from mbnet_perception.evaluation.sample_drive import write_drive

SAMPLE = Path(__file__).parents[1] / "data" / "sample_drive"
SMALL = (160, 120)


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "drive"
    assert write_drive(path, seconds=1.0, rate=15.0, size=SMALL, seed=3) == 15
    return path


def read(path, topic):
    with Bag(path) as bag:
        return [(m, bags.decode(m.data, m.type)) for m in bag.messages([topic])]


def nanoseconds(header):
    return header.stamp.sec * 10**9 + header.stamp.nanosec


def write_raw(path, topics, plugin=StoragePlugin.SQLITE3):
    """Write three messages on each topic, 0.1 s apart."""
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg("int32 a", "our_msgs/msg/Secret"))
    types = store.types
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections = {t: writer.add_connection(t, k, typestore=store) for t, k in topics.items()}
        for number in range(3):
            time = 5_000_000_000 + number * 100_000_000
            stamp = types["builtin_interfaces/msg/Time"](sec=5, nanosec=number * 100_000_000)
            header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="left")
            for topic, kind in topics.items():
                if kind == bags.IMAGE:
                    data = np.full(2 * 3 * 3, number, np.uint8)
                    message = types[kind](header, 2, 3, "bgr8", 0, 9, data)
                elif kind == "our_msgs/msg/Secret":
                    message = types[kind](a=number)
                else:
                    message = types[kind](data="hello")
                writer.write(connections[topic], time, store.serialize_cdr(message, kind))


def test_the_embedded_vision_msgs_are_those_of_ros():
    # Type hash as in the design: what ROS itself gives the message.
    assert bags._typestore().hash_rihs01(bags.DETECTIONS) == (
        "RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968"
    )


def test_a_drive_has_its_images_at_15_hz(drive):
    images = read(drive, bags.IMAGE_TOPIC)
    stamps = [nanoseconds(image.header) for _, image in images]
    assert [stamp - bags.START for stamp in stamps] == [round(i * 1e9 / 15) for i in range(15)]
    assert [message.log_time for message, _ in images] == stamps
    for _, image in images:
        assert image.format == "bgr8; jpeg compressed bgr8"
        assert cv2.imdecode(image.data, cv2.IMREAD_COLOR).shape == (120, 160, 3)


def test_a_drive_shows_the_scene_and_its_boxes(drive):
    scene = DrivingScene(3, SMALL)
    images, truths = read(drive, bags.IMAGE_TOPIC), read(drive, bags.GROUND_TRUTH_TOPIC)
    seen = 0
    for number, ((_, image), (_, truth)) in enumerate(zip(images, truths, strict=True)):
        picture, boxes, names = scene.render(number / 15)
        shown = cv2.imdecode(image.data, cv2.IMREAD_COLOR)
        assert np.abs(shown.astype(int) - picture).mean() < 6
        assert nanoseconds(truth.header) == nanoseconds(image.header)
        assert [d.results[0].hypothesis.class_id for d in truth.detections] == names
        for detection, (x1, y1, x2, y2) in zip(truth.detections, boxes.tolist(), strict=True):
            box = detection.bbox
            assert box.center.position.x - box.size_x / 2 == pytest.approx(x1)
            assert box.center.position.x + box.size_x / 2 == pytest.approx(x2)
            assert box.center.position.y - box.size_y / 2 == pytest.approx(y1)
            assert box.center.position.y + box.size_y / 2 == pytest.approx(y2)
            assert detection.results[0].hypothesis.score == 1.0
            seen += 1
    assert seen > 15


def test_camera_info_projects_as_the_scene_does(drive):
    camera = DrivingScene(3, SMALL).camera
    point = np.array([[1.0, 0.5, 8.0]], np.float32)  # right, above the road, ahead
    _, info = read(drive, bags.CAMERA_INFO_TOPIC)[0]
    x, y, w = info.k.reshape(3, 3) @ [1.0, camera.height - 0.5, 8.0]  # optical frame: y down
    assert (info.width, info.height) == SMALL
    assert (x / w, y / w) == pytest.approx(tuple(camera.project(point)[0]), rel=1e-5)
    assert np.array_equal(info.p.reshape(3, 4)[:, :3], info.k.reshape(3, 3))


def test_equal_seeds_give_equal_bags(drive, tmp_path):
    write_drive(tmp_path / "again", seconds=1.0, rate=15.0, size=SMALL, seed=3)
    assert (tmp_path / "again/again.mcap").stat().st_size > 0
    with Bag(drive) as one, Bag(tmp_path / "again") as other:
        assert list(one.messages(one.topics)) == list(other.messages(other.topics))


def test_messages_come_in_time_order_across_topics(drive):
    with Bag(drive) as bag:
        messages = list(bag.messages(bag.topics))
    assert len(messages) == 45
    assert [m.log_time for m in messages] == sorted(m.log_time for m in messages)
    assert [m.topic for m in messages[-3:]] == [
        bags.IMAGE_TOPIC,
        bags.CAMERA_INFO_TOPIC,
        bags.GROUND_TRUTH_TOPIC,
    ]


def test_no_topics_give_no_messages(drive):
    with Bag(drive) as bag:
        assert list(bag.messages([])) == []


def test_the_sample_drive_is_small_and_has_something_to_see():
    assert sum(f.stat().st_size for f in SAMPLE.iterdir()) < 6_000_000
    truths = read(SAMPLE, bags.GROUND_TRUTH_TOPIC)
    assert len(truths) == len(read(SAMPLE, bags.IMAGE_TOPIC)) == 150
    names = {d.results[0].hypothesis.class_id for _, t in truths for d in t.detections}
    assert names >= {"car", "person", "traffic_light"}
    assert names & {"stop_sign", "speed_limit", "crosswalk"}


@pytest.mark.parametrize("plugin", list(StoragePlugin), ids=lambda plugin: plugin.name.lower())
@pytest.mark.parametrize("bare", [False, True], ids=["folder", "bare file"])
def test_raw_images_are_read_and_unknown_types_left_alone(tmp_path, plugin, bare):
    topics = {"/left": bags.IMAGE, "/secret": "our_msgs/msg/Secret"}
    write_raw(tmp_path / "raw", topics, plugin)
    path = next(p for p in (tmp_path / "raw").iterdir() if p.suffix in (".mcap", ".db3"))
    with Bag(path if bare else tmp_path / "raw") as bag:
        assert bag.topics == topics
        assert bag.image_topics() == {"/left": bags.IMAGE}
        messages = list(bag.messages(["/left"]))
    assert [bags.decode(m.data, m.type).data[0] for m in messages] == [0, 1, 2]
    assert [bags.stamp(m.data) for m in messages] == [5 * 10**9, 5_100_000_000, 5_200_000_000]


def test_a_bag_without_images_lists_its_topics(tmp_path):
    write_raw(tmp_path / "talk", {"/chatter": "std_msgs/msg/String"})
    with Bag(tmp_path / "talk") as bag, pytest.raises(BagError) as error:
        bag.image_topics()
    assert str(error.value) == (
        f"bag '{tmp_path / 'talk'}' has no image topic; it has: /chatter (std_msgs/msg/String)"
    )


def test_a_missing_image_topic_is_answered_with_those_there_are(tmp_path):
    write_raw(tmp_path / "rain_01", {"/front/image_raw": bags.IMAGE})
    with Bag(tmp_path / "rain_01") as bag, pytest.raises(BagError) as error:
        bag.image_topics(["/camera/image_raw"])
    assert str(error.value).endswith(
        "rain_01' has no image topic '/camera/image_raw'; it has: "
        "/front/image_raw (sensor_msgs/msg/Image)"
    )


@pytest.mark.parametrize("kept", [12, 40, 0.5, -4], ids=["header", "record", "half", "end"])
@pytest.mark.parametrize("bare", [False, True], ids=["folder", "bare file"])
def test_a_truncated_bag_says_so(drive, tmp_path, kept, bare):
    shutil.copytree(drive, tmp_path / "drive")
    file = tmp_path / "drive" / "drive.mcap"
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(BagError, match=r"drive(\.mcap)?' is cut short: its end is missing"):
        Bag(file if bare else file.parent)


@pytest.mark.parametrize("plugin", list(StoragePlugin), ids=lambda plugin: plugin.name.lower())
@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_a_damaged_bag_raises_nothing_but_bag_errors(tmp_path, plugin, share):
    write_raw(tmp_path / "raw", {"/left": bags.IMAGE}, plugin)
    file = next(p for p in (tmp_path / "raw").iterdir() if p.suffix in (".mcap", ".db3"))
    content = bytearray(file.read_bytes())
    at = int(share * len(content))
    content[at : at + 200] = bytes([0xA5]) * len(content[at : at + 200])
    file.write_bytes(content)
    try:
        with Bag(file) as bag:
            list(bag.messages(bag.topics))
    except BagError as error:
        assert str(file) in str(error)


def test_a_damaged_chunk_is_noticed_while_reading(drive, tmp_path):
    file = tmp_path / "drive.mcap"
    content = bytearray((drive / "drive.mcap").read_bytes())
    chunk = content.index(b"\x28\xb5\x2f\xfd")  # where a zstd frame begins, RFC 8878
    content[chunk : chunk + 4] = bytes(4)
    file.write_bytes(content)
    with Bag(file) as bag, pytest.raises(BagError, match=r"drive\.mcap' cannot be read: "):
        list(bag.messages(bag.topics))


def test_what_is_no_bag_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "noise.mcap").write_bytes(b"noise" * 100)
    (tmp_path / "noise.db3").write_bytes(b"noise" * 100)
    (tmp_path / "folder").mkdir()
    for name, reason in {
        "nowhere": "does not exist",
        "notes.txt": "is no ROS 2 bag: expected a folder with metadata.yaml, an .mcap or",
        "folder": "is no ROS 2 bag: it has no metadata.yaml",
        "noise.mcap": "cannot be read: File magic is invalid",
        "noise.db3": "cannot be read: ",
    }.items():
        with pytest.raises(BagError, match=reason):
            Bag(tmp_path / name)


def test_a_bag_without_metadata_points_to_its_file(drive, tmp_path):
    shutil.copytree(drive, tmp_path / "drive")
    (tmp_path / "drive/metadata.yaml").unlink()
    with pytest.raises(BagError, match=r"ros2 bag reindex.*name the file drive\.mcap itself"):
        Bag(tmp_path / "drive")


@pytest.mark.parametrize("order", ["<", ">"], ids=["little endian", "big endian"])
def test_a_stamp_is_replaced_in_either_byte_order(order):
    start = bytes([0, order == "<", 0, 0])
    number = "little" if order == "<" else "big"
    data = start + (7).to_bytes(4, number) + (8).to_bytes(4, number) + b"rest"
    message = Message("/left", bags.IMAGE, 0, data)
    assert bags.stamp(data) == 7_000_000_008
    assert bags.with_stamp(message, 3_000_000_004) == (
        start + (3).to_bytes(4, number) + (4).to_bytes(4, number) + b"rest"
    )
    assert message.data == data


def test_ground_truth_is_stamped_inside_too(drive):
    message, _ = next(row for row in read(drive, bags.GROUND_TRUTH_TOPIC) if row[1].detections)
    truth = bags.decode(bags.with_stamp(message, 12_000_000_034), message.type)
    before = bags.decode(message.data, message.type)
    assert nanoseconds(truth.header) == 12_000_000_034
    assert {nanoseconds(d.header) for d in truth.detections} == {12_000_000_034}
    assert [d.bbox for d in truth.detections] == [d.bbox for d in before.detections]


def test_a_message_too_short_for_a_header_is_refused():
    with pytest.raises(BagError, match="message of 6 bytes is too short"):
        bags.with_stamp(Message("/left", bags.IMAGE, 0, bytes(6)), 1)


def test_what_is_not_of_the_type_is_refused():
    for data in (b"", bytes(6), b"\0\1\0\0" + b"\xff" * 40):
        with pytest.raises(BagError, match=r"cannot decode .* vision_msgs/msg/Detection2DArray"):
            bags.decode(data, bags.DETECTIONS)
    with pytest.raises(BagError, match="our_msgs/msg/Secret"):
        bags.decode(b"\0\1\0\0", "our_msgs/msg/Secret")


def test_a_decoded_picture_becomes_a_raw_image(drive):
    _, compressed = read(drive, bags.IMAGE_TOPIC)[0]
    picture = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    image = bags.decode(bags.raw_image(picture[:, 1:], compressed.header), bags.IMAGE)
    assert (image.height, image.width, image.step, image.encoding) == (2, 3, 9, "bgr8")
    assert image.data.tolist() == [*range(3, 12), *range(15, 24)]
    assert image.header == compressed.header


def test_labelled_pictures_become_a_bag(tmp_path):
    jpeg = cv2.imencode(".jpg", np.full((20, 30, 3), 90, np.uint8))[1].tobytes()
    png = cv2.imencode(".png", np.full((20, 30, 3), 90, np.uint8))[1].tobytes()
    (tmp_path / "a.jpg").write_bytes(jpeg)
    (tmp_path / "b.png").write_bytes(png)
    labels = tmp_path / "labels.json"
    shape = {"width": 30, "height": 20}
    labels.write_text(
        json.dumps(
            {
                "images": [
                    {"id": 1, "file_name": "a.jpg", **shape},
                    {"id": 2, "file_name": "b.png", **shape},
                ],
                "annotations": [{"id": 1, "image_id": 2, "category_id": 9, "bbox": [4, 6, 8, 10]}],
                "categories": [{"id": 7, "name": "person"}, {"id": 9, "name": "car"}],
            }
        )
    )
    assert bags.write_pictures(tmp_path / "bag", labels, rate=5.0) == 2
    images = [image for _, image in read(tmp_path / "bag", bags.IMAGE_TOPIC)]
    assert [image.data.tobytes() for image in images] == [jpeg, png]
    assert [image.format.split()[1] for image in images] == ["jpeg", "png"]
    assert nanoseconds(images[1].header) - nanoseconds(images[0].header) == 200_000_000
    first, second = (truth for _, truth in read(tmp_path / "bag", bags.GROUND_TRUTH_TOPIC))
    assert first.detections == []
    (detection,) = second.detections
    assert detection.results[0].hypothesis.class_id == "car"
    centre = detection.bbox.center.position
    assert (centre.x, centre.y) == (8.0, 11.0)
    assert (detection.bbox.size_x, detection.bbox.size_y) == (8.0, 10.0)


def test_an_existing_folder_is_not_overwritten(drive):
    with pytest.raises(BagError, match="exists already"):
        write_drive(drive, seconds=1.0, size=SMALL, seed=3)


def test_a_drive_without_length_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must be positive .* got seconds 0\.0, rate 15\.0"):
        write_drive(tmp_path / "none", seconds=0.0)
    assert not (tmp_path / "none").exists()

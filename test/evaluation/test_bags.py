import hashlib
import json
import re
import shutil
from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.convert.converter import convert
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from mbnet_perception.core.images import ImageFormatError
from mbnet_perception.core.scene import DrivingScene
from mbnet_perception.evaluation import bag_storage, bags
from mbnet_perception.evaluation.bags import Bag, BagError, Message
from mbnet_perception.evaluation.sample_drive import write_drive

SAMPLE = Path(__file__).parents[1] / "data" / "sample_drive"
SMALL = (160, 120)
ZSTD = b"\x28\xb5\x2f\xfd"  # with which a frame of it begins, RFC 8878
MCAP_END = 8 + 29  # bytes of the magic and of the footer before it, MCAP specification
MARK = b"\0\1\0\0\5\0\0\0mark\0"  # a std_msgs/String, CDR
DATA_END = 13  # bytes of the record before the summary


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


def test_a_damaged_first_chunk_is_refused(drive, tmp_path):
    file = tmp_path / "drive.mcap"
    content = bytearray((drive / "drive.mcap").read_bytes())
    chunk = content.index(ZSTD)
    content[chunk : chunk + 4] = bytes(4)
    file.write_bytes(content)
    with Bag(file) as bag, pytest.raises(BagError, match=r"cannot be read: drive\.mcap: "):
        list(bag.messages(bag.topics))


def test_what_is_no_bag_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    for suffix in bag_storage.SUFFIXES:
        (tmp_path / f"noise{suffix}").write_bytes(b"noise" * 100)
        (tmp_path / f"empty{suffix}").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for name, reason in {
        "nowhere": "does not exist",
        "notes.txt": r"is no bag: expected a folder with metadata.yaml, or an .mcap, .db3 or .bag",
        "folder": "is no ROS 2 bag: it has neither a usable metadata.yaml nor .mcap or .db3 files",
        **{
            f"{kind}{s}": r"cannot be read: \w+\.\w+: .+; copy it again"
            for kind in ("noise", "empty")
            for s in bag_storage.SUFFIXES
        },
    }.items():
        with pytest.raises(BagError, match=reason):
            Bag(tmp_path / name)


@pytest.fixture(scope="module")
def sample():
    """The messages of the sample drive."""
    with Bag(SAMPLE) as bag:
        return list(bag.messages(bag.topics))


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Convert the sample drive, as `rosbags-convert` does; each kind once."""
    folder = tmp_path_factory.mktemp("converted")

    @cache
    def convert_to(name, storage="sqlite3", compression=None, mode="file"):
        convert([SAMPLE], folder / name, storage, 9, compression, mode, None, None, (), (), (), ())
        return folder / name

    return convert_to


def by_topic(messages):
    """As a dictionary: the order of messages of the same time is not settled between topics."""
    topics = defaultdict(list)
    for message in messages:
        topics[message.topic].append(message)
    return topics


def all_of(path):
    with Bag(path) as bag:
        return list(bag.messages(bag.topics)), bag.broken


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(("plain",), id="sqlite"),
        pytest.param(("files", "sqlite3", "zstd", "file"), id="sqlite, files compressed"),
        pytest.param(("files_mcap", "mcap", "zstd", "file"), id="mcap, files compressed"),
        pytest.param(("each", "sqlite3", "zstd", "message"), id="sqlite, messages compressed"),
        pytest.param(("ros1.bag",), id="ROS 1"),
        pytest.param(("lz4.bag", "", "lz4"), id="ROS 1, compressed"),
    ],
)
def test_every_kind_of_bag_gives_the_same_messages(converted, sample, target):
    path = converted(*target)
    messages, broken = all_of(path)
    assert by_topic(messages) == by_topic(sample)
    assert broken == ""
    with Bag(path) as bag:
        assert bag.counts == dict.fromkeys(bag.topics, 150)


def write_ros1(path, definition, rows, kind="vision_msgs/msg/Detection2DArray"):
    """Write a ROS 1 bag: CameraInfo of ROS 1, and serialised messages of some definition."""
    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types
    info_type = bags.CAMERA_INFO
    with Ros1Writer(path) as writer:
        infos = writer.add_connection("/info", info_type, typestore=store)
        other = writer.add_connection("/other", kind, msgdef=definition, md5sum="0" * 32)
        for number, data in enumerate(rows):
            stamp = types["builtin_interfaces/msg/Time"](sec=7, nanosec=number)
            header = types["std_msgs/msg/Header"](seq=number, stamp=stamp, frame_id="left")
            square = np.arange(9.0)
            roi = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
            info = types[info_type](
                header, 2, 3, "plumb_bob", np.zeros(5), square, square, np.zeros(12), 0, 0, roi
            )
            writer.write(infos, 7 * 10**9 + number, store.serialize_ros1(info, info_type))
            writer.write(other, 7 * 10**9 + number, data)


def test_messages_of_ros_1_become_those_of_ros_2(tmp_path):
    write_ros1(tmp_path / "old.bag", "int32 a", [bytes(4)] * 2, "our_msgs/msg/Secret")
    with Bag(tmp_path / "old.bag") as bag:
        assert bag.topics == {"/info": bags.CAMERA_INFO, "/other": "our_msgs/msg/Secret"}
        messages = list(bag.messages(bag.topics))
    assert [m.topic for m in messages] == ["/info", "/info"]
    infos = [bags.decode(m.data, m.type) for m in messages]
    assert [nanoseconds(info.header) for info in infos] == [7 * 10**9, 7 * 10**9 + 1]
    assert [(i.height, i.width, i.header.frame_id, i.k.tolist()) for i in infos] == [
        (2, 3, "left", [*range(9)])
    ] * 2


def test_detections_of_ros_1_are_not_taken_for_those_of_ros_2(tmp_path):
    # Like those of ROS 1's vision_msgs, whose classes are numbers: another deep inside only.
    line = "=" * 80
    definition = "\n".join(
        [
            *("std_msgs/Header header", "vision_msgs/Detection2D[] detections", line),
            *("MSG: std_msgs/Header", "uint32 seq", "time stamp", "string frame_id", line),
            *("MSG: vision_msgs/Detection2D", "std_msgs/Header header"),
            *("vision_msgs/ObjectHypothesisWithPose[] results", "vision_msgs/BoundingBox2D bbox"),
            *("string id", line, "MSG: vision_msgs/BoundingBox2D", "float64 size_x", line),
            *("MSG: vision_msgs/ObjectHypothesisWithPose", "int64 id", "float64 score", ""),
        ]
    )
    write_ros1(tmp_path / "old.bag", definition, [bytes(24)])
    with Bag(tmp_path / "old.bag") as bag:
        assert bag.topics["/other"] == "vision_msgs/Detection2DArray"
        assert [m.topic for m in bag.messages(bag.topics)] == ["/info"]


def test_a_damaged_message_of_ros_1_comes_without_data(tmp_path):
    definition = bags._typestore().generate_msgdef(bags.COMPRESSED_IMAGE, ros_version=1)[0]
    good = bytes(16) + bytes(4) + (3).to_bytes(4, "little") + b"abc"  # no frame, no format, abc
    write_ros1(tmp_path / "old.bag", definition, [good, good[:-1], good], bags.COMPRESSED_IMAGE)
    with Bag(tmp_path / "old.bag") as bag:
        messages = list(bag.messages(["/other"]))
    assert [len(m.data) > 0 for m in messages] == [True, False, True]
    assert bytes(bags.decode(messages[2].data, messages[2].type).data) == b"abc"
    with pytest.raises(ImageFormatError, match="cannot decode"):
        bags.picture_of(messages[1])


def test_a_ros_1_bag_without_index_names_the_tool_that_makes_one(converted, tmp_path):
    content = converted("ros1.bag").read_bytes()
    at = content.index(b"index_pos=") + len("index_pos=")
    for name, damaged in {
        "active": content[:at] + bytes(8) + content[at + 8 :],
        "half": content[: len(content) // 2],
    }.items():
        (tmp_path / f"{name}.bag").write_bytes(damaged)
        with pytest.raises(BagError, match=rf"{name}\.bag: .*or repair it with `rosbag reindex`"):
            Bag(tmp_path / f"{name}.bag")


@pytest.mark.parametrize("suffix", [".mcap", ".db3"])
@pytest.mark.parametrize("bare", [False, True], ids=["folder", "bare file"])
def test_a_truncated_bag_is_read_up_to_the_break(converted, sample, tmp_path, suffix, bare):
    source = SAMPLE if suffix == ".mcap" else converted("plain")
    shutil.copytree(source, tmp_path / "drive")
    file = next((tmp_path / "drive").glob(f"*{suffix}"))
    content = file.read_bytes()
    whole, numbers = by_topic(sample), []
    for share in (0.3, 0.6, 0.95):
        file.write_bytes(content[: int(share * len(content))])
        messages, broken = all_of(file if bare else file.parent)
        assert broken == f"{file.name} {bag_storage.CUT_SHORT}"
        for topic, found in by_topic(messages).items():
            assert found == whole[topic][: len(found)]
            with Bag(file) as bag:
                assert list(bag.messages([topic])) == found
        numbers.append(len(messages))
    # About as many as there are bytes, less what a chunk holds: about 1 MB of 4.5.
    assert [n > (s - 0.25) * len(sample) for n, s in zip(numbers, (0.3, 0.6, 0.95), strict=True)]
    assert 0 < numbers[0] < numbers[1] < numbers[2] < len(sample)


@pytest.mark.parametrize("kept", [12, 40, 0.5], ids=["header", "record", "half of a chunk"])
@pytest.mark.parametrize("bare", [False, True], ids=["folder", "bare file"])
def test_a_bag_cut_before_its_first_message_is_refused(drive, tmp_path, kept, bare):
    shutil.copytree(drive, tmp_path / "drive")
    file = tmp_path / "drive" / "drive.mcap"
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(BagError, match=r"drive\.mcap is cut short: its end .*`mcap recover`"):
        Bag(file if bare else file.parent)


def test_an_mcap_file_needs_nothing_behind_its_messages(sample, tmp_path):
    content = (SAMPLE / "sample_drive.mcap").read_bytes()
    footer = content[-MCAP_END:-8]
    summary = int.from_bytes(footer[9:17], "little")
    no_summary = footer[:9] + bytes(20) + content[-8:]
    for name, kept, whole in [
        ("no magic", content[:-4], True),
        ("no index", content[:summary] + no_summary, True),
        ("interrupted", content[: summary - DATA_END], False),  # more may have come
    ]:
        (tmp_path / f"{name}.mcap").write_bytes(kept)
        messages, broken = all_of(tmp_path / f"{name}.mcap")
        assert by_topic(messages) == by_topic(sample), name
        assert ("cut short" in broken) is not whole, name


def write_mcap(path, times, **how):
    """Write as the `mcap` library does: strings of ROS 2, and JSON on another topic."""
    with path.open("wb") as stream:
        writer = McapWriter(stream, **how)
        writer.start("ros2")
        schema = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data")
        ours = writer.register_channel("/ours", "cdr", schema)
        other = writer.register_channel("/other", "json", schema)
        for time in times:
            writer.add_message(other, time, b"{}", time)
            writer.add_message(ours, time, MARK, time)
        writer.finish()
    return path


def test_an_mcap_file_without_chunks_comes_in_its_own_order(tmp_path):
    # In the order of writing, though the times go back; what is not ROS 2's is left alone.
    with Bag(write_mcap(tmp_path / "own.mcap", [5, 7, 6], use_chunking=False)) as bag:
        assert bag.topics == {"/ours": "std_msgs/msg/String"}
        assert [m.log_time for m in bag.messages(["/ours"])] == [5, 7, 6]
        assert bag.broken == ""


def test_no_message_is_cut_with_its_file(tmp_path):
    file = write_mcap(tmp_path / "own.mcap", [5, 6, 7], use_chunking=False)
    content = file.read_bytes()
    last = content.rindex(MARK)
    for kept, number in ((last, 2), (last + len(MARK) - 1, 2), (last + len(MARK), 3)):
        file.write_bytes(content[:kept])
        messages, broken = all_of(file)
        assert [m.data for m in messages] == [MARK] * number
        assert "cut short" in broken


def test_a_checksum_finds_what_was_changed_in_a_file_without_index(tmp_path):
    how = {"chunk_size": 10, "compression": CompressionType.NONE}
    file = write_mcap(tmp_path / "own.mcap", [5, 6, 7], **how)
    content = bytearray(file.read_bytes()[:-4])
    content[content.rindex(MARK) + len(MARK) - 1] ^= 1
    file.write_bytes(content)
    messages, broken = all_of(file)
    assert [m.data for m in messages] == [MARK] * 2
    assert broken


def test_a_damaged_chunk_ends_the_reading(sample, tmp_path):
    content = bytearray((SAMPLE / "sample_drive.mcap").read_bytes())
    chunks = [m.start() for m in re.finditer(re.escape(ZSTD), content)]
    content[chunks[2] + 5 : chunks[2] + 9] = bytes(4)
    (tmp_path / "drive.mcap").write_bytes(content)
    messages, broken = all_of(tmp_path / "drive.mcap")
    assert 0 < len(messages) < len(sample)
    assert messages == sample[: len(messages)]
    assert broken.startswith("drive.mcap cannot be read to its end: ")


def test_damaged_pages_end_the_reading(converted, tmp_path):
    content = bytearray(next(converted("plain").glob("*.db3")).read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 65536] = b"\xa5" * 65536
    (tmp_path / "drive.db3").write_bytes(content)
    messages, broken = all_of(tmp_path / "drive.db3")
    assert 150 < len(messages) < 300
    assert broken.startswith("drive.db3 cannot be read to its end: ")


def split(folder, drive, names):
    """Make a folder of several MCAP files, in each of which the drive is."""
    folder.mkdir()
    for name in names:
        shutil.copy(drive / "drive.mcap", folder / name)
    return folder


def test_a_folder_without_metadata_is_read_in_the_order_of_its_files(drive, tmp_path):
    folder = split(tmp_path / "drive", drive, ["drive_10.mcap", "drive_2.mcap"])
    first = folder / "drive_2.mcap"
    first.write_bytes(first.read_bytes()[:-4])  # still whole, but tells the two apart
    for about in (
        None,
        "",
        "rosbag2_bagfile_information: {relative_file_paths: []}",
        "{",
        "[" * 9999,
    ):
        if about is not None:
            (folder / "metadata.yaml").write_text(about)
        with Bag(folder) as bag:
            assert bag.counts == dict.fromkeys(bag.topics, 30)
            assert len(list(bag.messages([bags.IMAGE_TOPIC]))) == 30
            joined = first.read_bytes() + (folder / "drive_10.mcap").read_bytes()
            assert bag.fingerprint() == hashlib.blake2b(joined, digest_size=16).hexdigest()


def test_the_files_that_metadata_lists_are_those_of_the_folder(drive, tmp_path):
    folder = split(tmp_path / "drive", drive, ["b.mcap", "a.mcap", "unlisted.mcap"])
    (tmp_path / "outside.mcap").write_bytes(b"")
    about = "rosbag2_bagfile_information: {relative_file_paths: [%s]}"
    (folder / "metadata.yaml").write_text(about % "elsewhere/b.mcap, ../a.mcap")
    messages, broken = all_of(folder)
    assert len(messages) == 2 * 45
    assert broken == ""
    for name in ("../outside.mcap", "..", "."):
        (folder / "metadata.yaml").write_text(about % f"a.mcap, {name}, b.mcap")
        messages, broken = all_of(folder)
        assert len(messages) == 45
        assert broken.endswith(", which its metadata.yaml lists, is missing")


@pytest.mark.parametrize("share", [0.0001, 0.5], ids=["nothing of it", "half of it"])
def test_a_broken_later_file_takes_nothing_from_the_earlier_ones(drive, sample, tmp_path, share):
    folder = split(tmp_path / "drive", drive, ["drive_0.mcap", "drive_2.mcap"])
    content = (SAMPLE / "sample_drive.mcap").read_bytes()
    (folder / "drive_1.mcap").write_bytes(content[: int(share * len(content))])
    messages, broken = all_of(folder)
    assert broken == f"drive_1.mcap {bag_storage.CUT_SHORT}"
    assert (len(messages) > 45) is (share == 0.5)
    whole = by_topic(sample)
    for topic, found in by_topic(messages[45:]).items():
        assert found == whole[topic][: len(found)]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        pytest.param(["a.mcap", "a.db3"], "both .mcap and .db3 files; name one", id="two kinds"),
        pytest.param(["a.db3.zstd"], "packed files: unpack them with `zstd -d`", id="packed"),
    ],
)
def test_a_folder_whose_files_are_no_series_says_what_to_do(tmp_path, names, reason):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(BagError, match=reason):
        Bag(tmp_path)


def test_messages_left_in_a_journal_are_told_of(converted, tmp_path):
    shutil.copy(next(converted("plain").glob("*.db3")), tmp_path / "drive.db3")
    (tmp_path / "drive.db3-wal").write_bytes(b"frames")
    messages, broken = all_of(tmp_path / "drive.db3")
    assert len(messages) == 450
    assert "interrupted recording has left drive.db3-wal" in broken


def test_a_fingerprint_is_of_the_content(drive, tmp_path):
    shutil.copytree(drive, tmp_path / "copy")
    with Bag(drive) as one, Bag(tmp_path / "copy") as other, Bag(SAMPLE) as sample:
        assert re.fullmatch("[0-9a-f]{32}", one.fingerprint())
        assert one.fingerprint() == other.fingerprint() != sample.fingerprint()
    (tmp_path / "copy/metadata.yaml").unlink()
    with Bag(drive) as one, Bag(tmp_path / "copy") as other:
        assert one.fingerprint() == other.fingerprint()


def test_a_picture_comes_out_of_its_message(sample):
    message = next(m for m in sample if m.topic == bags.IMAGE_TOPIC)
    content = np.frombuffer(bags.decode(message.data, message.type).data, np.uint8)
    picture = bags.picture_of(message)
    assert np.array_equal(picture.bgr(), cv2.imdecode(content, cv2.IMREAD_COLOR))
    assert (picture.height, picture.width) == (480, 640)
    small = bags.picture_of(message, long_side=320)
    assert small.pixels.shape == (240, 320, 3)
    assert (small.height, small.width) == (480, 640)


def image_message(encoding, height=2, width=2, step=6):
    types = bags._typestore().types
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](1, 2), "left")
    data = np.arange(step * height, dtype=np.uint8)
    image = types[bags.IMAGE](header, height, width, encoding, 0, step, data)
    return Message(
        "/left", bags.IMAGE, 0, bytes(bags._typestore().serialize_cdr(image, bags.IMAGE))
    )


def test_a_raw_picture_keeps_its_order_of_colours():
    picture = bags.picture_of(image_message("rgb8"))
    assert (picture.order, picture.height, picture.width) == ("rgb", 2, 2)
    assert picture.pixels[1, 0].tolist() == [6, 7, 8]


def test_what_is_no_picture_is_refused_by_name(sample):
    truth = next(m for m in sample if m.type == bags.DETECTIONS)
    image = next(m for m in sample if m.topic == bags.IMAGE_TOPIC)
    for message, reason in [
        (image_message("bayer_rggb8", step=2), "encoding 'bayer_rggb8' is not supported"),
        (image_message("bgr8", step=5), "needs a step of at least 6 bytes, got 5"),
        (replace(image, data=image.data[:-9]), "cannot decode a message of type sensor_msgs"),
        (replace(image, data=b""), "cannot decode a message of type sensor_msgs"),
        (truth, "expected sensor_msgs/msg/Image or .*, got vision_msgs/msg/Detection2DArray"),
    ]:
        with pytest.raises(ImageFormatError, match=reason):
            bags.picture_of(message)


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

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from mbnet_perception.core.images import Picture, picture_from_compressed
from mbnet_perception.core.weather import apply_weather
from mbnet_perception.evaluation import bag_run, bags
from mbnet_perception.evaluation.accuracy import MEASURING
from mbnet_perception.evaluation.bag_cache import CHUNK, CacheError, merge
from mbnet_perception.evaluation.bag_pictures import degrade_frame, moment_pictures
from mbnet_perception.evaluation.bag_results import Moment
from mbnet_perception.evaluation.bag_run import BagPlan, BagRunError, Progress, evaluate_bags
from mbnet_perception.evaluation.bags import START, BagError
from mbnet_perception.evaluation.robustness import CLEAR, Condition
from mbnet_perception.inference.detector import Detector
from mbnet_perception.inference.models import OperatingPoint, add_model

SECOND = 10**9
FOG, NOISE = Condition("fog", 5), Condition("noise", 3)
SMALL, LARGE = OperatingPoint(resolution=64), OperatingPoint(resolution=96)
BOX = (0.1, 0.2, 0.6, 0.8)
EMPTY = np.zeros((0, 4), np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory, make_model, make_metadata):
    """A folder with one model: its scores are the picture's mean red, green and blue."""
    folder = tmp_path_factory.mktemp("models")
    metadata = make_metadata(resolutions=(64, 96))
    measured = {"accuracy": {"64": {"ap50": 0.25}}}
    add_model(folder, make_model([BOX], props=metadata.as_props()), metadata, measured)
    return folder


def jpeg(number, size=(48, 32)):
    """A picture of a colour that its number tells, with a few shapes."""
    colour = [(37 * number) % 200 + 20, (91 * number) % 200 + 20, (13 * number) % 200 + 20]
    picture = np.full((size[1], size[0], 3), colour, np.uint8)
    picture[: size[1] // 2, : size[0] // 3] //= 2
    return np.asarray(cv2.imencode(".jpg", picture)[1], np.uint8)


def write_bag(path, pictures, stamps=None):
    """A bag of encoded pictures, recorded 0.1 s apart and stamped so unless told otherwise."""
    store = bags._typestore()
    types = store.types
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        camera = writer.add_connection("/camera", bags.COMPRESSED_IMAGE, typestore=store)
        labels = writer.add_connection("/labels", bags.DETECTIONS, typestore=store)
        for number, picture in enumerate(pictures):
            time = START + number * SECOND // 10
            seconds, rest = divmod(time if stamps is None else stamps[number], SECOND)
            stamp = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=rest)
            header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="")
            for connection, message in (
                (camera, types[bags.COMPRESSED_IMAGE](header, "jpeg", picture)),
                (labels, types[bags.DETECTIONS](header, [])),
            ):
                writer.write(connection, time, store.serialize_cdr(message, connection.msgtype))
    return path


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """Twelve pictures."""
    return write_bag(tmp_path_factory.mktemp("bags") / "drive", [jpeg(i) for i in range(12)])


@pytest.fixture(scope="module")
def short_drive(tmp_path_factory):
    """Five."""
    return write_bag(tmp_path_factory.mktemp("bags") / "short", [jpeg(i) for i in range(20, 25)])


@pytest.fixture(scope="module")
def long_drive(tmp_path_factory):
    """Two whole chunks and a bit."""
    pictures = [jpeg(i % 50) for i in range(2 * CHUNK + 10)]
    return write_bag(tmp_path_factory.mktemp("bags") / "long", pictures)


@pytest.fixture
def make_plan(models):
    def make(*paths, **options):
        options = {"points": (SMALL,), "models": models, **options}
        return BagPlan(tuple(map(Path, paths)), **options)

    return make


@pytest.fixture
def decoded(monkeypatch):
    """Counts pictures that are decoded."""
    count = []
    original = bag_run.picture_of

    def picture_of(message, long_side=0):
        count.append(long_side)
        return original(message, long_side)

    monkeypatch.setattr(bag_run, "picture_of", picture_of)
    return count


def assert_equal(a, b):
    """Runs are equal but for the time that they took."""
    for name in ("stamps", "sizes", "counts", "boxes", "scores", "classes"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), name)


def assert_same_results(one, other):
    assert one.all_facts() == other.all_facts()
    for bag in one.all_facts():
        for each in one.plan.points:
            for condition in one.plan.conditions:
                assert_equal(
                    one.run(bag, each.point, condition), other.run(bag, each.point, condition)
                )


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def detect(models, resolution, picture):
    file = next(models.glob("*.onnx"))
    return Detector(file.read_bytes(), resolution, 1).detect(picture, MEASURING)[0]


def same(found, expected):
    return all(np.array_equal(vars(found)[name], vars(expected)[name]) for name in vars(expected))


def test_clear_pictures_are_seen_as_in_the_node(make_plan, models, tmp_path):
    # 384 pixels wide: decoded at a quarter for the one, at a quarter and at a half for both.
    pictures = [jpeg(i, (384, 256)) for i in range(3)]
    write_bag(tmp_path / "drive", pictures)
    points = (SMALL, LARGE)
    cache = evaluate_bags(make_plan(tmp_path / "drive", points=points), tmp_path / "cache")
    (facts,) = cache.all_facts()
    for point in points:
        run = cache.run(facts, point, CLEAR)
        assert run.stamps.tolist() == [START + i * SECOND // 10 for i in range(3)]
        assert run.sizes.tolist() == [[256, 384]] * 3
        assert (run.seconds > 0).all()
        for found, picture in zip(run.detections(), pictures, strict=True):
            shown = picture_from_compressed(picture.tobytes(), long_side=point.resolution)
            assert same(found, detect(models, point.resolution, shown))
            np.testing.assert_allclose(found.boxes[0], [38.4, 51.2, 230.4, 204.8], rtol=1e-5)


def test_weather_moves_with_the_stamps(make_plan, models, tmp_path):
    pictures = [jpeg(i) for i in range(4)]
    stamps = [START + round(s * SECOND) for s in (0, 0.3333336, 0.7, 5)]
    write_bag(tmp_path / "drive", pictures, stamps)
    rain = Condition("rain", 4)
    plan = make_plan(tmp_path / "drive", conditions=(CLEAR, rain, NOISE), seed=3)
    cache = evaluate_bags(plan, tmp_path / "cache")
    (facts,) = cache.all_facts()
    decoded = [
        cv2.cvtColor(cv2.imdecode(picture, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        for picture in pictures
    ]
    found = cache.run(facts, SMALL, rain).detections()
    for each, rgb, milliseconds in zip(found, decoded, (0, 333, 700, 5000), strict=True):
        shown = apply_weather(rgb, "rain", 4, seed=3, frame=milliseconds, rate=1000)
        assert same(each, detect(models, 64, Picture(shown, "rgb", 32, 48)))
    found = cache.run(facts, SMALL, NOISE).detections()
    for each, rgb, milliseconds in zip(found, decoded, (0, 333, 700, 5000), strict=True):
        shown = degrade_frame(rgb, NOISE, milliseconds, 3)
        assert (shown != rgb).any()
        assert same(each, detect(models, 64, Picture(shown, "rgb", 32, 48)))


def test_stamps_that_go_back_are_counted_and_long_ones_begin_anew(make_plan, models, tmp_path):
    stamps = [START + round(s * SECOND) for s in (1, 3, 2.5, 1.9, 2.1, 2.1)]
    pictures = [jpeg(0)] * len(stamps)
    write_bag(tmp_path / "drive", pictures, stamps)
    rain = Condition("rain", 5)
    plan = make_plan(tmp_path / "drive", conditions=(CLEAR, rain))
    cache = evaluate_bags(plan, tmp_path / "cache")
    (facts,) = cache.all_facts()
    assert facts.backwards == 2
    assert facts.seconds == 2
    rgb = cv2.cvtColor(cv2.imdecode(pictures[0], cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    found = cache.run(facts, SMALL, rain)
    assert found.stamps.tolist() == stamps
    # More than a second before the newest stamp, which is 3.
    expected = (0, 2000, 1500, 0, 200, 200)
    for each, milliseconds in zip(found.detections(), expected, strict=True):
        shown = apply_weather(rgb, "rain", 5, seed=0, frame=milliseconds, rate=1000)
        assert same(each, detect(models, 64, Picture(shown, "rgb", 32, 48)))


def test_damaged_pictures_are_counted_and_left_out_of_every_run(make_plan, tmp_path):
    pictures = [jpeg(i) for i in range(8)]
    pictures[2] = pictures[2][:-10]
    pictures[5] = np.frombuffer(b"GIF89a", np.uint8)
    write_bag(tmp_path / "drive", pictures)
    plan = make_plan(tmp_path / "drive", conditions=(CLEAR, FOG), points=(SMALL, LARGE))
    cache = evaluate_bags(plan, tmp_path / "cache")
    (facts,) = cache.all_facts()
    assert (facts.frames, facts.failed) == (6, 2)
    assert facts.first_failure.startswith("picture 3: JPEG image is truncated")
    kept = [START + i * SECOND // 10 for i in (0, 1, 3, 4, 6, 7)]
    for point in (SMALL, LARGE):
        for condition in (CLEAR, FOG):
            assert cache.run(facts, point, condition).stamps.tolist() == kept
    # What comes out of the files alone tells the same.
    (tmp_path / "cache").rename(tmp_path / "moved")
    next((tmp_path / "moved").glob("*/facts.json")).unlink()
    assert evaluate_bags(plan, tmp_path / "moved").all_facts() == [facts]


def test_every_nth_picture(make_plan, drive, tmp_path):
    cache = evaluate_bags(make_plan(drive, every=5), tmp_path)
    (facts,) = cache.all_facts()
    stamps = cache.run(facts, SMALL, CLEAR).stamps
    assert ((stamps - START) // (SECOND // 10)).tolist() == [0, 5, 10]
    assert facts.frames == 3


def test_parts_are_of_the_pictures_that_are_taken(make_plan, long_drive, tmp_path):
    cache = evaluate_bags(make_plan(long_drive, every=2), tmp_path)
    (facts,) = cache.all_facts()
    assert facts.frames == CHUNK + 5
    assert len(list(tmp_path.glob("*/*/00*.npz"))) == 2


def test_cameras_of_changing_size(make_plan, tmp_path):
    sizes = [(48, 32), (32, 48), (1, 1), (48, 32), (200, 3)]
    write_bag(tmp_path / "drive", [jpeg(i, size) for i, size in enumerate(sizes)])
    plan = make_plan(tmp_path / "drive", conditions=(CLEAR, FOG))
    cache = evaluate_bags(plan, tmp_path / "cache")
    (facts,) = cache.all_facts()
    for condition in (CLEAR, FOG):
        run = cache.run(facts, SMALL, condition)
        assert run.sizes[:, ::-1].tolist() == [list(size) for size in sizes]


def test_latencies_are_of_one_thread_that_is_warm(make_plan, tmp_path, monkeypatch):
    sizes = [(48, 32), (48, 32), (32, 48)]
    write_bag(tmp_path / "drive", [jpeg(i, size) for i, size in enumerate(sizes)])
    original, calls = Detector.detect, []

    def detect(self, picture, selection):
        measured = "measured" if selection == MEASURING else "warmed"
        calls.append((measured, picture.width, cv2.getNumThreads(), self._threads))
        return original(self, picture, selection)

    monkeypatch.setattr(Detector, "detect", detect)
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    evaluate_bags(make_plan(tmp_path / "drive"), tmp_path / "cache")
    threads = cv2.getNumThreads()
    cv2.setNumThreads(before)
    assert threads == 3
    # A detector warms itself for 640x480 when it is made; and warming is two runs.
    assert [call for call in calls if call[1] != 640] == [
        *[("warmed", 48, 1, 1)] * 2,
        *[("measured", 48, 1, 1)] * 2,
        *[("warmed", 32, 1, 1)] * 2,
        ("measured", 32, 1, 1),
    ]


def test_a_sqlite_bag_of_raw_images(make_plan, tmp_path):
    pixels = np.full((4, 6, 3), (10, 100, 200), np.uint8)
    store = bags._typestore()
    types = store.types
    with Writer(tmp_path / "raw", version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/front", bags.IMAGE, typestore=store)
        for second in range(2):
            stamp = types["builtin_interfaces/msg/Time"](sec=second, nanosec=5)
            header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="")
            writer.write(connection, second, bags.raw_image(pixels, header))
    cache = evaluate_bags(make_plan(tmp_path / "raw", conditions=(CLEAR, FOG)), tmp_path / "cache")
    (facts,) = cache.all_facts()
    run = cache.run(facts, SMALL, CLEAR)
    assert facts.topic == "/front"
    assert run.stamps.tolist() == [5, SECOND + 5]
    # Mean red, green and blue, best first.
    np.testing.assert_allclose(run.scores.reshape(2, 3) * 255, [[200, 100, 10]] * 2, rtol=1e-5)
    assert run.classes.reshape(2, 3).tolist() == [[0, 1, 2]] * 2


def test_a_bag_that_breaks_off_is_evaluated_as_far_as_it_goes(make_plan, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (128, 192, 3), np.uint8)
    picture = np.asarray(cv2.imencode(".png", noise)[1], np.uint8)  # 70 kB, so there are chunks
    bag = write_bag(tmp_path / "drive", [picture] * 40)
    whole = next(bag.glob("*.mcap")).read_bytes()
    (tmp_path / "cut.mcap").write_bytes(whole[: len(whole) * 3 // 4])
    cache = evaluate_bags(make_plan(tmp_path / "cut.mcap"), tmp_path / "cache")
    (facts,) = cache.all_facts()
    assert "cut short" in facts.broken
    assert 0 < facts.frames <= 30
    assert len(cache.run(facts, SMALL, CLEAR)) == facts.frames
    assert not cache.missing()


def test_what_is_done_is_not_done_again(
    make_plan, long_drive, tmp_path, decoded, capsys, monkeypatch
):
    plan = make_plan(long_drive)
    before = evaluate_bags(plan, tmp_path / "one")
    assert len(decoded) == 2 * CHUNK + 10
    decoded.clear()
    with monkeypatch.context() as patch:
        patch.setattr(bag_run, "timed_messages", None)  # the bag is not even read
        assert_same_results(evaluate_bags(plan, tmp_path / "one"), before)
    # Another point needs the pictures again, but leaves what is there alone.
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "one").rglob("00*.npz")}
    both = evaluate_bags(replace(plan, points=(SMALL, LARGE)), tmp_path / "one")
    assert decoded == [96] * (2 * CHUNK + 10)
    assert all(file.stat().st_mtime_ns == time for file, time in files.items())
    assert_equal(
        both.run(both.all_facts()[0], SMALL, CLEAR), before.run(before.all_facts()[0], SMALL, CLEAR)
    )
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[: len(content) // 2], id="cut"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"x" * len(content), id="garbage"),
        pytest.param(lambda c: c[:300] + bytes([c[300] ^ 1]) + c[301:], id="one bit"),
    ],
)
def test_a_damaged_part_is_computed_again(make_plan, long_drive, tmp_path, decoded, capsys, damage):
    plan = make_plan(long_drive)
    before = evaluate_bags(plan, tmp_path)
    (facts,) = before.all_facts()
    run = before.run(facts, SMALL, CLEAR)
    file = next(tmp_path.glob("*/*/000001.npz"))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(CacheError, match=r"000001.npz: .*evaluate the bag again"):
        before.run(facts, SMALL, CLEAR)
    decoded.clear()
    after = evaluate_bags(plan, tmp_path)
    assert len(decoded) == CHUNK
    assert "warning: " in (told := capsys.readouterr().err)
    assert "000001.npz is damaged and not used" in told
    assert after.all_facts() == [facts]
    assert_equal(after.run(facts, SMALL, CLEAR), run)


def test_an_interrupted_run_goes_on(make_plan, long_drive, tmp_path, decoded, monkeypatch):
    plan = make_plan(long_drive, conditions=(CLEAR, FOG))
    original, calls = Detector.detect, []

    def detect(self, picture, selection):
        calls.append(picture)
        if len(calls) == 2 * CHUNK + 100:  # in the second chunk, as there are two conditions
            raise KeyboardInterrupt
        return original(self, picture, selection)

    threads = threading.active_count()
    monkeypatch.setattr(Detector, "detect", detect)
    with pytest.raises(KeyboardInterrupt):
        evaluate_bags(plan, tmp_path / "one")
    assert threading.active_count() == threads
    monkeypatch.setattr(Detector, "detect", original)
    assert sorted(file.name for file in (tmp_path / "one").rglob("00*")) == ["000000.npz"] * 2
    decoded.clear()
    resumed = evaluate_bags(plan, tmp_path / "one")
    assert len(decoded) == CHUNK + 10  # clear ones; whole ones are decoded elsewhere
    assert_same_results(resumed, evaluate_bags(plan, tmp_path / "two"))


def test_a_failing_reader_is_heard(make_plan, drive, tmp_path, monkeypatch):
    monkeypatch.setattr(bag_run, "whole_rgb", lambda message: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate_bags(make_plan(drive, conditions=(CLEAR, FOG)), tmp_path)


def test_results_do_not_depend_on_the_jobs(make_plan, drive, short_drive, tmp_path):
    plan = make_plan(drive, short_drive, conditions=(CLEAR, FOG))
    alone = evaluate_bags(plan, tmp_path / "alone")
    assert_same_results(evaluate_bags(plan, tmp_path / "three", jobs=3), alone)


def test_shards_join_to_the_whole_and_need_no_bags(make_plan, drive, short_drive, tmp_path):
    drives = [tmp_path / "drive", tmp_path / "short"]
    drives[0].symlink_to(drive)
    drives[1].symlink_to(short_drive)
    conditions = (CLEAR, FOG, NOISE)
    plan = make_plan(*drives, conditions=conditions)
    whole = evaluate_bags(plan, tmp_path / "whole")
    folders = [tmp_path / f"shard {number}" for number in (1, 2, 3, 4)]
    units = []
    for number, folder in enumerate(folders, start=1):
        evaluate_bags(plan, folder, shard=(number, 4))
        units.append(len(list(folder.glob("*/*/000000.npz"))))
    assert units == [2, 2, 1, 1]  # of two bags under three conditions
    for link in drives:
        link.unlink()
    part = merge(folders[:2], tmp_path / "part")
    # Shard 3 has noise for the first bag, shard 4 clear for the second.
    assert part.missing() == [
        "bag 'drive', noise 3: 1 of 1 parts",
        "bag 'short', clear: 1 of 1 parts",
    ]
    joined = merge([tmp_path / "part", *folders[2:]], tmp_path / "joined")
    assert not joined.missing()
    assert_same_results(joined, whole)
    assert joined.truth(joined.all_facts()[0]).stamps.shape == (12,)


def test_a_process_that_is_killed_is_told(make_plan, long_drive, tmp_path):
    def kill():
        wait_for(lambda: list(tmp_path.glob("*/*/00*.npz")))
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    conditions = (CLEAR, *(Condition("rain_night", severity) for severity in (1, 2, 3, 4, 5)))
    with pytest.raises(BagRunError, match=r"ended from outside.*fewer jobs"):
        evaluate_bags(make_plan(long_drive, conditions=conditions), tmp_path, jobs=2)
    killer.join()


def test_who_is_killed_keeps_nobody_waiting():
    context = multiprocessing.get_context("spawn")
    progress = Progress(context, 2)
    code = "while not progress.stopped: progress.advance(1, 2)"
    process = context.Process(target=exec, args=(code, {"progress": progress}))
    process.start()
    seen = []

    def look():
        wait_for(lambda: progress.done > 0)
        # One that is stopped is as one that is killed, so that this is at many moments.
        for _ in range(500):
            os.kill(process.pid, signal.SIGSTOP)
            seen.append((progress.done % 2, progress.stopped))
            os.kill(process.pid, signal.SIGCONT)
        process.kill()
        progress.stop()
        seen.append((progress.done % 2, progress.stopped))

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(60)
    process.kill()
    process.join()
    assert seen == [*[(0, False)] * 500, (0, True)]


SCRIPT = """
import signal
import sys
from pathlib import Path
from mbnet_perception.evaluation.bag_run import BagPlan, evaluate_bags
from mbnet_perception.evaluation.robustness import list_conditions
from mbnet_perception.inference.models import OperatingPoint

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started us ignores it
    bag, models, folder = map(Path, sys.argv[1:])
    conditions = list_conditions(["rain", "rain_night", "fog_night"], [], [1, 2, 3, 4, 5])
    plan = BagPlan((bag,), (OperatingPoint(resolution=64),), conditions, models=models)
    try:
        evaluate_bags(plan, folder, jobs=2)
    except KeyboardInterrupt:
        sys.exit("interrupted")
"""


def processes_of(group):
    """Processes of a group that have not ended."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, owner = file.read_text().rpartition(")")[2].split()[:3]
            if int(owner) == group and state != "Z":
                found.append(file)
    return found


def test_ctrl_c_ends_all_processes_and_leaves_whole_parts(models, long_drive, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    folder = tmp_path / "cache"
    process = subprocess.Popen(
        [sys.executable, script, long_drive, models, folder],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    wait_for(lambda: process.poll() is not None or list(folder.glob("*/*/00*.npz")))
    assert len(processes_of(process.pid)) >= 3
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    told = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert told.strip().endswith("interrupted")
    assert "Traceback" not in told
    wait_for(lambda: not processes_of(process.pid))
    parts = list(folder.glob("*/*/*"))
    assert len(parts) < 3 * 16  # no task went on to its end
    for file in parts:
        with np.load(file, allow_pickle=False) as arrays:
            assert len(arrays["stamps"]) in (CHUNK, 10)


def test_bags_have_names_of_their_own(make_plan, drive, tmp_path):
    other = write_bag(tmp_path / "drive", [jpeg(3)])
    third = (
        write_bag(tmp_path / "more" / "drive", [jpeg(4)]) if (tmp_path / "more").mkdir() else None
    )
    assert third is None
    cache = evaluate_bags(make_plan(drive, other), tmp_path / "cache")
    assert [(each.name, each.path) for each in cache.all_facts()] == [
        ("drive", str(drive)),
        ("drive-2", str(other)),
    ]


def test_the_plan_names_models_classes_and_their_accuracy(make_plan, drive, tmp_path, models):
    cache = evaluate_bags(make_plan(drive, points=(SMALL, LARGE)), tmp_path)
    assert [each.point for each in cache.plan.points] == [SMALL, LARGE]
    assert [each.ap50 for each in cache.plan.points] == [0.25, None]
    assert cache.plan.points[0].classes == ("red", "green", "blue")
    assert len(cache.machines()) == 1


def test_ground_truth_is_kept_from_where_it_was_wanted(make_plan, drive, tmp_path):
    labels = tmp_path / "labels.json"
    labels.write_text(
        '{"images": [{"id": 1, "file_name": "a.jpg", "stamp": 77, "width": 48, "height": 32}],'
        ' "annotations": [], "categories": [{"id": 1, "name": "red"}]}'
    )
    of_topic = evaluate_bags(make_plan(drive), tmp_path / "cache")
    of_file = evaluate_bags(make_plan(drive, truth_file=labels), tmp_path / "cache")
    of_none = evaluate_bags(make_plan(drive, use_truth=False), tmp_path / "cache")
    (facts,) = of_topic.all_facts()
    assert len(of_topic.truth(facts).stamps) == 12
    assert of_file.truth(facts).stamps.tolist() == [77]
    assert of_none.truth(facts) is None
    with pytest.raises(BagError, match="has no topic '/lidar'"):
        evaluate_bags(make_plan(drive, truth_topic="/lidar"), tmp_path / "cache")


def test_a_moment_is_shown_as_it_was_seen(make_plan, tmp_path):
    pictures = [jpeg(i) for i in range(6)]
    pictures[1] = pictures[1][:-10]
    stamps = [START + i * SECOND for i in (0, 1, 2, 2, 0, 1)]  # two of the same, and a restart
    write_bag(tmp_path / "drive", pictures, stamps)
    cache = evaluate_bags(
        make_plan(tmp_path / "drive", conditions=(CLEAR, FOG), seed=4), tmp_path / "cache"
    )

    def moment(number, stamp):
        return Moment("drive", number, stamp, FOG, SMALL, (), 0, EMPTY, ())

    def shown(number, milliseconds):
        rgb = cv2.cvtColor(cv2.imdecode(pictures[number], cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        return rgb, apply_weather(rgb, "fog", 5, seed=4, frame=milliseconds, rate=1000)

    moments = [moment(4, stamps[5]), moment(2, stamps[3]), moment(0, stamps[1])]
    last, third, wrong = moment_pictures(cache, moments)
    assert wrong is None  # another stamp than the results have: the bag is another now
    for found, expected in ((last, shown(5, 1000)), (third, shown(3, 2000))):
        assert all((a == b).all() for a, b in zip(found, expected, strict=True))
    (tmp_path / "drive").rename(tmp_path / "away")
    assert moment_pictures(cache, moments) == [None] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            {"bags": ()}, "bags must be at least one, and all different; got none", id="bags"
        ),
        pytest.param({"points": (SMALL, SMALL)}, "points must be at least one", id="points"),
        pytest.param({"conditions": (FOG, CLEAR)}, "must be clear, got fog 5", id="clear"),
        pytest.param({"seed": -1}, "seed must not be negative, got -1", id="seed"),
        pytest.param({"every": 0}, "every must be positive, got 0", id="every"),
        pytest.param(
            {"truth_topic": "/t", "truth_file": Path("f")},
            "a topic or a file, got /t and f",
            id="t",
        ),
        pytest.param(
            {"truth_topic": "/t", "use_truth": False}, "must be none, got /t", id="no truth"
        ),
    ],
)
def test_plans_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        BagPlan(**{"bags": (Path("a"),), "points": (SMALL,), **change})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"jobs": 0}, "jobs must be positive, got 0", id="jobs"),
        pytest.param({"shard": (0, 2)}, "got 0 of 2", id="shard 0"),
        pytest.param({"shard": (3, 2)}, "got 3 of 2", id="shard 3"),
    ],
)
def test_jobs_and_shards_that_make_no_sense_are_refused(make_plan, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate_bags(make_plan("nowhere"), tmp_path, **arguments)


def test_bad_bags_are_told_before_the_work_begins(make_plan, drive, tmp_path, decoded):
    copy = tmp_path / "copy.mcap"
    copy.write_bytes(next(drive.glob("*.mcap")).read_bytes())
    two = tmp_path / "two"
    with Writer(two, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic in ("/left", "/right"):
            writer.add_connection(topic, bags.IMAGE, typestore=bags._typestore())
    for bad, message in (
        (tmp_path / "missing", "missing' does not exist"),
        (copy, "drive' and .*copy.mcap' are the same"),
        (two, "several image topics; choose one of /left, /right"),
    ):
        with pytest.raises(BagError, match=message):
            evaluate_bags(make_plan(drive, bad), tmp_path / "cache")
    with pytest.raises(BagError, match="has no picture on its topic '/left'"):
        evaluate_bags(make_plan(two, topic="/left"), tmp_path / "cache")
    with pytest.raises(BagError, match="has no image topic '/left'"):
        evaluate_bags(make_plan(drive, topic="/left"), tmp_path / "cache")
    assert not decoded

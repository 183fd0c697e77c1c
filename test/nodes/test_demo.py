import io
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from mbnet_perception.core.detections import Detections
from mbnet_perception.nodes.demo import (
    Drive,
    Frame,
    LiveTable,
    detections_from,
    figures,
    interruption,
    table,
    write_pictures,
)
from mbnet_perception.nodes.messages import detections_message

SAMPLE_DRIVE = Path(__file__).resolve().parents[1] / "data" / "sample_drive"
NAMES = ("person", "car")
SECOND = 10**9


def header(stamp):
    made = Header()
    made.stamp.sec, made.stamp.nanosec = divmod(stamp, SECOND)
    return made


def image(stamp, size=(64, 48), level=90):
    picture = np.full((size[1], size[0], 3), level, np.uint8)
    data = cv2.imencode(".jpg", picture)[1].tobytes()
    return CompressedImage(header=header(stamp), format="jpeg", data=data)


def answer(stamp, *classes):
    found = Detections(
        np.tile(np.array([8, 16, 40, 40], np.float32), (len(classes), 1)),
        np.full(len(classes), 0.75, np.float32),
        np.array(classes, np.int64),
    )
    return detections_message(found, NAMES, header(stamp))


def monitor(drive):
    return SimpleNamespace(drive=drive, class_names=NAMES, engine="a network", stages={})


def no_check():
    pass


# What is counted


def test_images_and_answers_belong_together_by_stamp_in_either_order():
    drive = Drive()
    drive.add_image(image(5 * SECOND), 100.0)
    drive.add_answer(answer(6 * SECOND, 1), 6 * SECOND + 30_000_000, 100.0)
    drive.add_image(image(6 * SECOND + 1), 100.0)  # a nanosecond makes another frame
    drive.add_image(image(6 * SECOND), 100.0)
    drive.add_answer(answer(5 * SECOND), 5 * SECOND + 20_000_000, 100.0)
    assert list(drive.frames) == [5 * SECOND, 6 * SECOND, 6 * SECOND + 1]
    assert len(drive.answers) == 2
    assert drive.latencies == pytest.approx([0.02, 0.03])
    assert drive.lost(float("inf")) == 1


def test_a_frame_is_lost_when_it_has_waited_longer_than_two_seconds():
    drive = Drive()
    drive.add_image(image(5 * SECOND), 100.0)
    drive.add_image(image(6 * SECOND), 101.0)
    assert [drive.lost(now) for now in (101.9, 102.1, 103.1)] == [0, 1, 2]
    drive.add_answer(answer(5 * SECOND), 9 * SECOND, 104.0)
    assert drive.lost(103.1) == 1


def test_the_figures_are_those_of_the_frames():
    drive = Drive()
    for i in range(11):  # 10 a second; latencies of 1, 2, ... 10 ms; the last has no answer
        stamp = i * SECOND // 10
        drive.add_image(image(stamp), 100.0)
        if i < 10:
            found = [1, 1, 0] if i == 3 else [1]
            drive.add_answer(answer(stamp, *found), stamp + (i + 1) * 10**6, 100.0)
    rows = figures(monitor(drive), 103.0)
    assert rows["detector"] == "a network"
    assert rows["frames"] == "sent 11   answered 10   lost 1"
    assert rows["rate"] == "10.0 Hz"
    assert rows["stamp to publish"] == "p50 5.0 ms   p90 9.0 ms   p99 10.0 ms"
    assert rows["objects"] == "car 11   person 1"


def test_the_figures_of_nothing_are_dashes():
    rows = figures(monitor(Drive()), 0.0)
    assert rows["frames"] == "sent 0   answered 0   lost 0"
    assert rows["stamp to publish"] == rows["objects"] == "-"


def test_detections_survive_the_way_through_a_message():
    found = Detections(
        np.array([[1, 2, 30, 42], [5, 5, 6, 7]], np.float32),
        np.array([0.75, 0.5], np.float32),
        np.array([1, 0], np.int64),
    )
    back = detections_from(detections_message(found, NAMES, Header()), NAMES)
    np.testing.assert_allclose(back.boxes, found.boxes)
    np.testing.assert_allclose(back.scores, found.scores)
    np.testing.assert_array_equal(back.classes, found.classes)
    assert detections_from(answer(0), NAMES).boxes.shape == (0, 4)


# The table


class Terminal(io.StringIO):
    def isatty(self):
        return True


def screen(text):
    """Lines on a terminal after a text with `move up` and `erase below`."""
    lines, row = [""], 0
    for piece in re.split(r"(\x1b\[\d*[AJ]|\n)", text):
        if piece == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif piece.startswith("\x1b") and piece.endswith("A"):
            row -= int(piece[2:-1])
        elif piece == "\x1b[J":
            lines[row:] = [""]
        else:
            lines[row] += piece
    return lines


def test_a_terminal_sees_the_newest_table_only():
    stream = Terminal()
    live = LiveTable(stream)
    live.show(lambda: {"frames": "sent 1", "rate": "-"}, 10.0)
    live.show(lambda: {"frames": "sent 2", "rate": "-"}, 10.1)  # too soon
    assert screen(stream.getvalue()) == ["frames   sent 1", "rate     -", ""]
    live.show(lambda: {"frames": "sent 3", "rate": "9 Hz"}, 10.3)
    assert screen(stream.getvalue()) == ["frames   sent 3", "rate     9 Hz", ""]
    live.clear()
    assert screen(stream.getvalue()) == [""]


def test_no_line_of_the_table_is_wider_than_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    LiveTable(stream).show(lambda: {"objects": "car 1   " * 9}, 10.0)
    assert max(map(len, screen(stream.getvalue()))) == 19


def test_elsewhere_a_line_comes_each_second():
    stream = io.StringIO()
    live = LiveTable(stream)
    rows = {"frames": "sent 1", "rate": "5 Hz", "stamp to publish": "p50 9 ms", "objects": "car 1"}
    for now in (10.0, 10.5, 11.1):
        live.show(lambda: rows, now)
    assert stream.getvalue() == "sent 1   5 Hz   p50 9 ms\n" * 2


def test_the_names_of_the_table_make_a_column():
    assert table({"rate": "5 Hz", "frames": "1"}) == ["rate     5 Hz", "frames   1"]


# The pictures


def frames_of(path):
    video = cv2.VideoCapture(str(path))
    found = []
    while True:
        ok, picture = video.read()
        if not ok:
            return found, video.get(cv2.CAP_PROP_FPS)
        found.append(picture)


def test_the_video_has_the_frames_in_order_of_their_stamps_with_boxes(tmp_path):
    drive = Drive()
    for stamp, level in ((3, 150), (1, 50), (2, 100)):
        drive.add_image(image(stamp, level=level), 0.0)
    drive.add_answer(answer(2, 1), 3, 0.0)
    written, video, still = write_pictures(monitor(drive), tmp_path, 15.0, no_check)
    pictures, rate = frames_of(video)
    assert (written, len(pictures), rate) == (3, 3, 15.0)
    for picture, level in zip(pictures, (50, 100, 150), strict=True):
        assert picture.shape == (48, 64, 3)
        assert abs(np.median(picture) - level) < 8
    # The still is the frame with most objects, the only one with a box: 8, 16 to 40, 40.
    drawn = cv2.imread(str(still)).astype(int)
    assert np.ptp(drawn[28, 24]) < 8 and abs(drawn[28, 24] - 100).max() < 8
    assert np.ptp(drawn[40, 8]) > 60 and np.ptp(drawn[40, 40]) > 60


def test_pictures_of_another_size_are_scaled_and_damaged_ones_left_out(tmp_path):
    drive = Drive()
    drive.add_image(image(1), 0.0)
    drive.add_image(image(2, size=(100, 30)), 0.0)
    broken = image(3)
    broken.data = bytes(broken.data)[:100]
    drive.add_image(broken, 0.0)
    written, video, _ = write_pictures(monitor(drive), tmp_path, 15.0, no_check)
    assert written == 2
    assert [picture.shape for picture in frames_of(video)[0]] == [(48, 64, 3)] * 2


def test_pictures_are_kept_for_a_minute_of_video_only(monkeypatch):
    monkeypatch.setattr("mbnet_perception.nodes.demo.VIDEO_FRAMES", 2)
    drive = Drive()
    for stamp in (1, 2, 3):
        drive.add_image(image(stamp), 0.0)
    assert [frame.image is None for frame in drive.frames.values()] == [False, False, True]
    assert drive.frames[3] == Frame(0.0)


# The whole


def test_a_signal_is_raised_where_it_is_asked_for():
    with pytest.raises(KeyboardInterrupt), interruption() as check:
        check()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)  # nothing is raised here
        check()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@contextmanager
def demo(bag, output, seconds):
    """The demo as a process of its own, ended when the block is left.

    At 5 Hz, which a machine with other things to do can hold.
    """
    code = (
        "import sys; from pathlib import Path; from mbnet_perception.nodes.demo import run_demo; "
        "sys.exit(run_demo(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), 5.0))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(bag), str(output), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def children(process):
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def first_line(process, pattern):
    """Read what the demo prints up to a line that matches."""
    for line in process.stdout:
        if re.search(pattern, line):
            return line
    raise AssertionError(f"no line matches {pattern!r}: {process.stderr.read()}")


def test_the_sample_drive_through_the_live_detector(tmp_path):
    with demo(SAMPLE_DRIVE, tmp_path / "out", 4) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    sent, answered, lost = map(
        int, re.findall(r"^frames +sent (\d+)   answered (\d+)   lost (\d+)$", out, re.M)[-1]
    )
    # Not one picture has escaped the monitor: the replay's own count.
    log = (tmp_path / "out" / "replay.log").read_text()
    assert f"replayed {sent} images" in log
    assert 18 <= sent <= 23
    assert sent == answered + lost
    assert answered >= 0.8 * sent
    p50, p90, p99 = map(
        float, re.findall(r"p50 ([\d.]+) ms   p90 ([\d.]+) ms   p99 ([\d.]+) ms$", out, re.M)[-1]
    )
    assert 0.5 < p50 <= p90 <= p99 < 2000
    video, still = tmp_path / "out" / "demo.mp4", tmp_path / "out" / "demo.png"
    assert out.splitlines()[-1] == f"video of {sent} frames: {video}   still: {still}"
    pictures, rate = frames_of(video)
    assert (len(pictures), rate, pictures[0].shape) == (sent, 5.0, (480, 640, 3))
    assert cv2.imread(str(still)).shape == (480, 640, 3)


def test_ctrl_c_ends_everything_without_a_traceback(tmp_path):
    with demo(SAMPLE_DRIVE, tmp_path, 60) as process:
        first_line(process, r"^sent [1-9]")
        nodes = children(process)
        assert len(nodes) == 2
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == "interrupted"
    assert not any("mbnet_perception" in command_line(pid) for pid in nodes)


@pytest.mark.parametrize("name", ["detector", "replay"])
def test_a_node_that_dies_ends_the_demo_as_a_failure(name, tmp_path):
    with demo(SAMPLE_DRIVE, tmp_path, 60) as process:
        first_line(process, r"^sent [1-9]")
        nodes = children(process)
        os.kill(next(p for p in nodes if f"nodes.{name}" in command_line(p)), signal.SIGKILL)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"error: {name} ended with status -9" in err
    assert not any("mbnet_perception" in command_line(pid) for pid in nodes)


def test_a_bag_that_is_not_there_is_named(tmp_path):
    with demo(tmp_path / "nowhere", tmp_path, 4) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("error: ") and "nowhere" in err and "Traceback" not in err

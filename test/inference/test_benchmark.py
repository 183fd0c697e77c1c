import json
import os
from pathlib import Path

import numpy as np
import pytest

from mbnet_perception.inference import benchmark
from mbnet_perception.inference.benchmark import (
    BareRun,
    describe_machine,
    drive_pictures,
    measure_alone,
    memory_of,
    milliseconds,
)
from mbnet_perception.inference.format import ModelError
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

POINT = OperatingPoint(alpha=0.35, resolution=224)


def test_durations_are_told_in_milliseconds_by_nearest_rank():
    # Of 1 to 100 ms, 50 % stay within 50 ms.
    assert milliseconds(i / 1e3 for i in range(1, 101)) == pytest.approx(
        {"p50_ms": 50, "p90_ms": 90, "p99_ms": 99, "mean_ms": 50.5, "max_ms": 100, "count": 100}
    )
    with pytest.raises(ValueError, match="no values"):
        milliseconds([])


def test_the_network_runs_at_the_size_that_a_camera_picture_has_there(monkeypatch):
    shapes = []

    class Session:
        def run(self, names, feed):
            shapes.append(feed["image"].shape)

    monkeypatch.setattr(benchmark, "make_session", lambda model, size, *_: Session())
    BareRun(ModelLibrary(), POINT, 1)()
    assert set(shapes) == {(1, 168, 224, 3)}


def test_pictures_are_those_of_a_usual_camera_and_differ():
    pictures = drive_pictures()
    assert {picture.shape for picture in pictures} == {(480, 640, 3)}
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


def test_measuring_alone_gives_figures_that_fit_together():
    figures = json.loads(json.dumps(measure_alone(ModelLibrary(), POINT, 1, 0.1)))
    for name in ("session_run", "detect"):
        row = figures[name]
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"] <= row["max_ms"]
        # A mean is between the least, which is above 0, and the most.
        assert figures[f"{name}_rate_hz"] >= 1e3 / row["max_ms"]
    assert set(figures["stages_p50_ms"]) == {"preprocess", "inference", "postprocess"}


def test_a_model_that_is_not_there_is_refused():
    with pytest.raises(ModelError, match=r"no model mobilenet_v2 alpha 0.1"):
        measure_alone(ModelLibrary(), OperatingPoint(alpha=0.1), 1, 0.1)


@pytest.mark.parametrize(
    ("files", "name"),
    [
        pytest.param({"proc/cpuinfo": "model name\t: Fast: 9\nflags\t: a\n"}, "Fast: 9", id="x86"),
        pytest.param(
            {"proc/device-tree/model": "Raspberry Pi 4\0", "proc/cpuinfo": "Model: Pi\n"},
            "Raspberry Pi 4",
            id="board",
        ),
        pytest.param({"proc/cpuinfo": "processor: 0\n"}, "arch", id="neither"),
        pytest.param({}, "arch", id="nothing"),
    ],
)
def test_the_machine_has_a_name(tmp_path, monkeypatch, files, name):
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    monkeypatch.setattr(benchmark, "Path", lambda path: tmp_path / path.lstrip("/"))
    monkeypatch.setattr(benchmark.platform, "machine", lambda: "arch")
    assert describe_machine()["machine"] == name


def test_cores_and_versions_are_told():
    described = describe_machine()
    assert described["cores"] == os.cpu_count()
    assert {"python", "onnxruntime", "opencv", "numpy"} == set(described["versions"])


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files in memory")
def test_memory_of_a_process_has_files_in_memory_in_it():
    size = 64 << 20  # a good deal more than anything else takes meanwhile
    before = memory_of()
    with os.fdopen(os.memfd_create("large"), "wb") as stream:
        for _ in range(64):
            stream.write(bytes(size // 64))
        stream.flush()
        assert 0.9 < (memory_of(os.getpid()) - before) / size < 1.1
    assert abs(memory_of() - before) / size < 0.1


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_of_a_process_has_what_is_resident_in_it():
    size = 64 << 20
    before = memory_of()
    content = np.ones(size, np.uint8)
    assert 0.9 < (memory_of() - before) / content.nbytes < 1.1

import itertools

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mbnet_perception.core.detections import Detections
from mbnet_perception.inference import ladder
from mbnet_perception.inference.format import ModelError
from mbnet_perception.inference.ladder import (
    LadderRung,
    frontier,
    measure_ladder,
    read_ladder,
    time_detector,
    write_ladder,
)
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint, add_model

BOX, SCORE = [(0, 0, 1, 1)], [(1, 0, 0)]
SMALL = OperatingPoint(alpha=0.35, resolution=64)
LARGE = OperatingPoint(alpha=0.5, resolution=96)


def rung(seconds, ap50=None, alpha=0.5, resolution=64, precision="fp32"):
    point = OperatingPoint(alpha=alpha, resolution=resolution, precision=precision)
    return LadderRung(point, seconds, ap50)


@pytest.fixture
def add(tmp_path, make_model, make_metadata):
    """Adds a model to the folder of `library`."""

    def add(alpha, ap50=None, **metadata):
        described = make_metadata(alpha=alpha, **metadata)
        scores = [[1] + [0] * (len(described.classes) - 1)]
        measured = {"accuracy": {size: {"ap50": a} for size, a in (ap50 or {}).items()}}
        add_model(tmp_path, make_model(BOX, scores, described.as_props()), described, measured)

    return add


@pytest.fixture
def library(tmp_path, add):
    add(0.35, {64: 0.1, 96: 0.2})
    add(0.5, {64: 0.15, 96: 0.3})
    return ModelLibrary(tmp_path)


@pytest.fixture
def seconds(monkeypatch):
    """What each operating point takes, by alpha (of the file's name) and resolution."""
    table = {}

    def look_up(detector, stop):
        return table[detector.metadata.alpha, detector.resolution]

    monkeypatch.setattr(ladder, "time_detector", look_up)
    return table


def never():
    return False


def test_what_is_slower_and_not_more_accurate_is_left_out():
    best, slow, slower = rung(0.01, 0.3), rung(0.02, 0.3), rung(0.03, 0.2)
    fast, accurate = rung(0.005, 0.1), rung(0.04, 0.4)
    shuffled = (slower, accurate, best, slow, fast)
    assert frontier(shuffled) == (fast, best, accurate)


def test_of_two_that_take_the_same_time_the_more_accurate_stays():
    worse, better = rung(0.01, 0.1, alpha=0.35), rung(0.01, 0.2)
    assert frontier((worse, better)) == frontier((better, worse)) == (better,)


@pytest.mark.parametrize("known", [None, 0.9])
def test_where_an_accuracy_is_unknown_more_multiplications_stand_for_more(known):
    small = rung(0.010, known, alpha=0.35, resolution=320)
    wide = rung(0.020, alpha=0.5, resolution=320)
    shrunk = rung(0.015, alpha=0.5, resolution=64)  # fewer than the small one has, but slower
    assert frontier((wide, shrunk, small)) == (small, wide)


def test_int8_counts_as_a_little_less_accurate_where_the_accuracy_is_unknown():
    exact, rough = rung(0.02), rung(0.01, precision="int8")
    assert frontier((exact, rough)) == (rough, exact)
    slow = rung(0.03, precision="int8")
    assert frontier((exact, slow)) == (exact,)


@given(st.lists(st.builds(rung, st.sampled_from((1.0, 2.0, 3.0)), st.sampled_from((0.1, 0.2)))))
def test_the_frontier_rises_in_both_and_each_other_is_beaten_by_one_of_it(rungs):
    kept = frontier(rungs)
    assert set(kept) <= set(rungs)
    for lower, higher in itertools.pairwise(kept):
        assert lower.seconds < higher.seconds
        assert lower.ap50 < higher.ap50
    for one in rungs:
        assert any(k.seconds <= one.seconds and k.ap50 >= one.ap50 for k in kept)


def test_a_ladder_is_measured_of_all_models_with_their_accuracy(library, seconds):
    seconds.update({(0.35, 64): 0.001, (0.35, 96): 0.003, (0.5, 64): 0.002, (0.5, 96): 0.004})
    assert measure_ladder(library, LARGE, 1, never) == (
        LadderRung(OperatingPoint(alpha=0.35, resolution=64), 0.001, 0.1),
        LadderRung(OperatingPoint(alpha=0.5, resolution=64), 0.002, 0.15),
        LadderRung(OperatingPoint(alpha=0.35, resolution=96), 0.003, 0.2),
        LadderRung(OperatingPoint(alpha=0.5, resolution=96), 0.004, 0.3),
    )


def test_models_of_other_classes_than_the_one_that_runs_are_no_rungs(
    tmp_path, add, library, seconds
):
    add(0.25, classes=("red", "blue"), ap50={64: 0.9, 96: 0.9})
    seconds.update(dict.fromkeys(itertools.product((0.25, 0.35, 0.5), (64, 96)), 0.001))
    library = ModelLibrary(tmp_path)
    assert [r.point for r in measure_ladder(library, LARGE, 1, never)] == [LARGE]
    other = OperatingPoint(alpha=0.25, resolution=64)
    assert [r.point.alpha for r in measure_ladder(library, other, 1, never)] == [0.25]


def test_a_model_that_cannot_be_used_is_left_out_with_a_warning(library, seconds, caplog):
    seconds.update({(0.5, 64): 0.001, (0.5, 96): 0.002})
    file = library.folder / library.find(SMALL).file
    file.unlink()
    points = [r.point for r in measure_ladder(library, LARGE, 1, never)]
    assert [(p.alpha, p.resolution) for p in points] == [(0.5, 64), (0.5, 96)]
    assert f"left out of the ladder: model {file}: cannot be read" in caplog.text
    with pytest.raises(ModelError, match="cannot be read"):
        measure_ladder(library, SMALL, 1, never)  # the one that runs


@pytest.mark.parametrize("measured", [1, 4])
def test_measuring_ends_without_a_result_when_it_is_told_to(library, seconds, measured):
    seconds.update(dict.fromkeys(itertools.product((0.35, 0.5), (64, 96)), 0.001))
    answers = iter([False] * measured + [True])
    assert measure_ladder(library, LARGE, 1, lambda: next(answers)) == ()


class Stopwatch:
    """A detector and a clock: each picture takes as long as the next of these."""

    def __init__(self, durations):
        self.durations = itertools.cycle(durations)
        self.now, self.pictures = 0.0, []

    def perf_counter(self):
        return self.now

    def detect(self, picture, selection):
        self.now += next(self.durations)
        self.pictures.append((picture.height, picture.width))
        return Detections(None, [], None), None


@pytest.mark.parametrize(
    ("durations", "pictures"),
    [
        pytest.param([0.01], 30, id="until they have taken 0.3 s"),
        pytest.param([0.5], 10, id="until there are ten"),
    ],
)
def test_a_detector_is_timed_on_enough_pictures(monkeypatch, durations, pictures):
    watch = Stopwatch(durations)
    monkeypatch.setattr(ladder.time, "perf_counter", watch.perf_counter)
    assert time_detector(watch) == pytest.approx(durations[0])
    # The first one warms up.
    assert watch.pictures == [(480, 640)] * (1 + pictures)


def test_disturbed_pictures_do_not_count_as_long_as_a_quarter_is_undisturbed(monkeypatch):
    watch = Stopwatch([0.05, 0.9, 0.7])
    monkeypatch.setattr(ladder.time, "perf_counter", watch.perf_counter)
    assert time_detector(watch) == pytest.approx(0.05)


def test_timing_a_real_detector_takes_some_time(library):
    rungs = measure_ladder(library, LARGE, 1, never)
    assert 0 < rungs[0].seconds <= rungs[-1].seconds < 10


def test_a_written_ladder_reads_the_same(tmp_path, library):
    rungs = (
        LadderRung(SMALL, 0.1 / 3, 0.1),
        LadderRung(LARGE, 0.2 / 3, None),
    )
    write_ladder(tmp_path / "ladder.yaml", rungs)
    assert read_ladder(tmp_path / "ladder.yaml", library) == rungs


ROW = {
    "backbone": "mobilenet_v2",
    "alpha": 0.35,
    "resolution": 64,
    "precision": "fp32",
    "seconds": 0.01,
}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("rungs: [", "expected YAML", id="not YAML"),
        pytest.param("[]", "expected ladder_version and a list of rungs", id="a list"),
        pytest.param("", "expected ladder_version", id="empty"),
        pytest.param({"ladder_version": 2}, "has version 2, this package reads 1", id="newer"),
        pytest.param({"ladder_version": 1}, "KeyError: 'rungs'", id="no rungs"),
        pytest.param(
            {"ladder_version": 1, "rungs": []}, r"seconds rise from above 0, got \[\]", id="none"
        ),
        pytest.param([ROW | {"seconds": 0}], r"from above 0, got \[0.0\]", id="no time"),
        pytest.param([ROW | {"seconds": "soon"}], "could not convert", id="no number"),
        pytest.param([ROW | {"seconds": float("inf")}], r"got \[inf\]", id="for ever"),
        pytest.param([ROW | {"seconds": float("nan")}], r"got \[nan\]", id="not a number"),
        pytest.param([ROW, ROW], r"got \[0.01, 0.01\]", id="not rising"),
        pytest.param([ROW | {"ap50": "good"}], "could not convert", id="accuracy"),
        pytest.param([{"alpha": 0.35}], "KeyError: 'backbone'", id="missing"),
        pytest.param(["fast"], "expected ladder_version", id="a word"),
        pytest.param(
            [ROW | {"resolution": 128}],
            "resolution 128 is not available for mobilenet_v2 alpha 0.35 fp32; there is 64, 96",
            id="not there",
        ),
    ],
)
def test_a_file_that_is_no_ladder_is_refused(tmp_path, library, content, message):
    path = tmp_path / "ladder.yaml"
    if isinstance(content, list):
        content = {"ladder_version": 1, "rungs": content}
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    with pytest.raises(ModelError, match=message) as caught:
        read_ladder(path, library)
    assert f"ladder {path}: " in str(caught.value)


def test_a_missing_ladder_is_refused_with_what_makes_one(tmp_path, library):
    with pytest.raises(ModelError, match="No such file or directory; mbnet benchmark --ladder"):
        read_ladder(tmp_path / "ladder.yaml", library)

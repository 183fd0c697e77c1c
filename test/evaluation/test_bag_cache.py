import json
from dataclasses import replace

import numpy as np
import pytest

from mbnet_perception.core import files
from mbnet_perception.evaluation import bag_cache
from mbnet_perception.evaluation.bag_cache import (
    CHUNK,
    BagCache,
    CacheError,
    CachePlan,
    Chunk,
    PlannedBag,
    PlannedPoint,
    chunks_of,
    merge,
)
from mbnet_perception.evaluation.bag_results import BagFacts, FrameDetections
from mbnet_perception.evaluation.bag_truth import truth_from_file
from mbnet_perception.evaluation.robustness import CLEAR, Condition
from mbnet_perception.inference.models import OperatingPoint

RAIN = Condition("rain", 3)
POINT, OTHER = OperatingPoint(alpha=0.5), OperatingPoint(alpha=0.35)
DRIVE = PlannedBag("drive", "bags/drive", "f" * 32, "/camera")
PLAN = CachePlan(
    bags=(DRIVE,),
    points=(PlannedPoint(POINT, "a" * 64, ("car",), 0.3), PlannedPoint(OTHER, "b" * 64, (), None)),
    conditions=(CLEAR, RAIN),
    seed=0,
    every=1,
    truth="",
)
FACTS = BagFacts("drive", "bags/drive", "f" * 32, "/camera", CHUNK + 2, 1, "bad", 9.5, "", 0)


def part_of(number, frames=CHUNK, first=0):
    """A chunk in which frame i has i % 3 boxes, whose scores are the frame's number / 1000."""
    numbers = np.arange(first, first + frames)
    counts = (numbers % 3).astype(np.int32)
    owners = np.repeat(numbers, counts)
    found = FrameDetections(
        stamps=numbers * 10,
        sizes=np.tile(np.array([48, 64], np.int32), (frames, 1)),
        seconds=np.full(frames, 0.01, np.float32),
        counts=counts,
        boxes=np.tile(owners[:, None].astype(np.float32), (1, 4)),
        scores=(owners / 1000).astype(np.float32),
        classes=owners % 5,
    )
    return Chunk(found, numbers * 2, number, "bad" if number else "", "a board")


FIRST, LAST = part_of(0), part_of(1, 2, CHUNK)


@pytest.fixture
def cache(tmp_path):
    return BagCache(tmp_path / "cache", PLAN)


def fill(cache, runs=None):
    """Keep everything, or what the runs ask for."""
    cache.keep_plan()
    cache.keep_facts(FACTS)
    cache.keep_truth(DRIVE, None)
    every = [(p.point, c) for p in cache.plan.points for c in cache.plan.conditions]
    for point, condition in every if runs is None else runs:
        cache.keep_chunk(DRIVE, point, condition, 0, FIRST)
        cache.keep_chunk(DRIVE, point, condition, 1, LAST)
    return cache


def test_parts_make_a_run(cache):
    fill(cache)
    assert chunks_of(FACTS) == 2
    run = cache.run(FACTS, POINT, RAIN)
    assert run.stamps.tolist() == [10 * i for i in range(CHUNK + 2)]
    owners = [i for i in range(CHUNK + 2) for _ in range(i % 3)]
    np.testing.assert_array_equal(run.boxes, np.tile(np.array(owners)[:, None], (1, 4)))
    assert run.classes.tolist() == [i % 5 for i in owners]
    frames = run.detections()
    assert [len(each) for each in frames] == [i % 3 for i in range(CHUNK + 2)]
    assert frames[5].scores.tolist() == pytest.approx([0.005, 0.005])
    for name, value in vars(FIRST.found).items():
        assert vars(run)[name].dtype == value.dtype


def test_a_bag_of_damaged_pictures_has_a_run_of_none(cache):
    empty = replace(part_of(0, frames=0), failed=3, first_failure="bad")
    facts = replace(FACTS, frames=0, failed=3)
    cache.keep_chunk(DRIVE, POINT, CLEAR, 0, empty)
    run = cache.run(facts, POINT, CLEAR)
    assert len(run) == 0
    assert run.detections() == []
    assert run.boxes.shape == (0, 4)


def test_a_frames_place_in_the_bag(cache):
    fill(cache)
    assert cache.place(FACTS, POINT, 3) == 6
    assert cache.place(FACTS, POINT, CHUNK + 1) == 2 * (CHUNK + 1)
    with pytest.raises(IndexError, match=f"has {CHUNK + 2} frames, got number {CHUNK + 2}"):
        cache.place(FACTS, POINT, CHUNK + 2)


def test_facts_are_those_of_the_bag_whatever_it_is_called_now(cache):
    assert cache.facts(DRIVE) is None
    cache.keep_facts(FACTS)
    renamed = replace(DRIVE, name="monday", path="/mnt/monday")
    assert cache.facts(renamed) == replace(FACTS, name="monday", path="/mnt/monday")
    assert cache.facts(replace(DRIVE, fingerprint="e" * 32)) is None
    assert cache.facts(replace(DRIVE, topic="/rear")) is None


def test_ground_truth_comes_back(cache, tmp_path):
    labels = tmp_path / "labels.json"
    images = [{"id": 1, "file_name": "1.jpg", "stamp": 7, "width": 64, "height": 48}]
    boxes = [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 30, 40]}]
    names = [{"id": 2, "name": "car"}]
    content = {"images": images, "annotations": boxes, "categories": names}
    labels.write_text(json.dumps(content))
    with pytest.raises(CacheError, match="evaluate the bag again"):
        cache.truth(DRIVE)
    assert not cache.has_truth(DRIVE)
    cache.keep_truth(DRIVE, truth_from_file(labels))
    kept = cache.truth(DRIVE)
    assert kept.classes == ("car",)
    assert kept.picture(7, 48, 64).boxes.tolist() == [[1, 2, 31, 42]]
    cache.keep_truth(DRIVE, None)
    assert cache.has_truth(DRIVE)
    assert cache.truth(DRIVE) is None


@pytest.mark.parametrize(
    ("change", "clear", "rain"),
    [
        pytest.param({"seed": 1}, True, False, id="seed is weather's"),
        pytest.param({"every": 2}, False, False, id="every"),
        pytest.param({"truth": "none"}, True, True, id="truth is not a run's"),
        pytest.param({"conditions": (CLEAR,)}, True, True, id="conditions"),
        pytest.param(
            {"points": (replace(PLAN.points[0], sha256="c" * 64),)}, False, False, id="model"
        ),
    ],
)
def test_results_are_used_for_what_they_are_of(cache, change, clear, rain):
    fill(cache)
    other = BagCache(cache.folder, replace(PLAN, **change))
    assert (other.chunk(DRIVE, POINT, CLEAR, 0) is not None) == clear
    assert (other.chunk(DRIVE, POINT, RAIN, 0) is not None) == rain


def test_severities_and_resolutions_are_told_apart(cache):
    near = OperatingPoint(alpha=0.5, resolution=224)
    points = (*PLAN.points, PlannedPoint(near, "a" * 64, ("car",), None))
    cache = BagCache(cache.folder, replace(PLAN, points=points))
    cache.keep_chunk(DRIVE, POINT, RAIN, 0, FIRST)
    assert cache.chunk(DRIVE, near, RAIN, 0) is None
    assert cache.chunk(DRIVE, POINT, Condition("rain", 4), 0) is None
    assert cache.chunk(DRIVE, POINT, CLEAR, 0) is None


def test_a_point_that_was_not_asked_for_is_named(cache):
    fill(cache)
    with pytest.raises(ValueError, match=r"alpha 1 fp32 at 320 was not evaluated; there is .*0.35"):
        cache.run(FACTS, OperatingPoint(alpha=1.0), CLEAR)


class _Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"scores": np.zeros(3, np.float32)}, id="lengths"),
        pytest.param({"boxes": np.zeros((255, 3), np.float32)}, id="shape"),
        pytest.param({"places": np.zeros(1, np.int64)}, id="places"),
        pytest.param({"stamps": np.array([_Trap()] * CHUNK)}, id="pickle"),
    ],
)
def test_a_part_that_does_not_fit_together_is_not_used(cache, capsys, change):
    fill(cache)
    file = cache._chunk_file(DRIVE, POINT, CLEAR, 0)
    with np.load(file) as arrays:
        content = dict(arrays) | change
    np.savez(file, **content)
    assert cache.chunk(DRIVE, POINT, CLEAR, 0) is None
    assert "000000.npz is damaged and not used" in capsys.readouterr().err
    with pytest.raises(CacheError, match="evaluate the bag again"):
        cache.run(FACTS, POINT, CLEAR)


def test_a_run_with_other_frames_than_the_bag_is_refused(cache):
    fill(cache)
    cache.keep_chunk(DRIVE, POINT, CLEAR, 1, FIRST)
    with pytest.raises(CacheError, match=f"has {2 * CHUNK} frames .*, expected {CHUNK + 2}"):
        cache.run(FACTS, POINT, CLEAR)


def test_names_in_bags_are_no_paths(tmp_path):
    bag = PlannedBag("../x", "../x", "../../f", "/../../camera")
    point = PlannedPoint(POINT, "../../../a", (), None)
    cache = BagCache(tmp_path / "deep" / "cache", replace(PLAN, bags=(bag,), points=(point,)))
    cache.keep_chunk(bag, POINT, CLEAR, 0, FIRST)
    cache.keep_truth(bag, None)
    written = {file for file in tmp_path.rglob("*") if file.is_file()}
    assert len(written) == 2
    assert all(file.is_relative_to(cache.folder) for file in written)


def test_a_full_disk_is_told_and_leaves_nothing(cache, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bag_cache, "replace_file", full)
    with pytest.raises(CacheError, match="cannot be written: No space left on device"):
        cache.keep_chunk(DRIVE, POINT, CLEAR, 0, FIRST)
    monkeypatch.setattr(bag_cache, "replace_file", files.replace_file)
    assert cache.chunk(DRIVE, POINT, CLEAR, 0) is None


def test_the_plan_comes_back(cache):
    fill(cache)
    assert BagCache.open(cache.folder) == cache
    assert cache.machines() == ("a board",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "cannot be read: No such file.*mbnet evaluate-bag", id="missing"),
        pytest.param("{", "expected JSON", id="no JSON"),
        pytest.param("[]", "expected the plan of an evaluation of bags; TypeError", id="list"),
        pytest.param('{"format": 1}', "KeyError: 'bags'", id="without bags"),
        pytest.param('{"format": 9}', "has format 9, this version reads 1", id="newer"),
    ],
)
def test_a_folder_without_a_usable_plan_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "plan.json").write_text(content)
    with pytest.raises(CacheError, match=rf"plan.json: .*{message}"):
        BagCache.open(tmp_path)


def test_what_is_missing_is_told(cache):
    cache.keep_plan()
    assert cache.missing() == [
        "bag 'drive': not looked at for ground truth",
        "bag 'drive': not read to its end",
    ]
    with pytest.raises(CacheError, match="not read to their ends: drive"):
        cache.all_facts()
    fill(cache, [(POINT, CLEAR), (OTHER, CLEAR)])
    cache.keep_chunk(DRIVE, OTHER, RAIN, 1, LAST)
    assert cache.missing() == ["bag 'drive', rain 3: 3 of 4 parts"]
    fill(cache)
    assert cache.missing() == []
    assert cache.all_facts() == [FACTS]


def test_folders_are_merged_and_the_good_part_wins(tmp_path, capsys):
    one = fill(BagCache(tmp_path / "one", PLAN), [(POINT, CLEAR), (POINT, RAIN)])
    elsewhere = replace(PLAN, bags=(replace(DRIVE, name="copy", path="/mnt/copy"),))
    two = fill(BagCache(tmp_path / "two", elsewhere), [(POINT, CLEAR), (OTHER, CLEAR)])
    file = one._chunk_file(DRIVE, POINT, CLEAR, 1)
    file.write_bytes(file.read_bytes()[:99])
    joined = merge([tmp_path / "one", tmp_path / "two"], tmp_path / "joined")
    assert joined.missing() == ["bag 'drive', rain 3: 2 of 4 parts"]
    assert joined.all_facts() == [FACTS]
    assert len(joined.run(FACTS, POINT, CLEAR)) == CHUNK + 2
    assert "000001.npz is damaged" in capsys.readouterr().err
    # More may be added later, and what came from others is not changed.
    fill(BagCache(tmp_path / "three", PLAN), [(OTHER, RAIN)])
    assert merge([tmp_path / "three"], tmp_path / "joined").missing() == []
    assert two.missing() == ["bag 'copy', rain 3: 4 of 4 parts"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"seed": 5}, "seed 0 against 5", id="seed"),
        pytest.param({"every": 3}, "every 1 against 3", id="every"),
        pytest.param({"truth": "none"}, "ground truth of the bags against none", id="truth"),
        pytest.param({"conditions": (CLEAR,)}, "conditions clear, rain 3 against clear", id="c"),
        pytest.param(
            {"bags": (replace(DRIVE, fingerprint="e" * 32),)},
            f"bags /camera of {'f' * 32} against /camera of {'e' * 32}",
            id="bags",
        ),
        pytest.param(
            {"points": (replace(PLAN.points[0], sha256="c" * 64), PLAN.points[1])},
            r"operating points .*\(aaa.*against .*\(ccc.*",
            id="models",
        ),
    ],
)
def test_results_of_different_work_are_not_merged(tmp_path, change, message):
    fill(BagCache(tmp_path / "one", PLAN))
    fill(BagCache(tmp_path / "two", replace(PLAN, **change)), [])
    with pytest.raises(CacheError, match=rf"one and .*two hold results of different.*: {message}$"):
        merge([tmp_path / "one", tmp_path / "two"], tmp_path / "joined")
    assert not (tmp_path / "joined").exists()
    with pytest.raises(CacheError, match="different work"):
        merge([tmp_path / "two"], tmp_path / "one")


def test_nothing_to_merge(tmp_path):
    with pytest.raises(ValueError, match="expected folders to merge, got none"):
        merge([], tmp_path)

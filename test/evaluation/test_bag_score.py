import functools
import json
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest

from mbnet_perception.evaluation import bag_score
from mbnet_perception.evaluation.bag_cache import PlannedPoint
from mbnet_perception.evaluation.bag_results import (
    BagFacts,
    Dropouts,
    FrameDetections,
    HeightResult,
    Latency,
)
from mbnet_perception.evaluation.bag_score import as_json, describe, score
from mbnet_perception.evaluation.bag_truth import Truth
from mbnet_perception.evaluation.robustness import CLEAR, Condition
from mbnet_perception.inference.models import OperatingPoint

START = 1_750_000_000_000_000_000
HERE, THERE = (10, 10, 50, 50), (60, 60, 90, 90)  # 0.4 and 0.3 of the picture high
SMALL, LARGE = OperatingPoint(alpha=0.5), OperatingPoint(alpha=1.0)
CLASSES = ("person", "car")


def planned(point, classes, ap50=None):
    return PlannedPoint(point, "sha256", classes, ap50)


ONE = [planned(SMALL, CLASSES)]
RAIN = (CLEAR, Condition("rain", 1), Condition("rain", 3))
HALF = 51 / 101  # AP where recall ends at a half, with precision 1: recalls 0, 0.01, ... 0.50


def bag(name, frames):
    return BagFacts(name, f"/bags/{name}", f"hash of {name}", "/camera", frames, 0, "", 2.5, "", 0)


def truth(frames, classes=("tram", "car", "person")):
    """Labels by stamp; an object is (box, class name) or (box, class name, identity)."""
    stamps = sorted(frames)
    objects = [each for stamp in stamps for each in frames[stamp]]
    names = [each[2] if len(each) > 2 else None for each in objects]
    known = sorted({name for name in names if name})
    return Truth(
        source="topic /ground_truth",
        classes=classes,
        repeated=0,
        stamps=np.array(stamps, np.int64),
        sizes=np.zeros((len(stamps), 2), np.int32),
        verified=np.ones((len(stamps), len(classes)), bool),
        exhaustive=np.ones((len(stamps), len(classes)), bool),
        starts=np.cumsum([0, *(len(frames[stamp]) for stamp in stamps)]),
        boxes=np.array([each[0] for each in objects], np.float32).reshape(-1, 4),
        labels=np.array([classes.index(each[1]) for each in objects], np.int32),
        objects=np.array([known.index(name) if name else -1 for name in names], np.int32),
        names=tuple(known),
    )


def seen(stamps, *frames, seconds=0.01):
    """Detections in each frame of 100 x 100 pixels, each (box, class name, score), best first."""
    rows = [row for frame in frames for row in frame]
    return FrameDetections(
        stamps=np.array(stamps, np.int64),
        sizes=np.full((len(stamps), 2), 100, np.int32),
        seconds=np.broadcast_to(np.float32(seconds), len(stamps)),
        counts=np.array([len(frame) for frame in frames], np.int32),
        boxes=np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4),
        scores=np.array([value for _, _, value in rows], np.float32),
        classes=np.array([CLASSES.index(name) for _, name, _ in rows], np.int64),
    )


def loader(runs):
    """Runs by name of the bag, point and condition; a condition alone is for all points."""

    def load(facts, point, condition):
        key = (facts.name, point, condition)
        return runs[key] if key in runs else runs[facts.name, condition]

    return load


# A car stands in ten pictures, four a second. The third picture has no labels.
STAMPS = [START + n * 250_000_000 for n in range(11)]
LABELS = {stamp: [(HERE, "car")] for n, stamp in enumerate(STAMPS) if n != 2}
SEEN, FAINT, NOTHING = [(HERE, "car", 0.875)], [(HERE, "car", 0.375)], []
ALARM = [(THERE, "car", 1.0)]
DRIVE = {
    ("drive", CLEAR): seen(STAMPS, SEEN, SEEN, ALARM, *[SEEN] * 8),
    # Of the labelled ones five are seen, one of them faintly; then only the last is lost.
    ("drive", RAIN[2]): seen(STAMPS, SEEN, SEEN, ALARM, SEEN, SEEN, FAINT, *[NOTHING] * 5),
    ("drive", RAIN[1]): seen(STAMPS, SEEN, SEEN, ALARM, *[SEEN] * 7, NOTHING),
}


def evaluate(runs=DRIVE, labels=LABELS, conditions=RAIN, points=None, **arguments):
    points = points or ONE
    truths = [labels and truth(labels)]
    bags = [bag("drive", len(next(iter(runs.values()))))]
    return score(bags, truths, points, conditions, loader(runs), **arguments)


@pytest.fixture(scope="module")
def result():
    return evaluate(seed=5, every=2, machine="a board")


def test_accuracy_is_of_the_labelled_frames(result):
    clear, rain1, rain3 = result.results[0]
    assert (clear.ap50, clear.ap) == pytest.approx((1, 1))
    assert rain1.ap50 == pytest.approx(91 / 101)  # nine of ten: recalls 0, 0.01, ... 0.90
    assert rain3.ap50 == pytest.approx(HALF)
    assert rain3.classes == {"car": pytest.approx((HALF, HALF))}
    assert rain3.bags == {"drive": pytest.approx(HALF)}
    assert (rain3.point, rain3.condition) == (SMALL, RAIN[2])
    assert result.rpc == (pytest.approx((91 + 51) / 2 / 101),)


def test_the_result_says_what_it_is_about(result):
    assert (result.against, result.reference) == ("ground truth", "topic /ground_truth")
    assert (result.unmatched, result.unknown_classes) == (1, ("tram",))
    assert (result.seed, result.every, result.machine) == (5, 2, "a board")
    assert (result.points, result.conditions) == ((SMALL,), RAIN)
    assert [facts.name for facts in result.bags] == ["drive"]


def test_dropouts_need_the_score_that_the_node_reports(result):
    # Four are found; the faint one and five more are not, a quarter of a second each.
    assert result.results[0][2].dropouts == Dropouts(
        objects=1,
        frames=10,
        found=4,
        never=0,
        count=1,
        mean_frames=6.0,
        longest_frames=6,
        mean_seconds=1.5,
        longest_seconds=1.5,
        # The frame before the one without labels stands for half a second.
        flicker=pytest.approx(1 / 2.75),
    )


def test_the_timeline_is_by_second(result):
    rain3 = result.results[0][2].timeline["drive"]
    assert rain3.tolist() == [1, pytest.approx(1 / 4), 0]  # frames 0, 1, 3; 4 to 7; 8 to 10


def test_seconds_without_objects_are_not_known():
    labels = {STAMPS[0]: LABELS[STAMPS[0]], STAMPS[5]: [], STAMPS[9]: LABELS[STAMPS[9]]}
    timeline = evaluate(labels=labels).results[0][0].timeline["drive"]
    np.testing.assert_array_equal(timeline, [1, np.nan, 1])
    timeline = evaluate(labels=dict([*LABELS.items()][:2])).results[0][0].timeline["drive"]
    np.testing.assert_array_equal(timeline, [1, np.nan, np.nan])


def test_moments_are_lost_in_weather_and_found_in_clear(result):
    # The last frame is lost at both severities. Of the frames 5 to 9, all alike, the first comes
    # first, and 6 to 8 are within a second of it, 7 and on within a second of the last.
    first, second = result.moments
    assert (first.number, first.stamp, first.condition) == (10, STAMPS[10], RAIN[1])
    assert (second.number, second.stamp, second.condition) == (5, STAMPS[5], RAIN[2])
    for moment in (first, second):
        assert (moment.bag, moment.point) == ("drive", SMALL)
        assert (moment.missed, moment.found_clear, moment.names) == ((0,), 1, ("car",))
        assert moment.boxes.tolist() == [list(HERE)]


def test_large_losses_are_the_worst_and_what_clear_weather_hides_is_none():
    small, other, large = (60, 60, 80, 80), (0, 80, 20, 100), HERE  # 400, 400 and 1600 pixels
    labels = {stamp: [(small, "car"), (other, "car"), (large, "person")] for stamp in STAMPS[::5]}
    cars, person = [(small, "car", 0.5), (other, "car", 0.5)], [(large, "person", 0.5)]
    runs = {
        ("drive", CLEAR): seen(STAMPS, *[[*cars, *person]] * 10, cars),
        ("drive", RAIN[1]): seen(STAMPS, person, *[cars] * 9, cars[:1]),
    }
    moments = evaluate(runs, labels, RAIN[:2]).moments
    assert [(each.number, each.missed, each.found_clear) for each in moments] == [
        (5, (2,), 3),
        (0, (0, 1), 3),
        (10, (1,), 2),
    ]


def test_a_moment_shows_the_point_that_loses_most():
    runs = {
        ("drive", CLEAR): DRIVE["drive", CLEAR],
        ("drive", SMALL, RAIN[1]): DRIVE["drive", CLEAR],
        ("drive", LARGE, RAIN[1]): DRIVE["drive", RAIN[1]],
        ("drive", RAIN[2]): DRIVE["drive", RAIN[2]],
    }
    points = [planned(SMALL, CLASSES), planned(LARGE, CLASSES)]
    first, second = evaluate(runs, points=points).moments
    assert (first.number, first.condition, first.point) == (10, RAIN[1], LARGE)
    assert (second.number, second.condition, second.point) == (5, RAIN[2], SMALL)


def test_at_most_three_moments_for_each_name():
    stamps = [START + n * 10**9 for n in range(5)]
    labels = {stamp: [(HERE, "car")] for stamp in stamps}
    runs = {("drive", CLEAR): seen(stamps, *[SEEN] * 5)}
    conditions = (CLEAR, Condition("fog", 2), Condition("rain", 1), Condition("rain", 3))
    for condition in conditions[1:]:
        runs["drive", condition] = seen(stamps, *[NOTHING] * 5)
    moments = evaluate(runs, labels, conditions).moments
    # Lost at two severities is worse than at one.
    assert [each.condition for each in moments] == [*[conditions[2]] * 3, *[conditions[1]] * 3]
    assert [each.number for each in moments] == [0, 1, 2, 0, 1, 2]


def test_clear_weather_alone_has_neither_rpc_nor_moments():
    result = evaluate(conditions=RAIN[:1])
    assert (result.rpc, result.moments) == ((None,), ())


def test_where_nothing_is_found_in_clear_weather_there_is_no_rpc():
    runs = {("drive", each): seen(STAMPS, *[NOTHING] * 11) for each in RAIN}
    result = evaluate(runs)
    assert (result.results[0][0].ap50, result.rpc, result.moments) == (0, (None,), ())


def test_latency_is_of_clear_frames_in_ms():
    seconds = np.array([*range(10), 100]) / 1000  # of eleven the sixth and the tenth
    runs = DRIVE | {("drive", CLEAR): replace(DRIVE["drive", CLEAR], seconds=seconds)}
    assert evaluate(runs).latency == (Latency(pytest.approx(5.0), pytest.approx(9.0)),)


def test_accuracy_by_height():
    low, high = (0, 0, 40, 4), (0, -20, 100, 110)  # one sticks out of the picture
    labels = {stamp: [(low, "car"), (HERE, "person"), (high, "car")] for stamp in STAMPS}
    rows = [(HERE, "person", 0.75), (high, "car", 0.75), (THERE, "car", 0.5)]
    runs = {("drive", CLEAR): seen(STAMPS, *[rows] * 11)}
    heights = evaluate(runs, labels, RAIN[:1]).results[0][0].heights
    assert heights == (
        HeightResult(0.0, 0.05, 0.0, 0.0, 11),
        HeightResult(0.05, 0.1, None, None, 0),
        HeightResult(0.1, 0.2, None, None, 0),
        HeightResult(0.2, 1.0, pytest.approx(1), pytest.approx(1), 22),
    )


# One car is found; before it comes a false alarm, which halves the precision where it counts.
@pytest.mark.parametrize(
    ("field", "classes", "expected"),
    [
        pytest.param("verified", ("tram", "car"), 0.5, id="another class was not looked for"),
        pytest.param("verified", ("car", "tram"), 1, id="it was not looked for"),
        pytest.param("exhaustive", ("tram", "car"), 0.5, id="others lack boxes"),
        pytest.param("exhaustive", ("car", "tram"), 1, id="it lacks boxes"),
    ],
)
def test_truth_says_what_was_looked_for(field, classes, expected):
    """In the second picture, for the first class."""
    labels = truth({STAMPS[0]: [(HERE, "car")], STAMPS[1]: []}, classes)
    labels = replace(labels, **{field: np.array([[True, True], [False, True]])})
    runs = {("drive", CLEAR): seen(STAMPS[:2], SEEN, ALARM)}
    result = score([bag("drive", 2)], [labels], ONE, RAIN[:1], loader(runs))
    assert result.results[0][0].ap50 == pytest.approx(expected)


def test_identities_follow_the_boxes_that_stay():
    # A tram, which no model knows, comes first in each picture. Two cars change places.
    a, b = (HERE, "car", "a"), (THERE, "car", "b")
    tram = ((0, 0, 5, 5), "tram", "t")
    swapped = [(THERE, "car", "a"), (HERE, "car", "b")]
    labels = {STAMPS[0]: [tram, a, b], STAMPS[1]: [tram, *swapped]}
    runs = {("drive", CLEAR): seen(STAMPS[:2], SEEN, SEEN)}  # what is at HERE is found
    lost = evaluate(runs, labels, RAIN[:1]).results[0][0].dropouts
    assert (lost.objects, lost.frames, lost.never, lost.count) == (2, 4, 0, 1)


def test_without_truth_the_most_accurate_point_in_clear_weather_is_it():
    # The small one sees the faint car of the large one well, and not what the large one reports.
    runs = {
        ("drive", SMALL, CLEAR): seen(STAMPS[:2], [(THERE, "car", 0.75)], SEEN),
        ("drive", LARGE, CLEAR): seen(
            STAMPS[:2], [(HERE, "car", 0.5), (THERE, "car", 0.375)], SEEN
        ),
    }
    points = [planned(SMALL, CLASSES, 0.25), planned(LARGE, CLASSES, 0.5)]
    result = evaluate(runs, None, RAIN[:1], points)
    assert (result.against, result.reference) == ("consistency", str(LARGE))
    assert (result.unmatched, result.unknown_classes) == (0, ())
    small, large = (row[0] for row in result.results)
    assert (large.ap50, large.dropouts.frames, large.dropouts.found) == (pytest.approx(1), 2, 2)
    assert (small.ap50, small.dropouts.found) == (pytest.approx(HALF), 1)


@pytest.mark.parametrize(
    ("ap50", "best"),
    [
        pytest.param((0.5, 0.25, 0.25), 0, id="the manifest decides"),
        pytest.param((0.5, 0.25, None), 2, id="unless it does not tell of all"),
        pytest.param((None, None, None), 2, id="then the largest does"),
    ],
)
def test_which_point_is_the_most_accurate(ap50, best):
    points = [SMALL, replace(LARGE, resolution=224), LARGE]
    points = [planned(*each) for each in zip(points, [CLASSES] * 3, ap50, strict=True)]
    result = evaluate(labels=None, points=points)
    assert result.reference == str(points[best].point)


def test_pictures_with_one_stamp_are_told_apart_without_truth():
    runs = {("drive", CLEAR): seen([0] * 3, SEEN, ALARM, NOTHING)}
    run = evaluate(runs, None, RAIN[:1]).results[0][0]
    assert (run.ap50, run.dropouts.frames, run.dropouts.found) == (pytest.approx(1), 2, 2)
    assert run.timeline["drive"].tolist() == [1]


def two_bags(**arguments):
    """In the second one the car is lost; the third has no pictures."""
    stamps = {"one": STAMPS[:1], "two": STAMPS[:1], "none": []}
    runs = {(name, CLEAR): seen(own, *[SEEN] * len(own)) for name, own in stamps.items()}
    runs |= {(name, RAIN[1]): own for (name, _), own in runs.items()}
    runs["two", RAIN[1]] = seen(STAMPS[:1], NOTHING)
    labels = [truth(LABELS), truth(LABELS, ("car",)), truth({}, ("car",))]
    bags = [bag(name, len(own)) for name, own in stamps.items()]
    load = arguments.pop("load", None) or loader(runs)
    return score(bags, labels, ONE, RAIN[:2], load, **arguments), runs, labels


def test_bags_are_scored_together_and_by_themselves():
    result, runs, labels = two_bags()
    clear, rain = result.results[0]
    assert rain.ap50 == pytest.approx(HALF)
    assert clear.bags == {"one": pytest.approx(1), "two": pytest.approx(1), "none": None}
    assert rain.bags == {"one": pytest.approx(1), "two": 0, "none": None}
    assert (rain.dropouts.objects, rain.dropouts.never) == (2, 1)
    assert {name: values.tolist() for name, values in rain.timeline.items()} == {
        "one": [1],
        "two": [0],
        "none": [],
    }
    assert [moment.bag for moment in result.moments] == ["two"]
    lost = {("one", RAIN[1]): seen(STAMPS[:1], NOTHING)}
    result = score(result.bags, labels, ONE, RAIN[:2], loader(runs | lost))
    assert [moment.bag for moment in result.moments] == ["one", "two"]  # at the same time


def test_a_bag_without_pictures_does_no_harm_without_truth():
    runs = {("one", CLEAR): seen(STAMPS[:1], SEEN), ("none", CLEAR): seen([])}
    result = score([bag("none", 0), bag("one", 1)], [None] * 2, ONE, RAIN[:1], loader(runs))
    assert result.results[0][0].bags == {"none": None, "one": pytest.approx(1)}


def same(a, b):
    return json.dumps(as_json(a)) == json.dumps(as_json(b))


def test_chunks_make_no_difference(monkeypatch):
    # Equal scores go by picture: right ones first, so that the wrong ones cost nothing.
    right, wrong = [(HERE, "car", 0.5)], [(THERE, "car", 0.5)]
    runs = {("drive", CLEAR): seen(STAMPS, *[right] * 6, *[wrong] * 5)}
    expected = evaluate(runs, conditions=RAIN[:1])
    assert expected.results[0][0].ap50 == pytest.approx(HALF)  # five of ten, one is not labelled
    monkeypatch.setattr(bag_score, "CHUNK", 3)
    assert same(evaluate(runs, conditions=RAIN[:1]), expected)


LOADER = """
import pickle
from pathlib import Path

def load(path, facts, point, condition):
    return pickle.loads(Path(path).read_bytes())[facts.name, condition]
"""


def test_jobs_make_no_difference(tmp_path, monkeypatch):
    expected, runs, _ = two_bags()
    (tmp_path / "runs").write_bytes(pickle.dumps(runs))
    (tmp_path / "loading_for_test.py").write_text(LOADER)
    monkeypatch.syspath_prepend(tmp_path)
    import loading_for_test

    load = functools.partial(loading_for_test.load, str(tmp_path / "runs"))
    assert same(two_bags(load=load, jobs=2)[0], expected)


def test_the_arguments_stay_as_they_are():
    run = seen(STAMPS, *[SEEN] * 11)
    for field in fields(run):
        getattr(run, field.name).flags.writeable = False
    labels = truth(LABELS)
    for name, array in labels.arrays().items():
        if isinstance(getattr(labels, name), np.ndarray):
            array.flags.writeable = False
    runs = {("drive", condition): run for condition in RAIN}
    score([bag("drive", 11)], [labels], ONE, RAIN, loader(runs))


def test_json_holds_all_figures(result):
    text = json.dumps(as_json(result), allow_nan=False)
    content = json.loads(text)
    assert "synthetic" in content["note"]
    assert (content["against"], content["reference"]) == ("ground truth", "topic /ground_truth")
    assert (content["seed"], content["every"], content["machine"]) == (5, 2, "a board")
    assert (content["frames_without_truth"], content["unknown_classes"]) == (1, ["tram"])
    assert content["bags"][0]["fingerprint"] == "hash of drive"
    point = content["points"][0]
    assert (point["alpha"], point["resolution"], point["latency"]["p50_ms"]) == (
        0.5,
        320,
        pytest.approx(10),
    )
    assert point["rpc"] == pytest.approx(71 / 101)
    rain = point["conditions"][2]
    assert (rain["condition"], rain["severity"], rain["ap50"]) == ("rain", 3, pytest.approx(HALF))
    assert rain["classes"]["car"]["ap50"] == rain["bags"]["drive"] == rain["ap50"]
    assert [each["boxes"] for each in rain["heights"]] == [0, 0, 0, 10]
    assert rain["heights"][0]["ap"] is None
    assert (rain["dropouts"]["longest_seconds"], rain["timeline"]["drive"]) == (1.5, [1, 0.25, 0])
    moment = content["moments"][0]
    assert (moment["bag"], moment["number"], moment["condition"]) == (
        "drive",
        10,
        {"name": "rain", "severity": 1},
    )
    assert (moment["missed"], moment["boxes"], moment["names"]) == ([0], [list(HERE)], ["car"])


def test_json_has_null_for_what_is_not_known():
    labels = {STAMPS[0]: LABELS[STAMPS[0]], STAMPS[9]: LABELS[STAMPS[9]]}
    content = json.loads(json.dumps(as_json(evaluate(labels=labels)), allow_nan=False))
    assert content["points"][0]["conditions"][0]["timeline"]["drive"] == [1, None, 1]


def test_the_terminal_shows_the_figures(result):
    lines = describe(result)
    assert "synthetic" in lines[0]
    assert lines[1:5] == [
        "Ground truth: topic /ground_truth",
        "drive: 11 pictures, 2.5 s",
        "1 pictures without truth are left out",
        "classes that no model knows are left out: tram",
    ]
    assert f"{SMALL}: p50 10.0 ms, p90 10.0 ms" in lines
    rows = [" ".join(line.split()) for line in lines]
    assert "rain 3 0.505 0.505 1 1.50 1.50 0 of 1" in rows
    assert "rPC 0.703" in rows
    assert not any("consistency" in line for line in lines)


def test_the_terminal_says_where_it_is_no_accuracy():
    lines = describe(evaluate(labels=None))
    assert f"No ground truth: consistency with {SMALL} in clear weather, not accuracy." in lines
    assert any(line.startswith("consistency ") for line in lines)


def test_the_terminal_says_what_is_wrong_with_a_bag(result):
    facts = replace(
        result.bags[0], failed=2, first_failure="no JPEG", backwards=1, broken="ends in a chunk"
    )
    text = "\n".join(describe(replace(result, bags=(facts,))))
    assert "2 more could not be read: no JPEG" in text
    assert "stamps went back 1 times" in text
    assert "ends in a chunk" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"bags": [], "truths": []}, "at least one bag", id="no bag"),
        pytest.param(
            {"bags": [bag("a", 1), bag("a", 1)], "truths": [None, None]}, "different", id="one name"
        ),
        pytest.param(
            {"truths": []}, r"a truth or None for each; got \['drive'\] and 0", id="truths"
        ),
        pytest.param(
            {"bags": [bag("a", 1), bag("b", 1)], "truths": [truth(LABELS), None]},
            "no ground truth, but others have: b; name it",
            id="truth for some",
        ),
        pytest.param({"planned": []}, "operating points must differ", id="no point"),
        pytest.param({"planned": ONE * 2}, "operating points must differ", id="one point"),
        pytest.param(
            {"conditions": RAIN[1:]}, r"first condition must be clear.*rain 1", id="clear"
        ),
        pytest.param({"conditions": []}, "first condition must be clear", id="no condition"),
        pytest.param({"jobs": 0}, "jobs must be positive, got 0", id="jobs"),
        pytest.param(
            {"truths": [truth({STAMPS[0]: []}, ("tram", "ship"))]},
            "it has tram, ship; the models know car, person",
            id="no known class",
        ),
        pytest.param(
            {"truths": [truth({STAMPS[0]: [((0, 0, 5, 5), "tram")]})]},
            "topic /ground_truth has no box of a class that a model knows",
            id="no known box",
        ),
        pytest.param(
            {"truths": [truth({STAMPS[0] + 1: LABELS[STAMPS[0]]})]},
            f"belong together by stamp, .* is {STAMPS[0]}, the first label's {STAMPS[0] + 1}",
            id="no stamp",
        ),
        pytest.param(
            {"truths": [truth({}, ("car",))]}, "the first label's none", id="no label at all"
        ),
        pytest.param(
            {
                "truths": [None],
                "load": loader({("drive", CLEAR): seen(STAMPS[:1], FAINT)}),
                "conditions": RAIN[:1],
            },
            "sees nothing in clear weather .* name a topic or a file",
            id="nothing to be consistent with",
        ),
        pytest.param(
            {"load": loader(DRIVE | {("drive", RAIN[1]): seen(STAMPS[:1], SEEN)})},
            "bag drive: .* under rain 1 has 1 frames that are not the 11 others have",
            id="other frames",
        ),
    ],
)
def test_what_cannot_be_scored_is_said(changes, message):
    arguments = {
        "bags": [bag("drive", 11)],
        "truths": [truth(LABELS)],
        "planned": ONE,
        "conditions": RAIN,
        "load": loader(DRIVE),
    }
    with pytest.raises(ValueError, match=message):
        score(**(arguments | changes))

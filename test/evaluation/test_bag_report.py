import json
import re
from base64 import b64decode
from dataclasses import replace

import cv2
import numpy as np
import pytest

from mbnet_perception.core.detections import Detections
from mbnet_perception.evaluation.bag_report import find_frontier, write_bag_report
from mbnet_perception.evaluation.bag_results import (
    BagEvaluation,
    BagFacts,
    Dropouts,
    HeightResult,
    Latency,
    Moment,
    RunResult,
)
from mbnet_perception.evaluation.bag_score import as_json
from mbnet_perception.evaluation.robustness import Condition, list_conditions
from mbnet_perception.inference.models import OperatingPoint

SMALL, SLOW, LARGE = (
    OperatingPoint(alpha=0.35, resolution=224),
    OperatingPoint(alpha=0.5, resolution=224),
    OperatingPoint(alpha=0.5, resolution=320),
)
# Of each point: p50 and p90 in ms, then AP50 in clear weather, fog 1, fog 5, night 1, night 5.
# SLOW takes longer than SMALL, and sees less.
MEASURED = {
    SMALL: (5.0, 6.01, 0.4, 0.3, 0.2, 0.2, 0.1),
    SLOW: (7.0, 8.0, 0.3, 0.2, 0.1, 0.1, 0.0),
    LARGE: (10.0, 12.0, 0.5, 0.4, 0.3, 0.3, 0.1),
}
ALPHA = "\N{GREEK SMALL LETTER ALPHA}"
CONDITIONS = list_conditions(["fog", "night"], [], [1, 5])
GREY = np.full((480, 640, 3), 90, np.uint8)


def facts(name="drive", **changes):
    usual = BagFacts(
        name=name,
        path=f"bags/{name}",
        fingerprint="0123456789abcdef",
        topic="/camera/image_raw",
        frames=1800,
        failed=0,
        first_failure="",
        seconds=60.0,
        broken="",
        backwards=0,
    )
    return replace(usual, **changes)


def run(point, condition, ap50, bags, seconds):
    severity = condition.severity
    return RunResult(
        point=point,
        condition=condition,
        ap=ap50 / 2,
        ap50=ap50,
        classes={"car": (ap50 / 2, ap50), "<bus> & co": (0.0, 0.0)},
        heights=(HeightResult(0.0, 0.1, None, None, 0), HeightResult(0.1, 1.0, 0.1, ap50, 1234)),
        dropouts=Dropouts(
            objects=20,
            frames=400,
            found=round(400 * ap50),
            never=3,
            count=7 + severity,
            mean_frames=6.0,
            longest_frames=30,
            mean_seconds=0.2,
            longest_seconds=1.0 + severity,
            flicker=0.31,
        ),
        bags={bag.name: None if bag.name == "empty" else ap50 for bag in bags},
        timeline={bag.name: np.linspace(0, ap50, seconds) for bag in bags},
    )


def moment(name, severity, point=LARGE, bag="drive"):
    return Moment(
        bag=bag,
        number=42,
        stamp=1_700_000_012_345_678_901,
        condition=Condition(name, severity),
        point=point,
        missed=(0,),
        found_clear=2,
        boxes=np.array([[100, 100, 300, 300], [400, 300, 500, 400]], np.float32),
        names=("car", "person"),
    )


def evaluation(
    points=(SMALL, SLOW, LARGE), conditions=CONDITIONS, bags=None, seconds=60, **changes
):
    bags = bags or (facts(),)
    known = [CONDITIONS.index(each) for each in conditions]
    results = tuple(
        tuple(
            run(point, condition, MEASURED[point][2 + n], bags, seconds)
            for n, condition in zip(known, conditions, strict=True)
        )
        for point in points
    )
    rpc = [
        float(np.mean([each.ap50 for each in own[1:]])) / own[0].ap50 if own[1:] else None
        for own in results
    ]
    usual = BagEvaluation(
        against="ground truth",
        reference="topic /truth",
        bags=bags,
        points=tuple(points),
        conditions=tuple(conditions),
        results=results,
        latency=tuple(Latency(*MEASURED[point][:2]) for point in points),
        rpc=tuple(rpc),
        moments=(),
        unmatched=0,
        unknown_classes=(),
        seed=3,
        every=1,
        machine="a machine & more",
    )
    return replace(usual, **changes)


def no_pictures(_):
    return None


@pytest.fixture
def show(read_page, tmp_path):
    """Writes a report, and reads its page."""

    def write(result, pictures=no_pictures):
        return read_page(write_bag_report(tmp_path, result, pictures).read_text())

    return write


@pytest.mark.parametrize(
    ("costs", "gains", "expected"),
    [
        pytest.param([3, 1, 2], [0.3, 0.1, 0.2], [1, 2, 0], id="cheapest first"),
        pytest.param([1, 2, 3], [0.2, 0.1, 0.3], [0, 2], id="worse for more is left out"),
        pytest.param([1, 2], [0.2, 0.2], [0], id="the same for more is left out"),
        pytest.param([1, 1], [0.1, 0.2], [1], id="of the same cost the best stays"),
        pytest.param([5], [0.0], [0], id="one"),
    ],
)
def test_the_frontier_is_what_gives_more_than_all_that_costs_no_more(costs, gains, expected):
    assert find_frontier(costs, gains) == expected


def test_the_top_says_what_each_weather_costs(show):
    content = show(evaluation())
    # Of 0.5: (0.4 + 0.3 + 0.3 + 0.1) / 4 is 55 %, fog's 0.35 is 70 %, night's 0.2 is 40 %.
    top = "Weather costs 45 % of the AP50: night most, 60 %; fog least, 30 %."
    assert f"drive in synthetic weather {top}" in content.text
    assert f"▲ {ALPHA} 0.5 at 320, the best in weather of 3 operating points" in content.text
    assert "1,800 frames, 1 min 00 s. Ground truth: topic /truth." in content.text
    assert "The weather is synthetic" in content.text
    assert "fog 70 % left mean AP50 0.350 0.300 at severity 5 longest dropout 6.0 s" in content.text
    assert (
        "night 40 % left mean AP50 0.200 0.100 at severity 5 longest dropout 6.0 s" in content.text
    )
    assert "clear 0.500 AP50 50 % of sightings found longest dropout 1.0 s" in content.text


def test_one_weather_and_no_weather_are_said_plainly(show):
    content = show(evaluation(conditions=(CONDITIONS[0], CONDITIONS[3])))
    assert "Night costs 40 % of the AP50." in content.text
    assert "mean over severities" not in content.text
    content = show(evaluation(conditions=CONDITIONS[:1]))
    assert "drive in clear weather AP50 in clear weather: 0.500." in content.text
    assert "the best of 3 operating points" in content.text
    assert "synthetic" not in content.text
    assert "against severity" not in content.text
    assert "Worst moments" not in content.text


def test_what_finds_nothing_is_said_and_weather_that_helps_costs_nothing(show):
    blind = evaluation(points=[SLOW])
    results = (tuple(replace(each, ap50=0.0) for each in blind.results[0]),)
    content = show(replace(blind, results=results, rpc=(None,)))
    assert "Nothing is found, not even in clear weather." in content.text
    better = tuple(replace(each, ap50=0.3 + 0.1 * n) for n, each in enumerate(blind.results[0]))
    assert "Weather costs nothing of the AP50" in show(replace(blind, results=(better,))).text


def test_a_budget_leads_to_an_operating_point(show):
    content = show(evaluation())
    # SMALL's 6.01 ms would not fit into 6.0. What is left of its 0.4: 0.2 in the mean.
    rows = (
        f"6.1 ms ● {ALPHA} 0.35 at 224 0.400 0.200 50 12.0 ms ▲ {ALPHA} 0.5 at 320 0.500 0.275 55"
    )
    assert rows in content.text
    assert f"Never worth its time here: ■ {ALPHA} 0.5 at 224." in content.text
    assert "resizing and the network on one thread of a machine & more" in content.text
    assert "transport, waiting, decoding, picking boxes and publishing are not" in content.text


def test_consistency_is_never_called_accuracy(show):
    result = evaluation(against="consistency", reference=str(LARGE), moments=(moment("fog", 5),))
    content = show(result, lambda _: (GREY, GREY, *both(0.9), ("car", "person")))
    assert "Consistency, not accuracy:" in content.text
    assert f"held against what {LARGE} sees in clear weather" in content.text
    assert "Weather costs 45 % of the consistency" in content.text
    assert "the most consistent in weather" in content.text
    without = content.text.replace("Consistency, not accuracy", "")
    assert not re.search(r"accuracy|AP50|\bAP\b|the truth|best in weather of", without, re.I)
    assert "Consistency against latency" in content.text
    assert "Accuracy against latency" in show(evaluation()).text


def both(score):
    """Detections in clear weather and in weather: one box that no truth is near, with a score."""
    one = Detections(
        np.array([[40, 40, 80, 440]], np.float32), np.array([score], np.float32), np.zeros(1, int)
    )
    return one, one


def pictures_in(content):
    return [
        cv2.imdecode(
            np.frombuffer(b64decode(value.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR
        ).astype(int)
        for name, value in content.attributes
        if name == "src"
    ]


def test_a_moment_is_shown_in_clear_weather_and_in_weather(show):
    asked = []

    def pictures(each):
        asked.append(each)
        return GREY, GREY // 2, *both(0.9), ("car", "person")

    shown = moment("fog", 5)
    content = show(evaluation(moments=(shown,)), pictures)
    assert asked == [shown]
    clear, weather = pictures_in(content)
    assert clear.shape == weather.shape == (360, 480, 3)
    assert abs(clear[300, 200] - 90).max() < 6
    assert abs(weather[300, 200] - 45).max() < 6
    # Three quarters as large: the detection's left edge at 30, the missed box's at 75.
    for picture, grey in ((clear, 90), (weather, 45)):
        assert abs(picture[100:300, 30] - grey).max() > 40
    # The missed one is thick in weather.
    lines = [abs(clear[120:180, 73:78] - 90).sum(), abs(weather[120:180, 73:78] - 45).sum()]
    assert lines[1] > 1.3 * lines[0] > 0
    assert f"drive, frame 42, stamp 1700000012.345: {ALPHA} 0.5 at 320" in content.text
    assert "clear: finds 2 of 2 fog 5: misses 1 of 2" in content.text
    assert "night Nothing is lost." in content.text


def test_detections_that_the_node_would_not_report_are_not_shown(show):
    def unsure(_):
        return GREY, GREY, *both(0.39), ("car", "person")

    for picture in pictures_in(show(evaluation(moments=(moment("fog", 5),)), unsure)):
        assert abs(picture[40:300, 20:70] - 90).max() < 6


def test_moments_of_bags_that_are_not_at_hand_are_told(show):
    content = show(evaluation(moments=(moment("night", 1),)))
    assert "fog Nothing is lost." in content.text
    assert "night 1: misses 1 of 2. The bag was not at hand to show it." in content.text
    assert "img" not in content.tags


def test_the_page_needs_nothing_else(show, tmp_path):
    content = show(
        evaluation(moments=(moment("fog", 5),), bags=(facts(failed=1),)),
        lambda _: (GREY, GREY, *both(0.9), ("car", "person")),
    )
    assert not {"script", "link", "iframe", "object"} & set(content.tags)
    sources = [value for name, value in content.attributes if name in ("src", "srcset")]
    assert len(sources) == 2
    assert all(value.startswith("data:image/jpeg;base64,") for value in sources)
    references = [value for name, value in content.attributes if name in ("href", "xlink:href")]
    assert "#bags" in references
    assert all(value.startswith("#") for value in references)
    assert ("id", "bags") in content.attributes
    text = (tmp_path / "report.html").read_text()
    assert not re.search(r"@import|url\((?!#)", text)


def test_there_are_all_plots(show):
    content = show(evaluation())
    # Fog and night against severity; clear and weather against latency; clear, fog and night by
    # height; fog and night over time.
    assert content.tags.count("svg") == 2 + 2 + 3 + 2
    assert "Boxes, from low to high: 0, 1,234." in content.text


def test_many_bags_are_folded_and_told_apart(show):
    bags = (facts("<i>one</i>"), facts("empty"), facts("three", seconds=7200.0))
    content = show(evaluation(bags=bags))
    assert content.text.startswith("3 bags in synthetic weather")
    assert "5,400 frames, 2 h 02 min" in content.text
    assert content.tags.count("svg") == 2 + 2 + 3 + 3 * 2
    assert [name for name, _ in content.attributes].count("open") == 1
    dash = "\N{EN DASH}"
    table = f"<i>one</i> 0.500 0.350 0.200 empty {dash} {dash} {dash} three 0.500 0.350 0.200"
    assert table in content.text


def test_faults_stand_at_the_top_and_with_their_bags(show):
    bags = (
        facts("cut", broken="chunk 3 is cut short"),
        facts("<b>dirty</b>", failed=2, first_failure="JPEG <ends> early"),
        facts("jumps", backwards=4),
        facts("good"),
    )
    content = show(evaluation(bags=bags, unmatched=1234, unknown_classes=("tram & co",)))
    assert "Something was wrong with cut, <b>dirty</b>, jumps." in content.text
    assert "1,234 frames without ground truth are left out." in content.text
    assert "Classes that no model knows are left out: tram & co." in content.text
    assert "reading ended early: chunk 3 is cut short" in content.text
    assert "2 pictures unreadable, the first: JPEG <ends> early" in content.text
    assert "stamps went back 4 times" in content.text
    assert "Something was wrong" not in show(evaluation()).text


def test_dropouts_of_each_condition_are_told(show):
    content = show(evaluation(points=[LARGE]))
    # 0.1 of the sightings; 7 + 5 dropouts; 1 + 5 seconds.
    assert "night 5 10 3 of 20 12 0.20 6.00 0.31" in content.text


def test_points_of_other_files_are_told_apart(show):
    others = [LARGE, replace(LARGE, precision="int8"), replace(LARGE, backbone="mobilenet_v1")]
    one = evaluation(points=[LARGE])
    content = show(
        replace(
            one,
            points=tuple(others),
            results=one.results * 3,
            latency=one.latency * 3,
            rpc=one.rpc * 3,
        )
    )
    assert f"● mobilenet_ v2 {ALPHA} 0.5 fp32 at 320" in content.text
    assert f"■ mobilenet_ v2 {ALPHA} 0.5 int8 at 320" in content.text
    assert f"▲ mobilenet_ v1 {ALPHA} 0.5 fp32 at 320" in content.text


def test_an_hour_is_drawn_no_larger_than_minutes(show, tmp_path):
    sizes = []
    for seconds in (300, 36_000):
        show(evaluation(points=[LARGE], seconds=seconds))
        sizes.append((tmp_path / "report.html").stat().st_size)
    assert sizes[1] < 1.2 * sizes[0]


def test_long_bags_are_drawn_in_minutes_and_seconds_without_objects_are_gaps(show):
    result = evaluation(points=[LARGE], conditions=CONDITIONS[:1], seconds=1000)
    result.results[0][0].timeline["drive"][:900] = np.nan
    content = show(result)
    assert "minutes" in content.words
    assert "seconds" not in content.words
    assert {"minutes", "seconds"} & set(show(evaluation(seconds=300)).words) == {"seconds"}


def test_all_figures_and_settings_are_there(show):
    content = show(evaluation(every=2))
    assert "night 5 0.100 0.050 0.000 0.000 0.100 0.050" in content.text  # AP50 and AP of each
    assert f"AP50 of each class, mean over severities: ▲ {ALPHA} 0.5 at 320" in content.text
    assert "car 0.500 0.350 0.200 <bus> & co 0.000 0.000 0.000" in content.text
    assert f"operating points: {SMALL}; {SLOW}; {LARGE}" in content.text
    assert "seed of the weather: 3" in content.text
    assert "frames taken: 1 of 2" in content.text
    assert "bag drive: bags/drive, 0123456789abcdef" in content.text
    assert "numpy " in content.text


def test_json_holds_the_same_figures_and_versions(tmp_path):
    result = evaluation()
    path = write_bag_report(tmp_path / "new" / "report", result, no_pictures)
    assert sorted(file.name for file in path.parent.iterdir()) == ["report.html", "report.json"]
    content = json.loads((path.parent / "report.json").read_text())
    assert "numpy" in content.pop("versions")
    assert content == json.loads(json.dumps(as_json(result)))


def test_a_report_that_fails_leaves_the_old_one(tmp_path):
    path = write_bag_report(tmp_path, evaluation(), no_pictures)
    before = [path.read_bytes(), (tmp_path / "report.json").read_bytes()]

    def fail(_):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_bag_report(tmp_path, evaluation(moments=(moment("fog", 1),), seed=9), fail)
    assert [path.read_bytes(), (tmp_path / "report.json").read_bytes()] == before


def test_equal_results_give_equal_pages(tmp_path):
    pages = [write_bag_report(tmp_path, evaluation(), no_pictures).read_bytes() for _ in range(2)]
    assert pages[0] == pages[1]

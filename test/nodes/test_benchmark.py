import json

import pytest

from mbnet_perception.inference.models import ModelLibrary, OperatingPoint, add_model
from mbnet_perception.nodes import benchmark
from mbnet_perception.nodes.benchmark import (
    PROFILE_VARIABLES,
    BenchmarkError,
    camera_environment,
    describe,
    gaps,
    how_measured,
    largest_gap,
    measure_node,
    other_point,
)

MS = 1_000_000  # nanoseconds
POINT = OperatingPoint(alpha=0.35, resolution=224)


def test_gaps_are_between_neighbours_in_time():
    assert gaps([30 * MS, 10 * MS, 60 * MS]) == [0.02, 0.03]
    assert gaps([10 * MS]) == []


@pytest.mark.parametrize(
    ("begun", "ended", "expected"),
    [
        # Gaps of 10, 50, 20 and 70 ms.
        pytest.param(61, 65, 0.02, id="within a gap"),
        pytest.param(5, 65, 0.05, id="over several"),
        pytest.param(60, 70, 0.05, id="from an answer on, which ends a gap"),
        pytest.param(65, 80, 0.07, id="up to an answer, which begins one"),
        pytest.param(0, 150, 0.07, id="over all"),
    ],
)
def test_the_largest_gap_is_of_those_that_a_switch_touches(begun, ended, expected):
    published = [t * MS for t in (60, 0, 150, 10, 80)]
    assert largest_gap(published, begun * MS, ended * MS) == expected


@pytest.mark.parametrize(
    ("begun", "ended"), [pytest.param(-1, 5, id="before"), pytest.param(5, 11, id="after")]
)
def test_a_switch_without_answers_around_it_has_no_largest_gap(begun, ended):
    with pytest.raises(ValueError, match="before and after"):
        largest_gap([0, 10 * MS], begun * MS, ended * MS)


def test_a_switch_goes_to_the_next_smaller_network_or_input(tmp_path, make_metadata):
    def library(**models):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for alpha, sizes in models.values():
            add_model(folder, b"", make_metadata(alpha=alpha, resolutions=sizes), {})
        return ModelLibrary(folder)

    def other(models, alpha, resolution):
        point = other_point(models, OperatingPoint(alpha=alpha, resolution=resolution))
        return point.alpha, point.resolution

    several = library(a=(0.35, (64, 96)), b=(0.5, (64, 96)), c=(1.0, (64, 96, 128)))
    assert other(several, 1.0, 64) == (0.5, 64)
    assert other(several, 0.35, 96) == (0.5, 96)  # nothing is smaller
    assert other(several, 1.0, 128) == (1.0, 96)  # the others have no such input
    one = library(a=(0.5, (64, 96)))
    assert other(one, 0.5, 96) == (0.5, 64)
    assert other(one, 0.5, 64) == (0.5, 96)
    with pytest.raises(BenchmarkError, match=r"no operating point beside .* alpha 0.5 fp32 at 64"):
        other(library(a=(0.5, (64,))), 0.5, 64)


def test_the_camera_gets_our_profile_of_fast_dds_unless_the_user_has_one():
    environment = camera_environment({})
    assert set(environment) == set(PROFILE_VARIABLES)
    assert all(path.endswith("/config/fastdds.xml") for path in environment.values())
    assert camera_environment({PROFILE_VARIABLES[0]: "/mine.xml"}) == {}


def test_a_machine_that_is_too_small_is_named_in_the_result():
    assert "they share 2 cores" in how_measured(2)
    assert "share" not in how_measured(4)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A benchmark of the smallest model, as short as can be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "SETTLING", 0.3)
        patch.setattr(benchmark, "REST", 0.3)
        logs = tmp_path_factory.mktemp("logs")
        return measure_node(None, POINT, 1, 1.0, 0.2, logs, lambda: None)


def test_the_result_is_json_and_its_ratios_are_of_its_figures(result):
    assert json.loads(json.dumps(result)) == result
    paced, bare, overload = result["paced"], result["bare"], result["overload"]
    assert result["overhead_ratio"] == paced["stamp_to_publish"]["p50_ms"] / bare["p50_ms"]
    rate = overload["processed_rate_hz"]
    alone = result["alone"]
    assert overload["share_of_session_run_rate"] == rate / alone["session_run_rate_hz"]
    assert overload["share_of_bare_rate"] == rate / overload["bare_rate_hz"]
    assert overload["bare_rate_hz"] == 1e3 / overload["bare"]["mean_ms"]
    assert overload["camera_rate_hz"] == 3 * alone["session_run_rate_hz"]
    assert paced["camera_rate_hz"] == 0.2 * alone["detect_rate_hz"]
    largest = result["switch"]["largest_gap_ms"]
    assert result["switch"]["to_usual_p50"] == largest / paced["gaps"]["p50_ms"]
    assert result["switch"]["to_usual_max"] == largest / paced["gaps"]["max_ms"]


@pytest.mark.parametrize("part", ["paced", "overload"])
def test_the_accounts_of_the_frames_are_consistent(result, part):
    part = result[part]
    assert part["answered"] == part["processed"] > 0
    settled = sum(part[name] for name in ("processed", "superseded", "stale", "failed"))
    assert part["received"] == settled
    assert part["waiting"] == part["failed"] == part["stale"] == 0
    assert part["sent"] >= part["received"] + part["lost"]


def test_each_stage_of_the_detector_is_in_the_result(result):
    stages = result["paced"]["stages_p50_ms"]
    assert set(stages) == set(benchmark.STAGES)
    assert stages["inference"] < stages["stamp_to_publish"]


def test_switches_go_there_and_back(result):
    there, back = (f"mobilenet_v2 alpha {alpha} fp32 at 224" for alpha in ("0.5", "0.35"))
    assert [one["to"] for one in result["switch"]["switches"]] == [there, back, there, back]
    gaps_ = [one["largest_gap_ms"] for one in result["switch"]["switches"]]
    assert result["switch"]["largest_gap_ms"] == max(gaps_)


def test_the_lines_for_people_hold_the_main_figures(result):
    text = "\n".join(describe(result))
    assert f"{result['overhead_ratio']:.3f} of p50" in text
    assert f"sent {result['paced']['sent']}  answered {result['paced']['answered']}" in text
    assert result["how"] in text


def test_a_process_that_dies_ends_the_benchmark_with_its_last_words(tmp_path):
    point = OperatingPoint(alpha=0.35, resolution=224)
    bench = benchmark.Bench(point, tmp_path / "nothing", 1, tmp_path, lambda: None)
    try:
        with pytest.raises(
            BenchmarkError, match=r"(?s)benchmark_bare ended with status 1.*manifest"
        ):
            bench.measure_bare(5.0, 0.1)
    finally:
        bench.close()

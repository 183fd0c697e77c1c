import json
import time
from types import SimpleNamespace

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.context import Context
from vision_msgs.msg import Detection2DArray

from mbnet_perception.inference import detector as detector_module
from mbnet_perception.inference import engine as engine_module
from mbnet_perception.inference.engine import Engine
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint, add_model
from mbnet_perception.nodes import benchmark
from mbnet_perception.nodes.benchmark import (
    BARE,
    BEGUN,
    DETECTOR,
    PROFILE_VARIABLES,
    BenchmarkError,
    Listener,
    Turn,
    camera_environment,
    counted_turns,
    describe,
    gaps,
    how_measured,
    largest_gap,
    measure_node,
    of_pairs,
    overhead_ratio,
    planned_switches,
    points_near,
    processed_rate,
    share_of_bare_rate,
    switch_figures,
)

MS = 1_000_000  # nanoseconds
POINT = OperatingPoint(alpha=0.35, resolution=224)


def test_what_ends_while_a_turn_counts_is_of_that_turn():
    spans = [(BARE, 100, 200), (DETECTOR, 300, 500), (BARE, 600, 700)]
    took = {
        BARE: [(100, 1.0), (101, 2.0), (200, 3.0), (201, 4.0), (650, 5.0)],
        DETECTOR: [(150, 6.0), (400, 7.0), (650, 8.0)],
    }
    assert counted_turns(spans, took) == [
        Turn(BARE, 100e-9, [2.0, 3.0]),
        Turn(DETECTOR, 200e-9, [7.0]),
        Turn(BARE, 100e-9, [5.0]),
    ]


def test_a_turn_in_which_nothing_happened_counts_unless_all_are_like_that():
    spans = [(DETECTOR, 0, 2000 * MS), (DETECTOR, 4000 * MS, 6000 * MS)]
    took = {DETECTOR: [(3000 * MS, 0.01)]}
    with pytest.raises(BenchmarkError, match=r"detector did nothing in all its 2 turns"):
        counted_turns(spans, took)
    took[DETECTOR] += [(5000 * MS, 0.02)] * 8
    turns = counted_turns(spans, took)
    assert turns == [Turn(DETECTOR, 2.0, []), Turn(DETECTOR, 2.0, [0.02] * 8)]
    assert processed_rate(turns) == 2.0


TURNS = [
    Turn(BARE, 0.5, [0.010, 0.010, 0.040]),  # mean 20 ms
    Turn(DETECTOR, 0.25, [0.012] * 5),  # 20 a second
    Turn(BARE, 0.5, [0.020, 0.008]),  # mean 14 ms; the median of two is the lesser
    Turn(DETECTOR, 0.5, [0.024, 0.016, 0.050]),  # 6 a second
]


def test_the_overhead_is_of_the_medians_over_all_turns():
    # 12 ms of 12, 12, 12, 12, 12, 16, 24, 50 by 10 ms of 8, 10, 10, 20, 40.
    assert overhead_ratio(TURNS) == pytest.approx(1.2)


def test_the_share_is_of_the_runs_that_fit_into_a_second():
    assert processed_rate(TURNS) == pytest.approx(8 / 0.75)
    # The runs take 88 / 5 ms on average.
    assert share_of_bare_rate(TURNS) == pytest.approx(8 / 0.75 * 0.0176)


def test_neighbouring_turns_have_ratios_of_their_own():
    ratios = of_pairs(TURNS, overhead_ratio)
    assert ratios["each"] == pytest.approx([12 / 10, 12 / 8, 24 / 8])
    assert [ratios[name] for name in ("min", "median", "max")] == pytest.approx([1.2, 1.5, 3.0])
    assert of_pairs(TURNS, share_of_bare_rate)["each"] == pytest.approx(
        [20 * 0.020, 20 * 0.014, 6 * 0.014]
    )


def test_neighbours_of_a_turn_in_which_nothing_happened_have_no_ratio():
    idle = Turn(BARE, 0.5, [])
    ratios = of_pairs([*TURNS[:2], idle, *TURNS[1:]], overhead_ratio)
    assert ratios["each"] == pytest.approx([12 / 10, 12 / 8, 24 / 8])
    with pytest.raises(BenchmarkError, match="of each two turns one had nothing done"):
        of_pairs([TURNS[1], idle, TURNS[1]], overhead_ratio)


def test_gaps_are_between_neighbours_in_time():
    assert gaps([10 * MS, 30 * MS, 60 * MS]) == [0.02, 0.03]
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
    published = [t * MS for t in (0, 10, 60, 80, 150)]
    assert largest_gap(published, begun * MS, ended * MS) == expected


@pytest.mark.parametrize(
    ("begun", "ended"), [pytest.param(-1, 5, id="before"), pytest.param(5, 11, id="after")]
)
def test_a_switch_without_answers_around_it_has_no_largest_gap(begun, ended):
    with pytest.raises(ValueError, match="before and after"):
        largest_gap([0, 10 * MS], begun * MS, ended * MS)


def test_switches_are_compared_with_the_time_between_them():
    tenth = MS // 10
    published = [
        *range(0, 20 * MS, tenth),  # before it has settled
        *range(20 * MS, 201 * MS, 10 * MS),
        *range(230 * MS, 240 * MS, tenth),  # while it switches
        *range(250 * MS, 411 * MS, 10 * MS),
        *(430 * MS, 445 * MS),
        *range(460 * MS, 661 * MS, 10 * MS),
        *range(670 * MS, 690 * MS, tenth),  # after it has ended
    ]
    spans = [(205 * MS, 245 * MS), (415 * MS, 455 * MS)]
    rests = [(20 * MS, 205 * MS), (245 * MS, 415 * MS), (455 * MS, 665 * MS)]
    figures = switch_figures(published, spans, rests)
    # From 200 to 230, and from 410 to 430.
    assert [one["largest_gap_ms"] for one in figures["switches"]] == pytest.approx([30, 20])
    assert figures["largest_gap_ms"] == pytest.approx({"median": 25, "max": 30})
    assert [one["took_ms"] for one in figures["switches"]] == [40, 40]
    assert figures["usual_p50_ms"] == pytest.approx(10)
    for usual in ("usual_p50", "usual_largest"):
        assert figures[f"to_{usual}"] == pytest.approx({"median": 2.5, "max": 3})
    assert figures["beyond"] == 2
    windows = figures["windows"]
    assert windows["length_ms"] == 40
    assert windows["count"] == 4 + 4 + 5  # from 20 to 200, from 250 to 410, from 460 to 660
    assert windows["largest_gap_ms"] == pytest.approx({"median": 10, "max": 10})
    assert windows["beyond"] == 0


@pytest.mark.parametrize(
    ("length", "usual_largest", "switches", "count", "beyond"),
    [
        # Each gap of 30 ms touches 3 of 10 windows, and neither switch.
        pytest.param(20, 10, 0, 15 + 19 + 28, 6 + 6 + 9, id="as short as two pictures"),
        # One in each window and each switch.
        pytest.param(200, 30, 2, 3, 3, id="as long as from one long gap to the next"),
    ],
)
def test_the_usual_largest_gap_is_of_windows_as_long_as_a_switch(
    length, usual_largest, switches, count, beyond
):
    # From 30 to 60, from 230 to 260 and so on nothing, else one each 10 ms.
    published = [t * MS for t in range(0, 1300, 10) if t % 200 not in (40, 50)]
    spans = [(begun * MS, (begun + length) * MS) for begun in (300, 700)]
    first, second = spans
    rests = [(0, first[0]), (first[1], second[0]), (second[1], 1290 * MS)]
    figures = switch_figures(published, spans, rests)
    windows = figures["windows"]
    assert windows["largest_gap_ms"] == pytest.approx({"median": usual_largest, "max": 30})
    assert (windows["count"], windows["beyond"]) == (count, beyond)
    assert figures["beyond"] == switches


def test_switches_without_a_rest_between_them_cannot_be_compared():
    with pytest.raises(ValueError, match=r"no answers came for 0.1 s of rest"):
        switch_figures(
            [t * MS for t in range(0, 300, 10)],
            [(50 * MS, 150 * MS), (160 * MS, 260 * MS)],
            [(0, 50 * MS), (150 * MS, 160 * MS), (260 * MS, 290 * MS)],
        )


def at(*places):
    return [OperatingPoint(alpha=alpha, resolution=size) for alpha, size in places]


@pytest.fixture
def make_library(tmp_path, make_metadata, make_model):
    """Make a library of tiny models with these resolutions, by alpha."""

    def make(sizes_by_alpha):
        for alpha, sizes in sizes_by_alpha.items():
            metadata = make_metadata(alpha=alpha, resolutions=sizes)
            model = make_model([(0, 0, 1, 1)], props=metadata.as_props())
            add_model(tmp_path, model, metadata, {})
        return ModelLibrary(tmp_path)

    return make


SEVERAL = {0.35: (64, 96), 0.5: (64, 96, 128), 1.0: (64, 96, 128)}


@pytest.mark.parametrize(
    ("models", "point", "others"),
    [
        pytest.param(SEVERAL, (1.0, 128), [(0.5, 128), (1.0, 96), (0.5, 96)], id="nearest first"),
        pytest.param(SEVERAL, (0.5, 128), [(0.5, 96), (0.35, 96), (0.5, 64)], id="no such input"),
        pytest.param(SEVERAL, (0.5, 96), [(0.35, 96), (0.5, 64), (0.35, 64)], id="none larger"),
        pytest.param(SEVERAL, (1.0, 64), [(0.5, 64), (0.35, 64)], id="few"),
        pytest.param(SEVERAL, (0.35, 64), [(0.35, 96)], id="nothing is smaller"),
        pytest.param({0.5: (64, 96)}, (0.5, 64), [(0.5, 96)], id="one network"),
    ],
)
def test_switches_are_among_the_nearest_that_ask_for_no_more(make_library, models, point, others):
    (point,) = at(point)
    assert points_near(make_library(models), point) == [point, *at(*others)]


def test_a_library_of_one_operating_point_has_nowhere_to_switch_to(make_library):
    with pytest.raises(BenchmarkError, match=r"no operating point beside .* alpha 0.5 fp32 at 64"):
        points_near(make_library({0.5: (64,)}), *at((0.5, 64)))


FOUR = at((1.0, 96), (0.5, 96), (1.0, 64), (0.5, 64))


def test_switches_go_round_and_then_to_and_fro():
    a, b, c, d = FOUR
    assert planned_switches(FOUR) == ([d, c, b, a, d, c, b, a], [b, a, b, a, b, a, b, a])
    assert planned_switches([a, b, c]) == ([c, b], [c, b, c, b, c, b, c, b])
    assert planned_switches([a, b]) == ([b], [a, b, a, b, a, b, a, b])


@pytest.mark.parametrize("count", [2, 3, 4])
def test_an_engine_builds_for_the_first_kind_of_switches_alone(make_library, monkeypatch, count):
    monkeypatch.setattr(detector_module, "LONGEST_WAIT", 0.001)
    engine = Engine(make_library(SEVERAL), FOUR[0], 1)
    built, load = [], engine_module.load_detector

    def record(library, point, *rest):
        built.append(point)
        return load(library, point, *rest)

    monkeypatch.setattr(engine_module, "load_detector", record)
    to_build, to_and_fro = planned_switches(FOUR[:count])
    for point in to_build:
        engine.switch(point)
    assert built == to_build
    for point in to_and_fro:
        assert point != engine.point
        engine.switch(point)
    assert built == to_build


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
        for name, value in {"TURN": 0.3, "SKIPPED": 0.1, "SETTLING": 0.3, "REST": 0.3}.items():
            patch.setattr(benchmark, name, value)
        patch.setattr(benchmark, "SWITCHES", 2)
        logs = tmp_path_factory.mktemp("logs")
        return measure_node(None, POINT, 1, 1.0, 0.3, logs, lambda: None)


def test_the_result_is_json_and_its_ratios_are_of_its_figures(result):
    assert json.loads(json.dumps(result)) == result
    paced, overload, alone = result["paced"], result["overload"], result["alone"]
    ratio = paced["stamp_to_publish"]["p50_ms"] / paced["bare"]["p50_ms"]
    assert result["overhead_ratio"] == pytest.approx(ratio)
    share = overload["processed_rate_hz"] * overload["bare"]["mean_ms"] / 1e3
    assert result["share_of_bare_rate"] == pytest.approx(share)
    assert overload["camera_rate_hz"] == 3 * alone["session_run_rate_hz"]
    assert paced["camera_rate_hz"] == 0.3 * overload["processed_rate_hz"]


def test_each_turn_has_a_neighbour_to_be_compared_with(result):
    for part, spread in (("paced", "overhead_of_pairs"), ("overload", "share_of_pairs")):
        assert result[part]["turns_of_each"] == 3
        assert 0 < len(result[part][spread]["each"]) <= 5


def test_each_frame_of_a_paced_camera_is_answered(result):
    # Under overload hundreds come in a second, and a listener held up may miss some.
    assert result["paced"]["answered"] == result["paced"]["processed"]


@pytest.mark.parametrize("part", ["paced", "overload"])
def test_the_accounts_of_the_frames_are_consistent(result, part):
    part = result[part]
    assert 0 < part["answered"] <= part["processed"]
    settled = sum(part[name] for name in ("processed", "superseded", "stale", "failed"))
    assert part["received"] == settled
    assert part["waiting"] == part["failed"] == part["stale"] == 0
    # What was sent in the other's turns is not lost.
    assert part["sent"] >= part["received"] + part["lost"] + part["bare_received"]
    assert part["answered"] > part["stamp_to_publish"]["count"] > 0
    assert part["bare_received"] > part["bare"]["count"] > 0


def test_each_stage_of_the_detector_is_in_the_result(result):
    stages = result["paced"]["stages_p50_ms"]
    assert set(stages) == set(benchmark.STAGES)
    assert stages["inference"] < stages["stamp_to_publish"]


def test_switches_that_build_and_those_that_do_not_are_told_apart(result):
    there, back = (f"mobilenet_v2 alpha 0.35 fp32 at {size}" for size in (256, 224))
    assert {
        kind: [one["to"] for one in part["switches"]] for kind, part in result["switch"].items()
    } == {"built": [there], "kept": [back, there]}
    assert all(part["windows"]["count"] > 0 for part in result["switch"].values())


def test_the_lines_for_people_hold_the_main_figures(result):
    text = "\n".join(describe(result))
    assert f"{result['overhead_ratio']:.3f} of p50" in text
    paced = result["paced"]
    assert f"received {paced['received']}  answered {paced['answered']}" in text
    for kind, count in (("built", 1), ("kept", 2)):
        part = result["switch"][kind]
        assert f"switch, {kind}" in text
        assert f"largest gap of {count} {part['largest_gap_ms']['median']:.1f} ms" in text
        assert f"at worst {part['to_usual_p50']['max']:.2f} of the usual p50" in text
        assert f"{part['windows']['beyond']} of {part['windows']['count']} windows" in text
    assert f"{100 * result['share_of_bare_rate']:.1f} % of bare" in text
    assert result["how"] in text


@pytest.fixture
def listener():
    context = Context()
    rclpy.init(context=context)
    listener = Listener(context)
    yield listener
    listener.destroy_node()
    rclpy.shutdown(context=context)


def test_a_change_is_when_the_detector_first_says_where_it_runs(listener):
    publisher = listener.create_publisher(DiagnosticArray, "/diagnostics", 10)
    published = []

    def tell(resolution, *more):
        engine = DiagnosticStatus(
            name="detector: engine", values=[KeyValue(key="resolution", value=resolution)]
        )
        begun = time.time_ns()
        publisher.publish(DiagnosticArray(status=[engine, *more]))
        published.append((begun, time.time_ns()))

    def until(condition):
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.01)

    until(publisher.get_subscription_count)
    for resolution in ("256", "224", "224"):
        tell(resolution)
    tell("224", DiagnosticStatus(name="last"))

    def read():
        listener.read_reports()
        return "last" in listener.statuses

    until(read)
    assert listener.point == {
        "backbone": None,
        "alpha": None,
        "resolution": "224",
        "precision": None,
    }
    begun, ended = published[1]
    assert begun <= listener.changed <= ended


def test_reading_ends_though_answers_come_faster_than_they_are_read(listener):
    publisher = listener.create_publisher(Detection2DArray, "/detector/detections", 100)
    end = time.monotonic() + 20
    while not publisher.get_subscription_count():
        assert time.monotonic() < end
        time.sleep(0.01)
    real, takes = listener._answers, []

    def take_message(*arguments):
        takes.append(arguments)
        assert len(takes) < 50, "it reads for ever"
        while True:  # until one of those that came meanwhile is there
            publisher.publish(Detection2DArray())
            if taken := real.handle.take_message(*arguments):
                return taken

    publisher.publish(Detection2DArray())
    listener._answers = SimpleNamespace(handle=SimpleNamespace(take_message=take_message))
    listener.read_answers()
    listener._answers = real
    assert 0 < len(takes) == len(listener.answers)


@pytest.fixture
def make_bench(tmp_path):
    """Make a bench, which is closed in the end."""
    made = []

    def make(models):
        made.append(benchmark.Bench(POINT, models, 1, tmp_path, lambda: None))
        return made[0]

    yield make
    for bench in made:
        bench.close()


def test_only_one_of_the_two_subscribes_to_the_camera_at_a_time(make_bench):
    bench = make_bench(ModelLibrary().folder)

    def subscribed():
        infos = bench.listener.get_subscriptions_info_by_topic(benchmark.TOPIC)
        return [info.node_name for info in infos]

    with bench.subject(BARE), bench.detector():
        bench.spin(lambda: subscribed() == [], 5.0, f"{subscribed()}")
        for name in (BARE, DETECTOR, BARE):
            bench.give_turn(name)
            bench.spin(lambda n=name: subscribed() == [n], 5.0, f"it is {name}'s turn")


def test_a_turn_begins_with_the_first_picture_of_its_own(make_bench, tmp_path):
    bench = make_bench(ModelLibrary().folder)
    log = tmp_path / f"{BARE}.log"
    camera = bench.process("benchmark_camera", {"rate": 5.0})
    with bench.subject(BARE), bench.detector(), camera:
        for turn in (1, 2):
            bench._turn(BARE, 0.0)
            assert log.read_text().count(BEGUN) == turn
            before = len(bench.listener.answers)
            bench._turn(DETECTOR, 0.0)
            assert len(bench.listener.answers) > before


def test_a_process_that_dies_ends_the_benchmark_with_its_last_words(make_bench, tmp_path):
    with pytest.raises(BenchmarkError, match=r"(?s)benchmark_bare ended with status 1.*manifest"):
        make_bench(tmp_path / "nothing").compare(5.0, 0.1)

import pytest

from mbnet_perception.evaluation.bag_gate import Limit, check_gate, failures, parse_gate
from mbnet_perception.evaluation.bag_results import BagEvaluation, Dropouts, Latency, RunResult
from mbnet_perception.evaluation.robustness import CLEAR, Condition
from mbnet_perception.inference.models import OperatingPoint

CONDITIONS = (CLEAR, Condition("fog", 2), Condition("rain", 1), Condition("rain", 3))
SMALL, LARGE = OperatingPoint(alpha=0.5), OperatingPoint(alpha=1.0)
NO_DROPOUTS = Dropouts(0, 0, 0, 0, 0, 0.0, 0, 0.0, 0.0, 0.0)


def evaluation(small, large, rpc=(0.5, 0.9), against="ground truth"):
    """AP50 of the two points by condition."""
    results = tuple(
        tuple(
            RunResult(point, condition, 0.0, ap50, {}, (), NO_DROPOUTS, {}, {})
            for condition, ap50 in zip(CONDITIONS, row, strict=True)
        )
        for point, row in ((SMALL, small), (LARGE, large))
    )
    return BagEvaluation(
        against=against,
        reference="topic /ground_truth",
        bags=(),
        points=(SMALL, LARGE),
        conditions=CONDITIONS,
        results=results,
        latency=(Latency(8.0, 9.0), Latency(16.0, 17.0)),
        rpc=rpc,
        moments=(),
        unmatched=0,
        unknown_classes=(),
        seed=0,
        every=1,
        machine="",
    )


RESULT = evaluation((0.5, 0.25, 0.375, 0.125), (0.625, 0.5, 0.5, 0.25))


def test_limits_are_read():
    assert parse_gate("clear=0.5,rain:3=.25, fog=1,rpc=0") == (
        Limit("clear", None, 0.5),
        Limit("rain", 3, 0.25),
        Limit("fog", None, 1.0),
        Limit("rpc", None, 0.0),
    )


@pytest.mark.parametrize(
    "part",
    ["", "rain", "rain=", "=0.4", "rain:6=0.4", "rain:=0.4", "rain=1.5", "rain=-0.1", "rain=nan"],
)
def test_anything_else_is_refused_by_name(part):
    with pytest.raises(ValueError, match=r"limits such as .*rain:3=0.4.* 0-1; got ") as error:
        parse_gate(f"clear=0.5,{part}")
    assert str(error.value).endswith(f"got {part!r}")


@pytest.mark.parametrize("text", ["clear=1", "rain=1", "rain:1=1", "fog:2=1", "rpc=1"])
def test_what_is_evaluated_can_be_asked_for(text):
    check_gate(parse_gate(text), CONDITIONS)


@pytest.mark.parametrize("text", ["night", "rain:2", "fog:1", "clear:1", "rpc:3"])
def test_what_is_not_evaluated_is_refused_before_the_work(text):
    expected = f"{text} is not evaluated; there is clear, fog, fog:2, rain, rain:1, rain:3, rpc$"
    with pytest.raises(ValueError, match=expected):
        check_gate(parse_gate(f"{text}=0.5"), CONDITIONS)


def test_rpc_needs_weather():
    with pytest.raises(ValueError, match=r"rpc is not evaluated; there is clear$"):
        check_gate(parse_gate("rpc=0.5"), (CLEAR,))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("clear=0.5", [], id="reached by both"),
        pytest.param("clear=0.6", [(SMALL, "AP50 in clear is 0.5000, less than 0.6")], id="by one"),
        pytest.param(
            "rain:3=0.3",
            [
                (SMALL, "AP50 in rain:3 is 0.1250, less than 0.3"),
                (LARGE, "AP50 in rain:3 is 0.2500, less than 0.3"),
            ],
            id="by none",
        ),
        pytest.param("rain=0.25", [], id="the mean of severities is enough"),
        pytest.param("rain=0.3", [(SMALL, "AP50 in rain is 0.2500, less than 0.3")], id="mean"),
        pytest.param("rpc=0.8", [(SMALL, "rPC is 0.5000, less than 0.8")], id="rPC"),
        pytest.param(
            "fog=0.4,clear=0.6",
            [
                (SMALL, "AP50 in fog is 0.2500, less than 0.4"),
                (SMALL, "AP50 in clear is 0.5000, less than 0.6"),
            ],
            id="several limits",
        ),
    ],
)
def test_each_point_must_keep_each_limit(text, expected):
    assert failures(RESULT, parse_gate(text)) == [f"{point}: {what}" for point, what in expected]


def test_a_figure_is_judged_as_it_is_shown():
    result = evaluation((0.39996, 1, 1, 1), (0.39994, 1, 1, 1))
    lines = failures(result, parse_gate("clear=0.4"))
    assert lines == [f"{LARGE}: AP50 in clear is 0.3999, less than 0.4"]


def test_consistency_is_not_called_accuracy():
    result = evaluation((0.5, 0, 0, 0), (1, 0, 0, 0), against="consistency")
    lines = failures(result, parse_gate("clear=0.8"))
    assert lines == [f"{SMALL}: consistency (AP50) in clear is 0.5000, less than 0.8"]


def test_without_rpc_its_limit_is_not_reached():
    result = evaluation((0, 0, 0, 0), (1, 1, 1, 1), rpc=(None, 1.0))
    lines = failures(result, parse_gate("rpc=0"))
    assert lines == [f"{SMALL}: nothing is found in clear weather, so there is no rPC"]

import pytest

from mbnet_perception.core.severity import SEVERITIES, at_severity

TABLE = (1.0, 4.0, 9.0, 10.0, 90.0)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_a_whole_severity_is_a_row_of_the_table(severity):
    assert at_severity(TABLE, severity) == pytest.approx(TABLE[severity - 1])


@pytest.mark.parametrize(
    ("severity", "expected"),
    [
        pytest.param(1.5, 2.0, id="between 1 and 4"),
        pytest.param(2.5, 6.0, id="between 4 and 9"),
        pytest.param(4.5, 30.0, id="between 10 and 90"),
    ],
)
def test_half_way_is_the_geometric_mean(severity, expected):
    assert at_severity(TABLE, severity) == pytest.approx(expected)


@pytest.mark.parametrize("severity", [0.99, 0, 5.01, -3, float("nan")])
def test_a_severity_out_of_range_is_named(severity):
    with pytest.raises(ValueError, match=f"from 1 to 5, got {severity}"):
        at_severity(TABLE, severity)

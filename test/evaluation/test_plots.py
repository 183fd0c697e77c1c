import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from mbnet_perception.evaluation.plots import (
    Line,
    colour_of,
    plot_frontier,
    plot_lines,
    plot_over_time,
    sign_of,
)

X = np.array([0.0, 0.5, 1.0])
TICKS = [(0.0, "clear"), (0.5, "half"), (1.0, "all")]


def texts(svg):
    return ["".join(node.itertext()).strip() for node in ET.fromstring(svg).iter() if is_text(node)]


def is_text(node):
    return node.tag.endswith("}text")


def test_colours_are_the_pages():
    svg = plot_lines([Line(X, X), Line(X, 1 - X)], "x", "y", TICKS)
    colours = set(re.findall(r"(?:stroke|fill): ([^;\"]+)", svg)) - {"none"}
    assert colours == {"currentColor", "var(--grid)", "var(--line-0)", "var(--line-1)"}


def test_the_seventh_line_has_the_first_colour():
    svg = plot_lines([Line(X, X)] * 7, "x", "y")
    assert "var(--line-5)" in svg
    assert "var(--line-6)" not in svg


def test_a_plot_is_as_wide_as_what_it_stands_in():
    root = ET.fromstring(plot_lines([Line(X, X)], "x", "y"))
    assert "viewBox" in root.attrib
    assert not {"width", "height"} & set(root.attrib)


def test_axes_say_what_they_show():
    words = texts(plot_lines([Line(X, X)], "severity", "AP50", TICKS, y_max=0.5))
    assert {"severity", "AP50", "clear", "half", "all", "0.5"} <= set(words)
    assert "1.0" not in words


@pytest.mark.parametrize(
    ("ticks", "expected"), [(TICKS, True), (None, False)], ids=["with", "without"]
)
def test_points_are_marked_where_the_axis_is(ticks, expected):
    line = plot_lines([Line(X, X)], "x", "y", ticks)
    marked = [part for part in re.findall(r"<use [^>]*>", line) if "--line-0" in part]
    assert len(marked) == (3 if expected else 0)


def test_a_band_lies_around_its_line():
    plain = plot_lines([Line(X, X)], "x", "y")
    band = plot_lines([Line(X, X, X - 0.1, X + 0.1)], "x", "y")
    assert "fill-opacity: 0.16" in band
    assert "fill-opacity" not in plain


def test_equal_data_give_equal_plots_and_a_gap_is_no_error():
    lines = [Line(X, np.array([0.1, np.nan, 0.2]), X * np.nan, X)]
    assert plot_lines(lines, "x", "y", TICKS) == plot_lines(lines, "x", "y", TICKS)


def path_of(svg, style):
    """Corners of the path that is drawn in that style, x to the right and y upwards."""
    (path,) = [
        node.get("d")
        for node in ET.fromstring(svg).iter()
        if node.tag.endswith("}path") and style in (node.get("style") or "")
    ]
    numbers = np.array(re.findall(r"[ML] (\S+) (\S+)", path), float)
    return numbers * (1, -1)


def test_no_two_of_36_look_the_same():
    assert len({(colour_of(n), sign_of(n)) for n in range(36)}) == 36


def test_steps_run_through_the_best_and_everything_is_marked():
    svg = plot_frontier([10, 20, 15], [0.2, 0.5, 0.1], [0, 1], "ms", "AP50")
    for n in range(3):
        assert len(re.findall(rf"<use [^>]*--line-{n}", svg)) == 1
    corners = steps_of(svg)
    # From (10, 0.2) to the right, up to 0.5 at 20, and on to the end of the axis at 22.
    across, up = corners[:, 0], corners[:, 1]
    assert across[1] == across[2]
    assert across[1] - across[0] == pytest.approx(5 * (across[3] - across[2]), rel=1e-3)
    assert up[0] == up[1] < up[2] == up[3]


def steps_of(svg):
    return path_of(svg, "stroke-dasharray: 3.7,1.6")


def test_one_thing_has_a_frontier_too():
    corners = steps_of(plot_frontier([10], [0.2], [0], "ms", "AP50"))
    assert corners[0, 1] == corners[-1, 1]
    assert corners[0, 0] < corners[-1, 0]


def test_a_share_over_time_has_gaps_and_the_colour_of_its_thing():
    share = np.array([0.5, np.nan, 0.25])
    svg = plot_over_time(np.arange(4.0), share, np.array([1.0, np.nan, 1.0]), 7, "seconds", "found")
    assert "var(--line-1)" in svg
    assert "var(--line-0)" not in svg
    corners = np.unique(path_of(svg, "stroke: var(--line-1); stroke-width: 1.6"), axis=0)
    across, up = corners.T  # a line of its own for either second, and none between
    np.testing.assert_allclose(np.diff(across), (across[3] - across[0]) / 3, rtol=1e-3)
    assert up[0] == up[1] > up[2] == up[3]
    assert {"seconds", "found", "0.5"} <= set(texts(svg))

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from mbnet_perception.evaluation.plots import Line, plot_lines

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

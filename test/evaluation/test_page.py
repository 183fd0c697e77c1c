import re

import pytest

from mbnet_perception.evaluation.bootstrap import Figure
from mbnet_perception.evaluation.page import (
    card,
    ceiling,
    cell,
    fold,
    legend,
    panels,
    sign,
    signed,
    strip,
    table,
    text_cell,
    versions_of,
    whole_page,
)


@pytest.fixture
def words(read_page):
    return lambda html: read_page(html).text


def test_a_page_has_both_colour_schemes_and_what_it_is_given(read_page):
    text = whole_page("<a> & b", ["<h1>first</h1>", "<p>second</p>"])
    assert read_page(text).text == "<a> & b first second"
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport" content="width=device-width' in text
    assert len(re.findall("--line-5: #", text)) == 2


@pytest.mark.parametrize(
    ("figure", "how", "expected"),
    [
        pytest.param(Figure(0.1234), {}, "0.123", id="plain"),
        pytest.param(Figure(0.1234), {"percent": True}, "12.3", id="percent"),
        pytest.param(Figure(0.1234), {"percent": True, "digits": 0}, "12", id="digits"),
        pytest.param(Figure(0.5), {"sign": True}, "+0.500", id="sign"),
        pytest.param(Figure(-0.5), {}, "\N{MINUS SIGN}0.500", id="negative"),
        pytest.param(Figure(0.5, 0.25, 0.75), {}, "0.500 0.250\N{EN DASH}0.750", id="interval"),
        pytest.param(Figure(None), {}, "\N{EN DASH}", id="unknown"),
    ],
)
def test_a_cell_shows_its_figure(words, figure, how, expected):
    assert words(cell(figure, **how)) == expected


@pytest.mark.parametrize(("value", "share"), [(0.25, "0.250"), (1.2, "1.000"), (-0.1, "0.000")])
def test_a_bar_stays_inside(value, share):
    assert f"--share: {share}" in cell(Figure(value), bar=True)
    assert f"--share: {share}" in card("rain", "?", "left", value, [])


def test_a_card_without_a_share_has_no_bar(words):
    content = card("rain & fog", "7&nbsp;%", "<left>", None, ["one", "two"])
    assert "--share" not in content
    assert words(content) == "rain & fog 7 % <left> one two"


def test_columns_of_words_are_marked_at_the_top_as_below():
    content = table(["a", "b", "c"], [["x", text_cell("y"), cell(Figure(1))]], words=[1])
    assert re.findall(r'<(?:th scope="col"|td) class="words">(.)', content) == ["b", "y"]


def test_signs_are_those_of_the_plots(words):
    assert words(legend([sign(0), sign(1)])) == "● ■"
    assert words(signed(0, "a_<b>")) == "● a_ <b>"
    # The seventh has the first colour again and so another marker.
    assert "--line-0" in sign(6)
    assert words(sign(6)) == "■"


def test_parts_hold_what_they_are_given_as_text(read_page):
    content = read_page(strip("<one>", [(b"jpeg", 'a "quoted" <two>', "<em>three</em>")]))
    assert content.text == "<one> three"
    assert ("alt", 'a "quoted" <two>') in content.attributes
    assert ("src", "data:image/jpeg;base64,anBlZw==") in content.attributes
    assert read_page(panels([("<a>", "<svg></svg>")])).text == "<a>"


def test_a_fold_is_closed_unless_told_otherwise(read_page):
    assert "open" not in dict(read_page(fold("title", "content")).attributes)
    assert "open" in dict(read_page(fold("title", "content", is_open=True)).attributes)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.31, None, float("nan"), 0.2], 0.4),
        ([0.29], 0.4),  # with a little room
        ([0.28], 0.3),
        ([0.99], 1.0),
        ([0.01], 0.1),
        ([], 0.1),
    ],
)
def test_an_axis_ends_at_a_round_number_above(values, expected):
    assert ceiling(values) == pytest.approx(expected)


def test_packages_that_are_not_there_are_left_out():
    assert set(versions_of(["numpy", "no-such-package"])) == {"numpy"}

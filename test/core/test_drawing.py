import numpy as np
import pytest

from mbnet_perception.core.detections import Detections
from mbnet_perception.core.drawing import class_colour, draw_detections, text_colour

NAMES = (
    *("person", "bicycle", "motorcycle", "car", "bus", "truck"),
    *("traffic_light", "stop_sign", "speed_limit", "crosswalk", "cone"),
)


def found(*rows):
    """Detections from rows (left, top, right, bottom, score, class)."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(
        table[:, :4].astype(np.float32),
        table[:, 4].astype(np.float32),
        table[:, 5].astype(np.int64),
    )


def grey(height=240, width=320):
    return np.full((height, width, 3), 90, np.uint8)


def changed(before, after):
    return (before != after).any(axis=2)


def coloured(picture, index):
    return (picture == class_colour(index)).all(axis=2)


def text(drawn, index):
    """Where a picture drawn over grey is nearer to the text than to the strip of a class."""

    def distance(colour):
        return np.abs(drawn.astype(int) - colour).sum(axis=2)

    strip = class_colour(index)
    nearer = distance(text_colour(strip)) < distance(strip)
    return changed(grey(*drawn.shape[:2]), drawn) & nearer


def contrast(a, b):
    """WCAG 2 contrast of two BGR colours, 1 to 21."""

    def luminance(colour):
        channels = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in (value / 255 for value in colour)
        ]
        return 0.0722 * channels[0] + 0.7152 * channels[1] + 0.2126 * channels[2]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_nothing_found_leaves_an_equal_picture_of_its_own():
    picture = grey()
    drawn = draw_detections(picture, found(), NAMES)
    np.testing.assert_array_equal(drawn, picture)
    assert not np.shares_memory(drawn, picture)


def test_the_picture_given_stays_as_it_is():
    picture = grey()
    drawn = draw_detections(picture, found((50, 60, 150, 160, 0.9, 3)), NAMES)
    np.testing.assert_array_equal(picture, grey())
    assert changed(picture, drawn).any()


def test_the_box_has_its_class_colour_on_its_four_edges_and_nothing_inside():
    drawn = draw_detections(grey(), found((50, 60, 150, 160, 0.9, 3)), NAMES)
    car = coloured(drawn, 3)
    assert car[60:161, 50].all() and car[60:161, 150].all()
    assert car[60, 50:151].all() and car[160, 50:151].all()
    np.testing.assert_array_equal(drawn[63:158, 53:148], grey()[63:158, 53:148])


def test_nothing_changes_away_from_the_box_and_its_label():
    drawn = draw_detections(grey(), found((50, 60, 150, 160, 0.9, 3)), NAMES)
    rows, columns = np.nonzero(changed(grey(), drawn))
    assert rows.min() >= 60 - 30 and rows.max() <= 162
    assert columns.min() >= 48 and columns.max() <= 152


def test_a_class_keeps_its_colour_and_eleven_classes_differ():
    assert len({class_colour(index) for index in range(11)}) == 11
    alone = draw_detections(grey(), found((50, 60, 90, 100, 0.9, 5)), NAMES)
    beside = draw_detections(
        grey(), found((150, 60, 190, 100, 0.9, 2), (50, 60, 90, 100, 0.5, 5)), NAMES
    )
    assert tuple(alone[100, 50]) == tuple(beside[100, 50]) == class_colour(5)
    assert class_colour(11) == class_colour(0)


@pytest.mark.parametrize("index", range(11))
def test_text_stands_out_from_its_strip(index):
    colour = class_colour(index)
    assert contrast(colour, text_colour(colour)) >= 4.5
    other = {(0, 0, 0): (255, 255, 255), (255, 255, 255): (0, 0, 0)}[text_colour(colour)]
    assert contrast(colour, text_colour(colour)) >= contrast(colour, other)


@pytest.mark.parametrize(
    ("size", "least_height"),
    [
        pytest.param((240, 320), 7, id="320x240"),
        pytest.param((480, 640), 7, id="640x480"),
        pytest.param((720, 1280), 14, id="1280x720 has larger text"),
    ],
)
def test_text_is_tall_enough_to_read(size, least_height):
    top = size[0] // 2
    drawn = draw_detections(grey(*size), found((40, top, 300, top + 50, 0.88, 3)), NAMES)
    rows = np.flatnonzero(text(drawn, 3).any(axis=1))
    assert rows.max() - rows.min() + 1 >= least_height


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((0, 0, 60, 60), id="upper left"),
        pytest.param((280, 0, 320, 60), id="upper right"),
        pytest.param((290, 200, 320, 240), id="lower right"),
        pytest.param((0, 200, 30, 240), id="lower left"),
        pytest.param((0, 0, 320, 240), id="whole picture"),
    ],
)
def test_a_label_at_the_edge_is_as_whole_as_one_in_the_middle(box):
    def text_pixels(box):
        return text(draw_detections(grey(), found((*box, 0.88, 9)), NAMES), 9).sum()

    assert text_pixels(box) == text_pixels((100, 100, 200, 200))


def test_the_label_names_class_and_score():
    def label(score, index):
        return text(draw_detections(grey(), found((80, 99, 200, 200, score, index)), NAMES), index)

    assert (label(0.884, 9) == label(0.876, 9)).all()  # both are 88 %
    assert (label(0.88, 9) != label(0.77, 9)).any()
    name_width = np.ptp(np.flatnonzero(label(0.88, 9).any(axis=0)))  # crosswalk
    assert name_width > 1.5 * np.ptp(np.flatnonzero(label(0.88, 3).any(axis=0)))  # car


def test_the_better_of_two_labels_in_one_place_is_on_top():
    same = (100, 100, 200, 200)
    drawn = draw_detections(grey(), found((*same, 0.9, 3), (*same, 0.5, 0)), NAMES)
    alone = draw_detections(grey(), found((*same, 0.9, 3)), NAMES)
    label = coloured(alone, 3)[:95]
    assert label.any()
    np.testing.assert_array_equal(drawn[:95][label], alone[:95][label])


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        pytest.param(np.zeros((4, 4), np.uint8), r"\(4, 4\) uint8", id="grey levels"),
        pytest.param(np.zeros((4, 4, 3), np.float32), r"\(4, 4, 3\) float32", id="floats"),
    ],
)
def test_a_picture_of_another_kind_is_refused(picture, message):
    with pytest.raises(ValueError, match=message):
        draw_detections(picture, found(), NAMES)


def test_a_class_without_a_name_is_refused():
    with pytest.raises(ValueError, match="class 2 has no name among the 2 given"):
        draw_detections(grey(), found((1, 1, 9, 9, 0.5, 2)), ["car", "bus"])

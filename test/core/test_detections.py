import numpy as np
import pytest

from mbnet_perception.core.detections import (
    MAX_CANDIDATES,
    Selection,
    iou_matrix,
    select_detections,
)

NAMES = ("car", "person")
WHOLE, LEFT, RIGHT, MIDDLE = (0, 0, 4, 1), (0, 0, 2, 1), (2, 0, 4, 1), (1, 0, 3, 1)
THREE, FIVE = (0, 0, 1.5, 1), (0, 0, 2.5, 1)  # the one is 3/5 of the other


def array(*boxes):
    return np.array(boxes, np.float32).reshape(-1, 4)


def select(boxes, scores, image_hw=(100, 200), selection=None, mask=(True, True)):
    return select_detections(
        array(*boxes),
        np.array(scores, np.float32).reshape(-1, 2),
        image_hw,
        selection or Selection(),
        np.array(mask),
    )


def test_iou_by_hand():
    np.testing.assert_allclose(
        iou_matrix(array(LEFT, WHOLE), array(LEFT, RIGHT, MIDDLE)),
        [[1, 0, 1 / 3], [1 / 2, 1 / 2, 1 / 2]],
        rtol=1e-6,
    )


def test_iou_of_empty_boxes_is_zero():
    point = array((1, 1, 1, 1))
    assert iou_matrix(point, point) == 0
    assert iou_matrix(array(), point).shape == (0, 1)


@pytest.mark.parametrize(
    ("boxes", "classes", "threshold", "expected"),
    [
        pytest.param([LEFT, MIDDLE], [0, 0], 0.3, [0], id="overlap of a third is over 0.3"),
        pytest.param([LEFT, MIDDLE], [0, 0], 0.4, [0, 1], id="and under 0.4"),
        pytest.param([LEFT, WHOLE], [0, 0], 0.5, [0, 1], id="an equal overlap stays"),
        pytest.param([THREE, FIVE], [0, 0], 0.6, [0, 1], id="also if no binary fraction"),
        pytest.param([THREE, FIVE], [0, 0], 0.6 - 1e-9, [0], id="but not one just over"),
        pytest.param([LEFT, RIGHT], [0, 0], 0.0, [0, 1], id="a common edge is no overlap"),
        pytest.param([LEFT, LEFT], [0, 0], 1.0, [0, 1], id="nothing is over 1"),
        pytest.param([LEFT, LEFT], [0, 1], 0.5, [0, 1], id="classes are no rivals"),
        pytest.param([LEFT, MIDDLE, RIGHT], [0, 0, 0], 0.3, [0, 2], id="a loser beats nobody"),
        pytest.param([LEFT, RIGHT, LEFT], [0, 0, 0], 0.5, [0, 1], id="the better one stays"),
        pytest.param([], [], 0.5, [], id="no boxes"),
    ],
)
def test_suppression(boxes, classes, threshold, expected):
    best_first = [0.875, 0.75, 0.625]
    scores = np.zeros((len(boxes), 2))
    for row, label in enumerate(classes):
        scores[row, label] = best_first[row]
    found = select(array(*boxes) / (4, 1, 4, 1), scores, selection=Selection(0.4, threshold))
    assert found.scores.tolist() == [best_first[row] for row in expected]


def test_suppression_by_its_definition():
    rng = np.random.default_rng(0)
    middles, sides = rng.random((300, 2)), rng.uniform(0.05, 0.4, (300, 2))
    boxes = np.hstack([middles - sides / 2, middles + sides / 2]).astype(np.float32)
    scores = rng.random((300, 2)).astype(np.float32)
    selection = Selection(score_threshold=0.5, max_detections=300)
    found = select(boxes, scores, (1, 1), selection)
    assert (np.diff(found.scores) <= 0).all()
    for label in (0, 1):
        kept, kept_scores = (
            found.boxes[found.classes == label],
            found.scores[found.classes == label],
        )
        assert (iou_matrix(kept, kept) > 0.5).sum() == len(kept)  # each with itself
        gone = (scores[:, label] >= 0.5) & ~np.isin(scores[:, label], kept_scores)
        rivals = iou_matrix(boxes.clip(0, 1)[gone], kept) > 0.5
        better = kept_scores > scores[gone, label][:, None]
        assert gone.sum() > 20
        assert (rivals & better).any(1).all()


def test_boxes_come_in_pixels_best_first():
    boxes = [(0.0, 0.1, 0.25, 0.5), (0.5, 0.2, 1.0, 0.9)]
    found = select(boxes, [[0.5, 0.0], [0.0, 0.75]])
    np.testing.assert_allclose(found.boxes, [(100, 20, 200, 90), (0, 10, 50, 50)], rtol=1e-6)
    assert found.scores.tolist() == [0.75, 0.5]
    assert found.classes.tolist() == [1, 0]
    assert len(found) == 2


def test_boxes_are_clipped_to_the_picture():
    found = select([(-0.5, -0.5, 0.5, 0.5), (0.6, 0.6, 1.5, 1.5)], [[0.9, 0], [0.8, 0]])
    np.testing.assert_allclose(found.boxes, [(0, 0, 100, 50), (120, 60, 200, 100)], rtol=1e-6)


def test_an_anchor_may_report_several_classes():
    found = select([(0, 0, 1, 1)], [[0.5, 0.75]])
    assert found.classes.tolist() == [1, 0]


def test_threshold_is_the_least_score_that_passes():
    found = select(
        [(0, 0, 0.5, 1), (0.5, 0, 1, 1)], [[0.5, 0], [0.4999, 0]], selection=Selection(0.5)
    )
    assert found.scores.tolist() == [0.5]


def test_suppressed_boxes_take_no_place_from_others():
    # The second is the first one's double; with room for two, the third is reported.
    boxes = [(0, 0, 0.5, 1), (0, 0, 0.5, 1), (0.5, 0, 1, 1), (0, 0.9, 0.1, 1)]
    scores = [[0.875, 0], [0.75, 0], [0.625, 0], [0.5, 0]]
    found = select(boxes, scores, selection=Selection(max_detections=2))
    assert found.scores.tolist() == [0.875, 0.625]


def test_equal_scores_go_by_row():
    boxes = [(0.5, 0, 1, 1), (0, 0, 0.5, 1), (0, 0, 0.4, 1)]
    found = select(boxes, [[0.5, 0], [0.5, 0], [0.5, 0]])  # the last is close to the second
    np.testing.assert_allclose(found.boxes, [(100, 0, 200, 100), (0, 0, 100, 100)])


@pytest.mark.parametrize(
    ("others", "score", "expected"),
    [
        pytest.param(MAX_CANDIDATES - 1, 0.5, [0.75, 0.5], id="the last place"),
        pytest.param(MAX_CANDIDATES, 0.5, [0.75], id="no place"),
        pytest.param(MAX_CANDIDATES, 0.75, [0.75], id="no place, by row"),
        pytest.param(MAX_CANDIDATES, 0.875, [0.875, 0.75], id="the first place"),
    ],
)
def test_only_so_many_are_looked_at(others, score, expected):
    boxes = [(0, 0, 0.5, 1)] * others + [(0.5, 0, 1, 1)]
    found = select(boxes, [[0.75, 0]] * others + [[score, 0]])
    assert found.scores.tolist() == expected


def test_unwanted_classes_take_no_place():
    boxes = [(0, 0, 0.5, 1)] * MAX_CANDIDATES + [(0.5, 0, 1, 1)]
    scores = [[0.75, 0]] * MAX_CANDIDATES + [[0, 0.5]]
    assert select(boxes, scores, mask=(False, True)).scores.tolist() == [0.5]


def test_unwanted_classes_are_left_out():
    found = select([(0, 0, 1, 1)], [[0.5, 0.75]], mask=(True, False))
    assert found.classes.tolist() == [0]


@pytest.mark.parametrize(
    ("boxes", "scores"),
    [
        pytest.param([(0, 0, 1, 1)], [[0.1, 0.1]], id="none passes"),
        pytest.param([], [], id="no anchors"),
        pytest.param([(0, 0, 1, 1)], [[np.nan, np.nan]], id="not a number"),
        pytest.param([(np.nan, 0, 1, 1)], [[0.9, 0.9]], id="a box that is not a number"),
        pytest.param([(0.5, 0, 0.5, 1)], [[0.9, 0.9]], id="a box without area"),
    ],
)
def test_nothing_found_is_empty_arrays(boxes, scores):
    found = select(boxes, scores)
    assert (found.boxes.shape, found.scores.shape, found.classes.shape) == ((0, 4), (0,), (0,))
    assert (found.boxes.dtype, found.scores.dtype, found.classes.dtype) == (
        np.float32,
        np.float32,
        np.int64,
    )
    assert len(found) == 0


def test_arguments_stay_as_they_are():
    boxes, scores, mask = array((-1, -1, 2, 2)), np.full((1, 2), 0.9, np.float32), np.ones(2, bool)
    for argument in (boxes, scores, mask):
        argument.flags.writeable = False  # writing would raise
    assert len(select_detections(boxes, scores, (10, 10), Selection(), mask)) == 2


@pytest.mark.parametrize(
    ("classes", "expected"),
    [((), [True, True]), (("person",), [False, True])],
    ids=["empty means all", "by name"],
)
def test_class_mask(classes, expected):
    assert Selection(classes=classes).class_mask(NAMES).tolist() == expected


def test_class_mask_lists_what_the_model_knows():
    with pytest.raises(ValueError, match=r"\['tram'\] are unknown; .* \['car', 'person'\]"):
        Selection(classes=("car", "tram")).class_mask(NAMES)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"score_threshold": 1.5}, r"score_threshold must be in \[0, 1\], got 1.5"),
        ({"score_threshold": float("nan")}, r"score_threshold must be in \[0, 1\], got nan"),
        ({"iou_threshold": -0.1}, r"iou_threshold must be in \[0, 1\], got -0.1"),
        ({"max_detections": 0}, r"max_detections must be in \[1, 300\], got 0"),
        ({"max_detections": 301}, r"max_detections must be in \[1, 300\], got 301"),
    ],
    ids=["score", "nan", "iou", "none", "too many"],
)
def test_nonsense_thresholds_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Selection(**values)


def test_a_box_beside_the_picture_is_not_reported():
    boxes = np.array([[1.1, 0.2, 1.4, 0.5], [0.1, 0.1, 0.2, 0.2]], np.float32)
    scores = np.array([[0.9], [0.8]], np.float32)
    found = select_detections(boxes, scores, (100, 100), Selection(), np.array([True]))
    np.testing.assert_allclose(found.boxes, [[10, 10, 20, 20]], rtol=1e-6)

from pathlib import Path

import cv2
import numpy as np
import pytest

from mbnet_perception.core.detections import Detections
from mbnet_perception.core.drawing import class_colour
from mbnet_perception.evaluation.dataset import Dataset, Picture
from mbnet_perception.evaluation.gallery import (
    LONG_SIDE,
    Miss,
    show_miss,
    show_objects,
    worst_misses,
)
from mbnet_perception.evaluation.robustness import (
    Accuracy,
    Condition,
    ModelResult,
    Robustness,
    list_conditions,
)
from mbnet_perception.inference.detector import Detector

CONDITIONS = list_conditions(["fog"], ["noise"], [1, 3])
SMALL, LARGE = (0, 0, 10, 10), (20, 20, 80, 80)
FOUND, FAINT, LOST = 0.9, 0.3, 0.0


def picture(*boxes, path="unread.png"):
    return Picture(
        identifier=0,
        path=Path(path),
        height=100,
        width=100,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        classes=np.zeros(len(boxes), np.int64),
        verified=np.array([True]),
        exhaustive=np.array([True]),
        ignore=np.zeros((0, 4), np.float32),
    )


def misses(pictures, *found, count=3):
    """`found`: for each model, the scores (conditions, boxes)."""
    nothing = Accuracy(None, None)
    models = tuple(
        ModelResult(
            name=str(n),
            resolution=64,
            conditions=(),
            clear_difference=nothing,
            summaries={},
            curves=np.zeros(0),
            found=np.array(scores, np.float32),
        )
        for n, scores in enumerate(found)
    )
    result = Robustness(CONDITIONS, models, seed=0, resamples=0, scenes=len(pictures))
    return worst_misses(Dataset(("car",), tuple(pictures)), result, count)


def test_what_was_found_in_clear_weather_and_is_lost_is_shown():
    scores = [
        [FOUND, FOUND, LOST],  # clear
        [FOUND, FOUND, LOST],  # fog 1
        [FOUND, LOST, LOST],  # fog 3
        [FAINT, FOUND, LOST],  # noise 1: a score under the node's threshold does not count
        [LOST, FOUND, LOST],  # noise 3
    ]
    shown = misses([picture(SMALL), picture(LARGE, LARGE)], scores)
    assert shown == {
        "clear": [Miss(1, Condition("clear", 0), ((1,),))],
        "fog": [Miss(1, Condition("fog", 3), ((0, 1),))],
        "noise": [Miss(0, Condition("noise", 1), ((0,),))],
    }


def test_large_objects_and_early_losses_come_first():
    pictures = [picture(SMALL), picture(LARGE), picture(LARGE), picture()]
    scores = [
        [FOUND, FOUND, FOUND],
        [LOST, FOUND, LOST],
        [LOST, LOST, LOST],
        [FOUND, FOUND, FOUND],
        [FOUND, FOUND, FOUND],
    ]
    shown = misses(pictures, scores)
    assert [miss.place for miss in shown["fog"]] == [2, 1, 0]
    assert [miss.condition.severity for miss in shown["fog"]] == [1, 3, 1]
    assert shown["noise"] == shown["clear"] == []
    assert [miss.place for miss in misses(pictures, scores, count=1)["fog"]] == [2]


def test_the_losses_of_all_models_count():
    always = [[FOUND, FOUND]] * 5
    scores = [[FOUND, FOUND], [FOUND, LOST], *[[FOUND, FOUND]] * 3]
    (miss,) = misses([picture(SMALL), picture(SMALL)], always, scores)["fog"]
    assert (miss.place, miss.missed) == (1, ((), (0,)))


@pytest.fixture
def dataset(tmp_path):
    path = tmp_path / "grey.png"
    cv2.imwrite(str(path), np.full((100, 100, 3), 90, np.uint8))
    return Dataset(("car",), (picture(LARGE, SMALL, path=path),))


def test_a_picture_shows_truth_and_detections(dataset, make_model, make_metadata):
    props = make_metadata(classes=["car"]).as_props()
    model = make_model([(0.5, 0.5, 0.95, 0.95)], [[0.75]], props)
    miss = Miss(0, Condition("clear", 0), ((0,),))
    (file,) = show_miss(dataset, miss, [Detector(model, 64, num_threads=1)], seed=0)
    image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR).astype(int)
    assert image.shape == (LONG_SIDE, LONG_SIDE, 3)
    scale = LONG_SIDE / 100
    # The detection's right edge, in its class's colour as far as JPEG keeps that of a thin line.
    edge = image[round(60 * scale) : round(90 * scale), round(95 * scale)].mean(0)
    towards = np.array(class_colour(0)) - 90
    assert (edge - 90) @ towards > 0.4 * towards @ towards
    # The missed box is dashed, black and white by turns, and named in its lower left corner.
    left = image[round(25 * scale) : round(70 * scale), round(20 * scale)].mean(1)
    assert left.min() < 50
    assert left.max() > 200
    corner = image[round(76 * scale) : round(79 * scale), round(24 * scale) : round(30 * scale)]
    assert corner.max() > 220
    assert corner.min() < 60
    # The found one has a thinner line, and no name.
    inside = image[round(2 * scale) : round(8 * scale), round(2 * scale) : round(8 * scale)]
    assert abs(inside - 90).max() < 25
    assert abs(image[: round(8 * scale), round(10 * scale)] - 90).max() > 60


def test_a_missed_box_is_drawn_thicker(dataset, make_model, make_metadata):
    props = make_metadata(classes=["car"]).as_props()
    blind = Detector(make_model([(0, 0, 1, 1)], [[0.0]], props), 64, num_threads=1)
    ink = []
    for missed in ((), (0,)):
        (file,) = show_miss(dataset, Miss(0, Condition("clear", 0), (missed,)), [blind], seed=0)
        image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR).astype(int)
        top = round(20 * LONG_SIDE / 100)
        ink.append(abs(image[top - 6 : top + 7, LONG_SIDE // 3 : LONG_SIDE // 2] - 90).sum())
    assert ink[1] > 1.4 * ink[0] > 0


def test_of_many_missed_the_largest_are_named(dataset, make_model, make_metadata):
    props = make_metadata(classes=["car"]).as_props()
    blind = Detector(make_model([(0, 0, 1, 1)], [[0.0]], props), 64, num_threads=1)
    sizes = (4, 12, 10, 8, 6)
    boxes = [(15 * n + 10, 50, 15 * n + 10 + side, 50 + side) for n, side in enumerate(sizes)]
    crowd = Dataset(("car",), (picture(*boxes, path=dataset.pictures[0].path),))
    miss = Miss(0, Condition("clear", 0), (tuple(range(5)),))
    (file,) = show_miss(crowd, miss, [blind], seed=0)
    image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    # A name begins at its box and is wider, so that nothing of it is left of the second box.
    scale = LONG_SIDE / 100
    before = image[:, round(15 * scale) : round(24 * scale)].astype(int)
    assert abs(before - 90).max() < 25


def test_the_picture_is_under_its_condition(dataset, make_model, make_metadata):
    props = make_metadata(classes=["car"]).as_props()
    blind = Detector(make_model([(0, 0, 1, 1)], [[0.0]], props), 64, num_threads=1)
    shown = []
    for severity in (1, 5):
        miss = Miss(0, Condition("noise", severity), ((),))
        (file,) = show_miss(dataset, miss, [blind], seed=0)
        image = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
        shown.append(image[200:300, 200:300].std())
    assert shown[1] > 2 * shown[0] > 2


def test_a_large_picture_is_shown_smaller_and_stays_as_it_is():
    rgb = np.full((2 * LONG_SIDE, 4 * LONG_SIDE, 3), (200, 90, 10), np.uint8)
    before = rgb.copy()
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int))
    boxes = np.array([[400, 400, 1200, 800]], np.float32)
    file = show_objects(rgb, nothing, ["car"], boxes, ["car"], [])
    bgr = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR).astype(int)
    assert bgr.shape == (LONG_SIDE // 2, LONG_SIDE, 3)
    assert abs(bgr[20, 20] - (10, 90, 200)).max() < 5
    assert abs(bgr[110:190, 100].mean(1) - 100).max() > 60  # the left edge, four times as small
    np.testing.assert_array_equal(rgb, before)

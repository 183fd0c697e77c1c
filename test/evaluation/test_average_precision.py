from pathlib import Path

import numpy as np
import pytest

from mbnet_perception.core.detections import Detections
from mbnet_perception.evaluation.average_precision import measure
from mbnet_perception.evaluation.dataset import Dataset, Picture

CLASSES = ("car", "person")
CAR, PERSON = 0, 1
HERE, THERE = (10, 10, 50, 50), (60, 60, 90, 90)


def picture(*objects, verified=(True, True), exhaustive=(True, True), ignore=()):
    """A picture of 100 x 100 pixels; an object is (box, class)."""
    return Picture(
        identifier=0,
        path=Path("unread.png"),
        height=100,
        width=100,
        boxes=np.array([box for box, _ in objects], np.float32).reshape(-1, 4),
        classes=np.array([k for _, k in objects], np.int64),
        verified=np.array(verified),
        exhaustive=np.array(verified) & np.array(exhaustive),
        ignore=np.array(ignore, np.float32).reshape(-1, 4),
    )


def found(*objects):
    """Detections, each (box, class, score)."""
    result = Detections(
        np.array([box for box, _, _ in objects], np.float32).reshape(-1, 4),
        np.array([score for _, _, score in objects], np.float32),
        np.array([k for _, k, _ in objects], np.int64),
    )
    for array in (result.boxes, result.scores, result.classes):
        array.flags.writeable = False  # measuring must not change them
    return result


def car_result(pictures, detections):
    return measure(Dataset(CLASSES, tuple(pictures)), detections, CLASSES).classes["car"]


def test_perfect_detections_score_one():
    pictures = [picture((HERE, CAR), (THERE, PERSON)), picture((THERE, CAR)), picture()]
    detections = [found((THERE, PERSON, 0.2), (HERE, CAR, 0.9)), found((THERE, CAR, 0.3)), found()]
    result = measure(Dataset(CLASSES, tuple(pictures)), detections, CLASSES)
    assert (result.ap, result.ap50) == pytest.approx((1, 1))
    assert list(result.classes) == ["car", "person"]
    assert (result.classes["car"].boxes, result.classes["person"].boxes) == (2, 1)
    assert result.classes["car"].pictures == 3


# One car, found right with score 0.5. One false alarm ranks before it: where that counts, precision
# at full recall is 1 of 2, and interpolation spreads 0.5 over every recall.
ALARM = (THERE, CAR, 0.9)
COUNTS, PASSES = 0.5, 1.0
# Recall ends at a half: precision 1 at 0, 0.01, ... 0.50, which is 51 of 101 recalls, then 0.
ONE_OF_TWO = 51 / 101


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        pytest.param(picture(), COUNTS, id="looked for and not there"),
        pytest.param(picture(verified=(False, True)), PASSES, id="not looked for"),
        pytest.param(picture((THERE, PERSON)), COUNTS, id="another class is there"),
        pytest.param(
            picture((HERE, CAR), exhaustive=(False, True)), ONE_OF_TWO, id="not all boxed"
        ),
        pytest.param(picture(ignore=[THERE]), PASSES, id="in an ignore area"),
        pytest.param(picture(ignore=[(0, 0, 100, 100)]), PASSES, id="in a wide ignore area"),
        pytest.param(picture(ignore=[(60, 60, 90, 76)]), PASSES, id="over half in one"),
        pytest.param(picture(ignore=[(60, 60, 90, 74)]), COUNTS, id="under half in one"),
    ],
)
def test_where_a_false_alarm_counts(other, expected):
    result = car_result([picture((HERE, CAR)), other], [found((HERE, CAR, 0.5)), found(ALARM)])
    assert result.ap50 == pytest.approx(expected)


def test_a_false_alarm_beside_the_object_counts():
    result = car_result([picture((HERE, CAR))], [found(ALARM, (HERE, CAR, 0.5))])
    assert (result.ap, result.ap50) == pytest.approx((0.5, 0.5))


def test_a_false_alarm_that_ranks_last_costs_nothing():
    result = car_result([picture((HERE, CAR))], [found((HERE, CAR, 0.95), ALARM)])
    assert result.ap50 == pytest.approx(1)


def test_the_boxes_of_a_picture_that_lacks_some_count():
    scene = picture((HERE, CAR), exhaustive=(False, True))
    assert car_result([scene], [found(ALARM, (HERE, CAR, 0.5))]).ap50 == pytest.approx(1)
    assert car_result([scene], [found(ALARM)]).ap50 == 0


def test_ap_is_the_mean_over_ten_overlaps():
    # 62 of 100 pixels: right at 0.50, 0.55 and 0.60, wrong at the seven others.
    result = car_result([picture(((0, 0, 10, 10), CAR))], [found(((0, 0, 10, 6.2), CAR, 0.5))])
    assert (result.ap, result.ap50) == pytest.approx((0.3, 1.0))


def test_classes_go_by_name():
    scene = picture((HERE, CAR), (THERE, PERSON))
    names = ("tram", "person", "car")  # another order, and one the data set does not know
    detections = found((HERE, 2, 0.5), (THERE, 1, 0.5), (HERE, 0, 0.9))
    result = measure(Dataset(CLASSES, (scene,)), [detections], names)
    assert (result.ap, set(result.classes)) == (pytest.approx(1), set(CLASSES))


def test_the_mean_is_over_classes_that_have_boxes():
    scenes = (picture((HERE, CAR)), picture())
    result = measure(Dataset(CLASSES, scenes), [found((HERE, CAR, 0.5)), found()], CLASSES)
    assert (result.ap50, list(result.classes)) == (pytest.approx(1), ["car"])


def test_a_class_is_counted_in_the_pictures_it_was_looked_for_in():
    result = car_result([picture((HERE, CAR)), picture(verified=(False, True))], [found()] * 2)
    assert (result.boxes, result.pictures) == (1, 1)


def test_no_detections_score_zero():
    scene = picture((HERE, CAR), (THERE, PERSON))
    result = measure(Dataset(CLASSES, (scene,)), [found()], CLASSES)
    assert (result.ap, result.ap50) == (0, 0)
    assert set(result.classes) == set(CLASSES)


def test_each_picture_needs_its_detections():
    with pytest.raises(ValueError, match="expected detections for 1 pictures, got 2"):
        measure(Dataset(CLASSES, (picture(),)), [found(), found()], CLASSES)


def test_data_without_boxes_cannot_be_measured():
    empty = Picture(
        identifier=1,
        path=Path("none.png"),
        height=10,
        width=10,
        boxes=np.zeros((0, 4), np.float32),
        classes=np.zeros(0, np.int64),
        verified=np.array([True]),
        exhaustive=np.array([True]),
        ignore=np.zeros((0, 4), np.float32),
    )
    nothing = Detections(
        np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    )
    with pytest.raises(ValueError, match="holds no boxes"):
        measure(Dataset(("car",), (empty,)), [nothing], ("car",))

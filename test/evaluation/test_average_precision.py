import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mbnet_perception.core.detections import Detections
from mbnet_perception.evaluation.average_precision import (
    NEITHER,
    RIGHT,
    WRONG,
    are_within,
    count_boxes,
    join_matches,
    match,
    measure,
    precision_at_recalls,
    weighted_ap,
)
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


def test_beyond_the_best_hundred_of_a_class_nothing_counts():
    alarms = [(THERE, CAR, 0.9)] * 99
    scene = picture((HERE, CAR))
    last = (HERE, CAR, 0.5)
    assert car_result([scene], [found(*alarms, last)]).ap50 == pytest.approx(1 / 100)
    assert car_result([scene], [found(*alarms, (THERE, CAR, 0.8), last)]).ap50 == 0
    others = [(THERE, PERSON, 0.9)] * 100
    assert car_result([scene], [found(*others, last)]).ap50 == 1


# HERE is 0.4 of the picture high, THERE 0.3.
@pytest.mark.parametrize(
    ("height_range", "alarm", "expected"),
    [
        pytest.param((0.35, 1), (60, 10, 90, 50), WRONG, id="an alarm of such a height counts"),
        pytest.param((0.35, 1), (60, 10, 90, 40), NEITHER, id="one of another height does not"),
        pytest.param((0.35, 1), THERE, NEITHER, id="nor does one that is right about another"),
        pytest.param((0.35, 1), (60, 60, 90, 96), NEITHER, id="nor if only the box is another"),
        pytest.param((0.4, 1), (60, 10, 90, 50), WRONG, id="the low end is in the range"),
        pytest.param((0.1, 0.4), (60, 10, 90, 50), NEITHER, id="the high end is not"),
    ],
)
def test_only_boxes_in_the_range_of_heights_count(height_range, alarm, expected):
    scene = picture((HERE, CAR), (THERE, CAR))
    detections = found((HERE, CAR, 0.9), (alarm, CAR, 0.8))
    status = match(of([scene]), [detections], CLASSES, height_range).status
    right = RIGHT if height_range[1] == 1 else NEITHER
    assert status[:, 0].tolist() == [right, expected]


def test_of_equal_overlaps_the_last_is_taken():
    scene = picture((HERE, CAR), (HERE, CAR))
    assert match(of([scene]), [found((HERE, CAR, 0.5))], CLASSES).found.tolist() == [0, 0.5]


def test_a_box_in_the_range_goes_before_a_better_one_outside_it():
    # Shares 35 of 40 rows with the box that counts, 35 of 37 with the one that is too low for it.
    scene = picture(((10, 10, 50, 50), CAR), ((10, 10, 50, 43), CAR))
    detection = found(((10, 10, 50, 45), CAR, 0.9))
    matches = match(of([scene]), [detection], CLASSES, (0.35, 1))
    assert (matches.status[0, 0], matches.found.tolist()) == (RIGHT, [pytest.approx(0.9), 0])
    assert match(of([scene]), [detection], CLASSES).found.tolist() == [0, pytest.approx(0.9)]


# Whatever the labels and the detections, the weighted metric is the one of pycocotools.

SEEDS = st.integers(0, 2**32 - 1)
A_FEW = settings(max_examples=25, deadline=None)


def random_boxes(rng, count):
    corner = rng.uniform(0, 70, (count, 2))
    return np.hstack([corner, corner + rng.uniform(5, 30, (count, 2))]).round()


def random_picture(rng):
    count = rng.integers(0, 5)
    labels = rng.integers(0, 2, count)
    verified = rng.random(2) < 0.6
    verified[labels] = True
    return picture(
        *zip(random_boxes(rng, count), labels, strict=True),
        verified=verified,
        exhaustive=rng.random(2) < 0.8,
        ignore=random_boxes(rng, rng.integers(0, 2)),
    )


def random_detections(rng, scene, scores):
    """Some near the objects, several for one, and some anywhere."""
    near = np.repeat(scene.boxes, rng.integers(0, 3, len(scene.boxes)), axis=0)
    near = near + rng.uniform(-2.4, 2.4, near.shape)  # sides are at least 5
    boxes = np.vstack([near, random_boxes(rng, rng.integers(0, 4))])
    labels = rng.integers(0, 2, len(boxes))
    return found(*((box, k, next(scores)) for box, k in zip(boxes, labels, strict=True)))


def random_case(seed, pictures=6, ties=False):
    rng = np.random.default_rng(seed)
    scores = iter(rng.permutation(1000) / 1000)
    if ties:
        scores = iter(rng.integers(1, 8, 1000) / 8)
    scenes = [random_picture(rng) for _ in range(pictures)]
    scenes[0] = picture((HERE, CAR), (THERE, PERSON))  # never without any box
    return scenes, [random_detections(rng, scene, scores) for scene in scenes]


def of(scenes):
    return Dataset(CLASSES, tuple(scenes))


def pycocotools_precision(scenes, detections, height_range=(0, np.inf)):
    """(10 overlaps, 101 recalls, classes), of its own accumulation.

    Its ranges of areas become ranges of heights by giving it heights for areas.
    """

    def xywh(box):
        x1, y1, x2, y2 = np.asarray(box, np.float64).tolist()
        return [x1, y1, x2 - x1, y2 - y1]

    truths, rows = [], []
    for i, (scene, each) in enumerate(zip(scenes, detections, strict=True), start=1):
        boxes = [(k, box, 0) for k, box in zip(scene.classes, scene.boxes, strict=True)]
        for k in np.flatnonzero(scene.verified):
            boxes += [(k, area, 1) for area in scene.ignore]
            boxes += [] if scene.exhaustive[k] else [(k, (0, 0, 100, 100), 1)]
        for k, box, crowd in boxes:
            x, y, w, h = xywh(box)
            truths.append(
                {
                    "id": len(truths) + 1,
                    "image_id": i,
                    "category_id": int(k),
                    "bbox": [x, y, w, h],
                    "area": h / 100,
                    "iscrowd": crowd,
                }
            )
        for box, score, k in zip(each.boxes, each.scores, each.classes, strict=True):
            if scene.verified[k]:
                rows.append([i, *xywh(box), score, k])
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i + 1} for i in range(len(scenes))],
        "categories": [{"id": k} for k in range(len(CLASSES))],
        "annotations": truths,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        results = coco.loadRes(np.array(rows, np.float64))
        for row in results.anns.values():
            row["area"] = row["bbox"][3] / 100
        evaluation = COCOeval(coco, results, "bbox")
        low, high = height_range
        evaluation.params.areaRng = [[low, np.nextafter(high, 0)]]  # its ranges hold both ends
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, :, 0, -1]


@A_FEW
@given(seed=SEEDS, ties=st.booleans())
def test_equal_weights_give_what_pycocotools_gives(seed, ties):
    scenes, detections = random_case(seed, ties=ties)
    scenes.append(picture((HERE, CAR)))
    detections.append(found((HERE, CAR, 0.4)))  # at least one counts
    expected = pycocotools_precision(scenes, detections)
    matches = match(of(scenes), detections, CLASSES)
    boxes = count_boxes(of(scenes))
    ap, ap50 = weighted_ap(matches, boxes, np.ones((len(scenes), 1)))[:, :, 0]
    np.testing.assert_allclose(ap, expected.mean((0, 1)), atol=1e-9)
    np.testing.assert_allclose(ap50, expected[0].mean(0), atol=1e-9)
    np.testing.assert_allclose(precision_at_recalls(matches, boxes), expected[0].T, atol=1e-9)


@A_FEW
@given(seed=SEEDS, ties=st.booleans(), edges=st.tuples(st.integers(5, 20), st.integers(21, 31)))
def test_ranges_of_heights_give_what_pycocotools_gives(seed, ties, edges):
    height_range = (edges[0] / 100, edges[1] / 100)
    scenes, detections = random_case(seed, ties=ties)
    scenes.append(picture(((0, 0, 20, 20.5), CAR), ((0, 50, 20, 70.5), PERSON)))  # always in it
    detections.append(found(((0, 0, 20, 20.5), CAR, 0.4)))
    expected = pycocotools_precision(scenes, detections, height_range)
    matches = match(of(scenes), detections, CLASSES, height_range)
    inside = [
        scene.classes[are_within((scene.boxes[:, 3] - scene.boxes[:, 1]) / 100, height_range)]
        for scene in scenes
    ]
    boxes = np.array([np.bincount(labels, minlength=2) for labels in inside])
    ap, ap50 = weighted_ap(matches, boxes, np.ones((len(scenes), 1)))[:, :, 0]
    np.testing.assert_allclose(ap, expected.mean((0, 1)), atol=1e-9)
    np.testing.assert_allclose(ap50, expected[0].mean(0), atol=1e-9)


@A_FEW
@given(seed=SEEDS, weights=st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_a_weight_is_how_often_a_picture_is_there(seed, weights):
    scenes, detections = random_case(seed)
    places = np.repeat(np.arange(6), weights)
    boxes = count_boxes(of(scenes))
    # Among other weightings, which must not get in its way.
    columns = np.column_stack([np.ones(6), weights, np.zeros(6)])
    weighted = weighted_ap(match(of(scenes), detections, CLASSES), boxes, columns)
    assert np.isnan(weighted[:, :, 2]).all()
    repeated = [scenes[i] for i in places]
    for k, name in enumerate(CLASSES):
        if boxes[places, k].any():
            result = measure(of(repeated), [detections[i] for i in places], CLASSES).classes[name]
            assert weighted[:, k, 1] == pytest.approx((result.ap, result.ap50), abs=1e-9)
        else:
            assert np.isnan(weighted[:, k, 1]).all()


def test_a_hundred_weightings_are_weighed_one_like_the_other():
    scenes, detections = random_case(0)
    weights = np.tile(np.ones((6, 1)), 100)
    values = weighted_ap(match(of(scenes), detections, CLASSES), count_boxes(of(scenes)), weights)
    assert (values == values[:, :, :1]).all()


@A_FEW
@given(seed=SEEDS, split=st.permutations(range(6)), size=st.integers(1, 6))
def test_parts_join_to_the_whole(seed, split, size):
    scenes, detections = random_case(seed, ties=True)
    places = [split[start : start + size] for start in range(0, 6, size)]
    parts = [
        match(of([scenes[i] for i in part]), [detections[i] for i in part], CLASSES)
        for part in places
    ]
    joined = join_matches(of(scenes), places, parts)
    whole = match(of(scenes), detections, CLASSES)
    assert (joined.found == whole.found).all()
    boxes, weights = count_boxes(of(scenes)), np.ones((6, 1))
    assert np.array_equal(
        weighted_ap(joined, boxes, weights), weighted_ap(whole, boxes, weights), equal_nan=True
    )


def test_each_box_knows_the_score_that_found_it():
    scenes = [picture((THERE, PERSON), (HERE, CAR)), picture(), picture((HERE, CAR), (THERE, CAR))]
    detections = [
        found((HERE, CAR, 0.25), (HERE, CAR, 0.5), (THERE, CAR, 0.75)),  # the better one finds it
        found((HERE, CAR, 0.875)),
        # 21 and 14 of 40 and 30 rows: half of it is enough, less is not.
        found(((10, 10, 50, 31), CAR, 0.625), ((60, 60, 90, 74), CAR, 0.375)),
    ]
    assert match(of(scenes), detections, CLASSES).found.tolist() == [0, 0.5, 0.625, 0]

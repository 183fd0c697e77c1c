import math

import torch

from mbnet_perception.training.loss import Targets, detection_loss, make_answers, match_anchors

# Four anchors in a row, a quarter of the width each, half the height.
ANCHORS = torch.tensor([[0.125 + 0.25 * i, 0.5, 0.25, 0.5] for i in range(4)])
CORNERS = torch.cat((ANCHORS[:, :2] - ANCHORS[:, 2:] / 2, ANCHORS[:, :2] + ANCHORS[:, 2:] / 2), 1)
EMPTY = torch.zeros(0, 4)


def target(boxes=EMPTY, classes=(), countable=(True, True), ignore=EMPTY, ignored=(True, True)):
    return Targets(
        boxes,
        torch.tensor(classes, dtype=torch.int64),
        torch.tensor(countable),
        ignore,
        torch.tensor([ignored] * len(ignore)).reshape(-1, 2),
    )


def losses(targets, logit=0.0, regressions=None):
    logits = torch.full((len(targets), 4, 2), logit)
    if regressions is None:
        regressions = torch.zeros(len(targets), 4, 4)
    return detection_loss(regressions, logits, ANCHORS, make_answers(ANCHORS, targets))


def test_no_objects_match_nothing():
    assert match_anchors(CORNERS, EMPTY).tolist() == [-1, -1, -1, -1]


def test_an_object_takes_the_anchors_that_overlap_it_enough():
    # Covers anchor 1 fully and half of anchor 2: IoU 2/3, and 1/4 which reaches 0.2.
    box = torch.tensor([[0.25, 0.25, 0.625, 0.75]])
    assert match_anchors(CORNERS, box).tolist() == [-1, 0, 0, -1]


def test_a_tiny_object_still_gets_its_best_anchor():
    box = torch.tensor([[0.8, 0.4, 0.82, 0.42]])
    assert match_anchors(CORNERS, box).tolist() == [-1, -1, -1, 0]


def test_of_two_objects_an_anchor_answers_for_the_nearer():
    boxes = torch.stack((CORNERS[1] + torch.tensor([0.1, 0, 0.1, 0]), CORNERS[1]))
    assert match_anchors(CORNERS, boxes)[1] == 1


def test_focal_loss_of_an_empty_picture_by_hand():
    # 4 anchors x 2 classes at p = 0.5: 0.5 balance x 0.5^2 x ln 2 each; divided by at least one.
    score, box = losses([target()])
    assert math.isclose(score.item(), 8 * 0.5 * 0.25 * math.log(2), rel_tol=1e-5)
    assert box.item() == 0


def test_classes_that_were_not_looked_for_cost_nothing():
    both = losses([target()])[0].item()
    one = losses([target(countable=(True, False))])[0].item()
    assert math.isclose(one, both / 2, rel_tol=1e-5)
    assert losses([target(countable=(False, False))])[0].item() == 0


def test_a_box_counts_even_where_its_class_is_not_exhaustive():
    picture = target(CORNERS[1:2], [0], countable=(False, False))
    score, _ = losses([picture])
    assert math.isclose(score.item(), 0.5 * 0.25 * math.log(2), rel_tol=1e-5)


def test_anchors_centred_in_an_ignore_area_cost_nothing():
    left_half = torch.tensor([[0.0, 0.0, 0.5, 1.0]])
    score, _ = losses([target(ignore=left_half)])
    assert math.isclose(score.item(), 4 * 0.5 * 0.25 * math.log(2), rel_tol=1e-5)


def test_an_area_may_be_unknown_for_one_class_alone():
    left_half = torch.tensor([[0.0, 0.0, 0.5, 1.0]])
    score, _ = losses([target(ignore=left_half, ignored=(False, True))])
    assert math.isclose(score.item(), 6 * 0.5 * 0.25 * math.log(2), rel_tol=1e-5)


def test_an_object_in_an_ignore_area_is_still_wanted():
    everywhere = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    score, _ = losses([target(CORNERS[1:2], [0], ignore=everywhere)])
    assert math.isclose(score.item(), 0.5 * 0.25 * math.log(2), rel_tol=1e-5)


def test_a_right_box_costs_nothing_and_a_wrong_one_does():
    picture = target(CORNERS[1:2], [1])
    assert math.isclose(losses([picture])[1].item(), 0, abs_tol=1e-5)
    away = torch.zeros(1, 4, 4)
    away[0, 1, 0] = 10.0  # one anchor width to the right: no overlap left
    # IoU 0, the hull is as large as the union: GIoU 0, so the loss is the weight, 2.
    assert math.isclose(losses([picture], regressions=away)[1].item(), 2.0, rel_tol=1e-4)


def test_pictures_of_a_batch_keep_their_own_objects():
    first, second = target(CORNERS[0:1], [0]), target(CORNERS[3:4], [1])
    together = losses([first, second])
    apart = [losses([picture]) for picture in (first, second)]
    # Both have one match; the batch is divided by two.
    expected = (apart[0][0] + apart[1][0]) / 2
    torch.testing.assert_close(together[0], expected)
    assert math.isclose(together[1].item(), 0, abs_tol=1e-5)

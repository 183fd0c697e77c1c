"""Which anchors answer for which object, and what a wrong answer costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou, generalized_box_iou_loss

from mbnet_perception.training.model import decode_boxes


@dataclass(frozen=True)
class Targets:
    """Labels of one picture of a batch; coordinates are fractions of the network input.

    Attributes:
        boxes: (N, 4) float32 xyxy.
        classes: (N,) int64.
        countable: (classes,) bool: an anchor without an object of this class is a true negative.
        ignore: (M, 4) float32 xyxy: areas, where anchors centred inside are no negatives.
        ignored: (M, classes) bool: the classes for which each area says so.
    """

    boxes: Tensor
    classes: Tensor
    countable: Tensor
    ignore: Tensor
    ignored: Tensor


@dataclass(frozen=True)
class Answers:
    """What the network should say to a batch: B pictures, A anchors, M of them for an object.

    Attributes:
        scores: (B, A, classes) float32, 1 where the anchor answers for an object of the class.
        weight: (B, A, classes) float32, 0 where nobody knows.
        pictures, anchors: (M,) int64: the anchors that answer for an object.
        boxes: (M, 4) float32 xyxy: of that object, as fractions of the network input.
    """

    scores: Tensor
    weight: Tensor
    pictures: Tensor
    anchors: Tensor
    boxes: Tensor

    def to(self, device: torch.device) -> Answers:
        """The same on another device."""
        return Answers(*(getattr(self, field.name).to(device) for field in fields(self)))


# SSD's threshold (arXiv 1512.02325, section 2.2), and the reach of the further anchors that an
# object gets when it is smaller than any.
MATCH_IOU = 0.5
NEAR_IOU = 0.2
NEAREST = 4


def match_anchors(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Assign anchors to objects.

    An anchor takes the object it overlaps most, if by half; each object also gets its four best
    anchors that overlap by a fifth, and its very best anchor whatever the overlap.

    Args:
        anchors: (A, 4) xyxy.
        boxes: (N, 4) xyxy.

    Returns:
        (A,) int64: index of the object, or -1.
    """
    matched = torch.full((len(anchors),), -1, dtype=torch.int64)
    if not len(boxes):
        return matched
    iou = box_iou(boxes, anchors)
    best_iou, best_object = iou.max(0)
    matched[best_iou >= MATCH_IOU] = best_object[best_iou >= MATCH_IOU]
    values, nearest = iou.topk(min(NEAREST, len(anchors)), dim=1)
    matched[nearest[:, 0]] = torch.arange(len(boxes))
    for rank in range(1, values.shape[1]):
        take = (values[:, rank] >= NEAR_IOU) & (matched[nearest[:, rank]] < 0)
        matched[nearest[take, rank]] = torch.nonzero(take)[:, 0]
    return matched


def make_answers(anchors: Tensor, targets: Sequence[Targets]) -> Answers:
    """Work out what the network should say at each anchor.

    Args:
        anchors: (A, 4) cxcywh, fractions of the input.
        targets: One per picture.
    """
    half = anchors[:, 2:] / 2
    corners = torch.cat((anchors[:, :2] - half, anchors[:, :2] + half), 1)
    centre = anchors[:, None, :2]
    scores = torch.zeros(len(targets), len(anchors), len(targets[0].countable))
    weight = torch.empty_like(scores)
    matches = []
    for i, target in enumerate(targets):
        match = match_anchors(corners, target.boxes)
        weight[i] = target.countable.float()
        if len(target.ignore):
            inside = ((centre > target.ignore[:, :2]) & (centre < target.ignore[:, 2:])).all(2)
            weight[i, inside.float() @ target.ignored.float() > 0] = 0
        rows = torch.nonzero(match >= 0)[:, 0]
        columns = target.classes[match[rows]]
        scores[i, rows, columns] = 1
        weight[i, rows, columns] = 1
        matches.append((rows, match[rows]))
    return Answers(
        scores,
        weight,
        pictures=torch.cat([torch.full_like(rows, i) for i, (rows, _) in enumerate(matches)]),
        anchors=torch.cat([rows for rows, _ in matches]),
        boxes=torch.cat([t.boxes[found] for t, (_, found) in zip(targets, matches, strict=True)]),
    )


def detection_loss(
    regressions: Tensor,
    logits: Tensor,
    anchors: Tensor,
    answers: Answers,
    gamma: float = 2.0,
    balance: float = 0.5,
    box_weight: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """Sigmoid focal loss over what is known of each picture, and GIoU loss over the matches.

    Args:
        regressions: (B, A, 4) from the network.
        logits: (B, A, classes) from the network.
        anchors: (A, 4) cxcywh, fractions of the input.
        answers: From :func:`make_answers`; on the device of the others.
        gamma, balance: Focal loss (arXiv 1708.02002): focus, and weight of a positive.
        box_weight: Weight of the box loss.

    Returns:
        Score loss and box loss, each a scalar per matched anchor.
    """
    count = max(1, len(answers.anchors))
    logits = logits.float()
    cross_entropy = functional.binary_cross_entropy_with_logits(
        logits, answers.scores, reduction="none"
    )
    miss = (logits.sigmoid() - answers.scores).abs()
    balanced = torch.where(answers.scores > 0, balance, 1 - balance)
    score_loss = (answers.weight * balanced * miss.pow(gamma) * cross_entropy).sum() / count

    found = regressions[answers.pictures, answers.anchors].float()
    predicted = decode_boxes(found, anchors[answers.anchors])
    box_loss = generalized_box_iou_loss(predicted, answers.boxes, reduction="sum") / count
    return score_loss, box_weight * box_loss

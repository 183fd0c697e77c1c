"""A larger network teaches a smaller one, at the same anchors.

Soft targets (Hinton et al., arXiv 1503.02531, section 2) for a network with a sigmoid per class:
the student is to give the teacher's score and the teacher's box at each anchor, next to what the
labels ask of it. The teacher has an opinion on each class, also where a data set has no labels for
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss

from mbnet_perception.training.checkpoints import TrainingError, read_network
from mbnet_perception.training.model import SSDLite, decode_boxes


def load_teacher(path: Path, classes: Sequence[str], scales: tuple[float, ...]) -> SSDLite:
    """The averaged network of a checkpoint, in evaluation mode and without gradients.

    Raises:
        TrainingError: If it cannot be read, or has other classes or anchors than the student.
    """
    teacher, recipe, state = read_network(path)
    if list(classes) != state["classes"]:
        raise TrainingError(
            f"{path}: a teacher must have the student's classes {list(classes)}, "
            f"but has {state['classes']}"
        )
    if scales != recipe.anchor_scales:
        raise TrainingError(
            f"{path}: a teacher must have the student's anchor_scales {list(scales)}, "
            f"but has {list(recipe.anchor_scales)}"
        )
    return teacher.requires_grad_(False)


def distillation_loss(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    anchors: Tensor,
    gamma: float = 2.0,
    box_weight: float = 2.0,
) -> Tensor:
    """How far a student is from its teacher; zero where both say the same.

    Scores differ by the focal loss for soft targets (quality focal loss, arXiv 2006.04388,
    section 3), which counts an anchor the more, the further the two are apart. Boxes differ by
    GIoU, weighted by the teacher's best score at the anchor, squared: thousands of anchors with a
    score near zero, where its boxes mean nothing, must not outweigh a few objects.

    Args:
        student, teacher: Regressions (B, A, 4) and logits (B, A, classes) of the same batch.
        anchors: (A, 4) cxcywh, fractions of the input.
        gamma: Focus of the score loss.
        box_weight: Weight of the box loss, as the labels' own has.

    Returns:
        A scalar, divided by the sum of those weights.
    """
    wanted = teacher[1].float().sigmoid()
    logits = student[1].float()
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    score_loss = (logits.sigmoid() - wanted).abs().pow(gamma) * cross_entropy
    weight = wanted.amax(-1).square()
    boxes = [decode_boxes(regressions.float(), anchors) for regressions in (student[0], teacher[0])]
    box_loss = weight * generalized_box_iou_loss(*boxes)
    return (score_loss.sum() + box_weight * box_loss.sum()) / weight.sum().clamp(min=1)

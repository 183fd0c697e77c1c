from pathlib import Path

import pytest
import torch

from mbnet_perception.core.anchors import DEFAULT_SCALES
from mbnet_perception.evaluation.sources import Source
from mbnet_perception.training.checkpoints import TrainingError, save_checkpoint
from mbnet_perception.training.distillation import distillation_loss, load_teacher
from mbnet_perception.training.model import SSDLite, decode_boxes
from mbnet_perception.training.recipe import Recipe

ANCHORS = torch.tensor([[0.125 + 0.25 * i, 0.5, 0.25, 0.5] for i in range(4)])
CLASSES = ("cat", "dog")


def opinion(seed):
    """Regressions (1, 4, 4) and logits (1, 4, 2); the first two anchors see something."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 4, 2, generator=generator) + torch.tensor([3.0, 3, -6, -6])[:, None]
    return torch.randn(1, 4, 4, generator=generator), logits


def test_a_student_that_says_the_same_has_nothing_to_learn():
    teacher = opinion(0)
    student = tuple(value.clone().requires_grad_() for value in teacher)
    loss = distillation_loss(student, teacher, ANCHORS)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    loss.backward()
    assert student[1].grad.abs().max() == 0


def test_one_different_score_by_hand():
    # Teacher sure of one anchor of four (p = 1 to float32), student at p = 0.5 there, boxes alike:
    # 0.5^2 x ln 2, divided by the teacher's squared scores, 1.
    logits = torch.full((1, 4, 1), -50.0)
    teacher, student = logits.clone(), logits.clone()
    teacher[0, 1], student[0, 1] = 50.0, 0.0
    same = torch.zeros(1, 4, 4)
    loss = distillation_loss((same, student), (same, teacher), ANCHORS)
    assert loss.item() == pytest.approx(0.25 * 0.693147, rel=1e-4)


def test_a_box_counts_where_the_teacher_sees_something():
    logits = torch.full((1, 4, 1), -50.0)
    logits[0, 1] = 50.0
    same, away = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    away[0, 2, 0] = 10.0
    assert distillation_loss((away, logits), (same, logits), ANCHORS).item() < 1e-5
    away[0, 1, 0] = 10.0  # an anchor's width to the right: GIoU 0, weight 2, sum of weights 1
    assert distillation_loss((away, logits), (same, logits), ANCHORS).item() == pytest.approx(2.0)
    # At a score of a half it counts a quarter, and a sum of weights below 1 is taken as 1.
    logits[0, 1] = 0.0
    assert distillation_loss((away, logits), (same, logits), ANCHORS).item() == pytest.approx(0.5)


def test_a_student_moves_to_its_teacher():
    teacher = opinion(0)
    student = tuple(value.clone().requires_grad_() for value in opinion(1))

    def distance():
        scores = (student[1].sigmoid() - teacher[1].sigmoid()).abs().max()
        boxes = [
            decode_boxes(regressions, ANCHORS)[:, :2] for regressions in (student[0], teacher[0])
        ]
        return scores.item(), (boxes[0] - boxes[1]).abs().max().item()

    before = distance()
    optimizer = torch.optim.Adam(student, lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        distillation_loss(student, teacher, ANCHORS).backward()
        optimizer.step()
    after = distance()
    assert after[0] < before[0] / 4
    assert after[1] < before[1] / 4


def write_teacher(path, alpha=0.2, classes=CLASSES, **more):
    recipe = Recipe((Source(Path("a.json")),), "b.json", alpha=alpha, **more)
    state = {
        "recipe": recipe.as_dict(),
        "classes": list(classes),
        "epoch": 1,
        "model": {},
        "average": SSDLite("mobilenet_v2", alpha, len(classes)).state_dict(),
        "optimizer": {},
    }
    save_checkpoint(state, path)


def test_a_teacher_of_another_alpha_answers_at_the_same_anchors(tmp_path):
    write_teacher(tmp_path / "teacher.pt")
    teacher = load_teacher(tmp_path / "teacher.pt", CLASSES, DEFAULT_SCALES)
    student = SSDLite("mobilenet_v2", 0.1, 2).eval()
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    x = torch.zeros(1, 3, 48, 64)
    assert [v.shape for v in teacher(x)] == [v.shape for v in student(x)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"classes": ("dog", "cat")}, r"classes \['cat', 'dog'\]", id="classes"),
        pytest.param(
            {"anchor_scales": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)},
            r"anchor_scales \[0\.08",
            id="anchors",
        ),
    ],
)
def test_a_teacher_of_something_else_is_refused(tmp_path, change, message):
    write_teacher(tmp_path / "teacher.pt", **change)
    with pytest.raises(TrainingError, match=rf"teacher\.pt: .*student's {message}"):
        load_teacher(tmp_path / "teacher.pt", CLASSES, DEFAULT_SCALES)

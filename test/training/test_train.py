import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mbnet_perception.core.anchors import make_anchors
from mbnet_perception.evaluation.average_precision import Result
from mbnet_perception.evaluation.dataset import DatasetError, read_coco
from mbnet_perception.evaluation.sources import Source
from mbnet_perception.evaluation.synthetic import write_pictures
from mbnet_perception.training import train as training
from mbnet_perception.training.checkpoints import TrainingError, read_checkpoint, save_checkpoint
from mbnet_perception.training.data import Draw, TrainingData, collate
from mbnet_perception.training.loss import detection_loss, make_answers
from mbnet_perception.training.model import SSDLite
from mbnet_perception.training.recipe import Recipe, read_recipe
from mbnet_perception.training.train import (
    BEST,
    LAST,
    learning_rate,
    make_optimizer,
    to_input,
    train,
    update_average,
)

OTHER_SCALES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("data"), 4, size=(96, 72))


@pytest.fixture
def recipe(labels):
    return Recipe(
        train=(Source(labels),),
        validation=str(labels),
        alpha=0.1,
        epochs=2,
        batch_size=2,
        sizes=(64,),
        settling_sizes=(64,),
        warmup_steps=1,
        workers=0,
        threads=1,
    )


@pytest.fixture(autouse=True)
def settle_quickly(monkeypatch):
    monkeypatch.setattr(training, "SETTLING_BATCHES", 1)


def weights(folder, key="model"):
    return read_checkpoint(folder / LAST)[key]


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0)


def break_after(monkeypatch, saves):
    """Break a run off, as a power cut would, right after it has saved so often."""
    save, count = training.save_checkpoint, 0

    def save_and_stop(state, path):
        nonlocal count
        save(state, path)
        count += path.name == LAST
        if count == saves:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "save_checkpoint", save_and_stop)


@pytest.fixture
def unbroken(recipe, tmp_path):
    """Folder of a run of two epochs of two steps, with all that is random in it."""
    rich = dataclasses.replace(recipe, sizes=(64, 96), mosaic=0.5, balance=0.5)
    train(rich, tmp_path / "unbroken")
    return rich, tmp_path / "unbroken"


def test_a_resumed_run_ends_where_an_unbroken_one_does(unbroken, tmp_path, monkeypatch):
    recipe, whole = unbroken
    # A checkpoint after each step: the first of an epoch, the second, and once more at its end.
    monkeypatch.setattr(training, "SAVE_SECONDS", -1.0)
    for saves, position in ((1, (0, 1)), (3, (1, 0)), (4, (1, 1))):
        folder = tmp_path / f"broken after {saves}"
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            break_after(patch, saves)
            train(recipe, folder)
        state = read_checkpoint(folder / LAST)
        assert (state["epoch"], state["step"]) == position
        torch.manual_seed(saves)  # nothing may hang on what else was drawn in the process
        train(recipe, folder, resume=True)
        assert_same(weights(whole), weights(folder))
        assert_same(weights(whole, "average"), weights(folder, "average"))


def test_a_folder_holds_what_was_run_and_what_came_out(unbroken):
    recipe, folder = unbroken
    names = {"last.pt", "best.pt", "recipe.yaml", "log.jsonl", "tensorboard"}
    assert {path.name for path in folder.iterdir()} == names
    assert read_recipe(folder / "recipe.yaml") == recipe
    assert f"# torch: {torch.__version__.split('+')[0]}\n" in (folder / "recipe.yaml").read_text()
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert all(line["score_loss"] > 0 and line["box_loss"] > 0 for line in lines)
    assert "ap50" not in lines[0]  # measured each fifth epoch, and at the end
    assert "ap50" in lines[1]
    assert read_checkpoint(folder / LAST)["code"]["torch"] in torch.__version__
    assert read_checkpoint(folder / BEST)["accuracy"]["ap50"] == pytest.approx(
        lines[1]["ap50"], abs=1e-4
    )


def test_tensorboard_gets_curves_that_a_resumed_run_goes_on(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "WRITE_STEPS", 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        break_after(patch, 1)
        train(recipe, tmp_path)
    train(recipe, tmp_path, resume=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/score")] == [1, 2, 3, 4]
    assert [event.step for event in events.Scalars("validation/AP50")] == [4]
    rates = [event.value for event in events.Scalars("learning_rate")]
    assert rates == pytest.approx([learning_rate(step, recipe, 2) for step in range(4)])


def test_the_best_of_a_run_is_kept(recipe, tmp_path, monkeypatch):
    accuracies = iter([0.2, 0.5, 0.3])
    monkeypatch.setattr(training, "evaluate", lambda *_: Result(next(accuracies), 0.6, {}))
    train(dataclasses.replace(recipe, epochs=3, validate_every=1), tmp_path)
    best = read_checkpoint(tmp_path / BEST)
    assert best["epoch"] == 2
    assert best["accuracy"] == {"ap": 0.5, "ap50": 0.6}
    assert read_checkpoint(tmp_path / LAST)["epoch"] == 3


def test_a_resumed_run_knows_the_best_so_far(recipe, tmp_path, monkeypatch):
    recipe = dataclasses.replace(recipe, validate_every=1)
    accuracies = iter([0.5, 0.3])
    monkeypatch.setattr(training, "evaluate", lambda *_: Result(next(accuracies), 0.6, {}))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "SAVE_SECONDS", -1.0)
        break_after(patch, 4)
        train(recipe, tmp_path)
    train(recipe, tmp_path, resume=True)
    assert read_checkpoint(tmp_path / BEST)["epoch"] == 1


def test_a_started_folder_is_not_overwritten(recipe, tmp_path):
    save_checkpoint({}, tmp_path / LAST)
    with pytest.raises(TrainingError, match=r"exists; resume it, or choose another folder"):
        train(recipe, tmp_path)


def test_resuming_another_recipe_names_what_differs(recipe, tmp_path):
    train(dataclasses.replace(recipe, epochs=1), tmp_path)
    message = r"last\.pt is of another recipe: alpha is 0\.1 there and 0\.2 here; epochs is 1 there"
    with pytest.raises(TrainingError, match=message):
        train(dataclasses.replace(recipe, alpha=0.2), tmp_path, resume=True)


def test_a_run_starts_from_another_ones_average(recipe, tmp_path, monkeypatch, capsys):
    train(dataclasses.replace(recipe, epochs=1), tmp_path / "first")
    started = []

    def note_and_stop(model, _):
        started.append(model)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "make_optimizer", note_and_stop)
    follow = dataclasses.replace(recipe, start_from=str(tmp_path / "first" / LAST))
    with pytest.raises(KeyboardInterrupt):
        train(follow, tmp_path / "second")
    assert_same(started[0].state_dict(), weights(tmp_path / "first", "average"))
    assert "start from all weights of" in capsys.readouterr().err


def test_a_run_that_diverges_names_step_and_pictures(recipe, labels, tmp_path):
    recipe = dataclasses.replace(recipe, learning_rate=1e30, batch_size=4)
    with pytest.raises(TrainingError) as caught:
        train(recipe, tmp_path)
    message = str(caught.value)
    assert re.search(r"not finite: score loss .*, at step 1 of epoch 2", message)
    for picture in read_coco(labels).pictures:
        assert str(picture.path) in message
    # What was saved before is as it was.
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


def test_a_gradient_that_is_not_finite_stops_the_run_too(recipe, tmp_path, monkeypatch):
    def bend(regressions, logits, anchors, answers):
        score, box = detection_loss(regressions, logits, anchors, answers)
        return score, box + (0 * logits.sum()).sqrt()  # 0, with an infinite slope

    monkeypatch.setattr(training, "detection_loss", bend)
    with pytest.raises(TrainingError, match=r"gradient nan, at step 1 of epoch 1"):
        train(recipe, tmp_path)
    assert not (tmp_path / LAST).exists()


@pytest.mark.parametrize("which", ["train", "validation"])
def test_data_without_boxes_stop_a_run_before_it_begins(recipe, labels, tmp_path, which):
    content = json.loads(labels.read_text()) | {"annotations": []}
    empty = labels.with_name("empty.json")
    empty.write_text(json.dumps(content))
    value = (Source(empty),) if which == "train" else str(empty)
    with pytest.raises(DatasetError, match=r"nothing to learn|holds no boxes"):
        train(dataclasses.replace(recipe, **{which: value}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bad_pictures_are_left_out_and_counted(recipe, labels, tmp_path, capsys):
    content = json.loads(labels.read_text())
    missing = dict(content["images"][0], id=99, file_name="missing.png")
    content["images"].append(missing)
    some = labels.with_name("some.json")
    some.write_text(json.dumps(content))
    recipe = dataclasses.replace(recipe, train=(Source(some),), epochs=1)
    with pytest.raises(DatasetError, match=r"missing\.png"):
        train(recipe, tmp_path)
    train(dataclasses.replace(recipe, on_bad="skip"), tmp_path)
    said = capsys.readouterr().err
    assert re.search(r"left out: .*missing\.png", said)
    assert "left out 1 in all" in said


def test_the_policy_is_applied_and_kept_beside_the_checkpoint(recipe, tmp_path):
    policy = tmp_path / "rain.yaml"
    policy.write_text(
        yaml.safe_dump({"clear": 0.0, "weather": [{"weight": 1, "apply": [{"ToGray": {}}]}]})
    )
    recipe = dataclasses.replace(recipe, policy=str(policy))
    data, _ = training.read_data(recipe, print)
    image, _ = data[Draw(0, 48, 64, (0, 0, 0))]
    assert (image[..., 0] == image[..., 1]).all()
    train(dataclasses.replace(recipe, epochs=1), tmp_path / "run")
    assert (tmp_path / "run" / "policy.yaml").read_text() == policy.read_text()


def test_anchors_of_the_recipe_are_those_of_the_loss(recipe, tmp_path, monkeypatch):
    seen = []

    def note(regressions, logits, anchors, answers):
        seen.append(anchors)
        return detection_loss(regressions, logits, anchors, answers)

    monkeypatch.setattr(training, "detection_loss", note)
    recipe = dataclasses.replace(recipe, epochs=1, anchor_scales=OTHER_SCALES)
    train(recipe, tmp_path)
    expected = [make_anchors(h, 64, OTHER_SCALES) for h in (48, 64)]
    assert all(any(np.array_equal(anchors, e) for e in expected) for anchors in seen)
    assert read_checkpoint(tmp_path / LAST)["recipe"]["anchor_scales"] == list(OTHER_SCALES)


class SeesOneAnchor(torch.nn.Module):
    """Says of whatever picture that one anchor holds an object of the first class."""

    def __init__(self, row, classes):
        super().__init__()
        self.row, self.classes = row, classes
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        rows = len(make_anchors(x.shape[2], x.shape[3]))
        logits = torch.full((1, rows, self.classes), -20.0)
        logits[0, self.row, 0] = 5.0
        return torch.zeros(1, rows, 4), logits


def test_anchors_of_the_recipe_are_those_of_the_measuring(labels):
    dataset = read_coco(labels)
    row = 10
    cx, cy, w, h = make_anchors(48, 64, OTHER_SCALES)[row] * [96, 72, 96, 72]
    picture = dataclasses.replace(
        dataset.pictures[0],
        boxes=np.array([[cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]], np.float32).clip(0),
        classes=np.array([0]),
        ignore=np.zeros((0, 4), np.float32),
    )
    dataset = dataclasses.replace(dataset, pictures=(picture,))
    model = SeesOneAnchor(row, len(dataset.classes))
    assert training.evaluate(model, dataset, dataset.classes, 64, OTHER_SCALES).ap == 1
    default = Recipe.anchor_scales
    assert training.evaluate(model, dataset, dataset.classes, 64, default).ap < 1


def test_a_student_learns_from_its_teacher(recipe, tmp_path):
    recipe = dataclasses.replace(recipe, epochs=1)
    train(dataclasses.replace(recipe, alpha=0.2), tmp_path / "teacher")
    train(recipe, tmp_path / "alone")
    taught = dataclasses.replace(recipe, teacher=str(tmp_path / "teacher" / BEST))
    losses = {}
    for distillation in (0.0, 0.5):
        folder = tmp_path / f"taught {distillation}"
        train(dataclasses.replace(taught, distillation=distillation), folder)
        losses[distillation] = json.loads((folder / "log.jsonl").read_text())["distillation_loss"]
    assert losses[0.0] == 0
    assert losses[0.5] > 0
    alone = weights(tmp_path / "alone")
    assert_same(weights(tmp_path / "taught 0.0"), alone)
    moved = weights(tmp_path / "taught 0.5")
    assert any((moved[name] != alone[name]).any() for name in moved)


def test_steps_on_one_batch_bring_its_loss_down(recipe):
    """Network, targets, loss and optimiser together; twice the loss would mean a wrong sign."""
    torch.manual_seed(0)
    dataset = read_coco(Path(recipe.validation))
    data = TrainingData([(dataset, 1.0)])
    images, targets = collate([data[Draw(i, 72, 96, (i,))] for i in range(4)])
    model = SSDLite("mobilenet_v2", 0.25, len(dataset.classes))
    optimizer = make_optimizer(model, dataclasses.replace(recipe, learning_rate=5e-3))
    anchors = torch.from_numpy(make_anchors(72, 96))
    answers = make_answers(anchors, targets)
    losses = []
    for _ in range(30):
        regressions, logits = model(to_input(images, torch.device("cpu")))
        loss = sum(detection_loss(regressions, logits, anchors, answers))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_the_rate_warms_up_and_falls_to_zero():
    recipe = Recipe((Source(Path("a")),), "b", epochs=10, warmup_steps=10, learning_rate=0.1)
    assert learning_rate(0, recipe, 10) == pytest.approx(0.01)
    assert learning_rate(50, recipe, 10) == pytest.approx(0.05)  # half-way down the cosine
    assert learning_rate(100, recipe, 10) == pytest.approx(0, abs=1e-9)


def test_settled_statistics_are_those_of_the_weights(recipe, monkeypatch):
    """With one batch, normalising in evaluation gives what normalising by the batch gives."""
    torch.manual_seed(0)
    dataset = read_coco(Path(recipe.validation))
    data = TrainingData([(dataset, 1.0)])
    model = SSDLite("mobilenet_v2", 0.1, len(dataset.classes))
    seen = []
    model.register_forward_hook(lambda _, inputs, outputs: seen.append((inputs[0], outputs)))
    monkeypatch.setattr(training, "SETTLING_BATCHES", 1)
    recipe = dataclasses.replace(recipe, batch_size=64, settling_sizes=(128,))
    training.settle_normalisation(model, data, recipe)
    assert not model.training
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.1}
    images, expected = seen[0]
    with torch.no_grad():
        boxes, scores = model(images)
    # Running variances are unbiased and batch variances are not, which tells on the smallest maps.
    for found, wanted in ((scores, expected[1]), (boxes, expected[0])):
        assert (found - wanted).abs().mean() < 0.02 * wanted.abs().mean()


def test_only_convolutions_across_channels_decay():
    model = SSDLite("mobilenet_v2", 0.1, 2)
    decayed, free = make_optimizer(model, Recipe((Source(Path("a")),), "b")).param_groups
    assert decayed["weight_decay"] > 0
    assert free["weight_decay"] == 0
    assert all(p.ndim == 4 and p.shape[1] > 1 for p in decayed["params"])
    count = len(decayed["params"]) + len(free["params"])
    assert count == len(list(model.parameters()))


def test_the_average_moves_by_its_share():
    average, model = torch.nn.BatchNorm2d(1), torch.nn.BatchNorm2d(1)
    torch.nn.init.constant_(average.weight, 1.0)
    torch.nn.init.constant_(model.weight, 2.0)
    model.running_mean.fill_(10.0)
    model.num_batches_tracked.fill_(7)
    update_average(average, model, decay=0.9)
    assert average.weight.item() == pytest.approx(1.1)
    assert average.running_mean.item() == pytest.approx(1.0)
    assert average.num_batches_tracked.item() == 7

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from mbnet_perception.core.anchors import make_anchors
from mbnet_perception.evaluation.dataset import read_coco
from mbnet_perception.evaluation.synthetic import write_pictures
from mbnet_perception.training import train as training
from mbnet_perception.training.data import Draw, TrainingData, collate
from mbnet_perception.training.loss import detection_loss
from mbnet_perception.training.model import SSDLite
from mbnet_perception.training.recipe import Recipe
from mbnet_perception.training.train import (
    CHECKPOINT,
    TrainingError,
    learning_rate,
    make_optimizer,
    read_checkpoint,
    save_checkpoint,
    to_input,
    train,
    update_average,
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    labels = str(write_pictures(tmp_path_factory.mktemp("data"), 4, size=(96, 72)))
    return Recipe(
        train=(labels,),
        validation=labels,
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
    return read_checkpoint(folder / CHECKPOINT)[key]


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0)


def test_a_resumed_run_ends_where_an_unbroken_one_does(recipe, tmp_path, monkeypatch):
    train(recipe, tmp_path / "whole")
    save = training.save_checkpoint

    def save_and_stop(state, path):
        save(state, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "save_checkpoint", save_and_stop)
        train(recipe, tmp_path / "broken")
    assert read_checkpoint(tmp_path / "broken" / CHECKPOINT)["epoch"] == 1
    train(recipe, tmp_path / "broken", resume=True)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    assert_same(weights(tmp_path / "whole", "average"), weights(tmp_path / "broken", "average"))


def test_a_started_folder_is_not_overwritten(recipe, tmp_path):
    save_checkpoint({}, tmp_path / CHECKPOINT)
    with pytest.raises(TrainingError, match=r"exists; resume it, or choose another folder"):
        train(recipe, tmp_path)


def test_resuming_another_recipe_is_refused(recipe, tmp_path):
    train(dataclasses.replace(recipe, epochs=1), tmp_path)
    with pytest.raises(TrainingError, match="is of another recipe"):
        train(recipe, tmp_path, resume=True)


def test_a_run_can_start_from_another_checkpoint(recipe, tmp_path, monkeypatch):
    train(dataclasses.replace(recipe, epochs=1), tmp_path / "first")
    started = []

    def note_and_stop(model, _):
        started.append(model)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "make_optimizer", note_and_stop)
    follow = dataclasses.replace(recipe, start_from=str(tmp_path / "first" / CHECKPOINT))
    with pytest.raises(KeyboardInterrupt):
        train(follow, tmp_path / "second")
    assert_same(started[0].state_dict(), weights(tmp_path / "first", "average"))


def test_a_start_of_another_network_names_both(recipe, tmp_path):
    train(dataclasses.replace(recipe, epochs=1), tmp_path / "first")
    start = str(tmp_path / "first" / CHECKPOINT)
    with pytest.raises(TrainingError, match=r"holds mobilenet_v2 alpha 0\.1 with 11 classes"):
        train(dataclasses.replace(recipe, alpha=0.2, start_from=start), tmp_path / "second")


def test_a_loss_that_is_not_finite_stops_the_run(recipe, tmp_path, monkeypatch):
    nan = torch.tensor(math.nan)
    monkeypatch.setattr(training, "detection_loss", lambda *_: (nan, nan))
    with pytest.raises(TrainingError, match=r"the loss is nan at step 0 of epoch 1"):
        train(recipe, tmp_path)
    assert not (tmp_path / CHECKPOINT).exists()


def test_steps_on_one_batch_bring_its_loss_down(recipe):
    """Network, targets, loss and optimiser together; twice the loss would mean a wrong sign."""
    torch.manual_seed(0)
    dataset = read_coco(Path(recipe.validation))
    data = TrainingData([dataset], dataset.classes)
    images, targets = collate([data[Draw(i, 72, 96, (i,))] for i in range(4)])
    model = SSDLite("mobilenet_v2", 0.25, len(dataset.classes))
    optimizer = make_optimizer(model, dataclasses.replace(recipe, learning_rate=5e-3))
    anchors = torch.from_numpy(make_anchors(72, 96))
    losses = []
    for _ in range(30):
        regressions, logits = model(to_input(images, torch.device("cpu")))
        loss = sum(detection_loss(regressions, logits, anchors, targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"PK\x03\x04 not a checkpoint", id="damaged"),
    ],
)
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    path = tmp_path / CHECKPOINT
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=f"{CHECKPOINT}: no checkpoint"):
        read_checkpoint(path)


def test_a_foreign_checkpoint_is_refused(tmp_path):
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(TrainingError, match="expected a checkpoint of mbnet train"):
        read_checkpoint(tmp_path / "other.pt")


def test_an_interrupted_save_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / CHECKPOINT
    save_checkpoint({"value": 1}, path)

    def fail(state, target):
        target.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint({"value": 2}, path)
    assert torch.load(path, weights_only=True) == {"value": 1}


def test_the_rate_warms_up_and_falls_to_zero():
    recipe = Recipe(("a",), "b", epochs=10, warmup_steps=10, learning_rate=0.1)
    assert learning_rate(0, recipe, 10) == pytest.approx(0.01)
    assert learning_rate(50, recipe, 10) == pytest.approx(0.05)  # half-way down the cosine
    assert learning_rate(100, recipe, 10) == pytest.approx(0, abs=1e-9)


def test_settled_statistics_are_those_of_the_weights(recipe, monkeypatch):
    """With one batch, normalising in evaluation gives what normalising by the batch gives."""
    torch.manual_seed(0)
    dataset = read_coco(Path(recipe.validation))
    data = TrainingData([dataset], dataset.classes)
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
    decayed, free = make_optimizer(model, Recipe(("a",), "b")).param_groups
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

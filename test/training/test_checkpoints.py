import os
import resource
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v2

import mbnet_perception
from mbnet_perception.evaluation.sources import Source
from mbnet_perception.training import checkpoints
from mbnet_perception.training.checkpoints import (
    TrainingError,
    describe_code,
    load_start,
    read_checkpoint,
    save_checkpoint,
    write_recipe,
)
from mbnet_perception.training.model import SSDLite
from mbnet_perception.training.recipe import Recipe, read_recipe

CLASSES = ("cat", "dog")


def recipe(alpha=0.1, **more):
    return Recipe((Source(Path("a.json")),), "b.json", alpha=alpha, **more)


def write_checkpoint(path, alpha=0.1, classes=CLASSES, backbone="mobilenet_v2"):
    """A checkpoint whose averaged weights differ from its others; gives the averaged ones."""
    weights = SSDLite(backbone, alpha, len(classes)).state_dict()
    state = {
        "recipe": recipe(alpha, backbone=backbone).as_dict(),
        "classes": list(classes),
        "epoch": 1,
        "model": SSDLite(backbone, alpha, len(classes)).state_dict(),
        "average": weights,
        "optimizer": {},
    }
    save_checkpoint(state, path)
    return weights


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"PK\x03\x04 not a checkpoint", id="damaged"),
    ],
)
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"last\.pt: no checkpoint"):
        read_checkpoint(path)


def test_a_foreign_checkpoint_is_refused(tmp_path):
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(TrainingError, match="expected a checkpoint of mbnet train"):
        read_checkpoint(tmp_path / "other.pt")


class Touch:
    """Pickles to a call that leaves a file behind when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_runs_nothing(tmp_path):
    torch.save({"recipe": Touch(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(TrainingError, match=r"evil\.pt: no checkpoint"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


@contextmanager
def little_room():
    """No file of this process may grow beyond 10 kB, as on a disk that is about to be full.

    Not for a whole test: pytest's own output may be a longer file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint({"value": 1}, path)
    message = r"last\.pt: cannot be saved.*previous one is whole"
    with pytest.raises(TrainingError, match=message), little_room():
        save_checkpoint({"value": torch.zeros(100_000)}, path)
    assert torch.load(path, weights_only=True) == {"value": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_full_disk_at_the_first_checkpoint_leaves_nothing(tmp_path):
    message = r"no previous one\. Make room .* --resume"
    with pytest.raises(TrainingError, match=message), little_room():
        save_checkpoint({"value": torch.zeros(100_000)}, tmp_path / "last.pt")
    assert not list(tmp_path.iterdir())


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0)


def test_a_start_of_the_same_classes_gives_all_averaged_weights(tmp_path):
    theirs = write_checkpoint(tmp_path / "first.pt")
    model = SSDLite("mobilenet_v2", 0.1, 2)
    said = load_start(model, tmp_path / "first.pt", recipe(), CLASSES)
    assert said.startswith("all weights of")
    assert_same(model.state_dict(), theirs)


@pytest.mark.parametrize(
    "classes", [pytest.param(("a", "b", "c"), id="more"), pytest.param(("dog", "cat"), id="order")]
)
def test_a_start_of_other_classes_gives_its_backbone(tmp_path, classes):
    theirs = write_checkpoint(tmp_path / "first.pt", classes=classes)
    model = SSDLite("mobilenet_v2", 0.1, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    said = load_start(model, tmp_path / "first.pt", recipe(), CLASSES)
    assert said.startswith("backbone, as classes differ")
    for name, value in model.state_dict().items():
        expected = theirs if name.startswith("blocks.") else before
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("alpha", "backbone"),
    [pytest.param(0.2, "mobilenet_v2", id="alpha"), pytest.param(0.1, "mobilenet_v1", id="kind")],
)
def test_a_start_of_another_network_names_both(tmp_path, alpha, backbone):
    write_checkpoint(tmp_path / "first.pt", alpha, backbone=backbone)
    message = rf"first\.pt: holds {backbone} alpha {alpha} .* asks for mobilenet_v2 alpha 0\.1;"
    with pytest.raises(TrainingError, match=message):
        load_start(SSDLite("mobilenet_v2", 0.1, 2), tmp_path / "first.pt", recipe(), CLASSES)


def test_weights_of_torchvision_see_what_they_are_used_to(tmp_path):
    """On a picture of one colour ours gives, away from the border, what theirs does."""
    torch.manual_seed(0)
    theirs = mobilenet_v2().eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    torch.save(theirs.state_dict(), tmp_path / "mobilenet_v2.pth")
    ours = SSDLite("mobilenet_v2", 1.0, 2).eval()
    load_start(ours, tmp_path / "mobilenet_v2.pth", recipe(1.0), CLASSES)

    picture = torch.rand(1, 3, 64, 64)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        expected = theirs.features[0]((picture - mean) / deviation)
        found = ours.blocks[0](picture * 2 - 1)
        torch.testing.assert_close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
        # And the rest of the backbone is theirs as it is.
        for i in (1, 2):
            torch.testing.assert_close(ours.blocks[i](expected), theirs.features[i](expected))
            expected = theirs.features[i](expected)
    assert_same(
        dict(enumerate(ours.blocks[-1].state_dict().values())),
        dict(enumerate(theirs.features[18].state_dict().values())),
    )


def test_weights_of_torchvision_fit_alpha_1_alone(tmp_path):
    path = tmp_path / "mobilenet_v2.pth"
    torch.save({"features.0.0.weight": torch.zeros(1)}, path)
    with pytest.raises(TrainingError, match=r"fits mobilenet_v2 alpha 1; .* alpha 0\.1"):
        load_start(SSDLite("mobilenet_v2", 0.1, 2), path, recipe(), CLASSES)
    with pytest.raises(TrainingError, match=r"mobilenet_v2\.pth: expected \d+ tensors"):
        load_start(SSDLite("mobilenet_v2", 1.0, 2), path, recipe(1.0), CLASSES)


def test_the_recipe_beside_a_checkpoint_can_be_run_again(tmp_path):
    write_recipe(recipe(0.35), {"torch": "2.15", "commit": "abc"}, tmp_path / "recipe.yaml")
    assert read_recipe(tmp_path / "recipe.yaml") == recipe(0.35)
    assert "# torch: 2.15\n# commit: abc\n" in (tmp_path / "recipe.yaml").read_text()


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_that_of_the_package(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(mbnet_perception, "__file__", str(package / "__init__.py"))
    assert "commit" not in describe_code()
    git(tmp_path, "init")
    # An environment lies in many a repository that does not track it.
    (tmp_path / "theirs").write_text("")
    git(tmp_path, "add", "theirs")
    git(tmp_path, "commit", "-m", "theirs")
    assert "commit" not in describe_code()
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "ours")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert describe_code()["commit"] == head
    (package / "__init__.py").write_text("changed = True")
    assert describe_code()["commit"] == f"{head} and changes since"
    assert describe_code()["torch"] == torch.__version__.split("+")[0]


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(checkpoints, "PACKAGES", ("torch", "no_such_package"))
    assert set(describe_code()) - {"commit"} == {"python", "torch"}

"""What a run leaves behind, and what another may begin with."""

from __future__ import annotations

import io
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

import mbnet_perception
from mbnet_perception.core.files import replace_file
from mbnet_perception.training.model import SSDLite
from mbnet_perception.training.recipe import Recipe, recipe_from

PACKAGES = ("mbnet_perception", "torch", "torchvision", "numpy", "albumentations")


class TrainingError(RuntimeError):
    """A run that cannot go on; the message says where it stood and what to do."""


def save_checkpoint(state: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint; whatever goes wrong leaves the previous one whole.

    Raises:
        TrainingError: If it cannot be written, as when the disk is full.
    """
    content = io.BytesIO()
    torch.save(dict(state), content)
    try:
        replace_file(path, content.getbuffer())
    except OSError as error:
        previous = "the previous one is whole" if path.exists() else "there is no previous one"
        raise TrainingError(
            f"{path}: cannot be saved: {error.strerror}; {previous}. "
            "Make room in that folder, then go on with --resume"
        ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours without running anything in it.

    Raises:
        TrainingError: If it is missing, damaged, or no checkpoint of ``mbnet train``.
    """
    state = _load(path)
    wanted = {"recipe", "classes", "epoch", "model", "average", "optimizer"}
    if not isinstance(state, dict) or not wanted <= set(state):
        raise TrainingError(f"{path}: expected a checkpoint of mbnet train with {sorted(wanted)}")
    recipe_from(state["recipe"], str(path))
    return state


def read_network(path: Path) -> tuple[SSDLite, Recipe, dict[str, Any]]:
    """The averaged network of a checkpoint, in evaluation mode, its recipe, and the checkpoint.

    Raises:
        TrainingError: If it cannot be read, or its weights are of another network than its recipe.
    """
    state = read_checkpoint(path)
    recipe = recipe_from(state["recipe"], str(path))
    network = SSDLite(recipe.backbone, recipe.alpha, len(state["classes"]))
    try:
        network.load_state_dict(state["average"])
    except RuntimeError as error:
        raise TrainingError(
            f"{path}: its weights do not fit its own recipe, {recipe.backbone} alpha "
            f"{recipe.alpha:g} with {len(state['classes'])} classes; train it again"
        ) from error
    return network.eval(), recipe, state


def load_start(model: SSDLite, path: Path, recipe: Recipe, classes: tuple[str, ...]) -> str:
    """Take over the weights that ``Recipe.start_from`` names.

    A checkpoint of the same backbone and alpha gives its averaged weights: all of them where the
    classes are the same, those of the backbone where they are not. The state dict of torchvision's
    ``mobilenet_v2`` gives its backbone to alpha 1.0.

    Returns:
        What was taken, for people.

    Raises:
        TrainingError: If the file cannot be read, or is of another network; names both.
    """
    asked = f"{recipe.backbone} alpha {recipe.alpha:g}"
    state = _load(path)
    if isinstance(state, dict) and "features.0.0.weight" in state:
        if (recipe.backbone, recipe.alpha) != ("mobilenet_v2", 1.0):
            raise TrainingError(
                f"{path}: holds torchvision's mobilenet_v2, which fits mobilenet_v2 alpha 1; "
                f"the recipe asks for {asked}"
            )
        try:
            model.load_torchvision(_tensors(state))
        except ValueError as error:
            raise TrainingError(f"{path}: {error}") from error
        return f"backbone of torchvision's mobilenet_v2 in {path}"
    state = read_checkpoint(path)
    theirs = recipe_from(state["recipe"], str(path))
    same_classes = list(classes) == state["classes"]
    try:
        if (theirs.backbone, theirs.alpha) != (recipe.backbone, recipe.alpha):
            raise RuntimeError("another network")
        if same_classes:
            model.load_state_dict(state["average"])
        else:
            model.load_backbone(state["average"])
    except RuntimeError as error:
        raise TrainingError(
            f"{path}: holds {theirs.backbone} alpha {theirs.alpha:g} with "
            f"{len(state['classes'])} classes, but the recipe asks for {asked}; "
            "start_from needs the same backbone and alpha"
        ) from error
    return f"{'all weights' if same_classes else 'backbone, as classes differ,'} of {path}"


def describe_code() -> dict[str, str]:
    """The commit of this package, where it is in a Git repository, and versions that matter."""
    described = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            described[package] = version(package)
        except PackageNotFoundError:  # a checkout that was never installed; no albumentations
            continue
    commit = _commit(Path(mbnet_perception.__file__).parent)
    return described | ({"commit": commit} if commit else {})


def write_recipe(recipe: Recipe, code: Mapping[str, str], path: Path) -> None:
    """Write a recipe so that ``mbnet train`` can repeat it; what code it ran with is a comment."""
    lines = [f"# {name}: {value}\n" for name, value in code.items()]
    text = yaml.safe_dump(recipe.as_dict(), sort_keys=False, default_flow_style=None)
    path.write_text("".join(lines) + text, encoding="utf-8")


def _commit(folder: Path) -> str:
    """Of the repository that tracks the folder: an environment inside another one's is not it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        changed = " and changes since" if git("status", "--porcelain", ".") else ""
        return git("rev-parse", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return ""


def _load(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler or the archive does
        raise TrainingError(f"{path}: no checkpoint that PyTorch can read: {error}") from error


def _tensors(state: dict[Any, Any]) -> dict[str, Tensor]:
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}

"""Folders are sorted by what a file needs installed; imports only point one way."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = "mbnet_perception"
ROOT = Path(__file__).parents[1] / PACKAGE

# What each folder may use of ours besides itself, and, where it is a short list, of others.
OURS = {
    "core": set(),
    "inference": {"core"},
    "evaluation": {"core", "inference"},
    "nodes": {"core", "inference", "evaluation"},
    "training": {"core", "inference", "evaluation"},
}
OTHERS = {
    "core": {"numpy", "cv2"},
    "inference": {"numpy", "cv2", "onnxruntime", "yaml"},
}
# A car has no rosbags. These nodes are for a desk.
NODES_FOR_A_DESK = {"replay.py", "demo.py", "recorder.py"}


def imported(file):
    """Names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute here"
            names.add(node.module)
            if node.module == PACKAGE:
                names |= {f"{PACKAGE}.{alias.name}" for alias in node.names}
    return names


def our_folders(names):
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == PACKAGE and len(part) > 1}


FILES = [
    pytest.param(folder, file, id=f"{folder}/{file.name}")
    for folder in OURS
    for file in sorted((ROOT / folder).rglob("*.py"))
]


def test_every_folder_has_its_rule():
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(OURS)


@pytest.mark.parametrize(("folder", "file"), FILES)
def test_imports_point_one_way(folder, file):
    names = imported(file)
    allowed = OURS[folder]
    if folder == "nodes" and file.name not in NODES_FOR_A_DESK:
        allowed = allowed - {"evaluation"}
    assert our_folders(names) <= allowed | {folder}
    others = {name.split(".")[0] for name in names} - {PACKAGE} - sys.stdlib_module_names
    if folder in OTHERS:
        assert others <= OTHERS[folder]
    if folder != "training":
        assert not others & {"torch", "torchvision", "onnx"}


def test_the_command_starts_without_anything_heavy():
    tree = ast.parse((ROOT / "cli.py").read_text(encoding="utf-8"))
    top = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    ours = our_folders(top)
    assert ours <= {"core", "inference"}

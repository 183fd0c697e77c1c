"""docs/training.md, walked as it is written, with fewer pictures."""

import json
import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from mbnet_perception.cli import main
from mbnet_perception.core.detections import Selection
from mbnet_perception.core.images import Picture
from mbnet_perception.inference.detector import Detector
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint

ROOT = Path(__file__).resolve().parents[2]

# What makes the walk short: the page's number, and the test's.
SHORTER = {"--pictures 600": "--pictures 8", "--pictures 120": "--pictures 3"}


def read_commands():
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    for long, short in SHORTER.items():
        assert long in page, f"docs/training.md lost {long!r}; adapt SHORTER"
        page = page.replace(long, short)
    blocks = re.findall(r"^```\w*\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).splitlines()
    return [shlex.split(line) for line in lines if line.startswith(("mbnet ", "cp "))]


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The folder after all commands of the page."""
    folder = tmp_path_factory.mktemp("tutorial")
    shutil.copytree(ROOT / "config", folder / "config")
    recipe = folder / "config" / "training" / "tutorial.yaml"
    short = {"epochs": 1, "batch_size": 4, "sizes": [96, 128], "settling_sizes": [128]}
    recipe.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | short))
    commands = read_commands()
    assert [c[1] for c in commands if c[0] == "mbnet"] == [
        *("synth-data", "synth-data", "data", "data"),
        *("train", "export", "quantize", "evaluate", "detect"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in commands:
            if command[0] == "cp":
                shutil.copy(*command[1:])
            else:
                assert main(command[1:]) == 0, command
    return folder


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_node_finds_the_models_that_the_page_makes(walked, precision):
    library = ModelLibrary(walked / "my_models")
    entry = library.find(OperatingPoint("mobilenet_v2", 0.35, 320, precision))
    detector = Detector(library.read(entry), 320, origin=entry.file)
    labels = json.loads((walked / "data/train/labels.json").read_text())
    assert list(detector.classes) == [category["name"] for category in labels["categories"]]
    picture = Picture.of_bgr(np.zeros((240, 320, 3), np.uint8))
    found, _ = detector.detect(picture, Selection(score_threshold=0.0, max_detections=7))
    assert len(found.boxes) == 7  # as many as are asked for, where any score will do


def test_the_page_leaves_what_it_promises(walked):
    run = walked / "runs" / "first"
    assert {"last.pt", "best.pt", "log.jsonl", "recipe.yaml", "policy.yaml"} <= {
        file.name for file in run.iterdir()
    }
    assert list((run / "tensorboard").iterdir())
    report = (walked / "report" / "report.html").read_text(encoding="utf-8")
    assert "synthetic" in report
    sheet = cv2.imread(str(walked / "sheet.jpg"))
    assert sheet is not None
    assert sheet.std() > 10  # pictures, not a blank
    drawn = sorted(file.name for file in (walked / "drawn").iterdir())
    assert drawn == sorted(file.name for file in (walked / "data/val/images").iterdir())

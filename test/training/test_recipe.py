import math
import re
from pathlib import Path

import pytest
import yaml

from mbnet_perception.evaluation.sources import Source
from mbnet_perception.training.recipe import Recipe, read_recipe, recipe_from

GOOD = {"train": ["a.json"], "validation": "b.json"}


def test_a_recipe_survives_the_round_trip():
    recipe = Recipe(
        train=(
            Source(Path("a.json")),
            Source(Path("b"), pictures=Path("c"), weight=0.5),
            Source(Path("d"), weight=2.0),
        ),
        validation="c.json",
        alpha=0.35,
        sizes=(64, 96),
        anchor_scales=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
    )
    assert recipe_from(yaml.safe_load(yaml.safe_dump(recipe.as_dict())), "here") == recipe


def test_a_source_is_a_path_or_says_more():
    entries = ["a.json", {"labels": "b.yaml:train", "pictures": "c", "weight": 2}]
    assert recipe_from({**GOOD, "train": entries}, "here").train == (
        Source(Path("a.json")),
        Source(Path("b.yaml:train"), Path("c"), 2.0),
    )
    assert recipe_from({**GOOD, "train": entries}, "here").as_dict()["train"] == entries


def test_whole_numbers_pass_for_fractions():
    assert recipe_from({**GOOD, "alpha": 1}, "here").alpha == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"epoch": 3}, r"unknown keys ['epoch']", id="misspelt key"),
        pytest.param({"epochs": "3"}, "epochs must be int, got '3'", id="text for a number"),
        pytest.param({"epochs": 0}, "epochs must be positive, got 0", id="no epochs"),
        pytest.param({"bfloat16": 1}, "bfloat16 must be bool, got 1", id="number for a switch"),
        pytest.param({"sizes": [320, 16]}, "at least 32 pixels, got [320, 16]", id="tiny input"),
        pytest.param({"sizes": 320}, "sizes must be a list of int", id="no list"),
        pytest.param({"train": []}, "at least one label file", id="no data"),
        pytest.param({"backbone": "resnet"}, "got 'resnet'", id="unknown backbone"),
        pytest.param({"balance": -0.1}, "balance must be in [0, 1), got -0.1", id="balance"),
        pytest.param({"ema": 1.0}, "ema must be in [0, 1), got 1.0", id="frozen average"),
        pytest.param({"mosaic": 1.5}, "mosaic must be in [0, 1], got 1.5", id="share"),
        pytest.param({"on_bad": "hide"}, "on_bad must be one of ['stop', 'skip']", id="choice"),
        pytest.param({"anchor_scales": [0.1, 0.2]}, "six ascending positive", id="two scales"),
        pytest.param({"anchor_scales": ["a"]}, "must be a list of float", id="scale of text"),
        pytest.param({"learning_rate": math.nan}, "must be positive, got nan", id="no number"),
        pytest.param({"distillation": -1}, "distillation must not be negative", id="repulsion"),
        pytest.param({"train": "a.json"}, "list of label files, got 'a.json'", id="bare path"),
        pytest.param({"train": [3]}, "train[0]: expected keys and values, got int", id="source"),
        pytest.param(
            {"train": ["a", {"label": "b"}]}, "train[1]: unknown keys ['label']", id="source key"
        ),
        pytest.param({"train": [{"weight": 2}]}, "must be paths, got None", id="no labels"),
        pytest.param(
            {"train": [{"labels": "a", "weight": "2"}]}, "weight must be a number", id="weight"
        ),
        pytest.param({"workers": -1}, "workers must not be negative, got -1", id="negative"),
    ],
)
def test_nonsense_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match="recipe.yaml: .*" + re.escape(message)):
        recipe_from({**GOOD, **change}, "recipe.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("train: [", "is no YAML", id="broken"),
        pytest.param("- a", "expected keys and values, got list", id="list"),
        pytest.param("!!python/object/apply:os.getcwd []", "is no YAML", id="code"),
        pytest.param("train: [a]", "validation", id="a key is missing"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"bad.yaml: .*{message}"):
        read_recipe(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml: cannot be read"):
        read_recipe(tmp_path / "none.yaml")


def test_the_recipes_of_the_package_are_valid():
    files = sorted(Path("config/training").glob("*.yaml"))
    assert len(files) > 3
    for file in files:
        if file.name == "class_map.yaml":
            continue
        content = yaml.safe_load(file.read_text())
        recipe = read_recipe(file)
        assert recipe.alpha == content["alpha"]
        assert not recipe.policy or Path(recipe.policy).exists()

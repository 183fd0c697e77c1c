import re
from pathlib import Path

import pytest
import yaml

from mbnet_perception.training.recipe import Recipe, read_recipe, recipe_from

GOOD = {"train": ["a.json"], "validation": "b.json"}


def test_a_recipe_survives_the_round_trip():
    recipe = Recipe(train=("a.json", "b.json"), validation="c.json", alpha=0.35, sizes=(64, 96))
    assert recipe_from(recipe.as_dict(), "here") == recipe


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
    assert files
    for file in files:
        content = yaml.safe_load(file.read_text())
        assert read_recipe(file).alpha == content["alpha"]

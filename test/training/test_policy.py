import hashlib
import os
import pickle
import random
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from mbnet_perception.training.policy import Policy, policy_from, read_policy
from mbnet_perception.training.weather import Weather

PRESETS = Path(__file__).parents[2] / "config" / "training" / "policies"
ABLATION = ("kernels", "library", "both")

# Grey 100 becomes 155 by the first; the second adds a fifth of 255, which is 51.
INVERT = {"InvertImg": None}
BRIGHTEN = {"RandomBrightnessContrast": {"brightness_limit": [0.2, 0.2], "contrast_limit": [0, 0]}}


def policy(*choices, clear=0.0):
    return policy_from(
        {"clear": clear, "weather": [{"weight": w, "apply": chain} for w, chain in choices]}, "test"
    )


def kinds(policy):
    return [type(t) for choice in policy.choices for t in choice.transforms]


@pytest.fixture(scope="module")
def image():
    image = np.full((120, 160, 3), 90, np.uint8)
    image[:50] = (170, 190, 220)
    image[30:90, 60:100] = (140, 60, 40)
    return image


@pytest.fixture(scope="module")
def presets():
    return {path.stem: read_policy(path) for path in PRESETS.glob("*.yaml")}


@pytest.fixture(scope="module")
def mixed():
    """Draws from each generator that the library knows, among them OpenCV's (Gaussian noise)."""
    return policy(
        (1, [{"Rain": None}, {"RandomFog": {"p": 0.5}}]),
        (1, [{"Night": None}, {"RandomShadow": None}]),
        (1, [{"GaussNoise": None}, {"ISONoise": None}, {"RandomSunFlare": None}]),
        clear=0.2,
    )


def pictures(policy, image, order=range(12)):
    made = {k: policy.apply(image, (5, 0, k)) for k in order}
    return [made[k] for k in sorted(made)]


def test_a_chain_is_applied_in_its_order():
    grey = np.full((120, 160, 3), 100, np.uint8)
    assert np.unique(policy((1, [INVERT, BRIGHTEN])).apply(grey, (0,))) == 155 + 51
    assert np.unique(policy((1, [BRIGHTEN, INVERT])).apply(grey, (0,))) == 255 - (100 + 51)


def test_choices_come_by_weight_and_the_clear_share_stays_the_same_picture():
    grey = np.full((2, 2, 3), 100, np.uint8)
    made = [
        policy_.apply(grey, (0, k))
        for policy_ in [policy((3, [INVERT]), (1, [BRIGHTEN]), clear=0.6)]
        for k in range(2000)
    ]
    clear = sum(picture is grey for picture in made)
    inverted = sum(picture[0, 0, 0] == 155 for picture in made)
    brightened = sum(picture[0, 0, 0] == 151 for picture in made)
    # Shares 0.6, 0.4 x 3/4 and 0.4 x 1/4 of 2000, 5 sigma of a binomial each.
    assert clear == pytest.approx(1200, abs=110)
    assert inverted == pytest.approx(600, abs=103)
    assert brightened == pytest.approx(200, abs=67)
    assert clear + inverted + brightened == 2000


def test_a_transform_happens_always_unless_told_otherwise():
    grey = np.full((2, 2, 3), 100, np.uint8)
    assert all(policy((1, [INVERT])).apply(grey, (k,))[0, 0, 0] == 155 for k in range(20))
    halved = policy((1, [{"InvertImg": {"p": 0.5}}]))
    inverted = sum(halved.apply(grey, (k,))[0, 0, 0] == 155 for k in range(400))
    assert inverted == pytest.approx(200, abs=50)  # 5 sigma


def test_members_of_a_chain_draw_apart():
    # Were their draws the same, both would invert or neither would, and 100 always stay.
    twice = policy((1, [{"InvertImg": {"p": 0.5}}] * 2))
    grey = np.full((2, 2, 3), 100, np.uint8)
    made = [int(twice.apply(grey, (0, k))[0, 0, 0]) for k in range(400)]
    assert made.count(155) == pytest.approx(200, abs=50)  # 5 sigma


def test_draws_are_others_than_the_callers_of_the_same_seed():
    # A picture that its caller keeps whole is one whose first number is below 0.25.
    half = policy((1, [INVERT]), clear=0.5)
    grey = np.full((2, 2, 3), 100, np.uint8)
    whole = [(0, k) for k in range(4000) if np.random.default_rng((0, k)).random() < 0.25]
    clear = sum(half.apply(grey, seed) is grey for seed in whole)
    assert clear / len(whole) == pytest.approx(0.5, abs=0.08)  # 5 sigma of 1000


def test_a_picture_follows_from_its_seed_alone(mixed, image):
    first = pictures(mixed, image)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    cv2.setRNGSeed(1)
    again = pictures(mixed, image, order=[7, 3, 3, *range(11, -1, -1)])
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, pictures(pickle.loads(pickle.dumps(mixed)), image))
    assert len({picture.tobytes() for picture in first}) >= 8  # some stay clear


@pytest.fixture(scope="module")
def other_process(mixed, image):
    """What a fresh Python prints that may not reach the network and applies the pickled policy."""
    script = """
import hashlib, pickle, socket, sys, urllib.request
def ask(*args, **_):
    print("asked", args)
    raise OSError
socket.getaddrinfo = socket.create_connection = urllib.request.urlopen = ask
policy, image = pickle.load(sys.stdin.buffer)
print(hashlib.sha256(b"".join(policy.apply(image, (5, 0, k)) for k in range(12))).hexdigest())
"""
    environment = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=pickle.dumps((mixed, image)),
        env=environment,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().splitlines()


def test_another_process_makes_the_same_pictures(other_process, mixed, image):
    here = hashlib.sha256(b"".join(pictures(mixed, image))).hexdigest()
    assert other_process[-1] == here


def test_importing_asks_nothing_of_the_network(other_process):
    assert not [line for line in other_process if line.startswith("asked")]


def test_the_generators_of_python_and_numpy_stay_where_they_are(mixed, image):
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    pictures(mixed, image)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


@pytest.mark.parametrize("preset", [path.stem for path in sorted(PRESETS.glob("*.yaml"))])
def test_a_preset_changes_pictures_and_never_their_shape(preset, presets, image):
    before = image.copy()
    for choice in presets[preset].choices:
        made = Policy(0.0, (choice,)).apply(image, (2,))
        assert (made.shape, made.dtype) == (image.shape, np.uint8)
        assert not np.array_equal(made, image), choice
        np.testing.assert_array_equal(image, before)


def test_the_ablation_compares_like_with_like(presets):
    kernels, library, both = (
        yaml.safe_load((PRESETS / f"{name}.yaml").read_text()) for name in ABLATION
    )
    assert kernels["clear"] == library["clear"] == both["clear"] == 0.5
    assert all(issubclass(kind, Weather) for kind in kinds(presets["kernels"]))
    assert not any(issubclass(kind, Weather) for kind in kinds(presets["library"]))
    assert both["weather"] == kernels["weather"] + library["weather"]
    shares = [sum(c["weight"] for c in each["weather"]) for each in (kernels, library)]
    assert shares[0] == shares[1]


@pytest.mark.parametrize("preset", ABLATION)
def test_the_ablation_leaves_out_what_it_is_tested_on(preset, presets):
    tested = re.compile(
        "Noise|SaltAndPepper|Blur|Defocus|Contrast|CLAHE|Compression|Downscale|Snow"
    )
    assert not [kind for kind in kinds(presets[preset]) if tested.search(kind.__name__)]
    for choice in presets[preset].choices:
        for transform in choice.transforms:
            assert tuple(getattr(transform, "contrast", (1, 1))) == (1, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("clear: 0.5", r"missing keys \['weather'\]", id="nothing to choose from"),
        pytest.param("[1, 2]", r"expected keys \['clear', 'weather'\], got list", id="a list"),
        pytest.param("", "got NoneType", id="empty"),
        pytest.param("clear: [", "is no YAML", id="no YAML"),
        pytest.param("clear: 2\nweather: []", r"clear must be .* \[0, 1\], got 2", id="share of 2"),
        pytest.param("clear: 1\nweather: []", r"at least one choice, got \[\]", id="no choices"),
        pytest.param("clear: 1\nwether: []", r"unknown keys \['wether'\]", id="misspelt key"),
    ],
)
def test_a_bad_file_is_named_with_what_it_should_hold(text, says, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"bad\.yaml: .*{says}"):
        read_policy(path)


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml: cannot be read: No such file"):
        read_policy(tmp_path / "none.yaml")
    (tmp_path / "picture.yaml").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match=r"picture\.yaml: is no YAML"):
        read_policy(tmp_path / "picture.yaml")


@pytest.mark.parametrize(
    ("transform", "says"),
    [
        pytest.param(
            {"RandomRian": None}, "'RandomRian', did you mean 'RandomRain'", id="misspelt"
        ),
        pytest.param(
            {"HorizontalFlip": None}, "leave boxes where they are: .*'Fog'", id="moves boxes"
        ),
        pytest.param({"Compose": None}, "unknown transform 'Compose'", id="no transform"),
        pytest.param("Fog", "expected a transform with its arguments", id="name alone"),
        pytest.param({"Fog": None, "Rain": None}, "expected a transform", id="two in one"),
        pytest.param({"Fog": 3}, r"Fog: expected its arguments .*, got 3", id="no arguments"),
        pytest.param(
            {"Fog": {"severty": [1, 5]}},
            r"Fog: unknown arguments \['severty'\]; known: \['p', 'severity'\]",
            id="misspelt argument",
        ),
        pytest.param(
            {"Fog": {"severity": [1, 9]}}, r"Fog: severity: .*got \[1, 9\]", id="severity 9"
        ),
        pytest.param(
            {"RandomRain": {"rain_type": "hail"}}, "RandomRain: rain_type: .*'hail'", id="rain type"
        ),
        pytest.param({"RandomFog": {"p": 2}}, "RandomFog: p: .*got 2", id="probability 2"),
        pytest.param(
            {"MotionBlur": {"blur_limit": [4, 4]}}, "MotionBlur: .*odd", id="only warned of"
        ),
        pytest.param({"ToFloat": None}, "ToFloat must give pictures as .* float32", id="no uint8"),
        pytest.param({"FDA": None}, "FDA: .*fda_metadata", id="wants more than a picture"),
    ],
)
def test_a_bad_transform_is_named_with_its_place(transform, says):
    with pytest.raises(ValueError, match=f"^test: choice 2: .*{says}"):
        policy((1, [INVERT]), (1, [BRIGHTEN, transform]))


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "1", True])
def test_a_weight_is_a_positive_number(weight):
    with pytest.raises(ValueError, match=r"choice 1: weight must be in \(0, 1e6\], got"):
        policy((weight, [INVERT]))


def test_a_choice_needs_a_transform():
    with pytest.raises(ValueError, match="choice 1: apply must list at least one transform"):
        policy((1, []))

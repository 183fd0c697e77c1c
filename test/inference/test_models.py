from pathlib import Path

import pytest
import yaml

from mbnet_perception.inference.detector import Detector
from mbnet_perception.inference.format import ModelError
from mbnet_perception.inference.models import (
    MANIFEST,
    ModelLibrary,
    OperatingPoint,
    add_model,
)

CHECKOUT = Path(__file__).parents[2] / "models"
SMALL = OperatingPoint(alpha=0.35, resolution=64)
LARGE = OperatingPoint(alpha=0.5, resolution=96)


@pytest.fixture
def folder(tmp_path, make_metadata):
    """Two models, as far as a library looks into them."""
    add_model(tmp_path, b"the large model", make_metadata(alpha=0.5), {"ap50": 0.3})
    add_model(tmp_path, b"the small model", make_metadata(alpha=0.35), {"ap50": 0.2})
    return tmp_path


def edit_manifest(folder, **changes):
    """Change fields of the first model."""
    path = folder / MANIFEST
    content = yaml.safe_load(path.read_text())
    content["models"][0].update(changes)
    path.write_text(yaml.safe_dump(content))


def read(folder, point):
    library = ModelLibrary(folder)
    return library.read(library.find(point))


def test_what_was_added_is_found(folder):
    assert read(folder, SMALL) == b"the small model"
    assert read(folder, LARGE) == b"the large model"
    assert [entry.alpha for entry in ModelLibrary(folder).entries] == [0.35, 0.5]
    assert len(list(folder.iterdir())) == 3  # nothing half written stays


def test_a_model_takes_the_place_of_its_like(folder, make_metadata):
    add_model(folder, b"better", make_metadata(alpha=0.5, resolutions=(96, 128)), {})
    assert read(folder, LARGE) == b"better"
    assert [entry.resolutions for entry in ModelLibrary(folder).entries] == [(64, 96), (96, 128)]


def test_alpha_may_come_through_single_precision(folder):
    # A ROS parameter is a double, but 0.35 may have been a float32 on its way.
    assert read(folder, OperatingPoint(alpha=0.3499999940395355, resolution=64))


@pytest.mark.parametrize(
    ("point", "message"),
    [
        pytest.param(
            OperatingPoint(alpha=0.4, resolution=64),
            "no model mobilenet_v2 alpha 0.4 fp32 at 64; available: "
            "mobilenet_v2 alpha 0.35 fp32 at 64, 96; mobilenet_v2 alpha 0.5 fp32 at 64, 96",
            id="alpha",
        ),
        pytest.param(
            OperatingPoint(alpha=0.5, resolution=300),
            "resolution 300 is not available for mobilenet_v2 alpha 0.5 fp32; there is 64, 96",
            id="resolution",
        ),
        pytest.param(
            OperatingPoint(alpha=0.5, resolution=64, precision="int8"),
            "no model mobilenet_v2 alpha 0.5 int8 at 64; available: mobilenet_v2 alpha 0.35 fp32",
            id="precision",
        ),
        pytest.param(
            OperatingPoint("mobilenet_v1", alpha=0.5, resolution=64),
            "no model mobilenet_v1 alpha 0.5 fp32 at 64; available: mobilenet_v2 alpha 0.35 fp32",
            id="backbone",
        ),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(folder, point, message):
    with pytest.raises(ModelError, match=message):
        ModelLibrary(folder).find(point)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda small, large: small.write_bytes(small.read_bytes()[:-1]), id="cut"),
        pytest.param(lambda small, large: small.write_bytes(large.read_bytes()), id="another"),
    ],
)
def test_a_file_that_is_not_the_listed_one_is_refused(folder, damage):
    small, large = (folder / entry.file for entry in ModelLibrary(folder).entries)
    damage(small, large)
    with pytest.raises(ModelError, match=rf"{small}: has sha256 .*truncated, or another file"):
        read(folder, SMALL)
    assert read(folder, LARGE) == b"the large model"


def test_swapped_files_are_both_refused(folder):
    small, large = (folder / entry.file for entry in ModelLibrary(folder).entries)
    small.rename(folder / "aside")
    large.rename(small)
    (folder / "aside").rename(large)
    for point, file in ((SMALL, small), (LARGE, large)):
        with pytest.raises(ModelError, match=rf"{file}: has sha256"):
            read(folder, point)


def test_a_missing_file_is_named(folder):
    path = folder / ModelLibrary(folder).entries[0].file
    path.unlink()
    with pytest.raises(ModelError, match=rf"{path}: cannot be read: No such file.*reinstall"):
        read(folder, SMALL)


@pytest.mark.parametrize("file", ["../x.onnx", "/etc/passwd", "deeper/x.onnx"])
def test_a_manifest_cannot_reach_out_of_its_folder(folder, file):
    edit_manifest(folder, file=file)
    with pytest.raises(ModelError, match=f"{MANIFEST}: file must be a plain name, got '{file}'"):
        ModelLibrary(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("models: [", "expected YAML", id="no YAML"),
        pytest.param("!!python/object/apply:os.getcwd []", "expected YAML", id="code"),
        pytest.param("manifest_version: 2\nmodels: []", "has version 2, this .* reads 1", id="new"),
        pytest.param("- 1\n- 2", "expected manifest_version and a list of models", id="list"),
        pytest.param("", "expected manifest_version and a list of models", id="empty"),
        pytest.param(
            "manifest_version: 1\nmodels:\n- file: a.onnx",
            "each with file, sha256, .*KeyError: 'sha256'",
            id="field missing",
        ),
    ],
)
def test_a_damaged_manifest_is_named(folder, text, message, make_metadata):
    path = folder / MANIFEST
    path.write_text(text)
    with pytest.raises(ModelError, match=rf"{path}: .*{message}"):
        ModelLibrary(folder)
    with pytest.raises(ModelError, match=message):
        add_model(folder, b"new", make_metadata(), {})
    assert path.read_text() == text


def test_the_measured_accuracy_is_known_by_resolution(tmp_path, make_metadata):
    accuracy = {64: {"ap": 0.1, "ap50": 0.25}, 96: {"ap": 0.2, "ap50": 0.5}}
    add_model(tmp_path, b"", make_metadata(alpha=0.5), {"data": "val.json", "accuracy": accuracy})
    add_model(tmp_path, b"", make_metadata(alpha=0.35), {})
    small, large = ModelLibrary(tmp_path).entries
    assert (small.ap50, large.ap50) == ({}, {64: 0.25, 96: 0.5})


@pytest.mark.parametrize("measured", [None, {}, {"accuracy": None}])
def test_a_model_without_a_measured_accuracy_is_usable(folder, measured):
    edit_manifest(folder, measured=measured)
    assert ModelLibrary(folder).find(SMALL).ap50 == {}


@pytest.mark.parametrize(
    "measured", ["well", {"accuracy": [0.5]}, {"accuracy": {64: 0.5}}, {"accuracy": {"a": {}}}]
)
def test_an_accuracy_that_makes_no_sense_is_refused(folder, measured):
    edit_manifest(folder, measured=measured)
    with pytest.raises(ModelError, match="expected manifest_version and a list of models"):
        ModelLibrary(folder)


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(ModelError, match=rf"{tmp_path / MANIFEST}: cannot be read: No such file"):
        ModelLibrary(tmp_path)


def test_the_models_of_the_checkout_are_found_and_hold_the_default():
    library = ModelLibrary()
    assert library.find(OperatingPoint()) in ModelLibrary(CHECKOUT).entries


def test_the_manifest_lists_every_model_of_the_checkout():
    listed = {entry.file for entry in ModelLibrary(CHECKOUT).entries}
    assert listed == {path.name for path in CHECKOUT.glob("*.onnx")}


@pytest.mark.parametrize("entry", ModelLibrary(CHECKOUT).entries, ids=lambda entry: entry.file)
def test_a_model_of_the_checkout_is_what_the_manifest_says(entry):
    content = ModelLibrary(CHECKOUT).read(entry)
    for resolution in (min(entry.resolutions), max(entry.resolutions)):
        detector = Detector(content, resolution, num_threads=1, origin=entry.file)
        detector.warm((48, 64))
    metadata = detector.metadata
    assert (metadata.backbone, metadata.alpha, metadata.precision, metadata.resolutions) == (
        entry.backbone,
        entry.alpha,
        entry.precision,
        entry.resolutions,
    )

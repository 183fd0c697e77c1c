import json

import pytest

from mbnet_perception.inference.format import FORMAT_VERSION, ModelError, metadata_from


@pytest.fixture
def props(make_metadata):
    return make_metadata().as_props()


def test_metadata_comes_back_as_it_was(make_metadata):
    metadata = make_metadata(alpha=0.35, classes=("car", "person"), resolutions=(224, 320))
    props = metadata.as_props()
    assert all(isinstance(value, str) for value in props.values())  # what ONNX can hold
    assert metadata_from(props, "a.onnx") == metadata


def test_other_properties_are_no_matter(make_metadata, props):
    assert metadata_from({**props, "producer": "somebody"}, "a.onnx") == make_metadata()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"alpha": None}, "metadata lacks 'alpha'", id="missing"),
        pytest.param({"alpha": "a half"}, "metadata lacks 'alpha'", id="no JSON"),
        pytest.param({"classes": "[]"}, "holds no class names", id="no classes"),
        pytest.param({"classes": "[1, 2]"}, "holds no class names", id="numbers for classes"),
        pytest.param({"classes": '"car"'}, "holds no class names", id="text for classes"),
        pytest.param({"classes": "3"}, "holds no class names", id="number for classes"),
    ],
)
def test_damaged_metadata_is_named(props, change, message):
    props = {key: value for key, value in {**props, **change}.items() if value is not None}
    with pytest.raises(ModelError, match=rf"^a\.onnx: .*{message}"):
        metadata_from(props, "a.onnx")


@pytest.mark.parametrize("lost", ["alpha", None], ids=["with other keys", "with the same keys"])
def test_a_newer_format_asks_for_an_update(props, lost):
    props["format_version"] = json.dumps(FORMAT_VERSION + 1)
    props.pop(lost, None)
    message = r"^a\.onnx: has format version 2, this package reads 1; .*update the package"
    with pytest.raises(ModelError, match=message):
        metadata_from(props, "a.onnx")

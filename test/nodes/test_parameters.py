from dataclasses import fields

import pytest
import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from mbnet_perception.core.detections import Selection
from mbnet_perception.inference.models import OperatingPoint
from mbnet_perception.nodes.parameters import (
    DetectorSettings,
    WeatherSettings,
    declare_settings,
    values_from_text,
)

READ_ONLY = {
    "camera_topics",
    "camera_weights",
    "image_transport",
    "ladder_file",
    "autostart",
    "num_threads",
    "models_folder",
}


@pytest.fixture
def node_with():
    """Make a node named detector with these command-line arguments."""

    def start(*ros_args):
        rclpy.init(args=["--ros-args", *ros_args])
        return Node("detector")

    yield start
    rclpy.try_shutdown()


def test_without_arguments_the_defaults_hold(node_with):
    node = node_with()
    settings = declare_settings(node, DetectorSettings)
    assert settings == DetectorSettings()
    assert settings.point == OperatingPoint()
    assert settings.selection == Selection()
    for row in fields(DetectorSettings):
        declared = node.get_parameter(row.name).value
        assert (tuple(declared) if isinstance(row.default, tuple) else declared) == row.default


def test_a_parameter_file_is_honoured(node_with, tmp_path):
    file = tmp_path / "detector.yaml"
    file.write_text(
        """
        /**:
          ros__parameters:
            camera_topics: [/front/image_raw, /rear/image_raw]
            camera_weights: [2.0, 0.5]
            image_transport: compressed
            backbone: mobilenet_v1
            alpha: 0.75
            resolution: 224
            precision: int8
            score_threshold: 0.3
            iou_threshold: 0.6
            max_detections: 20
            classes: [person, car]
            max_age_ms: 200
            latency_budget_ms: 150
            ladder_file: /ladder.yaml
            stale_after_ms: 500
            overlay_rate_hz: 10
            autostart: false
            num_threads: 2
            models_folder: /models
        """
    )
    settings = declare_settings(node_with("--params-file", str(file)), DetectorSettings)
    assert settings == DetectorSettings(
        camera_topics=("/front/image_raw", "/rear/image_raw"),
        camera_weights=(2.0, 0.5),
        image_transport="compressed",
        backbone="mobilenet_v1",
        alpha=0.75,
        resolution=224,
        precision="int8",
        score_threshold=0.3,
        iou_threshold=0.6,
        max_detections=20,
        classes=("person", "car"),
        max_age_ms=200,
        latency_budget_ms=150,
        ladder_file="/ladder.yaml",
        stale_after_ms=500,
        overlay_rate_hz=10,
        autostart=False,
        num_threads=2,
        models_folder="/models",
    )
    assert settings.point == OperatingPoint("mobilenet_v1", 0.75, 224, "int8")
    assert settings.selection == Selection(0.3, 0.6, 20, ("person", "car"))


def test_every_parameter_is_described_and_what_needs_a_restart_is_read_only(node_with):
    node = node_with()
    declare_settings(node, DetectorSettings)
    names = [row.name for row in fields(DetectorSettings)]
    described = dict(zip(names, node.describe_parameters(names), strict=True))
    assert {name for name, d in described.items() if d.read_only} == READ_ONLY
    assert all(d.description.endswith(".") for d in described.values())
    (span,) = described["score_threshold"].floating_point_range
    assert (span.from_value, span.to_value) == (0, 1)
    (span,) = described["max_detections"].integer_range
    assert (span.from_value, span.to_value) == (1, 300)


@pytest.mark.parametrize(
    ("argument", "error", "message"),
    [
        ("score_threshold:=1.5", InvalidParameterValueException, "score_threshold"),
        ("max_detections:=0", InvalidParameterValueException, "max_detections"),
        ("max_age_ms:=-1", InvalidParameterValueException, "max_age_ms"),
        ("num_threads:=65", InvalidParameterValueException, "num_threads"),
        ("resolution:=big", InvalidParameterTypeException, "resolution.*INTEGER"),
        ("image_transport:=theora", ValueError, "must be raw or compressed, got 'theora'"),
        ("camera_topics:=[]", ValueError, "at least one image topic"),
        ("camera_topics:=[/a, /a]", ValueError, r"camera_topics must differ, got \['/a', '/a'\]"),
        ("camera_topics:=[/a, '']", ValueError, r"must not be empty names, got \['/a', ''\]"),
        ("camera_topics:=[1, 2]", ValueError, "camera_topics must be a list of strings"),
        ("camera_weights:=[1.0, 2.0]", ValueError, "one for each of the 1 cameras"),
        ("camera_weights:=[0.0]", ValueError, "camera_weights must be greater than 0"),
        ("camera_weights:=[.nan]", ValueError, "camera_weights must be greater than 0"),
        ("camera_weights:=[a]", ValueError, r"must be a list of numbers, got \['a'\]"),
        ("alpha:=wide", ValueError, "alpha must be a number, got 'wide'"),
        ("alpha:=true", ValueError, "alpha must be a number, got True"),
        ("classes:=car", ValueError, "classes must be a list of strings, got 'car'"),
    ],
)
def test_nonsense_is_refused_by_name(node_with, argument, error, message):
    with pytest.raises(error, match=message):
        declare_settings(node_with("-p", argument), DetectorSettings)


def test_a_topic_that_names_the_transport_too_is_refused():
    with pytest.raises(ValueError, match="'/camera/compressed' must come without /compressed"):
        DetectorSettings(camera_topics=("/camera/compressed",), image_transport="compressed")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("score_threshold", 1.01),
        ("iou_threshold", -0.1),
        ("max_detections", 301),
        ("max_age_ms", -1),
    ],
)
def test_the_settings_check_their_ranges_without_ros(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be in \[.*\], got {value}"):
        DetectorSettings(**{name: value})


def test_an_empty_list_of_classes_comes_in_several_types_and_means_all(node_with):
    node = node_with("-p", "classes:=[]")
    settings = declare_settings(node, DetectorSettings)
    assert settings.classes == ()
    assert node.get_parameter("classes").type_ == Parameter.Type.STRING_ARRAY
    some = settings.changed([Parameter("classes", value=["car"])])
    assert some.classes == ("car",)
    # What `ros2 param set /detector classes "[]"` sends.
    assert some.changed([Parameter("classes", Parameter.Type.BOOL_ARRAY, [])]).classes == ()


def test_changes_keep_the_rest_and_pass_over_other_parameters():
    settings = DetectorSettings(max_age_ms=50)
    changed = settings.changed(
        [Parameter("alpha", value=0.35), Parameter("use_sim_time", value=True)]
    )
    assert (changed.alpha, changed.max_age_ms) == (0.35, 50)
    assert settings.alpha == OperatingPoint.alpha


def test_a_whole_number_is_a_number(node_with):
    settings = declare_settings(node_with("-p", "severity:=4"), WeatherSettings)
    assert (settings.severity, type(settings.severity)) == (4, float)
    changed = settings.changed([Parameter("severity", value=2)])
    assert (changed.severity, type(changed.severity)) == (2, float)
    with pytest.raises(ValueError, match="severity must have a value"):
        settings.changed([Parameter("severity", Parameter.Type.NOT_SET)])


@pytest.mark.parametrize("value", [0.9, 5.1, float("nan")])
def test_severities_that_there_are_not_are_refused(value):
    with pytest.raises(ValueError, match=r"severity must be in \[1.0, 5.0\]"):
        WeatherSettings(severity=value)


def test_arguments_of_a_launch_become_values_of_the_parameters_type():
    texts = {
        "alpha": "1",
        "resolution": "224",
        "precision": "8",
        "autostart": "False",
        "camera_topics": "/a, /b",
        "camera_weights": "2,1",
        "max_age_ms": "",
        "use_sim_time": "true",
    }
    values = values_from_text(DetectorSettings, texts)
    assert values == {
        "alpha": 1.0,
        "resolution": 224,
        "precision": "8",
        "autostart": False,
        "camera_topics": ["/a", "/b"],
        "camera_weights": [2.0, 1.0],
        "use_sim_time": True,
    }
    assert [type(values[name]) for name in ("alpha", "resolution")] == [float, int]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("alpha", "wide", "a number"),
        ("resolution", "320.5", "a whole number"),
        ("autostart", "1", "true or false"),
        ("camera_weights", "1,x", "a number"),
    ],
)
def test_arguments_of_a_launch_that_cannot_be_meant_are_refused(name, text, expected):
    with pytest.raises(ValueError, match=rf"argument {name} must be {expected}, got"):
        values_from_text(DetectorSettings, {name: text})

"""Start the detector node.

Every parameter of the node is an argument of the same name; lists are written with commas.
`ros2 launch mbnet_perception detect.launch.py --show-args` explains them.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from mbnet_perception.nodes.parameters import DetectorSettings

PACKAGE = "mbnet_perception"
# ROS 2 gives every node this parameter.
ROWS = {row.name: row for row in fields(DetectorSettings)}
DEFAULTS = {name: row.default for name, row in ROWS.items()} | {"use_sim_time": False}
DESCRIPTIONS = {name: row.metadata["description"] for name, row in ROWS.items()} | {
    "use_sim_time": "Whether /clock tells the time, as when a bag is played with it: true or false."
}


def parameter_value(name: str, text: str) -> Any:
    """An argument's text as the type that the node's parameter has.

    Raises:
        ValueError: If the text is none of that type.
    """
    kind = type(DEFAULTS[name])
    if kind is tuple:
        of = ROWS[name].metadata["of"]
        return [parse(name, of, part.strip()) for part in text.split(",")]
    if kind is str:
        return ParameterValue(text, value_type=str)  # or 8 would become a number
    return parse(name, kind, text)


def parse(name: str, kind: type, text: str) -> Any:
    """A word as a value of this type; the argument's name is for the error."""
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        expected = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise ValueError(f"argument {name} must be {expected}, got '{text}'") from None


def start_detector(context: LaunchContext) -> list[Node]:
    """The node, with those parameters alone that were given: the others keep their defaults.

    Raises:
        ValueError: If an argument cannot be used.
    """
    file = LaunchConfiguration("params_file").perform(context)
    if not Path(file).is_file():  # of which launch_ros makes a warning
        raise ValueError(f"argument params_file: there is no file '{file}'")
    given = {name: LaunchConfiguration(name).perform(context) for name in DEFAULTS}
    parameters = {name: parameter_value(name, text) for name, text in given.items() if text}
    return [
        Node(
            package=PACKAGE,
            executable="detector_node",
            name="detector",
            namespace=LaunchConfiguration("namespace"),
            parameters=[file, *([parameters] if parameters else [])],
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """The arguments and the detector node."""
    share = Path(get_package_share_directory(PACKAGE))
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "namespace", default_value="", description="The node's namespace."
            ),
            DeclareLaunchArgument(
                "params_file",
                default_value=str(share / "config" / "detector.yaml"),
                description="Parameter file. The arguments below override it; one that is left "
                "empty leaves the file's value, or else the node's default.",
            ),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                description="Least severity that is logged: debug, info, warn, error or fatal.",
            ),
            *(
                DeclareLaunchArgument(name, default_value="", description=DESCRIPTIONS[name])
                for name in DEFAULTS
            ),
            OpaqueFunction(function=start_detector),
        ]
    )

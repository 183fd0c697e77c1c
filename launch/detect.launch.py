"""Start the detector node.

Every parameter of the node is an argument of the same name; lists are written with commas.
`ros2 launch mbnet_perception detect.launch.py --show-args` explains them.
"""

from dataclasses import fields
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from mbnet_perception.nodes.parameters import DetectorSettings, values_from_text

PACKAGE = "mbnet_perception"
# ROS 2 gives every node the last parameter.
DESCRIPTIONS = {row.name: row.metadata["description"] for row in fields(DetectorSettings)} | {
    "use_sim_time": "Whether /clock tells the time, as when a bag is played with it: true or false."
}


def start_detector(context: LaunchContext) -> list[Node]:
    """The node, with those parameters alone that were given: the others keep their defaults.

    Raises:
        ValueError: If an argument cannot be used.
    """
    file = LaunchConfiguration("params_file").perform(context)
    if not Path(file).is_file():  # of which launch_ros makes a warning
        raise ValueError(f"argument params_file: there is no file '{file}'")
    given = {name: LaunchConfiguration(name).perform(context) for name in DESCRIPTIONS}
    parameters = {
        # Or launch_ros would make a number of 8.
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in values_from_text(DetectorSettings, given).items()
    }
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
                DeclareLaunchArgument(name, default_value="", description=text)
                for name, text in DESCRIPTIONS.items()
            ),
            OpaqueFunction(function=start_detector),
        ]
    )

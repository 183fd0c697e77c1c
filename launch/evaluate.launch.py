"""Replay a bag through the weather into the live detector, and say how it held up.

`ros2 launch mbnet_perception evaluate.launch.py bag:=drive weather:=rain severity:=3` ends by
itself when the bag does, and prints latency, losses and, where the bag has ground truth, accuracy.
Without a bag it starts all but the replay, for pictures that come from somewhere else.
"""

from dataclasses import fields
from functools import partial
from itertools import islice
from pathlib import Path
from signal import SIGINT

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown, matches_action
from launch.events.process import ProcessExited, SignalProcess
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from mbnet_perception.evaluation.accuracy import MEASURING
from mbnet_perception.evaluation.bag_truth import is_unsure
from mbnet_perception.evaluation.bags import COMPRESSED_IMAGE, DETECTIONS, Bag, BagError, decode
from mbnet_perception.nodes.parameters import DetectorSettings, WeatherSettings, values_from_text

PACKAGE = "mbnet_perception"
RECORDED = "/recorded"  # before the topics of detections that a bag holds
LOOKED_AT = 100  # messages of them, to tell a detector's from ground truth
START_LIMIT = 120.0  # seconds that the replay waits for the detector to load its model

OF_WEATHER = {"weather": "condition", "severity": "severity", "seed": "seed"}
OF_DETECTOR = ("backbone", "alpha", "resolution", "precision", "score_threshold", "num_threads")
OF_DETECTOR = (*OF_DETECTOR, "models_folder")
OWN = {
    "bag": "Bag to replay. Empty starts all but the replay; camera and transport then tell where "
    "the pictures come from.",
    "camera": "Image topic, without /compressed; empty means the only one of the bag.",
    "transport": "raw or compressed; empty means what the bag has.",
    "ground_truth": "Detection2DArray topic with what is there; empty means the only one of the "
    "bag, if there is one, and none does without.",
    "rate": "Factor on the pace of the recording.",
    "output": "JSON file for the figures.",
    "use_sim_time": "Whether /clock tells the time, as with ros2 bag play --clock: true or false. "
    "The replay of a bag stamps pictures with the present time instead.",
}
DEFAULTS = {
    "rate": "1.0",
    "use_sim_time": "false",
    # AP is the area under a curve over all scores.
    "score_threshold": f"{MEASURING.score_threshold:g}",
}


def find_topics(
    bag: str, camera: str, transport: str, truth: str
) -> tuple[str, str, str, str, list[str]]:
    """What of a bag is to be replayed; an empty argument asks for the only one there is.

    Returns:
        Name of the image topic, the same as a camera topic, its transport, the topic of the
        ground truth, which may be empty, and all topics of detections.

    Raises:
        BagError: If the bag cannot be used or has no such topic, or there are several.
    """
    with Bag(bag) as opened:
        every = []
        for name, kind in opened.image_topics().items():
            compressed = kind == COMPRESSED_IMAGE
            plain = name.removesuffix("/compressed") if compressed else name
            every.append((name, plain, "compressed" if compressed else "raw"))
        truths = [name for name, kind in opened.topics.items() if kind == DETECTIONS]
        labels = [name for name in truths if truth in ("", name)]
        if labels and not truth:
            for message in islice(opened.messages(labels), LOOKED_AT):
                if is_unsure(decode(message.data, message.type)):
                    raise BagError(
                        f"topic '{message.topic}' of bag '{bag}' has scores between 0 and 1, so it "
                        f"is what a detector saw; ground_truth:=none does without, and "
                        f"ground_truth:={message.topic} takes it for ground truth all the same"
                    )
    found = [each for each in every if camera in ("", each[1]) and transport in ("", each[2])]
    if len(found) != 1:
        have = ", ".join(f"camera:={plain} transport:={how}" for _, plain, how in every)
        raise BagError(
            f"expected one image topic of bag '{bag}' for camera:={camera} "
            f"transport:={transport}, got {len(found)}; it has: {have}"
        )
    if len(labels) > 1 or (truth not in ("", "none") and not labels):
        raise BagError(
            f"expected one topic of ground truth in bag '{bag}' for ground_truth:={truth}; "
            f"it has: {', '.join(truths) or 'none'}"
        )
    return *found[0], "".join(labels), truths


def node(name: str, parameters: dict[str, object], **options: object) -> Node:
    """A node of this package with these parameters."""
    values = {
        # Or launch_ros would make a number of 8.
        key: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for key, value in parameters.items()
    }
    return Node(
        package=PACKAGE,
        executable=f"{name}_node",
        name=name,
        parameters=[values],
        output="screen",
        **options,
    )


def reliable(*topics: str) -> dict[str, object]:
    """QoS overrides of subscriptions, so that nothing is lost on the way."""
    overrides: dict[str, object] = {}
    for topic in topics:
        overrides[f"qos_overrides.{topic}.subscription.reliability"] = "reliable"
        overrides[f"qos_overrides.{topic}.subscription.depth"] = 10
    return overrides


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The nodes, and what happens when one of them ends.

    Raises:
        BagError: If the bag cannot be used.
        ValueError: If an argument cannot be used.
    """
    names = (*OWN, *OF_WEATHER, *OF_DETECTOR)
    given = {name: LaunchConfiguration(name).perform(context) for name in names}
    bag, camera, transport, truth = (
        given[name] for name in ("bag", "camera", "transport", "ground_truth")
    )
    weather_values = values_from_text(
        WeatherSettings, {name: given[argument] for argument, name in OF_WEATHER.items()}
    )
    detector_values = values_from_text(DetectorSettings, {n: given[n] for n in OF_DETECTOR})
    # What makes no sense is refused here, before anything starts.
    WeatherSettings(**weather_values)
    DetectorSettings(**detector_values)
    if bag:
        recorded, camera, transport, truth, detections = find_topics(bag, camera, transport, truth)
        truth = truth and RECORDED + truth
    elif not camera:
        raise ValueError("expected bag:= or camera:=, got neither")
    truth = "" if truth == "none" else truth
    camera, transport = f"/{camera.lstrip('/')}", transport or "raw"
    suffix = "/compressed" if transport == "compressed" else ""
    shown = f"/weather{camera}"
    clock = values_from_text(DetectorSettings, {"use_sim_time": given["use_sim_time"]})
    if bag and clock.get("use_sim_time"):
        raise ValueError("use_sim_time must be false with bag:=, whose replay sends no /clock")
    # What plays a bag elsewhere may offer no more than best effort, as a camera's driver does.
    ours = reliable(camera + suffix, *([truth] if truth else [])) if bag else {}
    # Raw pictures do not fit the shared memory that Fast DDS gives a process. A profile of the
    # user's own stays.
    profile = str(Path(get_package_share_directory(PACKAGE)) / "config" / "fastdds.xml")
    names_of_it = {"FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"}
    wanted = not suffix and not names_of_it & set(context.environment)
    room = {"additional_env": dict.fromkeys(names_of_it if wanted else (), profile)}

    common = {"image_transport": transport, **clock, **ours}
    weather = node("weather", {"camera_topics": [camera], **common, **weather_values}, **room)
    detector = node(
        "detector",
        {
            "camera_topics": [shown],
            "image_transport": transport,
            **clock,
            **reliable(shown + suffix),
            **detector_values,
        },
    )
    recorder = node(
        "recorder",
        {
            "camera_topic": camera,
            "ground_truth_topic": truth,
            "output": given["output"],
            **common,
        },
    )
    started, replay = [weather, detector, recorder], None
    if bag:
        replay = node(
            "replay",
            {
                "bag": bag,
                "topics": [recorded],
                "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
                # The recorder, and the weather node as soon as the detector listens to it.
                "subscribers": 2,
                "wait_for_subscribers": START_LIMIT,
            },
            # Recorded detections must not come between those of the live detector.
            remappings=[(recorded, camera + suffix), *((n, RECORDED + n) for n in detections)],
            **room,
        )
        started.append(replay)
    on_exit = partial(end_in_order, replay, recorder)
    return [RegisterEventHandler(OnProcessExit(on_exit=on_exit)), *started]


def end_in_order(
    replay: Node | None, recorder: Node, event: ProcessExited, context: LaunchContext
) -> EmitEvent | None:
    """After the replay the recorder is asked to end, which waits for the last answers; then all.

    Raises:
        RuntimeError: If a process ended that should not have, or failed. It ends the launch.
    """
    if context.is_shutdown:
        return None
    if event.returncode or event.action not in (replay, recorder):
        raise RuntimeError(f"{event.process_name} ended with status {event.returncode}")
    if event.action is recorder:
        return EmitEvent(event=Shutdown(reason="the recorder has ended"))
    interruption = SignalProcess(signal_number=SIGINT, process_matcher=matches_action(recorder))
    return EmitEvent(event=interruption)


def generate_launch_description() -> LaunchDescription:
    """The arguments and the nodes."""
    detector = {row.name: row.metadata["description"] for row in fields(DetectorSettings)}
    weather = {row.name: row.metadata["description"] for row in fields(WeatherSettings)}
    texts = (
        OWN
        | {argument: weather[name] for argument, name in OF_WEATHER.items()}
        | {name: detector[name] for name in OF_DETECTOR}
    )
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=DEFAULTS.get(name, ""), description=text)
                for name, text in texts.items()
            ),
            OpaqueFunction(function=start),
        ]
    )

"""Why no picture comes from a camera, as far as the ROS graph tells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from rclpy.duration import Duration
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo

from mbnet_perception.nodes.endpoints import COMPRESSED_IMAGE, IMAGE

SUFFIX = "/compressed"
OTHERS = 3
"""At most so many other image topics are named."""


def why_silent(node: Node, topic: str) -> str:
    """A sentence on why nothing comes on an image topic that this node subscribes to.

    Args:
        node: The subscriber.
        topic: What it subscribes to, /compressed included, as rclpy is given it: not remapped yet.
    """
    topic = node.resolve_topic_name(topic)
    us = (node.get_name(), node.get_namespace())
    subscriptions = [
        info
        for info in _endpoints(node, _rclpy.rclpy_get_subscriptions_info_by_topic, topic)
        if (info.node_name, info.node_namespace) == us
    ]
    if not subscriptions:
        return f"this node does not subscribe to {topic}"
    images = {IMAGE.type_name, COMPRESSED_IMAGE.type_name}
    pictures = {
        other: found
        for other, types in node.get_topic_names_and_types()
        if images.intersection(types)
        and (
            found := {
                info.topic_type
                for info in _endpoints(node, _rclpy.rclpy_get_publishers_info_by_topic, other)
                if (info.node_name, info.node_namespace) != us  # no overlays of our own
            }
            & images
        )
    }
    return reason_for_silence(
        topic,
        subscriptions[0].topic_type,
        subscriptions[0].qos_profile,
        _endpoints(node, _rclpy.rclpy_get_publishers_info_by_topic, topic),
        pictures,
    )


def _endpoints(
    node: Node, look_up: Callable[[Any, str, bool], list[dict[str, Any]]], topic: str
) -> list[TopicEndpointInfo]:
    """Those of a topic by its name in the graph, which the methods of the node would remap."""
    with node.handle:
        return [TopicEndpointInfo(**info) for info in look_up(node.handle, topic, False)]


def reason_for_silence(
    topic: str,
    asked_type: str,
    asked: QoSProfile,
    publishers: Sequence[TopicEndpointInfo],
    pictures: Mapping[str, set[str]],
) -> str:
    """A sentence on why nothing comes on an image topic, and what to set.

    Args:
        topic: What is subscribed to in full, /compressed included.
        asked_type: Type of the messages that are subscribed to.
        asked: QoS of the subscription.
        publishers: Those of the topic.
        pictures: Image topics that somebody publishes, with their types.
    """
    if not publishers:
        return f"nobody publishes {topic}{_near_misses(topic, asked_type, pictures)}"
    of_type = [publisher for publisher in publishers if publisher.topic_type == asked_type]
    if not of_type:
        return _other_type(topic, asked_type, publishers[0])
    matching = [publisher for publisher in of_type if not any(_mismatches(publisher, asked))]
    if not matching:
        return _other_qos(topic, asked, of_type[0])
    reason = f"{_name(matching[0])} publishes {topic} and its QoS matches, but nothing comes"
    reliable = [p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in matching]
    if asked_type == IMAGE.type_name and asked.reliability == ReliabilityPolicy.BEST_EFFORT:
        reason += (
            "; it may be idle, or its pictures get lost, as large ones do over best effort: try "
            "image_transport: compressed, or start the camera with config/fastdds.xml"
        )
        if all(reliable):
            reason += f", or qos_overrides.{topic}.subscription.reliability: reliable"
    elif asked_type == COMPRESSED_IMAGE.type_name and any(reliable):
        reason += (
            "; it may be idle, or another of its subscribers stood still, after which Fast DDS may "
            "send nothing more: restart the camera, with config/fastdds.xml"
        )
    others = [publisher for publisher in of_type if any(_mismatches(publisher, asked))]
    return f"{reason}; {_other_qos(topic, asked, others[0])}" if others else reason


def _near_misses(topic: str, asked_type: str, pictures: Mapping[str, set[str]]) -> str:
    raw = asked_type == IMAGE.type_name
    twin = topic + SUFFIX if raw else topic.removesuffix(SUFFIX)
    twin_type, transport = (
        (COMPRESSED_IMAGE.type_name, "compressed") if raw else (IMAGE.type_name, "raw")
    )
    if twin_type in pictures.get(twin, ()):
        return f", but there is {twin}: set image_transport: {transport}"
    # What camera_topics can name: without the suffix that image_transport adds.
    others = {
        name if raw else name.removesuffix(SUFFIX)
        for name, types in pictures.items()
        if asked_type in types and (raw or name.endswith(SUFFIX))
    }
    if others:
        nearest = sorted(others)
        nearest.sort(key=lambda name: SequenceMatcher(None, name, topic).ratio(), reverse=True)
        more = f" and {len(others) - OTHERS} more" if len(others) > OTHERS else ""
        return f"; camera_topics could be {', '.join(nearest[:OTHERS])}{more}"
    if pictures:
        name, types = min(pictures.items())
        return f"; the only pictures are {' and '.join(sorted(types))} on {name}"
    return " or any other picture; does the camera run, with the same ROS_DOMAIN_ID?"


def _other_type(topic: str, asked_type: str, publisher: TopicEndpointInfo) -> str:
    reason = f"{_name(publisher)} publishes {publisher.topic_type} on {topic}, not {asked_type}"
    if (publisher.topic_type, asked_type) == (IMAGE.type_name, COMPRESSED_IMAGE.type_name):
        return f"{reason}: set camera_topics: [{topic}] and image_transport: raw"
    if (publisher.topic_type, asked_type) == (COMPRESSED_IMAGE.type_name, IMAGE.type_name):
        camera = topic.removesuffix(SUFFIX)
        reason += f": set camera_topics: [{camera}] and image_transport: compressed"
        if camera == topic:  # as the node adds the suffix
            reason += f", and remap {topic}{SUFFIX} to {topic}"
    return reason


def _other_qos(topic: str, asked: QoSProfile, publisher: TopicEndpointInfo) -> str:
    mismatches = list(_mismatches(publisher, asked))
    policies = " and ".join(f"{offer}, we ask for {ask}" for offer, ask, _, _ in mismatches)
    overrides = " and ".join(
        f"qos_overrides.{topic}.subscription.{policy}: {value}"
        for _, _, policy, value in mismatches
    )
    name = _name(publisher)
    return f"QoS of {topic}: {name} offers {policies}; start this node with {overrides}"


def _mismatches(
    publisher: TopicEndpointInfo, asked: QoSProfile
) -> Iterator[tuple[str, str, str, str]]:
    """What is offered, what is asked for, and the policy and value that make up for it."""
    offered = publisher.qos_profile
    for policy, weaker, stronger in (
        ("reliability", ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE),
        ("durability", DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL),
        ("liveliness", LivelinessPolicy.AUTOMATIC, LivelinessPolicy.MANUAL_BY_TOPIC),
    ):
        if getattr(offered, policy) == weaker and getattr(asked, policy) == stronger:
            value = weaker.name.lower()
            yield f"{policy} {value}", stronger.name.lower(), policy, value
    for policy in ("deadline", "liveliness_lease_duration"):
        offer, ask = getattr(offered, policy), getattr(asked, policy)
        if _seconds(offer) > _seconds(ask):
            endless = math.isinf(_seconds(offer))
            text = f"no {policy}" if endless else f"a {policy} of {_seconds(offer):g} s"
            # In nanoseconds, and 0 asks for none.
            yield text, f"{_seconds(ask):g} s", policy, "0" if endless else str(offer.nanoseconds)


def _seconds(duration: Duration) -> float:
    """Zero is what nobody has set, and means the same as the greatest."""
    nanoseconds = duration.nanoseconds
    return nanoseconds / 1e9 if 0 < nanoseconds < 2**63 - 1 else math.inf


def _name(publisher: TopicEndpointInfo) -> str:
    return f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"

"""The ROS network that the demo, benchmarks and tests have for themselves."""

import os
import socket
from contextlib import closing

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node

from mbnet_perception.nodes import processes
from mbnet_perception.nodes.processes import choose_network


@pytest.fixture
def choose(monkeypatch):
    """What a process that looks at this domain first would choose."""

    def choose_from(domain):
        monkeypatch.setattr(os, "getpid", lambda: 101 * 40 + domain - 1)
        return processes._free_domain.__wrapped__()

    return choose_from


def bind(port):
    """Take a UDP port of this machine until it is closed."""
    held = socket.socket(type=socket.SOCK_DGRAM)
    held.bind(("127.0.0.1", port))
    return closing(held)


def test_the_network_is_a_free_domain_of_this_machine_alone():
    network = choose_network()
    assert network["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert 1 <= int(network["ROS_DOMAIN_ID"]) <= 101
    # That of these tests, whose nodes come and go in it.
    assert network["ROS_DOMAIN_ID"] == os.environ["ROS_DOMAIN_ID"]


def test_a_domain_with_a_node_is_left_alone(choose):
    begin = choose(60)
    context = Context()
    rclpy.init(context=context, domain_id=begin)
    node = Node("somebody_else", context=context)
    assert choose(begin) > begin
    node.destroy_node()
    rclpy.shutdown(context=context)
    assert choose(begin) == begin


# From the standard's port numbers: 7400 + 250 * domain, and 10 + 2 * participant beyond it.
@pytest.mark.parametrize("offset", [0, 10, 10 + 2 * 9])
def test_each_port_of_discovery_tells_that_a_domain_is_taken(choose, offset):
    domain = choose(70)
    with bind(7400 + 250 * domain + offset):
        assert choose(domain) != domain
    assert choose(domain) == domain


def test_after_the_last_domain_comes_the_first(monkeypatch):
    monkeypatch.setattr(processes, "DOMAINS", range(1, 4))
    monkeypatch.setattr(os, "getpid", lambda: 2)
    monkeypatch.setattr(processes, "_is_bound", lambda port: port // 250 == 32)  # 8150 is of 3
    assert processes._free_domain.__wrapped__() == 1


def test_where_each_domain_is_taken_the_error_says_so(choose, monkeypatch):
    monkeypatch.setattr(processes, "_is_bound", lambda _: True)
    with pytest.raises(RuntimeError, match="no ROS domain is free on this machine: of 1 to 101"):
        choose(1)

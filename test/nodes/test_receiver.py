import threading
import time
from contextlib import suppress

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from std_msgs.msg import String

from mbnet_perception.nodes.receiver import Receiver, subscribe_for_receiver

TOPICS = ("/a", "/b")
KEEP = QoSProfile(depth=100)  # reliable: nothing is lost


def text_of(content):
    return deserialize_message(content, String).data


class Station:
    """A node with two subscriptions, a publisher for each, and an executor that spins all along."""

    def __init__(self):
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = Node("station", context=self.context)
        self.subscriptions = [
            subscribe_for_receiver(self.node, String, topic, KEEP) for topic in TOPICS
        ]
        self.publishers = [self.node.create_publisher(String, topic, KEEP) for topic in TOPICS]
        self.taken, self.errors, self.receiver = [], [], None
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.spins = 0
        self.spinner = threading.Thread(target=self._spin)
        self.spinner.start()
        self.until(lambda: all(p.get_subscription_count() for p in self.publishers))

    def _spin(self):
        with suppress(ExternalShutdownException):
            while True:
                self.executor.spin_once(timeout_sec=0.05)
                self.spins += 1

    def receive(self, on_message=None):
        def keep(index, message, info):
            self.taken.append((index, text_of(message), info))

        self.receiver = Receiver(
            self.context, self.subscriptions, on_message or keep, self.errors.append
        )

    def send(self, index, text):
        self.publishers[index].publish(String(data=text))

    def until(self, condition):
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.001)

    def close(self):
        if self.receiver:
            self.receiver.close()
        rclpy.shutdown(context=self.context)
        self.spinner.join()
        self.node.destroy_node()


@pytest.fixture
def station():
    made = Station()
    yield made
    made.close()


def test_all_messages_come_in_order_with_their_subscription_and_what_is_known_of_them(station):
    station.receive()
    for number in range(50):
        station.send(number % 2, str(number))
    station.until(lambda: len(station.taken) == 50)
    for index in (0, 1):
        mine = [(text, info) for where, text, info in station.taken if where == index]
        assert [text for text, _ in mine] == [str(number) for number in range(index, 50, 2)]
        stamps = [info["source_timestamp"] for _, info in mine]
        assert stamps == sorted(stamps)
        assert stamps[0] > 0
    assert not station.errors


def test_what_came_before_the_receiver_is_taken_by_it_and_not_by_the_executor(station):
    station.send(0, "early")
    spins = station.spins
    station.until(lambda: station.spins > spins + 3)
    station.receive()
    station.until(lambda: station.taken)
    assert station.taken[0][:2] == (0, "early")


def test_an_error_over_one_message_is_told_and_the_next_one_comes(station):
    came = []

    def refuse(index, message, info):
        came.append(text_of(message))
        if came[-1] == "bad":
            raise ValueError("no such message")

    station.receive(refuse)
    for text in ("good", "bad", "better"):
        station.send(1, text)
    station.until(lambda: len(came) == 3)
    assert came == ["good", "bad", "better"]
    assert [str(error) for error in station.errors] == ["no such message"]


def test_after_closing_nothing_comes_and_the_subscriptions_may_go(station):
    station.receive()
    station.send(0, "one")
    station.until(lambda: station.taken)
    threads = threading.active_count()
    station.receiver.close()
    station.receiver = None
    assert threading.active_count() == threads - 1
    for subscription in station.subscriptions:
        assert station.node.destroy_subscription(subscription)
    station.until(lambda: not any(p.get_subscription_count() for p in station.publishers))
    station.send(0, "two")
    spins = station.spins
    station.until(lambda: station.spins > spins + 3)
    assert [text for _, text, _ in station.taken] == ["one"]

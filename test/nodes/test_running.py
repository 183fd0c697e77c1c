import gc
import signal

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from mbnet_perception.nodes import running


def test_a_node_is_not_looked_through_for_garbage_again(monkeypatch):
    counts = []

    def spin(node):
        counts.extend((gc.get_freeze_count(), len(gc.get_objects())))
        raise ExternalShutdownException

    monkeypatch.setattr(rclpy, "spin", spin)
    handlers = {number: signal.getsignal(number) for number in running.SIGNALS}
    try:
        assert running.run_node("frozen", lambda: Node("frozen"), []) == 0
    finally:
        gc.unfreeze()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    frozen, looked_at = counts
    assert looked_at < frozen / 100  # what came since

import gc

import rclpy
from rclpy.node import Node

from mbnet_perception.nodes import running


def test_a_node_is_not_looked_through_for_garbage_again(monkeypatch):
    counts = []

    def spin(node):
        counts.extend((gc.get_freeze_count(), len(gc.get_objects())))
        raise KeyboardInterrupt

    monkeypatch.setattr(rclpy, "spin", spin)
    try:
        assert running.run_node("frozen", lambda: Node("frozen"), []) == 0
    finally:
        gc.unfreeze()
    frozen, looked_at = counts
    assert looked_at < frozen / 100  # what came since

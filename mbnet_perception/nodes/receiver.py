"""Takes messages off subscriptions, beside the executor.

For each message, rclpy's executors gather every entity of the node anew, several times, most of it
with Python's lock held, which the worker needs (figures in docs/decisions.md). This does what
`rclpy.wait_for_message` does, again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from threading import Thread
from time import sleep
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.context import Context
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation as _rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription

from mbnet_perception.nodes.endpoints import overrides
from mbnet_perception.nodes.running import PAUSE_AFTER_ERROR

FOREVER = -1  # nanoseconds

MessageCallback = Callable[[int, bytes, Mapping[str, Any]], None]


class _BesideExecutor(CallbackGroup):
    """What is in it is not the executor's: it neither waits for it nor takes it.

    That goes for the events of a subscription, too. An executor that waits for them is woken by
    messages, and turns in circles until somebody has taken them (Fast DDS).
    """

    def can_execute(self, entity: object) -> bool:
        """Never."""
        return False

    def beginning_execution(self, entity: object) -> bool:
        """Never."""
        return False

    def ending_execution(self, entity: object) -> None:
        """Nothing has begun."""


def subscribe_for_receiver(
    node: Node, kind: type[Any], topic: str, qos: QoSProfile
) -> Subscription:
    """A subscription to bytes that the node's executor leaves alone; its QoS may be overridden.

    Args:
        node: Whose it is.
        kind: Class of the messages.
        topic: Its name.
        qos: Its profile; overrides are written into it.
    """
    return node.create_subscription(
        kind,
        topic,
        lambda _: None,  # never called
        qos,
        callback_group=_BesideExecutor(),
        qos_overriding_options=overrides(),
        raw=True,
    )


class Receiver:
    """A thread that takes messages as they come.

    Args:
        context: Of the node.
        subscriptions: From :func:`subscribe_for_receiver`; not to be destroyed before
            :meth:`close`.
        on_message: Called with the place of the subscription, the message in CDR, and what the
            middleware says of it.
        on_error: Told what went wrong with a message, be it in `on_message`.
    """

    def __init__(
        self,
        context: Context,
        subscriptions: Sequence[Subscription],
        on_message: MessageCallback,
        on_error: Callable[[Exception], None],
    ) -> None:
        self._context = context
        self._subscriptions = tuple(subscriptions)
        self._on_message = on_message
        self._on_error = on_error
        self._closed = False
        # Here, as it fails where ROS has been shut down.
        self._wait_set = _rclpy.WaitSet(len(self._subscriptions), 1, 0, 0, 0, 0, context.handle)
        self._wake = GuardCondition(callback=None, callback_group=None, context=context)
        self._thread = Thread(target=self._run, name="receiver", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; no message comes after this."""
        self._closed = True
        self._wake.trigger()
        self._thread.join()
        self._wake.destroy()

    def _run(self) -> None:
        handles = [subscription.handle for subscription in self._subscriptions]
        with ExitStack() as stack:
            for handle in (*handles, self._wake.handle, self._context.handle):
                stack.enter_context(handle)
            while not self._closed:
                self._wait_set.clear_entities()
                for handle in handles:
                    self._wait_set.add_subscription(handle)
                self._wait_set.add_guard_condition(self._wake.handle)
                self._wait_set.wait(FOREVER)
                ready = self._wait_set.get_ready_entities("subscription")
                for index, handle in enumerate(handles):
                    if handle.pointer in ready and not self._closed:
                        self._take(index)

    def _take(self, index: int) -> None:
        subscription = self._subscriptions[index]
        try:
            taken = subscription.handle.take_message(subscription.msg_type, True)
            if taken:
                self._on_message(index, *taken)
        except Exception as error:  # whatever one message holds, the next one gets its chance
            self._on_error(error)
            sleep(PAUSE_AFTER_ERROR)

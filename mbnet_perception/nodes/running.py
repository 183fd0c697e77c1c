"""How a node runs: until a signal ends it, whatever single requests hold."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable
from time import sleep

import rclpy
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos_overriding_options import InvalidQosOverridesError
from rclpy.signals import SignalHandlerOptions, install_signal_handlers

PAUSE_AFTER_ERROR = 0.1  # seconds; an error that comes again at once must not take the processor

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # that end a node
_signals: list[int] = []  # those that came to the process

# What the user can put right; rclpy's own errors are RuntimeErrors.
START_ERRORS = (
    RuntimeError,
    ValueError,
    ParameterException,
    NameValidationException,
    InvalidQosOverridesError,
)


def run_node(name: str, make: Callable[[], Node], args: list[str] | None = None) -> int:
    """Make a node and run it until a signal ends it.

    Args:
        name: For the log, where the node cannot be made.
        make: Called once ROS is there.
        args: For ROS; those of the command line by default.

    Returns:
        Exit status: 1 where the node cannot start, and the log says why.
    """
    for number in SIGNALS:
        signal.signal(number, lambda number, _: _signals.append(number))
    node, begun = None, False
    try:
        # rclpy's own handlers shut ROS down, and where it is, rclpy fails to make things in ways
        # that are not for us to catch. So they wait until the node is made.
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        begun = True
        node = make()
        rclpy.get_global_executor()  # of rclpy.spin
        # What is there now stays. To look through it for garbage, as Python does now and then,
        # stops every thread for tens of milliseconds.
        gc.collect()
        gc.freeze()
        install_signal_handlers()
        while not was_told_to_end():
            _spin(node)
    except ExternalShutdownException:
        pass
    except Exception as error:
        # A signal shuts ROS down, and what is being used just then fails.
        if begun and not rclpy.ok():
            return 0
        if node or not isinstance(error, START_ERRORS):
            raise
        get_logger(name).fatal(f"cannot start: {error}")
        return 1
    finally:
        if node:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def was_told_to_end() -> bool:
    """Whether a signal came that ends the node, be it before the node is made."""
    return bool(_signals) or not rclpy.ok()


def _spin(node: Node) -> None:
    """Spin until a signal comes, or an error, which the log is told.

    rclpy raises what goes wrong with a single request, such as a parameter of an unknown type,
    through spin. Nobody's request may end a node.
    """
    try:
        rclpy.spin(node)
    except ExternalShutdownException:
        raise
    except Exception as error:
        if not rclpy.ok():
            raise
        node.get_logger().error(f"goes on after {type(error).__name__}: {error}")
        sleep(PAUSE_AFTER_ERROR)

"""Nodes as processes in a ROS network of their own, which are ended in order."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

STOP_LIMIT = 10.0  # seconds for a process to end when asked to
LOG_TAIL = 15  # lines of a dead process's log to show
DOMAINS = range(1, 102)  # whose ports are free on all systems (ROS 2 docs, "The ROS_DOMAIN_ID")
# Ports of a domain that are looked at: those of its discovery and of its first ten participants.
FIRST_PORT, DOMAIN_STEP, LOOKED_AT = 7400, 250, 30  # DDSI-RTPS, "Default Port Numbers"


def choose_network() -> dict[str, str]:
    """Environment of a ROS network of our own: nobody else's images, nobody else's detector.

    Nobody beyond this machine hears it, and nobody on it had a node in its domain when this
    process first asked. It is the same one each time.

    Raises:
        RuntimeError: If no domain is free.
    """
    return {"ROS_DOMAIN_ID": str(_free_domain()), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


@cache  # as nodes of this process are in it from then on
def _free_domain() -> int:
    """A domain none of whose ports is bound; two processes begin to look at different ones."""
    begin = os.getpid() % len(DOMAINS)
    for domain in (*DOMAINS[begin:], *DOMAINS[:begin]):
        port = FIRST_PORT + DOMAIN_STEP * domain
        if not any(map(_is_bound, range(port, port + LOOKED_AT))):
            return domain
    raise RuntimeError(
        f"no ROS domain is free on this machine: of {DOMAINS[0]} to {DOMAINS[-1]} each has a node; "
        "end those that are left over"
    )


def _is_bound(port: int) -> bool:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return True
    return False


@contextmanager
def node_process(
    name: str, parameters: Mapping[str, Any], output: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A node as a process, which is ended when the block is left.

    Args:
        name: Module in `nodes`.
        parameters: The node's.
        output: Folder for its log, `<name>.log`.
        environment: The process's.
    """
    command = [sys.executable, "-m", f"mbnet_perception.nodes.{name}", "--ros-args"]
    for key, value in parameters.items():
        command += ["-p", f"{key}:={json.dumps(value)}"]  # JSON is YAML, which ROS expects
    with (output / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            # Ctrl-C on the terminal is for us, who then end the others in order.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def interruption() -> Iterator[Callable[[], None]]:
    """Give a function that raises KeyboardInterrupt once the process was asked to end.

    So that it is raised where we can clean up, not inside of ROS.
    """
    requested: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [
        signal.signal(number, lambda number, _: requested.append(number)) for number in signals
    ]

    def check() -> None:
        if requested:
            raise KeyboardInterrupt

    try:
        yield check
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def last_words(name: str, status: int, output: Path) -> str:
    """What a process that died had to say."""
    log = output / f"{name}.log"
    lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
    return "\n".join([f"{name} ended with status {status}; the end of {log}:", *lines])

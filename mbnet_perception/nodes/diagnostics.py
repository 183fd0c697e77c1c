"""What the detector node says about itself on /diagnostics."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from time import monotonic

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from mbnet_perception.core.latency import LatencyWindow
from mbnet_perception.core.ledger import FrameCounts, FrameLedger
from mbnet_perception.inference.models import OperatingPoint

STAGES = (
    "transport",  # stamp to arrival, by the node's clock
    "wait",  # arrival to the worker's turn
    "decode",  # message to picture
    "preprocess",
    "inference",
    "postprocess",
    "publish",
    "stamp_to_publish",  # by the node's clock
)
"""What is timed of each frame that is answered."""

WINDOW = 300
"""Latencies are of this many newest frames: 20 s at 15 Hz."""

REPORTS = 6
"""Rates are over this many reports: 5 s at 1 Hz."""

SILENCE = 2.0
"""Seconds without a frame that are worth a warning."""


class CameraRecord:
    """What became of a camera's frames, and how long they took.

    Attributes:
        topic: Image topic.
        ledger: Counts of frames.
        windows: Durations of each of the STAGES.
        bad_stamps: Frames with a stamp of zero or from the future; they have no transport and no
            stamp-to-publish time, and are never stale.
        last_error: Why the newest failed frame failed.
        last_arrival: When the newest frame came, monotonic seconds; None before the first.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.ledger = FrameLedger()
        self.windows = {stage: LatencyWindow(WINDOW) for stage in STAGES}
        self.bad_stamps = 0
        self.last_error = ""
        self.last_arrival: float | None = None
        self._reports: deque[tuple[float, FrameCounts]] = deque(
            [(monotonic(), FrameCounts())], maxlen=REPORTS
        )

    def report(self, node_name: str) -> DiagnosticStatus:
        """Status of this camera; rates are over the newest reports."""
        now, counts = monotonic(), self.ledger.counts
        since, before = self._reports[0]
        self._reports.append((now, counts))
        rate = (counts.processed - before.processed) / max(now - since, 1e-9)
        failed, stale = counts.failed - before.failed, counts.stale - before.stale
        level, message = DiagnosticStatus.OK, f"{rate:.1f} Hz"
        if self.last_arrival is None:
            level, message = DiagnosticStatus.WARN, f"no frame yet on {self.topic}"
        elif now - self.last_arrival > SILENCE:
            silence = now - self.last_arrival
            level, message = DiagnosticStatus.WARN, f"no frame for {silence:.0f} s on {self.topic}"
        elif failed:
            level = DiagnosticStatus.ERROR
            message = f"{failed} frames failed in {now - since:.0f} s: {self.last_error}"
        elif stale:
            level = DiagnosticStatus.WARN
            message = f"{stale} frames were older than max_age_ms in {now - since:.0f} s"
        values = {"topic": self.topic, "rate_hz": f"{rate:.2f}"}
        values |= {name: str(count) for name, count in vars(counts).items()}
        values |= {"bad_stamps": str(self.bad_stamps), "last_error": self.last_error}
        for stage, window in self.windows.items():
            if len(window):
                for name, rank in (("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)):
                    values[f"{stage}_{name}_ms"] = f"{1e3 * window.percentile(rank):.2f}"
        return _status(level, f"{node_name}: {self.topic}", message, values)


def engine_report(
    node_name: str, running: OperatingPoint, requested: OperatingPoint, last_error: str
) -> DiagnosticStatus:
    """Status of the network: which operating point runs, and whether the last change failed."""
    level, message = DiagnosticStatus.OK, str(running)
    if last_error:
        level, message = DiagnosticStatus.ERROR, f"{message}; {last_error}"
    elif requested != running:
        message = f"{message}; changing to {requested}"
    values = {name: str(value) for name, value in vars(running).items()}
    return _status(level, f"{node_name}: engine", message, {**values, "last_error": last_error})


def _status(level: bytes, name: str, message: str, values: Mapping[str, str]) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=level,
        name=name,
        message=message,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )

"""What the detector node says about itself, on /diagnostics and ~/latency."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from time import monotonic

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from statistics_msgs.msg import MetricsMessage, StatisticDataPoint, StatisticDataType

from mbnet_perception.core.board import BoardState
from mbnet_perception.core.latency import LatencySummary, LatencyWindow
from mbnet_perception.core.ledger import FrameCounts, FrameLedger
from mbnet_perception.core.stamps import StampFault
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

RECENT = 5.0
"""Rates, and what went wrong lately, are over this many seconds."""

SILENCE = 2.0
"""Seconds without a frame that are worth a warning."""

STAMP_FAULTS: Mapping[StampFault, str] = {
    "zero": "has no stamp",
    "future": "is stamped in the future",
    "old": "is stamped more than a minute ago",
    "jumped": "was stamped before the clock jumped",
}


class CameraRecord:
    """What became of a camera's frames, and how long they took.

    Attributes:
        topic: Image topic.
        ledger: Counts of frames.
        window: Durations of the STAGES of frames that were answered.
        stamp_faults: Frames whose stamp says nothing about their age, by what is wrong with it;
            they have no transport and no stamp-to-publish time.
        faults_in_a_row: How many of the newest frames had such a stamp.
        last_error: Why the newest failed frame failed.
        last_arrival: When the newest frame came, monotonic seconds; None before the first.
        subscribed: Since when frames are received, monotonic seconds; None while they are not.
        taken: When the newest answered picture was taken, monotonic seconds; before the first,
            since when frames are received.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.ledger = FrameLedger()
        self.window = LatencyWindow(STAGES, WINDOW)
        self.stamp_faults: Counter[StampFault] = Counter()
        self.faults_in_a_row = 0
        self.last_error = ""
        self.last_arrival: float | None = None
        self.subscribed: float | None = None
        self.taken = 0.0
        self._reports: deque[tuple[float, FrameCounts, Counter[StampFault]]] = deque()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Say nothing of what went wrong until now; what waited when a node stops is no fault."""
        self._reports.clear()
        self._reports.append((monotonic(), self.ledger.counts, self.stamp_faults.copy()))

    def silence(self, now: float) -> float:
        """Seconds without a frame, since the camera is subscribed; 0 while it is not."""
        if self.subscribed is None:
            return 0.0
        return now - max(self.subscribed, self.last_arrival or self.subscribed)

    def report(
        self, node_name: str, summary: LatencySummary | None, reason: str
    ) -> DiagnosticStatus:
        """Status of this camera.

        Args:
            node_name: For the name of the status.
            summary: Of the window.
            reason: Why no frame comes; empty if one came lately, or none is asked for.
        """
        now, counts, faults = monotonic(), self.ledger.counts, self.stamp_faults.copy()
        while len(self._reports) > 1 and now - self._reports[1][0] >= RECENT:
            self._reports.popleft()
        since, before, faults_before = self._reports[0]
        self._reports.append((now, counts, faults))
        faults = faults - faults_before
        rate = (counts.processed - before.processed) / max(now - since, 1e-9)
        failed, stale = counts.failed - before.failed, counts.stale - before.stale
        level, message = DiagnosticStatus.OK, f"{rate:.1f} Hz"
        if reason:
            level, message = DiagnosticStatus.WARN, reason
            if self.last_arrival:
                message = f"no frame for {self.silence(now):.0f} s: {reason}"
        elif failed:
            level = DiagnosticStatus.ERROR
            message = f"{failed} frames failed in {now - since:.0f} s: {self.last_error}"
        elif stale:
            level = DiagnosticStatus.WARN
            message = f"{stale} frames were older than max_age_ms in {now - since:.0f} s"
            if self.faults_in_a_row:
                message += ", by more than a minute: is the clock of the camera right?"
        elif faults:
            level = DiagnosticStatus.WARN
            ((fault, _),) = faults.most_common(1)
            message = f"{message}; of {faults.total()} frames the latency is not known, "
            message += f"most often: {STAMP_FAULTS[fault]}"
        values = {"topic": self.topic, "rate_hz": f"{rate:.2f}"}
        values |= {name: str(count) for name, count in vars(counts).items()}
        values |= {f"stamp_{fault}": str(self.stamp_faults[fault]) for fault in STAMP_FAULTS}
        values["last_error"] = self.last_error
        if summary:
            values["window_frames"] = str(summary.frames)
            values["window_throttled_frames"] = str(summary.throttled)
            for stage, figures in summary.stages.items():
                for name in ("p50", "p90", "p99"):
                    values[f"{stage}_{name}_ms"] = f"{1e3 * getattr(figures, name):.2f}"
                values[f"{stage}_max_ms"] = f"{1e3 * figures.maximum:.2f}"
        return make_status(level, f"{node_name}: {self.topic}", message, values)


def engine_report(
    node_name: str,
    state: str,
    running: OperatingPoint | None,
    requested: OperatingPoint,
    last_error: str,
) -> DiagnosticStatus:
    """Status of the network: which operating point runs, and whether the last change failed.

    Args:
        node_name: For the name of the status.
        state: Of the node's life cycle.
        running: What runs; None before the node is configured.
        requested: What the parameters say.
        last_error: Why the last change failed; empty if it did not.
    """
    level, message = DiagnosticStatus.OK, str(running or "no model is loaded")
    if last_error:
        level, message = DiagnosticStatus.ERROR, f"{message}; {last_error}"
    elif running and requested != running:
        message = f"{message}; changing to {requested}"
    if state != "active":
        message = f"{message}; node is {state}"
    values = {name: str(value) for name, value in vars(running or requested).items()}
    values |= {"last_error": last_error, "state": state}
    return make_status(level, f"{node_name}: engine", message, values)


def board_report(node_name: str, board: BoardState) -> DiagnosticStatus:
    """Status of the computer; a warning where it slows itself down or is about to."""
    level = DiagnosticStatus.WARN if board.alarm else DiagnosticStatus.OK
    values = board.as_values()
    message = board.alarm or ("fine" if values else "this computer tells nothing of itself")
    return make_status(level, f"{node_name}: board", message, values)


def perception_report(
    node_name: str, records: Sequence[CameraRecord], stale_after: float, off: str
) -> DiagnosticStatus:
    """Whether what was detected last is new enough to drive by.

    Args:
        node_name: For the name of the status.
        records: Of all cameras.
        stale_after: Seconds since the newest answered picture of a camera was taken.
        off: Why nothing is to be detected; empty if something is.
    """
    name, now = f"{node_name}: perception", monotonic()
    if off:
        return make_status(DiagnosticStatus.WARN, name, f"perception off: {off}", {})
    ages = {r.topic: now - r.taken for r in records if r.subscribed is not None}
    stale = [topic for topic, age in ages.items() if age > stale_after]
    values = {f"age_ms {topic}": f"{1e3 * age:.0f}" for topic, age in ages.items()}
    if not stale:
        return make_status(DiagnosticStatus.OK, name, "fresh", values)
    each = ", ".join(f"{topic} for {ages[topic]:.1f} s" for topic in stale)
    return make_status(
        DiagnosticStatus.ERROR, name, f"perception stale: no new detections of {each}", values
    )


def latency_messages(topic: str, summary: LatencySummary) -> list[MetricsMessage]:
    """One message per stage with the statistics of a window of a camera's frames, in ms.

    One more, `throttled_frames`, tells how many percent of them were processed while the board
    slowed itself down.
    """
    kinds = StatisticDataType
    messages = [
        _metrics(
            topic,
            stage,
            "ms",
            summary,
            {
                kinds.STATISTICS_DATA_TYPE_AVERAGE: 1e3 * figures.mean,
                kinds.STATISTICS_DATA_TYPE_MINIMUM: 1e3 * figures.minimum,
                kinds.STATISTICS_DATA_TYPE_MAXIMUM: 1e3 * figures.maximum,
                kinds.STATISTICS_DATA_TYPE_STDDEV: 1e3 * figures.deviation,
                kinds.STATISTICS_DATA_TYPE_SAMPLE_COUNT: float(figures.count),
            },
        )
        for stage, figures in summary.stages.items()
    ]
    share = 100 * summary.throttled / summary.frames
    data = {
        kinds.STATISTICS_DATA_TYPE_AVERAGE: share,
        kinds.STATISTICS_DATA_TYPE_SAMPLE_COUNT: float(summary.frames),
    }
    return [*messages, _metrics(topic, "throttled_frames", "percent", summary, data)]


def _metrics(
    topic: str, source: str, unit: str, summary: LatencySummary, data: Mapping[int, float]
) -> MetricsMessage:
    return MetricsMessage(
        measurement_source_name=topic,
        metrics_source=source,
        unit=unit,
        window_start=_time(summary.since),
        window_stop=_time(summary.until),
        statistics=[StatisticDataPoint(data_type=kind, data=value) for kind, value in data.items()],
    )


def _time(nanoseconds: int) -> Time:
    sec, nanosec = divmod(nanoseconds, 10**9)
    return Time(sec=sec, nanosec=nanosec)


def make_status(
    level: bytes, name: str, message: str, values: Mapping[str, str]
) -> DiagnosticStatus:
    """A status with its values as text."""
    return DiagnosticStatus(
        level=level,
        name=name,
        message=message,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )

"""The detector node: camera topics in, detections out.

One thread receives pictures and keeps the newest frame of each camera; another, the worker, takes
them in turn, and has them answered by a third where the next one waits. rclpy holds the GIL while
it takes an image and ONNX Runtime releases it. The executor has all the rest: parameters, services,
reports.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from threading import Thread
from time import monotonic, time_ns
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from std_srvs.srv import SetBool

from mbnet_perception.core.allocator import return_memory, share_arenas
from mbnet_perception.core.board import BoardReader
from mbnet_perception.core.frame_queue import FrameQueue
from mbnet_perception.core.images import ImageFormatError, Picture
from mbnet_perception.core.ledger import Outcome
from mbnet_perception.core.stamps import MAX_AGE, SECOND, StampClock, StampFault
from mbnet_perception.inference.detector import Detector, Output
from mbnet_perception.inference.engine import Engine
from mbnet_perception.inference.format import ModelError
from mbnet_perception.inference.models import ModelLibrary, OperatingPoint
from mbnet_perception.nodes.answerer import Answerer
from mbnet_perception.nodes.camera import Camera
from mbnet_perception.nodes.cdr import ImageHeader, detections_bytes, read_stamp
from mbnet_perception.nodes.diagnostics import (
    SILENCE,
    STAMP_FAULTS,
    board_report,
    engine_report,
    latency_messages,
    perception_report,
)
from mbnet_perception.nodes.endpoints import (
    DIAGNOSTICS,
    ENABLE,
    LABELS,
    LATENCY,
    Endpoint,
    overrides,
)
from mbnet_perception.nodes.messages import label_message, picture_from_message
from mbnet_perception.nodes.overlay import Overlay
from mbnet_perception.nodes.parameters import (
    POINT,
    DetectorSettings,
    check_cameras,
    declare_settings,
)
from mbnet_perception.nodes.receiver import Receiver
from mbnet_perception.nodes.running import START_ERRORS, run_node
from mbnet_perception.nodes.steering import Steering

DIAGNOSTICS_PERIOD = 1.0
WATCH_PERIOD = 0.2
UNBOOKED = 1000  # answers; as many come in WATCH_PERIOD at no rate that there is
FAULTS_THAT_LAST = 3
CLOCKS_TOGETHER = 0.02  # seconds between two readings that count as one
SETTINGS = tuple(row.name for row in fields(DetectorSettings))


@dataclass(frozen=True)
class Frame:
    """An image message that waits for its turn.

    Attributes:
        message: As it came, in CDR.
        stamp: Of its header, ns since the epoch.
        arrival: When it came, monotonic seconds.
        transport: Seconds from stamp to arrival, or why the stamp does not tell.
    """

    message: bytes
    stamp: int
    arrival: float
    transport: float | StampFault


class Inferred(NamedTuple):
    """A frame that went through the network.

    Attributes:
        camera: Whose it is.
        frame: As it waited.
        header: Of its message.
        picture: That it became.
        output: Of the network.
        detector: Whose output it is.
        point: Operating point that it is answered at.
        settings: By which it is answered.
        started, decoded, done: When its turn came, when it was a picture, and when the network was
            done, monotonic seconds.
    """

    camera: Camera
    frame: Frame
    header: ImageHeader
    picture: Picture
    output: Output
    detector: Detector
    point: OperatingPoint
    settings: DetectorSettings
    started: float
    decoded: float
    done: float


class Answer(NamedTuple):
    """What is known of a frame that was answered.

    Attributes:
        camera: Whose it is.
        stamp, arrival, transport: Of the frame, whose message is not to be kept.
        point: Operating point that it was answered at.
        durations: Of the stages from `arrival` on, seconds.
        published: When the answer was, monotonic seconds.
        at: The same by the node's clock, ns.
    """

    camera: Camera
    stamp: int
    arrival: float
    transport: float | StampFault
    point: OperatingPoint
    durations: dict[str, float]
    published: float
    at: int


@dataclass
class Switch:
    """A change of the operating point under way.

    Attributes:
        point: What is being built.
        by_hand: Whether the user wants it, not the governor.
        end: When it comes; holds why the change failed, if it did.
    """

    point: OperatingPoint
    by_hand: bool
    end: Future[None]


def _transition(
    run: Callable[[DetectorNode], None],
) -> Callable[[DetectorNode, LifecycleState], TransitionCallbackReturn]:
    """Make a callback of the life cycle; where it fails the node stays in the state it was in.

    rclpy says nothing about an exception in such a callback.
    """

    @wraps(run)
    def callback(node: DetectorNode, _: LifecycleState) -> TransitionCallbackReturn:
        node.failure = None
        try:
            run(node)
        except Exception as error:
            node.failure = error
            expected = isinstance(error, START_ERRORS)
            reason = str(error) if expected else f"{type(error).__name__}: {error}"
            if node.context.ok():  # a signal that ends ROS is no failure
                node.get_logger().error(f"{run.__name__} failed: {reason}")
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    return callback


class DetectorNode(LifecycleNode):
    """Detects objects on camera topics.

    A lifecycle node: configuring it loads the model and makes the publishers, activating it
    subscribes to the cameras. With the parameter autostart it does both by itself.

    Attributes:
        failure: Why the last transition of the life cycle failed; None if it did not.

    Raises:
        ModelError: If there is no usable model for the operating point; names the file.
        ValueError: If a parameter makes no sense.
        rclpy.exceptions.ParameterException: If one has the wrong type or is out of range.
    """

    def __init__(self) -> None:
        super().__init__("detector")
        # First, as since Kilted a node that could not start is destroyed like any other.
        self.failure: Exception | None = None
        self._engine: Engine | None = None
        self._steering: Steering | None = None
        self._switch: Switch | None = None
        # One thread for all changes: what a thread gives back, the C library keeps for it.
        self._builder = ThreadPoolExecutor(1, "engine switch")
        self._cameras: list[Camera] = []
        self._receiver: Receiver | None = None
        self._queue: FrameQueue[Frame] | None = None
        self._worker: Thread | None = None
        self._publishers_of_state: list[Publisher] = []
        self._enabled = True
        self._choosing = False
        self._engine_error = ""
        self._perception = b""
        self._answers: deque[Answer] = deque(maxlen=UNBOOKED)
        self._said: set[tuple[str, str]] = set()

        self._settings = declare_settings(self, DetectorSettings)
        self._judge_stamps_by(self.get_parameter("use_sim_time").value)
        self._board_reader = BoardReader()
        self._board = self._board_reader.read()
        self._switched = self.create_guard_condition(self._on_switched)
        self._measured = self.create_guard_condition(self._on_measured)
        self._diagnostics = self._create_publisher(DIAGNOSTICS)
        # By a steady clock: a stopped simulation shows as such, not as a dead node.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DIAGNOSTICS_PERIOD, self._report, clock=steady)
        self.create_timer(WATCH_PERIOD, self._watch, clock=steady)
        self.create_service(SetBool, ENABLE.name, self._on_enable)
        # Before Kilted, rclpy gives no answer where the state does not allow the transition.
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._on_change_state
        self.add_on_set_parameters_callback(self._judge_parameters)
        if hasattr(self, "add_post_set_parameters_callback"):
            self.add_post_set_parameters_callback(self._apply_parameters)
        if self._settings.autostart:
            for trigger in (self.trigger_configure, self.trigger_activate):
                trigger()
                if self.failure:
                    raise self.failure

    def destroy_node(self) -> None:
        """End the threads, then the node."""
        self._halt()
        self._release()
        self._builder.shutdown()
        super().destroy_node()

    # The life cycle

    @_transition
    def on_configure(self) -> None:
        """Load the model, and the ladder of the governor where there is a budget."""
        settings = self._settings
        try:
            # Two names of one topic, as remapping may make them, are one camera.
            names = [self.resolve_topic_name(topic) for topic in settings.camera_topics]
            check_cameras(names, settings.image_transport)
            library = ModelLibrary(Path(settings.models_folder) if settings.models_folder else None)
            self._engine = Engine(library, settings.point, settings.num_threads)
            settings.selection.class_mask(self._engine.classes)  # refuses unknown names
            self._library = library
            self._steering = Steering(
                library,
                settings.num_threads,
                Path(settings.ladder_file) if settings.ladder_file else None,
                self._measured.trigger,
            )
            self._steering.set_budget(settings.latency_budget_ms / 1e3, settings.point, monotonic())
            # Measured while no frame wants the processor.
            self._steering.wait()
            self._label_publisher = self._create_publisher(LABELS)
            self._latency_publisher = self._create_publisher(LATENCY)
            self._publishers_of_state = [self._label_publisher, self._latency_publisher]
            for topic in settings.camera_topics:
                cameras = len(settings.camera_topics)
                camera = Camera(self, topic, cameras, settings.image_transport)
                self._cameras.append(camera)
        except Exception:
            self._release()
            raise
        self._engine_error = ""
        self._publish_labels()

    @_transition
    def on_activate(self) -> None:
        """Subscribe to the cameras, unless ~/enable says otherwise, and start the worker."""
        weights = self._settings.camera_weights or [1.0] * len(self._cameras)
        self._queue = FrameQueue([camera.record.ledger for camera in self._cameras], weights)
        self._worker = Thread(
            target=self._work, args=(self._queue,), name="detector worker", daemon=True
        )
        self._worker.start()
        try:
            self._subscribe(self._enabled)
        except Exception:
            self._halt()
            raise

    @_transition
    def on_deactivate(self) -> None:
        """Unsubscribe, and end the worker; frames that wait become stale."""
        self._halt()

    @_transition
    def on_cleanup(self) -> None:
        """Give the model and the publishers back."""
        self._release()

    @_transition
    def on_shutdown(self) -> None:
        """The same, from whatever state."""
        self._halt()
        self._release()

    def _on_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        try:
            return self._change_state(request, response)
        except RuntimeError as error:
            self.get_logger().error(f"stays {self._state}: {error}")
            response.success = False
            return response

    def _subscribe(self, wanted: bool) -> None:
        if self._receiver:
            self._receiver.close()
            self._receiver = None
        for camera in self._cameras:
            camera.unsubscribe()
        if wanted:
            subscriptions = [camera.subscribe() for camera in self._cameras]
            self._receiver = Receiver(
                self.context, subscriptions, self._on_image, self._on_receiver_error
            )

    def _halt(self) -> None:
        self._subscribe(False)
        if self._queue and self._worker:
            self._queue.close()
            self._worker.join()
            self._queue = self._worker = None
            for camera in self._cameras:
                camera.record.begin_anew()

    def _release(self) -> None:
        if self._steering:
            self._steering.stop()
        if self._switch:
            wait([self._switch.end])
        for camera in self._cameras:
            camera.close()
        for publisher in self._publishers_of_state:
            self.destroy_publisher(publisher)
        self._cameras, self._publishers_of_state = [], []
        self._answers.clear()
        self._engine = self._steering = self._switch = None
        return_memory()

    def _create_publisher(self, endpoint: Endpoint) -> Publisher:
        return self.create_publisher(
            endpoint.type, endpoint.name, endpoint.qos, qos_overriding_options=overrides()
        )

    @property
    def _subscribed(self) -> bool:
        """Whether images are received."""
        return any(camera.record.subscribed is not None for camera in self._cameras)

    @property
    def _state(self) -> str:
        """Label of the state of the life cycle."""
        return str(self._state_machine.current_state[1])

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Subscribe or unsubscribe; kept for the next activation where the node is not active."""
        try:
            if self._worker and request.data != self._subscribed:
                self._subscribe(request.data)
        except START_ERRORS as error:  # such as a QoS override that makes no sense
            self._subscribe(False)
            response.message = f"cannot subscribe: {error}"
            self.get_logger().error(response.message)
            return response
        self._enabled = request.data
        response.success = True
        response.message = "enabled" if request.data else "disabled"
        if not self._worker:
            response.message += f" once the node is active, it is {self._state}"
        self.get_logger().info(f"{response.message} through ~/enable")
        self._report()
        return response

    # Frames

    def _on_image(self, index: int, message: bytes, info: Mapping[str, Any]) -> None:
        camera = self._cameras[index]
        now, arrival = self._read_clocks()
        try:
            stamp = read_stamp(message)
        except ImageFormatError:  # which the worker will come upon, too, and count
            stamp = 0
        age = self._stamps.age(stamp, now)
        if isinstance(age, str):
            self._note_fault(camera, age, now)
        else:
            camera.record.faults_in_a_row = 0
        camera.record.last_arrival = arrival
        frame = Frame(message, stamp, arrival, age)
        number = camera.usable_number(info)
        # Stamps of two that send in turn tell nothing of what is missing.
        tells = age != "jumped" and not camera.several_publishers
        assert self._queue is not None
        self._queue.put(index, frame, number, stamp if tells else None)

    def _on_receiver_error(self, error: Exception) -> None:
        if self.context.ok():
            self.get_logger().error(
                f"goes on after {type(error).__name__}: {error}", throttle_duration_sec=1.0
            )

    def _note_fault(self, camera: Camera, fault: StampFault, now: int) -> None:
        """Count a stamp that tells no age; the log hears of each kind once."""
        record = camera.record
        record.stamp_faults[fault] += 1
        record.faults_in_a_row += 1
        # One alone is of a bag that begins anew, whose picture came before its /clock.
        lasting = record.faults_in_a_row >= FAULTS_THAT_LAST and fault != "jumped"
        if not lasting or (camera.topic, fault) in self._said:
            return
        self._said.add((camera.topic, fault))
        unset = self._simulated and now == 0
        hint = " (use_sim_time is true, but nobody publishes /clock)" if unset else ""
        self.get_logger().warning(
            f"a frame of {camera.topic} {STAMP_FAULTS[fault]}{hint}: latencies of such frames are "
            "not known and left out, and they are counted on /diagnostics"
        )

    def _judge_stamps_by(self, use_sim_time: bool) -> None:
        """Judge stamps by this clock, and forget what another told."""
        self._forget_latencies()
        self._simulated = use_sim_time
        self._stamps = StampClock(use_sim_time)

    def _forget_latencies(self) -> None:
        self._book_answers()
        for camera in self._cameras:
            camera.record.window.clear()

    def _read_clocks(self) -> tuple[int, float]:
        """The node's clock in ns and the monotonic one in s; notices where the former jumped."""
        before = monotonic()
        now = self.get_clock().now().nanoseconds
        after = monotonic()
        if after - before > CLOCKS_TOGETHER:  # this thread was held up: the two are not of one time
            return now, after
        jump = self._stamps.observe(now, after)
        if jump is not None:
            self.get_logger().warning(f"the clock jumped by {jump:+.3f} s; latencies begin anew")
            self._forget_latencies()
        return now, after

    def _work(self, queue: FrameQueue[Frame]) -> None:
        """The worker thread: takes the cameras' newest frames in turn.

        What comes out of the network is answered at once where no frame waits. Where one does, it
        goes first, and the other is answered beside it, as the network needs one core alone. But
        not while a change is built, which takes another: the answer would wait for a core.
        """
        answerer = Answerer(self._answer)
        due: Inferred | None = None

        def answer_due() -> None:
            nonlocal due
            if due:
                answerer.answer_beside(due)
                due = None

        while True:
            taken = None if due and self._switch else queue.take(wait=due is None)
            if taken is None and due is None:
                break
            inferred = self._infer(*taken, answer_due) if taken else None
            if due:
                answerer.answer_here(due)
            due = inferred
            del taken, inferred  # they hold on to the message, whose memory others can use
        answerer.close()

    def _infer(self, index: int, frame: Frame, on_run: Callable[[], None]) -> Inferred | None:
        """Run the network on a frame; None where that cannot be, or is of no use any more."""
        assert self._engine is not None
        camera = self._cameras[index]
        settings = self._settings  # one consistent set for the whole frame
        started = monotonic()
        if settings.max_age_ms and self._is_stale(frame, started, settings.max_age_ms / 1e3):
            camera.record.ledger.settle("stale")
            return None
        try:
            point = self._engine.point  # first: a frame of the next one is no sample of this one
            detector = self._engine.detector
            image = camera.read(frame.message)
            picture = picture_from_message(image, detector.resolution)
            decoded = monotonic()
            output = detector.run(picture, on_run)
            # No more than must be: where a frame waits, the network does nothing meanwhile.
            return Inferred(
                *(camera, frame, image.header, picture, output, detector, point, settings),
                *(started, decoded, monotonic()),
            )
        except Exception as error:  # whatever a frame holds, the next one gets its chance
            self._note_failure(camera, error)
            camera.record.ledger.settle("failed")
            return None

    def _answer(self, inferred: Inferred) -> None:
        """Publish what is on a frame."""
        camera, frame, header, picture, output, detector, point, settings, *times = inferred
        started, decoded, done = times
        outcome: Outcome = "processed"
        try:
            detections = detector.select(output, settings.selection)
            detected = monotonic()
            camera.detections.publish(detections_bytes(detections, detector.classes, header))
            published = monotonic()
            at = self.get_clock().now().nanoseconds if self._simulated else time_ns()
            durations = {
                "wait": started - frame.arrival,
                "decode": decoded - started,
                "preprocess": output.preprocess,
                "inference": output.inference,
                "postprocess": detected - done,
                "publish": published - detected,
            }
            self._answers.append(
                Answer(
                    *(camera, frame.stamp, frame.arrival, frame.transport, point),
                    *(durations, published, at),
                )
            )
            if camera.overlay.wants(settings.overlay_rate_hz):
                camera.overlay.offer(Overlay(header, picture, detections, detector.classes))
        except Exception as error:
            self._note_failure(camera, error)
            outcome = "failed"
        camera.record.ledger.settle(outcome)

    def _note_failure(self, camera: Camera, error: Exception) -> None:
        record = camera.record
        record.last_error = f"{type(error).__name__}: {error}"
        if self.context.ok():
            self.get_logger().error(
                f"frame of {record.topic} failed: {record.last_error}",
                throttle_duration_sec=1.0,
            )

    def _book_answers(self) -> None:
        """Look at how long answers took, beside the worker, for which the next frame waits."""
        while True:
            try:
                answer = self._answers.popleft()
            except IndexError:  # there may be two threads at it
                return
            record, transport = answer.camera.record, answer.transport
            durations = answer.durations
            total = answer.published - answer.arrival
            if not isinstance(transport, str):
                # A simulated clock runs at a pace of its own; the system's may be set meanwhile.
                latency = self._stamps.age(answer.stamp, answer.at) if self._simulated else None
                if latency is None:
                    latency = transport + total
                # Less than before it was published: a simulated clock stepped back in between.
                if not isinstance(latency, str) and latency >= transport:
                    durations |= {"transport": transport, "stamp_to_publish": latency}
                    total = latency
            record.window.add(answer.at, durations, self._board.slowed)
            record.taken = answer.published - total
            if transport == "old":
                record.taken -= MAX_AGE / SECOND
            if self._steering:
                self._steering.add(total, answer.published, answer.point)

    def _is_stale(self, frame: Frame, now: float, limit: float) -> bool:
        """Whether a frame is older than it may be; one whose age cannot be told is not."""
        age = frame.transport
        if self._simulated:  # at a pace of its own, and it may have stepped back meanwhile
            age = self._stamps.age(frame.stamp, self.get_clock().now().nanoseconds)
        elif not isinstance(age, str):
            age += now - frame.arrival
        return age == "old" if isinstance(age, str) else age > limit

    # Parameters

    def _judge_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            for parameter in parameters:
                if parameter.type_ == Parameter.Type.NOT_SET and parameter.name in SETTINGS:
                    raise ValueError(f"{parameter.name} must have a value")
            settings = self._settings.changed(parameters)
            if self._engine:
                self._library.find(settings.point)
                settings.selection.class_mask(self._engine.classes)
        except (ValueError, ModelError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        if not hasattr(self, "add_post_set_parameters_callback"):  # came after Humble
            self._apply_parameters(parameters)
        return SetParametersResult(successful=True)

    def _apply_parameters(self, parameters: list[Parameter]) -> None:
        self._settings = self._settings.changed(parameters)
        names = {parameter.name for parameter in parameters}
        for parameter in parameters:
            if parameter.name == "use_sim_time":  # on Humble the node has the old value yet
                self._judge_stamps_by(parameter.value)
        if self._engine is None or self._steering is None:
            return
        if names & set(POINT) and not self._choosing:
            self._engine_error = ""
            self._steering.hold()
        if "latency_budget_ms" in names:
            budget = self._settings.latency_budget_ms / 1e3
            self._steering.set_budget(budget, self._settings.point, monotonic())
        if "score_threshold" in names:
            self._publish_labels()
        self._start_switch()

    def _choose(self, point: OperatingPoint) -> None:
        """Set the operating point's parameters without making that a user's choice."""
        self._choosing = True
        try:
            result = self.set_parameters_atomically(
                [Parameter(name, value=getattr(point, name)) for name in POINT]
            )
        finally:
            self._choosing = False
        if not result.successful and self._steering and self._engine:
            self.get_logger().error(f"cannot change to {point}: {result.reason}")
            self._steering.exclude(point, monotonic(), self._engine.point)

    def _start_switch(self) -> None:
        """Have the requested operating point built, one at a time, while the old one goes on."""
        point = self._settings.point
        if self._engine and self._switch is None and point != self._engine.point:
            by_hand = not self._choosing
            end = self._builder.submit(self._run_switch, self._engine, point, by_hand)
            self._switch = Switch(point, by_hand, end)
            end.add_done_callback(self._announce_switch)

    def _run_switch(self, engine: Engine, point: OperatingPoint, by_hand: bool) -> None:
        def judge(classes: tuple[str, ...]) -> None:
            # Else each frame would fail; and what is looked for is not the governor's choice.
            self._settings.selection.class_mask(classes)
            if not by_hand and classes != engine.classes:
                raise ModelError(
                    f"expected a model of the classes {list(engine.classes)}, as the one that "
                    f"runs, got {list(classes)}; leave it out of the ladder"
                )

        engine.switch(point, judge)
        # To tell of it takes Python's lock for milliseconds, which no frame needs while it runs.
        engine.detector.wait_for_run()

    def _announce_switch(self, _: Future[None]) -> None:
        if self.context.ok():
            self._switched.trigger()

    def _on_switched(self) -> None:
        """End a change of the operating point, on the executor's thread like all of parameters."""
        if self._switch is None or self._engine is None or self._steering is None:
            return
        point, by_hand = self._switch.point, self._switch.by_hand
        error = self._switch.end.exception()
        self._switch = None
        running = self._engine.point
        if error:
            failure = f"change to {point} failed: {type(error).__name__}: {error}"
            self.get_logger().error(f"{failure}; {running} goes on")
            self._engine_error = failure
            asked_for = self._settings.point == point  # and nothing else meanwhile
            if asked_for:
                self._choose(running)
            self._steering.exclude(point, monotonic(), running)
            if asked_for and by_hand:
                self._steering.release(running, monotonic())
        else:
            self._engine_error = ""
            self.get_logger().info(f"operating point is now {running}")
            self._steering.settle(running, monotonic())
            self._publish_labels()
        self._report()  # now, as the next change may be to something that works
        self._start_switch()  # where another one was asked for meanwhile

    def _on_measured(self) -> None:
        """Steer, now that the ladder is there."""
        if self._engine and self._steering:
            self._steering.begin(self._settings.point, monotonic())

    # Reports

    def _watch(self) -> None:
        """What cannot wait for the next report: the clock, the governor, stale perception."""
        _, now = self._read_clocks()
        self._book_answers()
        for camera in self._cameras:
            camera.count_publishers()
        steering, engine = self._steering, self._engine
        if self._worker and steering and engine and self._switch is None:
            point = steering.decide(now, self._board.alarm, engine.point)
            if point:
                self.get_logger().info(f"governor steps {steering.last_step}")
                self._choose(point)
                self._report()
        if self._perception_status().level != self._perception:
            self._report()

    def _perception_status(self):
        off = "" if self._worker else f"the node is {self._state}"
        if self._worker and not self._subscribed:
            off = "disabled through ~/enable"
        records = [camera.record for camera in self._cameras]
        return perception_report(self._name, records, self._settings.stale_after_ms / 1e3, off)

    @property
    def _name(self) -> str:
        return self.get_fully_qualified_name().lstrip("/")

    def _publish_labels(self) -> None:
        """Announce what can be reported, and that another model may report it from now on."""
        assert self._engine is not None
        self._label_publisher.publish(
            label_message(
                self._engine.classes,
                self._settings.score_threshold,
                self.get_clock().now().to_msg(),
            )
        )

    def _report(self) -> None:
        """Publish /diagnostics, and the latency statistics where somebody listens."""
        self._book_answers()  # those until now, by the state that the board was in
        self._board = self._board_reader.read()
        settings, name = self._settings, self._name
        running = self._engine.point if self._engine else None
        perception = self._perception_status()
        self._perception = perception.level
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status = [
            perception,
            engine_report(name, self._state, running, settings.point, self._engine_error),
            board_report(name, self._board),
        ]
        if self._steering:
            message.status.append(self._steering.report(name))
        for camera in self._cameras:
            record = camera.record
            summary = record.window.summarise()
            reason = camera.explain_silence() if record.silence(monotonic()) > SILENCE else ""
            if reason and (camera.topic, reason) not in self._said:
                self._said.add((camera.topic, reason))
                self.get_logger().warning(f"no frame of {camera.topic}: {reason}")
            message.status.append(record.report(name, summary, reason))
            if summary and self._latency_publisher.get_subscription_count():
                for metrics in latency_messages(camera.topic, summary):
                    self._latency_publisher.publish(metrics)
        self._diagnostics.publish(message)


def main(args: list[str] | None = None) -> int:
    """Run the node until a signal ends it; 1 where it cannot start."""
    share_arenas()
    return run_node("detector", DetectorNode, args)


if __name__ == "__main__":
    sys.exit(main())

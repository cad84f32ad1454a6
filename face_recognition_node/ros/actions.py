"""The actions, EnrollPerson and FindPerson: they run on the frames that the pipeline answers."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from rclpy.action.server import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from std_msgs.msg import Header

from face_recognition_interfaces.action import EnrollPerson, FindPerson
from face_recognition_interfaces.msg import Face, RejectionCount
from face_recognition_interfaces.msg import PoseCoverage as PoseCoverageMessage
from face_recognition_node.common.background import BackgroundWriter
from face_recognition_node.common.errors import InputError
from face_recognition_node.enrollment.coverage import PoseCoverage
from face_recognition_node.enrollment.goal import (
    EnrollmentFeedback,
    EnrollmentGoal,
    EnrollmentResult,
    MostCentral,
    Region,
    Rejection,
    Selection,
    Track,
)
from face_recognition_node.enrollment.session import EnrollmentSession
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.gallery.values import folded
from face_recognition_node.media.face_fields import number
from face_recognition_node.ros.messages import (
    ENROLL_PERSON,
    FIND_PERSON,
    Call,
    filled,
    in_short,
    seconds_to_stamp,
    set_outcome,
    to_duration,
    to_face,
    to_seconds,
)
from face_recognition_node.ros.runtime import Host
from face_recognition_node.vision.faces import RecognitionResult

EnrollResult = EnrollPerson.Result
FindResult = FindPerson.Result


def to_goal(request: EnrollPerson.Goal) -> EnrollmentGoal:
    """Return what the client asks for; InputError if the goal contradicts itself or is out of bounds."""
    return EnrollmentGoal(
        name=request.name,
        person_id=request.person_id or None,
        selection=_selection(request),
        wanted_views=int(request.wanted_views),
        timeout_s=to_seconds(request.timeout),
        is_somebody_else=bool(request.is_somebody_else),
    )


def _selection(request: EnrollPerson.Goal) -> Selection:
    if request.selection == EnrollPerson.Goal.SELECT_MOST_CENTRAL:
        return MostCentral()
    if request.selection == EnrollPerson.Goal.SELECT_TRACK:
        return Track(int(request.track_id))
    if request.selection == EnrollPerson.Goal.SELECT_REGION:
        x1, y1, x2, y2 = (float(value) for value in request.region)
        return Region((x1, y1, x2, y2))
    raise InputError(f"selection: expected SELECT_MOST_CENTRAL, _TRACK or _REGION, got {request.selection}")


def to_feedback(feedback: EnrollmentFeedback) -> EnrollPerson.Feedback:
    """Return where an enrollment stands."""
    message = EnrollPerson.Feedback(
        track_id=feedback.track_id or 0,
        views_kept=feedback.views_kept,
        wanted_views=feedback.wanted_views,
        rejections=_rejections(feedback.rejections),
        coverage=_coverage(feedback.coverage),
        hint=feedback.hint,
        last_view_accepted=feedback.last_view_accepted,
        last_reason="" if feedback.last_reason is None else feedback.last_reason.value,
        elapsed=to_duration(feedback.elapsed_s),
    )
    if feedback.known is not None:
        message.already_known = True
        message.known_person_id = feedback.known.person_id
        message.known_name = feedback.known.name
        message.known_probability = float(feedback.known.probability)
    return message


def to_result(result: EnrollmentResult, gallery_version: int) -> EnrollPerson.Result:
    """Return how an enrollment ended; ``gallery_version`` is that of now."""
    message = EnrollResult(
        views_kept=result.views_kept,
        views_rejected=sum(result.rejections.values()),
        rejections=_rejections(result.rejections),
        self_consistency=number(result.self_consistency),
        gallery_version=result.gallery_version or gallery_version,
        coverage=_coverage(result.coverage),
    )
    set_outcome(message, result)
    return message


def refusal(outcome: str, message: str, gallery_version: int = 0) -> EnrollPerson.Result:
    """Return the result of an enrollment that stored nothing for a reason outside the core."""
    nan = float("nan")
    return EnrollResult(
        outcome=outcome,
        message=in_short(message),
        self_consistency=nan,
        nearest_similarity=nan,
        nearest_probability=nan,
        gallery_version=gallery_version,
    )


def _rejections(counts: Mapping[Rejection, int]) -> list[RejectionCount]:
    return [RejectionCount(reason=reason.value, count=count) for reason, count in counts.items() if count]


def _coverage(coverage: PoseCoverage) -> PoseCoverageMessage:
    return filled(PoseCoverageMessage, coverage)


POLL_S = 0.05
FEEDBACK_PERIOD_S = 0.1  # feedback of an enrollment comes at most this often, but for every view that is kept
SEARCH_FEEDBACK_PERIOD_S = 0.2
DEFAULT_SEARCH_S = 10.0
# at a time: each keeps a thread of the executor, which has to have some left for everything else
MOST_SEARCHES = 8


class _Action:
    """Offers an action, accepts every goal and every wish to cancel it."""

    def __init__(self, node: Host, call: Call) -> None:
        self._node = node
        self._server = ActionServer(
            node,
            call.type,
            call.name,
            execute_callback=self._execute,
            goal_callback=lambda goal: GoalResponse.ACCEPT,
            cancel_callback=lambda handle: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
        )

    def close(self) -> None:
        """Take the action off the network."""
        self._server.destroy()

    def _execute(self, handle: Any) -> Any:
        """Run one goal to its end, on a thread of the executor, and give it the terminal state that fits."""
        result = self._run(handle)
        if result.success:
            handle.succeed()
        elif handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return result

    def _run(self, handle: Any) -> Any:
        raise NotImplementedError


class EnrollmentServer(_Action):
    """Ends every goal truthfully; a second one while the first runs ends as "busy"."""

    def __init__(self, node: Host) -> None:
        self._busy = threading.Lock()
        self._interrupted = threading.Event()
        super().__init__(node, ENROLL_PERSON)

    @property
    def is_running(self) -> bool:
        """Whether an enrollment is under way."""
        return self._busy.locked()

    def interrupt(self) -> None:
        """End the enrollment under way, if there is one, and wait until it has let go of the pipeline."""
        self._interrupted.set()
        with self._busy:
            self._interrupted.clear()

    def _run(self, handle: Any) -> EnrollPerson.Result:
        if not self._busy.acquire(blocking=False):
            return refusal(EnrollResult.BUSY, "another enrollment is running; wait for it or cancel it")
        try:
            result = self._enroll(handle)
        finally:
            self._busy.release()
        if result.success:
            self._node.publish_gallery()
            self._node.get_logger().info(f"enrolled {result.person_id} with {result.views_kept} views")
        return result

    def _enroll(self, handle: Any) -> EnrollPerson.Result:
        runtime, pipeline = self._node.runtime, self._node.pipeline
        if runtime is None or pipeline is None or not self._node.is_active:
            return refusal(EnrollResult.NOT_ACTIVE, "the node is not active; activate it and try again")
        settings = self._node.settings
        writer = BackgroundWriter()  # the pipeline's thread must not wait for the commit
        try:
            goal = to_goal(handle.request)
            session = EnrollmentSession(
                goal, runtime.gallery, runtime.models.calibration, settings.recognition.enrollment, writer
            )
        except InputError as error:
            return refusal(EnrollResult.INVALID_GOAL, str(error), runtime.gallery.snapshot().version)
        watch = _Watch(session)
        outcome = ""
        with writer, pipeline.observed_by(watch.observe):
            self._node.check()  # subscribes to the images if nobody had asked for answers before
            last_sent, last_kept = 0.0, 0
            while not watch.finished:
                feedback = watch.wait(POLL_S)
                now = time.monotonic()
                is_news = feedback is not None and feedback.views_kept > last_kept
                if feedback is not None and (is_news or now - last_sent > FEEDBACK_PERIOD_S):
                    last_sent, last_kept = now, feedback.views_kept
                    handle.publish_feedback(to_feedback(feedback))
                if handle.is_cancel_requested:
                    watch.cancel()
                elif self._interrupted.is_set():
                    outcome = EnrollResult.NOT_ACTIVE
                    watch.cancel()
                elif watch.has_seen_nothing and watch.silence > settings.node.image_timeout:
                    outcome = EnrollResult.NO_IMAGES
                    watch.cancel()
        version = runtime.gallery.snapshot().version
        result = to_result(session.result(), version)
        if result.success or not outcome:
            return result
        result.outcome = outcome
        result.message = (
            "the node was deactivated; nothing was stored"
            if outcome == EnrollResult.NOT_ACTIVE
            else f"no image received for {settings.node.image_timeout:g} s; is the camera running, and is "
            f"{self._node.image_topic} its topic? Nothing was stored"
        )
        return result


class _Watch:
    """Feeds a session from the pipeline's thread and lets the action's thread wait for what it says."""

    def __init__(self, session: EnrollmentSession) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._feedback: queue.SimpleQueue[EnrollmentFeedback] = queue.SimpleQueue()
        self._last_image = time.monotonic()
        self._last_stamp: float | None = None

    @property
    def finished(self) -> bool:
        return bool(self._session.finished)

    @property
    def has_seen_nothing(self) -> bool:
        return self._last_stamp is None

    @property
    def silence(self) -> float:
        """Seconds since the last image."""
        return time.monotonic() - self._last_image

    def observe(self, result: RecognitionResult) -> None:
        with self._lock:
            if result.stamp == self._last_stamp:
                return  # where the images' time stands still, that counts as silence
            self._last_image, self._last_stamp = time.monotonic(), result.stamp
            if not self._session.finished:
                self._feedback.put(self._session.observe(result))

    def wait(self, timeout: float) -> EnrollmentFeedback | None:
        """Return the latest feedback, or None after ``timeout`` seconds; lets the session's time go on."""
        try:
            feedback = self._feedback.get(timeout=timeout)
            while not self._feedback.empty():
                feedback = self._feedback.get_nowait()
            return feedback
        except queue.Empty:
            with self._lock:
                if self._last_stamp is not None and not self._session.finished:
                    # Time of the stamps, which need not be that of any clock here.
                    self._session.tick(self._last_stamp + self.silence)
            return None

    def cancel(self) -> None:
        with self._lock:
            if not self._session.finished:
                self._session.cancel()


class FindServer(_Action):
    """Looks out for persons, some at a time; ends with the person or with who was seen instead."""

    def __init__(self, node: Host) -> None:
        self._lock = threading.Lock()
        self._n_running = 0
        super().__init__(node, FIND_PERSON)

    @property
    def is_running(self) -> bool:
        """Whether somebody is being looked for."""
        with self._lock:
            return self._n_running > 0

    def _run(self, handle: Any) -> FindPerson.Result:
        with self._lock:
            if self._n_running >= MOST_SEARCHES:
                return _not_found("BUSY", f"{MOST_SEARCHES} searches are running; wait for one or cancel it")
            self._n_running += 1
        try:
            return self._find(handle)
        finally:
            with self._lock:
                self._n_running -= 1

    def _find(self, handle: Any) -> FindPerson.Result:
        goal, node = handle.request, self._node
        runtime, pipeline = node.runtime, node.pipeline
        if runtime is None or pipeline is None or not node.is_active:
            return _not_found("NOT_ACTIVE", "the node is not active; activate it first")
        if not (goal.person_id or goal.name.strip()):
            return _not_found("INVALID_GOAL", "expected a person_id or a name, got neither")
        whom = goal.person_id or goal.name
        if not _wanted_ids(goal, runtime.gallery.snapshot()):
            return _not_found("NO_SUCH_PERSON", f"nobody is known as {whom[:200]!r}")
        timeout_s = to_seconds(goal.timeout) or DEFAULT_SEARCH_S
        results: queue.SimpleQueue[RecognitionResult] = queue.SimpleQueue()
        seen: dict[str, Face] = {}
        started, last_sent = time.monotonic(), 0.0
        is_blind = True
        with pipeline.observed_by(results.put):
            node.check()  # subscribes to the images if nobody had asked for answers before
            while time.monotonic() - started < timeout_s:
                if handle.is_cancel_requested:
                    return _not_found("CANCELED", "canceled", seen)
                if not node.is_active or node.runtime is not runtime:
                    return _not_found("NOT_ACTIVE", "the node was deactivated")
                try:
                    result = results.get(timeout=POLL_S)
                except queue.Empty:
                    continue
                is_blind = False
                wanted = _wanted_ids(goal, runtime.gallery.snapshot())
                faces = [to_face(face) for face in result.faces]
                for face in faces:
                    if face.person_id in wanted:
                        seen.pop(face.person_id, None)
                        return FindResult(
                            success=True, outcome=FindResult.FOUND,
                            message=f"{face.name or face.person_id} is in view",
                            header=Header(stamp=seconds_to_stamp(result.stamp), frame_id=result.frame_id),
                            face=face, seen=list(seen.values()),
                        )  # fmt: skip
                    seen[face.person_id or f"track {face.track_id}"] = face
                if time.monotonic() - last_sent >= SEARCH_FEEDBACK_PERIOD_S:
                    last_sent = time.monotonic()
                    elapsed = to_duration(last_sent - started)
                    handle.publish_feedback(FindPerson.Feedback(elapsed=elapsed, faces=faces))
        if is_blind:
            cure = f"is the camera running, and is {node.image_topic} its topic?"
            return _not_found("NO_IMAGES", f"no image received for {timeout_s:g} s; {cure}")
        instead = _instead(list(seen.values()))
        return _not_found("NOT_FOUND", f"{whom[:200]} was not seen in {timeout_s:g} s; {instead}", seen)


def _not_found(outcome: str, message: str, seen: Mapping[str, Face] = MappingProxyType({})) -> Any:
    return FindResult(outcome=getattr(FindResult, outcome), message=message, seen=list(seen.values()))


def _wanted_ids(goal: FindPerson.Goal, snapshot: Snapshot) -> set[str]:
    """Return the ids of the persons that a goal means; a name may be that of several."""
    if goal.person_id:
        person_id = snapshot.aliases.get(goal.person_id, goal.person_id)
        return {person_id} & snapshot.persons.keys()
    name = folded(goal.name.strip())
    return {person_id for person_id, person in snapshot.persons.items() if folded(person.name) == name}


def _instead(seen: list[Face]) -> str:
    """Say who was seen."""
    names = [face.name or face.person_id for face in seen if face.identity_state == Face.KNOWN]
    parts = [", ".join(names)] if names else []
    n_others = len(seen) - len(names)
    if n_others:
        parts.append(f"{n_others} unknown")
    return f"seen instead: {' and '.join(parts)}" if parts else "nobody else was seen"

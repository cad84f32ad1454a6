"""The EnrollPerson action: runs one enrollment at a time on the frames that the pipeline answers."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from typing import Any

from rclpy.action.server import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup

from face_recognition_interfaces.action import EnrollPerson
from face_recognition_interfaces.msg import PoseCoverage as PoseCoverageMessage
from face_recognition_interfaces.msg import RejectionCount
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
from face_recognition_node.media.face_fields import number
from face_recognition_node.ros.lifecycle import LoudNode
from face_recognition_node.ros.messages import ENROLL_PERSON, to_duration, to_seconds
from face_recognition_node.ros.runtime import Host
from face_recognition_node.vision.faces import RecognitionResult


def to_goal(request: EnrollPerson.Goal) -> EnrollmentGoal:
    """Return what the client asks for.

    Raises:
        InputError: If the goal contradicts itself or is out of bounds.
    """
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
    nearest = result.nearest
    return EnrollPerson.Result(
        success=result.success,
        message=result.message,
        outcome=result.outcome.value,
        person_id=result.person_id or "",
        name=result.name,
        views_kept=result.views_kept,
        views_rejected=sum(result.rejections.values()),
        rejections=_rejections(result.rejections),
        self_consistency=number(result.self_consistency),
        nearest_person_id="" if nearest is None else nearest.person_id,
        nearest_name="" if nearest is None else nearest.name,
        nearest_similarity=number(None if nearest is None else nearest.similarity),
        nearest_probability=number(None if nearest is None else nearest.probability),
        gallery_version=result.gallery_version or gallery_version,
        coverage=_coverage(result.coverage),
    )


def refusal(outcome: str, message: str, gallery_version: int = 0) -> EnrollPerson.Result:
    """Return the result of an enrollment that stored nothing for a reason outside the core."""
    nan = float("nan")
    return EnrollPerson.Result(
        outcome=outcome,
        message=message,
        self_consistency=nan,
        nearest_similarity=nan,
        nearest_probability=nan,
        gallery_version=gallery_version,
    )


def _rejections(counts: Mapping[Rejection, int]) -> list[RejectionCount]:
    return [RejectionCount(reason=reason.value, count=count) for reason, count in counts.items() if count]


def _coverage(coverage: PoseCoverage) -> PoseCoverageMessage:
    return PoseCoverageMessage(
        left=coverage.left,
        front=coverage.front,
        right=coverage.right,
        up=coverage.up,
        down=coverage.down,
    )


POLL_S = 0.05
FEEDBACK_PERIOD_S = 0.1
"""Feedback comes at most this often, but for every view that is kept."""
Result = EnrollPerson.Result


class EnrollmentServer:
    """Accepts every goal and ends it truthfully; a second one while the first runs ends as "busy".

    Args:
        node: Makes the action.
        host: Owns the pipeline, and is told when an enrollment wants images.
    """

    def __init__(self, node: LoudNode, host: Host) -> None:
        self._node, self._host = node, host
        self._busy = threading.Lock()
        self._interrupted = threading.Event()
        self._server = ActionServer(
            node,
            ENROLL_PERSON.type,
            ENROLL_PERSON.name,
            execute_callback=self._execute,
            goal_callback=lambda goal: GoalResponse.ACCEPT,
            cancel_callback=lambda handle: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
        )

    @property
    def is_running(self) -> bool:
        """Whether an enrollment is under way."""
        return self._busy.locked()

    def interrupt(self) -> None:
        """End the enrollment under way, if there is one, and wait until it has let go of the pipeline."""
        self._interrupted.set()
        with self._busy:
            self._interrupted.clear()

    def close(self) -> None:
        """Take the action off the network."""
        self._server.destroy()

    def _execute(self, handle: Any) -> EnrollPerson.Result:
        """Run one goal to its end, on a thread of the executor."""
        if not self._busy.acquire(blocking=False):
            return _end(
                handle, refusal(Result.BUSY, "another enrollment is running; wait for it or cancel it")
            )
        try:
            result = self._enroll(handle)
        finally:
            self._busy.release()
        if result.success:
            self._host.publish_gallery()
            self._node.get_logger().info(f"enrolled {result.person_id} with {result.views_kept} views")
        return _end(handle, result)

    def _enroll(self, handle: Any) -> EnrollPerson.Result:
        runtime, pipeline = self._host.runtime, self._host.pipeline
        if runtime is None or pipeline is None or not self._host.is_active:
            return refusal(Result.NOT_ACTIVE, "the node is not active; activate it and try again")
        settings = self._host.settings
        writer = BackgroundWriter()  # the pipeline's thread must not wait for the commit
        try:
            goal = to_goal(handle.request)
            session = EnrollmentSession(
                goal, runtime.gallery, runtime.models.calibration, settings.recognition.enrollment, writer
            )
        except InputError as error:
            return refusal(Result.INVALID_GOAL, str(error), runtime.gallery.snapshot().version)
        watch = _Watch(session)
        outcome = ""
        with writer, pipeline.observed_by(watch.observe):
            self._host.check()  # subscribes to the images if nobody had asked for answers before
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
                    outcome = Result.NOT_ACTIVE
                    watch.cancel()
                elif watch.has_seen_nothing and watch.silence > settings.node.image_timeout:
                    outcome = Result.NO_IMAGES
                    watch.cancel()
        version = runtime.gallery.snapshot().version
        result = to_result(session.result(), version)
        if result.success or not outcome:
            return result
        result.outcome = outcome
        result.message = (
            "the node was deactivated; nothing was stored"
            if outcome == Result.NOT_ACTIVE
            else f"no image received for {settings.node.image_timeout:g} s; is the camera running, and is "
            f"{self._host.image_topic} its topic? Nothing was stored"
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


def _end(handle: Any, result: EnrollPerson.Result) -> EnrollPerson.Result:
    """Give the goal the terminal state that fits its result."""
    if result.success:
        handle.succeed()
    elif handle.is_cancel_requested:
        handle.canceled()
    else:
        handle.abort()
    return result

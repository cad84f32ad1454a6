"""The EnrollPerson action: runs one enrolment at a time on the frames that the pipeline answers."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from rclpy.action.server import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup

from face_recognition_interfaces.action import EnrollPerson
from face_recognition_node.common.errors import InputError
from face_recognition_node.enrollment.goal import EnrollmentFeedback
from face_recognition_node.enrollment.session import EnrollmentSession
from face_recognition_node.ros.enrollment_messages import refusal, to_feedback, to_goal, to_result
from face_recognition_node.ros.interface import ENROLL_PERSON
from face_recognition_node.vision.faces import RecognitionResult

if TYPE_CHECKING:
    from face_recognition_node.ros.node import FaceRecognitionNode

POLL_S = 0.05
FEEDBACK_PERIOD_S = 0.1
"""Feedback comes at most this often, but for every view that is kept."""
Result = EnrollPerson.Result


class EnrollmentServer:
    """Accepts every goal and ends it truthfully; a second one while the first runs ends as "busy".

    Args:
        node: Owns the pipeline, and is told when an enrolment wants images.
    """

    def __init__(self, node: FaceRecognitionNode) -> None:
        self._node = node
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
        """Whether an enrolment is under way."""
        return self._busy.locked()

    def interrupt(self) -> None:
        """End the enrolment under way, if there is one, and wait until it has let go of the pipeline."""
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
                handle, refusal(Result.BUSY, "another enrolment is running; wait for it or cancel it")
            )
        try:
            result = self._enroll(handle)
        finally:
            self._busy.release()
        if result.success:
            self._node.publish_gallery()
        return _end(handle, result)

    def _enroll(self, handle: Any) -> EnrollPerson.Result:
        runtime, pipeline = self._node.runtime, self._node.pipeline
        if runtime is None or pipeline is None or not self._node.is_active:
            return refusal(Result.NOT_ACTIVE, "the node is not active; activate it and try again")
        settings = self._node.settings
        try:
            goal = to_goal(handle.request)
            session = EnrollmentSession(
                goal, runtime.gallery, runtime.models.calibration, settings.recognition.enrollment
            )
        except InputError as error:
            return refusal(Result.INVALID_GOAL, str(error), runtime.gallery.snapshot().version)
        watch = _Watch(session)
        outcome = ""
        with pipeline.observed_by(watch.observe):
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
            "the node stopped being active; nothing was stored"
            if outcome == Result.NOT_ACTIVE
            else f"no image came for {settings.node.image_timeout:g} s; is the camera running, and is "
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


def _end(handle: Any, result: EnrollPerson.Result) -> EnrollPerson.Result:
    """Give the goal the terminal state that fits its result."""
    if result.success:
        handle.succeed()
    elif handle.is_cancel_requested:
        handle.canceled()
    else:
        handle.abort()
    return result

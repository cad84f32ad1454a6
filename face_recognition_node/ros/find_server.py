"""The FindPerson action: looks out for a person in the frames that the pipeline answers."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

from rclpy.action.server import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from std_msgs.msg import Header

from face_recognition_interfaces.action import FindPerson
from face_recognition_interfaces.msg import Face
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.gallery.values import folded
from face_recognition_node.ros.conversions import seconds_to_stamp
from face_recognition_node.ros.lifecycle import LoudNode
from face_recognition_node.ros.messages import FIND_PERSON, to_duration, to_face, to_seconds
from face_recognition_node.ros.runtime import Host
from face_recognition_node.vision.faces import RecognitionResult

DEFAULT_TIMEOUT_S = 10.0
FEEDBACK_PERIOD_S = 0.2
_POLL_S = 0.05
Result = FindPerson.Result


class FindServer:
    """Accepts every goal, several at a time, and ends each with the person or with who was seen instead.

    Args:
        node: Makes the action.
        host: Owns the pipeline, and is told when a search wants images.
    """

    def __init__(self, node: LoudNode, host: Host) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._n_running = 0
        self._server = ActionServer(
            node,
            FIND_PERSON.type,
            FIND_PERSON.name,
            execute_callback=self._execute,
            goal_callback=lambda goal: GoalResponse.ACCEPT,
            cancel_callback=lambda handle: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
        )

    @property
    def is_running(self) -> bool:
        """Whether somebody is being looked for."""
        with self._lock:
            return self._n_running > 0

    def close(self) -> None:
        """Take the action off the network."""
        self._server.destroy()

    def _execute(self, handle: Any) -> FindPerson.Result:
        """Run one goal to its end, on a thread of the executor."""
        with self._lock:
            self._n_running += 1
        try:
            result = self._find(handle)
        finally:
            with self._lock:
                self._n_running -= 1
        if result.success:
            handle.succeed()
        elif result.outcome == Result.CANCELED:
            handle.canceled()
        else:
            handle.abort()
        return result

    def _find(self, handle: Any) -> FindPerson.Result:
        goal, host = handle.request, self._host
        runtime, pipeline = host.runtime, host.pipeline
        if runtime is None or pipeline is None or not host.is_active:
            return Result(outcome=Result.NOT_ACTIVE, message="the node is not active; activate it first")
        if not (goal.person_id or goal.name.strip()):
            return Result(outcome=Result.INVALID_GOAL, message="expected a person_id or a name, got neither")
        whom = goal.person_id or goal.name
        if not _wanted_ids(goal, runtime.gallery.snapshot()):
            return Result(outcome=Result.NO_SUCH_PERSON, message=f"nobody is known as {whom[:200]!r}")
        timeout_s = to_seconds(goal.timeout) or DEFAULT_TIMEOUT_S
        results: queue.SimpleQueue[RecognitionResult] = queue.SimpleQueue()
        seen: dict[str, Face] = {}
        started, last_sent = time.monotonic(), 0.0
        is_blind = True
        with pipeline.observed_by(results.put):
            host.check()  # subscribes to the images if nobody had asked for answers before
            while time.monotonic() - started < timeout_s:
                if handle.is_cancel_requested:
                    return Result(outcome=Result.CANCELED, message="canceled", seen=list(seen.values()))
                if not host.is_active or host.runtime is not runtime:
                    return Result(outcome=Result.NOT_ACTIVE, message="the node was deactivated")
                try:
                    result = results.get(timeout=_POLL_S)
                except queue.Empty:
                    continue
                is_blind = False
                wanted = _wanted_ids(goal, runtime.gallery.snapshot())
                faces = [to_face(face) for face in result.faces]
                for face in faces:
                    if face.person_id in wanted:
                        seen.pop(face.person_id, None)
                        return Result(
                            success=True,
                            outcome=Result.FOUND,
                            message=f"{face.name or face.person_id} is in view",
                            header=Header(stamp=seconds_to_stamp(result.stamp), frame_id=result.frame_id),
                            face=face,
                            seen=list(seen.values()),
                        )
                    seen[face.person_id or f"track {face.track_id}"] = face
                if time.monotonic() - last_sent >= FEEDBACK_PERIOD_S:
                    last_sent = time.monotonic()
                    elapsed = to_duration(last_sent - started)
                    handle.publish_feedback(FindPerson.Feedback(elapsed=elapsed, faces=faces))
        if is_blind:
            return Result(
                outcome=Result.NO_IMAGES,
                message=f"no image received for {timeout_s:g} s; is the camera running, and is "
                f"{host.image_topic} its topic?",
            )
        return Result(
            outcome=Result.NOT_FOUND,
            message=f"{whom[:200]} was not seen in {timeout_s:g} s; {_instead(list(seen.values()))}",
            seen=list(seen.values()),
        )


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

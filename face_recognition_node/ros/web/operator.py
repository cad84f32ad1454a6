"""The operator of a recognition node on the network, by its public topics, services and action only."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import QoSProfile

from face_recognition_interfaces.action import EnrollPerson
from face_recognition_interfaces.msg import GalleryInfo, PersonInfo
from face_recognition_node.common.errors import FaceRecognitionError
from face_recognition_node.enrollment.coverage import DIRECTIONS
from face_recognition_node.gallery.values import Session
from face_recognition_node.identity.operating_point import OperatingPoint
from face_recognition_node.ros.messages import (
    DIAGNOSTICS,
    ENROLL_PERSON,
    GALLERY,
    PROVENANCES,
    SERVICES,
    SESSION_KINDS,
    stamp_to_seconds,
    to_duration,
    to_seconds,
)
from face_recognition_node.ros.remote import Remote, RemoteError
from face_recognition_node.ros.web.pictures import WebPictures
from face_recognition_node.web.operator import (
    TARGET,
    Card,
    EnrollmentState,
    Operator,
    Overview,
    Pair,
    Problem,
    Status,
    Step,
    StoredView,
)

_PROVENANCE = {number: provenance.value for provenance, number in PROVENANCES.items()}
_KIND = {number: kind for kind, number in SESSION_KINDS.items()}
_TYPES = {call.name.removeprefix("~/"): call.type for call in SERVICES}

SILENCE_S = 3.5  # without diagnostics, which come every second, for this long the node counts as gone
PATIENCE_S = 60.0  # for a service that may write a large file
QUICK_S = 3.0

# part of a diagnostic message that does not name its cure itself → the cure
CURES = {
    "too slow a machine": "Close other programs, lower detector.working_width, or lower the camera's rate.",
    "usable image": "Publish one of the encodings that docs/ros.md lists.",
    "bad images": "Publish one of the encodings that docs/ros.md lists.",
    "check the disk": "Check the disk and the rights of the gallery's folder.",
}


class RobotOperator(Operator):
    """A recognition node somewhere on the network, by its full name; use it as a context manager."""

    def __init__(self, remote: Remote, node: str) -> None:
        super().__init__()
        self._remote, self._node = remote, node
        self._pictures = WebPictures(remote.node, node, self._show)
        self._is_watched = False
        self._heard, self._diagnostics = 0.0, dict[str, DiagnosticStatus]()
        self._gallery: GalleryInfo | None = None
        self._state: EnrollmentState | None = None
        self._goal: Any = None
        self._is_canceled = False

    def __enter__(self) -> RobotOperator:
        """Begin to listen."""
        node = self._remote.node
        self._action = self._remote.action_client(EnrollPerson, self._name(ENROLL_PERSON.name))
        node.create_subscription(GalleryInfo, self._name(GALLERY.name), self._on_gallery, GALLERY.qos)
        node.create_subscription(
            DiagnosticArray, DIAGNOSTICS.name, self._on_diagnostics, QoSProfile(depth=20)
        )
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening; a running enrollment is canceled, because nobody sees it any more."""
        with contextlib.suppress(FaceRecognitionError):
            self._cancel()
        self._pictures.close()

    def _name(self, relative: str) -> str:
        return relative.replace("~", self._node, 1)

    # --- pictures -----------------------------------------------------------------------------------

    def watch(self, is_watched: bool) -> None:
        """See :class:`Operator`; the node works for us only while somebody looks."""
        self._is_watched = is_watched
        self._pictures.subscribe(is_watched, self._value("stream", "image topic"))

    # --- how it is doing ------------------------------------------------------------------------------

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        prefix = f"{self._node}: "
        own = {one.name.removeprefix(prefix): one for one in message.status if one.name.startswith(prefix)}
        if own:
            self._diagnostics, self._heard = own, time.monotonic()
            self._pictures.subscribe(self._is_watched, self._value("stream", "image topic"))

    def _value(self, entry: str, key: str) -> str:
        status = self._diagnostics.get(entry)
        return next((pair.value for pair in status.values if pair.key == key), "") if status else ""

    def _number(self, entry: str, key: str) -> float | None:
        try:
            return float(self._value(entry, key))
        except ValueError:  # "unknown", or not told in this state
            return None

    def status(self) -> Status:
        """See :class:`Operator`."""
        if not self._is_there():
            self._update(is_running=False, outcome="lost", message=f"{self._node} is gone; try again later.")
        return Status(
            source=self._value("stream", "image topic") or self._node,
            received_hz=self._number("stream", "received [Hz]") or 0.0,
            rate_hz=self._number("stream", "answered [Hz]") or 0.0,
            latency_ms=self._number("stream", "latency p50 [ms]"),
            latency_p95_ms=self._number("stream", "latency p95 [ms]"),
            dropped=int(self._number("stream", "dropped") or 0),
            backend=self._value("models", "embedder backend"),
            backend_reason=self._value("models", "embedder backend chosen"),
            version=self._version(),
            problems=self._problems(),
            enrollment=self._state,
        )

    def _version(self) -> int:
        return self._version_of(0 if self._gallery is None else int(self._gallery.version))

    def _is_there(self) -> bool:
        return time.monotonic() - self._heard < SILENCE_S

    def _problems(self) -> tuple[Problem, ...]:
        if not self._is_there():
            return (
                Problem(
                    f"No messages from {self._node}",
                    "Is it running, with the same ROS_DOMAIN_ID, on this machine's network?",
                    is_error=True,
                ),
            )
        found = []
        state = self._value("stream", "lifecycle state")
        if state != "active":
            step = {"unconfigured": "configure", "inactive": "activate"}.get(state, "get")
            found.append(
                Problem(f"The node is {state}", f"ros2 lifecycle set {self._node} {step}", is_error=True)
            )
        for status in self._diagnostics.values():
            if status.level != DiagnosticStatus.OK:
                what, _, cure = status.message.partition("; ")
                cure = cure or next((cure for part, cure in CURES.items() if part in what), "")
                is_error = status.level != DiagnosticStatus.WARN
                found.append(Problem(_capital(what), _capital(cure), is_error))
        return tuple(found)

    # --- who is known ---------------------------------------------------------------------------------

    def _on_gallery(self, message: GalleryInfo) -> None:
        self._gallery = message

    def _known(self) -> GalleryInfo:
        if self._gallery is None:
            raise RemoteError(f"{self._node} has not published its gallery yet; is it configured?")
        return self._gallery

    def _people(self) -> tuple[Card, ...]:
        return tuple(map(_card, self._known().persons))

    def _overview(self) -> Overview:
        version, gallery, people = self._version(), self._known(), self._people()
        review = self._call("review_gallery")
        if review.keeps_crops:
            pictures: dict[str, int] = {}
            for view in self._views():
                pictures.setdefault(view.person_id, view.template_id)
            people = tuple(replace(card, picture=pictures.get(card.person_id)) for card in people)
        ids = review.twin_person_ids
        sessions = zip(review.session_names, review.session_kinds, review.session_ttls, strict=True)
        return Overview(
            version=version,
            people=people,
            pairs=tuple(map(Pair, ids[::2], ids[1::2], review.twin_probabilities)),
            history=tuple(
                Step(one.sentence, stamp_to_seconds(one.made), one.is_done, _time(one.deadline))
                for one in review.changes
            ),
            sessions=tuple(
                Session(name, _KIND[kind], to_seconds(ttl) or None) for name, kind, ttl in sessions
            ),
            session=gallery.session,
            gallery=self._value("gallery", "file") or "unknown",
            operating_point=OperatingPoint(
                review.target_false_accept_rate, review.strangers_named, review.people_named, review.measured
            ),
        )

    def _views(self) -> tuple[StoredView, ...]:
        answer = self._call("list_persons", include_strangers=True, include_templates=True)
        return tuple(
            StoredView(
                t.template_id, t.person_id, _PROVENANCE[t.provenance], t.quality, t.yaw, t.pitch,
                stamp_to_seconds(t.created), t.is_set_aside,
            )
            for t in answer.templates
        )  # fmt: skip

    def crop(self, template_id: int) -> bytes | None:
        """See :class:`Operator`."""
        return bytes(self._call("get_crop", template_id=template_id).crop.data)

    # --- enrollment -----------------------------------------------------------------------------------

    def _enrollment(self) -> EnrollmentState | None:
        return self._state

    def _begin(self, track_id: int, name: str, person_id: str, is_somebody_else: bool) -> None:
        if not self._action.server_is_ready():
            raise RemoteError(f"{self._node} is not available for enrollment")
        goal = EnrollPerson.Goal(
            name=name, person_id=person_id, selection=EnrollPerson.Goal.SELECT_TRACK, track_id=track_id,
            is_somebody_else=is_somebody_else,
        )  # fmt: skip
        number = 1 if self._state is None else self._state.number + 1
        shown = name or self._label(person_id)
        self._state = EnrollmentState(number, True, track_id, shown, 0, 0, {}, (), "")
        self._goal, self._is_canceled = None, False
        sent = self._action.send_goal_async(goal, self._on_feedback)
        sent.add_done_callback(self._on_accepted)

    def _on_accepted(self, sent: Any) -> None:
        goal = self._goal = sent.result()
        if goal.accepted:
            goal.get_result_async().add_done_callback(self._on_result)
            if self._is_canceled:
                goal.cancel_goal_async()
        else:
            self._update(is_running=False, outcome="refused", message="The node refused.")

    def _on_feedback(self, message: Any) -> None:
        feedback = message.feedback
        self._update(
            views_kept=feedback.views_kept,
            wanted_views=feedback.wanted_views,
            rejections={one.reason: one.count for one in feedback.rejections},
            coverage=_directions(feedback.coverage),
            hint=feedback.hint,
            known_id=feedback.known_person_id,
            known_name=feedback.known_name,
            known_probability=feedback.known_probability,
        )

    def _on_result(self, future: Any) -> None:
        result = future.result().result
        more: dict[str, Any] = {}
        if result.outcome == result.ALREADY_KNOWN:
            more = {"known_id": result.nearest_person_id, "known_name": result.nearest_name}
            more["known_probability"] = result.nearest_probability
        self._update(
            is_running=False,
            views_kept=result.views_kept,
            rejections={one.reason: one.count for one in result.rejections},
            coverage=_directions(result.coverage),
            outcome=result.outcome,
            message=result.message,
            **more,
        )

    def _update(self, **values: Any) -> None:
        with self._lock:
            if self._state is not None and self._state.is_running:
                self._state = replace(self._state, **values)

    def _cancel(self) -> None:
        self._is_canceled = True  # where the node has not accepted yet, as soon as it does
        running, goal = self._state, self._goal
        if running is not None and running.is_running and goal is not None:
            goal.cancel_goal_async()

    # --- changes ----------------------------------------------------------------------------------------

    def _call(self, service: str, **request: Any) -> Any:
        """Call a service of the node; raise RemoteError with its words where it refuses."""
        type_ = _TYPES[service]
        answer = self._ask(type_, f"{self._node}/{service}", type_.Request(**request), PATIENCE_S)
        if not answer.success and service != "verify_gallery":
            raise RemoteError(answer.message or f"{self._node} refused")
        return answer

    def _ask(self, type_: Any, name: str, request: Any, patience: float = QUICK_S) -> Any:
        if not self._is_there():
            raise RemoteError(f"No messages from {self._node}; is it running?")
        return self._remote.call(type_, name, request, patience)

    def _rename(self, person_id: str, name: str) -> Card:
        return _card(self._call("rename_person", person_id=person_id, name=name).person)

    def _merge(self, keep_id: str, other_ids: Sequence[str]) -> Card:
        request = {"keep_person_id": keep_id, "merge_person_ids": list(other_ids)}
        return _card(self._call("merge_persons", **request).person)

    def _split(self, template_ids: Sequence[int], name: str) -> Card:
        return _card(self._call("split_template", template_ids=list(template_ids), name=name).person)

    def _forget(self, person_ids: Sequence[str], is_final: bool) -> str:
        return str(self._call("forget_persons", person_ids=list(person_ids), final=is_final).message)

    def _step(self, is_redo: bool) -> Sequence[str]:
        return list(self._call("undo_gallery", redo=is_redo).changes)

    def _set_session(self, session: Session) -> None:
        ttl = to_duration(session.time_to_live_s or 0.0)
        self._call("set_session", name=session.name, kind=SESSION_KINDS[session.kind], ttl=ttl)

    def _export(self, path: Path, overwrite: bool) -> tuple[int, int, str]:
        answer = self._call("export_gallery", path=str(path), overwrite=overwrite)
        return answer.n_persons, answer.n_templates, answer.path

    def _import(self, path: Path) -> tuple[int, int]:
        answer = self._call("import_gallery", path=str(path))
        return len(answer.person_ids), answer.n_templates

    def _check(self) -> tuple[Sequence[str], Sequence[int], int, int]:
        answer = self._call("verify_gallery")
        return answer.problems, answer.suspicious_template_ids, answer.n_persons, answer.n_templates

    def _set_target(self, rate: float) -> None:
        value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=rate)
        request = SetParameters.Request(parameters=[Parameter(name=TARGET, value=value)])
        result = self._ask(SetParameters, f"{self._node}/set_parameters", request).results[0]
        if not result.successful:
            raise RemoteError(result.reason)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _directions(coverage: Any) -> tuple[str, ...]:
    return tuple(name for name in DIRECTIONS if getattr(coverage, name))


def _time(stamp: Any) -> float | None:
    return stamp_to_seconds(stamp) or None


def _card(person: PersonInfo) -> Card:
    return Card(
        person.person_id, person.name, person.is_stranger, person.n_templates, person.n_adapted,
        person.session, _time(person.created), _time(person.last_seen), _time(person.expires),
    )  # fmt: skip

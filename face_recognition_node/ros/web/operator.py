"""The operator of a recognition node on the network, by its public topics, services and action only."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.qos import QoSProfile

from face_recognition_interfaces.action import EnrollPerson
from face_recognition_interfaces.msg import GalleryInfo, PersonInfo
from face_recognition_node.common.errors import FaceRecognitionError, InputError, ModelError
from face_recognition_node.common.parameters import with_values
from face_recognition_node.config import Config
from face_recognition_node.enrollment.coverage import DIRECTIONS
from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.ros.conversions import stamp_to_seconds
from face_recognition_node.ros.messages import (
    DIAGNOSTICS,
    ENROLL_PERSON,
    GALLERY,
    PROVENANCES,
    SERVICES,
    SESSION_KINDS,
    to_duration,
)
from face_recognition_node.ros.remote import Remote
from face_recognition_node.ros.web.pictures import WebPictures
from face_recognition_node.web.advice import changes, explain, operating_point
from face_recognition_node.web.operator import (
    Card,
    EnrollmentState,
    OperatingPoint,
    Overview,
    Pair,
    Picture,
    Problem,
    SessionInfo,
    Status,
    Step,
    StoredView,
    UnavailableError,
    Verification,
)

_PROVENANCE = {number: provenance.value for provenance, number in PROVENANCES.items()}
_KIND = {number: kind.value for kind, number in SESSION_KINDS.items()}
_TYPES = {call.name.removeprefix("~/"): call.type for call in SERVICES}

SILENCE_S = 3.5
"""Without diagnostics, which come every second, for this long the node counts as gone."""
MOST_STEPS = 200
PATIENCE_S = 60.0
"""For a service that may write a large file."""
QUICK_S = 3.0

TARGET = "identity.target_false_accept_rate"
ASKED = (TARGET, "identity.new_person_prior", "identity.minimum_probability", "models.models_dir",
         "models.embedder")  # fmt: skip
"""Parameters of the node that the operating point depends on."""

CURES = {
    "too slow a machine": "Close other programs, lower detector.working_width, or lower the camera's rate.",
    "usable image": "Publish one of the encodings that docs/ros.md lists.",
    "bad images": "Publish one of the encodings that docs/ros.md lists.",
    "cannot be written": "Check the disk and the rights of the gallery's folder.",
}
"""Part of a diagnostic message that does not name its cure itself → the cure."""


class RobotOperator:
    """A recognition node somewhere on the network; use it as a context manager.

    Args:
        remote: This node, entered.
        node: Full name of the recognition node.
    """

    def __init__(self, remote: Remote, node: str) -> None:
        self._remote, self._node = remote, node
        self._pictures = WebPictures(remote.node, node)
        self._lock = threading.RLock()
        self._is_watched = False
        self._heard, self._diagnostics = 0.0, dict[str, DiagnosticStatus]()
        self._gallery: GalleryInfo | None = None
        self._people: tuple[Card, ...] = ()
        self._pairs: list[Pair] = []
        self._steps: list[tuple[str, Step]] = []
        self._gone: set[str] = set()
        self._enrollment: EnrollmentState | None = None
        self._goal: Any = None
        self._is_canceled = False
        self._settings = 0
        self._calibration: tuple[str, Calibration] | None = None

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
            self.cancel_enrollment()
        self._pictures.close()

    def _name(self, relative: str) -> str:
        return relative.replace("~", self._node, 1)

    # --- pictures -----------------------------------------------------------------------------------

    def follow(self, on_picture: Callable[[], None]) -> None:
        """See :class:`Operator`."""
        self._pictures.followers.append(on_picture)

    def watch(self, is_watched: bool) -> None:
        """See :class:`Operator`; the node works for us only while somebody looks."""
        self._is_watched = is_watched
        self._pictures.subscribe(is_watched, self._value("stream", "image topic"))

    def picture(self) -> Picture | None:
        """See :class:`Operator`."""
        return self._pictures.picture

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
            enrollment=self._enrollment,
        )

    def _version(self) -> int:
        version = 0 if self._gallery is None else int(self._gallery.version)
        return version * 1000 + self._settings % 1000

    def _is_there(self) -> bool:
        return time.monotonic() - self._heard < SILENCE_S

    def _problems(self) -> tuple[Problem, ...]:
        if not self._is_there():
            return (
                Problem(
                    f"Nothing is heard of {self._node}",
                    "Is it running, in the same ROS_DOMAIN_ID and on a network that this machine is in?",
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
        people = tuple(_card(person) for person in message.persons)
        with self._lock:
            before, old, self._gallery, self._people = self._gallery, self._people, message, people
            if before is None:
                return
            news = changes(old, people)
            if before.session != message.session:
                news.append(("", f"Newcomers are stored under {message.session or 'the default session'}"))
            for person_id, sentence in news:
                if person_id in self._gone:  # forgotten for good: what is told of them goes, too
                    self._steps = [one for one in self._steps if one[0] != person_id]
                    sentence = "A person was forgotten for good"
                made = stamp_to_seconds(message.header.stamp)
                self._steps = [*self._steps[1 - MOST_STEPS :], (person_id, Step(sentence, made, True, None))]

    def overview(self) -> Overview:
        """See :class:`Operator`."""
        gallery = self._gallery
        if gallery is None:
            raise UnavailableError(f"{self._node} has not said yet whom it knows; is it configured?")
        point, why = self._operating_point(gallery)
        members = [person.session for person in self._people]
        names = sorted({gallery.session, *members})
        return Overview(
            version=self._version(),
            people=self._people,
            pairs=tuple(pair for pair in self._pairs if {pair.first_id, pair.second_id} <= self._ids()),
            history=tuple(step for _, step in self._steps),
            sessions=tuple(
                SessionInfo(
                    name, _KIND[gallery.session_kind] if name == gallery.session else "", None,
                    members.count(name),
                )
                for name in names
            ),
            session=gallery.session,
            gallery=self._value("gallery", "file") or "unknown",
            operating_point=point,
            unavailable={
                "history": "The node does not tell its history: these are the changes since this page began.",
                "pairs": "A check of the gallery (tab Gallery) tells which entries may be one person.",
                **({"operating_point": why} if why else {}),
            },
        )  # fmt: skip

    def _ids(self) -> set[str]:
        return {person.person_id for person in self._people}

    def _operating_point(self, gallery: GalleryInfo) -> tuple[OperatingPoint | None, str]:
        """Return what the target costs, or why that is not known."""
        if not self._is_there():
            return None, f"Nothing is heard of {self._node}."
        try:
            values = self._parameters()
            calibration = self._load_calibration(
                gallery.model_fingerprint, values.pop("models.models_dir"), values.pop("models.embedder")
            )
            config = with_values(Config(), values)
        except FaceRecognitionError as error:
            return None, str(error)
        people = sum(not person.is_stranger for person in self._people)
        return operating_point(calibration, config.identity, people), ""

    def _parameters(self) -> dict[str, Any]:
        request = GetParameters.Request(names=list(ASKED))
        answer = self._ask(GetParameters, f"{self._node}/get_parameters", request)
        if len(answer.values) != len(ASKED):
            raise UnavailableError(f"{self._node} does not tell its parameters.")
        is_text = ParameterType.PARAMETER_STRING
        return {
            name: value.string_value if value.type == is_text else value.double_value
            for name, value in zip(ASKED, answer.values, strict=True)
        }

    def _load_calibration(self, fingerprint: str, folder: str, embedder: str) -> Calibration:
        """Return the calibration of the node's model, from this machine's copy of its card."""
        from face_recognition_node.backends.loading import load_card

        if self._calibration is None or self._calibration[0] != fingerprint:
            models = replace(Config().models, models_dir=folder, embedder=embedder)
            card = load_card(models, embedder)
            if card.fingerprint != fingerprint:
                raise ModelError(f"The node uses the model {fingerprint}, which is not on this machine.")
            self._calibration = (fingerprint, Calibration.from_card(card))
        return self._calibration[1]

    def views(self, person_id: str) -> tuple[StoredView, ...]:
        """See :class:`Operator`."""
        return tuple(
            StoredView(
                t.template_id, _PROVENANCE[t.provenance], t.quality, t.yaw, t.pitch,
                stamp_to_seconds(t.created), t.is_set_aside,
            )
            for t in self._templates()
            if t.person_id == person_id
        )  # fmt: skip

    def _templates(self) -> Sequence[Any]:
        answer = self._call("list_persons", include_strangers=True, include_templates=True)
        return list(answer.templates)

    def crop(self, template_id: int) -> bytes | None:
        """See :class:`Operator`; the node tells no pictures."""
        return None

    # --- enrollment -----------------------------------------------------------------------------------

    def enroll(self, track_id: int, name: str, person_id: str, is_somebody_else: bool) -> str:
        """See :class:`Operator`."""
        if not self._action.server_is_ready():
            raise UnavailableError(f"{self._node} is not there to enroll anybody")
        goal = EnrollPerson.Goal(
            name=name, person_id=person_id, selection=EnrollPerson.Goal.SELECT_TRACK, track_id=track_id,
            is_somebody_else=is_somebody_else,
        )  # fmt: skip
        with self._lock:
            running = self._enrollment
            if running is not None and running.is_running:
                raise InputError("another enrollment is running; cancel it first")
            number = 1 if running is None else running.number + 1
            self._enrollment = EnrollmentState(number, True, track_id, name, 0, 0, {}, (), "")
            self._goal, self._is_canceled = None, False
        sent = self._action.send_goal_async(goal, self._on_feedback)
        sent.add_done_callback(self._on_accepted)
        return f"Getting to know {name or 'this face'}"

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
            if self._enrollment is not None and self._enrollment.is_running:
                self._enrollment = replace(self._enrollment, **values)

    def cancel_enrollment(self) -> str:
        """See :class:`Operator`."""
        self._is_canceled = True  # where the node has not accepted yet, as soon as it does
        running, goal = self._enrollment, self._goal
        if running is not None and running.is_running and goal is not None:
            goal.cancel_goal_async()
        return "Enrollment canceled; nothing was stored"

    # --- changes ----------------------------------------------------------------------------------------

    def _call(self, service: str, **request: Any) -> Any:
        """Call a service of the node; raise UnavailableError with its words where it refuses."""
        type_ = _TYPES[service]
        answer = self._ask(type_, f"{self._node}/{service}", type_.Request(**request), PATIENCE_S)
        if not answer.success and service != "verify_gallery":
            raise UnavailableError(answer.message or f"{self._node} refused")
        return answer

    def _ask(self, type_: Any, name: str, request: Any, patience: float = QUICK_S) -> Any:
        if not self._is_there():
            raise UnavailableError(f"Nothing is heard of {self._node}; is it running?")
        return self._remote.call(type_, name, request, patience)

    def rename(self, person_id: str, name: str) -> str:
        """See :class:`Operator`."""
        before = self._label(person_id)
        person = self._call("rename_person", person_id=person_id, name=name).person
        return f"{before} is now called {_label(person)}"

    def _label(self, person_id: str) -> str:
        return next((one.name for one in self._people if one.person_id == person_id), "") or person_id

    def merge(self, keep_id: str, other_ids: Sequence[str]) -> str:
        """See :class:`Operator`."""
        answer = self._call("merge_persons", keep_person_id=keep_id, merge_person_ids=list(other_ids))
        return f"{_label(answer.person)} now has {answer.person.n_templates} views"

    def split(self, template_ids: Sequence[int], name: str) -> str:
        """See :class:`Operator`."""
        person = self._call("split_template", template_ids=list(template_ids), name=name).person
        return f"{_label(person)} is a person with {person.n_templates} views now"

    def forget(self, person_ids: Sequence[str], is_final: bool) -> str:
        """See :class:`Operator`."""
        names = ", ".join(self._label(person_id) for person_id in person_ids)
        if is_final:
            self._gone.update(person_ids)
        self._call("forget_persons", person_ids=list(person_ids), final=is_final)
        return f"{names} forgotten for good" if is_final else f"{names} forgotten; undo brings them back"

    def undo(self) -> str:
        """See :class:`Operator`."""
        return f"Undone: {'; '.join(self._call('undo_gallery', redo=False).changes)}"

    def redo(self) -> str:
        """See :class:`Operator`."""
        return f"Done again: {'; '.join(self._call('undo_gallery', redo=True).changes)}"

    def start_session(self, name: str, kind: str, time_to_live_s: float | None) -> str:
        """See :class:`Operator`."""
        numbers = {word: number for number, word in _KIND.items()}
        if kind not in numbers:
            raise InputError(f"kind: expected permanent, event or run, got {kind!r}")
        self._call("set_session", name=name, kind=numbers[kind], ttl=to_duration(time_to_live_s or 0.0))
        return f"Newcomers are stored under {name or 'the default session'}"

    def export_people(self, path: str) -> str:
        """See :class:`Operator`."""
        answer = self._call("export_gallery", path=path)
        return f"{answer.n_persons} entries with {answer.n_templates} views written to {answer.path}"

    def import_people(self, path: str) -> str:
        """See :class:`Operator`."""
        answer = self._call("import_gallery", path=path)
        return f"{len(answer.person_ids)} entries with {answer.n_templates} views are here now"

    def verify(self) -> Verification:
        """See :class:`Operator`."""
        answer = self._call("verify_gallery")
        twins = list(answer.twin_person_ids)
        self._pairs = [Pair(*ids, None) for ids in zip(twins[::2], twins[1::2], strict=True)]
        self._settings += 1
        owners = {one.template_id: self._label(one.person_id) for one in self._templates()}
        suspicious = {one: owners.get(one, "somebody") for one in answer.suspicious_template_ids}
        return explain(
            answer.success, answer.problems, suspicious, int(answer.n_persons), int(answer.n_templates)
        )

    def set_target(self, rate: float) -> str:
        """See :class:`Operator`."""
        with_values(Config(), {TARGET: rate})  # says what is expected
        value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=rate)
        request = SetParameters.Request(parameters=[Parameter(name=TARGET, value=value)])
        result = self._ask(SetParameters, f"{self._node}/set_parameters", request).results[0]
        if not result.successful:
            raise UnavailableError(result.reason)
        self._settings += 1
        return f"Target false-accept rate: {rate:.3%}"


def _label(person: PersonInfo) -> str:
    return str(person.name or person.person_id)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _directions(coverage: Any) -> tuple[str, ...]:
    return tuple(name for name in DIRECTIONS if getattr(coverage, name))


def _card(person: PersonInfo) -> Card:
    times = (person.created, person.last_seen, person.expires)
    created, last_seen, expires = (stamp_to_seconds(time) or None for time in times)
    return Card(
        person.person_id, person.name, person.is_stranger, person.n_templates, person.n_adapted,
        person.session, created, last_seen, expires,
    )  # fmt: skip

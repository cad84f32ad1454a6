"""The gallery's services: each is one call of the core, its answer never an exception."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from std_msgs.msg import Header

from face_recognition_interfaces.action import EnrollPerson
from face_recognition_node.common.errors import FaceRecognitionError, InputError
from face_recognition_node.common.files import user_path
from face_recognition_node.enrollment.goal import EnrollmentGoal
from face_recognition_node.enrollment.session import EnrollmentSession
from face_recognition_node.gallery.gallery import SessionKind
from face_recognition_node.identity.adaptation_review import pairs_that_may_be_one, templates_of_two
from face_recognition_node.identity.operating_point import operating_point
from face_recognition_node.media.face_fields import number
from face_recognition_node.media.pixels import image_to_bgr
from face_recognition_node.ros.lifecycle import state_label
from face_recognition_node.ros.messages import (
    SERVICES,
    SESSION_KINDS,
    bgr_to_jpeg,
    in_short,
    set_outcome,
    sorted_persons,
    to_duration,
    to_gallery_change,
    to_person_info,
    to_seconds,
    to_template_info,
    to_view_report,
)
from face_recognition_node.ros.runtime import Host, Runtime, find_twins, twin_warning
from face_recognition_node.vision.faces import Frame


def add_face_from_image(runtime: Runtime, request: Any, response: Any) -> None:
    """Enroll the one face of the request's image; refuses an image with none or with several equal ones."""
    message = request.image if len(request.image.data) else request.compressed_image
    result = runtime.process_picture(Frame(image_to_bgr(message), time.time()))
    goal = EnrollmentGoal(
        request.name,
        request.person_id or None,
        wanted_views=1,
        minimum_views=1,
        is_somebody_else=bool(request.is_somebody_else),
    )
    gallery, models = runtime.gallery, runtime.models
    # There is no second picture to wait for before one of the faces is chosen.
    config = replace(runtime.recognizer.config.enrollment, selection_s=0.0)
    session = EnrollmentSession(goal, gallery, models.calibration, config)
    session.observe(result)
    session.finish()
    outcome = session.result()
    set_outcome(response, outcome)
    views = session.views or [face.view for face in result.faces]
    if views:  # of several the largest, the one people will ask about
        largest = max(views, key=lambda view: view.detection.size_px)
        reason = next((reason.value for reason in outcome.rejections), outcome.outcome.value)
        response.view = to_view_report(largest, "" if outcome.success else reason)


Result = EnrollPerson.Result
Handler = Callable[[Runtime, Any, Any], None]
KINDS = {number: kind for kind, number in SESSION_KINDS.items()}


class GalleryServices:
    """Offers every service of the interface as long as the node lives.

    They answer while the node is configured, active or not; before that they say so. The node is asked to
    publish its gallery after a change.
    """

    def __init__(self, node: Host) -> None:
        self._node = node
        group = ReentrantCallbackGroup()
        for service in SERVICES:
            handler = HANDLERS[service.name]
            node.create_service(
                service.type, service.name, self._answering(service.name, handler), callback_group=group
            )

    def _answering(self, name: str, handler: Handler) -> Callable[[Any, Any], Any]:
        def answer(request: Any, response: Any) -> Any:
            runtime = self._node.runtime
            for field in ("nearest_similarity", "nearest_probability"):  # 0 would be a measurement
                if hasattr(response, field):
                    setattr(response, field, number(None))
            if runtime is None:
                response.message = f"the node is {state_label(self._node)}; configure it first"
                _give_outcome(response, Result.NOT_ACTIVE)
                return response
            response.success, version = True, runtime.gallery.snapshot().version
            try:
                handler(runtime, request, response)
                if name in LOGGED and runtime.gallery.snapshot().version != version:
                    self._node.get_logger().info(LOGGED[name](request, response))
            except FaceRecognitionError as error:
                response.success, response.message = False, in_short(error)
                is_refused = isinstance(error, InputError)
                _give_outcome(response, Result.INVALID_GOAL if is_refused else Result.NOT_STORED)
            except Exception as error:  # a service must answer, and must not end the executor
                self._node.get_logger().error(traceback.format_exc())
                response.success, response.message = (
                    False,
                    f"internal error: {type(error).__name__}: {in_short(error)}",
                )
                _give_outcome(response, Result.NOT_STORED)
            response.gallery_version = runtime.gallery.snapshot().version
            try:
                self._node.publish_gallery()
            except Exception:  # what was asked for is done and has to be answered
                self._node.get_logger().error(traceback.format_exc())
            return response

        return answer


def _give_outcome(response: Any, word: str) -> None:
    """Say in one word why nothing was done, where the service has one for it."""
    if hasattr(response, "outcome"):
        response.outcome = word


def list_persons(runtime: Runtime, request: Any, response: Any) -> None:
    """Tell who is there."""
    snapshot = runtime.gallery.snapshot()
    chosen = [
        person
        for person in sorted_persons(snapshot)
        if (request.include_strangers or not person.is_stranger)
        and (not request.session or person.session == request.session)
    ]
    response.persons = [to_person_info(person) for person in chosen]
    if request.include_templates:
        response.templates = [
            to_template_info(template)
            for person in chosen
            for template in snapshot.templates_of(person.person_id)
        ]


def rename_person(runtime: Runtime, request: Any, response: Any) -> None:
    """Give a person another name."""
    response.person = to_person_info(runtime.gallery.rename(request.person_id, request.name))


def merge_persons(runtime: Runtime, request: Any, response: Any) -> None:
    """Make one person of several."""
    person = runtime.gallery.merge(request.keep_person_id, list(request.merge_person_ids))
    response.person = to_person_info(person)


def split_template(runtime: Runtime, request: Any, response: Any) -> None:
    """Make a new person of some templates."""
    gallery, ids = runtime.gallery, list(request.template_ids)
    owners = {template.person_id for template in gallery.snapshot().templates(ids)}
    response.person = to_person_info(gallery.split(ids, request.name))
    response.remaining = to_person_info(gallery.snapshot().person(owners.pop()))


def forget_persons(runtime: Runtime, request: Any, response: Any) -> None:
    """Forget whom the request selects, in one change if it can be said in one."""
    gallery, final = runtime.gallery, bool(request.final)
    wanted = list(request.person_ids)
    if request.all:
        gone = gallery.forget_all(final)
    elif wanted or request.session:
        gone = gallery.forget(wanted, final, session=request.session or None)
    else:
        raise InputError("nobody is selected: fill person_ids or session, or set all")
    response.forgotten_person_ids = [person.person_id for person in gone]
    response.n_templates = sum(person.n_templates for person in gone)
    response.message = gallery.unfinished


def undo_gallery(runtime: Runtime, request: Any, response: Any) -> None:
    """Take changes back, or do them again."""
    gallery, steps = runtime.gallery, max(int(request.steps), 1)
    try:
        response.changes = list(gallery.redo(steps) if request.redo else gallery.undo(steps))
    finally:
        history = gallery.history()
        response.n_undo = sum(entry.is_done for entry in history)
        response.n_redo = len(history) - response.n_undo


def set_session(runtime: Runtime, request: Any, response: Any) -> None:
    """Choose the session of newcomers."""
    if request.kind not in KINDS:
        raise InputError(f"kind: expected PERMANENT, EVENT or RUN, got {request.kind}")
    response.previous_name = runtime.gallery.session.name
    kind: SessionKind = KINDS[request.kind]
    session = runtime.gallery.set_session(request.name, kind, to_seconds(request.ttl) or None)
    persons = runtime.gallery.snapshot().persons.values()
    response.n_persons = sum(person.session == session.name for person in persons)


def export_gallery(runtime: Runtime, request: Any, response: Any) -> None:
    """Write the gallery to a file."""
    report = runtime.gallery.export_to(
        _absolute(request.path),
        person_ids=list(request.person_ids) or None,
        overwrite=bool(request.overwrite),
    )
    response.path = str(report.path)
    response.n_persons, response.n_templates = report.n_persons, report.n_templates


def import_gallery(runtime: Runtime, request: Any, response: Any) -> None:
    """Add the people of an exported file."""
    report = runtime.gallery.import_from(_absolute(request.path), session=request.session or None)
    response.person_ids, response.n_templates = list(report.person_ids), report.n_templates


def verify_gallery(runtime: Runtime, request: Any, response: Any) -> None:
    """Check the gallery; "success" means that nothing is wrong."""
    report = runtime.gallery.verify()
    response.problems = list(report.problems)
    of_two = templates_of_two(runtime.gallery.snapshot(), runtime.models.calibration)
    response.suspicious_template_ids = sorted({*report.suspicious_template_ids, *of_two})
    response.n_persons, response.n_templates = report.n_persons, report.n_templates
    response.model_fingerprint = report.fingerprint
    response.success = report.is_sound
    twins = find_twins(runtime)
    response.twin_person_ids = [person_id for pair in twins for person_id in pair]
    found = [f"{len(report.problems)} problems" if report.problems else "no problem found"]
    if report.suspicious_template_ids:
        found.append(f"{len(report.suspicious_template_ids)} suspicious templates (split_template)")
    found += [twin_warning(pair) for pair in twins[:5]]
    response.message = "; ".join(found)


def review_gallery(runtime: Runtime, request: Any, response: Any) -> None:
    """Tell what an operator looks at besides the persons."""
    gallery, snapshot = runtime.gallery, runtime.gallery.snapshot()
    calibration, sessions = runtime.models.calibration, list(snapshot.sessions.values())
    response.changes = [to_gallery_change(entry) for entry in gallery.history()]
    response.session_names = [session.name for session in sessions]
    response.session_kinds = [SESSION_KINDS[session.kind] for session in sessions]
    response.session_ttls = [to_duration(session.time_to_live_s or 0.0) for session in sessions]
    pairs = pairs_that_may_be_one(calibration, snapshot)
    response.twin_person_ids = [person_id for *pair, _ in pairs for person_id in pair]
    response.twin_probabilities = [probability for *_, probability in pairs]
    point = operating_point(calibration, runtime.recognizer.config.identity, snapshot)
    response.target_false_accept_rate, response.measured = point.target, point.measured
    response.strangers_named, response.people_named = point.strangers_named, point.people_named
    response.keeps_crops = gallery.config.keep_crops


def get_crop(runtime: Runtime, request: Any, response: Any) -> None:
    """Return the kept crop of a template; InputError if none is kept."""
    gallery = runtime.gallery
    crop_bgr = gallery.crop(request.template_id) if gallery.config.keep_crops else None
    if crop_bgr is None:
        raise InputError(f"no crop of template {request.template_id} is kept (gallery.keep_crops)")
    response.crop = bgr_to_jpeg(crop_bgr, Header())


def rollback_adaptation(runtime: Runtime, request: Any, response: Any) -> None:
    """Remove what the node added by itself."""
    for person_id in list(request.person_ids) or [None]:
        response.n_templates += runtime.gallery.rollback_adaptation(person_id)


def _absolute(text: str) -> Path:
    path = user_path(text, "any")
    if not path.is_absolute():
        raise InputError(f"path: expected an absolute path on the node's machine, got {text!r}")
    return path


# service → the function of its name
HANDLERS: dict[str, Handler] = {
    f"~/{handler.__name__}": handler
    for handler in (
        list_persons, rename_person, merge_persons, split_template, forget_persons, undo_gallery,
        add_face_from_image, set_session, export_gallery, import_gallery, verify_gallery, review_gallery,
        get_crop, rollback_adaptation,
    )
}  # fmt: skip


def _ids(ids: Sequence[str]) -> str:
    text = ", ".join(ids)
    return text if len(text) <= 200 else f"{text[:200]} …"


# what is logged of a change: ids only, because logs are often readable by everybody
LOGGED: dict[str, Callable[[Any, Any], str]] = {
    "~/rename_person": lambda request, response: f"renamed {response.person.person_id}",
    "~/merge_persons": lambda request, response: (
        f"merged {_ids(request.merge_person_ids)} into {response.person.person_id}"
    ),
    "~/split_template": lambda request, response: (
        f"split {response.person.person_id} from {response.remaining.person_id}"
    ),
    "~/import_gallery": lambda request, response: f"imported {_ids(response.person_ids)}",
    "~/undo_gallery": lambda request, response: (
        f"{'redid' if request.redo else 'undid'} {len(response.changes)} change(s)"
    ),
    "~/forget_persons": lambda request, response: f"forgot {_ids(response.forgotten_person_ids)}",
    "~/add_face_from_image": lambda request, response: f"enrolled {response.person_id} from an image",
}

"""The core's values as messages of face_recognition_interfaces."""

from __future__ import annotations

import math

from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point
from std_msgs.msg import Header

from face_recognition_interfaces.msg import (
    Face,
    FaceArray,
    GalleryInfo,
    PersonInfo,
    TemplateInfo,
    ViewReport,
)
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.gallery.values import Person, Provenance, SessionKind, Template
from face_recognition_node.ros.conversions import seconds_to_stamp
from face_recognition_node.vision.faces import FaceView, IdentifiedFace, IdentityState, RecognitionResult

STATES = {
    IdentityState.UNDECIDED: Face.UNDECIDED,
    IdentityState.STRANGER: Face.STRANGER,
    IdentityState.KNOWN: Face.KNOWN,
}
FLATNESS = {"unverified": Face.UNVERIFIED, "solid": Face.SOLID, "flat": Face.FLAT}
PROVENANCES = {
    Provenance.ENROLLED: TemplateInfo.ENROLLED,
    Provenance.ADAPTED: TemplateInfo.ADAPTED,
    Provenance.IMPORTED: TemplateInfo.IMPORTED,
}
SESSION_KINDS = {
    SessionKind.PERMANENT: GalleryInfo.PERMANENT,
    SessionKind.EVENT: GalleryInfo.EVENT,
    SessionKind.RUN: GalleryInfo.RUN,
}


def to_face_array(result: RecognitionResult, header: Header, with_embeddings: bool = False) -> FaceArray:
    """Return everything found in one image under the image's own header."""
    return FaceArray(
        header=header,
        faces=[to_face(face, with_embeddings) for face in result.faces],
        gallery_version=result.gallery_version,
        image_width=result.image_size[0],
        image_height=result.image_size[1],
    )


def to_face(face: IdentifiedFace, with_embedding: bool = False) -> Face:
    """Return one face; what is not known is NaN or empty, as Face.msg says."""
    view, detection, identity = face.view, face.view.detection, face.identity
    message = Face(
        track_id=face.track_id,
        box_xyxy=detection.box_xyxy,
        landmarks_xy=detection.landmarks_xy.ravel(),
        detection_score=float(detection.score),
        flatness=FLATNESS[face.flatness],
        quality=float(view.quality.overall),
        size_px=detection.height,
        yaw=float(view.pose.yaw),
        pitch=float(view.pose.pitch),
        roll=float(view.pose.roll),
        identity_state=STATES[identity.state],
        person_id=identity.person_id or "",
        name=identity.name,
        probability=float(identity.probability),
        template_distance=number(identity.distance),
        evidence_age=number(identity.evidence_age),
    )
    if identity.runner_up is not None:
        message.runner_up_person_id = identity.runner_up.person_id
        message.runner_up_name = identity.runner_up.name
        message.runner_up_probability = float(identity.runner_up.probability)
    if face.position_m is not None:
        x, y, z = (float(value) for value in face.position_m)
        message.has_position, message.position = True, Point(x=x, y=y, z=z)
    if with_embedding and view.embedding is not None:
        message.embedding = view.embedding.tolist()
    return message


def to_person_info(person: Person) -> PersonInfo:
    """Return a person without the biometric data."""
    return PersonInfo(
        person_id=person.person_id,
        name=person.name,
        is_stranger=person.is_stranger,
        n_templates=person.n_templates,
        n_enrolled=person.n_enrolled,
        n_adapted=person.n_adapted,
        n_imported=person.n_imported,
        session=person.session,
        created=seconds_to_stamp(person.created),
        expires=seconds_to_stamp(person.expires or 0.0),
        last_seen=seconds_to_stamp(person.last_seen or 0.0),
    )


def to_template_info(template: Template) -> TemplateInfo:
    """Return a template without its embedding."""
    return TemplateInfo(
        template_id=template.template_id,
        person_id=template.person_id,
        provenance=PROVENANCES[template.provenance],
        quality=float(template.quality),
        yaw=float(template.pose.yaw),
        pitch=float(template.pose.pitch),
        roll=float(template.pose.roll),
        is_set_aside=template.is_set_aside,
        created=seconds_to_stamp(template.created),
    )


def to_gallery_info(snapshot: Snapshot, stamp: Time) -> GalleryInfo:
    """Return who is known in this version of the gallery, sorted by name and then by id."""
    session = snapshot.sessions.get(snapshot.session)
    return GalleryInfo(
        header=Header(stamp=stamp),
        version=snapshot.version,
        persons=[to_person_info(person) for person in sorted_persons(snapshot)],
        model_fingerprint=snapshot.fingerprint,
        n_templates=snapshot.n_templates,
        session=snapshot.session,
        session_kind=SESSION_KINDS[session.kind] if session is not None else GalleryInfo.PERMANENT,
    )


def sorted_persons(snapshot: Snapshot) -> list[Person]:
    """Return all persons and strangers by name (without regard to case), then by id."""
    return sorted(snapshot.persons.values(), key=lambda person: (person.name.casefold(), person.person_id))


def to_view_report(view: FaceView, reason: str) -> ViewReport:
    """Return the verdict on a view; ``reason`` is empty if it was accepted."""
    return ViewReport(
        accepted=not reason,
        reason=reason,
        quality=float(view.quality.overall),
        size_px=view.detection.height,
        yaw=float(view.pose.yaw),
        pitch=float(view.pose.pitch),
        roll=float(view.pose.roll),
    )


def number(value: float | None) -> float:
    """Return the number, or NaN for "not known"."""
    return math.nan if value is None else float(value)


def to_duration(seconds: float) -> Duration:
    """Return seconds ≥ 0 as a duration message."""
    stamp = seconds_to_stamp(seconds)
    return Duration(sec=stamp.sec, nanosec=stamp.nanosec)


def to_seconds(duration: Duration) -> float:
    """Return a duration message in seconds."""
    return float(duration.sec) + float(duration.nanosec) * 1e-9

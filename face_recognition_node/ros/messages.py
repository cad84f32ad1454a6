"""Every topic, service and action of the node, once, and our values as their messages.

The way back, from image messages to arrays, is media/pixels.py.
"""

from __future__ import annotations

import array
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from face_recognition_interfaces.action import EnrollPerson, FindPerson
from face_recognition_interfaces.msg import (
    Addressee,
    Face,
    FaceArray,
    GalleryChange,
    GalleryInfo,
    PersonInfo,
    TemplateInfo,
    ViewReport,
)
from face_recognition_interfaces.srv import (
    AddFaceFromImage,
    ExportGallery,
    ForgetPersons,
    GetCrop,
    ImportGallery,
    ListPersons,
    MergePersons,
    RenamePerson,
    ReviewGallery,
    RollbackAdaptation,
    SetSession,
    SplitTemplate,
    UndoGallery,
    VerifyGallery,
)
from face_recognition_node.common.errors import FrameError
from face_recognition_node.enrollment.goal import EnrollmentResult
from face_recognition_node.gallery.history import HistoryEntry
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.gallery.values import Person, Provenance, SessionKind, Template
from face_recognition_node.media.face_fields import face_fields, number
from face_recognition_node.vision.faces import (
    Candidate,
    FaceView,
    IdentifiedFace,
    ImageArray,
    RecognitionResult,
    require_image,
)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic the node publishes."""

    name: str  # relative to the node (`~/`) or absolute; FACE and PERSON stand for an id
    type: Any  # message class, or its name as `ros2 topic list -t` prints it if that package is optional
    text: str
    parameter: str = ""  # switches it; empty: nothing does
    qos: QoSProfile = field(default_factory=lambda: QoSProfile(depth=10))


LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
NEWEST = QoSProfile(depth=1)


@dataclass(frozen=True, slots=True)
class Call:
    """A service or action the node offers."""

    name: str
    type: Any
    text: str


FACES = Topic(
    "~/faces",
    FaceArray,
    "One message per image, with the image's header: every face with its track, quality and identity.",
)
GALLERY = Topic("~/gallery", GalleryInfo, "Everybody known; latched, updated on every change.", qos=LATCHED)
ANNOTATED = Topic(
    "~/annotated",
    Image,
    "The image, upright, with boxes and names; drawn only while somebody subscribes.",
    qos=NEWEST,
)
DIAGNOSTICS = Topic(
    "/diagnostics",
    DiagnosticArray,
    "Rates, drops, latency by stage, bad images by kind, the backend in use and why, the gallery's state.",
)
ADDRESSEE = Topic(
    "~/addressee",
    Addressee,
    "The nearby face that looks at the robot, to be addressed; while somebody subscribes.",
)
TOPICS = (FACES, ADDRESSEE, GALLERY, ANNOTATED, DIAGNOSTICS)

DETECTIONS = Topic(
    "~/detections",
    "vision_msgs/msg/Detection2DArray",
    "The faces of an image: id is the track, class_id the person's id, a space and the name, or unknown; "
    "score is its posterior probability.",
    "publish_detections",
)
DETECTIONS_3D = Topic(
    "~/detections_3d",
    "vision_msgs/msg/Detection3DArray",
    "The same faces in space: those that have a position, with its covariance.",
    "publish_detections",
)
MARKERS = Topic(
    "~/markers",
    "visualization_msgs/msg/MarkerArray",
    "A box and the name for each face that has a position, for RViz.",
    "publish_markers",
    qos=NEWEST,
)
FRAMES = Topic(
    "/tf",
    "tf2_msgs/msg/TFMessage",
    "A frame person_ID at each person's face (ID: the person's id with _ for -).",
    "publish_frames",
    qos=QoSProfile(depth=100),
)
FACES_TRACKED = Topic(
    "/humans/faces/tracked",
    "hri_msgs/msg/IdsList",
    "Ids of the faces in view; a face is announced in the third image of its track.",
    "publish_humans",
)
FACE_REGION = Topic(
    "/humans/faces/FACE/roi",
    "hri_msgs/msg/NormalizedRegionOfInterest2D",
    "Region of the face FACE: face_RANDOM_12 for track 12, with a new random part at each activation.",
    "publish_humans",
    qos=NEWEST,
)
FACE_CROPPED = Topic(
    "/humans/faces/FACE/cropped",
    "sensor_msgs/msg/Image",
    "Crop of the face, while somebody subscribes.",
    "publish_humans",
    qos=NEWEST,
)
FACE_ALIGNED = Topic(
    "/humans/faces/FACE/aligned",
    "sensor_msgs/msg/Image",
    "The aligned face, 112x112, while somebody subscribes.",
    "publish_humans",
    qos=NEWEST,
)
FACE_LANDMARKS = Topic(
    "/humans/faces/FACE/landmarks",
    "hri_msgs/msg/FacialLandmarks",
    "Pupils, nose and mouth corners (the others have confidence 0), while somebody subscribes.",
    "publish_humans",
    qos=NEWEST,
)
MATCHES = Topic(
    "/humans/candidate_matches",
    "hri_msgs/msg/IdsMatch",
    "Whose face it is, on change (the person's id with _ for -); a confidence of 0 withdraws a match.",
    "publish_humans",
    qos=QoSProfile(depth=100),
)
PERSON_NAME = Topic(
    "/humans/persons/PERSON/name",
    "std_msgs/msg/String",
    "Display name of a recognized person; latched, updated when it changes.",
    "publish_humans",
    qos=LATCHED,
)
OPTIONAL_TOPICS = (
    DETECTIONS,
    DETECTIONS_3D,
    MARKERS,
    FRAMES,
    FACES_TRACKED,
    FACE_REGION,
    FACE_CROPPED,
    FACE_ALIGNED,
    FACE_LANDMARKS,
    MATCHES,
    PERSON_NAME,
)

SERVICES = (
    Call("~/list_persons", ListPersons, "List the people in the gallery, on request with their templates."),
    Call("~/rename_person", RenamePerson, "Rename a person, or name a stranger."),
    Call("~/merge_persons", MergePersons, "Join several entries that are one person."),
    Call("~/split_template", SplitTemplate, "Move templates that show somebody else to a new person."),
    Call("~/forget_persons", ForgetPersons, "Forget people, a session or everybody; final leaves no byte."),
    Call("~/undo_gallery", UndoGallery, "Undo or redo the latest changes of the gallery."),
    Call("~/add_face_from_image", AddFaceFromImage, "Enroll a person from a picture with one face."),
    Call("~/set_session", SetSession, "Set the session under which new people are stored."),
    Call("~/export_gallery", ExportGallery, "Write everybody, or selected people, to one file."),
    Call("~/import_gallery", ImportGallery, "Add the people of an exported file, all or none."),
    Call("~/verify_gallery", VerifyGallery, "Check file, index and templates; changes nothing."),
    Call("~/review_gallery", ReviewGallery, "List changes, sessions, and entries that may be one person."),
    Call("~/get_crop", GetCrop, "Get the picture of a template, where the owner keeps crops."),
    Call("~/rollback_adaptation", RollbackAdaptation, "Remove the templates that the node learned."),
)

ENROLL_PERSON = Call(
    "~/enroll_person", EnrollPerson, "Enroll a person from the running video, with feedback per view."
)

FIND_PERSON = Call(
    "~/find_person", FindPerson, "Search for a person; ends with the face, or with who was seen instead."
)
ACTIONS = (ENROLL_PERSON, FIND_PERSON)


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
    message = Face(**face_fields(face, Point))
    if with_embedding and face.view.embedding is not None:
        message.embedding = face.view.embedding.tolist()
    return message


def filled(kind: Any, source: object, **others: Any) -> Any:
    """Return a message whose fields are the attributes of ``source`` by their names, but for the others."""
    names = kind.get_fields_and_field_types().keys() - others.keys()
    return kind(**{name: getattr(source, name) for name in names}, **others)


def to_person_info(person: Person) -> PersonInfo:
    """Return a person without the biometric data."""
    return filled(
        PersonInfo,
        person,
        created=seconds_to_stamp(person.created),
        expires=seconds_to_stamp(person.expires or 0.0),
        last_seen=seconds_to_stamp(person.last_seen or 0.0),
    )


def to_gallery_change(entry: HistoryEntry) -> GalleryChange:
    """Return a change that can be undone or done again."""
    made, deadline = seconds_to_stamp(entry.made), seconds_to_stamp(entry.deadline or 0.0)
    return filled(GalleryChange, entry, made=made, deadline=deadline)


def to_template_info(template: Template) -> TemplateInfo:
    """Return a template without its embedding."""
    provenance, created = PROVENANCES[template.provenance], seconds_to_stamp(template.created)
    angles = asdict(template.pose)
    return filled(TemplateInfo, template, provenance=provenance, created=created, **angles)


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


def set_outcome(message: Any, result: EnrollmentResult) -> None:
    """Say in the result of EnrollPerson or the response of AddFaceFromImage how an enrollment ended."""
    nearest = result.nearest or Candidate("", "", math.nan)
    message.success, message.outcome = result.success, result.outcome.value
    message.message = in_short(result.message)
    message.person_id, message.name = result.person_id or "", result.name
    message.nearest_person_id, message.nearest_name = nearest.person_id, nearest.name
    message.nearest_similarity = number(nearest.similarity)
    message.nearest_probability = number(nearest.probability)


def in_short(error: object) -> str:
    """Return the text of an error: of a long one, which quotes what came, its beginning and its end."""
    text = str(error)
    return text if len(text) <= 400 else f"{text[:200]} … {text[-150:]}"


def to_duration(seconds: float) -> Duration:
    """Return seconds ≥ 0 as a duration message."""
    stamp = seconds_to_stamp(seconds)
    return Duration(sec=stamp.sec, nanosec=stamp.nanosec)


def to_seconds(duration: Duration) -> float:
    """Return a duration message in seconds."""
    return float(duration.sec) + float(duration.nanosec) * 1e-9


def bgr_to_image(image_bgr: ImageArray, header: Header) -> Image:
    """Return a (H, W, 3) BGR uint8 picture as a bgr8 message with this header."""
    pixels = np.ascontiguousarray(require_image(image_bgr))
    height, width = pixels.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="bgr8", step=3 * width)
    message.data = _bytes_field(pixels)
    return message


def bgr_to_jpeg(image_bgr: ImageArray, header: Header, quality: int = 90) -> CompressedImage:
    """Return a (H, W, 3) BGR uint8 picture as a JPEG message with this header; ``quality`` in 1..100."""
    is_encoded, data = cv2.imencode(".jpg", require_image(image_bgr), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not is_encoded:
        raise FrameError(
            "size", f"image of shape {image_bgr.shape}: cannot be written as JPEG (at most 65500 px)"
        )
    message = CompressedImage(header=header, format="bgr8; jpeg compressed bgr8")
    message.data = _bytes_field(data)
    return message


_LAST_SECOND = 2**31 - 1  # the message's field holds no more


def stamp_to_seconds(stamp: Time) -> float:
    """Return a message stamp in seconds (a float keeps microseconds of today's clock)."""
    return float(stamp.sec) + float(stamp.nanosec) * 1e-9


def seconds_to_stamp(seconds: float) -> Time:
    """Return seconds since the epoch as a message stamp: 0 if negative or unknown, 2038 at the latest."""
    if not seconds > 0:
        return Time()
    if seconds >= _LAST_SECOND + 1:
        return Time(sec=_LAST_SECOND)
    whole = int(seconds)
    return Time(sec=whole, nanosec=min(round((seconds - whole) * 1e9), 999_999_999))


def _bytes_field(pixels: Any) -> array.array[int]:
    """Return uint8 pixels as the type a message field takes without looking at every element."""
    data = array.array("B")
    data.frombytes(memoryview(pixels).cast("B"))
    return data

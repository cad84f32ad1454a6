"""Every topic, service and action of the node, once: the node makes them from here, the docs print them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from face_recognition_interfaces.action import EnrollPerson
from face_recognition_interfaces.msg import FaceArray, GalleryInfo
from face_recognition_interfaces.srv import (
    AddFaceFromImage,
    ExportGallery,
    ForgetPersons,
    ImportGallery,
    ListPersons,
    MergePersons,
    RenamePerson,
    RollbackAdaptation,
    SetSession,
    SplitTemplate,
    UndoGallery,
    VerifyGallery,
)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic the node publishes.

    Attributes:
        name: Relative to the node (``~/``) or absolute.
        type: Message class.
        qos: Offered quality of service.
        text: What it carries.
    """

    name: str
    type: Any
    qos: QoSProfile
    text: str


@dataclass(frozen=True, slots=True)
class OptionalTopic:
    """A topic in the messages of a package that need not be installed.

    Attributes:
        name: Relative to the node (``~/``) or absolute; FACE stands for the id of a face.
        type_name: Message type, as ``ros2 topic list -t`` prints it.
        qos: Offered quality of service.
        text: What it carries.
        parameter: Switches it.
    """

    name: str
    type_name: str
    qos: QoSProfile
    text: str
    parameter: str


@dataclass(frozen=True, slots=True)
class Call:
    """A service or action the node offers.

    Attributes:
        name: Relative to the node.
        type: Service or action class.
        text: What it does.
    """

    name: str
    type: Any
    text: str


FACES = Topic(
    "~/faces",
    FaceArray,
    QoSProfile(depth=10),
    "One message per image, with the image's header: every face with its track, quality and identity.",
)
GALLERY = Topic(
    "~/gallery",
    GalleryInfo,
    QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
    "Who is known; latched, sent again on every change.",
)
ANNOTATED = Topic(
    "~/annotated",
    Image,
    QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
    "The image, upright, with frames and names; drawn only while somebody subscribes.",
)
DIAGNOSTICS = Topic(
    "/diagnostics",
    DiagnosticArray,
    QoSProfile(depth=10),
    "Rates, drops, latency by stage, bad images by kind, the backend in use and why, the gallery's state.",
)
TOPICS = (FACES, GALLERY, ANNOTATED, DIAGNOSTICS)

DETECTIONS = OptionalTopic(
    "~/detections",
    "vision_msgs/msg/Detection2DArray",
    QoSProfile(depth=10),
    "The faces of an image: id is the track, class_id the person's id or face, score the probability.",
    "publish_detections",
)
FACES_TRACKED = OptionalTopic(
    "/humans/faces/tracked",
    "hri_msgs/msg/IdsList",
    QoSProfile(depth=10),
    "Ids of the faces in view; a face is announced in the third image of its track.",
    "publish_humans",
)
FACE_REGION = OptionalTopic(
    "/humans/faces/FACE/roi",
    "hri_msgs/msg/NormalizedRegionOfInterest2D",
    QoSProfile(depth=1),
    "Where the face FACE (face_12 for track 12) is.",
    "publish_humans",
)
MATCHES = OptionalTopic(
    "/humans/candidate_matches",
    "hri_msgs/msg/IdsMatch",
    QoSProfile(depth=100),
    "Whose face it is, the person's id with _ for -; a confidence of 0 takes a match back.",
    "publish_humans",
)
OPTIONAL_TOPICS = (DETECTIONS, FACES_TRACKED, FACE_REGION, MATCHES)

SERVICES = (
    Call("~/list_persons", ListPersons, "Who is in the gallery, with their templates if asked for."),
    Call("~/rename_person", RenamePerson, "Give a person another name; gives a stranger its first one."),
    Call("~/merge_persons", MergePersons, "Declare several entries to be one person."),
    Call("~/split_template", SplitTemplate, "Take templates that show somebody else away from a person."),
    Call("~/forget_persons", ForgetPersons, "Forget persons, a session or everybody; final leaves no bytes."),
    Call("~/undo_gallery", UndoGallery, "Undo or redo the latest changes of the gallery."),
    Call("~/add_face_from_image", AddFaceFromImage, "Enrol the one face of a still image."),
    Call("~/set_session", SetSession, "Choose the session that newcomers are stored under."),
    Call("~/export_gallery", ExportGallery, "Write the gallery, or some persons, to one file."),
    Call("~/import_gallery", ImportGallery, "Add the persons of an exported file, all or none."),
    Call("~/verify_gallery", VerifyGallery, "Check file, index and templates; changes nothing."),
    Call("~/rollback_adaptation", RollbackAdaptation, "Remove the templates the node added by itself."),
)

ENROLL_PERSON = Call(
    "~/enroll_person", EnrollPerson, "Get to know a person from the running video; feedback per view, cancel."
)

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

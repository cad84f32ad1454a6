"""What a gallery holds and how it is kept: parameters, persons and their names, templates, sessions."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np

from face_recognition_node.common.errors import InputError
from face_recognition_node.gallery.schema import PRECISIONS
from face_recognition_node.vision.faces import FaceView, FloatArray, HeadPose, ImageArray, embedding_of


class Provenance(str, Enum):
    """Where a template comes from."""

    ENROLLED = "enrolled"
    ADAPTED = "adapted"
    IMPORTED = "imported"


class SessionKind(str, Enum):
    """How long the persons of a session are kept: until forgotten, for an event, for one run of the node."""

    PERMANENT = "permanent"
    EVENT = "event"
    RUN = "run"


@dataclass(frozen=True, slots=True)
class Session:
    """The label under which newcomers are stored, so that they can be forgotten together."""

    name: str = ""  # empty: the default session, which is permanent
    kind: SessionKind = SessionKind.PERMANENT
    time_to_live_s: float | None = None  # after which newcomers are forgotten; None: never

    def expiry(self, created: float) -> float | None:
        """Return when somebody stored at ``created`` (Unix seconds) has to go, or None."""
        return None if self.time_to_live_s is None else created + self.time_to_live_s


LENGTH_TOLERANCE = 0.01  # how far an embedding's length may be from 1


@dataclass(frozen=True, slots=True, eq=False)
class NewTemplate:
    """A view to be stored."""

    embedding: FloatArray  # (D,) float32 of unit length (within 1 %; it is stored normalised)
    quality: float  # in [0, 1]
    pose: HeadPose  # degrees
    provenance: Provenance = Provenance.ENROLLED
    precision: str = "fp32"  # one of :data:`schema.PRECISIONS`
    # the aligned (112, 112, 3) uint8 crop; kept only if the owner chose `gallery.keep_crops`
    crop_bgr: ImageArray | None = None

    @classmethod
    def of(cls, view: FaceView, provenance: Provenance = Provenance.ENROLLED) -> NewTemplate:
        """Return a view as it is stored; InputError if it has no embedding."""
        quality = view.quality.overall
        return cls(embedding_of(view), quality, view.pose, provenance, view.precision, view.crop_bgr)

    def __post_init__(self) -> None:
        embedding = np.asarray(self.embedding, dtype=np.float32)
        if embedding.ndim != 1 or not np.isfinite(embedding).all():
            raise InputError(f"embedding: expected a finite vector (D,), got shape {embedding.shape}")
        length = float(np.linalg.norm(embedding))
        if abs(length - 1.0) > LENGTH_TOLERANCE:
            raise InputError(f"embedding: expected unit length, got {length:.4f}; normalise it first")
        object.__setattr__(self, "embedding", np.asarray(embedding / length, dtype=np.float32))
        if not 0.0 <= self.quality <= 1.0:
            raise InputError(f"quality: expected a number in [0, 1], got {self.quality}")
        if not all(math.isfinite(angle) for angle in (self.pose.yaw, self.pose.pitch, self.pose.roll)):
            raise InputError(f"pose: expected finite angles, got {self.pose}")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision: expected one of {list(PRECISIONS)}, got {self.precision!r}")
        crop = self.crop_bgr
        if crop is not None and (crop.dtype != np.uint8 or crop.shape != (112, 112, 3)):
            raise InputError(f"crop_bgr: expected (112, 112, 3) uint8, got {crop.shape} {crop.dtype}")


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A stored view of one person; the rest as in :class:`NewTemplate`."""

    template_id: int  # never reused
    person_id: str
    embedding: FloatArray  # a copy that belongs to the caller
    quality: float
    pose: HeadPose
    provenance: Provenance
    created: float  # when it was stored, Unix seconds
    precision: str = "fp32"
    is_set_aside: bool = False  # kept, but not searched (an outlier, or too like somebody else)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody in the gallery, without the biometric data."""

    person_id: str  # never changes, never reused
    name: str  # may change, may collide, empty for a stranger without a name
    is_stranger: bool  # provisional: the same unknown as before, to be named or to expire
    session: str
    created: float  # Unix seconds
    expires: float | None = None  # when the person will be forgotten, Unix seconds; None: never
    last_seen: float | None = None  # when last recognized, Unix seconds; None: not yet
    # ascending; so many of them from an enrollment, added by the node, and from a file
    template_ids: tuple[int, ...] = ()
    n_enrolled: int = 0
    n_adapted: int = 0
    n_imported: int = 0
    aliases: tuple[str, ...] = ()  # former ids of persons merged into this one

    @property
    def n_templates(self) -> int:
        """Number of stored templates."""
        return len(self.template_ids)

    @property
    def label(self) -> str:
        """What people read: the name, or the id of somebody without one."""
        return self.name or self.person_id


class SearchHit(NamedTuple):
    """The best template of one person for one query; the similarity is the cosine in [-1, 1]."""

    person_id: str
    similarity: float
    template_id: int
    template_quality: float


def folded(name: str) -> str:
    """Return a name as names are compared: in one Unicode form, without regard to case."""
    return composed(name).casefold()


def composed(name: str) -> str:
    """Return a name in one of the forms that Unicode has for the same letters."""
    return unicodedata.normalize("NFC", name)


# the space, and what Unicode counts as a letter or symbol but every font draws as nothing
_BLANK_LETTERS = " \u115f\u1160\u2800\u3164\uffa0"
_JOINER = re.compile(
    "(?<=[^\\W\\d_])[\u200c\u200d](?=[^\\W\\d_])|(?<=[\u0d4d\u0dca\u094d\u09cd])[\u200c\u200d]"
)


def checked_name(name: str, may_be_empty: bool = False) -> str:
    """Return a display name, every run of blanks in it one space, or raise InputError.

    Joiners (U+200C, U+200D) belong to the spelling of Persian, Sinhala and Malayalam names and are kept
    after a letter; elsewhere they would only make two names that look the same.
    """
    given = name.strip()
    name = composed(" ".join(given.split()))
    if not name.strip(_BLANK_LETTERS):
        if name or not may_be_empty:
            raise InputError("name: expected at least one letter, got an empty name")
        return name
    has_control = any(unicodedata.category(letter) == "Cc" for letter in given)
    if has_control or len(name) > 200 or not _JOINER.sub("", name).isprintable():
        raise InputError(f"name: expected up to 200 printable characters, got {given[:40]!r}")
    return name

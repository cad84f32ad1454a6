"""Real-time face recognition for ROS 2: who is in front of the robot, on the robot, without a network.

The names below are the public API; everything else may change between versions. Each is imported when it is
first used, so that importing the package costs nothing.

    from face_recognition_node import Config, Pipeline, open_source

    with Pipeline.open(Config()) as pipeline:
        for frame in open_source("sample"):
            for face in pipeline.process(frame).faces:
                print(frame.stamp, face.track_id, face.identity.state.value, face.identity.name)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "assembly": ("Models", "Pipeline", "load_models", "open_gallery"),
    "common.errors": ("FaceRecognitionError",),
    "config": ("Config",),
    "enrollment.session": ("EnrollmentGoal", "EnrollmentResult", "EnrollmentSession"),
    "gallery.gallery": ("Gallery",),
    "media.annotate": ("draw_faces",),
    "media.sources": ("open_source",),
    "media.writer": ("VideoWriter",),
    "recognizer": ("Recognizer",),
    "vision.alignment": ("align_faces",),
    "vision.faces": (
        "Detection", "Frame", "IdentifiedFace", "Identity", "IdentityState", "RecognitionResult",
    ),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Config",
    "Detection",
    "EnrollmentGoal",
    "EnrollmentResult",
    "EnrollmentSession",
    "FaceRecognitionError",
    "Frame",
    "Gallery",
    "IdentifiedFace",
    "Identity",
    "IdentityState",
    "Models",
    "Pipeline",
    "RecognitionResult",
    "Recognizer",
    "VideoWriter",
    "__version__",
    "align_faces",
    "draw_faces",
    "load_models",
    "open_gallery",
    "open_source",
]

if TYPE_CHECKING:
    from face_recognition_node.assembly import Models, Pipeline, load_models, open_gallery
    from face_recognition_node.common.errors import FaceRecognitionError
    from face_recognition_node.config import Config
    from face_recognition_node.enrollment.session import EnrollmentGoal, EnrollmentResult, EnrollmentSession
    from face_recognition_node.gallery.gallery import Gallery
    from face_recognition_node.media.annotate import draw_faces
    from face_recognition_node.media.sources import open_source
    from face_recognition_node.media.writer import VideoWriter
    from face_recognition_node.recognizer import Recognizer
    from face_recognition_node.vision.alignment import align_faces
    from face_recognition_node.vision.faces import (
        Detection,
        Frame,
        IdentifiedFace,
        Identity,
        IdentityState,
        RecognitionResult,
    )


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first used."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""All errors of the project, drawn as one tree.

    FaceRecognitionError
    ├── InputError              (also a ValueError) an argument: expected, got, cure
    │   ├── FrameError          a camera frame that cannot be used; ``kind`` groups equal ones
    │   └── SourceError         a video, image or camera that cannot be read
    ├── ConfigurationError      a parameter or a parameter file
    ├── ModelError
    │   ├── ModelMissingError   a file of the model is not there
    │   ├── ModelMismatchError  a file does not belong to its card
    │   └── BackendUnavailableError  the runtime that should run it is absent or failed its self-test
    ├── GalleryError
    │   ├── GalleryUnavailableError  cannot be opened, read or written
    │   ├── GalleryMismatchError     made with another model or alignment
    │   ├── PersonNotFoundError
    │   └── GalleryConflictError     the change contradicts what the gallery holds
    │       └── GalleryChangedError  it was decided on a version that is not the present one
    └── EnrollmentError         an enrollment that ended without storing anything; ``reason`` says why

Every message says what was expected, what came and what to do.
"""

from __future__ import annotations


class FaceRecognitionError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(FaceRecognitionError, ValueError):
    """An argument of the wrong shape, type or range."""


class FrameError(InputError):
    """A camera frame that cannot be used, and why: what was expected, what came, what to do.

    ``kind`` is a short stable word for this sort of defect (``"encoding"``, ``"size"``, ``"jpeg"`` …); the
    node counts frames and logs once by it.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class SourceError(InputError):
    """A video file, image folder or camera that cannot be opened or read."""


class ConfigurationError(FaceRecognitionError, ValueError):
    """A parameter with a value outside its bounds, or an unknown parameter."""


class ModelError(FaceRecognitionError):
    """A model cannot be loaded or run."""


class ModelMissingError(ModelError):
    """A file of the model is not where it should be."""


class ModelMismatchError(ModelError):
    """A weights file does not have the fingerprint its card states."""


class BackendUnavailableError(ModelError):
    """The runtime that should run the model is not installed or failed its self-test."""


class GalleryError(FaceRecognitionError):
    """The gallery refused or could not make a change."""


class GalleryUnavailableError(GalleryError):
    """The gallery file cannot be opened, read or written."""


class GalleryMismatchError(GalleryError):
    """The gallery's embeddings come from another model or another alignment."""


class PersonNotFoundError(GalleryError):
    """No person has this id."""


class GalleryConflictError(GalleryError):
    """The change contradicts what the gallery holds."""


class GalleryChangedError(GalleryConflictError):
    """Somebody was stored since the decision to make a change; decide again."""


class EnrollmentError(FaceRecognitionError):
    """An enrollment ended without storing anything, for a ``reason``: a stable word (``"timeout"`` …)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

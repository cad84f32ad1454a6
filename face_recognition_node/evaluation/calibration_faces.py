"""Labelled faces in all qualities: aligned photographs as they are, seen from far, and out of focus."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from face_recognition_node.common.errors import SourceError
from face_recognition_node.evaluation.calibration import LabelledFaces
from face_recognition_node.evaluation.degradation import blur_face, reduce_face
from face_recognition_node.evaluation.picture_archive import IMAGE_ENDINGS, open_files
from face_recognition_node.media.images import image_from
from face_recognition_node.vision.alignment import ALIGNMENT_TEMPLATE, CROP_SIZE
from face_recognition_node.vision.detector import Detector, Embedder
from face_recognition_node.vision.faces import Detection, FloatArray, ImageArray
from face_recognition_node.vision.quality import assess_quality

# sides in pixels that crops are reduced to, as a face has that is so far away
REDUCED_TO = (18, 24, 32, 40, 56)
BLUR_SIGMA = 2.0
_BORDER = 24
_TYPICAL_BOX = np.array([14.0, 8.0, 98.0, 118.0], np.float32)
_MISPLACED_PX = 25.0


def list_photographs(path: Path) -> tuple[list[str], Callable[[str], ImageArray]]:
    """Return the 112×112 photographs ``…/NAME/FILE`` of a zip or folder, or SourceError, and their reader."""
    files, read_bytes = open_files(path)
    names = sorted(name for name in files if name.lower().endswith(IMAGE_ENDINGS))
    names = [name for name in names if len(PurePosixPath(name).parts) >= 2]
    if not names:
        raise SourceError(f"{path}: expected aligned faces as NAME/FILE.webp (or jpg, png), found none")

    def read(name: str) -> ImageArray:
        image = image_from(read_bytes(name), name)
        if image.shape != (CROP_SIZE, CROP_SIZE, 3):
            raise SourceError(
                f"{name}: expected an aligned face of {CROP_SIZE}x{CROP_SIZE} pixels, got "
                f"{image.shape[1]}x{image.shape[0]}; align photographs by `face-recognition prepare`"
            )
        return image

    return names, read


def person_of(name: str) -> str:
    """Return the person of a photograph: the folder it lies in."""
    return PurePosixPath(name).parent.name


def is_fitting_half(person: str) -> bool:
    """Say whether a person belongs to the half that is fitted on; the same on every machine."""
    return hashlib.sha256(person.encode()).digest()[-1] % 2 == 0


def degrade(crop_bgr: ImageArray) -> Iterable[tuple[ImageArray, float]]:
    """Yield the crop in each quality, with the scale of the face that it stands for."""
    yield crop_bgr, 1.0
    for side in REDUCED_TO:
        yield reduce_face(crop_bgr, side), side / CROP_SIZE
    yield blur_face(crop_bgr, BLUR_SIGMA), 1.0


def locate(crop_bgr: ImageArray, detector: Detector) -> Detection:
    """Return where the face lies in an aligned crop: by the detector, or by the template if it finds none."""
    padded = cv2.copyMakeBorder(crop_bgr, _BORDER, _BORDER, _BORDER, _BORDER, cv2.BORDER_CONSTANT)
    for found in detector.detect(np.asarray(padded, np.uint8)):
        landmarks = found.landmarks_xy - _BORDER
        if np.abs(landmarks - ALIGNMENT_TEMPLATE).max() < _MISPLACED_PX:
            return Detection(found.box_xyxy - _BORDER, found.score, landmarks)
    return Detection(_TYPICAL_BOX, 0.9, ALIGNMENT_TEMPLATE)


def embed_photographs(
    names: list[str],
    read: Callable[[str], ImageArray],
    detector: Detector,
    embedder: Embedder,
    on_progress: Callable[[int], None] = lambda count: None,
) -> LabelledFaces:
    """Return every photograph in every quality, embedded; ``on_progress`` gets how many more are done."""
    people = {person: number for number, person in enumerate(sorted({person_of(name) for name in names}))}
    embeddings: list[FloatArray] = []
    qualities: list[float] = []
    identities: list[int] = []
    photographs: list[int] = []
    for number, name in enumerate(names):
        crop = read(name)
        place = locate(crop, detector)
        versions = list(degrade(crop))
        crops = np.stack([version for version, _ in versions])
        scaled = [
            Detection(place.box_xyxy * np.float32(scale), place.score, place.landmarks_xy * np.float32(scale))
            for _, scale in versions
        ]
        embeddings.append(embedder.embed(crops))
        qualities.extend(quality.overall for quality in assess_quality(crops, scaled))
        identities.extend([people[person_of(name)]] * len(crops))
        photographs.extend([number] * len(crops))
        on_progress(1)
    return LabelledFaces(
        np.concatenate(embeddings),
        np.array(qualities, np.float32),
        np.array(identities, np.int64),
        np.array(photographs, np.int64),
    )

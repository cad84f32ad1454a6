"""People's faces from archives of photographs, embedded as on the robot; the other tools measure with them.

An archive is a zip file with a folder a person: ORL (``.pgm``), RAP3DF (``_color.png``) or aligned LFW
(``.webp``), told by what it holds.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from face_recognition_node.assembly import Models
from face_recognition_node.common.errors import InputError
from face_recognition_node.config import Config
from face_recognition_node.evaluation.calibration_faces import (
    is_fitting_half,
    list_photographs,
    locate,
    person_of,
)
from face_recognition_node.evaluation.scenes.cast import RAP3DF_DOUBLES
from face_recognition_node.vision.alignment import align_faces
from face_recognition_node.vision.faces import Detection, FaceView, HeadPose, ImageArray
from face_recognition_node.vision.pose import fit_heads
from face_recognition_node.vision.quality import assess_quality

FEWEST = 4  # people with fewer usable pictures are left out

People = dict[str, list[FaceView]]


def embed_people(archive: Path, models: Models) -> People:
    """Return the usable views of everybody with at least :data:`FEWEST`, by the name of the folder."""
    people: People = {}
    limits = Config().identity
    for person, detection, crop in find_faces(archive, models):
        head = fit_heads(detection.landmarks_xy[None])
        quality = assess_quality(crop[None], [detection], head)[0]
        if quality.overall < limits.minimum_quality or detection.score < limits.minimum_detection_score:
            continue
        pose = HeadPose(float(head.yaw[0]), float(head.pitch[0]), float(head.roll[0]))
        embedding = models.embedder.embed(crop[None])[0]
        views = people.setdefault(person, [])
        views.append(FaceView(detection, float(len(views)), quality, pose, None, embedding))
    return {person: views for person, views in people.items() if len(views) >= FEWEST}


def find_faces(archive: Path, models: Models) -> Iterator[tuple[str, Detection, ImageArray]]:
    """Yield (person, detection, aligned crop) of each picture with a face."""
    with zipfile.ZipFile(archive) as pictures:
        names = sorted(pictures.namelist())
    if any(name.endswith(".webp") for name in names):
        yield from _aligned_faces(archive, models)
        return
    wanted = [name for name in names if name.endswith((".pgm", "_color.png")) and not _is_double(name)]
    if not wanted:
        raise InputError(f"{archive}: expected .pgm, _color.png or .webp pictures, found none")
    with zipfile.ZipFile(archive) as pictures:
        for name in wanted:
            decoded = cv2.imdecode(np.frombuffer(pictures.read(name), np.uint8), cv2.IMREAD_COLOR)
            image = np.asarray(decoded, np.uint8)
            if found := models.detector.detect(image):
                face = max(found, key=lambda detection: detection.size_px)
                yield name.split("/")[-2], face, align_faces(image, face.landmarks_xy[None])[0]


def _is_double(name: str) -> bool:
    return name.endswith("_color.png") and name.split("/")[-2] in RAP3DF_DOUBLES


def _aligned_faces(archive: Path, models: Models) -> Iterator[tuple[str, Detection, ImageArray]]:
    """Yield those of the people that the calibration was not fitted on."""
    names, read = list_photographs(archive)
    counts = Counter(person_of(path) for path in names)
    for path in names:
        if not is_fitting_half(person_of(path)) and counts[person_of(path)] >= FEWEST:
            crop = read(path)
            yield person_of(path), locate(crop, models.detector), crop

"""The Olivetti (AT&T, ORL) faces and the pairs of the siamese article."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import InputError, SourceError
from face_recognition_node.evaluation.face_archive import LabelArray
from face_recognition_node.evaluation.picture_archive import open_files
from face_recognition_node.systems.pictures import largest_face
from face_recognition_node.systems.siamese import GREY_FACE_SIZE
from face_recognition_node.vision.faces import Detection, FloatArray, ImageArray

# side of a newcomer's crop by the size of the detected face: frames it like the Olivetti pictures
FRAME_SCALE = 1.25
_NAME, _SHAPE = re.compile(r"(?:^|/)s(\d+)/(\d+)\.pgm$"), (112, 92)


def read_olivetti(path: Path) -> tuple[NDArray[np.uint8], LabelArray]:
    """Read ``sN/M.pgm`` of a zip or folder.

    Returns:
        (N, 112, 92) grey pictures ordered by person and number, and (N,) people from 0 on.

    Raises:
        SourceError: If there is no such archive, no such picture in it, or one cannot be decoded.
    """
    from face_recognition_node.media.images import image_from

    names, read = open_files(path)
    found = sorted(
        (int(match[1]), int(match[2]), match.string) for match in map(_NAME.search, names) if match
    )
    if not found:
        raise SourceError(f"{path}: expected the AT&T faces as sN/M.pgm, found none")
    pictures = [cv2.cvtColor(image_from(read(name), name), cv2.COLOR_BGR2GRAY) for *_, name in found]
    if any(picture.shape != _SHAPE for picture in pictures):
        raise SourceError(f"{path}: expected pictures of {_SHAPE[1]}x{_SHAPE[0]} pixels")
    labels = [person - 1 for person, *_ in found]
    return np.stack(pictures).astype(np.uint8), np.array(labels, np.int64)


def grey_faces(pictures: NDArray[np.uint8]) -> FloatArray:
    """Return (N, 1, 64, 64) in [0, 1] of (N, 112, 92) pictures: the face's square, evened in contrast."""
    return np.stack([_as_input(picture[14:106])[None] for picture in pictures])


def grey_newcomer(image_bgr: ImageArray, detection: Detection) -> FloatArray:
    """Return (1, 64, 64) in [0, 1] of a face found in a colour picture: cropped and made grey."""
    x, y = detection.center_xy
    half = 0.5 * FRAME_SCALE * detection.size_px
    grey = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
    matrix = np.array([[1, 0, half - x], [0, 1, half - y]])
    side = max(2, round(2 * half))
    crop = cv2.warpAffine(grey, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
    return _as_input(np.asarray(crop, np.uint8))[None]


def read_newcomer(source: str) -> FloatArray:
    """Return (M, 1, 64, 64) grey faces, the largest of each picture; SourceError with fewer than two."""
    from face_recognition_node.media.sources import open_source

    faces = []
    for frame in open_source(source):
        face = largest_face(frame.image_bgr)
        if face is not None:
            faces.append(grey_newcomer(frame.image_bgr, face))
    if len(faces) < 2:
        raise SourceError(f"{source}: expected two or more pictures with a face, found {len(faces)}")
    return np.stack(faces)


def _as_input(square: NDArray[np.uint8]) -> FloatArray:
    face = cv2.resize(square, (GREY_FACE_SIZE, GREY_FACE_SIZE), interpolation=cv2.INTER_AREA)
    even = np.asarray(cv2.equalizeHist(np.asarray(face, np.uint8)), np.float32)
    return np.asarray(even / 255, np.float32)


def make_pairs(
    labels: LabelArray, seed: int, without: Iterable[Sequence[int]] = ()
) -> tuple[LabelArray, FloatArray]:
    """Pair each picture with a random other one of its person and with a random one of somebody else.

    Pairs ``without`` do not come again, in whichever order.

    Returns:
        (2N, 2) picture numbers and (2N,) 1 for same, 0 for different, of the (N,) people.

    Raises:
        InputError: If somebody has one picture only, or there is one person only.
    """
    random = np.random.default_rng(seed)
    partners: dict[int, list[int]] = {}
    for first, second in without:
        partners.setdefault(int(first), []).append(int(second))
        partners.setdefault(int(second), []).append(int(first))
    pairs, same = [], []
    for index, person in enumerate(labels):
        may_come = np.ones(len(labels), bool)
        may_come[[index, *partners.get(index, [])]] = False
        own = np.flatnonzero(may_come & (labels == person))
        others = np.flatnonzero(may_come & (labels != person))
        if len(own) == 0 or len(others) == 0:
            raise InputError(
                f"person {person}: expected another picture to pair with and somebody else, got "
                f"{len(own)} and {len(others)}"
            )
        pairs += [(index, int(random.choice(own))), (index, int(random.choice(others)))]
        same += [1.0, 0.0]
    return np.array(pairs, np.int64), np.array(same, np.float32)

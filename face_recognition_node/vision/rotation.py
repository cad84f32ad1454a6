"""Cameras mounted upside down or on their side: turn the picture upright, and the answer back.

Coordinates are continuous with the origin at the corner of the upper left pixel, so that the right edge of a
W pixels wide picture is x = W.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import cv2
import numpy as np

from face_recognition_node.common.errors import InputError
from face_recognition_node.vision.faces import FloatArray, IdentifiedFace, ImageArray, RecognitionResult

Picture = TypeVar("Picture", ImageArray, FloatArray)  # a colour image, or depth

_CODES = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


def rotate_image(image: Picture, degrees: int) -> Picture:
    """Return the picture (H, W) or (H, W, C) turned clockwise by 0, 90, 180 or 270 degrees; 0: no copy."""
    if degrees == 0:
        return image
    return cv2.rotate(image, _CODES[_checked(degrees)])  # type: ignore[return-value]  # same dtype as given


def rotate_points(points_xy: FloatArray, degrees: int, size: tuple[float, float]) -> FloatArray:
    """Return where (..., 2) points go when their picture of (width, height) is turned clockwise."""
    width, height = size
    x, y = points_xy[..., 0], points_xy[..., 1]
    turned = {0: (x, y), 90: (height - y, x), 180: (width - x, height - y), 270: (y, width - x)}
    return np.stack(turned[_checked(degrees)], axis=-1).astype(np.float32)


def rotate_box(box_xyxy: FloatArray, degrees: int, size: tuple[float, float]) -> FloatArray:
    """Return a (4,) box x1, y1, x2, y2 in the picture turned clockwise; arguments as in rotate_points."""
    corners = rotate_points(np.asarray(box_xyxy, np.float32).reshape(2, 2), degrees, size)
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def to_original(result: RecognitionResult, degrees: int) -> RecognitionResult:
    """Return a result found in a picture turned clockwise by ``degrees`` in coordinates of the original.

    Head poses stay those of the upright picture: a head that is upright in the room has roll 0.
    """
    if degrees == 0:
        return result
    back = (360 - _checked(degrees)) % 360
    width, height = result.image_size

    def face_back(face: IdentifiedFace) -> IdentifiedFace:
        detection = replace(
            face.view.detection,
            box_xyxy=rotate_box(face.view.detection.box_xyxy, back, (width, height)),
            landmarks_xy=rotate_points(face.view.detection.landmarks_xy, back, (width, height)),
        )
        return replace(face, view=replace(face.view, detection=detection))

    size = (width, height) if back == 180 else (height, width)
    faces = tuple(face_back(face) for face in result.faces)
    return replace(result, image_size=size, faces=faces, rotate=(result.rotate + degrees) % 360)


def _checked(degrees: int) -> int:
    if degrees not in (0, 90, 180, 270):
        raise InputError(f"degrees: expected 0, 90, 180 or 270, got {degrees}")
    return degrees

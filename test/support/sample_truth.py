"""Where the faces of the sample video are, from its camera's geometry."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from face_recognition_node.media.sample import CROPS, FACE_BOXES, PLACES, SIZE, camera_matrix
from face_recognition_node.vision.faces import FloatArray


@dataclass(frozen=True, slots=True)
class TrueFace:
    """A face in view: "guest" or "stranger", and the rectangle about its projected corners, pixels."""

    who: str
    box_xyxy: FloatArray


def true_faces(time: float, size: tuple[int, int] = SIZE) -> list[TrueFace]:
    """Return the faces whose box lies by at least 60 % in the frame at ``time``."""
    seen = []
    for who, x, y, scale in PLACES:
        crop = np.array(CROPS[who], float)
        corner = np.array([x, y]) - scale * (crop[2:] - crop[:2]) / 2
        (x1, y1), (x2, y2) = corner + scale * (np.reshape(FACE_BOXES[who], (2, 2)) - crop[:2])
        corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
        projected = cv2.perspectiveTransform(corners[None], camera_matrix(time, size))[0]
        low, high = projected.min(axis=0), projected.max(axis=0)
        inside = np.clip(np.minimum(high, size) - np.maximum(low, 0), 0, None)
        if inside.prod() >= 0.6 * (high - low).prod():
            seen.append(TrueFace(who, np.concatenate([low, high]).astype(np.float32)))
    return seen

"""What distance and motion do to a face, so that accuracy can be measured against them."""

from __future__ import annotations

import cv2
import numpy as np

from face_recognition_node.core.errors import InputError
from face_recognition_node.core.faces import ImageArray


def reduce_face(image: ImageArray, side: int) -> ImageArray:
    """Return a square image averaged down to ``side`` px and enlarged again: what is left of a far face.

    Raises:
        InputError: If ``side`` is below 1.
    """
    if side < 1:
        raise InputError(f"expected a side of at least 1 px, got {side}")
    if side >= image.shape[0]:
        return image
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    size = (image.shape[1], image.shape[0])
    return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def blur_face(image: ImageArray, sigma: float) -> ImageArray:
    """Return the image after a Gaussian blur of ``sigma`` px; 0 changes nothing.

    Raises:
        InputError: If ``sigma`` is negative.
    """
    if sigma < 0:
        raise InputError(f"expected a blur of at least 0 px, got {sigma}")
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8) if sigma > 0 else image

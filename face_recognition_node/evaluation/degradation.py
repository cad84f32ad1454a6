"""What distance, motion and low light do to a face, so that accuracy can be measured against them."""

from __future__ import annotations

import zlib

import cv2
import numpy as np

from face_recognition_node.common.errors import InputError
from face_recognition_node.vision.faces import ImageArray


def reduce_face(image: ImageArray, side: int) -> ImageArray:
    """Return a square image averaged down to ``side`` px (>= 1) and enlarged again, as a far face looks."""
    if side < 1:
        raise InputError(f"expected a side of at least 1 px, got {side}")
    if side >= image.shape[0]:
        return image
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    size = (image.shape[1], image.shape[0])
    return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def blur_face(image: ImageArray, sigma: float) -> ImageArray:
    """Return the image after a Gaussian blur of ``sigma`` px (>= 0); 0 changes nothing."""
    if sigma < 0:
        raise InputError(f"expected a blur of at least 0 px, got {sigma}")
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8) if sigma > 0 else image


def darken_face(image: ImageArray, light: float, noise: float = 2.0) -> ImageArray:
    """Return the image as a camera gives it at ``light``, in (0, 1], of the usual brightness, with its noise.

    The noise, of this standard deviation in grey values, follows from the picture alone, so that a
    measurement can be repeated. Light 1 changes nothing.
    """
    if not 0 < light <= 1 or noise < 0:
        raise InputError(f"expected light in (0, 1] and noise of at least 0, got {light} and {noise}")
    if light == 1:
        return image
    random = np.random.default_rng(zlib.crc32(image.tobytes()))
    dark = image * np.float32(light) + random.standard_normal(image.shape, np.float32) * np.float32(noise)
    return np.asarray(np.clip(np.round(dark), 0, 255), np.uint8)

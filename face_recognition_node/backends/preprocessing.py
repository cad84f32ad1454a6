"""What a model's card says to do with pixels, for runtimes that cannot take it into their graph."""

from __future__ import annotations

import os

import numpy as np

from face_recognition_node.common.errors import InputError
from face_recognition_node.vision.faces import FloatArray, ImageArray
from face_recognition_node.vision.model_card import ModelInput

MOST_DEFAULT_THREADS = 4


def require_batch(images_bgr: ImageArray) -> ImageArray:
    """Return ``images_bgr`` if it is a (B, H, W, 3) uint8 batch, B ≥ 1, else raise InputError."""
    if (
        images_bgr.dtype != np.uint8
        or images_bgr.ndim != 4
        or images_bgr.shape[3] != 3
        or 0 in images_bgr.shape
    ):
        raise InputError(
            "images_bgr: expected uint8 (B, H, W, 3) with B of at least 1, "
            f"got {images_bgr.dtype} {images_bgr.shape}"
        )
    return images_bgr


def network_input(images_bgr: ImageArray, needs: ModelInput) -> FloatArray:
    """Return float32 ``(pixel - mean) / scale`` in the card's channel order and layout.

    Args:
        images_bgr: (B, H, W, 3) uint8.
        needs: The card's ``input`` block.
    """
    batch, height, width, _ = images_bgr.shape
    planes = np.empty((batch, 3, height, width), np.float32)
    for plane in range(3):
        source = plane if needs.channels == "BGR" else 2 - plane
        np.subtract(images_bgr[..., source], np.float32(needs.mean[plane]), out=planes[:, plane])
        if needs.scale[plane] != 1.0:
            planes[:, plane] *= np.float32(1.0 / needs.scale[plane])
    return planes if needs.layout == "NCHW" else np.ascontiguousarray(planes.transpose(0, 2, 3, 1))


def thread_count(asked: int) -> int:
    """Return the CPU threads to use: ``asked``, or for 0 one per usable core but one, at most four.

    A second thread on a machine of two cores makes a network faster by half and costs as much processor time
    again, which navigation and speech, and here the camera's and the middleware's threads, then lack.
    """
    if asked > 0:
        return asked
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_DEFAULT_THREADS, usable - 1))

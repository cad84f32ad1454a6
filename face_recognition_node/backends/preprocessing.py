"""What the runtimes share: pixels as a card wants them, threads, and the comparison of their answers."""

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
    """Return float32 ``(pixel - mean) / scale`` of (B, H, W, 3) uint8, ordered as the card says."""
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


def noise_pictures(batch: int, height: int, width: int) -> ImageArray:
    """Return (batch, height, width, 3) uint8 noise, broad and fine, that runtimes are compared on."""
    generator = np.random.default_rng(0)
    coarse = generator.uniform(0, 255, (batch, -(-height // 16), -(-width // 16), 3))
    broad = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]
    fine = generator.normal(0, 20, (batch, height, width, 3))
    return np.clip(broad + fine, 0, 255).astype(np.uint8)


def least_cosine(expected: tuple[FloatArray, ...], got: tuple[FloatArray, ...]) -> float:
    """Return the smallest cosine between two networks' outputs; -1 if shapes differ or one is not finite."""
    if [one.shape for one in expected] != [one.shape for one in got]:
        return -1.0
    worst = 1.0
    for one, other in zip(expected, got, strict=True):
        if not np.isfinite(other).all():
            return -1.0
        a, b = (array.reshape(len(array), -1).astype(np.float64) for array in (one, other))
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        worst = min(worst, float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-30)).min(initial=1.0)))
    return worst

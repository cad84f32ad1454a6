"""The robot's own detector and embedder at work on single pictures, for the systems that are trained here."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import cv2
import numpy as np

from face_recognition_node.common.errors import InputError
from face_recognition_node.config import DetectorConfig, ModelsConfig
from face_recognition_node.vision.alignment import align_faces
from face_recognition_node.vision.detector import Detector, Embedder
from face_recognition_node.vision.faces import Detection, FloatArray, ImageArray
from face_recognition_node.vision.model_card import ModelCard

_COMFORTABLE_SIDE = 320  # pictures smaller than this are enlarged before the detector looks, pixels


@functools.cache
def robot_card() -> ModelCard:
    """Return the embedder's card."""
    from face_recognition_node.backends.loading import load_card

    return load_card(ModelsConfig(), ModelsConfig().embedder)


@functools.cache
def robot_detector() -> Detector:
    """Return the detector with its default settings, loaded once."""
    from face_recognition_node.backends import load_detector

    return load_detector(ModelsConfig(), DetectorConfig())


@functools.cache
def robot_embedder() -> Embedder:
    """Return the embedder with its default settings, loaded once."""
    from face_recognition_node.backends import load_embedder

    return load_embedder(ModelsConfig())


def largest_face(image_bgr: ImageArray) -> Detection | None:
    """Return the largest face of a (H, W, 3) BGR picture, None if there is none."""
    return max(robot_detector().detect(image_bgr), key=lambda one: one.size_px, default=None)


def crop_face(image_bgr: ImageArray) -> ImageArray:
    """Return the aligned (112, 112, 3) crop of the largest face; InputError if no face is found."""
    face = largest_face(image_bgr)
    if face is None:
        raise InputError(
            "expected a face in the picture, found none; take it from nearer, or in better light"
        )
    return np.asarray(align_faces(image_bgr, face.landmarks_xy[None])[0], np.uint8)


def embed_crops(crops_bgr: ImageArray) -> FloatArray:
    """Return (N, 64) unit vectors of (N, 112, 112, 3) crops."""
    return robot_embedder().embed(crops_bgr)


def same_person_probabilities(pictures: Sequence[ImageArray], prior: float) -> FloatArray:
    """Return (N, N) the robot's calibrated probability that two pictures, grey or BGR, show one person.

    The prior is the probability of "the same" before looking, in (0, 1). Small pictures are enlarged first;
    one without a detected face has probability 0 with every other.
    """
    from face_recognition_node.identity.calibration import Calibration
    from face_recognition_node.identity.comparison import log_likelihood_ratios
    from face_recognition_node.vision.quality import assess_quality

    calibration = Calibration.from_card(robot_card())
    embeddings = np.zeros((len(pictures), robot_embedder().dimension), np.float32)
    quality, is_found = np.zeros(len(pictures), np.float32), np.zeros(len(pictures), bool)
    for number, picture in enumerate(pictures):
        image = np.asarray(
            cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR) if picture.ndim == 2 else picture, np.uint8
        )
        factor = max(1.0, _COMFORTABLE_SIDE / max(image.shape[:2]))
        image = np.asarray(cv2.resize(image, None, fx=factor, fy=factor), np.uint8)
        face = largest_face(image)
        if face is not None:
            crops = align_faces(image, face.landmarks_xy[None])
            embeddings[number] = embed_crops(crops)[0]
            quality[number], is_found[number] = assess_quality(crops, [face])[0].overall, True
    ratios = log_likelihood_ratios(calibration, embeddings, quality, embeddings, quality)
    odds = ratios + np.log(prior / (1 - prior))
    return np.asarray((is_found[:, None] & is_found[None]) / (1 + np.exp(-odds)), np.float32)

"""How much two faces speak for one person, and what several views of one face say together.

The log-likelihood ratio of a pair of unit vectors ``a``, ``b`` with qualities ``p``, ``q`` is

    l(a, b) = ln p(s' | same person, p, q) / p(s' | different people, p, q),
    s' = a . b - weight * ((h(a) + h(b)) / 2 - h0),

read from the tables of :class:`Calibration`. ``h`` is the hubness of a face (the cohort score of adaptive
s-norm): without that correction a face that resembles everybody seems to be everybody.

Several views of one face are pooled into one vector before they are compared, because their log-likelihood
ratios are not independent and must not be added:

    pool(x, q) = unit(sum_i max(q_i, 0.001)^2 x_i).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recognition_node.vision.faces import FaceView, FloatArray, embedding_of

if TYPE_CHECKING:
    from face_recognition_node.gallery.values import Template
    from face_recognition_node.identity.calibration import Calibration

_LEAST_QUALITY = 1e-3  # views of quality 0 still have a direction where there is nothing better


def log_likelihood_ratios(
    calibration: Calibration, first: FloatArray, first_qualities: ArrayLike, second: FloatArray,
    second_qualities: ArrayLike,
) -> NDArray[np.float64]:  # fmt: skip
    """Return (A, B) natural-log likelihood ratios that two faces are one person, corrected for hubness.

    Of (A, D) and (B, D) unit vectors, with a quality in [0, 1] for each or one for all.
    """
    return calibration.log_likelihood_ratio(
        first @ second.T, _column(first_qualities), second_qualities, _hubness(calibration, first, second)
    )


def log_false_match_rates(
    calibration: Calibration, first: FloatArray, first_qualities: ArrayLike, second: FloatArray,
    second_qualities: ArrayLike,
) -> NDArray[np.float64]:  # fmt: skip
    """Return (A, B) natural logs of the chance that different people are as alike; arguments as above."""
    return calibration.log_false_match(
        first @ second.T, _column(first_qualities), second_qualities, _hubness(calibration, first, second)
    )


def compare_with_templates(
    calibration: Calibration, embedding: FloatArray, quality: float, templates: Sequence[Template]
) -> NDArray[np.float64]:
    """Return (T,) natural-log likelihood ratios that a (D,) embedding shows the person of each template."""
    if not templates:
        return np.zeros(0)
    stored = np.stack([template.embedding for template in templates])
    qualities = [template.quality for template in templates]
    return log_likelihood_ratios(calibration, embedding[None], quality, stored, qualities).ravel()


def compare_views(
    calibration: Calibration, views: Sequence[FaceView], others: Sequence[FaceView]
) -> NDArray[np.float64]:
    """Return (A, B) natural-log likelihood ratios that each view shows the person of each other view."""
    return log_likelihood_ratios(
        calibration, embeddings_of(views), qualities_of(views), embeddings_of(others), qualities_of(others)
    )


def pool(embeddings: FloatArray, qualities: ArrayLike, shares: ArrayLike = 1.0) -> tuple[FloatArray, float]:
    """Return the (D,) unit mean of (N, D) unit vectors, N > 0, weighted by quality squared, and its quality.

    Qualities are (N,) in [0, 1]; ``shares`` are (N,) further weights.
    """
    quality = np.asarray(qualities, np.float32)
    weights = np.asarray(np.maximum(quality, _LEAST_QUALITY) ** 2 * np.asarray(shares, np.float32))
    mean = weights @ embeddings
    unit = (mean / max(float(np.linalg.norm(mean)), 1e-9)).astype(np.float32)
    return unit, float(weights @ quality / weights.sum())


def pool_views(views: Sequence[FaceView]) -> tuple[FloatArray, float]:
    """Return what :func:`pool` does of the embeddings of views."""
    return pool(embeddings_of(views), qualities_of(views))


def embeddings_of(views: Sequence[FaceView]) -> FloatArray:
    """Return the (N, D) embeddings of views, N > 0; InputError if one has none."""
    return np.stack([embedding_of(view) for view in views])


def qualities_of(views: Sequence[FaceView]) -> FloatArray:
    """Return the (N,) overall qualities of views."""
    return np.array([view.quality.overall for view in views], np.float32)


def _column(qualities: ArrayLike) -> FloatArray:
    return np.asarray(qualities, np.float32).reshape(-1, 1)


def _hubness(calibration: Calibration, first: FloatArray, second: FloatArray) -> FloatArray:
    own, other = calibration.hubness(first), calibration.hubness(second)
    return np.asarray((own[:, None] + other[None, :]) / 2, np.float32)

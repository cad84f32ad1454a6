"""Is this a head, or a picture of one? Poster, portrait, phone and printed shirt are told from depth.

For a pinhole camera the inverse depth of a plane is linear in the pixel coordinates, whatever its slant:
1/z = a u + b v + c. So no intrinsics are needed to ask whether a face is plane. A quadratic is fitted to the
inverse depth over the ellipse that the face fills,

    1/z = c0 + c1 x + c2 y + c3 x² + c4 x y + c5 y²,      (x, y) on the unit disc,

and its plane part is dropped. What is left is the *relief*: by how much the rim of the face lies behind its
middle, averaged over all directions, -z² (c3 + c5) / 2 metres. A head bulges by one to three centimetres in
both directions; a poster, a screen or a print not at all; a print on a shirt in one direction only, which
halves its share. Noise does not bulge: the fit's standard error says how far it can be trusted, and over a
track the reliefs are averaged until the verdict is clear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from face_recognition_node.core.faces import Detection, FloatArray

UNVERIFIED, SOLID, FLAT = "unverified", "solid", "flat"

LEAST_RELIEF_M = 0.008
"""Between a print on a chest (up to 5 mm) and the head of a child (12 mm and more)."""
_ELLIPSE = (0.36, 0.40)
"""Half axes of the part of the box that is looked at: the face without hair, ears and background."""
_GRID = 32
"""Samples along each axis; more say little that is new, as the noise of depth cameras is smooth."""
_LEAST_SAMPLES = 60
_LEAST_COVERAGE = 0.5
_DEEPEST_FACE_M = 0.12
"""What lies farther than this from the median is background, hair or a hand before the face."""
_SMOOTH_NOISE = 2.0
"""Factor on the standard error: neighbouring depth pixels share their errors."""
_SYSTEMATIC_M = 0.002
"""Standard error that no number of pixels or frames goes below."""
_CLEAR = 2.0
"""Standard errors between the relief and the limit that make a verdict."""


@dataclass(frozen=True, slots=True)
class Relief:
    """How far a face bulges in one frame.

    Attributes:
        metres: By how much its rim lies behind its middle; about 0 for a plane.
        error: Standard error, metres.
    """

    metres: float
    error: float


def measure_relief(depth_m: FloatArray, detection: Detection) -> Relief | None:
    """Return the relief of a face, or None where the depth image says too little of it.

    Args:
        depth_m: (H, W) float32 depth registered to the colour image, metres; NaN where nothing is known.
        detection: The face, in pixels of that image.
    """
    places = np.linspace(-1.0, 1.0, _GRID)
    x, y = (a.ravel() for a in np.meshgrid(places, places))
    on_disc = x * x + y * y <= 1.0
    x, y = x[on_disc], y[on_disc]
    columns = np.floor(detection.center_xy[0] + _ELLIPSE[0] * detection.width * x).astype(np.int64)
    rows = np.floor(detection.center_xy[1] + _ELLIPSE[1] * detection.height * y).astype(np.int64)
    height, width = depth_m.shape
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    depth = np.full(len(x), np.nan)
    depth[inside] = depth_m[rows[inside], columns[inside]]
    # A small face has fewer pixels than samples: the same pixel twice is no second measurement.
    _, first = np.unique(rows * max(width, 1) + columns, return_index=True)
    is_new = np.zeros(len(x), bool)
    is_new[first] = True
    known = is_new & np.isfinite(depth) & (depth > 0)
    if known.sum() < max(_LEAST_SAMPLES, _LEAST_COVERAGE * is_new.sum()):
        return None
    middle = float(np.median(depth[known]))
    known &= np.abs(depth - middle) <= _DEEPEST_FACE_M
    if known.sum() < max(_LEAST_SAMPLES, _LEAST_COVERAGE * is_new.sum()):
        return None
    return _fit(x[known], y[known], depth[known], middle)


def _fit(x: FloatArray, y: FloatArray, depth: FloatArray, middle: float) -> Relief | None:
    design = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    inverse_depth = 1.0 / depth
    normal = design.T @ design
    if np.linalg.cond(normal) > 1e8:  # the known part is a line or a corner
        return None
    covariance = np.linalg.inv(normal)
    coefficients = covariance @ (design.T @ inverse_depth)
    residual = inverse_depth - design @ coefficients
    bend = np.array([0.0, 0.0, 0.0, 0.5, 0.0, 0.5])
    variance = float(residual @ residual) / max(len(x) - design.shape[1], 1)
    error = _SMOOTH_NOISE * math.sqrt(variance * float(bend @ covariance @ bend))
    scale = middle * middle
    return Relief(-scale * float(bend @ coefficients), math.hypot(scale * error, _SYSTEMATIC_M))


@dataclass(slots=True)
class ReliefEvidence:
    """What the frames of a track say together: a mean weighted by precision that forgets slowly.

    Attributes:
        metres: Pooled relief.
        precision: Inverse of its variance, 1/m²; 0: nothing is known.
    """

    metres: float = 0.0
    precision: float = 0.0

    def add(self, relief: Relief) -> None:
        """Take one frame into account; ten frames at most are remembered."""
        new = relief.error**-2
        old = min(self.precision, 9.0 * new)
        self.metres = (old * self.metres + new * relief.metres) / (old + new)
        self.precision = old + new

    @property
    def verdict(self) -> str:
        """``solid``, ``flat``, or ``unverified`` while neither is clear."""
        if self.precision == 0.0:
            return UNVERIFIED
        error = math.hypot(self.precision**-0.5, _SYSTEMATIC_M / 2)
        above = (self.metres - LEAST_RELIEF_M) / error
        if above >= _CLEAR:
            return SOLID
        return FLAT if above <= -_CLEAR else UNVERIFIED

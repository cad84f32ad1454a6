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

from face_recognition_node.vision.faces import Detection, FloatArray

_ELLIPSE = (0.36, 0.40)
"""Half axes of the part of the box that is looked at: the face without hair, ears and background."""
_GRID = 32
"""Samples along each axis; more say little that is new, as the noise of depth cameras is smooth."""
_LEAST_SAMPLES = 60
_LEAST_COVERAGE = 0.5
_DEEPEST_FACE_M = 0.12
"""What lies farther than this from the median is background, hair or a hand before the face."""


@dataclass(frozen=True, slots=True, eq=False)
class FaceDepth:
    """Depth samples of one face.

    Attributes:
        x: (N,) place of each sample on the unit disc that stands for the face, to the right.
        y: (N,) the same, downwards.
        metres: (N,) depth.
        median: Of all of them, metres.
    """

    x: FloatArray
    y: FloatArray
    metres: FloatArray
    median: float


def sample_face_depth(depth_m: FloatArray, detection: Detection) -> FaceDepth | None:
    """Return the depth over a face, or None where the depth image says too little of it.

    Args:
        depth_m: (H, W) float32 depth registered to the colour image, metres; NaN where nothing is known.
        detection: The face, in pixels of that image.
    """
    places = np.linspace(-1.0, 1.0, _GRID, dtype=np.float32)
    x, y = (axis.ravel() for axis in np.meshgrid(places, places))
    on_disc = x * x + y * y <= 1.0
    x, y = x[on_disc], y[on_disc]
    columns = np.floor(detection.center_xy[0] + _ELLIPSE[0] * detection.width * x).astype(np.int64)
    rows = np.floor(detection.center_xy[1] + _ELLIPSE[1] * detection.height * y).astype(np.int64)
    # A small face has fewer pixels than samples: the same pixel twice is no second measurement.
    _, first = np.unique(rows * depth_m.shape[1] + columns, return_index=True)
    x, y, columns, rows = x[first], y[first], columns[first], rows[first]
    height, width = depth_m.shape
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    depth = np.full(len(x), np.nan, np.float32)
    depth[inside] = depth_m[rows[inside], columns[inside]]
    enough = max(_LEAST_SAMPLES, _LEAST_COVERAGE * len(x))
    known = np.isfinite(depth) & (depth > 0)
    if known.sum() < enough:
        return None
    known &= np.abs(depth - np.median(depth[known])) <= _DEEPEST_FACE_M
    if known.sum() < enough:
        return None
    return FaceDepth(x[known], y[known], depth[known], float(np.median(depth[known])))


UNVERIFIED, SOLID, FLAT = "unverified", "solid", "flat"

LEAST_RELIEF_M = 0.008
"""Between a print on a chest (up to 5 mm) and the head of a child (12 mm and more)."""
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


def measure_relief(face: FaceDepth) -> Relief | None:
    """Return by how much a face bulges, or None where what is known of it is a line or a corner."""
    x, y = face.x, face.y
    design = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
    inverse_depth = 1.0 / face.metres.astype(np.float64)
    normal = design.T @ design
    if np.linalg.cond(normal) > 1e8:
        return None
    covariance = np.linalg.inv(normal)
    coefficients = covariance @ (design.T @ inverse_depth)
    residual = inverse_depth - design @ coefficients
    bend = np.array([0.0, 0.0, 0.0, 0.5, 0.0, 0.5])
    variance = float(residual @ residual) / max(len(x) - design.shape[1], 1)
    error = _SMOOTH_NOISE * math.sqrt(variance * float(bend @ covariance @ bend))
    scale = face.median**2
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

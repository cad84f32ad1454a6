"""Dark pictures brought to the light that the networks have learned in: one gain for a face, one for a frame.

A camera in gloom, or a face before a bright door, gives pictures of a fraction of the usual brightness. To a
network that has rarely seen any, the same face at an eighth of the light is nearly another one: its
similarity to itself falls to 0.75. Multiplied back, only the noise is left of the difference, and it is 0.94.
Who is lit well is left as they are. What it is worth is measured by ``evaluate verification --light``.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recognition_node.vision.faces import ImageArray

# green value of the brighter parts from which a picture is left as it is; 6 % of LFW's faces lie below
LIT_LEVEL = 140.0
MOST_GAIN = 12.0  # beyond this there is nothing but noise to brighten

# every third pixel of the part of an aligned crop that is face: its background may be a bright window
_FACE = (slice(18, 108, 3), slice(18, 94, 3))
# a frame is dark only if nothing in it is lit: a small lit face in a dim room must not be burnt out
_FACE_SHARE, _FRAME_SHARE = 0.95, 0.998
_FRAME_STEP = 8
_LEAST_GAIN = 1.05
_NOISY = 3.0  # standard deviation of the noise from which a brightened frame is smoothed, grey values
_SECOND_DIFFERENCES = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


def brighten_faces(crops_bgr: ImageArray) -> ImageArray:
    """Return (N, 112, 112, 3) uint8 aligned crops, dark faces brightened; the very input if none is dark."""
    if len(crops_bgr) == 0:
        return crops_bgr
    gains = _gains(crops_bgr[:, _FACE[0], _FACE[1], 1].reshape(len(crops_bgr), -1), _FACE_SHARE)
    dark = np.flatnonzero(gains > 1.0)
    if len(dark) == 0:
        return crops_bgr
    brightened = crops_bgr.copy()
    for number in dark.tolist():
        cv2.convertScaleAbs(brightened[number], brightened[number], float(gains[number]))
    return brightened


def brighten_frame(image_bgr: ImageArray) -> ImageArray:
    """Return a (H, W, 3) uint8 frame, brightened if nearly all of it is dark, else the very input.

    The noise that is brightened with it is smoothed away between edges (bilateral filter, Tomasi & Manduchi
    1998): of two people at an eighth of the light the detector then finds 56 faces of 56 instead of 47, and
    their similarity to themselves in the light rises from 0.64 to 0.80.
    """
    gain = float(_gains(image_bgr[::_FRAME_STEP, ::_FRAME_STEP, 1].reshape(1, -1), _FRAME_SHARE)[0])
    if gain <= _LEAST_GAIN:
        return image_bgr
    lit = cv2.convertScaleAbs(image_bgr, alpha=gain)
    noise = measure_noise(np.asarray(lit, np.uint8))
    if noise >= _NOISY:
        lit = cv2.bilateralFilter(lit, 7, min(10 * noise, 60.0), 2.0)
    return np.asarray(lit, np.uint8)


def measure_noise(image_bgr: ImageArray) -> float:
    """Return the standard deviation of the noise in a (H, W, 3) image, grey values (Immerkaer 1996)."""
    second = cv2.filter2D(image_bgr[:, :, 1].astype(np.float32), -1, _SECOND_DIFFERENCES)
    inner = second[1:-1, 1:-1]
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(inner).mean()) if inner.size else 0.0


def _gains(greens: NDArray[np.uint8], share: float) -> NDArray[np.float64]:
    """Return for (N, P) samples the (N,) factors that bring their ``share`` quantile to ``LIT_LEVEL``."""
    place = int(share * (greens.shape[1] - 1))
    level = np.partition(greens, place, axis=1)[:, place].astype(np.float64)
    return np.clip(LIT_LEVEL / np.maximum(level, 1.0), 1.0, MOST_GAIN)

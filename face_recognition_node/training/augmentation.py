"""Change a clean aligned face into what a robot sees: far, blurred, dark, noisy, turned, partly covered."""

from __future__ import annotations

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import InputError
from face_recognition_node.evaluation.degradation import reduce_face
from face_recognition_node.vision.faces import FloatArray, ImageArray


class Augmentation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often and how strongly a face is changed; all chances are in [0, 1]."""

    far: float = 0.25  # chance of a reduction to far_min…far_max px and back: the face across the room
    far_min: int = 16  # smallest side, pixels (a face at 3 m is about 25 px)
    far_max: int = 80  # largest side, pixels
    blur: float = 0.10  # chance of a Gaussian blur, for a face that was not reduced
    # chance of a motion blur of up to 9 px in any direction, for a face that was not reduced
    motion: float = 0.05
    jpeg: float = 0.10  # chance of strong JPEG compression
    shift: float = 2.0  # standard deviation of the shift, pixels: landmarks are never exact
    rotation: float = 4.0  # standard deviation of the rotation, degrees
    zoom: float = 0.10  # largest relative change of size
    mirror: float = 0.5  # chance of a mirror image
    grey: float = 0.12  # chance of a grey image
    light: float = 0.6  # chance of another brightness, contrast and colour
    shade: float = 0.08  # chance that one side lies in the dark
    # chance of hard light from one side: a dark part with a sharp, uneven border, as the shadow of a nose has
    side_light: float = 0.0
    noise: float = 0.15  # chance of sensor noise
    cover: float = 0.12  # chance that a patch is covered
    lower_cover: float = 0.03  # chance that the lower face is covered (mask, cup, hand)

    def __post_init__(self) -> None:
        if not 4 <= self.far_min <= self.far_max:
            raise InputError(
                f"augmentation: expected 4 <= far_min <= far_max, got {self.far_min}, {self.far_max}"
            )

    def apply(self, crop_bgr: ImageArray, random: np.random.Generator) -> ImageArray:
        """Return a changed copy of a square (S, S, 3) BGR uint8 crop, the same size."""
        face = np.ascontiguousarray(crop_bgr[:, ::-1]) if random.random() < self.mirror else crop_bgr
        image = self._warp(self._soften(face, random), random)
        return self._cover(self._relight(image, random), random)

    def _soften(self, image: ImageArray, random: np.random.Generator) -> ImageArray:
        if random.random() < self.far:
            image = reduce_face(image, int(random.integers(self.far_min, self.far_max + 1)))
        elif random.random() < self.blur:
            image = _uint8(cv2.GaussianBlur(image, (0, 0), random.uniform(0.5, 2.0)))
        elif random.random() < self.motion:
            image = _uint8(
                cv2.filter2D(image, -1, motion_kernel(random.uniform(0, 180), int(random.integers(3, 10))))
            )
        if random.random() < self.jpeg:
            _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(15, 70))])
            image = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
        return image

    def _warp(self, image: ImageArray, random: np.random.Generator) -> ImageArray:
        side = image.shape[0]
        angle, scale = random.normal(0, self.rotation), 1 + random.uniform(-self.zoom, self.zoom)
        matrix = cv2.getRotationMatrix2D((side / 2, side / 2), angle, scale)
        matrix = np.asarray(matrix + [[0, 0, x] for x in random.normal(0, self.shift, 2)], np.float64)
        border = cv2.BORDER_CONSTANT if random.random() < 0.5 else cv2.BORDER_REPLICATE
        return _uint8(cv2.warpAffine(image, matrix, (side, side), borderMode=border))

    def _relight(self, image: ImageArray, random: np.random.Generator) -> FloatArray:
        pixels = image.astype(np.float32)
        if random.random() < self.grey:
            pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
        if random.random() < self.light:
            gain = random.uniform(0.6, 1.35) * random.uniform(0.88, 1.12, 3)
            pixels = pixels * gain.astype(np.float32) + np.float32(random.uniform(-25, 25))
        if random.random() < self.shade:
            pixels = pixels * _shade(pixels.shape[0], random)
        if self.side_light and random.random() < self.side_light:
            pixels = pixels * _side_light(pixels.shape[0], random)
        if random.random() < self.noise:
            pixels = pixels + random.standard_normal(pixels.shape, np.float32) * np.float32(
                random.uniform(2, 12)
            )
        return pixels

    def _cover(self, pixels: FloatArray, random: np.random.Generator) -> ImageArray:
        side = pixels.shape[0]
        if random.random() < self.cover:
            height, width = random.integers(side // 8, side // 3 + 1, 2)
            top, left = random.integers(0, side - height), random.integers(0, side - width)
            pixels[top : top + height, left : left + width] = random.uniform(0, 255)
        if random.random() < self.lower_cover:
            pixels[int(side * random.uniform(0.55, 0.75)) :] = random.uniform(0, 255, 3).astype(np.float32)
        return _uint8(np.clip(pixels, 0, 255))


# leaves a face as it is (up to the identity warp)
NO_AUGMENTATION = Augmentation(
    far=0, blur=0, motion=0, jpeg=0, shift=0, rotation=0, zoom=0, mirror=0, grey=0, light=0, shade=0, noise=0,
    cover=0, lower_cover=0,
)  # fmt: skip


def motion_kernel(angle: float, length: int) -> FloatArray:
    """Return the (length, length) kernel of a motion of ``length`` px at ``angle`` degrees; sums to 1."""
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1
    matrix = cv2.getRotationMatrix2D(((length - 1) / 2, (length - 1) / 2), angle, 1)
    turned = np.asarray(cv2.warpAffine(kernel, matrix, (length, length)), np.float32)
    return turned / max(float(turned.sum()), 1e-6)


def _shade(side: int, random: np.random.Generator) -> FloatArray:
    """(S, S, 1) factors falling across the face in a random direction, from 1 down to 0.2…0.6."""
    angle = random.uniform(0, 2 * np.pi)
    ramp = np.linspace(-1, 1, side, dtype=np.float32)
    slope = np.clip(np.cos(angle) * ramp[None] + np.sin(angle) * ramp[:, None] + 0.5, 0, 1)
    darkest = random.uniform(0.2, 0.6)
    return np.asarray(darkest + (1 - darkest) * slope, np.float32)[:, :, None]


def _side_light(side: int, random: np.random.Generator) -> FloatArray:
    """(S, S, 1) factors: 1 to 1.3 on the lit side of a wavy border, 0.03 to 0.3 of that on the other."""
    angle = random.uniform(-0.6, 0.6) + (np.pi if random.random() < 0.5 else 0.0)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    wave = 0.15 * np.sin(random.uniform(1, 4) * y + random.uniform(0, 2 * np.pi))
    distance = np.cos(angle) * x + np.sin(angle) * y + random.uniform(-0.4, 0.5) + wave
    dark = random.uniform(0.03, 0.3)
    lit = dark + (1 - dark) / (1 + np.exp(-random.uniform(3, 30) * distance))
    return np.asarray(lit * random.uniform(1, 1.3), np.float32)[:, :, None]


def _uint8(image: NDArray[np.generic]) -> ImageArray:
    return np.asarray(image).astype(np.uint8, copy=False)

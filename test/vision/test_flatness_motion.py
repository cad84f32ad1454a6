"""Heads and pictures told apart by motion: a tilted portrait, a turning head, still ones, clips."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_recognition_node.backends import load_detector
from face_recognition_node.config import DetectorConfig, ModelsConfig
from face_recognition_node.media.sample import render
from face_recognition_node.media.sources import open_source
from face_recognition_node.vision.faces import Detection
from face_recognition_node.vision.flatness import FLAT, SOLID, UNVERIFIED, MotionEvidence

RATE_HZ = 12.5
PORTRAIT = 240


@pytest.fixture(scope="module")
def portrait(guest_bgr) -> np.ndarray:
    """Return a real face whose box is 150 of 240 pixels high, in the middle."""
    face = load_detector(ModelsConfig(), DetectorConfig()).detect(guest_bgr)[0]
    side = round(PORTRAIT / 150 * face.height)
    x, y = (float(value) for value in face.center_xy)
    cut = cv2.getRectSubPix(guest_bgr, (side, side), (x, y))
    return cv2.resize(cut, (PORTRAIT, PORTRAIT), interpolation=cv2.INTER_AREA)


def head_depth() -> np.ndarray:
    """Return how far a head stands out from the plane of its outline, pixels of the portrait."""
    y, x = (np.mgrid[0:PORTRAIT, 0:PORTRAIT].astype(np.float32) - PORTRAIT / 2) / 150
    skull = 0.45 * np.sqrt(np.clip(1 - (x / 0.6) ** 2 - (y / 0.75) ** 2, 0, None))
    nose = 0.12 * np.exp(-((x / 0.08) ** 2) - ((y - 0.08) / 0.14) ** 2)
    return np.asarray(150 * (skull + nose), np.float32)


def film(
    portrait: np.ndarray,
    depth: np.ndarray | None,
    degrees: float,
    height: float = 110.0,
    seconds: float = 3.0,
) -> Iterator[tuple[np.ndarray, Detection, float]]:
    """Yield frames of something that turns to both sides while it moves, nears and rolls, with its box."""
    rng = np.random.default_rng(1)
    v, u = np.mgrid[0:300, 0:400].astype(np.float32)
    for k in range(round(3 * RATE_HZ)):
        t = k / RATE_HZ
        yaw, roll = math.radians(degrees) * math.sin(2.5 * t), 0.1 * math.sin(1.3 * t)
        scale = height / 150 * (1 + 0.05 * math.sin(1.7 * t))
        x0, y0 = 200 + 15 * math.sin(1.1 * t), 150 + 8 * math.sin(0.9 * t)
        a, b = (u - x0) / scale, (v - y0) / scale
        a, b = a * math.cos(roll) + b * math.sin(roll), b * math.cos(roll) - a * math.sin(roll)
        x = a / math.cos(yaw)
        for _ in range(0 if depth is None else 4):
            z = cv2.remap(depth, x + PORTRAIT / 2, b + PORTRAIT / 2, cv2.INTER_LINEAR)
            x = (a - z * math.sin(yaw)) / math.cos(yaw)
        image = cv2.remap(
            portrait, x + PORTRAIT / 2, b + PORTRAIT / 2, cv2.INTER_LINEAR, borderValue=(120,) * 3
        )
        noisy = np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)
        middle = np.array([x0, y0]) + rng.normal(0, 1, 2)
        half = np.array([0.38, 0.5]) * 150 * scale
        box = np.concatenate([middle - half, middle + half])
        yield noisy, Detection(box.astype(np.float32), 0.9, np.zeros((5, 2), np.float32)), t


def verdicts(frames: Iterator[tuple[np.ndarray, Detection, float]]) -> set[str]:
    evidence = MotionEvidence()
    verdicts = set()
    for image, detection, stamp in frames:
        evidence.add(image, detection, stamp)
        verdicts.add(evidence.verdict)
    return verdicts


@pytest.mark.parametrize("degrees", [30, pytest.param(40, marks=pytest.mark.slow)])
def test_a_tilted_picture_is_flat(portrait: np.ndarray, degrees: float) -> None:
    assert verdicts(film(portrait, None, degrees)) == {UNVERIFIED, FLAT}


@pytest.mark.parametrize("degrees", [30, pytest.param(40, marks=pytest.mark.slow)])
def test_a_turning_head_is_solid(portrait: np.ndarray, degrees: float) -> None:
    assert verdicts(film(portrait, head_depth(), degrees)) == {UNVERIFIED, SOLID}


@pytest.mark.parametrize("depth", [None, head_depth()], ids=["picture", "head"])
def test_what_only_moves_nears_and_rolls_says_nothing(portrait: np.ndarray, depth: np.ndarray | None) -> None:
    assert verdicts(film(portrait, depth, 1.0)) == {UNVERIFIED}


@pytest.fixture(scope="module")
def see_the_wall() -> Callable[[float], tuple[np.ndarray, Detection]]:
    """Return what gives the sample's picture at a stamp, and the face in it; each is made once."""
    detector = load_detector(ModelsConfig(), DetectorConfig())

    @functools.cache
    def see(stamp: float) -> tuple[np.ndarray, Detection]:
        image = render(stamp)
        return image, detector.detect(image)[0]

    return see


@pytest.mark.parametrize("rate_hz", [5, *(pytest.param(rate, marks=pytest.mark.slow) for rate in (10, 30))])
def test_no_portrait_on_a_wall_is_solid(rate_hz: int, see_the_wall) -> None:
    evidence = MotionEvidence()
    for k in range(round(5.2 * rate_hz)):  # as long as the guest's portrait is alone in view
        evidence.add(*see_the_wall(k / rate_hz), k / rate_hz)
        assert evidence.verdict != SOLID


def test_small_faces_say_nothing(portrait: np.ndarray) -> None:
    assert verdicts(film(portrait, head_depth(), 30.0, height=50.0)) == {UNVERIFIED}


def test_a_gap_begins_anew(portrait: np.ndarray) -> None:
    frames = list(film(portrait, None, 40.0))[:6]
    slow = [(image, detection, 3.0 * stamp * RATE_HZ) for image, detection, stamp in frames]
    assert verdicts(iter(slow)) == {UNVERIFIED}


def test_no_head_of_the_clips_is_flat_and_who_turns_is_solid(clips: Path) -> None:
    detector = load_detector(ModelsConfig(), DetectorConfig())
    solid = set()
    for name in ("head-pose-face-detection-female.gif", "head-pose-face-detection-male.gif", "no.mkv"):
        source = open_source(str(clips / name))
        evidence = MotionEvidence()
        for k, frame in enumerate(source):
            if found := detector.detect(frame.image_bgr):
                evidence.add(frame.image_bgr, found[0], k / source.rate_hz)
                assert evidence.verdict != FLAT
        solid |= {name} if evidence.verdict == SOLID else set()
    assert {"head-pose-face-detection-female.gif", "no.mkv"} == solid

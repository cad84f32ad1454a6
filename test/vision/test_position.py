"""Where a face is: against a simulated camera that sees heads of all sizes, turned in all directions."""

from __future__ import annotations

import numpy as np
import pytest

from face_recognition_node.vision.faces import Detection, HeadPose, Intrinsics
from face_recognition_node.vision.pose import (
    EYES_M,
    HEAD_XYZ,
    estimate_pose,
    position_from_depth,
    position_from_size,
)

CAMERA = Intrinsics(600.0, 600.0, 320.0, 240.0)
FRONTAL = HeadPose(0.0, 0.0, 0.0)


def turned(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return the rotation of a head: pitch first, then yaw, then roll."""
    a, b, c = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def seen(place: np.ndarray, eyes_m: float, rotation: np.ndarray) -> np.ndarray:
    """Return the (5, 2) landmarks of a head whose middle is at ``place``, metres."""
    head = HEAD_XYZ * eyes_m / 2
    points = (head - head.mean(axis=0)) @ rotation.T + place
    return points[:, :2] / points[:, 2:] * 600.0 + (320.0, 240.0)


def detection(landmarks: np.ndarray) -> Detection:
    middle, size = landmarks.mean(axis=0), 1.3 * np.ptp(landmarks, axis=0).max()
    return Detection(np.concatenate([middle - size, middle + size]), 0.99, landmarks)


@pytest.mark.parametrize("depth", [0.5, 1.0, 3.0])
def test_an_average_adult_who_looks_ahead_is_where_they_are(depth: float) -> None:
    face = detection(seen(np.array([0.3, -0.1, depth]), EYES_M, np.eye(3)))
    position = position_from_size(face, FRONTAL, CAMERA)
    assert position is not None
    assert position.source == "size"
    assert position.xyz_m == pytest.approx([0.3, -0.1, depth], rel=0.05, abs=0.02)


def test_depth_is_surer_than_size() -> None:
    face = detection(seen(np.array([0.0, 0.0, 1.5]), EYES_M, np.eye(3)))
    by_depth, by_size = position_from_depth(1.5, face, CAMERA), position_from_size(face, FRONTAL, CAMERA)
    assert by_size is not None
    assert (by_depth.source, by_depth.xyz_m[2]) == ("depth", 1.5)
    assert by_depth.covariance_m2[2, 2] < 0.1 * by_size.covariance_m2[2, 2]
    for position in (by_depth, by_size):
        assert (np.linalg.eigvalsh(position.covariance_m2.astype(float)) > 0).all()


def test_an_error_of_depth_moves_the_face_along_the_ray() -> None:
    face = detection(seen(np.array([1.0, 0.0, 2.0]), EYES_M, np.eye(3)))
    position = position_from_size(face, FRONTAL, CAMERA)
    assert position is not None
    covariance = position.covariance_m2
    assert covariance[0, 2] / covariance[2, 2] == pytest.approx(0.5, rel=0.02)


def test_eyes_too_close_to_tell_give_no_position() -> None:
    face = Detection(np.array([0.0, 0.0, 9.0, 9.0]), 0.9, np.ones((5, 2)) * 4.0)
    assert position_from_size(face, FRONTAL, CAMERA) is None


def simulate(n: int, largest_yaw: float) -> tuple[float, float, float]:
    """Return median relative error, share within the 95 % interval, and median half width of it, relative.

    Adults of all sizes, 0.5 to 4 m away, heads turned and tilted; landmarks with the detector's noise, and
    the pose is the one that is estimated from them.
    """
    rng = np.random.default_rng(7)
    errors, widths = [], []
    for _ in range(n):
        depth = rng.uniform(0.5, 4.0)
        place = np.array([rng.uniform(-0.4, 0.4) * depth, rng.uniform(-0.3, 0.3) * depth, depth])
        yaw, pitch, roll = rng.uniform(-largest_yaw, largest_yaw), rng.normal(0, 8), rng.normal(0, 6)
        landmarks = seen(place, rng.normal(EYES_M, 0.0038), turned(yaw, pitch, roll))
        noise = np.hypot(0.3, 0.02 * 600.0 * EYES_M / depth)
        landmarks = (landmarks + rng.normal(0, noise, landmarks.shape)).astype(np.float32)
        position = position_from_size(detection(landmarks), estimate_pose(landmarks), CAMERA)
        assert position is not None
        errors.append((position.xyz_m[2] - depth) / depth)
        widths.append(1.96 * np.sqrt(position.covariance_m2[2, 2]) / depth)
    inside = np.abs(errors) <= np.array(widths)
    return float(np.median(np.abs(errors))), float(inside.mean()), float(np.median(widths))


@pytest.mark.parametrize("largest_yaw", [20.0, pytest.param(45.0, marks=pytest.mark.slow)])
def test_the_interval_holds_as_often_as_it_says(largest_yaw: float) -> None:
    error, share, width = simulate(2000, largest_yaw)
    print(f"yaw up to {largest_yaw:g}: median {error:.1%}, {share:.1%} within 95 % interval of ±{width:.1%}")
    assert error < 0.08
    assert 0.92 <= share <= 0.99

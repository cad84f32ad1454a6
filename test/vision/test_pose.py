"""The head pose from five landmarks: recovered from a turned head, signs, a slow reference, edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from face_recognition_node.common.errors import InputError
from face_recognition_node.vision.pose import HEAD_XYZ, estimate_pose, fit_heads

FRONTAL = HEAD_XYZ[:, :2] * 20 + (100, 80)


def turned(yaw: float, pitch: float, roll: float = 0.0, scale: float = 30.0) -> np.ndarray:
    """Project the head turned by degrees: yaw to the image's right, pitch up, roll clockwise."""
    turn = Rotation.from_euler("y", -yaw, degrees=True) * Rotation.from_euler("x", -pitch, degrees=True)
    flat = turn.apply(HEAD_XYZ)[:, :2]
    angle = np.radians(roll)
    return scale * flat @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) + 200


@given(yaw=st.floats(-60, 60), pitch=st.floats(-35, 35), scale=st.floats(3, 300), x=st.floats(-1e3, 1e3))
def test_angles_of_a_projected_head_are_recovered(yaw: float, pitch: float, scale: float, x: float) -> None:
    pose = estimate_pose((turned(yaw, pitch, scale=scale) + x).astype(np.float32))
    assert pose.yaw == pytest.approx(yaw, abs=0.5)
    assert pose.pitch == pytest.approx(pitch, abs=0.5)
    assert pose.roll == pytest.approx(0.0, abs=0.5)


def test_signs_are_those_of_head_pose() -> None:
    nose_right, nose_up, tilted = FRONTAL.copy(), FRONTAL.copy(), FRONTAL.copy()
    nose_right[2, 0] += 8
    nose_up[2, 1] -= 8
    tilted[1, 1] += 10  # the eye on the right of the image is lower: clockwise
    assert estimate_pose(nose_right).yaw > 10
    assert estimate_pose(nose_up).pitch > 10
    assert estimate_pose(tilted).roll > 10


@given(roll=st.floats(-179, 179), yaw=st.floats(-50, 50))
def test_turning_the_image_changes_the_roll_alone(roll: float, yaw: float) -> None:
    upright = fit_heads(turned(yaw, 8)[None])
    angle = np.radians(roll)
    spin = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    spun = fit_heads((turned(yaw, 8) @ spin)[None])
    assert_allclose((spun.yaw, spun.pitch), (upright.yaw, upright.pitch), atol=1e-3)
    difference = (spun.roll[0] - upright.roll[0] - roll + 180) % 360 - 180
    assert abs(difference) < 1e-3


def test_mirroring_the_image_negates_yaw_and_roll() -> None:
    points = turned(25, -10, 12)
    mirrored = (points * (-1, 1))[[1, 0, 2, 4, 3]]
    first, second = estimate_pose(points), estimate_pose(mirrored)
    assert_allclose(
        (second.yaw, second.pitch, second.roll), (-first.yaw, first.pitch, -first.roll), atol=1e-6
    )


def slow_residual(points: np.ndarray) -> float:
    """Fit scale and rotation with a general optimiser from several starts."""
    centred = points - points.mean(axis=0)
    centred /= np.sqrt((centred**2).sum() / 5)
    head = HEAD_XYZ - HEAD_XYZ.mean(axis=0)

    def error(values: np.ndarray) -> np.ndarray:
        return (centred - values[0] * Rotation.from_rotvec(values[1:]).apply(head)[:, :2]).ravel()

    starts = [np.array([0.8, 0.0, yaw, 0.0]) for yaw in (-0.7, 0.0, 0.7)]
    return min(float(np.sqrt((least_squares(error, s).fun ** 2).sum() / 5)) for s in starts)


def test_the_fit_is_as_close_as_a_general_optimiser_comes(rng: np.random.Generator) -> None:
    for yaw in (-40, -15, 0, 20, 45):
        points = turned(yaw, rng.uniform(-15, 15)) + rng.normal(0, 1.0, (5, 2))
        assert fit_heads(points[None]).residual[0] <= slow_residual(points) + 2e-3


def test_many_faces_at_once_are_the_same_as_one_by_one(rng: np.random.Generator) -> None:
    faces = np.stack([turned(yaw, 5) + rng.normal(0, 1, (5, 2)) for yaw in range(-40, 50, 10)])
    together = fit_heads(faces)
    for k, points in enumerate(faces):
        alone = estimate_pose(points)
        assert_allclose((alone.yaw, alone.pitch, alone.roll), [
            together.yaw[k], together.pitch[k], together.roll[k]
        ], atol=1e-9)  # fmt: skip
    assert len(together.poses()) == len(faces)


def test_no_faces_and_points_in_one_place() -> None:
    assert len(fit_heads(np.zeros((0, 5, 2)))) == 0
    assert fit_heads(np.zeros((0, 5, 2))).poses() == []
    degenerate = fit_heads(np.full((1, 5, 2), 7.0))
    assert (degenerate.yaw[0], degenerate.pitch[0], degenerate.residual[0]) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.zeros((1, 4, 2)), np.full((1, 5, 2), np.nan)])
def test_what_is_no_landmarks_is_refused(points: np.ndarray) -> None:
    with pytest.raises(InputError, match="landmarks_xy: expected"):
        fit_heads(points)


def test_on_video_the_angle_follows_the_turning_head(clips: Path) -> None:
    from face_recognition_node.assembly import load_models
    from face_recognition_node.config import Config
    from face_recognition_node.media.sources import open_source

    detector = load_models(Config()).detector
    yaws = []
    for seen in open_source(str(clips / "head-pose-face-detection-female.gif")):
        yaws.append(estimate_pose(detector.detect(seen.image_bgr)[0].landmarks_xy).yaw)
    # Seen in the pictures: she looks to the left edge of the image, turns to the right edge, and back.
    assert max(yaws[:5]) < -40
    assert min(yaws[12:16]) > 25
    assert yaws[-1] < -15

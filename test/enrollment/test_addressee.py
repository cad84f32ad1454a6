"""Whom the robot talks to: near, frontal and central, and not somebody else with every frame."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from face_world import FaceWorld, face, frame

from face_recognition_node.enrollment.addressee import PATIENCE_S, AddresseeSelector, MouthMotion
from face_recognition_node.vision.faces import Detection, HeadPose, IdentifiedFace

RATE = 10.0


def somebody(
    track_id: int,
    size: float = 100.0,
    x: float = 320.0,
    yaw: float = 0.0,
    landmarks: np.ndarray | None = None,
) -> IdentifiedFace:
    view = FaceWorld().view(track_id)
    half = size / 2
    box = np.array([x - half, 240 - half, x + half, 240 + half], np.float32)
    detection = Detection(box, 0.99, view.detection.landmarks_xy if landmarks is None else landmarks)
    quality = replace(view.quality, frontality=1.0, landmarks=1.0)
    return face(replace(view, detection=detection, pose=HeadPose(yaw, 0.0, 0.0), quality=quality), track_id)


class Scene:
    def __init__(self) -> None:
        self.selector, self.stamp = AddresseeSelector(), 0.0

    def show(self, seconds: float, *faces: IdentifiedFace) -> list[int | None]:
        chosen = []
        for _ in range(round(seconds * RATE)):
            self.stamp += 1 / RATE
            chosen.append(self.selector.choose(frame(self.stamp, faces)))
        return chosen


@pytest.fixture
def scene() -> Scene:
    return Scene()


STILL = np.array([[0.0, 0.0], [40.0, 0.0], [20.0, 22.0], [5.0, 45.0], [35.0, 45.0]], np.float32)
"""Landmarks with 40 pixels between the eyes."""


def landmarks(stamp: float, jaw: float = 0.0, nod: float = 0.0, rng: Any = None) -> np.ndarray:
    """Return landmarks of somebody who speaks or nods by so many pixels; the detector trembles."""
    points = STILL.copy()
    points[3:, 1] += jaw * np.sin(2 * np.pi * 3.1 * stamp)
    points[2:, 1] += nod * np.sin(2 * np.pi * 1.3 * stamp) * np.array([1.0, 1.6, 1.6])
    return points if rng is None else points + rng.normal(0, 0.3, (5, 2)).astype(np.float32)


@pytest.mark.parametrize("turn", [0.0, 0.5])
@pytest.mark.parametrize("rate", [12.0, 30.0])
def test_a_mouth_moves_when_it_speaks_and_not_with_the_head(turn: float, rate: float) -> None:
    rng = np.random.default_rng(4)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])

    def share(jaw: float, nod: float, walk: float) -> float:
        mouth, stamps = MouthMotion(), np.arange(0, 6, 1 / rate)
        seen = [
            mouth.observe(t, landmarks(t, jaw, nod, rng) @ rotation.T * (1 + 0.1 * t) + walk * t)
            for t in stamps
        ]
        return float(np.mean(seen[len(seen) // 4 :]))

    assert share(0.0, 0.0, 30.0) == 0.0  # silent, walking up
    assert share(0.0, 3.0, 0.0) == 0.0  # silent, nodding
    assert share(3.5, 0.0, 30.0) > 0.9  # speaking, walking up


def test_a_mouth_is_still_again_after_a_pause() -> None:
    mouth, stamps = MouthMotion(), np.arange(0, 4, 1 / 20)
    seen = [mouth.observe(t, landmarks(t, 3.5 if t < 2 else 0.0)) for t in stamps]
    assert seen[39]
    assert not any(seen[60:])
    assert not MouthMotion().observe(0.0, np.zeros((5, 2), np.float32)), "landmarks on one point"


def test_of_two_alike_the_one_who_speaks_is_addressed(scene: Scene) -> None:
    def both(seconds: float, first: float, second: float, size: float = 100.0) -> list[int | None]:
        chosen = []
        for _ in range(round(seconds * RATE)):
            at = scene.stamp
            one = somebody(1, size, landmarks=landmarks(at, first))
            other = somebody(2, landmarks=landmarks(at, second))
            chosen += scene.show(1 / RATE, one, other)
        return chosen

    assert set(both(2, 0.0, 0.0)) == {1}
    assert both(4, 0.0, 3.5)[-1] == 2
    assert set(both(2, 0.0, 0.0)) == {2}, "nobody speaks: no reason to turn back"
    assert both(6, 0.0, 3.5, 240.0)[-1] == 1, "who stands in front is addressed, no matter who speaks behind"


def test_nobody_and_then_the_nearer_one(scene: Scene) -> None:
    assert scene.show(1, *()) == [None] * 10
    assert scene.show(1, somebody(1, 60), somebody(2, 120))[-1] == 2


def test_the_central_one_of_two_alike(scene: Scene) -> None:
    assert scene.show(1, somebody(1, x=80.0), somebody(2, x=330.0))[-1] == 2


def test_who_looks_away_or_is_far_is_not_addressed(scene: Scene) -> None:
    assert scene.show(1, somebody(1, 200, yaw=60.0), somebody(2, 20)) == [None] * 10


def test_two_alike_do_not_take_turns(scene: Scene) -> None:
    rng = np.random.default_rng(3)
    chosen = [
        scene.show(0.1, somebody(1, 100 * rng.uniform(0.9, 1.1)), somebody(2, 100 * rng.uniform(0.9, 1.1)))[0]
        for _ in range(100)
    ]
    assert len(set(chosen)) == 1


def test_a_glance_aside_is_forgiven_and_turning_away_is_not(scene: Scene) -> None:
    scene.show(1, somebody(1), somebody(2, 70))
    assert scene.show(0.4, somebody(1, yaw=70.0), somebody(2, 70)) == [1] * 4
    assert scene.show(1, somebody(1), somebody(2, 70)) == [1] * 10
    turned = scene.show(2, somebody(1, yaw=70.0), somebody(2, 70))
    assert turned[-1] == 2
    assert turned.count(1) == pytest.approx(PATIENCE_S * RATE, abs=1)


def test_who_steps_in_front_takes_over_after_a_moment(scene: Scene) -> None:
    scene.show(1, somebody(1, 70))
    taken = scene.show(3, somebody(1, 70), somebody(2, 200))
    assert (taken[0], taken[-1]) == (1, 2)
    assert taken == sorted(taken), "once"


def test_who_leaves_is_let_go(scene: Scene) -> None:
    scene.show(1, somebody(1))
    left = scene.show(2)
    assert (left[0], left[-1]) == (1, None)

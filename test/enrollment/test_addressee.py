"""Whom the robot talks to: near, frontal and central, and not somebody else with every frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from face_world import FaceWorld, face, frame

from face_recognition_node.enrollment.addressee import PATIENCE_S, AddresseeSelector
from face_recognition_node.vision.faces import Detection, HeadPose, IdentifiedFace

RATE = 10.0


def somebody(track_id: int, size: float = 100.0, x: float = 320.0, yaw: float = 0.0) -> IdentifiedFace:
    view = FaceWorld().view(track_id)
    half = size / 2
    box = np.array([x - half, 240 - half, x + half, 240 + half], np.float32)
    detection = Detection(box, 0.99, view.detection.landmarks_xy)
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

"""Made-up enrollments for the tests: goals, frames of one person, and how refusals are checked."""

from __future__ import annotations

import numpy as np
from face_world import FaceWorld, face, frame, made_up_calibration, stamps

from face_recognition_node.enrollment.session import (
    EnrollmentGoal,
    EnrollmentResult,
    EnrollmentSession,
    Outcome,
)
from face_recognition_node.gallery.gallery import Gallery
from face_recognition_node.vision.faces import RecognitionResult

CALIBRATION = made_up_calibration()


def session(gallery: Gallery, **goal: object) -> EnrollmentSession:
    config = goal.pop("config", None)
    return EnrollmentSession(EnrollmentGoal(**{"name": "Anna", **goal}), gallery, CALIBRATION, config)  # type: ignore[arg-type]


def play(running: EnrollmentSession, frames: list[RecognitionResult]) -> float:
    """Show frames until the session has ended; return the stamp of the last one shown."""
    for result in frames:
        running.observe(result)
        if running.finished:
            break
    return result.stamp


def turning(
    world: FaceWorld, seconds: float = 3.0, start: float = 0.0, **view: object
) -> list[RecognitionResult]:
    """Frames of a person who looks from one side to the other and back."""
    return [
        frame(t, [face(world.view(t, yaw=40 * float(np.sin(2.5 * (t - start))), **view))])  # type: ignore[arg-type]
        for t in stamps(seconds, start)
    ]


def still(world: FaceWorld, seconds: float, start: float = 0.0, **view: object) -> list[RecognitionResult]:
    return [frame(t, [face(world.view(t, **view))]) for t in stamps(seconds, start)]  # type: ignore[arg-type]


def refused(running: EnrollmentSession, gallery: Gallery, outcome: Outcome) -> EnrollmentResult:
    """Return the result of a session that ended like this, after checking that nothing at all was stored."""
    result = running.result()
    assert result.outcome is outcome, result.message
    assert not result.success
    assert result.person_id is None
    assert result.views_kept == 0
    assert result.message.endswith("nothing was stored")
    assert not gallery.snapshot().persons
    return result

"""Enrollments from recorded video, with the real networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from face_recognition_node.enrollment.session import (
    EnrollmentConfig,
    EnrollmentGoal,
    EnrollmentSession,
    MostCentral,
    Region,
)

Recording = Callable[..., EnrollmentSession]


@pytest.fixture(scope="module")
def recording() -> Recording:
    """Enroll from a clip with the real networks."""
    from face_recognition_node.assembly import Pipeline, load_models
    from face_recognition_node.config import Config
    from face_recognition_node.media.sources import open_source

    models = load_models(Config())

    def run(path: Path, name: str, selection: object = None, limit_s: float = 3.0) -> EnrollmentSession:
        pipeline = Pipeline.open(Config(), models=models)
        goal = EnrollmentGoal(name, selection=selection or MostCentral())  # type: ignore[arg-type]
        running = EnrollmentSession(goal, pipeline.gallery, models.calibration)
        for seen in open_source(str(path)).between(0.0, limit_s):
            running.observe(pipeline.process(seen, embed_all=True))
            if running.finished:
                break
        running.finish()
        pipeline.close()
        return running

    return run


def test_on_video_a_turning_head_is_done_within_three_seconds(clips: Path, recording: Recording) -> None:
    running = recording(clips / "head-pose-face-detection-female.gif", "W")
    result = running.result()
    assert result.success, result.message
    assert result.coverage.left
    assert result.coverage.right
    assert result.views_kept == 6
    assert max(abs(view.pose.yaw) for view in running.views) <= EnrollmentConfig().maximum_yaw


def test_on_video_of_two_people_no_view_is_the_other_ones(clips: Path, recording: Recording) -> None:
    both = clips / "head-pose-face-detection-female-and-male.gif"
    woman = recording(both, "W", Region((0.0, 0.0, 0.5, 1.0)), 5.0)
    man = recording(both, "M", Region((0.5, 0.0, 1.0, 1.0)), 5.0)
    alone = recording(clips / "head-pose-face-detection-male.gif", "M", None, 5.0)
    assert woman.result().success
    assert man.result().success
    hers, his, his_alone = (np.stack([view.embedding for view in s.views]) for s in (woman, man, alone))  # type: ignore[misc]
    assert (his @ his_alone.T).max(axis=1).min() > 0.45
    for mine, foreign in ((hers, his_alone), (hers, his), (his, hers)):
        among = mine @ mine.T - 2 * np.eye(len(mine))
        assert (among.max(axis=1) > (mine @ foreign.T).max(axis=1) + 0.3).all()
    assert all(view.detection.center_xy[0] < 240 for view in woman.views)
    assert all(view.detection.center_xy[0] > 240 for view in man.views)

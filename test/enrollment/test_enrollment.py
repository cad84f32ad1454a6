"""Whole enrollments: each way to end is reached, told truthfully and in time; nothing foreign is stored."""

from __future__ import annotations

import numpy as np
import pytest
from enrollment_plays import play, refused, session, still, turning
from face_world import FaceWorld, face, frame, stamps

from face_recognition_node.common.errors import EnrollmentError, GalleryUnavailableError
from face_recognition_node.enrollment.session import (
    Outcome,
    Rejection,
    Track,
)
from face_recognition_node.gallery.gallery import Gallery, Provenance
from face_recognition_node.vision.faces import RecognitionResult

# Success.


def test_a_turning_head_is_enrolled_within_three_seconds(gallery: Gallery, world: FaceWorld) -> None:
    running = session(gallery)
    ended = play(running, turning(world, 4.0))
    result = running.result()
    assert result.success, result.message
    assert ended <= 3.0
    assert result.coverage.left
    assert result.coverage.right
    assert result.coverage.front
    assert result.self_consistency is not None
    assert result.self_consistency > 0.6
    assert result.nearest is None
    templates = gallery.snapshot().templates_of(result.person_id or "")
    assert len(templates) == result.views_kept == 6
    assert {template.provenance for template in templates} == {Provenance.ENROLLED}
    assert {template.precision for template in templates} == {"fp16"}
    assert result.gallery_version == gallery.snapshot().version
    assert gallery.snapshot().persons[result.person_id or ""].name == "Anna"


def test_a_guest_who_holds_still_is_asked_to_turn_and_enrolled_all_the_same(gallery: Gallery) -> None:
    running = session(gallery)
    hints = set()
    for result in still(FaceWorld(scatter=0.1), 6.0):
        hints.add(running.observe(result).hint)
        if running.finished:
            break
    assert running.result().success
    assert result.stamp <= 5.0
    assert any("turn your head" in hint for hint in hints)
    assert running.result().coverage.front
    assert not running.result().coverage.left


def test_feedback_counts_what_was_kept_and_why_not(gallery: Gallery, world: FaceWorld) -> None:
    running = session(gallery)
    for result in still(world, 0.4):
        feedback = running.observe(result)
    before = feedback.views_kept
    feedback = running.observe(frame(0.5, [face(world.view(0.5, sharpness=0.1))]))
    assert feedback.views_kept == before
    assert feedback.rejections[Rejection.BLURRED] == 1
    assert feedback.last_reason is Rejection.BLURRED
    assert not feedback.last_view_accepted
    assert feedback.track_id == 1
    assert feedback.elapsed_s == pytest.approx(0.5)
    feedback = running.observe(frame(0.6, [face(world.view(0.6, yaw=35))]))
    assert feedback.last_view_accepted
    assert feedback.last_reason is None
    assert feedback.coverage.right


def test_a_single_picture_is_enough_if_the_goal_says_so(gallery: Gallery, world: FaceWorld) -> None:
    running = session(gallery, minimum_views=1)
    running.observe(frame(0.0, [face(world.view(0.0))]))
    running.finish()
    running = session(gallery, minimum_views=1, selection=Track(1), name="van Dyck")
    running.observe(frame(0.0, [face(world.view(0.0, 1))]))
    running.finish()
    assert running.result().success
    assert running.result().message.startswith("stored van Dyck with 1"), "the page begins it with a capital"
    assert running.result().views_kept == 1
    assert running.result().self_consistency is None


def test_a_camera_that_shows_a_new_track_number_does_not_lose_the_person(
    gallery: Gallery, world: FaceWorld
) -> None:
    running = session(gallery)
    play(running, turning(world, 0.8))
    later = [frame(t, [face(world.view(t, yaw=40 * float(np.sin(3 * t))), 2)]) for t in stamps(3.0, 1.2)]
    play(running, later)
    assert running.result().success
    assert running.feedback().track_id == 2


# Ends without success: each within three seconds of its cause, with nothing stored.


def test_no_face(gallery: Gallery) -> None:
    running = session(gallery)
    ended = play(running, [frame(t) for t in stamps(10.0)])
    assert ended <= 3.0
    assert "no face" in refused(running, gallery, Outcome.NO_FACE).message


def test_two_equal_faces(gallery: Gallery, world: FaceWorld) -> None:
    running = session(gallery)
    both = [
        frame(t, [face(world.view(t, 0, center=(220, 240)), 1), face(world.view(t, 1, center=(420, 240)), 2)])
        for t in stamps(10.0)
    ]
    assert "one person" in running.observe(both[0]).hint
    assert play(running, both[1:]) <= 3.0
    refused(running, gallery, Outcome.AMBIGUOUS_FACE)


def test_a_back_turned_half_way(gallery: Gallery) -> None:
    running = session(gallery)
    play(running, still(FaceWorld(scatter=0.0), 0.5))
    assert 0 < len(running.views) < 3
    ended = play(running, [frame(t) for t in stamps(9.0, 0.5)])
    assert ended <= 0.5 + 3.0
    assert "left" in refused(running, gallery, Outcome.PERSON_LEFT).message


def test_a_person_who_leaves_after_enough_views_is_stored(gallery: Gallery, world: FaceWorld) -> None:
    running = session(gallery)
    play(running, still(world, 1.3))
    assert len(running.views) >= 3
    assert not running.finished
    play(running, [frame(t) for t in stamps(4.0, 1.3)])
    assert running.result().success


def test_no_such_track(gallery: Gallery, world: FaceWorld) -> None:
    running = session(gallery, selection=Track(5))
    assert play(running, still(world, 9.0)) <= 3.0
    assert "track 5" in refused(running, gallery, Outcome.NO_SUCH_TRACK).message


def test_no_such_person(gallery: Gallery) -> None:
    running = session(gallery, person_id="p-nobody")
    assert running.finished
    assert "p-nobody" in refused(running, gallery, Outcome.NO_SUCH_PERSON).message


def test_nothing_but_bad_views_until_the_time_is_up(gallery: Gallery, world: FaceWorld) -> None:
    running = session(gallery, timeout_s=4.0)
    ended = play(running, still(world, 10.0, size=24.0))
    assert ended == pytest.approx(4.0, abs=0.11)
    result = refused(running, gallery, Outcome.TOO_FEW_VIEWS)
    assert "too small (" in result.message
    assert result.rejections[Rejection.TOO_SMALL] > 30
    assert "closer" in [running.feedback().hint, *_hints(gallery, still(world, 3.0, size=24.0))][-1]


def _hints(gallery: Gallery, frames: list[RecognitionResult]) -> list[str]:
    running = session(gallery)
    return [running.observe(result).hint for result in frames]


def test_cancel(gallery: Gallery, world: FaceWorld) -> None:
    running = session(gallery)
    play(running, turning(world, 0.6))
    running.cancel()
    refused(running, gallery, Outcome.CANCELED)
    before = running.result()
    play(running, turning(world, 3.0, 0.6))
    running.cancel()
    running.finish()
    assert running.result() is before
    assert not gallery.snapshot().persons


def test_images_that_stop_coming(gallery: Gallery, world: FaceWorld) -> None:
    running = session(gallery)
    play(running, still(FaceWorld(scatter=0.0), 0.4))
    running.tick(1.0)
    assert not running.finished
    running.tick(2.6)
    refused(running, gallery, Outcome.NO_IMAGES)
    never = session(gallery)
    never.tick(100.0)
    assert not never.finished
    never.tick(102.1)
    refused(never, gallery, Outcome.NO_IMAGES)


def test_time_that_is_set_back_ends_it(gallery: Gallery, world: FaceWorld) -> None:
    running = session(gallery)
    play(running, turning(world, 0.6, 100.0))
    running.observe(still(world, 0.1, 100.3)[0])
    assert not running.finished, "a little late is not set back"
    running.observe(still(world, 0.1, 40.0)[0])
    assert "set back by 60" in refused(running, gallery, Outcome.NO_IMAGES).message


def test_slow_images_lose_none_of_their_views(gallery: Gallery, world: FaceWorld) -> None:
    """Simulated time may run slower than the clock by which silence is told."""
    running = session(gallery)
    for result in turning(world, 4.0):
        running.tick(result.stamp + 0.4)
        running.observe(result)
    assert running.result().success
    assert running.result().views_kept == 6


def test_asking_too_early(gallery: Gallery) -> None:
    with pytest.raises(EnrollmentError, match="not ended"):
        session(gallery).result()


def test_a_gallery_that_cannot_be_written(
    gallery: Gallery, world: FaceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise GalleryUnavailableError("the disk is full")

    monkeypatch.setattr(gallery, "enroll", full)
    running = session(gallery)
    play(running, turning(world, 4.0))
    assert "the disk is full" in refused(running, gallery, Outcome.NOT_STORED).message

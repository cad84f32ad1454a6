"""Whole enrolments: each way to end is reached, told truthfully and in time; nothing foreign is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from face_world import FaceWorld, empty_gallery, face, frame, made_up_calibration, stamps, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from face_recognition_node.core.enrollment import (
    EnrollmentConfig,
    EnrollmentGoal,
    EnrollmentResult,
    EnrollmentSession,
    MostCentral,
    Outcome,
    Region,
    Rejection,
    Track,
)
from face_recognition_node.core.enrollment_desk import EnrollmentDesk
from face_recognition_node.core.errors import EnrollmentError, GalleryUnavailableError
from face_recognition_node.core.faces import IdentifiedFace, RecognitionResult
from face_recognition_node.core.gallery import Gallery, Provenance

CALIBRATION = made_up_calibration()


@pytest.fixture
def gallery() -> Iterator[Gallery]:
    with empty_gallery() as opened:
        yield opened


@pytest.fixture
def world() -> FaceWorld:
    return FaceWorld()


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
    running = session(gallery, minimum_views=1, selection=Track(1), name="Bea")
    running.observe(frame(0.0, [face(world.view(0.0, 1))]))
    running.finish()
    assert running.result().success
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
    assert "too_small" in result.message
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


def test_asking_too_early(gallery: Gallery) -> None:
    with pytest.raises(EnrollmentError, match="not ended"):
        session(gallery).result()


def test_a_gallery_that_cannot_be_written(
    gallery: Gallery, world: FaceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise GalleryUnavailableError("the disk is full")

    monkeypatch.setattr(gallery, "add_person", full)
    running = session(gallery)
    play(running, turning(world, 4.0))
    assert "the disk is full" in refused(running, gallery, Outcome.NOT_STORED).message


# Somebody else.


def kept_person(running: EnrollmentSession, world: FaceWorld, others: int = 8) -> set[int]:
    """Return whose faces the kept views show."""
    axes = np.stack([world.axis(k) for k in range(others)])
    return {int(np.argmax(axes @ view.embedding)) for view in running.views if view.embedding is not None}


def test_somebody_who_steps_in_front_ends_it(gallery: Gallery, world: FaceWorld) -> None:
    running = session(gallery)
    play(running, turning(world, 0.6))
    # The tracker is fooled: same track, same place, another face.
    ended = play(running, turning(world, 6.0, 0.6, person=1))
    assert ended <= 0.6 + 3.0
    result = refused(running, gallery, Outcome.PERSON_CHANGED)
    assert result.rejections[Rejection.DIFFERENT_PERSON] >= 3
    assert kept_person(running, world) == {0}


def test_somebody_who_passes_by_leaves_no_view(gallery: Gallery, world: FaceWorld) -> None:
    running = session(gallery)
    play(running, turning(world, 0.6))
    play(running, turning(world, 0.5, 0.6, person=1))
    play(running, turning(world, 4.0, 1.1))
    assert running.result().success
    assert running.result().rejections[Rejection.DIFFERENT_PERSON] >= 3
    assert kept_person(running, world) == {0}
    stored = gallery.snapshot().templates_of(running.result().person_id or "")
    assert all(float(template.embedding @ world.axis(1)) < 0.5 for template in stored)


def two_people(world: FaceWorld, t: float, swapped: bool = False) -> list[IdentifiedFace]:
    """Person 0 on the left, person 1 on the right, both turning; ``swapped`` fools the tracker."""
    yaw = 40 * float(np.sin(2.5 * t))
    first, second = (2, 1) if swapped else (1, 2)
    return [
        face(world.view(t, 0, center=(180, 240), yaw=yaw), first),
        face(world.view(t, 1, center=(460, 240), yaw=-yaw), second),
    ]


@pytest.mark.parametrize("who", [0, 1])
def test_of_two_people_each_is_enrolled_by_region_without_a_foreign_view(gallery: Gallery, who: int) -> None:
    world = FaceWorld(seed=who)
    running = session(gallery, selection=Region((0.5 * who, 0.0, 0.5 + 0.5 * who, 1.0)))
    play(running, [frame(t, two_people(world, t)) for t in stamps(5.0)])
    assert running.result().success
    assert kept_person(running, world) == {who}


def test_a_swap_of_two_visible_people_is_noticed(gallery: Gallery, world: FaceWorld) -> None:
    running = session(gallery, selection=Track(1))
    play(running, [frame(t, two_people(world, t)) for t in stamps(0.6)])
    ended = play(running, [frame(t, two_people(world, t, swapped=True)) for t in stamps(6.0, 0.6)])
    refused(running, gallery, Outcome.PERSON_CHANGED)
    assert ended <= 3.6
    assert kept_person(running, world) == {0}


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 12)), min_size=1, max_size=8), st.integers(0, 9))
def test_whatever_happens_the_templates_are_of_one_person(segments: list[tuple[int, int]], seed: int) -> None:
    """Any sequence of faces in one track: of the views that are stored, none is of a second person."""
    world, t = FaceWorld(seed=seed), 0.0
    with empty_gallery() as gallery:
        running = session(gallery)
        for person, length in segments:
            frames = turning(world, length / 10, t, person=person)
            play(running, frames)
            t = frames[-1].stamp + 0.1
        running.finish()
        assert len(kept_person(running, world)) <= 1
        persons = gallery.snapshot().persons
        assert len(persons) == int(running.result().success)
        for person_id in persons:
            axes = np.stack([world.axis(k) for k in range(3)])
            shown = {int(np.argmax(axes @ t.embedding)) for t in gallery.snapshot().templates_of(person_id)}
            assert len(shown) == 1


def test_an_odd_view_does_not_survive_the_check_of_all_together(gallery: Gallery, world: FaceWorld) -> None:
    """The credit for a box that hardly moved may let a lookalike's view in; it is dropped at the end."""
    running = session(gallery, wanted_views=6)
    play(running, turning(world, 0.5))
    assert len(running.views) == 5
    lookalike = unit(world.axis(0) * np.float32(0.25) + world.axis(1) * np.float32(0.97))
    running.observe(frame(0.5, [face(world.view(0.5, yaw=-40, embedding=lookalike))]))
    result = running.result()
    assert result.success
    assert result.views_kept == 5
    assert result.rejections[Rejection.DIFFERENT_PERSON] == 1
    stored = gallery.snapshot().templates_of(result.person_id or "")
    assert all(float(template.embedding @ world.axis(1)) < 0.6 for template in stored)


# Known already, strangers, the same name.


def test_a_warning_names_who_is_known_already(gallery: Gallery, world: FaceWorld) -> None:
    known = gallery.add_person("Bea", world.templates(0))
    gallery.add_person("Carl", world.templates(3))
    running = session(gallery)
    warned = []
    for result in turning(world, 4.0):
        feedback = running.observe(result)
        warned.append(feedback.known)
        if running.finished:
            break
    assert warned[-1] is not None
    assert (warned[-1].person_id, warned[-1].name) == (known.person_id, "Bea")
    assert warned[-1].probability > 0.9
    result_ = running.result()
    assert result_.success
    assert result_.person_id != known.person_id
    assert f"looks like Bea ({warned[-1].probability:.2f})" in result_.message
    assert result_.nearest is not None
    assert result_.nearest.person_id == known.person_id


def test_the_nearest_other_person_is_told_without_a_warning(gallery: Gallery, world: FaceWorld) -> None:
    gallery.add_person("Bea", world.templates(1))
    running = session(gallery)
    play(running, turning(world, 4.0))
    result = running.result()
    assert result.success
    assert result.known is None
    assert result.nearest is not None
    assert result.nearest.name == "Bea"
    assert result.nearest.similarity < 0.5


def test_views_are_added_to_the_person_of_the_goal(gallery: Gallery, world: FaceWorld) -> None:
    anna = gallery.add_person("Anna", world.templates(0))
    running = session(gallery, person_id=anna.person_id)
    play(running, turning(world, 4.0))
    assert running.result().success
    assert running.result().person_id == anna.person_id
    assert running.result().known is None, "she herself is no warning"
    assert gallery.snapshot().persons[anna.person_id].n_templates == 4 + 6
    assert len(gallery.snapshot().persons) == 1


def test_views_of_somebody_else_are_not_added_to_a_person(gallery: Gallery, world: FaceWorld) -> None:
    bea = gallery.add_person("Bea", world.templates(1))
    anna = gallery.add_person("Anna", world.templates(0))
    running = session(gallery, person_id=bea.person_id)
    version = gallery.snapshot().version
    assert play(running, turning(world, 4.0)) <= 3.0
    result = running.result()
    assert result.outcome is Outcome.INCONSISTENT
    assert "do not look like Bea" in result.message
    assert "looks like Anna" in result.message
    assert gallery.snapshot().version == version
    assert gallery.snapshot().persons[anna.person_id].n_templates == 4


def test_a_stranger_met_before_keeps_the_id_and_gets_the_name(gallery: Gallery, world: FaceWorld) -> None:
    stranger = gallery.add_person("", world.templates(0), is_stranger=True)
    other = gallery.add_person("", world.templates(1), is_stranger=True)
    running = session(gallery)
    play(running, turning(world, 4.0))
    result = running.result()
    assert result.success
    assert result.person_id == stranger.person_id
    assert stranger.person_id in result.message
    person = gallery.snapshot().persons[stranger.person_id]
    assert (person.name, person.is_stranger) == ("Anna", False)
    assert person.n_templates == 4 + 6
    assert gallery.snapshot().persons[other.person_id].is_stranger
    assert result.nearest is not None
    assert result.nearest.person_id == other.person_id


def test_one_person_taken_for_two_strangers_becomes_one(gallery: Gallery, world: FaceWorld) -> None:
    ids = {gallery.add_person("", world.templates(0), is_stranger=True).person_id for _ in range(2)}
    running = session(gallery)
    play(running, turning(world, 4.0))
    assert running.result().person_id in ids
    assert len(gallery.snapshot().persons) == 1


def test_a_face_without_a_name_is_remembered(gallery: Gallery, world: FaceWorld) -> None:
    running = session(gallery, name="")
    play(running, turning(world, 4.0))
    assert running.result().success
    person = gallery.snapshot().persons[running.result().person_id or ""]
    assert person.is_stranger
    assert person.n_enrolled == 6
    named = gallery.rename(person.person_id, "Anna")
    assert (named.person_id, named.is_stranger) == (person.person_id, False)
    again = session(gallery, name="")
    play(again, turning(FaceWorld(seed=3), 4.0, person=1))
    more = session(gallery, name=" ")
    play(more, turning(FaceWorld(seed=4), 4.0, person=1))
    assert more.result().person_id == again.result().person_id


def test_two_people_of_one_name_live_side_by_side(gallery: Gallery, world: FaceWorld) -> None:
    first = gallery.add_person("Anna", world.templates(1))
    running = session(gallery)
    play(running, turning(world, 4.0))
    assert running.result().success
    assert running.result().person_id != first.person_id
    assert "of that name" in running.result().message
    assert sorted(person.name for person in gallery.snapshot().persons.values()) == ["Anna", "Anna"]


def test_the_same_name_and_face_is_the_same_person(gallery: Gallery, world: FaceWorld) -> None:
    first = gallery.add_person("anna", world.templates(0))
    running = session(gallery, name="Anna ")
    play(running, turning(world, 4.0))
    assert running.result().person_id == first.person_id
    assert len(gallery.snapshot().persons) == 1


def test_a_second_goal_is_refused_and_the_first_goes_on(gallery: Gallery, world: FaceWorld) -> None:
    desk = EnrollmentDesk(gallery, CALIBRATION)
    first = desk.begin(EnrollmentGoal("Anna"))
    play(first, turning(world, 0.5))
    with pytest.raises(EnrollmentError, match="running") as caught:
        desk.begin(EnrollmentGoal("Bea"))
    assert caught.value.reason == Outcome.BUSY.value
    play(first, turning(world, 4.0, 0.5))
    assert first.result().success
    assert desk.current is None
    second = desk.begin(EnrollmentGoal("Bea"))
    second.cancel()
    assert desk.begin(EnrollmentGoal("Carl")) is desk.current


# Real people.

Recording = Callable[..., EnrollmentSession]


@pytest.fixture(scope="module")
def recording() -> Recording:
    """Enroll from a clip with the real networks."""
    from face_recognition_node.assembly import build_recognizer, load_models
    from face_recognition_node.core.config import Config
    from face_recognition_node.media.sources import open_source

    models = load_models(Config())

    def run(path: Path, name: str, selection: object = None, limit_s: float = 3.0) -> EnrollmentSession:
        recognizer, gallery, _ = build_recognizer(Config(), models=models)
        recognizer.embed_every_face = True
        goal = EnrollmentGoal(name, selection=selection or MostCentral())  # type: ignore[arg-type]
        running = EnrollmentSession(goal, gallery, models.calibration)
        for seen in open_source(str(path)).between(0.0, limit_s):
            running.observe(recognizer.process(seen))
            if running.finished:
                break
        running.finish()
        recognizer.close()
        gallery.close()
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

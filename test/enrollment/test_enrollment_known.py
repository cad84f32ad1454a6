"""Enrollments of people the gallery knows, of strangers, of namesakes, and of two goals at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from enrollment_plays import CALIBRATION, play, session, turning
from face_world import FaceWorld, unit

from face_recognition_node.common.background import BackgroundWriter
from face_recognition_node.config import GalleryConfig
from face_recognition_node.enrollment import commit
from face_recognition_node.enrollment.session import EnrollmentGoal, EnrollmentSession, Outcome
from face_recognition_node.gallery.gallery import Gallery, NewTemplate
from face_recognition_node.vision.faces import Candidate, HeadPose, RecognitionResult


def test_a_warning_names_who_is_known_already(gallery: Gallery, world: FaceWorld) -> None:
    known = gallery.add_person("Bea", world.templates(0))
    gallery.add_person("Carl", world.templates(3))
    running = session(gallery, is_somebody_else=True)
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


def test_a_person_forgotten_meanwhile_ends_it(gallery: Gallery, world: FaceWorld) -> None:
    anna = gallery.add_person("Anna", world.templates(0))
    running = session(gallery, person_id=anna.person_id)
    frames = turning(world, 4.0)
    play(running, frames[:3])
    gallery.forget(anna.person_id)
    play(running, frames[3:])
    assert running.result().outcome is Outcome.NO_SUCH_PERSON
    assert not gallery.snapshot().persons


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


def test_a_stranger_met_before_becomes_the_person(gallery: Gallery, world: FaceWorld) -> None:
    stranger = gallery.add_person("", world.templates(0), is_stranger=True)
    other = gallery.add_person("", world.templates(1), is_stranger=True)
    running = session(gallery)
    play(running, turning(world, 4.0))
    result = running.result()
    assert result.success
    assert stranger.person_id in result.message
    person = gallery.snapshot().person(stranger.person_id)
    assert result.person_id == person.person_id
    assert person.person_id.startswith("p-")
    assert (person.name, person.is_stranger) == ("Anna", False)
    assert person.n_templates == 4 + 6
    assert gallery.snapshot().persons[other.person_id].is_stranger
    assert result.nearest is not None
    assert result.nearest.person_id == other.person_id


def test_one_person_taken_for_two_strangers_becomes_one(gallery: Gallery, world: FaceWorld) -> None:
    ids = {gallery.add_person("", world.templates(0), is_stranger=True).person_id for _ in range(2)}
    running = session(gallery)
    play(running, turning(world, 4.0))
    (person,) = gallery.snapshot().persons.values()
    assert running.result().person_id == person.person_id
    assert set(person.aliases) == ids


def test_a_face_without_a_name_is_remembered(gallery: Gallery, world: FaceWorld) -> None:
    running = session(gallery, name="")
    play(running, turning(world, 4.0))
    assert running.result().success
    person = gallery.snapshot().persons[running.result().person_id or ""]
    assert person.is_stranger
    assert person.n_enrolled == 6
    named = gallery.rename(person.person_id, "Anna")
    assert (named.aliases, named.is_stranger) == ((person.person_id,), False)
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


def test_a_person_stored_twice_is_told_and_found_by_name(gallery: Gallery, world: FaceWorld) -> None:
    """Each entry is weighed alone: that it is one of them is as sure as with one entry."""
    jane = gallery.add_person("Jane", world.templates(0))
    gallery.add_person("Jayne", world.templates(0))
    running = session(gallery, name="Rob", is_somebody_else=True)
    play(running, turning(world, 4.0))
    known = running.result().known
    assert known is not None
    assert known.probability > 0.95
    again = session(gallery, name="jane")
    play(again, turning(world, 4.0))
    assert again.result().person_id == jane.person_id


def test_a_namesake_who_is_less_alike_gets_no_views_of_somebody_else(
    gallery: Gallery, world: FaceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna, bob = (gallery.add_person(name, world.templates(k)) for k, name in enumerate(("Anna", "Bob"), 5))
    alike = [Candidate(bob.person_id, "Bob", 0.99, 0.6), Candidate(anna.person_id, "Anna", 0.95, 0.5)]
    monkeypatch.setattr(commit, "find_candidates", lambda *_: alike)
    running = session(gallery, is_somebody_else=True)
    play(running, turning(world, 4.0))
    assert running.result().person_id not in (anna.person_id, bob.person_id)
    assert gallery.snapshot().persons[anna.person_id].n_templates == anna.n_templates


def test_the_same_face_under_a_second_name_ends_as_already_known(gallery: Gallery, world: FaceWorld) -> None:
    jane = gallery.add_person("Jane", world.templates(0))
    version = gallery.snapshot().version
    running = session(gallery, name="Rob")
    play(running, turning(world, 4.0))
    result = running.result()
    assert (result.outcome, result.success, result.person_id) == (Outcome.ALREADY_KNOWN, False, None)
    assert result.known is not None
    assert (result.known.person_id, result.known.name) == (jane.person_id, "Jane")
    assert result.nearest == result.known
    assert jane.person_id in result.message
    assert result.message.endswith("nothing was stored")
    assert gallery.snapshot().version == version


def test_somebody_enrolled_twice_is_already_known_all_the_same(gallery: Gallery, world: FaceWorld) -> None:
    """Twins share no probability: each is compared by itself."""
    for name in ("Jane", "Jayne", "Jean"):
        gallery.add_person(name, world.templates(0))
    gallery.add_person("", world.templates(0), is_stranger=True)
    running = session(gallery, name="Rob")
    play(running, turning(world, 4.0))
    assert running.result().outcome is Outcome.ALREADY_KNOWN


def test_enrolling_a_stranger_is_one_commit_and_one_step_to_undo(gallery: Gallery, world: FaceWorld) -> None:
    stranger = gallery.add_person("", world.templates(0), is_stranger=True)
    version, steps = gallery.snapshot().version, len(gallery.history())
    running = session(gallery)
    play(running, turning(world, 4.0))
    assert running.result().person_id == gallery.snapshot().resolve(stranger.person_id)
    assert gallery.snapshot().version == version + 1
    assert len(gallery.history()) == steps + 1
    gallery.undo()
    (after,) = gallery.snapshot().persons.values()
    assert replace(after, expires=stranger.expires) == stranger, "who is brought back lives on for a while"


def alike_templates(world: FaceWorld, cosine: float, number: int = 3) -> list[NewTemplate]:
    """Templates of another person whose face has this cosine to person 0's."""
    vector = unit(np.float32(cosine) * world.axis(0) + np.float32((1 - cosine**2) ** 0.5) * world.axis(1))
    return [NewTemplate(vector, 0.9, HeadPose(0, 0, 0))] * number


def test_a_newcomer_does_not_take_over_a_look_alikes_templates(gallery: Gallery, world: FaceWorld) -> None:
    stranger = gallery.add_person("", alike_templates(world, 0.66), is_stranger=True)
    running = session(gallery)
    play(running, turning(world, 4.0))
    result = running.result()
    assert result.success
    assert result.person_id != stranger.person_id
    assert f"perhaps met before as {stranger.person_id} (0.7" in result.message
    assert gallery.snapshot().persons[stranger.person_id] == stranger
    merged = gallery.merge(stranger.person_id, result.person_id or "")
    assert (merged.person_id, merged.name) == (result.person_id, "Anna")
    assert merged.aliases == (stranger.person_id,)


def test_one_template_that_does_not_fit_keeps_a_stranger_apart(gallery: Gallery, world: FaceWorld) -> None:
    templates = [*world.templates(0, 3), *alike_templates(world, 0.4, 1)]
    stranger = gallery.add_person("", templates, is_stranger=True)
    running = session(gallery)
    play(running, turning(world, 4.0))
    assert running.result().person_id != stranger.person_id
    assert stranger.person_id in running.result().message


def owned(frames: Sequence[RecognitionResult], stranger_id: str | None) -> list[RecognitionResult]:
    """Frames whose track is the one that this stranger was created from."""
    return [
        replace(f, faces=tuple(replace(one, own_stranger_id=stranger_id) for one in f.faces)) for f in frames
    ]


def test_the_very_track_that_a_stranger_was_created_from_is_joined(
    gallery: Gallery, world: FaceWorld
) -> None:
    stranger = gallery.add_person("", alike_templates(world, 0.62), is_stranger=True)
    frames = turning(world, 4.0)
    running = session(gallery)
    play(running, [*frames[:3], *owned(frames[3:], stranger.person_id)])  # created while it was enrolled
    (person,) = gallery.snapshot().persons.values()
    assert running.result().person_id == person.person_id
    assert (person.name, person.aliases) == ("Anna", (stranger.person_id,))


def test_a_track_that_was_broken_is_not_joined_by_itself(gallery: Gallery, world: FaceWorld) -> None:
    stranger = gallery.add_person("", alike_templates(world, 0.62), is_stranger=True)
    frames = turning(world, 4.0)
    running = session(gallery)
    play(running, [*owned(frames[:5], stranger.person_id), *frames[5:]])
    assert running.result().success
    assert running.result().person_id != stranger.person_id


def test_a_nameless_newcomer_is_no_look_alike_either(gallery: Gallery, world: FaceWorld) -> None:
    stranger = gallery.add_person("", alike_templates(world, 0.62), is_stranger=True)
    running = session(gallery, name="")
    play(running, turning(world, 4.0))
    assert running.result().success
    assert gallery.snapshot().persons[stranger.person_id] == stranger
    assert f"perhaps met before as {stranger.person_id}" in running.result().message


def test_a_stranger_who_cannot_be_joined_is_left_and_reported(
    world: FaceWorld, caplog: pytest.LogCaptureFixture
) -> None:
    gallery = Gallery.open(None, "made-up", GalleryConfig(max_templates_per_person=6))
    stranger = gallery.add_person("", world.templates(0, 6), is_stranger=True)
    running = session(gallery)
    play(running, turning(world, 4.0))
    assert running.result().success, running.result().message
    assert running.result().person_id != stranger.person_id
    assert "could not be joined" in running.result().message
    assert gallery.snapshot().persons[stranger.person_id] == stranger
    assert stranger.person_id in caplog.text
    assert "Anna" not in caplog.text


@pytest.mark.parametrize("other_name", ["Zoe", "anna"])
def test_who_is_stored_by_another_node_at_the_same_moment_is_not_stored_twice(
    gallery: Gallery, world: FaceWorld, monkeypatch: pytest.MonkeyPatch, other_name: str
) -> None:
    split, ids = commit._split_strangers, []

    def stored_meanwhile(*arguments: object) -> object:
        found = split(*arguments)  # type: ignore[arg-type]
        ids.append(gallery.add_person(other_name, world.templates(0)).person_id)
        return found

    monkeypatch.setattr(commit, "_split_strangers", stored_meanwhile)
    running = session(gallery)
    play(running, turning(world, 4.0))
    result = running.result()
    assert result.outcome is (Outcome.ALREADY_KNOWN if other_name == "Zoe" else Outcome.STORED)
    assert list(gallery.snapshot().persons) == ids


def test_the_commit_runs_beside_the_frames_and_success_waits_for_it(
    gallery: Gallery, world: FaceWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, threads = threading.Event(), []
    enroll = gallery.enroll

    def slow(*arguments: object, **options: object) -> object:
        may_write.wait(10.0)
        threads.append(threading.current_thread())
        return enroll(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(gallery, "enroll", slow)
    with BackgroundWriter() as writer:
        running = EnrollmentSession(EnrollmentGoal("Anna"), gallery, CALIBRATION, writer=writer)
        frames = turning(world, 6.0)
        for result in frames:
            running.observe(result)  # none of them waits
        assert running.is_storing
        assert not running.finished
        running.tick(100.0)
        running.finish()
        running.cancel()  # too late: what is said in the end must be true
        assert not running.finished
        may_write.set()
    assert running.finished
    assert running.result().success
    assert threads != [threading.current_thread()]
    assert [person.name for person in gallery.snapshot().persons.values()] == ["Anna"]


def test_a_commit_that_has_not_begun_can_be_canceled(gallery: Gallery, world: FaceWorld) -> None:
    may_go_on = threading.Event()
    with BackgroundWriter() as writer:
        writer.submit(lambda: may_go_on.wait(10.0))
        running = EnrollmentSession(EnrollmentGoal("Anna"), gallery, CALIBRATION, writer=writer)
        play(running, turning(world, 6.0))
        assert running.is_storing
        running.cancel()
        may_go_on.set()
    assert running.result().outcome is Outcome.CANCELED
    assert not gallery.snapshot().persons

"""Enrolments of people the gallery knows, of strangers, of namesakes, and of two goals at once."""

from __future__ import annotations

import pytest
from enrollment_plays import play, session, turning
from face_world import FaceWorld

from face_recognition_node.enrollment.candidates import Acquaintances
from face_recognition_node.enrollment.session import Outcome, Resemblance
from face_recognition_node.gallery.gallery import Gallery


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


def test_a_person_stored_twice_is_told_and_found_by_name(gallery: Gallery, world: FaceWorld) -> None:
    """Two entries share the probability; that it is one of them is as sure as before."""
    jane = gallery.add_person("Jane", world.templates(0))
    gallery.add_person("Jayne", world.templates(0))
    running = session(gallery, name="Rob")
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
    alike = [Resemblance(bob.person_id, "Bob", 0.5, 0.85), Resemblance(anna.person_id, "Anna", 0.4, 0.09)]
    monkeypatch.setattr(Acquaintances, "resembling", lambda *_: alike)
    running = session(gallery)
    play(running, turning(world, 4.0))
    assert running.result().person_id not in (anna.person_id, bob.person_id)
    assert gallery.snapshot().persons[anna.person_id].n_templates == anna.n_templates

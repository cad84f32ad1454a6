"""Enrollments with somebody else in view: nobody else's face is ever stored."""

from __future__ import annotations

import numpy as np
import pytest
from enrollment_plays import play, refused, session, turning
from face_world import FaceWorld, empty_gallery, face, frame, stamps, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from face_recognition_node.enrollment.session import (
    EnrollmentSession,
    Outcome,
    Region,
    Rejection,
    Track,
)
from face_recognition_node.gallery.gallery import Gallery
from face_recognition_node.vision.faces import IdentifiedFace


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
@pytest.mark.slow
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

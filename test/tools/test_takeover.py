"""The measurement of takeovers tells a join from a question, with made-up faces."""

from __future__ import annotations

from face_world import FaceWorld, empty_gallery, made_up_calibration, unit
from measure_takeover import hardest, play

from face_recognition_node.vision.faces import FaceView


def views(world: FaceWorld, person: int, number: int = 6, towards: int | None = None) -> list[FaceView]:
    """Return views of a person, who resembles another one if asked for."""
    vectors = [world.embedding(person, 0.3) for _ in range(number)]
    if towards is not None:
        vectors = [unit(vector + 0.9 * world.axis(towards)) for vector in vectors]
    return [world.view(float(k), embedding=vector) for k, vector in enumerate(vectors)]


def test_a_look_alike_is_asked_about_and_not_joined(world: FaceWorld) -> None:
    with empty_gallery() as gallery:
        counts = play(views(world, 0), views(world, 1, towards=0), gallery, made_up_calibration())
    assert (counts["pairs"], counts["taken over"], counts["asked"]) == (1, 0, 1)


def test_a_stranger_who_is_enrolled_after_all_would_count(world: FaceWorld) -> None:
    """The same person is joined: what the count of takeovers must see."""
    with empty_gallery() as gallery:
        counts = play(views(world, 0), views(world, 0), gallery, made_up_calibration())
    assert (counts["taken over"], counts["A named B"]) == (1, 1)


def test_the_most_alike_people_play(world: FaceWorld) -> None:
    people = {"a": views(world, 0), "b": views(world, 1), "c": views(world, 2, towards=1)}
    assert sorted(hardest(people, 2)) == ["b", "c"]

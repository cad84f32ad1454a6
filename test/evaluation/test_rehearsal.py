"""The rehearsal: each thing that goes wrong makes its sentence, and nothing else does."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from face_world import FaceWorld, empty_gallery, face, frame, made_up_calibration, stamps, unit

from face_recognition_node.evaluation.rehearsal import Finding, Rehearsal, coverage, list_directions
from face_recognition_node.gallery.gallery import Gallery, NewTemplate
from face_recognition_node.vision.faces import Frame, HeadPose, Identity, IdentityState

ALL_SIDES = ((0, 0), (-25, 0), (25, 0), (0, 20), (0, -20))


def enroll(
    gallery: Gallery, world: FaceWorld, name: str, person: int, quality: float = 0.9, **other: object
) -> None:
    poses = other.get("poses", ALL_SIDES)
    vectors = other.get("vectors") or [world.embedding(person, 0.2) for _ in poses]
    views = [NewTemplate(v, quality, HeadPose(*pose, 0.0)) for v, pose in zip(vectors, poses, strict=True)]
    gallery.add_person(name, views)


def known(name: str) -> Identity:
    return Identity(IdentityState.KNOWN, f"p-{name}", name, 0.99)


def watch(
    rehearsal: Rehearsal,
    world: FaceWorld,
    name: str = "",
    *,
    track: int = 1,
    seconds: float = 5.0,
    level: int = 120,
    background: int = 120,
    identity: Callable[[float], Identity] | None = None,
    size: Callable[[float], float] = lambda _: 90.0,
    sway: float = 15.0,
    **view: float,
) -> None:
    for stamp in stamps(seconds):
        image = np.full((480, 640, 3), background, np.uint8)
        center = (150.0 + sway * math.sin(stamp), 240.0)
        seen = world.view(stamp, 0, center=center, size=size(stamp), **view)
        x1, y1, x2, y2 = seen.detection.box_xyxy.astype(int)
        image[y1:y2, x1:x2] = level
        who = identity(stamp) if identity else known(name) if name else Identity()
        rehearsal.add("arena", Frame(image, stamp), frame(stamp, [face(seen, track, who)]), 0.02)


def judge(rehearsal: Rehearsal, gallery: Gallery, strangers_named: float = 0.001) -> dict[str, Finding]:
    found = rehearsal.findings(made_up_calibration(), gallery.snapshot(), strangers_named)
    assert len(found) == 10
    order = ["act", "look", "fine"]
    assert [order.index(one.level) for one in found] == sorted(order.index(one.level) for one in found)
    assert all(bool(one.advice) == (one.level != "fine") for one in found)
    return {one.topic: one for one in found}


@pytest.fixture
def team(world: FaceWorld) -> Gallery:
    gallery = empty_gallery()
    for person, name in enumerate(("Anna", "Ben", "Carl")):
        enroll(gallery, world, name, person)
    return gallery


def test_where_all_is_well_nothing_is_said(world: FaceWorld, team: Gallery) -> None:
    rehearsal = Rehearsal()
    for track, name in enumerate(("Anna", "Ben", "Carl")):
        watch(rehearsal, world, name, track=track)
    found = judge(rehearsal, team)
    assert {topic: one.level for topic, one in found.items() if one.level != "fine"} == {}
    unjudged = "No face looks like a poster or a screen; 3 of 3 could not be judged"
    assert found["Pictures of faces"].text.startswith(unjudged), "no all-clear without evidence"


@pytest.mark.parametrize(
    ("topic", "level", "text", "what"),
    [
        ("Light", "act", "100% of the faces are too dark.*left third", {"level": 20, "background": 25}),
        ("Light", "act", "against the light", {"level": 60, "background": 240}),
        ("Pictures of faces", "act", "without any motion, and were named Anna", {"sway": 0.0}),
        ("False detections", "look", "1 of 1 tracks", {"name": "", "score": 0.7}),
        ("Distance", "act", "at no size", {"identity": lambda t: known("Anna") if t < 0.3 else Identity()}),
        ("Mistaken for one another", "act", "A and B", {"identity": lambda t: known("AB"[t > 2])}),
        ("Recording", "look", "which is little", {}),
    ],
)  # fmt: skip
def test_what_goes_wrong_makes_its_sentence(
    world: FaceWorld, team: Gallery, topic: str, level: str, text: str, what: dict[str, object]
) -> None:
    rehearsal = Rehearsal()
    watch(rehearsal, world, **{"name": "Anna", **what})
    found = judge(rehearsal, team)[topic]
    assert found.level == level
    assert re.search(text, found.text)
    if topic != "Recording":
        assert found.pictures
        assert found.pictures[0][0].shape[0] == 150


def test_the_height_at_which_names_begin_is_told(world: FaceWorld, team: Gallery) -> None:
    rehearsal = Rehearsal()
    watch(
        rehearsal, world, seconds=10, size=lambda t: 22.0 + 7 * t,
        identity=lambda t: known("Anna") if t > 2.6 else Identity(),
    )  # fmt: skip
    found = judge(rehearsal, team)["Distance"]
    assert found.level == "look"
    assert "reliable from 40 px" in found.text
    assert re.search(r"from 30 px \d+% of \d{2,}, ", found.text), "a share says of how many frames it is"


def test_people_alike_or_weakly_enrolled_are_named_with_what_helps(world: FaceWorld, team: Gallery) -> None:
    twin = [unit(world.axis(0) + 0.3 * world.axis(9))] * 3
    enroll(team, world, "Anne", 0, vectors=twin, poses=((0, 0), (-25, 0), (0, 20)))
    enroll(team, world, "Dora", 5, vectors=[world.embedding(5)], poses=((0, 0),))
    rehearsal = Rehearsal()
    watch(rehearsal, world, "Anna")
    found = judge(rehearsal, team, strangers_named=0.05)
    assert found["Mistaken for one another"].level == "act"
    assert "Anna and Anne" in found["Mistaken for one another"].text
    assert "Add views of Anne looking to its right, down." in found["Mistaken for one another"].advice
    assert found["Views"].text == "Weakly enrolled: Dora has 1 view(s)."
    assert "4 of 5" in found["Never recognized"].text
    assert "About 5.0 % of strangers will be given a name, with 5 enrolled" in found["Strangers"].text


def test_a_slow_machine_and_an_empty_gallery_are_acted_on(world: FaceWorld) -> None:
    rehearsal = Rehearsal()
    rehearsal.rate_hz = 30.0
    watch(rehearsal, world)
    rehearsal.seconds = [0.4] * 50
    with empty_gallery() as gallery:
        found = judge(rehearsal, gallery)
    assert (found["Speed"].level, found["Views"].level) == ("act", "act")
    assert found["Never recognized"].level == "look", "nobody enrolled is not everybody recognized"
    assert "400 ms" in found["Speed"].text


def test_a_recording_without_a_face_is_judged_as_well(team: Gallery) -> None:
    rehearsal = Rehearsal()
    rehearsal.add("arena", Frame(np.zeros((480, 640, 3), np.uint8), 0.0), frame(0.0), 0.02)
    rehearsal.problems.append("1 picture cannot be decoded")
    found = judge(rehearsal, team)
    assert found["Recording"].advice == "The first: 1 picture cannot be decoded"
    assert (found["Light"].level, found["Light"].text) == ("look", "No face was seen that tells it.")
    assert found["Speed"].level == "look", "a frame without a face is fast"
    anna = next(iter(team.snapshot().persons.values()))
    assert list_directions(coverage(team.snapshot(), anna).missing()) == ""

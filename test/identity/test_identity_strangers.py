"""Strangers: created after several good views, found again, taken back when it was wrong."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from face_world import FaceWorld, empty_gallery, face, frame, made_up_calibration

from face_recognition_node.common.background import BackgroundWriter
from face_recognition_node.common.errors import GalleryUnavailableError
from face_recognition_node.common.parameters import with_values
from face_recognition_node.config import GalleryConfig, IdentityConfig, StrangersConfig, TrackerConfig
from face_recognition_node.gallery.gallery import Gallery, NewTemplate
from face_recognition_node.gallery.values import Provenance
from face_recognition_node.identity.comparison import log_likelihood_ratios
from face_recognition_node.identity.identity import IdentityResolver
from face_recognition_node.identity.stranger_record import select_views
from face_recognition_node.identity.strangers import StrangerBook
from face_recognition_node.tracking.tracker import Observation, Track, Tracker
from face_recognition_node.vision.faces import FaceView, FloatArray, HeadPose, Identity, IdentityState


class Door:
    """One face after the other before tracker, resolver and book."""

    def __init__(self, *, background: bool = False, gallery: Gallery | None = None, **values: object) -> None:
        self.world, self.gallery = FaceWorld(seed=5), gallery or empty_gallery()
        calibration = made_up_calibration()
        self.tracker = Tracker(partial(log_likelihood_ratios, calibration), 0.4, TrackerConfig())
        self.resolver = IdentityResolver(calibration, IdentityConfig(), 0.02)
        self.writer = BackgroundWriter(is_immediate=not background)
        config = with_values(StrangersConfig(), values)
        self.book = StrangerBook(self.gallery, config, self.writer, calibration)
        self.stamp = 0.0

    def show(self, view: FaceView) -> tuple[Track, Identity]:
        (shown,) = self.show_all(view)
        return shown

    def show_all(self, *views: FaceView) -> list[tuple[Track, Identity]]:
        detections = [view.detection for view in views]
        plan = self.tracker.plan(detections, self.stamp)
        looks = [
            None if view.embedding is None else Observation(view.embedding, view.quality.overall)
            for view in views
        ]
        tracks = self.tracker.update(plan, detections, looks, self.stamp)
        snapshot = self.gallery.snapshot()
        tracks, identities = self.resolver.resolve(tracks, snapshot, self.stamp, self.tracker.renew)
        faces = [
            face(view, track.track_id, identity)
            for view, track, identity in zip(views, tracks, identities, strict=True)
        ]
        self.book.observe(frame(self.stamp, faces), tracks)
        return list(zip(tracks, identities, strict=True))

    def watch(self, person: int, seconds: float, **view: Any) -> Identity:
        """Show a person and return the last identity."""
        for _ in range(round(seconds * 10)):
            self.stamp += 0.1
            _, identity = self.show(self.world.view(self.stamp, person, **view))
        return identity

    def pause(self, seconds: float = 10.0) -> None:
        self.stamp += seconds

    @property
    def strangers(self) -> list[str]:
        return [p.person_id for p in self.gallery.snapshot().persons.values() if p.is_stranger]


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.writer.close()


def test_created_after_several_views_over_some_time(door: Door) -> None:
    assert door.watch(0, 0.3).person_id is None
    assert door.strangers == []
    identity = door.watch(0, 1.0)
    assert identity.state is IdentityState.STRANGER
    assert door.strangers == [identity.person_id]


def test_a_track_is_its_own_stranger_until_it_was_out_of_view(door: Door) -> None:
    """What was found again may be another face: an enrollment must not take that stranger over."""
    stranger = door.watch(0, 2.0).person_id
    track, _ = door.show(door.world.view(door.stamp, 0))
    assert door.book.own_id(track) == stranger is not None
    door.pause(1.0)
    again, identity = door.show(door.world.view(door.stamp, 0))
    assert again is track
    assert identity.person_id == stranger
    assert door.book.own_id(again) is None


def test_the_same_one_coming_back_gets_the_same_id(door: Door) -> None:
    first = door.watch(0, 2.0).person_id
    door.pause()
    second = door.watch(1, 2.0).person_id
    door.pause()
    assert door.watch(0, 0.3).person_id == first
    door.pause()
    assert door.watch(1, 0.3).person_id == second
    assert first != second
    assert len(door.strangers) == 2


def test_views_from_other_sides_are_added_while_the_track_goes_on(door: Door) -> None:
    stranger = door.watch(0, 1.0).person_id
    assert stranger is not None
    before = door.gallery.snapshot().templates_of(stranger)
    profile, somebody_else = (at_cosine(c, before[0].embedding, door.world.axis(8)) for c in (0.7, 0.2))
    for vector in (profile, before[0].embedding, somebody_else):
        door.pause(1.1)
        door.show(door.world.view(door.stamp, 0, embedding=vector))
    after = door.gallery.snapshot().templates_of(stranger)
    assert len(after) == len(before) + 1
    assert max(float(t.embedding @ profile) for t in after) > 0.999


def test_views_of_one_that_came_back_are_not_added(door: Door) -> None:
    """Only the track says that it is the same; a likeness alone could be somebody else's."""
    stranger = door.watch(0, 1.0).person_id
    assert stranger is not None
    before = door.gallery.snapshot().persons[stranger].n_templates
    door.pause()
    door.world.scatter = 0.7
    assert door.watch(0, 3.0).person_id == stranger
    assert door.gallery.snapshot().persons[stranger].n_templates == before


def test_additions_end_with_the_places_there_are() -> None:
    door = Door(maximum_views=5)
    door.world.scatter = 0.6  # any two views are about 0.73 alike
    stranger = door.watch(0, 10.0).person_id
    assert stranger is not None
    assert door.gallery.snapshot().persons[stranger].n_templates == 5


def at_cosine(cosine: float, vector: FloatArray, other: FloatArray) -> FloatArray:
    """Return a unit vector at this cosine to ``vector``, turned towards ``other``."""
    away = other - (other @ vector) * vector
    turned = cosine * vector + np.sqrt(1 - cosine**2) * away / np.linalg.norm(away)
    return np.asarray(turned, np.float32)


@pytest.mark.parametrize(
    "view",
    [{"sharpness": 0.3}, {"score": 0.7}, {"has_embedding": False}],
    ids=["blurred", "no face?", "not embedded"],
)
def test_poor_views_create_nobody(door: Door, view: dict[str, float]) -> None:
    door.watch(0, 5.0, **view)
    assert door.strangers == []


def test_patience_ends_although_the_good_views_have(door: Door) -> None:
    """Between a name and nobody; five good views, then the head is tilted."""
    door.gallery.add_person("Anna", [NewTemplate(door.world.axis(3), 0.9, HeadPose(0, 0, 0))])
    door.resolver.config = with_values(IdentityConfig(), {"minimum_probability": 0.9999})
    like_anna = at_cosine(0.45, door.world.axis(3), door.world.axis(0))
    for seconds, view in ((0.6, {}), (2.0, {"sharpness": 0.3})):
        assert door.watch(0, seconds, embedding=like_anna, **view).state is IdentityState.UNDECIDED
        assert door.strangers == []
    door.watch(0, 1.0, embedding=like_anna, sharpness=0.3)
    assert len(door.strangers) == 1


def test_whoever_is_like_nobody_waits_less(door: Door) -> None:
    door.gallery.add_person("Anna", door.world.templates(3))
    door.resolver.config = with_values(IdentityConfig(), {"minimum_probability": 0.9999})
    assert door.watch(0, 0.5).state is IdentityState.UNDECIDED
    assert door.strangers == []
    door.watch(0, 0.3)
    assert len(door.strangers) == 1


@pytest.mark.parametrize(("turns_back", "n_strangers"), [(True, 1), (False, 2)])
def test_no_new_id_while_it_may_be_a_known_stranger(door: Door, turns_back: bool, n_strangers: int) -> None:
    """Seen from another side at first; the wait ends with the views that tell, or with the patience."""
    first = door.watch(0, 1.0).person_id
    door.pause()
    from_aside = at_cosine(0.45, door.world.axis(0), door.world.axis(8))
    identity = door.watch(0, 1.0, embedding=from_aside)
    assert (identity.state, identity.person_id) == (IdentityState.STRANGER, None)
    assert door.strangers == [first]
    identity = door.watch(0, 3.0, **({} if turns_back else {"embedding": from_aside}))
    assert (identity.person_id == first) is turns_back
    assert identity.person_id is not None
    assert len(door.strangers) == n_strangers


def test_an_entry_that_turns_out_to_be_two_is_split_once(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a track that went over from one face to another unnoticed."""
    first = door.watch(0, 1.0).person_id
    assert first is not None
    own = set(door.gallery.snapshot().persons[first].template_ids)
    theirs = set(door.gallery.add_templates(first, door.world.templates(3)).template_ids) - own
    turned = [at_cosine(0.7, door.world.axis(0), door.world.axis(k)) for k in (8, 9)]
    door.pause(1.1)
    with caplog.at_level(logging.INFO):
        door.show(door.world.view(door.stamp, 0, embedding=turned[0]))
    _, second = door.strangers
    assert set(door.gallery.snapshot().persons[second].template_ids) == theirs
    assert own < set(door.gallery.snapshot().persons[first].template_ids)
    assert f"{first} was two people; the other is now {second}" in caplog.text
    assert door.book.n_separated == 1
    door.gallery.undo()
    assert door.strangers == [first]
    door.pause(1.1)
    track, _ = door.show(door.world.view(door.stamp, 0, embedding=turned[1]))
    assert door.strangers == [first]
    assert door.book.own_id(track) is None


def test_two_alike_who_arrive_together_get_their_ids_at_once(door: Door) -> None:
    """What this very node stored a moment ago was seen in the same frame: it is somebody else."""
    alike = at_cosine(0.5, door.world.axis(0), door.world.axis(1))
    for _ in range(5):
        door.stamp += 0.1
        door.show_all(
            door.world.view(door.stamp, embedding=alike),
            door.world.view(door.stamp, embedding=door.world.axis(0), center=(120.0, 240.0)),
        )
    assert len(door.strangers) == 2


def test_two_who_passed_for_one_stranger_are_two_once_seen_together(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    first = door.watch(0, 2.0).person_id
    door.pause()
    look_alike = at_cosine(0.75, door.world.axis(0), door.world.axis(1))
    assert door.watch(0, 1.0, embedding=look_alike).person_id == first
    with caplog.at_level(logging.INFO):
        for _ in range(20):
            door.stamp += 0.1
            (_, other), (_, one) = door.show_all(
                door.world.view(door.stamp, embedding=look_alike),
                door.world.view(door.stamp, embedding=door.world.axis(0), center=(120.0, 240.0)),
            )
    second = other.person_id
    assert one.person_id == first
    assert door.strangers == [first, second]
    assert f"{first} was two people; the other is now {second}" in caplog.text
    door.gallery.rename(str(first), "Carl")
    door.pause()
    assert door.watch(0, 0.5, embedding=look_alike).person_id == second
    door.pause()
    assert door.watch(0, 0.5).name == "Carl"


def test_an_enrolled_person_is_not_made_a_stranger(door: Door) -> None:
    door.gallery.add_person("Anna", door.world.templates(0))
    assert door.watch(0, 5.0).name == "Anna"
    assert door.strangers == []


def test_switched_off() -> None:
    door = Door(enabled=False)
    assert door.watch(0, 5.0).state is IdentityState.STRANGER
    assert door.strangers == []


def test_named_stranger_is_the_same_person(door: Door) -> None:
    stranger = door.watch(0, 2.0).person_id
    assert stranger is not None
    assert {t.provenance for t in door.gallery.snapshot().templates_of(stranger)} == {Provenance.ADAPTED}
    carl = door.gallery.rename(stranger, "Carl").person_id
    assert {t.provenance for t in door.gallery.snapshot().templates_of(carl)} == {Provenance.ENROLLED}
    identity = door.watch(0, 0.1)
    assert (identity.state, identity.person_id, identity.name) == (IdentityState.KNOWN, carl, "Carl")
    door.watch(0, 2.0)
    assert list(door.gallery.snapshot().persons) == [carl]  # nobody took it back, nor stored another


def test_forgotten_stranger_is_a_new_one(door: Door) -> None:
    stranger = door.watch(0, 2.0).person_id
    assert stranger is not None
    door.gallery.forget(stranger, final=True)
    again = door.watch(0, 2.0).person_id
    assert again not in (None, stranger)


def test_an_id_given_to_somebody_enrolled_is_taken_back(door: Door) -> None:
    stranger = door.watch(0, 2.0).person_id
    assert door.strangers == [stranger]
    anna = door.gallery.add_person("Anna", door.world.templates(0, 8)).person_id
    assert door.watch(0, 3.0).person_id == anna
    assert door.strangers == []


def test_who_is_named_while_the_id_is_taken_back_stays(door: Door) -> None:
    """The frame was judged before the stranger became Anna, and the commit comes after that."""
    stranger = door.watch(0, 1.0).person_id
    assert stranger is not None
    (track,) = door.tracker.tracks
    door.gallery.rename(stranger, "Anna")
    other = Identity(IdentityState.KNOWN, "p-another-id", "Anna", 0.99)
    door.book.observe(
        frame(door.stamp, [face(door.world.view(door.stamp, 0), track.track_id, other)]), [track]
    )
    assert [person.name for person in door.gallery.snapshot().persons.values()] == ["Anna"]


@pytest.mark.parametrize("name", ["", "Anna"])
def test_who_walks_away_and_comes_back_is_not_stored_twice(door: Door, name: str) -> None:
    """The claim lapses while the face is too small to count; earlier views must not create another."""
    person = door.watch(0, 2.0).person_id
    assert person is not None
    if name:
        person = door.gallery.rename(person, name).person_id
        door.watch(0, 1.0)
    door.pause(30.0)
    door.watch(0, 1.0)  # a track that bears the id without having been created from it
    for _ in range(2):
        assert door.watch(0, 12.0, has_embedding=False).person_id is None
        assert door.watch(0, 1.0).person_id == person
    assert list(door.gallery.snapshot().persons) == [person]


def test_the_longest_unseen_makes_room() -> None:
    door = Door(maximum_strangers=2)
    ids = []
    for person in range(4):
        ids.append(door.watch(person, 2.0).person_id)
        door.pause()
    assert door.strangers == ids[-2:]


def test_a_commit_in_the_background_shows_soon() -> None:
    door = Door(background=True)
    deadline = time.monotonic() + 30  # on a busy machine the writer waits for its turn
    while (identity := door.watch(0, 0.5)).person_id is None and time.monotonic() < deadline:
        time.sleep(0.01)
    door.writer.close()
    assert door.strangers == [identity.person_id]


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_stops_nothing(
    background: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    door = Door(background=background)

    def refuse(*_: object, **__: object) -> None:
        raise GalleryUnavailableError("disk full")

    monkeypatch.setattr(Gallery, "add_person", refuse)
    with caplog.at_level(logging.WARNING):
        assert door.watch(0, 3.0).person_id is None
        door.writer.close()
        door.watch(0, 0.1) if not background else None
    assert door.strangers == []
    if not background:
        assert "disk full" in caplog.text


@pytest.fixture
def two_doors(tmp_path: Path) -> Iterator[tuple[Door, Door]]:
    """Two cameras with one gallery file; neither follows the other but when it writes."""
    config = GalleryConfig(poll_interval_s=0.0)
    galleries = [
        Gallery.open(tmp_path / "data" / "people.db", "made-up", config, keys_folder=tmp_path / "keys")
        for _ in "ab"
    ]
    yield Door(gallery=galleries[0]), Door(gallery=galleries[1])
    for gallery in galleries:
        gallery.close()


def test_whom_two_cameras_see_at_once_is_stored_once(two_doors: tuple[Door, Door]) -> None:
    first, second = two_doors
    for _ in range(30):
        seen = [door.watch(0, 0.1) for door in two_doors]
    second.gallery.follow()
    assert first.strangers == second.strangers == ["stranger-1"]
    assert [identity.person_id for identity in seen] == ["stranger-1", "stranger-1"]


def test_two_strangers_before_two_cameras_at_once_are_two(two_doors: tuple[Door, Door]) -> None:
    first, second = two_doors
    for _ in range(30):
        seen = [first.watch(0, 0.1), second.watch(1, 0.1)]
    assert [identity.person_id for identity in seen] == ["stranger-1", "stranger-2"]


def test_views_are_good_and_differ() -> None:
    world = FaceWorld(seed=1)
    same = world.embedding(0)
    views = [world.view(k, embedding=same, sharpness=q) for k, q in enumerate((0.6, 0.9, 0.7))]
    views += [world.view(9, 0, sharpness=0.8), world.view(10, has_embedding=False)]
    kept = select_views(views, 6)
    assert [view.quality.sharpness for view in kept] == [0.9, 0.8]
    assert len(select_views([world.view(k, 0) for k in range(20)], 6)) == 6
    assert select_views([], 6) == []
    assert np.isclose(kept[0].embedding @ same, 1.0)

"""Faces seen in one frame are different people: what follows for strangers' ids."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from face_world import FaceWorld, made_up_calibration, unit
from identity_desk import BOX, Desk, between

from face_recognition_node.gallery.gallery import Gallery, GalleryConfig
from face_recognition_node.gallery.values import NewTemplate
from face_recognition_node.identity.person_models import PersonModels, pairs_of_one_person
from face_recognition_node.tracking.tracker import Track
from face_recognition_node.vision.faces import Detection, FloatArray, HeadPose, IdentityState


def beside(track: Track) -> Track:
    """Move a track's face to where it overlaps no other."""
    box = BOX.box_xyxy + np.array([300.0, 0.0, 300.0, 0.0], np.float32)
    track.detection = Detection(box, BOX.score, BOX.landmarks_xy)
    return track


def a_view(vector: FloatArray) -> NewTemplate:
    return NewTemplate(vector, 0.9, HeadPose(0, 0, 0))


def test_a_face_seen_beside_a_stranger_is_not_taken_for_the_stranger_later(world: FaceWorld) -> None:
    desk = Desk(world)
    stranger = desk.gallery.add_person("", [a_view(world.axis(0))], is_stranger=True).person_id
    look_alike = between(world, 0, 1, 0.75)
    assert desk.ask(desk.track(look_alike))[0].person_id == stranger  # taken for the stranger if alone
    one, other = desk.track(world.axis(0)), beside(desk.track(look_alike))
    one.own_stranger_id = stranger
    assert [identity.person_id for identity in desk.ask(one, other)] == [stranger, None]
    assert desk.ask(other)[0].person_id is None
    assert desk.ask(desk.track(look_alike))[0].person_id == stranger  # another track, another person perhaps


def test_a_stranger_found_by_likeness_gives_way_to_who_fits_better(world: FaceWorld) -> None:
    desk = Desk(world)
    stranger = desk.gallery.add_person("", [a_view(world.axis(0))], is_stranger=True).person_id
    worse, better = desk.track(between(world, 0, 1, 0.75)), beside(desk.track(quality=0.9))
    assert desk.ask(worse, better)[0].person_id == stranger
    desk.show(better, between(world, 0, 2, 0.95))
    desk.ask(worse, better)
    assert desk.ask(better)[0].person_id == stranger
    assert desk.ask(worse)[0].person_id is None


def test_one_face_found_twice_is_not_two_people(world: FaceWorld) -> None:
    desk = Desk(world)
    stranger = desk.gallery.add_person("", [a_view(world.axis(0))], is_stranger=True).person_id
    one, double = desk.track(world.axis(0)), desk.track(between(world, 0, 1, 0.75))
    one.own_stranger_id = stranger
    desk.ask(one, double)
    assert desk.ask(double)[0].person_id == stranger


def test_two_strangers_of_one_frame_are_two_however_alike(world: FaceWorld) -> None:
    desk = Desk(world)
    alike = unit(world.axis(0) + np.float32(0.3) * world.axis(1))
    ids = [
        desk.gallery.add_person("", [a_view(vector)], is_stranger=True).person_id
        for vector in (world.axis(0), alike)
    ]
    models, snapshot = PersonModels(made_up_calibration()), desk.gallery.snapshot()
    models.follow(snapshot)
    assert models.are_one(*ids, snapshot)
    models.tell_apart(*ids)
    assert not models.are_one(*ids, snapshot)
    desk.gallery.forget(ids[1], final=True)
    models.follow(desk.gallery.snapshot())
    assert not models._different


def test_who_resembles_somebody_enrolled_keeps_a_strangers_id(world: FaceWorld) -> None:
    """The two entries pass for one person, but the face is not Anna's: it went without any id for good."""
    desk = Desk(world, target_false_accept_rate=1e-5)
    desk.gallery.add_person("Anna", [a_view(world.axis(0))])
    face = between(world, 0, 1, 0.65)
    stranger = desk.gallery.add_person("", [a_view(face)], is_stranger=True).person_id
    identity = desk.ask(desk.track(face, face, face))[0]
    assert (identity.state, identity.person_id) == (IdentityState.STRANGER, stranger)


def test_a_name_given_to_a_shared_id_is_claimed_by_the_names_own_rule(world: FaceWorld) -> None:
    """A claim of a stranger stands more easily than one of a name; naming must not carry it over."""
    desk = Desk(world, minimum_probability=0.5, target_false_accept_rate=0.001)
    stranger = desk.gallery.add_person("", [a_view(world.axis(0))], is_stranger=True).person_id
    other = desk.track(between(world, 0, 1, 0.42))
    assert desk.ask(other)[0].person_id == stranger
    desk.gallery.rename(stranger, "Carl")
    assert desk.ask(other)[0].person_id is None
    assert desk.ask(desk.track(world.axis(0)))[0].name == "Carl"


def test_each_comparison_of_a_track_with_each_stranger_counts(world: FaceWorld) -> None:
    """Taken for a stranger falsely at the stated rate: more strangers, or more comparisons, ask for more."""
    desk = Desk(world, calibration=replace(made_up_calibration(), comparisons_per_track=4.0))
    rate = 0.02 / (1.0 + math.log(4.0))
    assert desk.calibration.log_name_limit(0.02, 1) == pytest.approx(math.log(rate / 4))
    assert desk.calibration.log_name_limit(0.02, 10) == pytest.approx(math.log(rate / 40))


def test_two_people_of_a_place_where_all_are_alike_are_not_one(world: FaceWorld) -> None:
    """Elsewhere so alike a pair would be one face stored twice, and one track be named after either."""
    common = world.axis(40)
    faces = [unit(world.axis(k) + common) for k in range(12)]
    faces.append(unit(np.float32(0.4) * world.axis(0) + world.axis(20) + common))
    desk = Desk(world)
    ids = [desk.gallery.add_person(f"P{k}", [a_view(face)]).person_id for k, face in enumerate(faces)]
    models, snapshot = PersonModels(made_up_calibration()), desk.gallery.snapshot()
    models.follow(snapshot)
    cosine = float(faces[0] @ faces[-1])
    assert float(made_up_calibration().log_false_match(cosine, 0.9, 0.9)) < math.log(1e-4)
    assert not models.are_one(ids[0], ids[-1], snapshot)
    again = desk.gallery.add_person("P0 again", [a_view(faces[0])]).person_id
    snapshot = desk.gallery.snapshot()
    models.follow(snapshot)
    assert models.are_one(ids[0], again, snapshot)


def test_who_is_seen_beside_a_stranger_is_somebody_new_however_alike(world: FaceWorld) -> None:
    desk = Desk(world)
    stranger = desk.gallery.add_person("", [a_view(world.axis(0))], is_stranger=True).person_id
    look_alike = desk.track(*[between(world, 0, 1, 0.45)] * 4)
    desk.ask(look_alike)
    assert look_alike.claim.new_probability < 0.5
    one = beside(desk.track(world.axis(0)))
    one.own_stranger_id = stranger
    for _ in range(2):
        desk.ask(one, look_alike)
    assert look_alike.claim.new_probability > 0.9


def test_where_everybody_is_alike_only_one_person_stored_twice_is_a_pair() -> None:
    rng = np.random.default_rng(6)
    calibration = made_up_calibration()
    common, own = rng.normal(size=64), rng.normal(size=(8, 64))
    gallery = Gallery.open(None, "model/alignment", GalleryConfig())

    def add(name: str, k: int) -> str:
        views = [unit(0.9 * common + own[k] + 0.2 * rng.normal(size=64)) for _ in range(4)]
        return gallery.add_person(name, [a_view(view) for view in views]).person_id

    ids = [add(f"P{k}", k) for k in range(8)]
    twice = add("P3 again", 3)
    snapshot = gallery.snapshot()
    (pair,) = pairs_of_one_person(calibration, snapshot, 0.3)
    assert pair[:2] == (ids[3], twice)
    assert pair[2] > 0.9

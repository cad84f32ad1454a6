"""The gallery as a yardstick: models of persons, and the cohort of the others."""

from __future__ import annotations

import math

import numpy as np
import pytest
from face_world import FaceWorld, empty_gallery, made_up_calibration, unit
from hypothesis import given
from hypothesis import strategies as st
from identity_desk import Desk

from face_recognition_node.gallery.gallery import Gallery
from face_recognition_node.gallery.values import NewTemplate
from face_recognition_node.identity.cohort import Cohort
from face_recognition_node.identity.person_models import PersonModels
from face_recognition_node.vision.faces import FloatArray, HeadPose, IdentityState


class TestPersonModels:
    @given(st.integers(0, 1000), st.integers(1, 6))
    def test_the_model_is_the_mean_of_the_views_by_quality(self, seed: int, k: int) -> None:
        rng, calibration = np.random.default_rng(seed), made_up_calibration()
        gallery = Gallery.open(None, "x")
        templates = [
            NewTemplate(unit(rng.normal(size=64)), float(rng.uniform(0.2, 1)), HeadPose(0, 0, 0))
            for _ in range(k)
        ]
        gallery.add_person("Anna", templates)
        stored = gallery.snapshot().templates_of(next(iter(gallery.snapshot().persons)))
        query = unit(rng.normal(size=64))
        (match,) = PersonModels(calibration).rank(query[None], [0.8], gallery.snapshot())[0]
        cosines = [float(t.embedding @ query) for t in stored]
        pooled = sum(t.quality**2 * t.embedding.astype(np.float64) for t in stored)
        expected = float(pooled @ query / np.linalg.norm(pooled))
        assert match.similarity == pytest.approx(expected, abs=1e-4)
        assert match.distance == pytest.approx(math.sqrt(2 - 2 * max(cosines)), abs=1e-3)

    def test_a_person_whose_templates_were_all_set_aside(self, world: FaceWorld) -> None:
        gallery, models = empty_gallery(), PersonModels(made_up_calibration())
        gallery.add_person("Bea", world.templates(1))
        anna = gallery.add_person("Anna", world.templates(0))
        gallery.set_aside(anna.template_ids)
        ranked = models.rank(world.axis(0)[None], [0.9], gallery.snapshot())[0]
        assert anna.person_id not in [match.person_id for match in ranked]

    def test_a_person_forgotten_during_a_frame_is_nobody(self, world: FaceWorld) -> None:
        """The frame's snapshot is older than the forgetting, which wipes the templates in it, too."""
        gallery, models = empty_gallery(), PersonModels(made_up_calibration())
        anna = gallery.add_person("Anna", world.templates(0)).person_id
        taken = gallery.snapshot()
        gallery.forget(anna)
        (ranked,) = models.rank(world.axis(0)[None], [0.9], taken)
        assert all(match.similarity == 0.0 for match in ranked)

    def test_nothing_of_a_forgotten_person_stays(self, world: FaceWorld) -> None:
        gallery, models = empty_gallery(), PersonModels(made_up_calibration())
        person = gallery.add_person("Anna", world.templates(0)).person_id
        models.rank(world.axis(0)[None], [0.9], gallery.snapshot())
        stranger = gallery.add_person("", world.templates(1), is_stranger=True).person_id
        models.follow(gallery.snapshot())
        gallery.forget([person, stranger], final=True)
        models.follow(gallery.snapshot())
        assert models.rank(world.axis(0)[None], [0.9], gallery.snapshot()) == [()]
        assert not models.keeps_anything


class TestCohort:
    def test_before_anything_is_measured_people_are_expected_to_be_alike(self, world: FaceWorld) -> None:
        calibration = made_up_calibration()
        mean, spread = calibration.different_people
        values = np.array([0.1, 0.9])
        for centers in ({}, {"a": world.axis(0)}):
            cohort = Cohort.of(centers, calibration)
            normalized = cohort.normalize(values, world.axis(1), 0.0, ["a", "b"])
            assert (normalized < values - spread / 2).all()
            assert (normalized - mean)[1] < 0.9 * (values - mean)[1]  # wider, too: little is known

    def test_the_expectation_gives_way_to_what_is_measured(self, world: FaceWorld) -> None:
        calibration = made_up_calibration()
        lifts = []
        for n in (1, 2, 5, 10, 40):
            cohort = Cohort.of({str(k): world.axis(k) for k in range(n)}, calibration)
            lifts.append(0.7 - float(cohort.normalize(np.array([0.7]), world.axis(50), 0.0, ["0"])[0]))
        assert lifts == sorted(lifts, reverse=True)
        assert lifts[0] / 2 > lifts[-1] >= 0.0

    def test_posterior_equals_that_of_the_gaussian_model(self) -> None:
        """The place's shift by a dense Bayesian solution over all pairs, without any shortcut."""
        calibration, rng, n = made_up_calibration(), np.random.default_rng(5), 7
        mean, spread = calibration.different_people
        persons = [unit(rng.normal(size=64) + 0.3) for _ in range(n)]
        cohort = Cohort.of({str(k): person for k, person in enumerate(persons)}, calibration)
        pairs = [(i, j) for i in range(n) for j in range(i)]
        measured = np.array([(float(persons[i] @ persons[j]) - mean) / spread for i, j in pairs])
        shared = np.array([[len({i, j} & {k, m}) for k, m in pairs] for i, j in pairs])
        covariance = 0.12 * shared + np.eye(len(pairs))
        ones = np.ones(len(pairs))
        precision = float(ones @ np.linalg.solve(covariance, ones))
        weight = precision / (precision + 1 / 0.25)
        average = float(ones @ np.linalg.solve(covariance, measured)) / precision
        assert cohort.shift == pytest.approx(0.6 + weight * (average - 0.6), abs=0.02)
        assert cohort.variance == pytest.approx(0.25 * (1 - weight), abs=0.01)

    def test_different_people_make_nothing_easier(self, world: FaceWorld) -> None:
        """Axes are less alike than the tables expect of different people."""
        cohort = Cohort.of({str(k): world.axis(k) for k in range(40)}, made_up_calibration())
        assert cohort.measured <= 0.0
        assert float(cohort.normalize(np.array([0.7]), world.axis(50), 0.0, ["0"])[0]) <= 0.7

    def test_alike_people_lower_all_similarities(self, world: FaceWorld) -> None:
        calibration = made_up_calibration()
        common = world.axis(40)
        people = [unit(world.axis(k) + np.float32(1.5) * common) for k in range(20)]
        cohort = Cohort.of({str(k): person for k, person in enumerate(people)}, calibration)
        pairs = [float(a @ b) for i, a in enumerate(people) for b in people[:i]]
        mean, spread = calibration.different_people
        assert cohort.measured == pytest.approx((np.mean(pairs) - mean) / spread, abs=1e-3)
        query = unit(world.axis(30) + np.float32(1.5) * common)
        (value,) = cohort.normalize(np.array([float(query @ people[0])]), query, 0.0, ["0"])
        assert value == pytest.approx(float(query @ people[0]) - spread * cohort.shift, abs=0.05)

    def test_a_face_like_everybody_needs_more_similarity(self, world: FaceWorld) -> None:
        people = {str(k): world.axis(k) for k in range(20)}
        cohort = Cohort.of(people, made_up_calibration())
        like_all = unit(world.axis(0) + np.float32(0.5) * np.sum([*people.values()], axis=0))
        usual, common = (
            float(cohort.normalize(np.array([0.7]), query, 0.0, ["0"])[0])
            for query in (world.axis(0), like_all)
        )
        assert common < usual - 0.01

    def test_what_two_faces_of_one_person_share_counts_once(self, world: FaceWorld) -> None:
        calibration = made_up_calibration()
        _, spread = calibration.different_people
        others = np.sum([world.axis(k) for k in range(1, 20)], axis=0)
        like_all = unit(world.axis(0) + np.float32(0.5) * others)
        people = {"0": like_all} | {str(k): world.axis(k) for k in range(1, 20)}
        cohort = Cohort.of(people, calibration)
        own, of_query = cohort.own["0"], world.axis(50)
        lifted = cohort.normalize(np.array([0.7, 0.7]), like_all, 0.0, ["0", "1"])
        usual = cohort.normalize(np.array([0.7, 0.7]), of_query, 0.0, ["0", "1"])
        assert own * spread > 0.1
        lift = (usual[1] - lifted[0]) * np.sqrt(1 + cohort.variance)
        assert lift == pytest.approx(spread * (cohort.shift + own), rel=0.2)

    def test_known_strangers_are_a_yardstick_too(self, world: FaceWorld) -> None:
        gallery, models = empty_gallery(), PersonModels(made_up_calibration())
        common = world.axis(40)
        relatives = [NewTemplate(unit(world.axis(k) + common), 0.9, HeadPose(0, 0, 0)) for k in range(8)]
        query = unit(world.axis(30) + common)
        gallery.add_person("Anna", relatives[:1])
        (alone,) = models.rank(query[None], [0.9], gallery.snapshot())[0]
        for relative in relatives[1:]:
            gallery.add_person("", [relative], is_stranger=True)
        ranked = models.rank(query[None], [0.9], gallery.snapshot())[0]
        anna = next(match for match in ranked if not match.is_stranger)
        assert anna.log_false_match > alone.log_false_match + 1.0
        assert anna.log_ratio < alone.log_ratio
        for stranger in (match for match in ranked if match.is_stranger):
            assert stranger.similarity == pytest.approx(anna.similarity, abs=1e-4)
            assert stranger.log_false_match == pytest.approx(anna.log_false_match, abs=0.2)

    @pytest.mark.parametrize("is_enrolled", [True, False], ids=["met before", "given two ids"])
    def test_one_person_under_two_ids_is_no_yardstick(self, world: FaceWorld, is_enrolled: bool) -> None:
        gallery, models = empty_gallery(), PersonModels(made_up_calibration())
        common = world.axis(40)

        def add(person: int, *, is_stranger: bool = True) -> str:
            view = NewTemplate(unit(world.axis(person) + common), 0.9, HeadPose(0, 0, 0))
            return gallery.add_person(
                "" if is_stranger else "Anna", [view], is_stranger=is_stranger
            ).person_id

        def chance() -> float:
            ranked = models.rank(unit(world.axis(30) + common)[None], [0.9], gallery.snapshot())[0]
            return next(h.log_false_match for h in ranked if h.person_id == first)

        first = add(0, is_stranger=not is_enrolled)
        add(2)
        add(3)
        before = chance()
        add(0)
        assert chance() == pytest.approx(before, abs=0.05)
        add(4)  # somebody else, as alike as the others, is one more to measure by
        assert chance() > before + 0.1

    def test_new_views_of_a_member_are_measured_anew(self, world: FaceWorld) -> None:
        gallery, models = empty_gallery(), PersonModels(made_up_calibration())
        common = world.axis(40)
        ids = [
            gallery.add_person("", [NewTemplate(unit(world.axis(k) + common), 0.9, HeadPose(0, 0, 0))],
                               is_stranger=True).person_id
            for k in range(4)
        ]  # fmt: skip

        def chance() -> float:
            ranked = models.rank(unit(world.axis(30) + common)[None], [0.9], gallery.snapshot())[0]
            return next(h.log_false_match for h in ranked if h.person_id == ids[0])

        before = chance()
        gallery.add_templates(ids[1], [NewTemplate(world.axis(1), 0.9, HeadPose(0, 0, 0))])
        assert chance() < before - 0.1  # less alike than the one view showed

    def test_a_stranger_who_gets_a_name_stays_a_yardstick(self, world: FaceWorld) -> None:
        gallery, models = empty_gallery(), PersonModels(made_up_calibration())
        common = world.axis(40)
        ids = [
            gallery.add_person(
                "", [NewTemplate(unit(world.axis(k) + common), 0.9, HeadPose(0, 0, 0))], is_stranger=True
            ).person_id
            for k in range(8)
        ]
        query = unit(world.axis(30) + common)
        before = models.rank(query[None], [0.9], gallery.snapshot())[0]
        for person_id in ids:
            gallery.rename(person_id, person_id)
        after = models.rank(query[None], [0.9], gallery.snapshot())[0]
        assert max(h.log_ratio for h in after) == pytest.approx(max(h.log_ratio for h in before))
        assert all(not h.is_stranger for h in after)

    def test_a_stranger_from_a_family_stays_a_stranger(self, world: FaceWorld) -> None:
        """Without the yardstick this face would be named."""
        desk = Desk(world, minimum_probability=0.7)
        common = world.axis(40)

        def member(k: int) -> FloatArray:
            return unit(world.axis(k) + common)

        desk.gallery.add_person("P0", [NewTemplate(member(0), 0.9, HeadPose(0, 0, 0))])
        track = desk.track(member(30))
        assert desk.ask(track)[0].state is IdentityState.KNOWN
        for k in range(1, 12):
            desk.gallery.add_person(f"P{k}", [NewTemplate(member(k), 0.9, HeadPose(0, 0, 0))])
        assert desk.ask(track)[0].state is not IdentityState.KNOWN
        assert desk.ask(desk.track(member(0)))[0].name == "P0"

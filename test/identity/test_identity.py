"""Claims: rarely false, one face a person, no flapping, no renaming."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from face_world import FaceWorld, made_up_calibration, unit
from hypothesis import given
from hypothesis import strategies as st
from identity_desk import Desk, between

from face_recognition_node.config import IdentityConfig
from face_recognition_node.identity.identity import IdentityResolver
from face_recognition_node.identity.operating_point import operating_point
from face_recognition_node.tracking.evidence import TrackEvidence
from face_recognition_node.vision.faces import IdentityState


class TestClaims:
    def test_empty_gallery(self, desk: Desk, world: FaceWorld) -> None:
        (first,) = desk.ask(desk.track(world.embedding(0)))
        assert first.state is IdentityState.UNDECIDED  # one look is too little to call anybody a stranger
        (later,) = desk.ask(desk.track(*(world.embedding(0) for _ in range(4))))
        assert later.state is IdentityState.STRANGER
        assert later.person_id is None
        assert later.runner_up is None

    def test_who_may_be_one_of_many_is_no_stranger_yet(self, desk: Desk, world: FaceWorld) -> None:
        """The prior of each of many is small: it must not make a stranger of somebody who looks like one."""
        for person in range(30):
            desk.enroll(person, f"P{person}")
        for share, state in ((0.36, IdentityState.UNDECIDED), (0.0, IdentityState.STRANGER)):
            track = desk.track(*[between(world, 0, 50, share)] * 4)
            (identity,) = desk.ask(track)
            ratio = max(h.log_ratio for h in track.claim.matches)
            assert math.exp(ratio) / 30 < 0.1, "by the posterior alone it is nobody"
            assert identity.state is state

    def test_nothing_to_say_without_evidence(self, desk: Desk) -> None:
        desk.enroll(0, "Anna")
        (identity,) = desk.ask(desk.track())
        assert identity.state is IdentityState.UNDECIDED
        assert identity.evidence_age is None
        assert desk.ask() == []

    def test_enrolled_person_is_named_and_stranger_is_not(self, desk: Desk, world: FaceWorld) -> None:
        anna, bea = desk.enroll(0, "Anna"), desk.enroll(1, "Bea")
        named, unknown = desk.ask(
            desk.track(world.embedding(0)), desk.track(*(world.embedding(7) for _ in range(3)))
        )
        assert (named.state, named.person_id, named.name) == (IdentityState.KNOWN, anna, "Anna")
        assert named.probability > 0.9
        assert named.runner_up is not None
        assert named.runner_up.person_id == bea
        assert named.distance is not None
        assert 0 < named.distance < 1
        assert unknown.state is IdentityState.STRANGER
        assert unknown.name == ""

    def test_posterior_is_bayes(self, desk: Desk, world: FaceWorld) -> None:
        """Against a slow computation from the matches' own ratios."""
        for person in range(3):
            desk.enroll(person, f"P{person}")
        track = desk.track(between(world, 0, 1, 0.8))
        (identity,) = desk.ask(track)
        ratios = {h.person_id: h.log_ratio for h in track.claim.matches}
        weights = {person_id: 0.5 / 3 * math.exp(ratio) for person_id, ratio in ratios.items()}
        total = 0.5 + sum(weights.values())
        assert identity.person_id is not None
        assert identity.probability == pytest.approx(weights[identity.person_id] / total)
        assert identity.runner_up is not None
        assert identity.runner_up.probability == pytest.approx(weights[identity.runner_up.person_id] / total)

    @given(st.integers(1, 10_000), st.floats(1e-6, 0.5), st.floats(1.0, 10.0))
    def test_limit_is_the_union_bound(self, n_enrolled: int, target: float, comparisons: float) -> None:
        calibration = replace(made_up_calibration(), comparisons_per_track=comparisons)
        resolver = IdentityResolver(calibration, IdentityConfig(target_false_accept_rate=target), 0.02)
        expected = target / (1.0 + math.log(comparisons)) / n_enrolled / comparisons
        assert math.exp(resolver.log_limit(n_enrolled)) == pytest.approx(expected)

    @pytest.mark.parametrize(("n_views", "n_comparisons"), [(0.0, 1.0), (1.0, 1.0), (2.5, 2.5), (40.0, 4.0)])
    def test_a_view_is_one_comparison_and_a_track_no_more_than_its_comparisons(
        self, n_views: float, n_comparisons: float
    ) -> None:
        calibration = replace(made_up_calibration(), comparisons_per_track=4.0)
        expected = math.log(0.02 / (1.0 + math.log(4.0)) / 3 / n_comparisons)
        assert calibration.log_name_limit(0.02, 3, n_views) == pytest.approx(expected)

    @pytest.mark.parametrize(("rate_hz", "seconds"), [(1.0, 60), (4.0, 30), (100.0, 10)])
    def test_all_comparisons_of_a_track_together_spend_the_target(self, rate_hz: float, seconds: int) -> None:
        """At any frame rate; nearly all of it is spent if the frames are many."""
        calibration = replace(made_up_calibration(), comparisons_per_track=4.0)
        evidence = TrackEvidence(calibration.correlation_s)
        spent = 0.0
        for k in range(int(rate_hz * seconds)):
            before = min(evidence.effective_views, calibration.comparisons_per_track)
            evidence.add(np.ones(8, np.float32), 1.0, k / rate_hz)
            n_views = evidence.effective_views
            new_comparisons = min(n_views, calibration.comparisons_per_track) - before
            spent += 3 * new_comparisons * math.exp(calibration.log_name_limit(0.02, 3, n_views))
        assert spent <= 0.02
        assert spent >= (0.019 if rate_hz == 100.0 else 0.015)

    def test_a_single_view_names_who_is_too_unlike_for_a_whole_track(self, world: FaceWorld) -> None:
        """A stranger's one view has one chance to be mistaken; a long track has several."""
        desk = Desk(world, calibration=replace(made_up_calibration(), comparisons_per_track=1000.0))
        desk.enroll(0, "Anna")
        face = between(world, 0, 9, 0.6)
        assert desk.ask(desk.track(face))[0].state is not IdentityState.KNOWN  # one person is no yardstick
        desk.enroll(1, "Berta")
        assert desk.ask(desk.track(face))[0].state is IdentityState.KNOWN
        assert desk.ask(desk.track(*[face] * 400))[0].state is not IdentityState.KNOWN

    def test_the_operating_point_counts_a_single_view_as_one_comparison(self, desk: Desk) -> None:
        """For the same share of the target, how long a track can be changes nothing for its first view."""
        for person in range(3):
            desk.enroll(person, f"P{person}")
        share = 0.01
        points = []
        for comparisons in (1.0, 1000.0):
            target = share * (1.0 + math.log(comparisons))
            config = IdentityConfig(target_false_accept_rate=target)
            calibration = replace(made_up_calibration(), comparisons_per_track=comparisons)
            points.append(operating_point(calibration, config, desk.gallery.snapshot()))
            assert 0.0 < points[-1].strangers_named <= target
        assert points[0].people_named == points[1].people_named > 0.0

    def test_a_stricter_target_takes_effect_on_the_next_frame(self, desk: Desk, world: FaceWorld) -> None:
        desk.enroll(0, "Anna")
        track = desk.track(between(world, 0, 9, 0.6))
        assert desk.ask(track)[0].state is IdentityState.KNOWN
        desk.resolver.config = IdentityConfig(target_false_accept_rate=1e-6)
        assert desk.ask(track)[0].state is not IdentityState.KNOWN

    def test_more_people_need_more_likeness(self, world: FaceWorld) -> None:
        share = 0.58
        few, many = Desk(world), Desk(world)
        few.enroll(0, "Anna")
        for person in range(40):
            many.enroll(person, f"P{person}", 1)
        assert few.ask(few.track(between(world, 0, 50, share)))[0].state is IdentityState.KNOWN
        assert many.ask(many.track(between(world, 0, 50, share)))[0].state is IdentityState.UNDECIDED

    def test_no_name_between_two_people(self, desk: Desk, world: FaceWorld) -> None:
        """As much of the one as of the other: nobody is claimed."""
        desk.enroll(0, "Anna")
        desk.enroll(1, "Bea")
        (identity,) = desk.ask(desk.track(between(world, 0, 1, math.sqrt(0.5))))
        assert identity.state is IdentityState.UNDECIDED

    def test_poor_views_count_little(self, desk: Desk, world: FaceWorld) -> None:
        desk.enroll(0, "Anna")
        track = desk.track(world.embedding(0))
        for _ in range(5):
            desk.show(track, world.embedding(8), quality=0.1)
        assert desk.ask(track)[0].name == "Anna"


class TestOneFaceAPerson:
    def test_the_better_face_gets_the_name(self, desk: Desk, world: FaceWorld) -> None:
        desk.enroll(0, "Anna")
        good, poor = desk.track(between(world, 0, 5, 0.95)), desk.track(between(world, 0, 6, 0.75))
        assert [identity.name for identity in desk.ask(poor, good)] == ["", "Anna"]

    def test_optimal_not_greedy(self, desk: Desk, world: FaceWorld) -> None:
        """The first face likes Anna best, but the second can be nobody else."""
        desk.enroll(0, "Anna")
        desk.enroll(1, "Bea")
        desk.resolver.config = IdentityConfig(minimum_probability=0.5)
        both = unit(world.axis(0) * 0.71 + world.axis(1) * 0.69)
        names = [
            identity.name for identity in desk.ask(desk.track(both), desk.track(between(world, 0, 9, 0.7)))
        ]
        assert names[1] == "Anna"
        assert names[0] in ("Bea", "")

    def test_the_incumbent_keeps_the_name_against_an_equal(self, desk: Desk, world: FaceWorld) -> None:
        desk.enroll(0, "Anna")
        first, second = desk.track(world.axis(0)), desk.track(world.axis(0))
        assert desk.ask(first)[0].name == "Anna"
        for order in ((first, second), (second, first)):
            names = {t.track_id: i.name for t, i in zip(order, desk.ask(*order), strict=True)}
            assert names == {first.track_id: "Anna", second.track_id: ""}


class TestContinuity:
    def test_hysteresis(self, desk: Desk, world: FaceWorld) -> None:
        """A little below the line a claim stands, but is not made."""
        for person in range(10):
            desk.enroll(person, f"P{person}")
        desk.resolver.config = IdentityConfig(target_false_accept_rate=1e-3)
        doubtful = between(world, 0, 40, 0.56)
        assert desk.ask(desk.track(doubtful))[0].state is not IdentityState.KNOWN
        track = desk.track(world.embedding(0))
        assert desk.ask(track)[0].name == "P0"
        track.evidence = TrackEvidence(0.4)
        for _ in range(3):
            desk.show(track, doubtful)
        assert desk.ask(track)[0].name == "P0"
        for _ in range(20):
            desk.show(track, world.axis(41))
        assert desk.ask(track)[0].state is not IdentityState.KNOWN

    def test_a_name_is_never_exchanged_on_one_track(self, desk: Desk, world: FaceWorld) -> None:
        desk.enroll(0, "Anna")
        desk.enroll(1, "Bea")
        track = desk.track(world.embedding(0))
        assert desk.ask(track)[0].name == "Anna"
        track.evidence = TrackEvidence(0.4)
        for _ in range(2):
            desk.show(track, world.embedding(1))
        (identity,) = desk.ask(track)
        assert identity.name == "Bea"
        assert desk.last_tracks[0].track_id != track.track_id
        again = desk.last_tracks[0]
        assert desk.ask(again)[0].name == "Bea"
        assert desk.last_tracks[0] is again

    def test_a_suspicious_track_bears_no_name(self, desk: Desk, world: FaceWorld) -> None:
        desk.enroll(0, "Anna")
        track = desk.track(world.embedding(0))
        track.contradiction = -1.2
        assert desk.ask(track)[0].state is IdentityState.UNDECIDED
        track.contradiction = 0.0
        assert desk.ask(track)[0].name == "Anna"

    def test_a_claim_lapses_without_support(self, desk: Desk, world: FaceWorld) -> None:
        desk.enroll(0, "Anna")
        track = desk.track(world.embedding(0))
        (fresh,) = desk.ask(track)
        assert fresh.evidence_age == 0.0
        desk.stamp += 4.0
        (older,) = desk.ask(track)
        assert older.name == "Anna"
        assert older.evidence_age == 4.0
        desk.stamp += 60.0
        assert desk.ask(track)[0].state is not IdentityState.KNOWN

    def test_a_face_that_turns_slowly_into_another_loses_the_name(self, desk: Desk, world: FaceWorld) -> None:
        """The pooled evidence remembers Anna as long as the track lasts; only views keep a claim alive."""
        desk.enroll(0, "Anna")
        track = desk.track(*(world.embedding(0) for _ in range(20)))
        assert desk.ask(track)[0].name == "Anna"
        for step in range(40):
            angle = math.pi / 2 * step / 40
            desk.show(track, between(world, 0, 9, math.cos(angle)))
            desk.ask(track)
        names = []
        for _ in range(44):
            desk.show(track, world.axis(9))
            names.append(desk.ask(track)[0].name)
        assert set(names[22:]) == {""}, "at most claim_timeout_s after the last view that shows her"
        for _ in range(15):
            desk.show(track, world.axis(0))
            (again,) = desk.ask(track)
        assert again.name == "Anna"


class TestGalleryEdits:
    def test_rename_merge_and_forget_show_in_the_next_frame(self, desk: Desk, world: FaceWorld) -> None:
        anna = desk.enroll(0, "Jane")
        track = desk.track(world.embedding(0))
        assert desk.ask(track)[0].name == "Jane"
        desk.gallery.rename(anna, "Jayne")
        assert desk.ask(track)[0].name == "Jayne"
        other = desk.enroll(0, "the same")
        desk.gallery.merge(other, anna)
        (merged,) = desk.ask(track)
        assert (merged.name, merged.person_id) == ("the same", other)
        assert desk.last_tracks[0] is track  # the same person under another id is no new track
        desk.gallery.forget(other, final=True)
        assert desk.ask(track)[0].state is not IdentityState.KNOWN

    def test_a_person_enrolled_while_visible(self, desk: Desk, world: FaceWorld) -> None:
        track = desk.track(*(world.embedding(0) for _ in range(3)))
        assert desk.ask(track)[0].state is IdentityState.STRANGER
        desk.enroll(0, "Anna")
        assert desk.ask(track)[0].name == "Anna"

    def test_a_known_stranger_gets_the_id_and_then_the_name(self, desk: Desk, world: FaceWorld) -> None:
        stranger = desk.enroll(3, "", is_stranger=True)
        track = desk.track(world.embedding(3))
        (identity,) = desk.ask(track)
        assert (identity.state, identity.person_id) == (IdentityState.STRANGER, stranger)
        carl = desk.gallery.rename(stranger, "Carl").person_id
        (named,) = desk.ask(track)
        assert (named.state, named.person_id, named.name) == (IdentityState.KNOWN, carl, "Carl")

    def test_two_people_of_one_name(self, desk: Desk, world: FaceWorld) -> None:
        first, second = desk.enroll(0, "Alex"), desk.enroll(1, "Alex")
        identities = desk.ask(desk.track(world.embedding(0)), desk.track(world.embedding(1)))
        assert [identity.person_id for identity in identities] == [first, second]


def test_a_face_stored_under_two_names_is_claimed_under_one_of_them() -> None:
    world = FaceWorld()
    desk = Desk(world)
    first = desk.enroll(0, "Anna", 5)
    second = desk.enroll(0, "Annette", 3)
    desk.enroll(1, "Bob")
    track = desk.track(*(world.embedding(0) for _ in range(3)))
    names = []
    for _ in range(12):
        desk.show(track, world.embedding(0))
        (identity,) = desk.ask(track)
        (track,) = desk.last_tracks
        names.append(identity.person_id)
        assert identity.state is IdentityState.KNOWN
        assert identity.probability > 0.9
        assert identity.runner_up is None or identity.runner_up.person_id not in (first, second)
    assert len(set(names)) == 1
    assert names[0] in (first, second)
    assert track.track_id == 1, "the track is not split between the two"

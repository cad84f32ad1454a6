"""Tracks: continued by position, found again and split by look; costs and assignment against slow loops."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest
from face_world import FaceWorld, made_up_calibration
from hypothesis import given
from hypothesis import strategies as st

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.common.parameters import with_values
from face_recognition_node.config import TrackerConfig
from face_recognition_node.identity.comparison import log_likelihood_ratios
from face_recognition_node.tracking.association import GATE, contested, position_costs, solve
from face_recognition_node.tracking.evidence import TrackEvidence
from face_recognition_node.tracking.tracker import Observation, Track, Tracker
from face_recognition_node.vision.faces import Detection
from face_recognition_node.vision.flatness import Bulge

EYES = np.array([[-0.2, -0.1], [0.2, -0.1], [0.0, 0.1], [-0.15, 0.27], [0.15, 0.27]])


def detection(x: float, y: float = 100.0, size: float = 60.0) -> Detection:
    half = size / 2
    return Detection(np.array([x - half, y - half, x + half, y + half]), 0.99, EYES * size + (x, y))


def make_tracker(**values: float) -> Tracker:
    return Tracker(
        partial(log_likelihood_ratios, made_up_calibration()), 0.4, with_values(TrackerConfig(), values)
    )


class Scene:
    """Feeds a tracker at 20 Hz."""

    def __init__(self, tracker: Tracker, period: float = 0.05) -> None:
        self.tracker, self.period, self.stamp = tracker, period, 0.0

    def step(self, *faces: tuple[Detection, Observation | None]) -> list[Track]:
        self.stamp += self.period
        detections = [face[0] for face in faces]
        plan = self.tracker.plan(detections, self.stamp)
        return self.tracker.update(plan, detections, [face[1] for face in faces], self.stamp)

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / self.period)):
            self.step()


@pytest.fixture
def world() -> FaceWorld:
    return FaceWorld(seed=3)


def look(world: FaceWorld, person: int, quality: float = 0.9) -> Observation:
    return Observation(world.embedding(person), quality)


class TestAssociation:
    @given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 10_000))
    def test_costs_equal_a_slow_loop(self, n_tracks: int, n_faces: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        old, new = rng.uniform(0, 200, (n_tracks, 2)), rng.uniform(0, 200, (n_faces, 2))
        sizes, new_sizes, gaps = (
            rng.uniform(20, 99, n_tracks),
            rng.uniform(20, 99, n_faces),
            rng.uniform(0, 2, n_tracks),
        )
        costs = position_costs(old, sizes, gaps, new, new_sizes)
        assert costs.shape == (n_tracks, n_faces)
        for t, d in itertools.product(range(n_tracks), range(n_faces)):
            gap = min(gaps[t], 0.5)
            spread = math.sqrt(sizes[t] * new_sizes[d]) * (0.1 + 3.5 * gap)
            step = math.dist(old[t], new[d]) / spread
            growth = math.log(new_sizes[d] / sizes[t]) / (0.1 + gap)
            cost = (step**2 + growth**2) / 2
            assert costs[t, d] == pytest.approx(cost if cost <= GATE else math.inf, rel=1e-4)

    @given(st.integers(0, 4), st.integers(0, 4), st.integers(0, 10_000))
    def test_assignment_is_the_cheapest_of_all(self, n_tracks: int, n_faces: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        costs = rng.uniform(-5, 8, (n_tracks, n_faces))
        costs[rng.random(costs.shape) < 0.3] = np.inf
        leaving = 4.0

        def best(t: int, free: frozenset[int]) -> float:
            if t == n_tracks:
                return 0.0
            options = [leaving + best(t + 1, free)]
            options += [costs[t, d] + best(t + 1, free - {d}) for d in free if np.isfinite(costs[t, d])]
            return min(options)

        pairs = solve(costs, leaving)
        assert len({t for t, _ in pairs}) == len({d for _, d in pairs}) == len(pairs)
        total = sum(costs[t, d] for t, d in pairs) + leaving * (n_tracks - len(pairs))
        assert total == pytest.approx(best(0, frozenset(range(n_faces))))

    def test_nothing_to_assign(self) -> None:
        assert solve(np.zeros((0, 3)), 4.0) == []
        assert solve(np.zeros((3, 0)), 4.0) == []
        assert solve(np.full((2, 2), np.inf), 4.0) == []

    def test_contested_where_position_cannot_tell(self) -> None:
        inf = np.inf
        assert contested(np.array([[1.0, inf], [inf, 1.0]])).tolist() == [False, False]
        assert contested(np.array([[1.0], [2.0]])).tolist() == [True]
        assert contested(np.array([[1.0, 2.0]])).tolist() == [True, True]
        assert contested(np.zeros((0, 2))).tolist() == [False, False]


class TestEvidence:
    def test_empty(self) -> None:
        evidence = TrackEvidence(0.4)
        assert evidence.embedding is None
        assert evidence.quality == 0.0
        evidence.add(np.eye(64, dtype=np.float32)[0], 0.0, 1.0)
        assert evidence.embedding is None  # a view without quality says nothing

    def test_ten_neighbouring_frames_weigh_little_more_than_one(self, world: FaceWorld) -> None:
        evidence = TrackEvidence(0.4)
        for k in range(10):
            evidence.add(world.embedding(0), 0.9, 0.01 * k)
        assert 1.0 < evidence.effective_views < 1.3
        late = TrackEvidence(0.4)
        for k in range(10):
            late.add(world.embedding(0), 0.9, 4.0 * k)
        assert late.effective_views == pytest.approx(10.0, abs=0.01)

    def test_pool_is_the_weighted_sum(self, world: FaceWorld) -> None:
        evidence, total, weights = TrackEvidence(0.4), np.zeros(64), []
        views = [
            (world.embedding(0), quality, stamp) for quality, stamp in ((0.9, 0.0), (0.3, 0.2), (0.7, 1.5))
        ]
        for k, (embedding, quality, stamp) in enumerate(views):
            evidence.add(embedding, quality, stamp)
            share = 1.0 if k == 0 else 1.0 - math.exp(-(stamp - views[k - 1][2]) / 0.4)
            total += quality**2 * share * embedding
            weights.append((quality**2 * share, quality))
        assert evidence.embedding == pytest.approx(total / np.linalg.norm(total), abs=1e-5)
        expected = sum(w * q for w, q in weights) / sum(w for w, _ in weights)
        assert evidence.quality == pytest.approx(expected)

    def test_rate_does_not_matter(self, world: FaceWorld) -> None:
        slow, fast = TrackEvidence(0.4), TrackEvidence(0.4)
        for k in range(21):
            slow.add(world.axis(0), 0.9, 0.1 * k)
        for k in range(81):
            fast.add(world.axis(0), 0.9, 0.025 * k)
        assert fast.effective_views == pytest.approx(slow.effective_views, rel=0.15)

    def test_long_track_follows_a_changing_look(self, world: FaceWorld) -> None:
        evidence = TrackEvidence(0.4)
        for k in range(200):
            evidence.add(world.axis(0), 1.0, 2.0 * k)
        for k in range(100):
            evidence.add(world.axis(1), 1.0, 400.0 + 2.0 * k)
        pooled = evidence.embedding
        assert pooled is not None
        assert pooled @ world.axis(1) > pooled @ world.axis(0)


class TestTracks:
    def test_a_moving_face_keeps_its_number(self, world: FaceWorld) -> None:
        scene = Scene(make_tracker())
        numbers = {scene.step((detection(100 + 9 * k), look(world, 0)))[0].track_id for k in range(30)}
        assert len(numbers) == 1

    def test_empty_frames(self) -> None:
        scene = Scene(make_tracker())
        assert scene.step() == []
        scene.wait(1.0)
        assert scene.tracker.tracks == ()

    def test_a_tiny_face_is_followed_by_position(self) -> None:
        scene = Scene(make_tracker())
        numbers = {scene.step((detection(100 + k, size=16), None))[0].track_id for k in range(20)}
        assert len(numbers) == 1

    def test_short_occlusion_keeps_the_number(self, world: FaceWorld) -> None:
        scene = Scene(make_tracker())
        for _ in range(10):
            (before,) = scene.step((detection(100), look(world, 0)))
        scene.wait(1.5)
        (after,) = scene.step((detection(180), look(world, 0)))
        assert after.track_id == before.track_id

    def test_after_a_gap_position_alone_is_not_enough(self, world: FaceWorld) -> None:
        scene = Scene(make_tracker())
        for _ in range(10):
            (before,) = scene.step((detection(100), look(world, 0)))
        scene.wait(0.5)
        (somebody_else,) = scene.step((detection(100), look(world, 1)))
        assert somebody_else.track_id != before.track_id
        scene.wait(0.5)
        (unseen,) = scene.step((detection(100), None))
        assert unseen.track_id not in (before.track_id, somebody_else.track_id)

    @pytest.mark.parametrize(("x", "is_found"), [(400, True), (708, False)])
    def test_a_lost_face_is_found_again_only_within_reach(
        self, world: FaceWorld, x: float, is_found: bool
    ) -> None:
        """A face of 50 px was found again half a second later in one like it, 608 px away."""
        scene = Scene(make_tracker())
        (before,) = scene.step((detection(100), look(world, 0)))
        scene.step()
        scene.stamp += 0.3
        (after,) = scene.step((detection(x), look(world, 0)))
        assert (after is before) is is_found

    def test_a_face_unseen_for_long_is_given_up(self, world: FaceWorld) -> None:
        scene = Scene(make_tracker(lost_after_s=1.0))
        (before,) = scene.step((detection(100), look(world, 0)))
        scene.wait(1.5)
        (after,) = scene.step((detection(100), look(world, 0)))
        assert after.track_id != before.track_id

    def test_a_speck_without_a_look_contests_nobody_once_it_is_gone(self, world: FaceWorld) -> None:
        """False detections flicker; the faces around them would be embedded in every frame for seconds."""
        scene = Scene(make_tracker())
        faces = [(detection(100), look(world, 0)), (detection(400), look(world, 1))]
        for _ in range(10):
            scene.step(*faces)
        scene.step(*faces, (detection(200, size=50), None))
        for _ in range(6):  # 0.3 s: more than continuity_s
            scene.step(*faces)
        plan = scene.tracker.plan([face[0] for face in faces], scene.stamp + 0.05)
        assert len(plan.tracks) == 2
        assert not plan.contested.any()

    def test_somebody_lost_contests_whom_he_may_come_back_as(self, world: FaceWorld) -> None:
        scene = Scene(make_tracker())
        faces = [(detection(100), look(world, 0)), (detection(200, size=50), look(world, 1))]
        for _ in range(10):
            scene.step(*faces)
        for _ in range(10):
            scene.step(faces[0])
        plan = scene.tracker.plan([faces[0][0]], scene.stamp + 0.05)
        assert len(plan.tracks) == 2
        assert plan.contested.all()

    def test_another_face_in_the_same_place_at_once(self, world: FaceWorld) -> None:
        scene = Scene(make_tracker())
        for _ in range(10):
            (before,) = scene.step((detection(100), look(world, 0)))
        (after,) = scene.step((detection(100), look(world, 1)))
        assert after.track_id != before.track_id
        assert after.evidence.embedding is not None
        assert float(after.evidence.embedding @ world.axis(0)) < 0.5

    def test_mild_contradiction_splits_only_when_it_lasts(self, world: FaceWorld) -> None:
        halfway = Observation(
            (world.axis(0) * 0.15 + world.axis(1) * math.sqrt(1 - 0.15**2)).astype(np.float32), 0.9
        )
        scene = Scene(make_tracker())
        for _ in range(10):
            (before,) = scene.step((detection(100), Observation(world.axis(0), 0.9)))
        (once,) = scene.step((detection(100), halfway))
        assert once.track_id == before.track_id
        assert once.contradiction < 0
        (again,) = scene.step((detection(100), Observation(world.axis(0), 0.9)))
        assert again.contradiction == 0
        numbers = [scene.step((detection(100), halfway))[0].track_id for _ in range(40)]
        assert numbers[0] == before.track_id
        assert numbers[-1] != before.track_id

    def test_a_split_face_is_found_again(self, world: FaceWorld) -> None:
        scene = Scene(make_tracker())
        for _ in range(10):
            (before,) = scene.step((detection(100), look(world, 0)))
        for _ in range(10):
            (hidden,) = scene.step((detection(100), look(world, 5)))  # a hand, say
        (after,) = scene.step((detection(100), look(world, 0)))
        assert hidden.track_id != before.track_id
        assert after.track_id == before.track_id

    @pytest.mark.parametrize("dropout", [0, 4, 10])
    def test_two_people_cross_ten_times(self, world: FaceWorld, dropout: int) -> None:
        """While they overlap, only one face is found, for ``dropout`` frames."""
        scene = Scene(make_tracker())
        (left, right) = scene.step((detection(60), look(world, 0)), (detection(340), look(world, 1)))
        numbers = {0: left.track_id, 1: right.track_id}
        for k in range(1, 400):
            swing = 140 * math.cos(k * math.pi / 40)
            faces = [(detection(200 - swing), look(world, 0)), (detection(200 + swing), look(world, 1))]
            who = [0, 1]
            if abs(k % 40 - 20) < dropout / 2:
                faces, who = faces[:1], [0]
            for person, track in zip(who, scene.step(*faces), strict=True):
                assert track.track_id == numbers[person], f"frame {k}"

    def test_numbers_are_never_reused(self, world: FaceWorld) -> None:
        scene = Scene(make_tracker())
        (first,) = scene.step((detection(100), look(world, 0)))
        scene.tracker.reset()
        (second,) = scene.step((detection(100), look(world, 0)))
        third = scene.tracker.renew(second)
        assert first.track_id < second.track_id < third.track_id
        assert scene.tracker.tracks == (third,)
        assert third.evidence is second.evidence

    def test_parameters_are_checked(self) -> None:
        with pytest.raises(ConfigurationError, match="at least"):
            TrackerConfig(lost_after_s=-1.0)


def test_flatness_is_by_depth_before_motion_and_says_so() -> None:
    track = Track(1, detection(100.0), 0.0, 0.0, TrackEvidence(0.4))
    assert (track.flatness, track.flatness_source, track.is_flat) == ("unverified", "", False)
    track.motion.verdict = "flat"
    assert (track.flatness, track.flatness_source, track.is_flat) == ("flat", "motion", True)
    for _ in range(10):
        track.bulge.add(Bulge(0.02, 0.002))
    assert (track.flatness, track.flatness_source, track.is_flat) == ("solid", "depth", False)

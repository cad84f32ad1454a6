"""Calibration: tables are read rightly, fits recover known densities, measures equal slow computation."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from calibration_people import population
from face_world import random_calibration
from hypothesis import given
from hypothesis import strategies as st

from face_recognition_node.common.errors import InputError, ModelMismatchError
from face_recognition_node.common.resources import models_directory
from face_recognition_node.evaluation.calibration import (
    Scores,
    draw_faces_of_level,
    fit_calibration,
    fit_cell,
    fit_prototypes,
    measure_correlation_time,
    score_pairs,
)
from face_recognition_node.evaluation.calibration_report import (
    cllr,
    draw_reliability,
    expected_calibration_error,
    judge_calibration,
    minimum_cllr,
    reliability,
)
from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.vision.model_card import ModelCard


@pytest.fixture(scope="module")
def fitted() -> Calibration:
    return fit_calibration(population(), embedder_sha256="abc", comparisons_per_track=1.0, correlation_s=0.3)


@pytest.mark.slow
def test_a_level_with_few_faces_of_its_own_is_fitted_on_the_nearest() -> None:
    faces = population()
    good = faces.take(np.flatnonzero(faces.qualities >= np.quantile(faces.qualities, 0.5)))
    lowest = draw_faces_of_level(good, 0, np.random.default_rng(0))
    assert len(lowest) == min(1000, len(good))
    assert lowest.qualities.max() <= np.sort(good.qualities)[len(lowest) - 1]
    fit_calibration(good, embedder_sha256="abc", comparisons_per_track=1.0, correlation_s=0.3)


class TestTables:
    @given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1))
    def test_reading_equals_a_slow_interpolation(
        self, similarity: float, first: float, second: float
    ) -> None:
        calibration = random_calibration()
        grid = calibration.similarities.astype(float)
        levels = calibration.qualities.astype(float)

        def at(a: int, b: int) -> float:
            return float(np.interp(similarity, grid, calibration.ratio[a, b]))

        columns = [float(np.interp(second, levels, [at(a, b) for b in range(3)])) for a in range(3)]
        expected = float(np.interp(first, levels, columns))
        got = float(calibration.log_likelihood_ratio(similarity, first, second))
        assert got == pytest.approx(expected, abs=1e-4)

    @given(st.floats(0, 1), st.floats(0, 1))
    def test_monotone_and_symmetric(self, first: float, second: float) -> None:
        calibration, grid = random_calibration(), np.linspace(-1, 1, 99)
        ratio = calibration.log_likelihood_ratio(grid, first, second)
        assert (np.diff(ratio) >= -1e-9).all()
        assert ratio == pytest.approx(calibration.log_likelihood_ratio(grid, second, first), abs=1e-6)
        assert (np.diff(calibration.log_false_match(grid, first, second)) <= 1e-9).all()

    def test_shapes_broadcast(self) -> None:
        calibration = random_calibration()
        assert calibration.log_likelihood_ratio(np.zeros((4, 1)), np.zeros(3), 0.5).shape == (4, 3)
        assert calibration.log_likelihood_ratio(0.5, 0.5, 0.5).shape == ()
        assert calibration.log_false_match(np.zeros(0), 0.5, 0.5).shape == (0,)

    def test_hubness_is_the_mean_of_the_nearest_prototypes(self) -> None:
        calibration = random_calibration()
        queries = calibration.prototypes[:5]
        expected = [sorted((q @ calibration.prototypes.T).tolist())[-3:] for q in queries]
        assert calibration.hubness(queries) == pytest.approx(np.mean(expected, axis=1), abs=1e-6)
        assert calibration.hubness(np.zeros((0, 8))).shape == (0,)

    def test_a_common_face_needs_more_similarity(self) -> None:
        calibration = random_calibration()
        plain = calibration.log_likelihood_ratio(0.4, 0.5, 0.5)
        assert calibration.log_likelihood_ratio(0.4, 0.5, 0.5, hubness=0.3) == pytest.approx(plain)
        assert calibration.log_likelihood_ratio(0.4, 0.5, 0.5, hubness=0.5) < plain
        assert float(calibration.correct(0.4, 0.5)) == pytest.approx(0.4 - 0.7 * 0.2)

    @pytest.mark.slow
    def test_different_people_are_described_by_the_table(self, fitted: Calibration) -> None:
        faces = population(seed=5)
        best = faces.take(np.flatnonzero(faces.qualities > 0.9))
        hubness = fitted.hubness(best.embeddings)
        scores = fitted.correct(
            best.embeddings @ best.embeddings.T, (hubness[:, None] + hubness[None, :]) / 2
        )
        unlike = scores[best.identities[:, None] != best.identities[None, :]]
        mean, spread = fitted.different_people
        assert mean == pytest.approx(unlike.mean(), abs=0.02)
        assert spread == pytest.approx(unlike.std(), rel=0.05)


class TestCard:
    def test_round_trip(self) -> None:
        before = random_calibration()
        numbers, tables = before.to_tables()
        after = Calibration.from_tables(json.loads(json.dumps(numbers)), tables)
        assert np.array_equal(after.ratio, before.ratio)
        assert np.array_equal(after.false_match, before.false_match)
        assert np.array_equal(after.prototypes, before.prototypes)
        assert (after.neighbours, after.weight, after.comparisons_per_track, after.correlation_s) == (
            3,
            0.7,
            2.0,
            0.4,
        )

    @pytest.mark.parametrize(
        "missing", ["qualities", "prototypes", "comparisons_per_track", "log_false_match"]
    )
    def test_damage_is_named_with_its_cure(self, missing: str) -> None:
        numbers, tables = random_calibration().to_tables()
        numbers, tables = ({k: v for k, v in part.items() if k != missing} for part in (numbers, tables))
        with pytest.raises(ModelMismatchError, match="face-recognition calibrate"):
            Calibration.from_tables(numbers, tables)

    def test_other_formats_and_truncated_tables(self) -> None:
        numbers, tables = random_calibration().to_tables()
        with pytest.raises(ModelMismatchError, match="format"):
            Calibration.from_tables({**numbers, "format": 99}, tables)
        with pytest.raises(ModelMismatchError):
            Calibration.from_tables(numbers, {**tables, "log_false_match": tables["log_false_match"][:-1]})

    def test_the_card_in_the_package(self) -> None:
        card = ModelCard.read(models_directory() / "efficientnet_b0_64.json")
        calibration = Calibration.from_card(card)
        grid = np.linspace(-0.5, 1.0, 50)
        for quality in (0.3, 0.6, 0.95):
            ratio = calibration.log_likelihood_ratio(grid, quality, 0.95)
            assert (np.diff(ratio) >= -1e-9).all()
            assert ratio[0] < -2 < 5 < ratio[-1]
        far, near = calibration.log_likelihood_ratio(0.6, np.array([0.3, 0.95]), 0.95)
        assert math.isfinite(far)
        assert math.isfinite(near)

    def test_calibration_of_other_weights_is_refused(self) -> None:
        card = ModelCard.read(models_directory() / "efficientnet_b0_64.json")
        with pytest.raises(ModelMismatchError, match="calibrate"):
            Calibration.from_card(
                replace(card, calibration={**(card.calibration or {}), "embedder_sha256": "0" * 64})
            )
        with pytest.raises(ModelMismatchError, match="holds no calibration"):
            Calibration.from_card(replace(card, calibration=None))


class TestFitting:
    def test_recovers_gaussians(self) -> None:
        rng = np.random.default_rng(0)
        same, different = rng.normal(0.6, 0.12, 6000), rng.normal(0.0, 0.12, 2_000_000)
        ratio, rate = fit_cell(Scores(same, np.ones(len(same)), different))
        grid = np.round(np.arange(-0.6, 1.001, 0.02), 2)

        # what the fit says it does: smooth the densities, and mix half a percent of "anything" into the same
        def normal(x: np.ndarray, mean: float, width: float) -> np.ndarray:
            return np.exp(-0.5 * ((x - mean) / width) ** 2) / (width * math.sqrt(2 * math.pi))

        alike = 0.995 * normal(grid, 0.6, math.hypot(0.12, 0.04)) + 0.005 / 2.0
        exact = np.log(alike) - np.log(normal(grid, 0.0, math.hypot(0.12, 0.02)))
        inside = (grid >= 0.05) & (grid <= 0.5)
        assert np.abs(ratio - exact)[inside].max() < 0.45
        assert (np.diff(ratio) >= 0).all()
        survival = np.log([0.5 * math.erfc(s / 0.12 / math.sqrt(2)) for s in grid])
        measured = (grid > -0.3) & (grid < 0.5)
        assert np.abs(rate - survival)[measured].max() < 0.15
        beyond = grid > 0.6
        assert (rate[beyond] >= survival[beyond]).all()  # the tail is never promised thinner than it is
        assert rate.min() == pytest.approx(math.log(1e-6))

    def test_too_little_data_is_refused(self) -> None:
        with pytest.raises(InputError, match="give more people"):
            fit_cell(Scores(np.ones(10), np.ones(10), np.ones(10)))

    def test_pairs_against_a_slow_loop(self) -> None:
        faces = population(6, seed=2).take(np.arange(0, 180, 7))
        scores = score_pairs(faces, faces, lambda a, b: (a.embeddings @ b.embeddings.T).astype(np.float64))
        same, different = [], []
        for i in range(len(faces)):
            for j in range(len(faces)):
                value = float(faces.embeddings[i] @ faces.embeddings[j])
                if faces.identities[i] != faces.identities[j]:
                    different.append(value)
                elif faces.photographs[i] != faces.photographs[j]:
                    same.append(value)
        assert np.sort(scores.same) == pytest.approx(np.sort(same), abs=1e-5)
        assert np.sort(scores.different) == pytest.approx(np.sort(different), abs=1e-5)

    def test_prototypes_are_unit_vectors_near_the_faces(self) -> None:
        faces = population(60).embeddings
        centers = fit_prototypes(faces, 20)
        assert np.linalg.norm(centers, axis=1) == pytest.approx(1.0, abs=1e-4)
        assert (faces @ centers.T).max(axis=1).mean() > (faces @ faces[:20].T).max(axis=1).mean()

    @pytest.mark.slow
    def test_promises_hold_on_other_people(self, fitted: Calibration) -> None:
        judgement = judge_calibration(fitted, population(seed=9))
        assert judgement.expected_calibration_error < 0.03
        assert judgement.cllr < judgement.cllr_minimum + 0.03
        for promised, measured in judgement.false_match[:3]:
            assert 0.6 < measured / promised < 1.7
        costs = [level.cllr for level in judgement.levels]
        assert costs[0] > costs[-1]  # the poorest faces tell least
        assert "Cllr" in str(judgement)
        json.dumps(asdict(judgement))
        assert judgement.left_out == ()
        assert "not judged" not in str(judgement)

    def test_qualities_with_too_few_faces_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are in no figure of the report."""
        monkeypatch.setattr("face_recognition_node.evaluation.calibration._LEAST_FACES", 1)
        people = population(12, seed=9)
        people = replace(people, embeddings=people.embeddings[:, :8])
        assert judge_calibration(random_calibration(), people).left_out == ()
        sharp_or_single = (people.qualities > 0.5) | (people.photographs % 5 == 0)
        judgement = judge_calibration(random_calibration(), people.take(np.flatnonzero(sharp_or_single)))
        assert "0.3 x 0.3" in judgement.left_out
        assert "0.95 x 0.95" not in judgement.left_out
        assert f"not judged, too few faces of such qualities: {judgement.left_out[0]}" in str(judgement)


class TestMeasures:
    def test_cllr_of_a_coin_is_one_and_of_an_oracle_zero(self) -> None:
        assert cllr(np.zeros(5), np.zeros(9)) == pytest.approx(1.0)
        assert cllr(np.full(5, 40.0), np.full(9, -40.0)) == pytest.approx(0.0, abs=1e-9)

    def test_cllr_against_a_slow_loop(self) -> None:
        rng = np.random.default_rng(1)
        same, different = rng.normal(2, 2, 40), rng.normal(-2, 2, 70)
        miss = sum(math.log2(1 + math.exp(-value)) for value in same) / len(same)
        alarm = sum(math.log2(1 + math.exp(value)) for value in different) / len(different)
        assert cllr(same, different) == pytest.approx((miss + alarm) / 2)

    def test_minimum_is_reached_by_calibrated_ratios_only(self) -> None:
        rng = np.random.default_rng(2)
        same, different = rng.normal(2, 2, 4000), rng.normal(-2, 2, 4000)  # N(±m, 2m) is calibrated
        best = minimum_cllr(same, different)
        assert cllr(same, different) == pytest.approx(best, abs=0.01)
        assert cllr(same + 2, different + 2) > best + 0.03
        assert minimum_cllr(3 * same + 1, 3 * different + 1) == pytest.approx(best)

    def test_reliability_and_its_error(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(3)
        same, different = rng.normal(2, 2, 20000), rng.normal(-2, 2, 20000)
        bins = reliability(same, different)
        assert sum(b.weight for b in bins) == pytest.approx(1.0)
        assert expected_calibration_error(bins) < 0.01
        assert expected_calibration_error(reliability(3 * same, 3 * different)) > 0.03
        draw_reliability(bins, tmp_path / "plot.png")
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")

    @pytest.mark.parametrize("memory", [0.15, 0.4])
    def test_memory_of_a_known_process(self, memory: float) -> None:
        rng, step = np.random.default_rng(4), 0.05
        keep = math.exp(-step / memory)
        tracks = []
        for _ in range(12):
            noise = [rng.normal(size=16)]
            for _ in range(199):
                noise.append(keep * noise[-1] + math.sqrt(1 - keep**2) * rng.normal(size=16))
            tracks.append((step * np.arange(200), np.array(noise, np.float32)))
        assert measure_correlation_time(tracks) == pytest.approx(memory, rel=0.25)

    def test_memory_needs_a_long_track(self) -> None:
        with pytest.raises(InputError, match="longer than one second"):
            measure_correlation_time([(np.array([0.0, 0.1]), np.eye(2, dtype=np.float32))])

"""Calibration by whole tracks, and the photographs it is learnt from."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from calibration_people import population
from face_world import made_up_calibration

from face_recognition_node.common.errors import InputError, SourceError
from face_recognition_node.evaluation.calibration import (
    fit_calibration,
)
from face_recognition_node.evaluation.calibration_faces import (
    REDUCED_TO,
    embed_photographs,
    is_fitting_half,
    list_photographs,
    locate,
    person_of,
)
from face_recognition_node.evaluation.track_rates import (
    TrackScores,
    measure_comparisons_per_track,
    play_tracks,
)
from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.vision.alignment import ALIGNMENT_TEMPLATE
from face_recognition_node.vision.faces import Detection


@pytest.fixture(scope="module")
def fitted() -> Calibration:
    return fit_calibration(population(), embedder_sha256="abc", comparisons_per_track=1.0, correlation_s=0.3)


class TestTracks:
    @pytest.mark.slow
    def test_a_whole_track_of_a_stranger_is_named_as_rarely_as_promised(self, fitted: Calibration) -> None:
        """The promise of ``target_false_accept_rate`` for two sizes of gallery, on people not fitted on."""
        people = population(seed=21)
        comparisons = measure_comparisons_per_track(
            play_tracks(fitted, population(), 20, n_galleries=2, n_strangers=120, seed=1)
        )
        assert 1.0 <= comparisons < 6.0
        for size in (5, 20):
            scores = play_tracks(fitted, people, size, n_galleries=2, n_strangers=100)
            rate = scores.rate_at(0.02, replace(fitted, comparisons_per_track=comparisons))
            assert rate.strangers_named <= 0.02 + 3 * math.sqrt(0.02 * 0.98 / rate.n_strangers)
            assert rate.enrolled_named > 0.8
            assert rate.enrolled_mistaken == 0.0

    def test_rates_are_counted_rightly(self) -> None:
        scores = TrackScores(
            np.array([-9.5, -9.0, -2.0, -3.0]), np.array([-9.5, -1.0]), np.array([-9.0, -9.6]), 10,
            np.arange(4),
        )  # fmt: skip
        rate = scores.rate_at(0.001, made_up_calibration())  # limit ln(0.001 / 10) = -9.2, as L = 1
        assert (rate.strangers_named, rate.enrolled_named, rate.enrolled_mistaken) == (0.25, 0.5, 0.5)
        low, high = rate.strangers_interval
        assert low < 0.25 < high
        assert f"0.2500 [{low:.4f}, {high:.4f}] of 4 strangers' tracks" in str(rate)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("people", "least", "most"),
        [
            pytest.param(2000, 1.2, 1.5, id="a stranger a track"),
            pytest.param(20, 2.0, 4.5, id="twenty strangers, one of whom is named in 40 of 100 tracks"),
        ],
    )
    def test_few_strangers_who_come_often_leave_more_doubt(
        self, people: int, least: float, most: float
    ) -> None:
        """Two of a hundred tracks are named: as promised, but who knows who comes next."""
        who = np.repeat(np.arange(people), 2000 // people)
        named = np.arange(2000) < 40
        scores = TrackScores(np.where(named, -12.0, 0.0), np.zeros(1), np.zeros(1), 1, who)
        assert scores.rate_at(0.02, made_up_calibration()).strangers_named == 0.02
        assert least <= measure_comparisons_per_track(scores, target=0.02) <= most
        assert measure_comparisons_per_track(scores, target=0.5) == 1.0

    @pytest.mark.slow
    def test_too_few_people(self, fitted: Calibration) -> None:
        with pytest.raises(InputError, match="at least 4 photographs"):
            play_tracks(fitted, population(5), 20)


class TestPhotographs:
    """Reading labelled faces, with stand-ins for the networks."""

    @staticmethod
    def tree(folder: Path, size: int = 112) -> Path:
        rng = np.random.default_rng(0)
        for name in ("Anna/1.png", "Anna/2.png", "Bea/1.jpg"):
            (folder / name).parent.mkdir(exist_ok=True)
            cv2.imwrite(str(folder / name), rng.integers(0, 256, (size, size, 3), np.uint8))
        (folder / "pairs.txt").write_text("not a picture")
        return folder

    def test_every_photograph_in_every_quality(self, tmp_path: Path) -> None:
        class Nothing:
            def detect(self, image_bgr: np.ndarray) -> list[Detection]:
                assert image_bgr.shape == (160, 160, 3)
                return []

        class Means:
            dimension, fingerprint = 3, "means"

            def embed(self, crops_bgr: np.ndarray) -> np.ndarray:
                means = crops_bgr.reshape(len(crops_bgr), -1, 3).mean(axis=1)
                return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)

        names, read = list_photographs(self.tree(tmp_path))
        assert [person_of(name) for name in names] == ["Anna", "Anna", "Bea"]
        done: list[int] = []
        faces = embed_photographs(names, read, Nothing(), Means(), done.append)
        versions = len(REDUCED_TO) + 2
        assert len(faces) == 3 * versions
        assert done == [1, 1, 1]
        assert faces.identities.tolist() == [0] * 2 * versions + [1] * versions
        assert faces.photographs.tolist() == [n for n in range(3) for _ in range(versions)]
        by_size = faces.qualities[1 : 1 + len(REDUCED_TO)]
        assert (np.diff(by_size) > 0).all()  # the further away, the poorer

    def test_the_detector_is_believed_unless_it_found_something_else(self) -> None:
        crop = np.zeros((112, 112, 3), np.uint8)

        class Fixed:
            def __init__(self, shift: float) -> None:
                self.landmarks = ALIGNMENT_TEMPLATE + 24 + np.float32(shift)

            def detect(self, image_bgr: np.ndarray) -> list[Detection]:
                return [Detection(np.array([30.0, 30, 120, 140]), 0.9, self.landmarks)]

        assert locate(crop, Fixed(5.0)).landmarks_xy == pytest.approx(ALIGNMENT_TEMPLATE + 5.0, abs=1e-3)
        assert locate(crop, Fixed(40.0)).landmarks_xy == pytest.approx(ALIGNMENT_TEMPLATE)

    def test_wrong_sources_are_named_with_the_cure(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="expected aligned faces"):
            list_photographs(tmp_path)
        names, read = list_photographs(self.tree(tmp_path, size=90))
        with pytest.raises(SourceError, match="face-recognition prepare"):
            read(names[0])

    def test_halves_share_no_person_and_do_not_depend_on_the_machine(self) -> None:
        halves = [is_fitting_half(f"Person_{k}") for k in range(400)]
        assert 150 < sum(halves) < 250
        assert [is_fitting_half(name) for name in ("Anna", "Bea", "Carl", "Dora")] == [
            True,
            False,
            True,
            False,
        ]

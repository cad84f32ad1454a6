"""The replay bench with the real pipeline, on the packaged sample and on clips where they are present."""

from __future__ import annotations

import json
from dataclasses import replace as with_faces
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace as changed

from face_recognition_node.assembly import Models, load_models
from face_recognition_node.cli import main
from face_recognition_node.common.errors import ConfigurationError, SourceError
from face_recognition_node.config import Config
from face_recognition_node.evaluation.replay.replay import assign_truth, make_bench, replay
from face_recognition_node.evaluation.replay.requirements import unmet
from face_recognition_node.evaluation.replay.scenario import FaceRule, Play, parse_scenario, read_scenario
from face_recognition_node.media.sample import portrait
from face_recognition_node.recognizer import Recognizer
from face_recognition_node.vision.faces import (
    Detection,
    FaceQuality,
    FaceView,
    Frame,
    HeadPose,
    IdentifiedFace,
    Identity,
    RecognitionResult,
)

SCENARIOS = Path(__file__).resolve().parents[2] / "config" / "scenarios"


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models(Config())


def found(x: float, y: float, size: float) -> IdentifiedFace:
    """Return a face centred at x, y of a 100x100 image."""
    box = np.array([x - size / 2, y - size / 2, x + size / 2, y + size / 2])
    view = FaceView(Detection(box, 0.9, np.zeros((5, 2))), 0.0, FaceQuality(*[0.5] * 6), HeadPose(0, 0, 0))
    return IdentifiedFace(int(x), view, Identity())


def test_truth_is_assigned_by_the_first_rule_that_fits_and_once_a_frame() -> None:
    faces = (found(20, 50, 10), found(30, 50, 20), found(80, 50, 10), found(50, 99, 10))
    result = RecognitionResult(0.0, "", (100, 100), faces, 1)
    rules = (FaceRule("left", x=(0, 0.5), y=(0, 0.9)), FaceRule("right", x=(0.5, 1), y=(0, 0.9)))
    play = Play("", rules)
    assigned = {face.track_id: who for who, face in assign_truth(result, play, 0.0)}
    assert assigned == {30: "left", 20: "", 80: "right", 50: ""}
    assert assign_truth(with_faces(result, faces=()), play, 0.0) == []


@pytest.mark.slow
def test_the_sample_is_enrolled_on_the_fly_and_told_apart(models: Models, tmp_path: Path) -> None:
    scenario = read_scenario(SCENARIOS / "sample.yaml", tmp_path)
    (episode,) = scenario.episodes
    sparse = changed(scenario, episodes=(changed(episode, play=(changed(episode.play[0], rate=6.0),)),))
    seen: list[str] = []
    report = replay(
        sparse,
        tmp_path,
        lambda settings: make_bench(models, Config()),
        lambda place, result: seen.append(place),
    )
    assert unmet(report, scenario.require) == []
    assert seen == ["sample"] * 72
    (enrollment,) = report.episodes[0].enrollments
    assert enrollment.success
    assert 0.0 < enrollment.seconds < 5.0
    guest, stranger = report.episodes[0].tracks
    assert (guest.who, stranger.who) == ("guest", "stranger")
    assert len(guest.enrolled) < len(guest.claims), "the first frames come before the enrollment"
    assert guest.named_share > 0.9
    assert len(stranger.claims) > 30
    assert json.loads(json.dumps(report.to_dict()))["swaps"] == 0


def test_pictures_are_enrolled_and_failures_are_reported(models: Models) -> None:
    bench = make_bench(models, Config())
    blank = Frame(np.zeros((64, 64, 3), np.uint8), 0.0)
    person_id, count = bench.add_pictures("guest", [Frame(portrait("guest"), 0.0), blank])
    assert count == 1
    assert bench.gallery.snapshot().persons[person_id].name == "guest"
    with pytest.raises(SourceError, match="no face"):
        bench.add_pictures("nobody", [blank])


@pytest.mark.slow
def test_an_enrollment_without_a_face_fails_truthfully(models: Models, tmp_path: Path) -> None:
    document = {
        "episodes": [
            {"play": [{"source": "sample", "rate": 3, "faces": [{"who": "guest"}],
                       "enroll": [{"name": "ghost", "at": 0, "x": [0, 0.1], "y": [0, 0.1]}]}]}
        ]
    }  # fmt: skip
    report = replay(
        parse_scenario(document, tmp_path), tmp_path, lambda settings: make_bench(models, Config())
    )
    (failed,) = report.failed_enrollments
    assert failed.name == "ghost"
    assert failed.message
    assert failed.seconds < 5.0
    assert any("ghost" in sentence for sentence in unmet(report, {}))


@pytest.mark.slow
def test_an_enrollment_behind_the_end_of_its_recording_is_an_error(models: Models, tmp_path: Path) -> None:
    document = {
        "require": {"wrong_seconds": 0},
        "episodes": [
            {"play": [{"source": "sample", "rate": 0.5, "faces": [{"who": "guest"}],
                       "enroll": [{"name": "guest", "at": 99}]}]}
        ],
    }  # fmt: skip
    scenario = parse_scenario(document, tmp_path)
    with pytest.raises(ConfigurationError, match="got guest at 99 s"):
        replay(scenario, tmp_path, lambda settings: make_bench(models, Config()))


@pytest.mark.slow
def test_overlapping_enrollments_all_have_every_face_embedded(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = {
        "episodes": [
            {"play": [{"source": "sample", "rate": 6, "faces": [{"who": "guest"}],
                       "enroll": [{"name": "guest", "at": 0.2},
                                  {"name": "ghost", "at": 0.2, "x": [0, 0.1]}]}]}
        ]
    }  # fmt: skip
    asked: dict[float, bool] = {}
    process = Recognizer.process

    def watched(self: Recognizer, frame: Frame, *, embed_all: bool = False) -> RecognitionResult:
        asked[frame.stamp] = embed_all
        return process(self, frame, embed_all=embed_all)

    monkeypatch.setattr(Recognizer, "process", watched)
    report = replay(
        parse_scenario(document, tmp_path), tmp_path, lambda settings: make_bench(models, Config())
    )
    first, last = report.episodes[0].enrollments
    assert first.seconds < last.seconds, "they overlap, and one ends before the other"
    begun = min(stamp for stamp in asked if stamp >= 0.2)
    running = {stamp: begun <= stamp <= begun + last.seconds + 1e-6 for stamp in asked}
    assert asked == running


def test_the_clips_are_told_apart(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "couple.html"
    code = main(["evaluate", "replay", "couple", "--data", str(shared_data), "--json", "--report", str(page)])
    figures = json.loads(capsys.readouterr().out)
    assert figures["seconds_under_a_wrong_name"] == 0
    assert figures["false_positive_identification_rate"]["value"] == 0
    assert figures["named_share"]["M"] >= 0.9
    assert figures["named_share"]["W"] >= 0.6
    assert figures["unmet"] == []
    assert code == 0
    assert page.read_text().count("<svg") == len(figures["episodes"][0]["tracks"])

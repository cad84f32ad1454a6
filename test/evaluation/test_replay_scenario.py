"""Scenario files: what they say, what they refuse, and the truth of those in the repository."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sample_truth import true_faces

from face_recognition_node.common.errors import ConfigurationError, SourceError
from face_recognition_node.evaluation.replay.scenario import (
    Enrollment,
    FaceRule,
    parse_scenario,
    read_scenario,
)
from face_recognition_node.evaluation.replay.sequences import list_people, open_sequence

SCENARIOS = Path(__file__).resolve().parents[2] / "config" / "scenarios"


@pytest.fixture
def faces_zip(tmp_path: Path) -> Path:
    """Return a data root with an archive of five people with two, three, four … pictures."""
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        archive.writestr("README.txt", "no picture")
        for person in range(1, 6):
            for view in range(1, person + 2):
                picture = np.full((8, 6, 3), 10 * person + view, np.uint8)
                archive.writestr(f"s{person}/{view}.png", cv2.imencode(".png", picture)[1].tobytes())
    return tmp_path


def test_long_form_is_read(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "name: both\nsettings: {identity.target_false_accept_rate: 0.02}\n"
        "require: {wrong_seconds: 0}\nepisodes:\n"
        "  - enroll: [{name: W, source: w.gif}]\n"
        "    play:\n"
        "      - source: both.gif\n"
        "        faces: [{who: W, x: [0, 0.5]}, {who: M, x: [0.5, 1], t: [1, 2]}]\n"
        "        enroll: [{name: M, at: 1.5, x: [0.5, 1]}]\n"
    )
    scenario = read_scenario(file, tmp_path)
    (episode,) = scenario.episodes
    assert scenario.settings == {"identity.target_false_accept_rate": 0.02}
    assert scenario.require == {"wrong_seconds": 0}
    assert episode.enroll == (Enrollment("W", "w.gif"),)
    assert episode.play[0].faces[1] == FaceRule("M", (0.5, 1.0), t=(1.0, 2.0))
    assert episode.play[0].enroll == (Enrollment("M", at=1.5, x=(0.5, 1.0)),)


def test_rules_hold_their_lower_end_and_not_their_upper() -> None:
    rule = FaceRule("W", x=(0.2, 0.5), t=(1.0, 2.0))
    assert rule.fits(0.2, 0.9, 1.0)
    assert not rule.fits(0.5, 0.9, 1.0)
    assert not rule.fits(0.3, 0.9, 2.0)


def episode_with(**play: object) -> dict[str, object]:
    """Return a scenario of one recording, one entry of it changed."""
    return {"episodes": [{"play": [{"source": "a", "faces": [{"who": "A"}], **play}]}]}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([], "Expected `object`, got `array`"),
        ({}, "expected episodes, rounds or folders"),
        ({"episode": []}, "unknown field `episode`"),
        ({"episodes": [{"name": "x"}]}, r"recordings under `play`, got none - at `\$\.episodes\[0\]`"),
        (episode_with(faces=[]), r"rules under `faces` .* got none - at `\$\.episodes\[0\]\.play\[0\]`"),
        (episode_with(source=""), r"length >= 1 - at `\$\.episodes\[0\]\.play\[0\]\.source`"),
        (episode_with(faces=[{"who": "A", "x": [1, 0]}]), r"from < to, got .* - at `.*\.faces\[0\]`"),
        (episode_with(enroll=[{"name": "A", "y": [1, 0]}]), r"from < to, got .* - at `.*\.enroll\[0\]`"),
        (episode_with(enroll=[{"name": "A", "at": -1}]), r">= 0.* - at `.*\.enroll\[0\]\.at`"),
        ({"pause": -1, **episode_with()}, r">= 0.* - at `\$\.pause`"),
    ],
)
def test_errors_tell_the_place(document: object, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        parse_scenario(document, tmp_path)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_scenario(tmp_path / "none.yaml", tmp_path)
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigurationError, match="not YAML"):
        read_scenario(tmp_path / "bad.yaml", tmp_path)


def test_rounds_play_every_clip_that_was_not_enrolled_from() -> None:
    people = {"A": ["a1", "a2", "a3"], "C": ["c1", "c2"]}
    scenario = parse_scenario({"rounds": {"people": people, "faces": {"y": [0, 0.4]}}}, Path())
    assert len(scenario.episodes) == 3
    for turn, episode in enumerate(scenario.episodes):
        enrolled = {entry.name: entry.source for entry in episode.enroll}
        assert enrolled == {"A": f"a{turn + 1}", "C": f"c{turn % 2 + 1}"}
        played = {(play.faces[0].who, play.source) for play in episode.play}
        assert played == {(who, clip) for who, clips in people.items() for clip in clips} - set(
            enrolled.items()
        )
        assert {play.faces[0].y for play in episode.play} == {(0.0, 0.4)}


def test_folders_are_split_into_enrolled_and_strangers(faces_zip: Path) -> None:
    pictures = list_people(faces_zip / "faces.zip")
    assert list(pictures) == ["s1", "s2", "s3", "s4", "s5"]
    assert [len(names) for names in pictures.values()] == [2, 3, 4, 5, 6]
    assert pictures["s2"] == ["s2/1.png", "s2/2.png", "s2/3.png"]
    folders = {
        "source": "faces.zip",
        "enrolled": 2,
        "strangers": 2,
        "pictures": [1, 2],
        "splits": 3,
        "minimum": 3,
    }
    scenario = parse_scenario({"folders": folders}, faces_zip)
    assert len(scenario.episodes) == 3
    first = scenario.episodes[0]
    assert [entry.name for entry in first.enroll] == ["s2", "s3"]
    assert [play.source for play in first.play] == [f"faces.zip!s{n}" for n in (2, 3, 4, 5)]
    assert [play.skip for play in first.play] == [(1, 2), (1, 2), (), ()]
    assert scenario == parse_scenario({"folders": folders}, faces_zip)
    with pytest.raises(ConfigurationError, match="got 5 in"):
        parse_scenario({"folders": {**folders, "enrolled": 4, "minimum": 1}}, faces_zip)


def test_sequences_take_and_skip_pictures_by_number(faces_zip: Path) -> None:
    def levels(**options: Any) -> list[int]:
        return [
            int(frame.image_bgr[0, 0, 0]) for frame in open_sequence(faces_zip, "faces.zip!s3", **options)
        ]

    assert levels() == [31, 32, 33, 34]
    assert levels(skip=(1, 3)) == [32, 34]
    assert levels(take=(4, 1)) == [31, 34]
    assert [frame.stamp for frame in open_sequence(faces_zip, "faces.zip!s3", rate=4)] == [0, 0.25, 0.5, 0.75]
    with zipfile.ZipFile(faces_zip / "faces.zip") as archive:
        archive.extractall(faces_zip / "unpacked")
    unpacked = open_sequence(faces_zip, "unpacked!s3", skip=(1, 3))
    assert [int(frame.image_bgr[0, 0, 0]) for frame in unpacked] == [32, 34]
    with pytest.raises(SourceError, match="no pictures"):
        open_sequence(faces_zip, "faces.zip!s9")
    with pytest.raises(SourceError, match=r"none\.zip: expected a zip file or a folder, got nothing there"):
        open_sequence(faces_zip, "none.zip!s1")
    with pytest.raises(SourceError, match="taken or skipped"):
        open_sequence(faces_zip, "clip.gif", take=(1,))


def test_the_samples_scenario_agrees_with_the_cameras_geometry(tmp_path: Path) -> None:
    scenario = read_scenario(SCENARIOS / "sample.yaml", tmp_path)
    rules = scenario.episodes[0].play[0].faces
    for index in range(360):
        time = index / 30
        for seen in true_faces(time):
            x, y = (seen.box_xyxy[:2] + seen.box_xyxy[2:]) / 2 / [640, 480]
            labelled = next((rule.who for rule in rules if rule.fits(float(x), float(y), time)), "")
            assert labelled == seen.who, f"at {time:.2f} s, x = {x:.2f}"


@pytest.mark.parametrize("name", ["couple", "nobody_enrolled", "signers"])
def test_the_clips_scenarios_name_recordings_that_exist(name: str, clips: Path) -> None:
    scenario = read_scenario(SCENARIOS / f"{name}.yaml", clips.parent)
    sources = {play.source for episode in scenario.episodes for play in episode.play}
    sources |= {entry.source for episode in scenario.episodes for entry in episode.enroll}
    assert all((clips.parent / source).is_file() for source in sources)


def test_the_orl_scenario_splits_forty_people(shared_data: Path) -> None:
    scenario = read_scenario(SCENARIOS / "orl.yaml", shared_data)
    assert len(scenario.episodes) == 5
    for episode in scenario.episodes:
        assert len(episode.enroll) == 20
        assert len({play.source for play in episode.play}) == 40
    first: Mapping[str, Any] = {play.source: play.skip for play in scenario.episodes[0].play}
    assert list(first)[:2] == ["orl_faces.zip!s1", "orl_faces.zip!s2"]


def test_every_scenario_is_in_the_index() -> None:
    index = (SCENARIOS / "README.md").read_text()
    for file in SCENARIOS.glob("*.yaml"):
        assert f"`{file.name}`" in index

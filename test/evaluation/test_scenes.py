"""Composed scenes: what is drawn is what the truth says, and a short scenario runs on the sample's people."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from face_recognition_node.assembly import Models, load_models
from face_recognition_node.cli import main
from face_recognition_node.cli.evaluate.robot import ros_settings
from face_recognition_node.common.errors import SourceError
from face_recognition_node.common.parameters import with_values
from face_recognition_node.config import Config
from face_recognition_node.evaluation.replay.replay import assign_truth
from face_recognition_node.evaluation.replay.replay_report import (
    EnrollmentOutcome,
    EpisodeReport,
    ReplayReport,
)
from face_recognition_node.evaluation.replay.scenario import Episode, Play
from face_recognition_node.evaluation.replay.track_metrics import FrameClaim, TrueTrack
from face_recognition_node.evaluation.scenes.cast import (
    Cast,
    Cutout,
    Person,
    Take,
    cut_ellipse,
    find_face,
    soften,
)
from face_recognition_node.evaluation.scenes.scenarios import SCENARIOS, run_scenario
from face_recognition_node.evaluation.scenes.scene import FACE_HEIGHT_M, Light, Scene, stand, walk
from face_recognition_node.evaluation.scenes.stage import counted, longest_wrong_s, seconds_to_name
from face_recognition_node.media.sample import portrait
from face_recognition_node.vision.faces import (
    Detection,
    FaceQuality,
    FaceView,
    HeadPose,
    IdentifiedFace,
    Identity,
    IdentityState,
    RecognitionResult,
)
from face_recognition_node.vision.pose import fit_heads


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models(Config())


def block(value: int) -> Take:
    """Return an opaque square of one gray, all of it face, 5 cm in front of its rim."""
    relief = np.full((40, 40), 0.05, np.float32)
    relief[10:30, 10:30] = 0.0
    image = np.full((40, 40, 3), value, np.uint8)
    return Take((Cutout(image, np.ones((40, 40), np.float32), np.array([0, 0, 40, 40], np.float32), relief),))


def test_a_face_has_the_size_of_its_distance_and_stands_where_the_truth_says() -> None:
    scene = Scene("one", (stand("a", (block(0),), 0.5, 2.0, (0.0, 1.0)),), 1.0, light=Light(noise=0.0))
    frame, (face,) = scene.render(0.5)
    assert face.height_px == pytest.approx(600 * FACE_HEIGHT_M / 2.0)
    assert face.visible == pytest.approx(1.0, abs=0.06)
    dark = np.argwhere(frame.image_bgr.max(axis=2) < 5)
    x1, y1, x2, y2 = face.box_xyxy
    assert dark.min(axis=0) == pytest.approx([y1, x1], abs=3)
    assert dark.max(axis=0) == pytest.approx([y2, x2], abs=3)


def test_the_nearer_one_covers_the_other_and_the_truth_knows() -> None:
    near = walk("near", (block(0),), [(0.0, 0.5, 1.0), (1.0, 0.5, 1.0)])
    far = walk("far", (block(255),), [(0.0, 0.5, 2.0), (1.0, 0.9, 2.0)])
    scene = Scene("two", (near, far), 1.0)
    covered = {face.who: face.visible for face in scene.truth(0.0)}
    assert "far" not in covered
    apart = {face.who: face.visible for face in scene.truth(1.0)}
    assert apart["near"] == pytest.approx(1.0, abs=0.06)
    assert apart["far"] > 0.6


def test_depth_bulges_for_a_person_and_not_for_a_poster() -> None:
    for is_poster in (False, True):
        actor = stand("a", (block(90),), 0.5, 1.0, (0.0, 1.0), is_poster=is_poster)
        frame, (face,) = Scene("depth", (actor,), 1.0, has_depth=True).render(0.0)
        x1, y1, x2, y2 = (round(value) for value in face.box_xyxy)
        assert frame.depth_m is not None
        inside = frame.depth_m[y1 + 6 : y2 - 6, x1 + 6 : x2 - 6]
        assert np.ptp(inside) == pytest.approx(0.0 if is_poster else 0.05, abs=1e-3)
        assert face.who == ("" if is_poster else "a")


def test_upside_down_turns_picture_and_truth_alike() -> None:
    actors = (stand("a", (block(0),), 0.3, 2.0, (0.0, 1.0)),)
    upright = Scene("u", actors, 1.0, light=Light(noise=0.0))
    turned = Scene("t", actors, 1.0, light=Light(noise=0.0), is_upside_down=True)
    (a,), (b,) = upright.truth(0.0), turned.truth(0.0)
    assert b.box_xyxy == pytest.approx(
        (640 - a.box_xyxy[2], 480 - a.box_xyxy[3], 640 - a.box_xyxy[0], 480 - a.box_xyxy[1])
    )
    before, after = upright.render(0.0)[0].image_bgr, turned.render(0.0)[0].image_bgr
    assert np.array_equal(before[::-1, ::-1], after)


def test_a_scene_renders_the_same_frames_again() -> None:
    scene = Scene("same", (stand("a", (block(60),), 0.5, 2.0, (0.0, 1.0)),), 0.3)
    first, second = ([frame.image_bgr for frame in scene.frames()] for _ in range(2))
    assert len(first) == 3
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_clip_is_played_forth_and_back() -> None:
    cutouts = tuple(block(value).cutouts[0] for value in (0, 1, 2))
    take = Take(cutouts, rate_hz=1.0)
    assert [int(take.at(t).image_bgr[0, 0, 0]) for t in range(6)] == [0, 1, 2, 1, 0, 1]


def test_a_cut_out_is_soft_at_its_rim_and_whole_over_the_face() -> None:
    cutout = cut_ellipse(np.full((200, 200, 3), 80, np.uint8), np.array([70, 60, 130, 140], np.float32))
    x1, y1, x2, y2 = cutout.box_xyxy.astype(int)
    assert cutout.alpha[(y1 + y2) // 2, x1 + 3 : x2 - 3].min() > 0.99
    assert cutout.alpha[0].max() < 0.05
    assert 0.0 <= cutout.alpha.min() <= cutout.alpha.max() <= 1.0
    assert soften(np.ones((9, 9), np.float32), 2.0).shape == (9, 9)


def test_found_faces_are_paired_with_true_ones_by_overlap() -> None:
    scene = Scene(
        "two",
        (stand("a", (block(0),), 0.3, 2.0, (0.0, 1.0)), stand("b", (block(9),), 0.7, 2.0, (0.0, 1.0))),
        1.0,
    )

    def found(number: int, box: object) -> IdentifiedFace:
        view = FaceView(
            Detection(np.asarray(box, np.float32), 0.9, np.zeros((5, 2))),
            0.0,
            FaceQuality(*[0.5] * 6),
            HeadPose(0, 0, 0),
        )
        return IdentifiedFace(number, view, Identity())

    a, b = scene.truth(0.0)
    faces = (
        found(1, b.box_xyxy),
        found(2, [0, 0, 20, 20]),
        found(3, np.add(a.box_xyxy, 6)),
        found(4, np.add(a.box_xyxy, 20)),
    )
    result = RecognitionResult(0.0, "", (640, 480), faces, 1)
    paired = {face.track_id: who for who, face in assign_truth(result, Play(scene), 0.0)}
    assert paired == {1: b.who, 2: "", 3: a.who, 4: ""}


def test_time_to_the_name_runs_from_plain_view_and_wrong_names_are_timed_without_a_break() -> None:
    def claim(stamp: float, name: str) -> FrameClaim:
        return FrameClaim(stamp, 0.5, IdentityState.KNOWN, name, name, "p1")

    track = TrueTrack("r", "a", tuple(map(claim, (2.0, 2.5, 3.0, 3.5), ("p2", "p2", "p1", "p2"))), (1.0, 2.0))
    assert seconds_to_name(track) == pytest.approx(2.0)
    assert longest_wrong_s(track) == pytest.approx(1.0)
    assert seconds_to_name(TrueTrack("r", "a", (), (1.0,))) is None


class EmptyStage:
    """A stage with people to play on which no face is ever found."""

    is_short = True

    def __init__(self, people: int) -> None:
        self.people = [Person(f"p{k}", (block(0),) * 2, (block(0),) * 3) for k in range(people)]
        self.cast = SimpleNamespace(
            sources=dict.fromkeys(("heads", "clips", "portraits")),
            people=lambda kind, at_most: self.people[:at_most],
        )

    def some(self, full: int, short: int) -> int:
        return short

    def play(self, name: str, episodes: list[Episode], *, rotate: int = 0) -> ReplayReport:
        failed = EnrollmentOutcome("guest", "", False, "no face", 0, {}, 1.0)
        ended = (failed,) if episodes[0].play[0].enroll else ()
        return ReplayReport(name, "", {}, tuple(EpisodeReport(e.name, ended, ()) for e in episodes))

    def picture(self, scene: Scene, seconds: float) -> None:
        return None


@pytest.mark.parametrize("number", ["A1", "A3", "A4", "A5", "A6", "A7", "A8", "A16"])
def test_no_scenario_passes_in_which_nothing_was_measured(number: str) -> None:
    (scenario,) = [one for one in SCENARIOS if one.number == number]
    measured, _ = run_scenario(scenario, EmptyStage(9))  # type: ignore[arg-type]
    assert measured is not None
    assert not measured.passed
    measured, reason = run_scenario(scenario, EmptyStage(0))  # type: ignore[arg-type]
    assert measured is None
    assert "usable" in reason


def test_two_equal_faces_are_refused_only_where_there_were_two() -> None:
    (scenario,) = [one for one in SCENARIOS if one.number == "A2"]
    verdicts = [run_scenario(scenario, EmptyStage(n))[0].passed for n in (1, 2)]  # type: ignore
    assert verdicts == [False, True]


def test_shares_are_given_with_their_interval_over_people() -> None:
    tracks = [TrueTrack("r", f"p{k}", ()) for k in range(20)]
    assert counted([True] * 20, tracks) == "20 of 20 [0.83, 1.00]"
    assert counted([True, False], [tracks[0]] * 2) == "1 of 2"
    assert counted([], []) == "0 of 0"


def test_a_source_that_holds_no_faces_is_refused(models: Models, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected clips, or archives"):
        Cast([tmp_path], models.detector)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an archive like LFW's of the sample's two people, four pictures each."""
    path = tmp_path_factory.mktemp("photographs") / "faces.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for who in ("guest", "stranger"):
            image = cv2.resize(portrait(who), None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
            for k in range(4):
                turned = cv2.getRotationMatrix2D((image.shape[1] / 2, image.shape[0] / 2), 4.0 * k - 6.0, 1.0)
                picture = cv2.warpAffine(image, turned, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
                picture = cv2.convertScaleAbs(picture, alpha=1.0 - 0.06 * k)
                archive.writestr(f"{who}/{k}.webp", cv2.imencode(".webp", picture)[1].tobytes())
    return path


@pytest.mark.slow
def test_a_short_scenario_on_the_samples_people(photographs: Path, tmp_path: Path, capsys) -> None:
    page = tmp_path / "page.html"
    arguments = ["evaluate", "scenarios", str(photographs), "--short", "--only", "A7,A8,A15", "--no-progress"]
    assert main([*arguments, "--json", "--report", str(page)]) == 0
    close, posters, groups = json.loads(capsys.readouterr().out)
    assert (close["verdict"], close["figures"]["identified"]) == ("pass", 2)
    assert (posters["verdict"], posters["reason"]) == ("not run", "needs heads among the data")
    assert groups["verdict"] == "not run"
    text = page.read_text(encoding="utf-8")
    assert "1 pass, 2 not run" in text
    assert text.count("data:image/jpeg") == len(["guest", "stranger"]), "a frame of each, with its caption"
    assert "<figcaption>guest at 50%, 1 s" in text
    assert page.stat().st_mode & 0o077 == 0, "it shows people"


def test_an_unknown_scenario_is_refused(photographs: Path, capsys) -> None:
    assert main(["evaluate", "scenarios", str(photographs), "--only", "B1"]) == 2
    assert "expected some of A1" in capsys.readouterr().err


@pytest.mark.ros
def test_scenarios_ask_the_running_node(photographs: Path, capsys) -> None:
    pytest.importorskip("built_interfaces")
    arguments = ["evaluate", "scenarios", str(photographs), "--short", "--only", "A9,A13", "--no-progress"]
    main([*arguments, "--json"])  # how fast it answers is the machine's matter
    names, forgetting = json.loads(capsys.readouterr().out)
    assert "4 seen in the faces" in names["measured"]
    assert "ids unchanged; both live as Jayne" in names["measured"]
    assert (forgetting["verdict"], forgetting["figures"]["known"]) == ("pass", 0)
    assert forgetting["figures"]["before"] > 8


def test_without_ros_the_nodes_scenarios_are_not_run(photographs: Path, capsys, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "rclpy" else find(name))
    assert main(["evaluate", "scenarios", str(photographs), "--only", "A12,A15", "--no-progress"]) == 0
    first, reason, second, *_ = [line for line in capsys.readouterr().out.splitlines() if line]
    assert first.startswith("A12  not run")
    assert "ROS 2 was not found" in reason
    assert second.startswith("A15  not run")


def test_people_are_met_frontal_and_nobody_plays_two(shared_data: Path, models: Models) -> None:
    """RAP3DF's folder 014 shows the person of 002; half of its pictures are turned by 50 degrees and more."""
    people = Cast([shared_data / "rap3df_rgbd.zip"], models.detector).people("heads", 14)
    names = [person.name for person in people]
    assert len(names) == 14
    assert "RAP3DF 014" not in names
    for person in people:
        assert person.meet
        for take in person.meet:
            (cutout,) = take.cutouts
            shown = np.where(cutout.alpha[..., None] > 0.5, cutout.image_bgr, 150).astype(np.uint8)
            face = find_face(shown, models.detector)
            assert face is not None
            turn = fit_heads(face.landmarks_xy[None])
            assert max(abs(float(turn.yaw[0])), abs(float(turn.pitch[0]))) < 40.0  # the outline is cut anew


def test_the_running_node_gets_the_parameters_that_are_not_at_their_default() -> None:
    config = with_values(Config(), {"models.embedder": "other", "identity.claim_timeout_s": 5.0})
    assert sorted(ros_settings(config)) == ["identity.claim_timeout_s=5.0", 'models.embedder="other"']
    assert ros_settings(Config()) == []

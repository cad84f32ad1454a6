"""``face-recognition enroll``: stored only with exit code 0; every other end says why."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_recognition_node.cli import main
from face_recognition_node.gallery.gallery import Gallery


def enroll(*arguments: object) -> int:
    return main(["enroll", *map(str, arguments)])


def persons(path: Path) -> list[tuple[str, int]]:
    if not path.exists():
        return []
    with Gallery.open(path, None) as gallery:
        return [(person.name, person.n_templates) for person in gallery.snapshot().persons.values()]


@pytest.fixture
def gallery_file(tmp_path: Path) -> Path:
    return tmp_path / "gallery.db"


def test_a_turning_head_from_a_gif(
    clips: Path, gallery_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = clips / "head-pose-face-detection-female.gif"
    assert enroll("W", clip, "--gallery", gallery_file, "--views", 5, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["success"]
    assert figures["outcome"] == "stored"
    assert figures["views_kept"] == 5
    assert figures["coverage"]["left"]
    assert figures["rejections"]["turned_too_far"] >= 1
    assert figures["nearest"] is None
    assert persons(gallery_file) == [("W", 5)]
    with Gallery.open(gallery_file, None) as gallery:
        assert figures["person_id"] in gallery.snapshot().persons
        assert figures["gallery_version"] == gallery.snapshot().version


def test_a_region_of_a_video_and_the_nearest_person(
    clips: Path, gallery_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = clips / "head-pose-face-detection-female-and-male.gif"
    assert enroll("M", clip, "--gallery", gallery_file, "--region", 0.5, 0, 1, 1, "--end", 3) == 0
    out = capsys.readouterr().out
    assert out.startswith("stored M with")
    assert "kept; rejected:" in out
    assert "self-consistency" in out
    assert enroll("W", clip, "--gallery", gallery_file, "--region", 0, 0, 0.5, 1) == 0
    assert "nearest other person: M" in capsys.readouterr().out
    assert [name for name, _ in persons(gallery_file)] == ["M", "W"]


def test_three_people_and_no_choice(
    clips: Path, gallery_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = clips / "face-demographics-walking-and-pause.gif"
    assert enroll("X", clip, "--gallery", gallery_file, "--end", 2.5) == 1
    out = capsys.readouterr().out
    assert "equally well" in out
    assert "nothing was stored" in out
    assert persons(gallery_file) == []


@pytest.fixture
def picture(clips: Path, tmp_path: Path) -> Path:
    video = cv2.VideoCapture(str(clips / "yes.mkv"))
    image = video.read()[1]
    path = tmp_path / "pictures" / "one.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), image)
    return path


def test_a_single_picture_is_one_view_and_said_to_be(
    picture: Path, gallery_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enroll("A", picture, "--gallery", gallery_file) == 0
    out = capsys.readouterr().out
    assert "1 kept" in out
    assert "single view" in out
    assert persons(gallery_file) == [("A", 1)]


def test_a_folder_of_pictures(picture: Path, clips: Path, gallery_file: Path) -> None:
    video = cv2.VideoCapture(str(clips / "no.mkv"))
    for k in range(60):
        image = video.read()[1]
        if k in (10, 30, 50):
            cv2.imwrite(str(picture.parent / f"{k}.png"), image)
    assert enroll("A", picture.parent, "--gallery", gallery_file) == 0
    ((name, views),) = persons(gallery_file)
    assert name == "A"
    assert views >= 2


def test_no_face_at_all(tmp_path: Path, gallery_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blank = tmp_path / "wall.png"
    cv2.imwrite(str(blank), np.full((240, 320, 3), 150, np.uint8))
    assert enroll("X", blank, "--gallery", gallery_file, "--json") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["outcome"] == "no_face"
    assert "no face" in captured.err
    assert persons(gallery_file) == []


def test_adding_to_nobody(tmp_path: Path, gallery_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blank = tmp_path / "wall.png"
    cv2.imwrite(str(blank), np.full((240, 320, 3), 150, np.uint8))
    assert enroll("X", blank, "--gallery", gallery_file, "--person", "p-nobody") == 1
    assert "p-nobody" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["X", "missing.mp4"], "no such file"),
        (["X", "sample", "--views", "-1"], "--views"),
        (["X", "sample", "--region", "0.5", "0", "0.2", "1"], "region"),
        (["X", "sample", "--set", "enrollment.wanted_views=0"], "wanted_views"),
    ],
)
def test_wrong_input(
    arguments: list[str], text: str, gallery_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enroll(*arguments, "--gallery", gallery_file) == 2
    assert text in capsys.readouterr().err
    assert persons(gallery_file) == []

"""Photographs → aligned faces: rejects with reasons, duplicates, resuming, the robot's own alignment."""

import csv
import json
import subprocess
import sys
import time
import zipfile

import cv2
import numpy as np
import pytest

from face_recognition_node.cli import main
from face_recognition_node.common.errors import SourceError
from face_recognition_node.training.preparation import (
    PreparationLimits,
    Prepared,
    difference_hash,
    find_pictures,
    is_copy,
    mark_duplicates,
    prepare_picture,
    read_journal,
    thumbnail,
    write_tables,
)
from face_recognition_node.vision.alignment import align_faces
from face_recognition_node.vision.faces import Detection

LANDMARKS = np.array([[40, 50], [72, 50], [56, 72], [42, 92], [70, 92]], np.float32)


def face_at(x, y, scale=1.0, score=0.9):
    box = np.array([x - 50 * scale, y - 50 * scale, x + 50 * scale, y + 50 * scale], np.float32)
    return Detection(box, score, (LANDMARKS - 56) * scale + [x, y])


def align(image, face):
    return align_faces(image, face.landmarks_xy[None])[0]


@pytest.fixture
def tree(tmp_path):
    random = np.random.default_rng(0)
    for name in ("anna/1.png", "anna/2.png", "ben/1.png"):
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = cv2.resize(random.integers(0, 255, (12, 16, 3)).astype(np.uint8), (400, 300))
        cv2.imwrite(str(path), picture)
    (tmp_path / "source" / "ben" / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "source" / "stray.png").write_bytes(b"belongs to nobody")
    return tmp_path / "source"


def test_pictures_belong_to_the_folder_they_lie_in(tree):
    assert find_pictures(tree) == ["anna/1.png", "anna/2.png", "ben/1.png", "ben/broken.jpg"]
    with pytest.raises(SourceError, match="one folder of pictures per identity"):
        find_pictures(tree / "nothing")


@pytest.mark.parametrize(
    ("name", "found", "reason"),
    [
        ("anna/1.png", [], "no face found"),
        ("anna/1.png", [face_at(200, 150, score=0.3)], "no face found"),
        ("anna/1.png", [face_at(200, 150, scale=0.1)], "face of 10 px is too small"),
        ("ben/broken.jpg", [face_at(200, 150)], "cannot be decoded"),
    ],
)
def test_rejects_say_why(tree, tmp_path, name, found, reason):
    made = prepare_picture(tree, name, tmp_path, lambda _: found, align, PreparationLimits())
    assert made.reason == reason
    assert made.crop == ""
    assert not list(tmp_path.rglob("*.webp"))


def test_what_cannot_even_be_read_is_a_reject(tree, tmp_path, monkeypatch):
    def prepare(name):
        return prepare_picture(tree, name, tmp_path, lambda _: [], align, PreparationLimits()).reason

    (tree / "anna" / "folder.jpg").mkdir()
    (tree / "anna" / "gone.jpg").symlink_to("nowhere.jpg")
    assert "cannot be read" in prepare("anna/folder.jpg")
    assert "cannot be read" in prepare("anna/gone.jpg")
    assert "not UTF-8" in prepare("anna/Jos\udce9.png")

    def too_large(*_):
        raise cv2.error("pixels <= CV_IO_MAX_IMAGE_PIXELS")

    monkeypatch.setattr(cv2, "imdecode", too_large)
    assert prepare("anna/1.png") == "cannot be decoded"


def test_tables_hold_any_name(tmp_path):
    assert write_tables([Prepared("a/Jos\udce9.png", "a", reason="not UTF-8")], tmp_path) == (0, 1)
    assert "Jos" in (tmp_path / "rejects.csv").read_text()


def test_the_crop_is_the_robots(tree, tmp_path):
    faces = [face_at(60, 60), face_at(210, 160, 1.1)]
    made = prepare_picture(
        tree, "anna/2.png", tmp_path, lambda _: faces, align, PreparationLimits(quality=100)
    )
    stored = cv2.imread(str(tmp_path / made.crop))
    expected = align(cv2.imread(str(tree / "anna/2.png")), faces[1])
    assert stored.shape == (112, 112, 3)
    assert np.abs(stored.astype(int) - expected).mean() < 6
    assert made.size_px == pytest.approx(110, abs=0.1)


def test_hashes_forgive_compression_and_tell_pictures_apart():
    pictures = [
        cv2.resize(np.random.default_rng(seed).integers(0, 255, (7, 7, 3)).astype(np.uint8), (112, 112))
        for seed in (0, 1)
    ]
    _, encoded = cv2.imencode(".jpg", pictures[0], [cv2.IMWRITE_JPEG_QUALITY, 60])
    again = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    first, same, other = (int(difference_hash(image), 16) for image in (pictures[0], again, pictures[1]))
    assert (first ^ same).bit_count() <= 3
    assert (first ^ other).bit_count() > 10


def blobs(seed):
    """Return a smooth (112, 112, 3) picture."""
    cells = np.random.default_rng(seed).integers(0, 255, (9, 9, 3)).astype(np.uint8)
    return cv2.resize(cells, (112, 112), interpolation=cv2.INTER_CUBIC)


def test_later_copies_become_rejects():
    pictures = {
        "first": blobs(0),
        "copy": cv2.convertScaleAbs(blobs(0), alpha=0.9, beta=9),
        "other": blobs(1),
    }

    def one(source, identity, picture, crop, bits="00000000000000ff"):
        return Prepared(source, identity, crop, "", 0.9, 50, picture, bits)

    def read_crop(prepared):
        return pictures.get(prepared.crop)

    marked = mark_duplicates(
        [
            one("a/1", "a", "p1", "first"),
            one("a/2", "a", "p2", "copy", "00000000000000fe"),
            one("a/3", "a", "p3", "other"),
            one("a/4", "a", "p5", "gone"),
            one("b/1", "b", "p1", "first"),
            one("b/2", "b", "p4", "copy"),
        ],
        read_crop,
    )
    assert [m.reason for m in marked] == ["", "duplicate of a/1", "", "", "duplicate of a/1", ""]
    # a file that was left out as a copy is left out under another name as well
    again = mark_duplicates(
        [one("a/1", "a", "p1", "first"), one("a/2", "a", "p2", "copy"), one("b/1", "b", "p2", "copy")],
        read_crop,
    )
    assert [m.reason for m in again] == ["", "duplicate of a/1", "duplicate of a/1"]
    assert mark_duplicates([], read_crop) == []


def test_a_copy_is_known_though_it_was_found_a_little_elsewhere():
    first = blobs(3)
    shifted = cv2.warpAffine(
        first,
        np.array([[1.03, 0.02, -3], [-0.02, 1.03, 2]], np.float32),
        (112, 112),
        borderMode=cv2.BORDER_REFLECT,
    )
    assert is_copy(thumbnail(first), thumbnail(shifted))
    flat = np.full((112, 112, 3), 90, np.uint8)
    for other in (blobs(4), flat, cv2.addWeighted(first, 0.75, blobs(4), 0.25, 0)):
        assert not is_copy(thumbnail(first), thumbnail(other))


def test_distinct_photographs_of_one_person_are_kept(shared_data):
    with zipfile.ZipFile(shared_data / "lfw_pairs_112.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("George_W_Bush/"))[:60]
        crops = [
            cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR) for name in names
        ]
    found = [
        Prepared(name, "bush", name, "", 0.9, 50, name, difference_hash(crop))
        for name, crop in zip(names, crops, strict=True)
    ]
    by_name = dict(zip(names, crops, strict=True))
    marked = mark_duplicates(found, lambda one: by_name[one.crop])
    assert [one.reason for one in marked if one.reason] == []


def test_a_torn_journal_loses_its_last_line_only(tmp_path):
    assert read_journal(tmp_path) == {}
    lines = [json.dumps({"source": "a/1", "identity": "a"}), '{"source": "a/2", "ident']
    (tmp_path / "journal.jsonl").write_text("\n".join(lines))
    assert list(read_journal(tmp_path)) == ["a/1"]


@pytest.mark.slow
def test_prepare_from_the_command_line(tree, tmp_path, guest_bgr, capsys):
    pytest.importorskip("torch", reason="the train extra is not installed: no torch")
    from face_recognition_node.training.data import open_faces

    cv2.imwrite(str(tree / "anna" / "guest.png"), guest_bgr)
    cv2.imwrite(str(tree / "ben" / "copy.png"), guest_bgr)
    out = tmp_path / "out"
    assert main(["prepare", str(tree), str(out), "--workers", "1"]) == 0
    assert "1 faces" in capsys.readouterr().out
    with open(out / "rejects.csv", newline="") as stream:
        reasons = {row["source"]: row["reason"] for row in csv.DictReader(stream)}
    assert reasons["ben/copy.png"] == "duplicate of anna/guest.png"
    assert reasons["anna/1.png"] == "no face found"
    faces = open_faces(out)
    assert faces.labels.tolist() == [0]
    assert faces.crop(0).shape == (112, 112, 3)
    journal = (out / "journal.jsonl").read_text()
    assert main(["prepare", str(tree), str(out), "--workers", "1"]) == 0
    assert (out / "journal.jsonl").read_text() == journal
    assert main(["prepare", str(tree), str(out), "--workers", "1", "--minimum-size", "50"]) == 2
    assert "was begun with minimum_size_px 20.0" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_preparation_leaves_no_process_and_goes_on(tmp_path, guest_bgr):
    """Kill the command outright after its first pictures: its pool ends with it, the next call takes over."""
    source, out = tmp_path / "source", tmp_path / "out"
    (source / "anna").mkdir(parents=True)
    for number in range(40):
        cv2.imwrite(str(source / "anna" / f"{number}.png"), np.roll(guest_bgr, number, axis=1))
    command = [sys.executable, "-m", "face_recognition_node.cli", "prepare", str(source), str(out)]
    process = subprocess.Popen([*command, "--workers", "2"], stderr=subprocess.PIPE, start_new_session=True)
    journal = out / "journal.jsonl"
    try:
        while not (journal.is_file() and journal.stat().st_size):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
    finally:
        process.kill()
    # the pipe closes when the last process that inherited it has ended
    process.communicate(timeout=60)
    done = len(read_journal(out))
    assert done >= 1
    assert main(["prepare", str(source), str(out), "--workers", "1"]) == 0
    rows = [json.loads(line)["source"] for line in journal.read_text().splitlines()]
    assert sorted(set(rows)) == find_pictures(source)
    assert len(rows) == 40

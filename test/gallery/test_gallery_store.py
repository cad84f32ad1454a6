from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from gallery_helpers import FINGERPRINT, content, face, open_gallery, sql, template, templates

from face_recognition_node.common.errors import (
    GalleryConflictError,
    GalleryMismatchError,
    GalleryUnavailableError,
)
from face_recognition_node.gallery import files as gallery_files
from face_recognition_node.gallery.changes import LOGGED_ROWS, LOGGED_VERSIONS
from face_recognition_node.gallery.gallery import Gallery
from face_recognition_node.gallery.store import Store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "deep" / "gallery.db"


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_can_read_the_files(path, rng):
    before = os.umask(0)
    try:
        with open_gallery(path) as gallery:
            anna = gallery.add_person("Anna", templates(rng, 2))
            assert mode(path) == 0o600
            for beside in gallery_files.journal_paths(path):
                assert mode(beside) == 0o600, beside
            assert mode(path.parent) == mode(path.parent.parent) == 0o700
            gallery.forget(anna.person_id)
            keys = list((path.parent.parent / "keys").rglob("*.key"))
            assert [mode(key) for key in keys] == [0o600]
            assert mode(keys[0].parent) == 0o700
            exported = gallery.export_to(path.with_name("out.db")).path
            assert mode(exported) == 0o600
    finally:
        os.umask(before)


def test_a_file_others_can_read_is_closed_to_them(path, rng, caplog):
    open_gallery(path).close()
    path.chmod(0o644)
    open_gallery(path).close()
    assert mode(path) == 0o600
    assert "0600" in caplog.text


def test_the_default_is_in_the_users_data_folder_and_keys_are_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert gallery_files.default_gallery_path() == tmp_path / "share/face_recognition_node/gallery.db"
    assert gallery_files.default_keys_folder() == tmp_path / "state/face_recognition_node/keys"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")  # the standard says: to be ignored
    monkeypatch.setenv("HOME", str(tmp_path))
    assert gallery_files.default_gallery_path() == tmp_path / ".local/share/face_recognition_node/gallery.db"


def test_keys_must_not_lie_with_the_gallery(path):
    with pytest.raises(GalleryUnavailableError, match="keys"):
        Gallery.open(path, FINGERPRINT, keys_folder=path.parent / "keys")


def test_another_model_is_refused_with_the_cure(path, rng):
    with open_gallery(path) as gallery:
        gallery.add_person("Anna", templates(rng, 1))
    before = path.read_bytes()
    with pytest.raises(GalleryMismatchError, match="model-b") as caught:
        Gallery.open(path, "model-b/alignment-1", keys_folder=path.parent.parent / "keys")
    assert "model-a" in str(caught.value)
    assert "reembed" in str(caught.value)
    assert "enroll again" in str(caught.value)
    with pytest.raises(GalleryMismatchError, match="128 numbers"):
        Gallery.open(path, FINGERPRINT, dimension=128)
    assert path.read_bytes() == before
    with Gallery.open(path, None) as gallery:  # to administer it, no model is needed
        assert gallery.fingerprint == FINGERPRINT


@pytest.mark.parametrize("damage", ["garbage", "header", "middle", "cut", "text"])
def test_a_damaged_file_is_reported_and_left_as_it_is(path, rng, damage):
    with open_gallery(path) as gallery:
        for number in range(30):
            gallery.add_person(f"n{number}", templates(rng, 5))
    whole = path.read_bytes()
    broken = {
        "garbage": os.urandom(len(whole)),
        "header": b"\0" * 100 + whole[100:],
        "middle": whole[: len(whole) // 3] + os.urandom(len(whole) // 3) + whole[len(whole) // 3 * 2 :],
        "cut": whole[: len(whole) // 2],
        "text": b"people: []\n",
    }[damage]
    path.write_bytes(broken)
    with pytest.raises(GalleryUnavailableError) as caught:
        open_gallery(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == broken


def test_other_files_are_no_galleries(path, tmp_path):
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE other (x)")
    with pytest.raises(GalleryUnavailableError, match="not a gallery"):
        open_gallery(path)
    with pytest.raises(GalleryUnavailableError, match="should be a file"):
        open_gallery(path.parent)
    with pytest.raises(GalleryUnavailableError, match="cannot be created"):
        open_gallery(path / "below" / "gallery.db")
    with pytest.raises(GalleryUnavailableError, match="no gallery at"):
        Gallery.open(tmp_path / "missing.db", FINGERPRINT, must_exist=True)
    with pytest.raises(GalleryUnavailableError, match="no gallery at"):
        Gallery.open(tmp_path / "missing.db", None)
    assert not (tmp_path / "missing.db").exists()


def test_a_creation_that_was_cut_off_is_begun_again(path, rng):
    path.parent.mkdir(parents=True)
    path.touch(0o600)
    with pytest.raises(GalleryUnavailableError, match="empty"):
        Gallery.open(path, None)
    with open_gallery(path) as gallery:
        gallery.add_person("Anna", templates(rng, 1))


def test_a_newer_format_is_refused(path):
    open_gallery(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(GalleryUnavailableError, match="format 99"):
        open_gallery(path)


def test_an_embedding_of_the_wrong_length_is_found_at_opening(path, rng):
    with open_gallery(path) as gallery:
        gallery.add_person("Anna", templates(rng, 2))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE templates SET embedding = x'00' WHERE template_id = 2")
    with pytest.raises(GalleryUnavailableError, match="template 2"):
        open_gallery(path)


def test_a_failed_change_leaves_nothing_behind(path, rng, monkeypatch):
    with open_gallery(path) as gallery:
        gallery.add_person("Anna", templates(rng, 2))
        before = content(gallery.snapshot())

        def fail(*_):
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr("face_recognition_node.gallery.history.History.record", fail)
        with pytest.raises(GalleryUnavailableError, match="nothing was stored"):
            gallery.add_person("Bob", templates(rng, 1))
        monkeypatch.undo()
        assert content(gallery.snapshot()) == before
        assert gallery.snapshot().version == 1
        gallery.add_person("Bob", templates(rng, 1))
        assert gallery.verify().problems == ()


def test_two_writers_see_each_other(path, rng):
    with open_gallery(path) as one, open_gallery(path) as two:
        anna = one.add_person("Anna", templates(rng, 2))
        assert two.snapshot().version == 0
        two.follow()
        assert content(two.snapshot()) == content(one.snapshot())
        bob = two.add_person("Bob", templates(rng, 1))
        # A change on top of what the other did sees it first, without asking.
        one.merge(anna.person_id, bob.person_id)
        two.undo()
        one.follow()
        assert content(two.snapshot()) == content(one.snapshot())
        assert [version.snapshot().version for version in (one, two)] == [4, 4]
        one.forget(anna.person_id, final=True)
        with pytest.raises(GalleryConflictError):
            two.undo(9)
        assert list(two.snapshot().persons) == [bob.person_id]


@pytest.mark.slow
def test_a_change_by_another_process_is_followed(path, rng):
    with open_gallery(path, poll_interval_s=0.02) as gallery:
        anna = gallery.add_person("Anna", templates(rng, 2))
        command = [sys.executable, "-m", "face_recognition_node.cli", "gallery", "rename", "Anna", "Hanna"]
        environment = {**os.environ, "XDG_STATE_HOME": str(path.parent.parent / "state")}
        subprocess.run([*command, "--gallery", str(path)], check=True, env=environment, capture_output=True)
        end = time.monotonic() + 60
        while gallery.snapshot().persons[anna.person_id].name != "Hanna":
            assert time.monotonic() < end, "the other process's change was not seen"
            time.sleep(0.01)


def test_a_gallery_that_is_dropped_without_closing_stops_following(path):
    import gc
    import threading

    gallery = open_gallery(path, poll_interval_s=0.01)
    (thread,) = (t for t in threading.enumerate() if t.name == "gallery-follow")
    del gallery
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()


def test_readers_that_were_away_for_long_read_everything(path, rng, monkeypatch):
    monkeypatch.setattr("face_recognition_node.gallery.changes.LOGGED_VERSIONS", 5)
    with open_gallery(path) as one, open_gallery(path) as two:
        anna = one.add_person("Anna", templates(rng, 2))
        two.follow()
        for number in range(8):
            one.rename(anna.person_id, f"n{number}")
        bob = one.add_person("Bob", templates(rng, 1))
        one.forget(anna.person_id)
        two.follow()
        assert list(two.snapshot().persons) == [bob.person_id]
        assert content(two.snapshot()) == content(one.snapshot())
    assert LOGGED_VERSIONS > 100


@pytest.mark.slow
def test_a_change_of_very_many_rows_is_followed(path, rng):
    n = LOGGED_ROWS + 10
    many = [template(vector) for vector in face(rng, n)]
    with open_gallery(path, max_templates_per_person=10000) as one, open_gallery(path) as two:
        anna = one.add_person("Anna", many)
        two.follow()
        assert two.snapshot().n_templates == n
        one.undo()
        two.follow()
        assert two.snapshot().n_templates == 0
        one.redo()
        assert one.snapshot().persons[anna.person_id].n_templates == n
        assert one.verify().problems == ()


def test_templates_read_in_pieces_are_all_read(path, rng, monkeypatch):
    monkeypatch.setattr("face_recognition_node.gallery.schema.READ_ROWS", 7)
    with open_gallery(path) as gallery:
        gallery.add_person("Anna", templates(rng, 7))
        gallery.add_person("Bob", templates(rng, 9))
        before = content(gallery.snapshot())
    with open_gallery(path) as gallery:
        assert content(gallery.snapshot()) == before


def test_the_file_is_opened_durably(path):
    store = Store(path if path.parent.exists() else _made(path), FINGERPRINT, 64)
    try:
        answers = {
            name: store.connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "secure_delete", "foreign_keys")
        }
        assert answers == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "foreign_keys": 1}
    finally:
        store.close()


def _made(path):
    path.parent.mkdir(parents=True)
    return path


def test_storing_in_the_source_tree_is_warned_of(caplog):
    gallery_files.warn_if_in_source_tree(gallery_files.Path(__file__).parent / "people.db")
    root_has_setup = (gallery_files.Path(__file__).parents[2] / "setup.py").exists()
    assert ("source tree" in caplog.text) == root_has_setup


def test_stored_numbers_are_little_endian_float32(path, rng):
    vector = face(rng)
    with open_gallery(path) as gallery:
        gallery.add_person("Anna", [template(vector)])
        (row,) = sql(path, "SELECT embedding FROM templates")
    np.testing.assert_array_equal(np.frombuffer(row[0], "<f4"), vector)

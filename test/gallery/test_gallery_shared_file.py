"""One file, several processes: what a node and a command must know of each other."""

from __future__ import annotations

import os
import sqlite3
import threading

import numpy as np
import pytest
from gallery_helpers import Clock, content, face, open_gallery, template, templates, unit

from face_recognition_node.common.errors import GalleryMismatchError, GalleryUnavailableError
from face_recognition_node.config import GalleryConfig
from face_recognition_node.gallery.gallery import Gallery, SessionKind


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "gallery.db"


def test_a_command_follows_the_undo_window_that_the_node_has_set(path, tmp_path, rng):
    with open_gallery(path) as node:
        node.update_config(GalleryConfig(undo_window_s=0.0, poll_interval_s=0.0))
        anna = node.add_person("Anna", templates(rng, 1))
        with Gallery.open(path, None, keys_folder=tmp_path / "keys") as command:
            assert command.config.undo_window_s == 0.0
            command.forget(anna.person_id)
            assert command.history() == []
    assert list((tmp_path / "keys").rglob("*.key")) == []


def test_who_only_reads_writes_nothing_though_it_is_due(path, tmp_path, rng):
    clock = Clock()
    with open_gallery(path, clock, undo_window_s=60.0) as gallery:
        anna = gallery.add_person("Anna", templates(rng, 1))
        gallery.add_person("", templates(rng, 1), is_stranger=True)
        gallery.forget(anna.person_id)
        keys = list((tmp_path / "keys").rglob("*.key"))
    before = path.read_bytes()
    clock.now += 1e6
    with Gallery.open(path, None, keys_folder=tmp_path / "keys", clock=clock, read_only=True) as reader:
        assert len(reader.snapshot().persons) == 1
        assert reader.history() == []  # its time is over
        reader.verify()
        with pytest.raises(GalleryUnavailableError, match="readonly"):
            reader.rename("stranger-1", "Bob")
    assert path.read_bytes() == before
    assert list((tmp_path / "keys").rglob("*.key")) == keys


def test_forgetting_a_session_reaches_who_was_stored_meanwhile_in_one_change(path, rng):
    with open_gallery(path) as node, open_gallery(path) as command:
        anna = node.add_person("Anna", templates(rng, 1))
        node.set_session("party", SessionKind.EVENT)
        command.follow()
        guest = node.add_person("Guest", templates(rng, 1))
        version = node.snapshot().version
        gone = command.forget([anna.person_id], session="party")
        assert {person.person_id for person in gone} == {anna.person_id, guest.person_id}
        assert command.snapshot().version == version + 1
        assert dict(command.snapshot().persons) == {}


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_file_exchanged_under_an_open_gallery_is_reported_and_nothing_is_acknowledged(path, rng, how):
    with open_gallery(path.with_name("other.db")) as other:
        other.add_person("Other", templates(rng, 1))
    with open_gallery(path) as gallery:
        gallery.add_person("Anna", templates(rng, 1))
        before = content(gallery.snapshot())
        if how == "removed":
            path.unlink()
        else:
            os.replace(path.with_name("other.db"), path)
        for change in (lambda: gallery.add_person("Bob", templates(rng, 1)), gallery.forget_all):
            with pytest.raises(GalleryUnavailableError, match="removed or replaced"):
                change()
        assert content(gallery.snapshot()) == before
        assert "removed or replaced" in gallery.trouble
        assert any("removed or replaced" in problem for problem in gallery.verify().problems)


def test_the_follower_notices_an_exchanged_file_and_says_so_once(path, caplog):
    with open_gallery(path) as gallery:
        gallery.follow()
        assert gallery.trouble == ""
        path.rename(path.with_name("moved.db"))
        for _ in range(3):
            with pytest.raises(GalleryUnavailableError):
                gallery.follow()
        assert caplog.text.count("removed or replaced") == 1
        path.with_name("moved.db").rename(path)
        gallery.follow()
        assert gallery.trouble == ""


class SlowEmbedder:
    """Stands for another model; while it embeds, ``meanwhile`` is called once."""

    dimension, fingerprint, precision = 32, "model-b/alignment-1", "fp32"

    def __init__(self, meanwhile):
        self._meanwhile = [meanwhile]

    def embed(self, crops_bgr):
        while self._meanwhile:
            self._meanwhile.pop()()
        flat = crops_bgr.reshape(len(crops_bgr), -1)[:, : 32 * 1000].reshape(len(crops_bgr), 32, -1)
        return unit(flat.mean(axis=2) - 100.0)


def with_crop(rng):
    return template(face(rng), crop=rng.integers(0, 256, (112, 112, 3), dtype=np.uint8))


def test_nobody_waits_for_the_network_of_a_reembedding(path, tmp_path, rng):
    with open_gallery(path, keep_crops=True) as node:
        anna = node.add_person("Anna", [with_crop(rng)])
        stored = []

        def store():  # in another thread, as the node would: a lock that is held would stop it
            thread = threading.Thread(
                target=lambda: stored.append(node.add_person("Bob", [with_crop(rng)]).person_id)
            )
            thread.start()
            thread.join(5)

        with Gallery.open(path, None, keys_folder=tmp_path / "keys") as command:
            report = command.reembed(SlowEmbedder(store))
            assert report.n_embedded == 2  # also who was stored meanwhile
            assert set(command.snapshot().persons) == {anna.person_id, *stored}
            assert command.verify().problems == ()
        with pytest.raises(GalleryMismatchError, match="model-b"):
            node.add_person("Carl", templates(rng, 1))
        assert "model-b" in node.trouble


def backup_over_it(path, other):
    path.write_bytes(path.with_name("backup.db").read_bytes())


def other_over_it(path, other):
    path.write_bytes(other.read_bytes())


def emptied(path, other):
    path.write_bytes(b"")


def text_over_it(path, other):
    path.write_bytes(b"notes" * 5000)


def restored_by_sqlite(path, other):
    source, target = sqlite3.connect(path.with_name("backup.db")), sqlite3.connect(path)
    source.backup(target)
    source.close()
    target.close()


def restored_and_changed_since(path, other):
    """A backup goes over the file, and a command writes to it before the node looks."""
    restored_by_sqlite(path, other)
    with Gallery.open(path, None, keys_folder=path.parent.parent / "keys") as command:
        for number in range(6):
            command.set_session(f"day {number}")


EXCHANGES = (
    backup_over_it, other_over_it, emptied, text_over_it, restored_by_sqlite, restored_and_changed_since
)  # fmt: skip


@pytest.mark.parametrize("look", ["commit", "follow"])
@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda one: one.__name__)
def test_other_content_under_an_open_gallery_is_noticed_and_nothing_is_acknowledged(
    path, rng, exchange, look, caplog
):
    other = path.with_name("other.db")
    with open_gallery(other) as gallery:
        for _ in range(9):
            gallery.add_person("Other", templates(rng, 1))
    with open_gallery(path) as gallery:
        gallery.add_person("Kept", templates(rng, 1))
        path.with_name("backup.db").write_bytes(path.read_bytes())
        anna = gallery.add_person("Anna", templates(rng, 1))
        gallery.rename(anna.person_id, "Hanna")
        gallery.forget(anna.person_id, final=True)
        gallery.add_person("Bob", templates(rng, 1))
        gallery.follow()
        before = content(gallery.snapshot())
        exchange(path, other)
        for _ in range(2):
            with pytest.raises(GalleryUnavailableError, match=r"replaced .* open it again"):
                gallery.add_person("Carl", templates(rng, 1)) if look == "commit" else gallery.follow()
        assert content(gallery.snapshot()) == before  # nobody who was forgotten comes back
        assert "replaced" in gallery.trouble
        assert caplog.text.count("replaced") == 1
        assert any("replaced" in problem for problem in gallery.verify().problems)
        for ask in (gallery.history, gallery.undo, lambda: gallery.export_to(path.with_name("out.db"))):
            with pytest.raises(GalleryUnavailableError, match="replaced"):
                ask()
        put_there = path.read_bytes()
    if exchange not in (restored_by_sqlite, restored_and_changed_since):  # these are in the log as yet
        assert path.read_bytes() == put_there  # closing leaves what was put there as it is
    if exchange in (backup_over_it, restored_by_sqlite):
        with open_gallery(path) as gallery:
            assert {person.name for person in gallery.snapshot().persons.values()} == {"Kept"}
            assert gallery.verify().problems == ()


def test_a_plain_copy_of_an_open_gallery_holds_what_was_acknowledged(path, rng):
    copy = path.with_name("copy.db")
    with open_gallery(path) as gallery, open_gallery(path) as other:
        other.snapshot()
        gallery.add_person("Anna", templates(rng, 2))
        copy.write_bytes(path.read_bytes())
        with open_gallery(copy) as copied:
            assert content(copied.snapshot()) == content(gallery.snapshot())


def test_a_gallery_whose_file_is_removed_can_still_be_exported(path, rng):
    with open_gallery(path) as gallery, open_gallery(path.with_name("new.db")) as new:
        gallery.add_person("Anna", templates(rng, 2))
        path.unlink()
        with pytest.raises(GalleryUnavailableError, match="Export it first"):
            gallery.forget_all()
        gallery.export_to(path.with_name("saved.db"))
        new.import_from(path.with_name("saved.db"))
        assert [person.name for person in new.snapshot().persons.values()] == ["Anna"]


def test_changes_of_other_processes_are_no_exchange(path, rng):
    """Many commits, rewritings and checkpoints of others, between and during one's own."""
    with open_gallery(path) as node, open_gallery(path) as command:
        stop = threading.Event()
        errors = []

        def change():
            own = np.random.default_rng(7)
            while not stop.is_set():
                try:
                    command.forget(command.add_person("x", templates(own, 3)).person_id, final=True)
                except Exception as error:
                    errors.append(error)
                    return

        thread = threading.Thread(target=change)
        thread.start()
        try:
            for number in range(30):
                node.add_person(f"n{number}", templates(rng, 1))
                node.follow()
        finally:
            stop.set()
            thread.join()
        assert errors == []
        node.follow()
        assert node.trouble == ""
        assert node.verify().problems == ()

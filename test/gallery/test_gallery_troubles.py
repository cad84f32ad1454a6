"""A locked file, a full disk, a removal that cannot be finished: what is answered, how soon, what is said."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time

import pytest
from gallery_helpers import Clock, face, open_gallery, template, templates

from face_recognition_node.common.errors import GalleryUnavailableError
from face_recognition_node.gallery import erasure, store
from face_recognition_node.gallery.gallery import Gallery


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "gallery.db"


@contextlib.contextmanager
def locked(path, kind="IMMEDIATE"):
    """Hold the lock of a file as another process would."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute(f"BEGIN {kind}")
    try:
        yield
    finally:
        other.close()


def begin_elsewhere(path):
    """Return a ``Store._begin`` that lets no reader of this file ask for its lock."""
    begin = store.Store._begin

    def begin_if_another(self):
        assert self.path != path, "a reader would wait for the lock"
        begin(self)

    return begin_if_another


def test_a_locked_gallery_answers_soon_and_reads_never_wait(path, rng, monkeypatch, caplog):
    monkeypatch.setattr(store, "BUSY_SECONDS", 0.5)
    with open_gallery(path) as gallery:
        anna = gallery.add_person("Anna", templates(rng, 1))
        with locked(path):
            waits = []
            for number in range(4):
                started = time.monotonic()
                with pytest.raises(GalleryUnavailableError, match="another process is writing; try again"):
                    gallery.rename(anna.person_id, f"Hanna {number}")
                waits.append(time.monotonic() - started)
            assert waits[0] > 0.4  # a short lock is waited for ...
            assert sum(waits[1:]) < waits[0] + 1.0  # ... once, not by each of a row of changes
            with monkeypatch.context() as patched:
                patched.setattr(store.Store, "_begin", begin_elsewhere(path))
                assert gallery.history() != []
                assert gallery.verify().problems == ()
                assert gallery.snapshot().person(anna.person_id).name == "Anna"
                gallery.export_to(path.with_name("out.db"))
                keys = path.parent.parent / "keys"
                with Gallery.open(path, None, keys_folder=keys, read_only=True) as reader:
                    assert len(reader.snapshot().persons) == 1
            for _ in range(3):
                gallery.follow()
                assert "another process is writing" in gallery.trouble
            assert caplog.text.count("another process is writing") == 1
        gallery.follow()
        assert gallery.trouble == ""
        assert gallery.rename(anna.person_id, "Hanna").name == "Hanna"


def test_a_lock_that_is_short_is_waited_for(path, rng):
    with open_gallery(path) as gallery:
        anna = gallery.add_person("Anna", templates(rng, 1))
        ready, go_on = threading.Event(), threading.Event()

        def hold():
            with locked(path):
                ready.set()
                go_on.wait(0.3)

        thread = threading.Thread(target=hold)
        thread.start()
        ready.wait()
        assert gallery.rename(anna.person_id, "Hanna").name == "Hanna"
        thread.join()


def test_closing_does_not_wait_for_another_process(path, rng, monkeypatch):
    monkeypatch.setattr(store, "BUSY_SECONDS", 60.0)
    gallery = open_gallery(path)
    anna = gallery.add_person("Anna", templates(rng, 1))
    failures, begun, begin = [], threading.Event(), store.Store._begin

    def begin_and_tell(self):
        begun.set()
        begin(self)

    def rename():
        try:
            gallery.rename(anna.person_id, "Hanna")
        except GalleryUnavailableError as error:
            failures.append(str(error))

    with locked(path):
        thread = threading.Thread(target=rename)
        monkeypatch.setattr(store.Store, "_begin", begin_and_tell)
        thread.start()
        assert begun.wait(30)
        started = time.monotonic()
        gallery.close()
        thread.join()
        assert time.monotonic() - started < 30.0, "it waited for the other process's minute"
    assert len(failures) == 1


def test_a_locked_gallery_is_followed_all_the_same(path, rng):
    with open_gallery(path) as node, open_gallery(path) as command:
        anna = command.add_person("Anna", templates(rng, 1))
        with locked(path):
            node.follow()
            assert anna.person_id in node.snapshot().persons


@pytest.mark.parametrize("kind", [OSError, sqlite3.OperationalError])
def test_a_removal_that_cannot_be_finished_is_done_and_said(path, rng, monkeypatch, caplog, kind):
    """The person is gone; what is still to do is told, once, and done later."""
    vector = face(rng)
    monkeypatch.setattr("face_recognition_node.gallery.erasure.SCRUB_AGAIN_S", 0.0)

    def fail(*_):
        raise kind("disk full")

    with open_gallery(path, Clock()) as gallery:
        gallery.add_person("Stays", templates(rng, 1))
        anna = gallery.add_person("Anna", [template(vector)])
        with monkeypatch.context() as patched:
            patched.setattr(erasure, "has_residue", fail)
            patched.setattr(erasure.Erasure, "_truncate_log", fail)
            assert [person.name for person in gallery.forget(anna.person_id, final=True)] == ["Anna"]
            assert "retried automatically" in gallery.unfinished
            for _ in range(3):
                gallery.follow()
            assert gallery.unfinished in gallery.trouble
            assert caplog.text.count("retried automatically") == 1
        assert anna.person_id not in gallery.snapshot().persons
        gallery.follow()
        assert gallery.unfinished == gallery.trouble == ""
        for file in path.parent.iterdir():
            assert vector.tobytes() not in file.read_bytes()


def test_a_command_says_what_it_could_not_finish_and_the_next_one_does_it(path, rng, monkeypatch):
    monkeypatch.setattr(erasure, "SCRUB_SECONDS", 0.05)
    vector = face(rng)
    with open_gallery(path) as gallery:
        gallery.add_person("Stays", templates(rng, 1))
        anna = gallery.add_person("Anna", [template(vector)])
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM templates").fetchone()
        gallery.forget(anna.person_id, final=True)
        assert "another process is reading it" in gallery.unfinished
        reader.close()
    with open_gallery(path) as gallery:
        assert gallery.unfinished == ""
        assert vector.tobytes() not in path.read_bytes()


def test_a_gallery_that_may_not_be_written_is_refused_with_the_cure(path, monkeypatch):
    open_gallery(path).close()
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may do everything
    with pytest.raises(GalleryUnavailableError, match="copy it to a place"):
        open_gallery(path)

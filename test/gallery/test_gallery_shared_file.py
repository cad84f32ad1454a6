"""One file, several processes: what a node and a command must know of each other."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
from gallery_helpers import Clock, content, face, open_gallery, template, templates, unit

from face_recognition_node.common.errors import GalleryMismatchError, GalleryUnavailableError
from face_recognition_node.gallery.gallery import Gallery, GalleryConfig, SessionKind


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

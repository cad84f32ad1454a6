"""Forgetting leaves no trace: the bytes of all files and of all search indices are searched."""

from __future__ import annotations

import gc
import os
import sqlite3
from pathlib import Path

import gallery_forget
import numpy as np
import pytest
from gallery_helpers import Clock, content, face, open_gallery, sql, template, templates, unit

from face_recognition_node.gallery.erasure import Erasure, has_residue
from face_recognition_node.gallery.gallery import Gallery, SessionKind
from face_recognition_node.gallery.index import CellIndex, FlatIndex

NOTE = "SELECT value FROM meta WHERE key = 'residue'"
"""It says that removed bytes may be left."""


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def traces(folder: Path, vectors: np.ndarray) -> list[str]:
    """Return the files that hold 12 bytes in a row of any of the vectors, found one by one."""
    found = []
    for path in files_below(folder):
        content = path.read_bytes()
        for vector in vectors:
            raw = vector.astype("<f4").tobytes()
            found += [path.name for at in range(0, len(raw) - 12, 8) if raw[at : at + 12] in content]
    return found


def index_memory(gallery: Gallery) -> bytes:
    """Return the bytes of everything the search works on, also of older snapshots still alive."""
    del gallery
    indexes = [one for one in gc.get_objects() if isinstance(one, FlatIndex | CellIndex)]
    return b"".join(
        one.memory() if isinstance(one, CellIndex) else one.vectors().tobytes() for one in indexes
    )


@pytest.fixture(params=["small", pytest.param("large", marks=pytest.mark.slow)])
def gallery(request, tmp_path, rng):
    """A gallery with some people, searched exactly or through the index."""
    limit = {} if request.param == "small" else {"exact_limit": 1000}
    with open_gallery(tmp_path / "data" / "gallery.db", **limit) as opened:
        people, views = (5, 5) if request.param == "small" else (22, 50)
        for number in range(people):
            opened.add_person(f"n{number}", [template(vector) for vector in face(rng, views)])
        assert opened.snapshot().is_exact == (request.param == "small")
        yield opened


@pytest.mark.parametrize("final", [False, True])
def test_forget_leaves_no_embedding_anywhere(gallery, tmp_path, rng, final):
    vectors = face(rng, 3)
    stay = face(rng, 2)
    anna = gallery.add_person("Anna Trace", [template(vector) for vector in vectors])
    gallery.add_person("Stays", [template(vector) for vector in stay])
    older = gallery.snapshot()
    assert traces(tmp_path, vectors), "the search must be able to find what is there"
    assert vectors[0].tobytes() in index_memory(gallery)
    gallery.forget(anna.person_id, final)
    assert traces(tmp_path, vectors) == []
    assert traces(tmp_path, stay)
    memory = index_memory(gallery)
    for vector in vectors:
        assert vector.tobytes()[:32] not in memory
    assert stay[0].tobytes() in memory
    (found,) = gallery.snapshot().search(vectors[:1], 300)
    assert anna.person_id not in {match.person_id for match in found}
    # Who still holds the older snapshot finds no face in it either.
    (found,) = older.search(vectors[:1], 300)
    assert max((m.similarity for m in found if m.person_id == anna.person_id), default=0.0) == 0.0


def test_a_final_forget_leaves_no_name_and_no_key(tmp_path, rng):
    with open_gallery(tmp_path / "data" / "gallery.db") as gallery:
        gallery.add_person("Stays", [template(face(rng))])
        anna = gallery.add_person("Anna Trace", [template(face(rng))])
        gallery.rename(anna.person_id, "Hanna Trace")
        gallery.forget(anna.person_id)
        gallery.undo()
        gallery.forget(anna.person_id, final=True)
        for path in files_below(tmp_path):
            assert b"Trace" not in path.read_bytes(), path
        assert [path for path in files_below(tmp_path) if path.suffix == ".key"] == []


@pytest.mark.slow
def test_final_forgets_leave_no_byte_string(tmp_path):
    """Full run: ./run exec python tools/gallery_forget.py 6000."""
    figures = gallery_forget.forget_test(tmp_path, 40)
    assert figures.found == ()
    assert figures.strings > 3000


def test_the_search_after_final_forgets_notices_what_is_left(tmp_path, monkeypatch):
    """The test above is able to fail: here the log of changes and the sessions are left as they are."""
    monkeypatch.setattr("face_recognition_node.gallery.changes.Transaction.erase_texts", lambda self: [])
    assert any("p-" in found for found in gallery_forget.forget_test(tmp_path, 10).found)


def bytes_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in files_below(folder))


def test_a_session_goes_with_the_last_of_its_people(tmp_path, rng):
    clock = Clock()
    with open_gallery(tmp_path / "data" / "gallery.db", clock, undo_window_s=30.0) as gallery:
        stays = gallery.add_person("Stays", templates(rng, 1))
        gallery.set_session("Annas birthday", SessionKind.EVENT, 500.0)
        anna, bob = (gallery.add_person(name, templates(rng, 1)) for name in ("Anna", "Bob"))
        gallery.forget(bob.person_id)
        gallery.forget(anna.person_id, final=True)
        assert gallery.session.name == "Annas birthday"  # it is the current one
        gallery.undo()
        gallery.set_session("")
        assert "Annas birthday" in gallery.snapshot().sessions  # Bob is in it
        gallery.forget(bob.person_id, final=True)
        assert set(gallery.snapshot().sessions) == {""}
        assert b"birthday" not in bytes_below(tmp_path)
        assert set(gallery.snapshot().persons) == {stays.person_id}


def test_a_current_session_whose_people_are_gone_goes_when_it_is_left(tmp_path, rng):
    with open_gallery(tmp_path / "data" / "gallery.db") as gallery:
        gallery.set_session("Annas birthday")
        gallery.forget(gallery.add_person("Anna", templates(rng, 1)).person_id, final=True)
        assert gallery.session.name == "Annas birthday"
        gallery.set_session("")
        assert set(gallery.snapshot().sessions) == {""}
        assert b"birthday" not in bytes_below(tmp_path)
        gallery.set_session("prepared", SessionKind.EVENT, 60.0)
        gallery.set_session("")
        assert gallery.set_session("prepared").kind is SessionKind.EVENT  # nobody was in it yet


def test_an_undo_brings_the_session_back_that_went_meanwhile(tmp_path, rng):
    with open_gallery(tmp_path / "data" / "gallery.db") as gallery:
        gallery.set_session("party", SessionKind.EVENT, 500.0)
        anna, bob = (gallery.add_person(name, templates(rng, 1)) for name in ("Anna", "Bob"))
        gallery.set_session("")
        gallery.forget(bob.person_id)
        gallery.forget(anna.person_id, final=True)
        assert set(gallery.snapshot().sessions) == {""}
        gallery.undo()
        assert gallery.snapshot().person(bob.person_id).session == "party"
        assert gallery.snapshot().sessions["party"].time_to_live_s == 500.0
        assert gallery.verify().problems == ()


def test_at_the_end_of_the_window_the_session_goes_too(tmp_path, rng):
    clock = Clock()
    with open_gallery(tmp_path / "data" / "gallery.db", clock, undo_window_s=30.0) as gallery:
        gallery.set_session("party")
        bob = gallery.add_person("Bob", templates(rng, 1))
        gallery.set_session("")
        gallery.forget(bob.person_id)
        assert "party" in gallery.snapshot().sessions
        clock.now += 30.0
        gallery.follow()
        assert set(gallery.snapshot().sessions) == {""}
        assert not any(text in bytes_below(tmp_path) for text in (b"party", bob.person_id.encode(), b"Bob"))


def test_a_follower_learns_of_a_final_forget_though_the_log_has_no_id(tmp_path, rng):
    """The person's view was somebody else's when the follower looked last, and the other way round."""
    path = tmp_path / "data" / "gallery.db"
    with open_gallery(path) as follower, open_gallery(path) as writer:
        anna, bob, carl = (writer.add_person(name, templates(rng, 2)) for name in ("Anna", "Bob", "Carl"))
        follower.follow()
        writer.merge(bob.person_id, anna.person_id)
        writer.split(bob.template_ids[:1], "Dora")
        writer.merge(carl.person_id, writer.split(bob.template_ids[1:], "Emil").person_id)
        writer.forget(bob.person_id, final=True)
        follower.follow()
        assert content(follower.snapshot()) == content(writer.snapshot())
        assert bob.person_id not in follower.snapshot().persons
        assert anna.person_id not in follower.snapshot().aliases
        assert follower.verify().problems == ()


def test_a_name_left_in_the_slack_of_a_page_is_found_and_goes(tmp_path, rng):
    """SQLite may leave an older copy of a row where it moved it: here one is put into a free page."""
    path = tmp_path / "data" / "gallery.db"
    with open_gallery(path) as gallery:
        anna = gallery.add_person("Anna Trace", [template(face(rng))])
    connection = sqlite3.connect(path)
    for statement in ("CREATE TABLE t (x)", "INSERT INTO t VALUES (zeroblob(50000))", "DROP TABLE t"):
        connection.execute(statement)
        connection.commit()
    connection.close()
    content = bytearray(path.read_bytes())
    page = int.from_bytes(content[16:18], "big")
    free = int.from_bytes(content[32:36], "big")  # the first page of the list of free ones
    assert free, "the test needs a free page"
    content[free * page - 100 : free * page - 80] = f"Anna Trace {anna.person_id}".encode()[:20]
    path.write_bytes(content)
    with open_gallery(path) as gallery:
        gallery.forget(anna.person_id, final=True)
        assert b"Trace" not in path.read_bytes()


def test_texts_are_found_as_residue(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(1000) + "xxZoëyy".encode() + bytes(1000))
    assert has_residue([path], ["Zoë"])
    assert not has_residue([path, tmp_path / "missing"], ["Anna", ""])


def test_after_the_window_nothing_is_left_of_the_sealed_copy(tmp_path, rng):
    clock = Clock()
    with open_gallery(tmp_path / "data" / "gallery.db", clock, undo_window_s=30.0) as gallery:
        gallery.add_person("Stays", [template(face(rng))])
        anna = gallery.add_person("Anna Trace", [template(vector) for vector in face(rng, 20)])
        gallery.forget(anna.person_id)
        path = tmp_path / "data" / "gallery.db"
        (row,) = sql(path, "SELECT payload FROM history_parts ORDER BY length(payload) DESC LIMIT 1")
        piece = row[0][100:140]
        assert any(piece in path.read_bytes() for path in files_below(tmp_path))
        clock.now += 30.0
        gallery.follow()
        for path in files_below(tmp_path):
            assert piece not in path.read_bytes()
            assert b"Trace" not in path.read_bytes()
        assert list((tmp_path / "keys").rglob("*.key")) == []


def test_removing_splitting_merging_and_undoing_leave_only_what_is_stored(tmp_path, rng):
    """Each removed template is gone although it had been moved between persons, undone and done again."""
    with open_gallery(tmp_path / "data" / "gallery.db") as gallery:
        vectors = face(rng, 4)
        anna = gallery.add_person("Anna", [template(vector) for vector in vectors])
        bob = gallery.add_person("Bob", [template(face(rng))])
        gallery.split(anna.template_ids[:2], "Carl")
        gallery.undo()
        gallery.redo()
        gallery.merge(bob.person_id, anna.person_id)
        gallery.remove_templates(anna.template_ids[2:3])
        assert traces(tmp_path, vectors[2:3]) == []
        assert traces(tmp_path, vectors[3:])
        gallery.undo()
        assert traces(tmp_path, vectors[2:3])
        gallery.undo(4)  # back to the empty gallery: undoing an enrollment removes faces, too
        assert dict(gallery.snapshot().persons) == {}
        assert traces(tmp_path, vectors) == []
        gc.collect()
        memory = index_memory(gallery)
        assert not any(vector.tobytes()[:32] in memory for vector in vectors)


@pytest.mark.slow
def test_nothing_is_left_after_many_random_changes(tmp_path, rng):
    """Pages are filled, moved and emptied: a copy may stay in the slack of one unless it is looked for."""
    gone = []
    with open_gallery(tmp_path / "data" / "gallery.db", undo_window_s=0.0) as gallery:
        alive = {}
        for number in range(120):
            if len(alive) > 20 or (alive and rng.random() < 0.4):
                person_id = list(alive)[rng.integers(len(alive))]
                gallery.forget(person_id)
                gone.append(alive.pop(person_id))
            else:
                vectors = face(rng, int(rng.integers(1, 12)))
                alive[gallery.add_person(f"n{number}", [template(v) for v in vectors]).person_id] = vectors
    assert len(gone) > 30
    assert traces(tmp_path, np.concatenate(gone)) == []
    assert traces(tmp_path, next(iter(alive.values())))


def test_somebody_else_who_has_the_file_open_is_no_hindrance(tmp_path, rng):
    path = tmp_path / "data" / "gallery.db"
    vectors = face(rng, 3)
    with open_gallery(path) as node, open_gallery(path) as command:
        node.add_person("Stays", [template(face(rng))])
        anna = node.add_person("Anna", [template(vector) for vector in vectors])
        command.forget(anna.person_id, final=True)
        assert traces(tmp_path, vectors) == []
        node.follow()
        memory = index_memory(node)
        assert not any(vector.tobytes()[:32] in memory for vector in vectors)


def test_a_read_that_goes_on_delays_the_scrubbing_but_does_not_prevent_it(tmp_path, rng, caplog, monkeypatch):
    monkeypatch.setattr("face_recognition_node.gallery.erasure.SCRUB_SECONDS", 0.05)
    path = tmp_path / "data" / "gallery.db"
    vectors = face(rng, 3)
    with open_gallery(path) as gallery:
        anna = gallery.add_person("Anna", [template(vector) for vector in vectors])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM templates").fetchone()
        gallery.forget(anna.person_id, final=True)
        assert "retried automatically" in caplog.text
        assert traces(tmp_path, vectors)
        other.execute("COMMIT")
        other.close()
        gallery.follow()
        assert traces(tmp_path, vectors) == []


def test_forgetting_everybody_empties_the_files(gallery, tmp_path, rng):
    vectors = np.concatenate(
        [[t.embedding for t in gallery.snapshot().templates_of(key)] for key in gallery.snapshot().persons]
    )
    gallery.forget_all(final=True)
    assert traces(tmp_path, vectors[:40]) == []
    assert not has_residue(files_below(tmp_path), [vector.tobytes() for vector in vectors])
    assert gallery.snapshot().n_templates == 0
    assert gallery.snapshot().search(vectors[:2]) == [(), ()]


def test_residue_is_found_at_any_position_whole_or_cut(tmp_path, rng):
    vectors = [vector.tobytes() for vector in face(rng, 3)]
    path = tmp_path / "file"
    for offset in range(17):
        path.write_bytes(os.urandom(offset) + vectors[1] + os.urandom(5))
        assert has_residue([path], vectors)
    for piece in (vectors[2][:60], vectors[2][-60:], vectors[2][100:160]):
        path.write_bytes(b"x" * 3 + piece + b"y" * 30)
        assert has_residue([path], vectors)
    path.write_bytes(bytes(4096) + unit(rng.normal(size=(50, 64))).tobytes())
    assert not has_residue([path, tmp_path / "missing"], vectors)
    assert not has_residue([path], [])
    path.write_bytes(b"")
    assert not has_residue([path], vectors)


def test_what_one_process_could_not_clear_another_does(tmp_path, rng, monkeypatch):
    monkeypatch.setattr("face_recognition_node.gallery.erasure.SCRUB_SECONDS", 0.05)
    path = tmp_path / "data" / "gallery.db"
    vectors = face(rng, 3)
    with open_gallery(path) as node:
        node.add_person("Stays", [template(face(rng))])
        anna = node.add_person("Anna", [template(vector) for vector in vectors])
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM templates").fetchone()
        with open_gallery(path) as command:
            command.forget(anna.person_id, final=True)
        reader.execute("COMMIT")
        reader.close()
        assert traces(tmp_path, vectors)
        for _ in range(2):
            node.follow()
        assert traces(tmp_path, vectors) == []
        assert sql(path, NOTE) == []


def test_a_removal_clears_what_an_earlier_one_had_to_leave(tmp_path, rng, monkeypatch):
    monkeypatch.setattr("face_recognition_node.gallery.erasure.SCRUB_SECONDS", 0.05)
    path = tmp_path / "data" / "gallery.db"
    with open_gallery(path) as gallery:
        anna, bob = (gallery.add_person(name, [template(face(rng))]) for name in ("Anna", "Bob"))
        rewritten = []
        scrub = Erasure.scrub

        def record(erasure, note, removed=(), must_rewrite=True):
            rewritten.append(must_rewrite)
            return scrub(erasure, note, removed, must_rewrite)

        monkeypatch.setattr(Erasure, "scrub", record)
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM templates").fetchone()
        gallery.forget(anna.person_id, final=True)
        reader.execute("COMMIT")
        reader.close()
        gallery.forget(bob.person_id, final=True)
        assert rewritten == [False, True]
        assert sql(path, NOTE) == []

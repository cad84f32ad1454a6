from __future__ import annotations

import os
import sqlite3

import numpy as np
import pytest
from gallery_helpers import content, face, open_gallery, template, templates

from face_recognition_node.common.errors import (
    GalleryConflictError,
    GalleryMismatchError,
    GalleryUnavailableError,
    PersonNotFoundError,
)
from face_recognition_node.gallery.gallery import Gallery, Provenance, SessionKind
from face_recognition_node.gallery.transfer import ImportConflict, export_fingerprint, read_export


@pytest.fixture
def source(tmp_path, rng):
    with open_gallery(tmp_path / "one" / "gallery.db") as gallery:
        anna = gallery.add_person("Anna", templates(rng, 3))
        bob = gallery.add_person("Bob", templates(rng, 2))
        gallery.merge(anna.person_id, bob.person_id)
        gallery.add_person("Carl", templates(rng, 1))
        gallery.add_person("", templates(rng, 2), is_stranger=True)
        yield gallery


@pytest.fixture
def exported(source, tmp_path):
    return source.export_to(tmp_path / "out" / "people.db").path


@pytest.fixture
def target(tmp_path):
    with open_gallery(tmp_path / "two" / "gallery.db") as gallery:
        yield gallery


def vectors(snapshot, person_id):
    return {t.embedding.tobytes() for t in snapshot.templates_of(person_id)}


def test_people_come_over_with_ids_names_and_faces(source, exported, target):
    report = target.import_from(exported)
    there, here = source.snapshot(), target.snapshot()
    assert (report.n_persons, report.n_templates, report.n_skipped) == (3, 8, 0)
    assert set(report.person_ids) == set(here.persons)
    for person_id, person in there.persons.items():
        assert here.persons[person_id].name == person.name
        assert here.persons[person_id].is_stranger == person.is_stranger
        assert here.persons[person_id].n_imported == person.n_templates
        assert vectors(here, person_id) == vectors(there, person_id)
    anna = next(p for p in there.persons.values() if p.name == "Anna")
    assert here.resolve(anna.aliases[0]) == anna.person_id
    assert target.verify().problems == ()
    assert target.undo()
    assert dict(target.snapshot().persons) == {}


def test_an_export_is_one_file_and_a_gallery_of_its_own(exported):
    assert [path.name for path in exported.parent.iterdir()] == ["people.db"]
    with Gallery.open(exported, None, keys_folder=exported.parent.parent / "keys") as gallery:
        assert len(gallery.snapshot().persons) == 3
        assert gallery.history() == []


def test_some_people_only(source, tmp_path, target):
    carl = next(p for p in source.snapshot().persons.values() if p.name == "Carl")
    report = source.export_to(tmp_path / "carl.db", person_ids=[carl.person_id])
    assert (report.n_persons, report.n_templates) == (1, 1)
    target.import_from(report.path)
    assert list(target.snapshot().persons) == [carl.person_id]
    with pytest.raises(PersonNotFoundError):
        source.export_to(tmp_path / "nobody.db", person_ids=["p-unknown"])
    assert not (tmp_path / "nobody.db").exists()


def test_an_existing_file_is_replaced_only_on_request(source, exported, tmp_path):
    before = exported.read_bytes()
    with pytest.raises(GalleryConflictError, match="exists"):
        source.export_to(exported)
    assert exported.read_bytes() == before
    source.export_to(exported, overwrite=True)
    with pytest.raises(GalleryConflictError, match="the gallery itself"):
        source.export_to(source.path, overwrite=True)


@pytest.mark.parametrize("kind", ["text", "wal", "link", "pipe", "other gallery"])
def test_only_an_export_is_ever_overwritten(source, exported, tmp_path, kind):
    path = tmp_path / "mine"
    if kind == "wal":
        path = source.path.with_name(source.path.name + "-wal")
    elif kind == "link":
        path.symlink_to(exported)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "other gallery":
        open_gallery(path).close()
    else:
        path.write_text("a diary")
    before = None if kind == "pipe" else path.read_bytes()
    with pytest.raises(GalleryConflictError, match="choose another name"):
        source.export_to(path, overwrite=True)
    assert path.is_fifo() if before is None else path.read_bytes() == before
    assert path.is_symlink() == (kind == "link")


def test_a_failed_export_leaves_no_file(source, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("face_recognition_node.gallery.files.os.fsync", fail)
    with pytest.raises(GalleryUnavailableError, match="disk is full"):
        source.export_to(tmp_path / "out" / "full.db")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_export_needs_no_unnamed_files_and_clears_what_a_killed_one_left(source, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / ".all.db.0123abcd.part").write_bytes(b"faces")
    opened = os.open

    def old_file_system(path, flags, *mode, **more):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        return opened(path, flags, *mode, **more)

    monkeypatch.setattr("face_recognition_node.gallery.files.os.open", old_file_system)
    for overwrite in (False, True):
        source.export_to(folder / "all.db", overwrite=overwrite)
        assert [path.name for path in folder.iterdir()] == ["all.db"]
        assert (folder / "all.db").stat().st_mode & 0o777 == 0o600
    assert set(read_export(folder / "all.db", source.fingerprint).persons) != set()


def test_an_export_of_some_has_no_session_of_others(source, tmp_path, rng):
    source.set_session("Annas birthday")
    source.add_person("Anna", templates(rng, 1))
    source.set_session("")
    zoe = source.add_person("Zoë", templates(rng, 1))
    source.export_to(tmp_path / "one.db", person_ids=[zoe.person_id])
    assert b"birthday" not in (tmp_path / "one.db").read_bytes()


@pytest.mark.parametrize("policy", list(ImportConflict))
def test_people_who_are_here_already(source, exported, rng, policy):
    snapshot = source.snapshot()
    anna = next(p for p in snapshot.persons.values() if p.name == "Anna")
    source.rename(anna.person_id, "Hanna")
    source.remove_templates(anna.template_ids[:1])
    source.add_templates(anna.person_id, templates(rng, 1))
    before = content(source.snapshot())
    if policy is ImportConflict.REFUSE:
        with pytest.raises(GalleryConflictError, match="exists already"):
            source.import_from(exported, on_conflict=policy)
        assert content(source.snapshot()) == before
        return
    report = source.import_from(exported, on_conflict=policy)
    after = source.snapshot()
    assert after.persons[anna.person_id].name == "Hanna"
    n_hanna = after.persons[anna.person_id].n_templates
    if policy is ImportConflict.MERGE:
        assert (report.n_persons, report.n_templates, report.n_skipped) == (0, 1, 7)
        assert n_hanna == 6
    elif policy is ImportConflict.SKIP:
        assert (report.n_persons, report.n_templates, report.n_skipped) == (0, 0, 8)
        assert content(after) == before
    else:
        assert (report.n_persons, report.n_templates, len(after.persons)) == (3, 8, 6)
        assert n_hanna == 5
    assert source.verify().problems == ()


def test_a_stranger_of_another_gallery_gets_a_number_of_its_own(exported, target, rng):
    here = target.add_person("", templates(rng, 1), is_stranger=True)
    report = target.import_from(exported)
    assert here.person_id == "stranger-1"
    assert "stranger-2" in report.person_ids
    assert target.snapshot().persons["stranger-1"].n_templates == 1
    assert target.snapshot().persons["stranger-2"].n_templates == 2
    assert target.snapshot().persons["stranger-2"].expires is not None


def test_a_stranger_comes_back_to_its_own_gallery_as_itself(source, exported):
    source.forget_all()
    source.import_from(exported)
    assert source.snapshot().persons["stranger-1"].n_templates == 2
    assert len(source.snapshot().persons) == 3


def test_people_are_stored_under_the_session_asked_for(exported, target):
    target.set_session("party", SessionKind.EVENT, 100.0)
    target.set_session("")
    target.import_from(exported, session="party")
    persons = target.snapshot().persons.values()
    assert {p.session for p in persons} == {"party"}
    assert all(p.expires is not None for p in persons)
    with pytest.raises(GalleryConflictError, match="no session"):
        target.import_from(exported, session="other")


def test_too_many_templates_stop_the_whole_import(exported, tmp_path):
    with open_gallery(tmp_path / "three" / "gallery.db", max_templates_per_person=4) as gallery:
        with pytest.raises(GalleryConflictError, match="at most 4"):
            gallery.import_from(exported)
        assert dict(gallery.snapshot().persons) == {}
        assert gallery.snapshot().version == 0


def test_another_model_is_refused(exported, tmp_path):
    with Gallery.open(None, "model-b") as gallery, pytest.raises(GalleryMismatchError, match="model-b"):
        gallery.import_from(exported)


@pytest.mark.parametrize("damage", ["changed", "cut", "text", "missing", "other"])
def test_a_bad_file_changes_nothing(exported, target, damage, rng):
    if damage == "changed":
        with sqlite3.connect(exported) as connection:
            connection.execute(
                "UPDATE templates SET embedding = ? WHERE template_id = 1",
                (face(rng).astype("<f4").tobytes(),),
            )
    elif damage == "cut":
        exported.write_bytes(exported.read_bytes()[:9000])
    elif damage == "text":
        exported.write_text("people: []")
    elif damage == "missing":
        exported.unlink()
    else:
        exported.unlink()
        with sqlite3.connect(exported) as connection:
            connection.execute("CREATE TABLE t (x)")
    with pytest.raises(GalleryUnavailableError, match=str(exported)):
        target.import_from(exported)
    assert target.snapshot().version == 0


def test_a_plain_gallery_can_be_imported_too(source, target):
    source.add_person("Dora", [template(face(np.random.default_rng(5)))])
    target.import_from(source.path)
    assert len(target.snapshot().persons) == 4


def test_whoever_was_a_stranger_there_comes_once(tmp_path, rng, target):
    """A named stranger keeps the number as its id, and numbers mean nothing in another gallery."""
    with open_gallery(tmp_path / "one" / "gallery.db") as source:
        stranger = source.add_person("", templates(rng, 2), is_stranger=True)
        source.add_person("", templates(rng, 2), is_stranger=True)
        source.rename(stranger.person_id, "Anna")
        exported = source.export_to(tmp_path / "out.db").path
    first = target.import_from(exported)
    again = target.import_from(exported)
    assert (first.n_persons, again.n_persons, again.n_templates) == (2, 0, 0)
    assert set(again.person_ids) == set(first.person_ids) == set(target.snapshot().persons)


def test_no_view_is_stored_of_two_people(tmp_path, rng, target):
    """There Ann was joined with Anna after both had been brought over."""
    with open_gallery(tmp_path / "one" / "gallery.db") as source:
        anna, ann = (source.add_person(name, templates(rng, 2)) for name in ("Anna", "Ann"))
        target.import_from(source.export_to(tmp_path / "before.db").path)
        source.merge(anna.person_id, ann.person_id)
        report = target.import_from(source.export_to(tmp_path / "after.db").path)
    assert (report.n_persons, report.n_templates, report.n_skipped) == (0, 0, 4)
    stored = [v for person_id in target.snapshot().persons for v in vectors(target.snapshot(), person_id)]
    assert len(stored) == len(set(stored)) == 4


def test_strangers_are_numbered_on_after_an_older_copy_is_restored(tmp_path, rng):
    path = tmp_path / "one" / "gallery.db"
    with open_gallery(path) as gallery:
        gallery.add_person("", templates(rng, 1), is_stranger=True)
        gallery.export_to(tmp_path / "copy.db")
    old = path.read_bytes()
    with open_gallery(path) as gallery:
        gallery.add_person("", templates(rng, 1), is_stranger=True)
        newer = gallery.export_to(tmp_path / "newer.db").path
    path.write_bytes(old)
    with open_gallery(path) as gallery:
        gallery.import_from(newer)
        assert gallery.add_person("", templates(rng, 1), is_stranger=True).person_id == "stranger-3"


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE templates SET embedding = substr(embedding, 1, 100)",
        "UPDATE templates SET embedding = zeroblob(256)",
        "UPDATE templates SET precision = 'fp8'",
    ],
)
def test_rows_that_nobody_could_be_found_by_are_refused(source, target, damage):
    with sqlite3.connect(source.path) as connection:  # a plain gallery has no checksum
        connection.execute(damage)
    with pytest.raises(GalleryUnavailableError, match="damaged"):
        target.import_from(source.path)
    assert not target.snapshot().persons


def test_who_was_a_stranger_here_gets_the_name_that_was_learned_there(tmp_path, rng, target):
    with open_gallery(tmp_path / "one" / "gallery.db") as source:
        stranger = source.add_person("", templates(rng, 2), is_stranger=True)
        target.import_from(source.export_to(tmp_path / "before.db").path)
        (here,) = target.snapshot().persons
        target.add_templates(here, [template(face(rng), provenance=Provenance.ADAPTED)])
        source.rename(stranger.person_id, "Anna")
        target.import_from(source.export_to(tmp_path / "after.db").path)
    (person,) = target.snapshot().persons.values()
    assert (person.name, person.is_stranger, person.expires) == ("Anna", False, None)
    assert (person.n_adapted, person.n_enrolled) == (0, 1)


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT"
HOSTILE_SCHEMAS = {
    "endless view": (
        "DROP TABLE aliases",
        f"CREATE VIEW aliases AS {ENDLESS} 'a' alias, 'b' person_id FROM n",
    ),
    "endless meta": ("DROP TABLE meta", f"CREATE VIEW meta AS {ENDLESS} 'x' AS key, x AS value FROM n"),
    "trigger": ("CREATE TRIGGER t AFTER INSERT ON persons BEGIN SELECT 1; END",),
    "table": ("CREATE TABLE more (x)",),
    "computed": (
        "DROP TABLE aliases",
        "CREATE TABLE aliases (alias TEXT, person_id TEXT, x AS (zeroblob(1000000000)))",
    ),
    "index": ("CREATE INDEX i ON persons (upper(name))",),
    "missing": ("DROP TABLE crops",),
}


@pytest.mark.parametrize("kind", HOSTILE_SCHEMAS)
def test_a_file_with_other_than_a_gallerys_tables_is_refused_unread(source, exported, target, tmp_path, kind):
    with sqlite3.connect(exported) as connection:
        for statement in HOSTILE_SCHEMAS[kind]:
            connection.execute(statement)
    connection.close()
    for use in (
        lambda: target.import_from(exported),
        lambda: export_fingerprint(exported),
        lambda: Gallery.open(exported, None, keys_folder=tmp_path / "keys"),
    ):
        with pytest.raises(GalleryUnavailableError, match=r"not a gallery \(|not a gallery:"):
            use()
    before = exported.read_bytes()
    with pytest.raises(GalleryConflictError, match="not an export"):
        source.export_to(exported, overwrite=True)
    assert exported.read_bytes() == before
    assert target.snapshot().version == 0


BAD_ROWS = {
    "alias of another's id": "INSERT INTO aliases VALUES ('{carl}', '{anna}')",
    "alias of oneself": "INSERT INTO aliases VALUES ('{anna}', '{anna}')",
    "alias of nobody": "INSERT INTO aliases VALUES ('p-1', 'p-nobody')",
    "blank alias": "INSERT INTO aliases VALUES ('  ', '{anna}')",
    "empty id": "UPDATE persons SET person_id = '' WHERE person_id = '{carl}'",
    "blank id": "UPDATE persons SET person_id = ' ' WHERE person_id = '{carl}'",
    "two ids": "UPDATE persons SET person_id = 'p-1 p-2' WHERE person_id = '{carl}'",
    "control id": "UPDATE persons SET person_id = 'p' || char(27) WHERE person_id = '{carl}'",
    "long id": "UPDATE persons SET person_id = hex(zeroblob(5000000)) WHERE person_id = '{carl}'",
    "binary id": "UPDATE persons SET person_id = x'00' WHERE person_id = '{carl}'",
    "empty name": "UPDATE persons SET name = '' WHERE person_id = '{carl}'",
    "blank name": "UPDATE persons SET name = '  ' WHERE person_id = '{carl}'",
    "control name": "UPDATE persons SET name = 'a' || char(27) WHERE person_id = '{carl}'",
    "long name": "UPDATE persons SET name = hex(zeroblob(5000000)) WHERE person_id = '{carl}'",
    "binary name": "UPDATE persons SET name = x'41' WHERE person_id = '{carl}'",
    "neither person nor stranger": "UPDATE persons SET is_stranger = 300",
    "endless life": "UPDATE persons SET expires = 9e999",
    "endless age": "UPDATE persons SET created = -9e999",
    "time as text": "UPDATE persons SET last_seen = 'yesterday'",
    "no such session": "UPDATE persons SET session = 'party'",
    "session of control characters": "INSERT INTO sessions VALUES (char(27), 'run', 1)",
    "session of a negative time": "INSERT INTO sessions VALUES ('a', 'run', -1)",
    "session of a kind unknown": "INSERT INTO sessions VALUES ('a', 'ever', 1)",
    "person without templates": "DELETE FROM templates WHERE person_id = '{carl}'",
    "templates of nobody": "UPDATE templates SET person_id = 'p-nobody'",
    "quality": "UPDATE templates SET quality = 3e38",
    "quality as text": "UPDATE templates SET quality = 'good'",
    "pose": "UPDATE templates SET yaw = 9e999",
    "provenance": "UPDATE templates SET provenance = 'found'",
    "precision": "UPDATE templates SET precision = 'fp8'",
    "set aside": "UPDATE templates SET is_set_aside = 300",
    "template id": "UPDATE templates SET template_id = -template_id",
    "embedding as text": "UPDATE templates SET embedding = hex(zeroblob(128))",
    "infinite embedding": "UPDATE templates SET embedding = CAST(zeroblob(252) || x'0000807f' AS BLOB)",
}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow) if k == "long name" else k for k in BAD_ROWS]
)
def test_one_validator_refuses_rows_at_import_and_reports_them_in_verify(source, target, kind):
    ids = {person.name.lower(): person_id for person_id, person in source.snapshot().persons.items()}
    connection = sqlite3.connect(source.path)  # a plain gallery has no checksum
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute(BAD_ROWS[kind].format(**ids))
    connection.commit()
    connection.close()
    with pytest.raises(GalleryUnavailableError, match="damaged") as caught:
        target.import_from(source.path)
    assert len(str(caught.value)) < 600
    assert target.snapshot().version == 0
    assert source.verify().problems


def test_another_model_is_told_before_anything_else_is_read(exported, tmp_path):
    with sqlite3.connect(exported) as connection:
        connection.execute("UPDATE templates SET quality = 7")
    with Gallery.open(None, "model-b") as gallery, pytest.raises(GalleryMismatchError, match="model-b"):
        gallery.import_from(exported)


@pytest.mark.parametrize(
    ("limit", "value", "message"), [("MOST_BYTES", 1000, "too large"), ("DEADLINE_S", -9.0, "too long")]
)
def test_a_file_that_is_too_large_or_takes_too_long_is_refused(
    source, target, tmp_path, rng, monkeypatch, limit, value, message
):
    source.add_person("Many", templates(rng, 90))
    exported = source.export_to(tmp_path / "many.db").path
    monkeypatch.setattr(f"face_recognition_node.gallery.transfer.{limit}", value)
    with pytest.raises(GalleryUnavailableError, match=message) as caught:
        target.import_from(exported)
    assert " --" not in str(caught.value), "an option of the command line, where services answer too"

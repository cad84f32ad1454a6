from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from gallery_helpers import Clock, content, face, open_gallery, template, templates

from face_recognition_node.common.errors import (
    GalleryConflictError,
    GalleryUnavailableError,
    InputError,
    PersonNotFoundError,
)
from face_recognition_node.enrollment.goal import EnrollmentGoal
from face_recognition_node.gallery.gallery import Gallery, NewTemplate, Provenance, SessionKind
from face_recognition_node.gallery.values import checked_name
from face_recognition_node.vision.faces import HeadPose


@pytest.fixture(params=["file", "memory"])
def gallery(request, tmp_path):
    path = tmp_path / "data" / "gallery.db" if request.param == "file" else None
    with open_gallery(path) as opened:
        yield opened


def test_a_new_gallery_is_empty(gallery):
    snapshot = gallery.snapshot()
    assert snapshot.version == 0
    assert dict(snapshot.persons) == {}
    assert snapshot.n_templates == 0
    assert snapshot.search(np.zeros((0, 64), np.float32)) == []
    assert snapshot.search(np.eye(2, 64, dtype=np.float32)) == [(), ()]


def test_an_added_person_is_found_with_what_was_stored(gallery, rng):
    vectors = face(rng, 3)
    stored = [template(vector, quality) for vector, quality in zip(vectors, (0.5, 0.7, 0.9), strict=True)]
    person = gallery.add_person("Anna", stored)
    snapshot = gallery.snapshot()
    assert snapshot.version == 1
    assert snapshot.persons[person.person_id] == person
    assert (person.name, person.n_templates, person.n_enrolled) == ("Anna", 3, 3)
    ((match, *others),) = snapshot.search(vectors[1:2])
    assert not others
    assert match.person_id == person.person_id
    assert match.similarity == pytest.approx(1.0, abs=1e-6)
    assert match.template_id == person.template_ids[1]
    assert match.template_quality == pytest.approx(0.7)
    for found, vector in zip(snapshot.templates_of(person.person_id), vectors, strict=True):
        np.testing.assert_array_equal(found.embedding, vector)
        assert found.pose == HeadPose(1.0, -2.0, 3.0)
        assert found.precision == "fp32"


def test_an_older_snapshot_does_not_change(gallery, rng):
    first = gallery.add_person("Anna", templates(rng, 2))
    before = gallery.snapshot()
    old = content(before)
    gallery.add_person("Bob", templates(rng, 2))
    gallery.add_templates(first.person_id, templates(rng, 1))
    gallery.rename(first.person_id, "Hanna")
    assert content(before) == old
    assert before.version == 1
    assert gallery.snapshot().version == 4


def test_two_people_may_bear_one_name(gallery, rng):
    one, two = gallery.add_person("Anna", templates(rng, 1)), gallery.add_person("Anna", templates(rng, 1))
    assert one.person_id != two.person_id
    gallery.rename(one.person_id, "Anna B")
    assert {p.name for p in gallery.snapshot().persons.values()} == {"Anna", "Anna B"}


def test_stranger_numbers_count_up_and_are_never_used_again(gallery, rng):
    ids = [gallery.add_person("", templates(rng, 1), is_stranger=True).person_id for _ in range(3)]
    assert ids == ["stranger-1", "stranger-2", "stranger-3"]
    gallery.forget(ids, final=True)
    assert gallery.add_person("", templates(rng, 1), is_stranger=True).person_id == "stranger-4"


def test_naming_a_stranger_gives_a_persons_id_and_ends_its_expiry(gallery, rng):
    stranger = gallery.add_person("", templates(rng, 2), is_stranger=True)
    assert stranger.is_stranger
    assert stranger.expires is not None
    assert stranger.label == "stranger-1"
    person = gallery.rename("stranger-1", "  Carl   Carlson ")
    assert person.person_id.startswith("p-")
    assert (person.name, person.aliases) == ("Carl Carlson", ("stranger-1",))
    assert not person.is_stranger
    assert person.expires is None
    assert person.template_ids == stranger.template_ids
    assert person.created == stranger.created
    assert gallery.snapshot().person("stranger-1") == person
    assert gallery.add_person("", templates(rng, 1), is_stranger=True).person_id == "stranger-2"


def test_undo_takes_a_strangers_name_and_new_id_back(gallery, rng):
    stranger = gallery.add_person("", templates(rng, 2), is_stranger=True)
    carl = gallery.rename("stranger-1", "Carl")
    gallery.undo()
    (back,) = gallery.snapshot().persons.values()
    assert replace(back, expires=stranger.expires) == stranger
    assert carl.person_id not in gallery.snapshot().aliases
    gallery.redo()
    assert gallery.snapshot().person("stranger-1") == carl
    gallery.forget("stranger-1", final=True)
    assert gallery.snapshot().persons == {}
    assert gallery.snapshot().aliases == {}


def test_merge_keeps_one_id_and_resolves_the_others(gallery, rng):
    vectors = face(rng, 3)
    a, b, c = (gallery.add_person(name, [template(v)]) for name, v in zip("abc", vectors, strict=True))
    gallery.merge(b.person_id, c.person_id)
    person = gallery.merge(a.person_id, b.person_id)
    assert person.name == "a"
    assert person.aliases == tuple(sorted((b.person_id, c.person_id)))
    snapshot = gallery.snapshot()
    assert snapshot.resolve(c.person_id) == a.person_id
    assert snapshot.person(b.person_id) == person
    for matches in snapshot.search(vectors):
        assert [match.person_id for match in matches] == [a.person_id]
        assert matches[0].similarity == pytest.approx(1.0, abs=1e-6)
    assert gallery.rename(c.person_id, "all").person_id == a.person_id


def test_a_named_person_stays_when_merged_into_a_stranger(gallery, rng):
    stranger = gallery.add_person("", templates(rng, 1), is_stranger=True)
    known = gallery.add_person("Anna", templates(rng, 1))
    person = gallery.merge(stranger.person_id, [known.person_id])
    assert (person.person_id, person.name, person.is_stranger) == (known.person_id, "Anna", False)
    assert (person.expires, person.aliases, person.n_templates) == (None, (stranger.person_id,), 2)


def test_enrolling_who_was_a_stranger_is_one_change_and_one_step(gallery, rng):
    old, new = face(rng, 2), face(rng, 2)
    one, two = (gallery.add_person("", [template(v)], is_stranger=True) for v in old)
    version = gallery.snapshot().version
    person = gallery.enroll("Anna", [template(v) for v in new], absorb=[one.person_id, two.person_id])
    assert gallery.snapshot().version == version + 1
    assert (person.person_id[:2], person.name, person.is_stranger) == ("p-", "Anna", False)
    assert (person.expires, person.created, person.n_templates) == (None, one.created, 4)
    assert person.aliases == (one.person_id, two.person_id)
    for matches in gallery.snapshot().search(np.concatenate([old, new])):
        assert [match.person_id for match in matches] == [person.person_id]
        assert matches[0].similarity == pytest.approx(1.0, abs=1e-6)
    assert gallery.undo() == ("add Anna, known as stranger-1, stranger-2, with 2 templates",)
    assert gallery.history()[0].is_done is False
    strangers = gallery.snapshot().persons
    assert [(p.person_id, p.is_stranger, p.n_templates) for p in strangers.values()] == [
        (one.person_id, True, 1),
        (two.person_id, True, 1),
    ]
    assert gallery.enroll("Bob", templates(rng, 1)).name == "Bob"


def test_only_strangers_are_absorbed(gallery, rng):
    bob = gallery.add_person("Bob", templates(rng, 1))
    before = content(gallery.snapshot())
    with pytest.raises(GalleryConflictError, match="no longer a stranger"):
        gallery.enroll("Anna", templates(rng, 1), absorb=[bob.person_id])
    with pytest.raises(PersonNotFoundError):
        gallery.enroll("Anna", templates(rng, 1), absorb=["stranger-9"])
    with pytest.raises(InputError, match="at least one"):
        gallery.enroll("Anna", [], absorb=[bob.person_id])
    assert content(gallery.snapshot()) == before


def test_split_makes_a_person_of_its_own(gallery, rng):
    vectors = face(rng, 3)
    person = gallery.add_person("Anna", [template(v) for v in vectors])
    new = gallery.split(person.template_ids[1:2], "Bob")
    assert new.template_ids == person.template_ids[1:2]
    assert gallery.snapshot().persons[person.person_id].n_templates == 2
    assert gallery.snapshot().search(vectors[1:2], 1)[0][0].person_id == new.person_id
    unnamed = gallery.split(person.template_ids[:1])
    assert unnamed.is_stranger
    assert unnamed.person_id == "stranger-1"


def test_split_refuses_all_templates_and_those_of_two_people(gallery, rng):
    a, b = gallery.add_person("a", templates(rng, 2)), gallery.add_person("b", templates(rng, 2))
    with pytest.raises(GalleryConflictError, match="all templates"):
        gallery.split(a.template_ids, "c")
    with pytest.raises(GalleryConflictError, match="one person"):
        gallery.split((a.template_ids[0], b.template_ids[0]), "c")
    with pytest.raises(GalleryConflictError, match="no templates"):
        gallery.split((999,), "c")
    assert gallery.snapshot().version == 2


def test_removed_and_set_aside_templates_are_not_found(gallery, rng):
    vectors = face(rng, 3)
    person = gallery.add_person("Anna", [template(v) for v in vectors])
    gallery.remove_templates(person.template_ids[:1])
    gallery.set_aside(person.template_ids[1:2])
    snapshot = gallery.snapshot()
    assert snapshot.persons[person.person_id].template_ids == person.template_ids[1:]
    assert [t.is_set_aside for t in snapshot.templates_of(person.person_id)] == [True, False]
    for matches in snapshot.search(vectors):
        assert [match.template_id for match in matches] == [person.template_ids[2]]
    gallery.set_aside(person.template_ids[1:2], False)
    assert gallery.snapshot().search(vectors[1:2])[0][0].template_id == person.template_ids[1]
    with pytest.raises(GalleryConflictError, match="forget the person"):
        gallery.remove_templates(person.template_ids[1:])


def test_somebody_whose_templates_are_all_set_aside_is_not_found(gallery, rng):
    vector = face(rng)
    person = gallery.add_person("Anna", [template(vector)])
    gallery.set_aside(person.template_ids)
    assert gallery.snapshot().search(vector[None]) == [()]


def test_rolling_adaptation_back_keeps_enrolled_views(gallery, rng):
    person = gallery.add_person("Anna", templates(rng, 2))
    only = gallery.add_person("Bob", [template(face(rng), provenance=Provenance.ADAPTED)])
    gallery.add_templates(person.person_id, [template(face(rng), provenance=Provenance.ADAPTED)] * 2)
    assert gallery.snapshot().persons[person.person_id].n_adapted == 2
    assert gallery.rollback_adaptation(person.person_id) == 2
    assert gallery.rollback_adaptation() == 0
    persons = gallery.snapshot().persons
    assert persons[person.person_id].template_ids == person.template_ids
    assert persons[only.person_id].n_templates == 1


def test_a_person_has_at_most_so_many_templates(rng):
    with open_gallery(None, max_templates_per_person=3) as gallery:
        person = gallery.add_person("Anna", templates(rng, 2))
        other = gallery.add_person("Bob", templates(rng, 2))
        for refused in (
            lambda: gallery.add_templates(person.person_id, templates(rng, 2)),
            lambda: gallery.add_person("Carl", templates(rng, 4)),
            lambda: gallery.merge(person.person_id, other.person_id),
        ):
            with pytest.raises(GalleryConflictError, match="at most 3"):
                refused()
        assert gallery.snapshot().version == 2


@pytest.mark.parametrize("name", ["", "   ", "x" * 201, "a\x00b", "tab\x07"])
def test_a_name_must_be_readable(gallery, rng, name):
    with pytest.raises(InputError, match="name"):
        gallery.add_person(name, templates(rng, 1))


def test_wrong_input_is_refused_and_changes_nothing(gallery, rng):
    person = gallery.add_person("Anna", templates(rng, 1))
    wrong = NewTemplate(np.eye(1, 32, dtype=np.float32)[0], 0.5, HeadPose(0, 0, 0))
    with pytest.raises(InputError, match=r"\(64,\)"):
        gallery.add_templates(person.person_id, [templates(rng, 1)[0], wrong])
    with pytest.raises(InputError, match="at least one"):
        gallery.add_person("Bob", [])
    for call in (
        gallery.forget,
        lambda key: gallery.rename(key, "x"),
        lambda key: gallery.merge(key, person.person_id),
    ):
        with pytest.raises(PersonNotFoundError):
            call("p-unknown")
    for number in (-1, 0, 99, 1 << 63, 1 << 99):
        with pytest.raises(GalleryConflictError, match=f"no templates with the ids .*{number}"):
            gallery.split(
                [*(t.template_id for t in gallery.snapshot().templates_of(person.person_id)), number]
            )
    with pytest.raises(GalleryConflictError, match="itself"):
        gallery.merge(person.person_id, person.person_id)
    assert gallery.snapshot().version == 1
    assert gallery.snapshot().n_templates == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"embedding": np.ones(64)}, "unit length"),
        ({"embedding": np.full(64, np.nan)}, "finite"),
        ({"embedding": np.eye(2)}, "vector"),
        ({"quality": 1.5}, "quality"),
        ({"pose": HeadPose(float("nan"), 0, 0)}, "pose"),
        ({"precision": "fp8"}, "precision"),
        ({"crop_bgr": np.zeros((64, 64, 3), np.uint8)}, "crop_bgr"),
    ],
)
def test_a_template_is_checked(values, message):
    good = {"embedding": np.eye(1, 64)[0], "quality": 0.5, "pose": HeadPose(0, 0, 0)}
    NewTemplate(**good)
    with pytest.raises(InputError, match=message):
        NewTemplate(**{**good, **values})


@pytest.mark.parametrize("queries", [np.zeros(64), np.zeros((1, 63)), np.full((1, 64), np.nan)])
def test_wrong_queries_are_refused(gallery, queries):
    with pytest.raises(InputError, match="queries"):
        gallery.snapshot().search(queries)
    with pytest.raises(InputError, match="per_query"):
        gallery.snapshot().search(np.zeros((1, 64)), 0)


def test_everything_is_there_after_reopening(tmp_path, rng):
    path = tmp_path / "data" / "gallery.db"
    with open_gallery(path) as gallery:
        anna = gallery.add_person("Anna", templates(rng, 3))
        bob = gallery.add_person("Bob", templates(rng, 2))
        gallery.merge(anna.person_id, bob.person_id)
        gallery.add_person("", templates(rng, 1), is_stranger=True)
        gallery.set_aside(anna.template_ids[:1])
        gallery.set_session("party", SessionKind.EVENT, 60.0)
        before, version = content(gallery.snapshot()), gallery.snapshot().version
    with open_gallery(path) as gallery:
        assert content(gallery.snapshot()) == before
        assert gallery.snapshot().version == version
        assert gallery.session.name == "party"
        assert gallery.snapshot().resolve(bob.person_id) == anna.person_id


def test_persons_are_listed_in_the_order_of_their_creation(tmp_path, rng):
    clock, path = Clock(), tmp_path / "data" / "gallery.db"
    with open_gallery(path, clock) as gallery:
        ids = []
        for k in range(8):
            clock.now = 1000.0 + k // 2  # two at a time: these go by their ids
            ids.append(gallery.add_person(f"P{k}", templates(rng, 2)).person_id)
        expected = [key for k in range(0, 8, 2) for key in sorted(ids[k : k + 2])]

        def is_in_order() -> bool:
            return list(gallery.snapshot().persons) == expected

        assert is_in_order()
        gallery.rename(expected[2], "Zoe")
        assert is_in_order()
        gallery.forget([expected[1], expected[4]])
        assert list(gallery.snapshot().persons) == [expected[k] for k in (0, 2, 3, 5, 6, 7)]
        gallery.undo()
        assert is_in_order()
        gallery.merge(expected[6], expected[0])  # takes over the earlier date
        people = gallery.snapshot().persons
        assert list(people) == sorted(people, key=lambda key: (people[key].created, key))
        merged = list(people)
    with open_gallery(path, clock) as gallery:
        assert list(gallery.snapshot().persons) == merged
        gallery.undo()
        assert is_in_order()


def test_a_closed_gallery_refuses_changes_but_its_snapshot_lives(tmp_path, rng):
    gallery = open_gallery(tmp_path / "data" / "gallery.db")
    vector = face(rng)
    gallery.add_person("Anna", [template(vector)])
    gallery.close()
    gallery.close()
    assert gallery.snapshot().search(vector[None])[0][0].similarity == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(GalleryUnavailableError, match="closed"):
        gallery.add_person("Bob", [template(vector)])


def test_changed_parameters_count_from_the_next_change(rng):
    with open_gallery(None) as gallery:
        gallery.update_config(type(gallery.config)(max_templates_per_person=1, poll_interval_s=0.0))
        with pytest.raises(GalleryConflictError, match="at most 1"):
            gallery.add_person("Anna", templates(rng, 2))


def test_a_gallery_in_memory_needs_no_fingerprint():
    with Gallery.open(None, None) as gallery:
        assert gallery.fingerprint == ""
        assert gallery.path is None


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0 a picture", b"SQLite format 3\0 cut"])
def test_a_file_that_is_no_gallery_is_not_touched(tmp_path, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    path.chmod(0o644)
    with pytest.raises(GalleryUnavailableError):
        open_gallery(path)
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o644


def test_another_database_is_not_touched(tmp_path):
    path = tmp_path / "app.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE users (name TEXT)")
    before = (path.read_bytes(), path.stat().st_mode)
    with pytest.raises(GalleryUnavailableError, match="not a gallery"):
        open_gallery(path)
    assert (path.read_bytes(), path.stat().st_mode) == before


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("نیک\u200cنام", "نیک\u200cنام"),  # Persian
        ("ශ්\u200dරී", "ශ්\u200dරී"),  # Sinhala
        ("അവന്\u200d", "അവന്\u200d"),  # Malayalam, at the end of a word
        ("Anna\u00a0Li", "Anna Li"),
        ("山田\u3000花子", "山田 花子"),
        ("van Dyck", "van Dyck"),
    ],
)
def test_names_keep_their_letters_and_fold_their_blanks(given, stored):
    assert checked_name(given) == stored
    assert EnrollmentGoal(given).name == stored


@pytest.mark.parametrize("given", ["\u3164", "\u2800 \u115f", "\u200dAnna", "Anna\u200c", "A\u200c\u200db"])
def test_a_name_that_cannot_be_seen_is_refused(given):
    with pytest.raises(InputError):
        checked_name(given)
    with pytest.raises(InputError):
        EnrollmentGoal(given)

from __future__ import annotations

import numpy as np
import pytest
from gallery_helpers import Clock, content, face, open_gallery, template, templates
from hypothesis import given, settings
from hypothesis import strategies as st

from face_recognition_node.common.errors import GalleryConflictError, GalleryUnavailableError, InputError
from face_recognition_node.gallery.changes import Change, decode_changes, encode_changes
from face_recognition_node.gallery.gallery import Provenance


@pytest.fixture
def gallery(tmp_path):
    with open_gallery(tmp_path / "data" / "gallery.db") as opened:
        yield opened


def changes_of_every_kind(gallery, rng):
    """Make one change of each kind; yield its name after each."""
    anna = gallery.add_person("Anna", templates(rng, 3))
    yield "add"
    bob = gallery.add_person("Bob", templates(rng, 2))
    yield "add another"
    gallery.add_templates(anna.person_id, [template(face(rng), provenance=Provenance.ADAPTED)])
    yield "add templates"
    gallery.rename(anna.person_id, "Hanna")
    yield "rename"
    carl = gallery.split(anna.template_ids[:1], "Carl")
    yield "split"
    gallery.merge(bob.person_id, carl.person_id)
    yield "merge"
    gallery.set_aside(bob.template_ids[:1])
    yield "set aside"
    gallery.remove_templates(bob.template_ids[:1])
    yield "remove"
    gallery.rollback_adaptation()
    yield "rollback"
    gallery.forget(anna.person_id)
    yield "forget"
    gallery.forget_all()
    yield "forget all"


def test_every_kind_of_change_is_undone_and_done_again_exactly(gallery, rng):
    states = [content(gallery.snapshot())]
    names = []
    for name in changes_of_every_kind(gallery, rng):
        names.append(name)
        states.append(content(gallery.snapshot()))
    for _ in range(2):
        for state in reversed(states[:-1]):
            gallery.undo()
            assert content(gallery.snapshot()) == state
        with pytest.raises(GalleryConflictError, match="nothing to undo"):
            gallery.undo()
        for state in states[1:]:
            gallery.redo()
            assert content(gallery.snapshot()) == state
        with pytest.raises(GalleryConflictError, match="nothing to redo"):
            gallery.redo()
    assert gallery.snapshot().version == len(names) * 5
    assert gallery.verify().problems == ()


def test_undo_survives_a_restart(tmp_path, rng):
    path = tmp_path / "data" / "gallery.db"
    with open_gallery(path) as gallery:
        anna = gallery.add_person("Anna", templates(rng, 2))
        before = content(gallery.snapshot())
        gallery.forget(anna.person_id)
    with open_gallery(path) as gallery:
        assert gallery.undo() == ("forget Anna",)
        assert content(gallery.snapshot()) == before


def test_several_steps_are_all_done_or_none(gallery, rng):
    gallery.add_person("Anna", templates(rng, 1))
    gallery.add_person("Bob", templates(rng, 1))
    state, version = content(gallery.snapshot()), gallery.snapshot().version
    with pytest.raises(GalleryConflictError):
        gallery.undo(3)
    assert content(gallery.snapshot()) == state
    assert gallery.snapshot().version == version
    assert gallery.undo(2) == ("add Bob with 1 template", "add Anna with 1 template")
    assert gallery.redo(2) == ("add Anna with 1 template", "add Bob with 1 template")
    assert content(gallery.snapshot()) == state
    with pytest.raises(InputError, match="steps"):
        gallery.undo(0)


def test_a_new_change_ends_redo(gallery, rng):
    anna = gallery.add_person("Anna", templates(rng, 1))
    gallery.rename(anna.person_id, "Hanna")
    gallery.undo()
    gallery.rename(anna.person_id, "Johanna")
    with pytest.raises(GalleryConflictError, match="to redo"):
        gallery.redo()
    assert [entry.sentence for entry in gallery.history()] == [
        "add Anna with 1 template",
        "rename Anna to Johanna",
    ]


def test_what_the_node_does_by_itself_is_no_step_for_the_operator(gallery, rng):
    anna = gallery.add_person("Anna", templates(rng, 1))
    gallery.rename(anna.person_id, "Hanna")
    gallery.add_person("", templates(rng, 1), is_stranger=True)
    gallery.mark_seen([anna.person_id], 5.0)
    gallery.add_templates(anna.person_id, templates(rng, 1))
    gallery.set_aside(gallery.snapshot().persons[anna.person_id].template_ids[1:], is_recorded=False)
    assert gallery.undo() == ("add 1 template to Hanna",)
    assert gallery.undo() == ("rename Anna to Hanna",)
    assert len(gallery.snapshot().persons) == 2


def learned(rng, n: int = 1):
    return [template(vector, provenance=Provenance.ADAPTED) for vector in face(rng, n)]


def test_what_the_node_learns_is_no_step_for_the_operator(gallery, rng):
    anna = gallery.add_person("Anna", templates(rng, 2))
    gallery.rename(anna.person_id, "Hanna")
    first = gallery.learn(anna.person_id, learned(rng)).template_ids[-1]
    version = gallery.snapshot().version
    person = gallery.learn(anna.person_id, learned(rng), [first])
    assert gallery.snapshot().version == version + 1  # a replacement is one change
    assert (person.n_templates, person.n_adapted) == (3, 1)
    assert first not in person.template_ids
    assert gallery.undo() == ("rename Anna to Hanna",)
    assert gallery.snapshot().persons[anna.person_id].n_adapted == 1
    with pytest.raises(GalleryConflictError, match="not learned"):
        gallery.learn(anna.person_id, learned(rng), anna.template_ids[:1])


def test_what_the_node_learned_since_is_in_nobodys_way(gallery, rng):
    anna, bob = (gallery.add_person(name, templates(rng, 2)) for name in ("Anna", "Bob"))
    old = gallery.learn(bob.person_id, learned(rng)).template_ids[-1]
    gallery.merge(anna.person_id, bob.person_id)
    gallery.learn(anna.person_id, learned(rng), [old])  # the merge moved a template that is gone now
    gallery.undo()
    assert gallery.snapshot().persons[bob.person_id].n_templates == 2
    gallery.learn(bob.person_id, learned(rng))
    gallery.redo()  # Bob's new template would be nobody's
    assert list(gallery.snapshot().persons) == [anna.person_id]
    gallery.undo(3)
    assert dict(gallery.snapshot().persons) == {}
    gallery.redo(3)
    assert gallery.verify().problems == ()


def test_a_step_that_would_leave_a_person_without_templates_is_refused(gallery, rng):
    anna = gallery.add_person("Anna", templates(rng, 2))
    old = gallery.learn(anna.person_id, learned(rng)).template_ids[-1]
    gallery.split([old], "Carl")
    gallery.undo()
    gallery.learn(anna.person_id, learned(rng), [old])
    before = content(gallery.snapshot())
    with pytest.raises(GalleryConflictError, match="without templates"):
        gallery.redo()
    assert content(gallery.snapshot()) == before


def test_the_list_of_changes_has_a_length(rng):
    with open_gallery(None, history_length=2) as gallery:
        person = gallery.add_person("a", templates(rng, 1))
        for name in "bcd":
            gallery.rename(person.person_id, name)
        assert [entry.sentence for entry in gallery.history()] == ["rename b to c", "rename c to d"]
    with open_gallery(None, history_length=0) as gallery:
        person = gallery.add_person("a", templates(rng, 1))
        gallery.rename(person.person_id, "b")
        assert gallery.history() == []


def test_the_window_ends_what_could_bring_faces_back(tmp_path, rng):
    clock = Clock()
    with open_gallery(tmp_path / "data" / "gallery.db", clock, undo_window_s=60.0) as gallery:
        anna, bob = (
            gallery.add_person("Anna", templates(rng, 1)),
            gallery.add_person("Bob", templates(rng, 1)),
        )
        gallery.rename(anna.person_id, "Hanna")
        gallery.rename(bob.person_id, "Rob")
        gallery.forget(anna.person_id)
        keys = tmp_path / "keys"
        assert len(list(keys.rglob("undo-*.key"))) == 1
        clock.now += 59.9
        gallery.expire()
        assert len(gallery.history()) == 5
        clock.now += 0.1
        gallery.expire()
        assert list(keys.rglob("*.key")) == []
        # With Anna's entry went the older ones that touch her; Bob's can still be undone.
        assert [entry.sentence for entry in gallery.history()] == [
            "add Bob with 1 template",
            "rename Bob to Rob",
        ]
        assert gallery.undo() == ("rename Bob to Rob",)


def test_a_window_that_another_process_began_is_ended_as_well(tmp_path, rng):
    clock, path = Clock(), tmp_path / "data" / "gallery.db"
    with open_gallery(path, clock, undo_window_s=60.0) as gallery:
        anna = gallery.add_person("Anna", templates(rng, 1))
        clock.now += 1000.0
        gallery.follow()
        with open_gallery(path, clock, undo_window_s=60.0) as other:
            other.forget(anna.person_id)
            gallery.follow()
            assert list((tmp_path / "keys").rglob("*.key")) != []
            clock.now += 61.0
            gallery.follow()
            assert list((tmp_path / "keys").rglob("*.key")) == []
            assert other.history() == []


def test_a_final_forget_drops_what_depends_on_it(gallery, rng):
    anna, bob = gallery.add_person("Anna", templates(rng, 1)), gallery.add_person("Bob", templates(rng, 1))
    carl = gallery.add_person("Carl", templates(rng, 1))
    gallery.merge(anna.person_id, bob.person_id)
    gallery.rename(carl.person_id, "Karl")
    gallery.forget(anna.person_id, final=True)
    assert [entry.sentence for entry in gallery.history()] == [
        "add Carl with 1 template",
        "rename Carl to Karl",
    ]
    gallery.undo(2)
    assert dict(gallery.snapshot().persons) == {}


def test_undo_that_a_later_change_contradicts_is_refused_whole(gallery, rng):
    stranger = gallery.add_person("", templates(rng, 1), is_stranger=True)
    gallery.rename(stranger.person_id, "Anna")
    gallery.undo()
    gallery.expire(1e12)  # the robot forgets the stranger, and with it the entry that named it
    with pytest.raises(GalleryConflictError):
        gallery.redo()
    assert dict(gallery.snapshot().persons) == {}


def test_without_its_key_a_removal_cannot_be_undone(tmp_path, rng):
    with open_gallery(tmp_path / "data" / "gallery.db") as gallery:
        anna = gallery.add_person("Anna", templates(rng, 1))
        gallery.forget(anna.person_id)
        for key in (tmp_path / "keys").rglob("*.key"):
            key.unlink()
        with pytest.raises(GalleryUnavailableError, match="key"):
            gallery.undo()
        assert dict(gallery.snapshot().persons) == {}
        assert any("cannot be undone" in problem for problem in gallery.verify().problems)


def test_a_copy_of_the_gallery_leaves_the_keys_of_the_original_alone(tmp_path, rng):
    path = tmp_path / "data" / "gallery.db"
    with open_gallery(path) as gallery:
        anna = gallery.add_person("Anna", templates(rng, 1))
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    with open_gallery(path) as gallery:
        gallery.forget(anna.person_id)
        open_gallery(copy).close()
        gallery.undo()
        assert list(gallery.snapshot().persons) == [anna.person_id]


@settings(max_examples=12)
@given(st.integers(0, 2**32 - 1))
@pytest.mark.slow
def test_any_sequence_of_changes_can_be_taken_back(seed):
    rng = np.random.default_rng(seed)
    with open_gallery(None) as gallery:
        states = [content(gallery.snapshot())]
        for number in range(12):
            persons = list(gallery.snapshot().persons.values())
            choice = rng.integers(6) if len(persons) > 1 else 0
            person = persons[rng.integers(len(persons))] if persons else None
            if choice == 0 or person is None:
                gallery.add_person(f"n{number}", templates(rng, 3))
            elif choice == 1:
                gallery.rename(person.person_id, f"r{number}")
            elif choice == 2:
                other = next(p for p in persons if p.person_id != person.person_id)
                gallery.merge(person.person_id, other.person_id)
            elif choice == 3 and person.n_templates > 1:
                gallery.split(person.template_ids[:1], f"s{number}")
            elif choice == 4:
                gallery.forget(person.person_id)
            else:
                gallery.add_templates(person.person_id, templates(rng, 2))
            states.append(content(gallery.snapshot()))
        at = len(states) - 1
        for _ in range(20):
            if at > 0 and (at == len(states) - 1 or rng.random() < 0.6):
                gallery.undo()
                at -= 1
            else:
                gallery.redo()
                at += 1
            assert content(gallery.snapshot()) == states[at]


def test_row_changes_are_written_and_read_unchanged():
    changes = [
        Change("insert", "templates", 3, {"embedding": bytes(range(256)), "quality": 0.1, "yaw": -0.0}),
        Change("update", "persons", "p-1", {"name": "Zoë \U0001f600", "expires": None, "is_stranger": 1}),
        Change("delete", "crops", 9),
    ]
    assert decode_changes(encode_changes(changes)) == changes
    assert decode_changes(encode_changes([])) == []
    assert [change.is_biometric for change in changes] == [True, False, False]


def test_an_undo_days_later_does_not_end_the_stranger_at_once(rng):
    clock = Clock()
    with open_gallery(None, clock, stranger_time_to_live_s=3600.0) as gallery:
        anna = gallery.add_person("Anna", templates(rng, 1))
        named, joined = (gallery.add_person("", templates(rng, 1), is_stranger=True) for _ in range(2))
        gallery.rename(named.person_id, "Bob")
        gallery.merge(anna.person_id, joined.person_id)
        clock.now += 86400.0
        gallery.undo(2)
        assert gallery.expire() == ()
        for person in (named, joined):
            assert gallery.snapshot().persons[person.person_id].expires == clock.now + 3600.0
        clock.now += 3600.0
        assert {person.person_id for person in gallery.expire()} == {named.person_id, joined.person_id}


def test_the_window_ends_without_the_thread_that_looks_for_it(tmp_path, rng):
    clock, path = Clock(), tmp_path / "data" / "gallery.db"
    with open_gallery(path, clock, undo_window_s=60.0) as gallery:
        anna = gallery.add_person("Anna", templates(rng, 1))
        gallery.forget(anna.person_id)
        clock.now += 61.0
        with pytest.raises(GalleryConflictError, match="nothing to undo"):
            gallery.undo()
        gallery.add_person("Bob", templates(rng, 1))
        assert list((tmp_path / "keys").rglob("*.key")) == []
        assert gallery.undo() == ("add Bob with 1 template",)


def test_a_key_that_cannot_be_destroyed_holds_up_nothing_and_is_tried_again(tmp_path, rng, monkeypatch):
    path = tmp_path / "data" / "gallery.db"
    with open_gallery(path) as gallery:
        anna = gallery.add_person("Anna", templates(rng, 1))
        gallery.forget(anna.person_id)

        def refuse(keys, name):
            raise OSError("read-only file system")

        with monkeypatch.context() as patched:
            patched.setattr("face_recognition_node.gallery.files.KeyRing.destroy", refuse)
            gallery.undo()
        assert list(gallery.snapshot().persons) == [anna.person_id]
        assert list((tmp_path / "keys").rglob("undo-*.key")) != []
        gallery.add_person("Bob", templates(rng, 1))
        assert list((tmp_path / "keys").rglob("undo-*.key")) == []


def test_no_key_stays_of_what_could_not_be_stored(tmp_path, rng, monkeypatch):
    """A full disk, for the keys and for the file."""

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with open_gallery(tmp_path / "data" / "gallery.db") as gallery:
        anna = gallery.add_person("Anna", templates(rng, 2))
        before = content(gallery.snapshot())
        with monkeypatch.context() as patched:
            patched.setattr("face_recognition_node.gallery.files.os.fsync", refuse)
            with pytest.raises(GalleryUnavailableError, match="disk is full"):
                gallery.forget(anna.person_id)
        assert [path for path in (tmp_path / "keys").rglob("*") if path.is_file()] == []
        with monkeypatch.context() as patched:
            patched.setattr("face_recognition_node.gallery.changes.Transaction.bump_version", refuse)
            with pytest.raises(OSError, match="No space"):
                gallery.forget(anna.person_id)
        assert [path for path in (tmp_path / "keys").rglob("*") if path.is_file()] == []
        assert content(gallery.snapshot()) == before
        gallery.forget(anna.person_id)
        gallery.undo()
        assert content(gallery.snapshot()) == before

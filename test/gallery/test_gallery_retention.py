"""Who stays in the gallery for how long: sessions, strangers, being seen."""

from __future__ import annotations

import pytest
from gallery_helpers import Clock, open_gallery, templates

from face_recognition_node.common.errors import (
    GalleryConflictError,
    InputError,
)
from face_recognition_node.gallery.gallery import SessionKind


@pytest.fixture(params=["file", "memory"])
def gallery(request, tmp_path):
    path = tmp_path / "data" / "gallery.db" if request.param == "file" else None
    with open_gallery(path) as opened:
        yield opened


def test_sessions_group_newcomers_and_can_be_forgotten_whole(gallery, rng):
    always = gallery.add_person("Anna", templates(rng, 1))
    session = gallery.set_session("party", SessionKind.EVENT, 100.0)
    assert (session.name, session.kind, session.time_to_live_s) == ("party", SessionKind.EVENT, 100.0)
    guest = gallery.add_person("Bob", templates(rng, 1))
    assert guest.session == "party"
    assert guest.expires == pytest.approx(guest.created + 100.0)
    assert gallery.set_session("").name == ""
    assert gallery.set_session("party").kind is SessionKind.EVENT
    assert [p.person_id for p in gallery.forget(session="party")] == [guest.person_id]
    assert list(gallery.snapshot().persons) == [always.person_id]
    with pytest.raises(GalleryConflictError, match="no session"):
        gallery.forget(session="other")
    with pytest.raises(GalleryConflictError, match="default session"):
        gallery.set_session("", SessionKind.RUN)
    with pytest.raises(InputError, match="time_to_live"):
        gallery.set_session("x", SessionKind.EVENT, 0.0)
    for too_long in (float("inf"), float("nan"), 1e15):  # which verify would report
        with pytest.raises(InputError, match="at most"):
            gallery.set_session("x", SessionKind.EVENT, too_long)
    gallery.set_session("party", time_to_live_s=1e12)
    assert gallery.session.kind is SessionKind.EVENT
    assert gallery.session.time_to_live_s == 1e12
    gallery.add_person("Zoe", templates(rng, 1))
    assert gallery.verify().problems == ()


def test_people_expire(rng):
    clock = Clock()
    with open_gallery(None, clock, stranger_time_to_live_s=50.0) as gallery:
        stranger = gallery.add_person("", templates(rng, 1), is_stranger=True)
        gallery.set_session("party", SessionKind.EVENT, 100.0)
        guest = gallery.add_person("Bob", templates(rng, 1))
        early = gallery.add_person("Carl", templates(rng, 1), expires=1010.0)
        clock.now = 1009.0
        assert gallery.expire() == ()
        assert [p.person_id for p in gallery.expire(1010.0)] == [early.person_id]
        clock.now = 1049.0
        gallery.mark_seen([stranger.person_id, guest.person_id])
        assert gallery.snapshot().persons[stranger.person_id].last_seen == 1049.0
        assert [p.person_id for p in gallery.expire(1098.0)] == []
        assert [p.person_id for p in gallery.expire(1099.0)] == [stranger.person_id]
        assert [p.person_id for p in gallery.expire(1100.0)] == [guest.person_id]
        assert gallery.snapshot().n_templates == 0


def test_being_seen_is_written_once_a_minute(rng):
    with open_gallery(None) as gallery:
        person = gallery.add_person("Anna", templates(rng, 1))
        for now in (10.0, 20.0, 69.0):
            gallery.mark_seen([person.person_id, "p-unknown"], now)
        assert gallery.snapshot().version == 2
        gallery.mark_seen([person.person_id], 70.0)
        assert gallery.snapshot().version == 3


def test_a_stranger_does_not_outlive_the_session_and_is_not_lost_by_a_name(rng):
    clock = Clock()
    with open_gallery(None, clock, stranger_time_to_live_s=3600.0) as gallery:
        gallery.set_session("party", SessionKind.EVENT, 1800.0)
        stranger = gallery.add_person("", templates(rng, 1), is_stranger=True)
        ends = clock.now + 1800.0
        for _ in range(29):
            clock.now += 60.0
            gallery.mark_seen([stranger.person_id])
        assert gallery.snapshot().persons[stranger.person_id].expires == ends
        assert gallery.rename(stranger.person_id, "Anna").expires == ends
        assert gallery.expire() == ()
        clock.now += 60.0
        assert [person.name for person in gallery.expire()] == ["Anna"]


def test_only_who_is_a_stranger_still_is_forgotten_as_one(rng):
    with open_gallery(None) as gallery:
        named, joined, unknown = (
            gallery.add_person("", templates(rng, 1), is_stranger=True) for _ in range(3)
        )
        anna = gallery.rename(named.person_id, "Anna")
        gallery.merge(named.person_id, joined.person_id)
        ids = [person.person_id for person in (named, joined, unknown)]
        assert gallery.forget_strangers([*ids, "stranger-99"]) == (unknown,)
        assert list(gallery.snapshot().persons) == [anna.person_id]


def test_people_of_a_run_end_with_it(tmp_path, rng):
    path = tmp_path / "data" / "gallery.db"
    with open_gallery(path) as gallery:
        anna = gallery.add_person("Anna", templates(rng, 1))
        gallery.set_session("run", SessionKind.RUN)
        gallery.add_person("Bob", templates(rng, 1))
    with open_gallery(path) as gallery:
        assert len(gallery.snapshot().persons) == 2
        assert [person.name for person in gallery.start_run()] == ["Bob"]
        assert list(gallery.snapshot().persons) == [anna.person_id]


def test_strangers_joined_live_as_long_as_the_longest(rng):
    clock = Clock()
    with open_gallery(None, clock, stranger_time_to_live_s=100.0) as gallery:
        first = gallery.add_person("", templates(rng, 1), is_stranger=True)
        clock.now += 50.0
        second = gallery.add_person("", templates(rng, 1), is_stranger=True)
        assert gallery.merge(first.person_id, second.person_id).expires == clock.now + 100.0


def test_a_stranger_in_view_lives_on_however_short_the_time(rng):
    clock = Clock()
    with open_gallery(None, clock, stranger_time_to_live_s=30.0) as gallery:
        stranger = gallery.add_person("", templates(rng, 1), is_stranger=True)
        for _ in range(20):
            clock.now += 5.0
            gallery.mark_seen([stranger.person_id])
            assert gallery.expire() == ()


def test_a_stranger_split_off_ends_like_any_other(rng):
    clock = Clock()
    with open_gallery(None, clock, stranger_time_to_live_s=100.0) as gallery:
        anna = gallery.add_person("Anna", templates(rng, 3))
        assert gallery.split(anna.template_ids[:1]).expires == clock.now + 100.0
        assert gallery.split(anna.template_ids[1:2], "Bea").expires is None


def test_to_be_seen_shortens_nobodys_time(rng):
    clock = Clock()
    with open_gallery(None, clock, stranger_time_to_live_s=3600.0) as gallery:
        gallery.set_session("day", SessionKind.EVENT, 86400.0)
        stranger = gallery.add_person("", templates(rng, 1), is_stranger=True)
        clock.now += 1000.0
        gallery.set_session("day", SessionKind.EVENT, 600.0)
        gallery.mark_seen([stranger.person_id])
        assert gallery.snapshot().persons[stranger.person_id].expires == stranger.expires
        assert gallery.expire() == ()


def test_who_is_split_off_a_stranger_with_a_name_stays(rng):
    clock = Clock()
    with open_gallery(None, clock, stranger_time_to_live_s=100.0) as gallery:
        stranger = gallery.add_person("", templates(rng, 3), is_stranger=True)
        assert gallery.split(stranger.template_ids[:1], "Bob").expires is None


def test_nothing_is_written_when_there_is_no_stranger_to_forget(rng):
    with open_gallery(None) as gallery:
        anna = gallery.add_person("Anna", templates(rng, 1))
        version = gallery.snapshot().version
        assert gallery.forget_strangers([anna.person_id, "stranger-5"]) == ()
        assert gallery.snapshot().version == version

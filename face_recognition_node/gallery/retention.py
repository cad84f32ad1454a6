"""Who stays in the gallery for how long: sessions, the end of strangers, and who is due."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from face_recognition_node.common.errors import GalleryConflictError, InputError
from face_recognition_node.gallery.changes import Cell, Context, Edit
from face_recognition_node.gallery.values import Person, Session, SessionKind, checked_name

if TYPE_CHECKING:
    from face_recognition_node.config import GalleryConfig
    from face_recognition_node.gallery.snapshot import Snapshot

SEEN_INTERVAL_S = 60.0  # `last_seen` is written at most this often for one person
_LONGEST_S = 1e12  # a session's time to live; verify reports times beyond 1e15


def set_session(
    at: Context, name: str, kind: SessionKind | None = None, time_to_live_s: float | None = None
) -> Edit[str]:
    """Store newcomers under this session from now on; without a kind a known session is continued.

    A time to live that is given is that of the session from now on, also of a known one.

    Raises:
        InputError: A time to live out of bounds, or a name that cannot be one.
        GalleryConflictError: The session without a name is to be anything but permanent.
    """
    snapshot = at.snapshot
    if time_to_live_s is not None and not 0 < time_to_live_s <= _LONGEST_S:
        limits = f"more than 0 and at most {_LONGEST_S:g}"
        raise InputError(f"time_to_live_s: expected {limits}, got {time_to_live_s}")
    name = checked_name(name, may_be_empty=True)
    known = snapshot.sessions.get(name)
    session = Session(name, kind or SessionKind.PERMANENT, time_to_live_s)
    if kind is None and known is not None:
        session = known if time_to_live_s is None else replace(known, time_to_live_s=time_to_live_s)
    if not name and session != Session():
        raise GalleryConflictError("the default session is permanent; give the session a name")
    if name != snapshot.session:
        at.rows.leave_session(snapshot.session)
    at.rows.set_meta("session", name)
    if known != session:
        values = {"kind": session.kind.value, "time_to_live_s": session.time_to_live_s}
        (at.rows.insert if known is None else at.rows.update)("sessions", name, values)
    return Edit(name, f"session {name!r}", (), is_recorded=False)


def mark_seen(at: Context, person_ids: Sequence[str], now: float) -> Edit[None]:
    """Write when persons were last seen; a stranger who is seen again lives on, within the session's time."""
    for person in due_to_be_seen(at.snapshot, person_ids, now, at.config):
        values: dict[str, Cell] = {"last_seen": now}
        if person.is_stranger and person.expires is not None:
            session = at.snapshot.sessions[person.session]
            values["expires"] = lives_on(session, person.created, person.expires, now, at.config)
        at.rows.update("persons", person.person_id, values)
    return Edit(None, "seen", (), is_recorded=False)


def revive(at: Context, person_ids: Collection[str]) -> None:
    """Let strangers live on whom an undo has just brought back, with the end that they had then."""
    for person_id in person_ids:
        query = "SELECT session, created, expires, is_stranger FROM persons WHERE person_id = ?"
        found = at.rows.execute(query, (person_id,)).fetchone()
        if found is not None and found[3] and found[2] is not None:
            session, created, expires, _ = found
            end = lives_on(at.snapshot.sessions[session], created, expires, at.now, at.config)
            if end != expires:
                at.rows.update("persons", person_id, {"expires": end})


# Whom a change is about. Each returns ids of persons of a snapshot.


def expired(snapshot: Snapshot, now: float) -> list[str]:
    """Return those whose time is over."""
    return [key for key, one in snapshot.persons.items() if one.expires is not None and one.expires <= now]


def members_of(snapshot: Snapshot, session: str) -> list[str]:
    """Return those of a session, or raise GalleryConflictError if there is no such session."""
    if session not in snapshot.sessions:
        known = ", ".join(repr(name) for name in sorted(snapshot.sessions))
        raise GalleryConflictError(f"there is no session {session!r}; known are {known}")
    return [key for key, person in snapshot.persons.items() if person.session == session]


def members_of_runs(snapshot: Snapshot) -> list[str]:
    """Return those who were stored for one run of the node only."""
    runs = {session.name for session in snapshot.sessions.values() if session.kind is SessionKind.RUN}
    return [key for key, person in snapshot.persons.items() if person.session in runs]


def strangers_among(snapshot: Snapshot, person_ids: Sequence[str]) -> list[str]:
    """Return those of the ids that are a stranger's own: not a person's, nor an alias of anybody's."""
    return [key for key in person_ids if key in snapshot.persons and snapshot.persons[key].is_stranger]


def due_to_be_seen(
    snapshot: Snapshot, person_ids: Sequence[str], now: float, config: GalleryConfig
) -> list[Person]:
    """Return those of the persons whose ``last_seen`` is to be written again.

    A minute after the last time, and for a stranger at the latest when half of the time to live is over.
    """
    half_life_s = config.stranger_time_to_live_s / 2 or SEEN_INTERVAL_S

    def is_due(one: Person) -> bool:
        interval_s = min(SEEN_INTERVAL_S, half_life_s) if one.is_stranger else SEEN_INTERVAL_S
        return one.last_seen is None or now - one.last_seen >= interval_s

    people = [snapshot.persons[key] for key in person_ids if key in snapshot.persons]
    return [one for one in people if is_due(one)]


# When somebody has to go, Unix seconds; None: never.


def lives_on(session: Session, created: float, expires: float, now: float, config: GalleryConfig) -> float:
    """Return until when a stranger lives who is met at ``now``: no longer than the session lets it.

    ``expires`` is the end up to now, which is never made earlier.
    """
    end = earliest(stranger_end(config, now), session.expiry(created))
    return expires if end is None or not config.stranger_time_to_live_s else max(expires, end)


def expiry(at: Context, session: Session, is_stranger: bool) -> float | None:
    """Return the end of somebody stored now."""
    return earliest(session.expiry(at.now), stranger_end(at.config, at.now) if is_stranger else None)


def stranger_end(config: GalleryConfig, now: float) -> float | None:
    """Return when a stranger seen at ``now`` is to be forgotten."""
    return now + config.stranger_time_to_live_s if config.stranger_time_to_live_s else None


def earliest(*moments: float | None) -> float | None:
    """Return the first of some moments."""
    return min((moment for moment in moments if moment is not None), default=None)

"""Who stays in the gallery for how long: sessions, strangers' ends, when somebody was last seen."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from face_recognition_node.common.errors import GalleryConflictError, InputError
from face_recognition_node.gallery import edits
from face_recognition_node.gallery.changes import Cell, Change
from face_recognition_node.gallery.config import GalleryConfig
from face_recognition_node.gallery.edits import Context, Edit
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.gallery.values import Person, Session, SessionKind

SEEN_INTERVAL_S = 60.0
"""``last_seen`` is written at most this often for one person."""


def expired(snapshot: Snapshot, now: float) -> list[str]:
    """Return the ids of the persons whose time is over."""
    return [
        person_id
        for person_id, person in snapshot.persons.items()
        if person.expires is not None and person.expires <= now
    ]


def members_of(snapshot: Snapshot, session: str) -> list[str]:
    """Return the ids of the persons of a session.

    Raises:
        GalleryConflictError: There is no such session.
    """
    if session not in snapshot.sessions:
        known = ", ".join(repr(name) for name in sorted(snapshot.sessions))
        raise GalleryConflictError(f"there is no session {session!r}; known are {known}")
    return [person_id for person_id, person in snapshot.persons.items() if person.session == session]


def members_of_runs(snapshot: Snapshot) -> list[str]:
    """Return the ids of the persons who were stored for one run of the node only."""
    runs = {session.name for session in snapshot.sessions.values() if session.kind is SessionKind.RUN}
    return [person_id for person_id, person in snapshot.persons.items() if person.session in runs]


def strangers_among(snapshot: Snapshot, person_ids: Sequence[str]) -> list[str]:
    """Return those of the ids that are a stranger's own: not a person's, nor an alias of anybody's."""
    people = [snapshot.persons[person_id] for person_id in person_ids if person_id in snapshot.persons]
    return [person.person_id for person in people if person.is_stranger]


def set_session(at: Context, name: str, kind: SessionKind | None, time_to_live_s: float | None) -> Edit:
    """Make a session the current one; without a kind a known session is continued.

    Raises:
        InputError: A time to live that is not positive, or a name that cannot be one.
        GalleryConflictError: The session without a name is to be anything but permanent.
    """
    snapshot = at.snapshot
    if time_to_live_s is not None and not time_to_live_s > 0:
        raise InputError(f"time_to_live_s: expected more than 0, got {time_to_live_s}")
    checked = edits.checked_name(name, may_be_empty=True)
    known = snapshot.sessions.get(checked)
    session = Session(checked, kind or SessionKind.PERMANENT, time_to_live_s)
    if kind is None and known is not None:
        session = known
    if not checked and session != Session():
        raise GalleryConflictError("the default session is permanent; give the session a name")
    if checked != snapshot.session:
        at.transaction.leave_session(snapshot.session)
    at.transaction.set_meta("session", checked)
    return edits.session_change(snapshot, session)


def due_to_be_seen(
    snapshot: Snapshot, person_ids: Sequence[str], now: float, config: GalleryConfig
) -> list[Person]:
    """Return those of the persons whose ``last_seen`` is to be written again.

    A minute after the last time, and for a stranger at the latest when half of the time to live is over.
    """
    people = [snapshot.persons[person_id] for person_id in person_ids if person_id in snapshot.persons]
    half_life_s = config.stranger_time_to_live_s / 2 or SEEN_INTERVAL_S

    def is_due(one: Person) -> bool:
        interval_s = min(SEEN_INTERVAL_S, half_life_s) if one.is_stranger else SEEN_INTERVAL_S
        return one.last_seen is None or now - one.last_seen >= interval_s

    return [one for one in people if is_due(one)]


def lives_on(session: Session, created: float, expires: float, now: float, config: GalleryConfig) -> float:
    """Return until when a stranger lives who is met at ``now``: no longer than the session lets it.

    Args:
        session: The stranger's.
        created: When it was first stored, Unix seconds.
        expires: Its end up to now, which is never made earlier.
        now: Unix seconds.
        config: Says how long strangers live.
    """
    ends = [end for end in (edits.stranger_end(config, now), session.expiry(created)) if end is not None]
    return max(expires, min(ends, default=expires)) if config.stranger_time_to_live_s else expires


def revive(at: Context, person_ids: Collection[str]) -> list[Change]:
    """Let strangers live on whom an undo has just brought back, with the end that they had then."""
    changes = []
    for person_id in person_ids:
        query = "SELECT session, created, expires, is_stranger FROM persons WHERE person_id = ?"
        found = at.transaction.connection.execute(query, (person_id,)).fetchone()
        if found is not None and found[3] and found[2] is not None:
            session, created, expires, _ = found
            end = lives_on(at.snapshot.sessions[session], created, expires, at.now, at.config)
            if end != expires:
                changes.append(Change("update", "persons", person_id, {"expires": end}))
    return changes


def mark_seen(at: Context, person_ids: Sequence[str], now: float) -> Edit:
    """Write when persons were last seen; a stranger who is seen again lives on, within the session's time."""
    snapshot, config = at.snapshot, at.config
    changes = []
    for person in due_to_be_seen(snapshot, person_ids, now, config):
        values: dict[str, Cell] = {"last_seen": now}
        if person.is_stranger and person.expires is not None:
            session = snapshot.sessions[person.session]
            values["expires"] = lives_on(session, person.created, person.expires, now, config)
        changes.append(Change("update", "persons", person.person_id, values))
    return Edit("seen", tuple(changes), (), is_recorded=False)

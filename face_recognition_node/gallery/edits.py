"""What each operation on the gallery changes, row by row, and who stays in it for how long.

An operation works on the gallery as it is in the transaction that makes the change, and returns what it did.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from face_recognition_node.common.errors import GalleryConflictError, InputError
from face_recognition_node.gallery.values import (
    NewTemplate,
    Person,
    Provenance,
    Session,
    SessionKind,
    checked_name,
)

if TYPE_CHECKING:
    from face_recognition_node.config import GalleryConfig
    from face_recognition_node.gallery.changes import Cell, Transaction
    from face_recognition_node.gallery.files import CropSafe
    from face_recognition_node.gallery.snapshot import Snapshot

SEEN_INTERVAL_S = 60.0
"""``last_seen`` is written at most this often for one person."""
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Context:
    """What a change is made on.

    Attributes:
        snapshot: Who is known.
        rows: The transaction, which changes rows and gives out numbers.
        config: Parameters.
        now: Unix seconds.
        crops: Seals what is kept of a new template's crop.
    """

    snapshot: Snapshot
    rows: Transaction
    config: GalleryConfig
    now: float
    crops: CropSafe


@dataclass(frozen=True, slots=True)
class Edit(Generic[Answer]):
    """What an operation did.

    Attributes:
        answer: What the caller asked for, ids in place of persons.
        sentence: What it did, for people.
        persons: Ids it touched.
        is_recorded: It can be undone.
    """

    answer: Answer
    sentence: str
    persons: tuple[str, ...]
    is_recorded: bool = True


def add_person(
    at: Context, name: str, templates: Sequence[NewTemplate], *, is_stranger: bool, expires: float | None
) -> Edit[str]:
    """Store a new person or stranger in the current session."""
    name = checked_name(name, may_be_empty=is_stranger)
    _require_templates(name, templates)
    check_limit(name, 0, len(templates), at)
    person_id = new_person_id(at, is_stranger)
    session = at.snapshot.sessions[at.snapshot.session]
    if is_stranger and expires is None:
        expires = _stranger_end(at.config, at.now)
    insert_person(at, person_id, name, is_stranger, session.name, earliest(session.expiry(at.now), expires))
    insert_templates(at, person_id, templates)
    sentence = f"add {name or person_id} with {_counted(len(templates), 'template')}"
    return Edit(person_id, sentence, (person_id,), is_recorded=not is_stranger)


def enroll(
    at: Context, name: str, templates: Sequence[NewTemplate], absorbed_ids: Sequence[str]
) -> Edit[str]:
    """Make a person of strangers and new templates; the ids of the strangers lead to it."""
    name = checked_name(name)
    _require_templates(name, templates)
    strangers = _distinct(at.snapshot, absorbed_ids)
    for person in strangers:
        if not person.is_stranger:
            raise GalleryConflictError(f"{person.label} ({person.person_id}) is no stranger any more")
    check_limit(name, sum(person.n_templates for person in strangers), len(templates), at)
    session = at.snapshot.sessions[at.snapshot.session]
    person_id = _name_strangers(at, strangers, name, session, session.expiry(at.now))
    insert_templates(at, person_id, templates)
    known_as = ", ".join(person.label for person in strangers)
    sentence = f"add {name}, known as {known_as}, with {_counted(len(templates), 'template')}"
    return Edit(person_id, sentence, (person_id, *(person.person_id for person in strangers)))


def learn(
    at: Context, person_id: str, templates: Sequence[NewTemplate], replaced_ids: Iterable[int]
) -> Edit[str]:
    """Store templates that the node found by itself, in place of others it had found."""
    replaced = at.snapshot.templates(replaced_ids)
    person = at.snapshot.person(person_id)
    for template in replaced:
        if template.person_id != person.person_id or template.provenance is not Provenance.ADAPTED:
            raise GalleryConflictError(f"template {template.template_id} was not learned of {person.label}")
    edit = add_templates(at, person_id, templates, n_replaced=len(replaced))
    for template in replaced:
        at.rows.delete_template(template.template_id)
    return replace(edit, is_recorded=False)


def add_templates(
    at: Context, person_id: str, templates: Sequence[NewTemplate], n_replaced: int = 0
) -> Edit[str]:
    """Store more templates of a person, of whom some others are removed in the same change."""
    person = at.snapshot.person(person_id)
    _require_templates(person.label, templates)
    check_limit(person.label, person.n_templates - n_replaced, len(templates), at)
    insert_templates(at, person.person_id, templates)
    sentence = f"add {_counted(len(templates), 'template')} to {person.label}"
    return Edit(person.person_id, sentence, (person.person_id,), is_recorded=not person.is_stranger)


def rename(at: Context, person_id: str, name: str) -> Edit[str]:
    """Give a person another name; a stranger becomes a person, as :func:`give_name` says."""
    person = at.snapshot.person(person_id)
    name = checked_name(name)
    person_id = give_name(at, person, name)
    touched = dict.fromkeys((person_id, person.person_id))
    return Edit(person_id, f"rename {person.label} to {name}", tuple(touched))


def give_name(at: Context, person: Person, name: str) -> str:
    """Change a person's name and return the id, which is a new one for a stranger.

    Whoever names a stranger enrolls them: the stranger's id leads to the person's, and the templates count as
    enrolled from then on, so that adaptation can go on from them and its rollback leaves them.
    """
    if not person.is_stranger:
        at.rows.update("persons", person.person_id, {"name": name})
        return person.person_id
    session = at.snapshot.sessions[person.session]
    person_id = _name_strangers(at, [person], name, session, session.expiry(person.created))
    for template in at.snapshot.templates(person.template_ids):
        if template.provenance is Provenance.ADAPTED:
            at.rows.update("templates", template.template_id, {"provenance": Provenance.ENROLLED.value})
    return person_id


def _name_strangers(
    at: Context, strangers: Sequence[Person], name: str, session: Session, expires: float | None
) -> str:
    """Make one person, whose id is returned, of strangers."""
    person_id = new_person_id(at, is_stranger=False)
    insert_person(at, person_id, name, False, session.name, expires)
    at.rows.update("persons", person_id, _joined_times(strangers))
    _join(at.rows, person_id, strangers)
    return person_id


def merge(at: Context, keep_id: str, other_ids: Sequence[str]) -> Edit[str]:
    """Give all templates of the others to one person; their ids lead to it from now on.

    If the one that is to stay is a stranger and another has a name, that other one stays.
    """
    keep, others = at.snapshot.person(keep_id), _distinct(at.snapshot, other_ids)
    if not others or any(other.person_id == keep.person_id for other in others):
        raise GalleryConflictError(f"merge: expected other persons than {keep.label!r} itself")
    people = [keep, *others]
    if keep.is_stranger:
        keep = next((person for person in others if not person.is_stranger), keep)
        others = [person for person in people if person is not keep]
    check_limit(keep.label, keep.n_templates, sum(other.n_templates for other in others), at)
    values = _joined_times(people)
    if keep.is_stranger:
        ends = [person.expires for person in people]
        values["expires"] = None if None in ends else max(end for end in ends if end is not None)
    at.rows.update("persons", keep.person_id, values)
    _join(at.rows, keep.person_id, others)
    sentence = f"merge {', '.join(other.label for other in others)} into {keep.label}"
    return Edit(keep.person_id, sentence, (keep.person_id, *(person.person_id for person in others)))


def _distinct(snapshot: Snapshot, person_ids: Iterable[str]) -> list[Person]:
    """Return persons by present or former id, each once."""
    return list({snapshot.resolve(key): snapshot.person(key) for key in person_ids}.values())


def _joined_times(people: Sequence[Person]) -> dict[str, Cell]:
    """Return when a person who is several entries was first stored and last seen."""
    seen = [person.last_seen for person in people if person.last_seen is not None]
    return {"created": min(person.created for person in people), "last_seen": max(seen, default=None)}


def _join(rows: Transaction, keep_id: str, others: Sequence[Person]) -> None:
    """Give the templates and ids of others to one person."""
    mine = {"person_id": keep_id}
    for other in others:
        for template_id in other.template_ids:
            rows.update("templates", template_id, mine)
        for alias in other.aliases:
            rows.update("aliases", alias, mine)
        rows.delete("persons", other.person_id)
        rows.insert("aliases", other.person_id, mine)


def split(at: Context, template_ids: Iterable[int], name: str) -> Edit[str]:
    """Make a person of its own of some templates of one person; without a name it is a stranger."""
    templates = at.snapshot.templates(template_ids)
    owners = {template.person_id for template in templates}
    if len(owners) != 1:
        raise GalleryConflictError(f"split: expected templates of one person, got those of {len(owners)}")
    person = at.snapshot.persons[owners.pop()]
    if len(templates) == person.n_templates:
        raise GalleryConflictError(
            f"split: these are all templates of {person.label}; rename the person instead"
        )
    name = checked_name(name, may_be_empty=True)
    person_id = new_person_id(at, is_stranger=not name)
    if name and person.is_stranger:
        expires = at.snapshot.sessions[person.session].expiry(at.now)
    else:
        expires = earliest(person.expires, None if name else _stranger_end(at.config, at.now))
    insert_person(at, person_id, name, not name, person.session, expires)
    for template in templates:
        at.rows.update("templates", template.template_id, {"person_id": person_id})
    sentence = f"split {_counted(len(templates), 'template')} of {person.label} off as {name or person_id}"
    return Edit(person_id, sentence, (person_id, person.person_id))


def remove_templates(at: Context, template_ids: Iterable[int]) -> Edit[tuple[str, ...]]:
    """Remove templates; a person must keep at least one."""
    templates = at.snapshot.templates(template_ids)
    if not templates:
        raise InputError("template_ids: expected at least one, got none")
    owners = [template.person_id for template in templates]
    people = [at.snapshot.persons[owner] for owner in dict.fromkeys(owners)]
    for person in people:
        if owners.count(person.person_id) == person.n_templates:
            raise GalleryConflictError(
                f"{person.label} would be left without templates; forget the person instead"
            )
    for template in templates:
        at.rows.delete_template(template.template_id)
    return _edit_of_templates("remove", len(templates), people)


def set_aside(
    at: Context, template_ids: Iterable[int], is_set_aside: bool, is_recorded: bool = True
) -> Edit[tuple[str, ...]]:
    """Keep templates out of the search, or let them in again."""
    templates = [t for t in at.snapshot.templates(template_ids) if t.is_set_aside != is_set_aside]
    for template in templates:
        at.rows.update("templates", template.template_id, {"is_set_aside": int(is_set_aside)})
    people = [at.snapshot.persons[owner] for owner in dict.fromkeys(t.person_id for t in templates)]
    edit = _edit_of_templates("set aside" if is_set_aside else "search again", len(templates), people)
    return replace(edit, is_recorded=is_recorded)


def _edit_of_templates(verb: str, n: int, people: Sequence[Person]) -> Edit[tuple[str, ...]]:
    ids = tuple(person.person_id for person in people)
    names = ", ".join(person.label for person in people)
    return Edit(ids, f"{verb} {_counted(n, 'template')} of {names}", ids)


def rollback_adaptation(at: Context, person_id: str | None) -> Edit[int]:
    """Remove the templates that the node added by itself; one that is all a person has is kept."""
    snapshot, n_removed, touched = at.snapshot, 0, []
    for person in snapshot.persons.values() if person_id is None else [snapshot.person(person_id)]:
        templates = snapshot.templates(person.template_ids) if person.n_adapted else ()
        adapted = [t.template_id for t in templates if t.provenance is Provenance.ADAPTED]
        if adapted and len(adapted) < person.n_templates:
            for template_id in adapted:
                at.rows.delete_template(template_id)
            n_removed += len(adapted)
            touched.append(person.person_id)
    sentence = f"take back {_counted(n_removed, 'adapted template')} of {_counted(len(touched), 'person')}"
    return Edit(n_removed, sentence, tuple(touched))


def forget(at: Context, person_ids: Iterable[str]) -> Edit[tuple[Person, ...]]:
    """Remove persons with everything known of them; the answer is the persons as they were."""
    people = _distinct(at.snapshot, person_ids)
    for person in people:
        for template_id in person.template_ids:
            at.rows.delete_template(template_id)
        for alias in person.aliases:
            at.rows.delete("aliases", alias)
        at.rows.delete("persons", person.person_id)
    names = ", ".join(person.label for person in people[:3]) + (" …" if len(people) > 3 else "")
    sentence = f"forget {names}" if len(people) < 4 else f"forget {len(people)} persons ({names})"
    return Edit(tuple(people), sentence, tuple(person.person_id for person in people))


def set_session(at: Context, name: str, kind: SessionKind | None, time_to_live_s: float | None) -> Edit[str]:
    """Make a session the current one; without a kind a known session is continued.

    Raises:
        InputError: A time to live that is not positive, or a name that cannot be one.
        GalleryConflictError: The session without a name is to be anything but permanent.
    """
    snapshot = at.snapshot
    if time_to_live_s is not None and not time_to_live_s > 0:
        raise InputError(f"time_to_live_s: expected more than 0, got {time_to_live_s}")
    name = checked_name(name, may_be_empty=True)
    known = snapshot.sessions.get(name)
    session = Session(name, kind or SessionKind.PERMANENT, time_to_live_s)
    if kind is None and known is not None:
        session = known
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
        found = at.rows.connection.execute(query, (person_id,)).fetchone()
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


# Parts of several changes.


def lives_on(session: Session, created: float, expires: float, now: float, config: GalleryConfig) -> float:
    """Return until when a stranger lives who is met at ``now``: no longer than the session lets it.

    Args:
        session: The stranger's.
        created: When it was first stored, Unix seconds.
        expires: Its end up to now, which is never made earlier.
        now: Unix seconds.
        config: Says how long strangers live.
    """
    end = earliest(_stranger_end(config, now), session.expiry(created))
    return expires if end is None or not config.stranger_time_to_live_s else max(expires, end)


def expiry(at: Context, session: Session, is_stranger: bool) -> float | None:
    """Return when somebody stored now has to go, Unix seconds; None for never."""
    return earliest(session.expiry(at.now), _stranger_end(at.config, at.now) if is_stranger else None)


def _stranger_end(config: GalleryConfig, now: float) -> float | None:
    """Return when a stranger seen at ``now`` is to be forgotten, Unix seconds; None for never."""
    return now + config.stranger_time_to_live_s if config.stranger_time_to_live_s else None


def earliest(*moments: float | None) -> float | None:
    """Return the first of the moments at which something ends; None: it never does."""
    return min((moment for moment in moments if moment is not None), default=None)


def insert_person(
    at: Context, person_id: str, name: str, is_stranger: bool, session: str, expires: float | None
) -> None:
    """Add a row of persons."""
    values: dict[str, Cell] = {
        "name": name, "is_stranger": int(is_stranger), "session": session,
        "created": at.now, "expires": expires, "last_seen": None,
    }  # fmt: skip
    at.rows.insert("persons", person_id, values)


def insert_templates(at: Context, person_id: str, templates: Sequence[NewTemplate]) -> None:
    """Add templates of a person, with their crops where these are kept."""
    dimension = at.snapshot.dimension
    ids = at.rows.allocate("next_template", len(templates))
    for template_id, template in zip(ids, templates, strict=True):
        if template.embedding.shape != (dimension,):
            raise InputError(f"embedding: expected shape ({dimension},), got {template.embedding.shape}")
        values: dict[str, Cell] = {
            "person_id": person_id,
            "embedding": template.embedding.astype("<f4").tobytes(),
            "quality": template.quality,
            "yaw": template.pose.yaw,
            "pitch": template.pose.pitch,
            "roll": template.pose.roll,
            "provenance": template.provenance.value,
            "precision": template.precision,
            "created": at.now,
            "is_set_aside": 0,
        }
        at.rows.insert("templates", template_id, values)
        if at.config.keep_crops and template.crop_bgr is not None:
            at.rows.insert("crops", template_id, {"sealed": at.crops.seal(template_id, template.crop_bgr)})


def new_person_id(at: Context, is_stranger: bool) -> str:
    """Return an id nobody has or ever had: random for a person, counted up for a stranger."""
    while True:
        number = at.rows.allocate("next_stranger")[0] if is_stranger else 0
        person_id = f"stranger-{number}" if is_stranger else f"p-{secrets.token_hex(6)}"
        if person_id not in at.snapshot.persons and person_id not in at.snapshot.aliases:
            return person_id


def _require_templates(label: str, new: Sequence[NewTemplate]) -> None:
    if not new:
        raise InputError(f"templates of {label!r}: expected at least one, got none")


def check_limit(label: str, present: int, new: int, at: Context) -> None:
    """Raise GalleryConflictError if a person would have too many templates."""
    limit = at.config.max_templates_per_person
    if present + new > limit:
        raise GalleryConflictError(
            f"{label or 'a person'} would have {present + new} templates, at most {limit} are allowed "
            "(gallery.max_templates_per_person); remove some first"
        )


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")

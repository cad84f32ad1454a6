"""What each operation on the gallery changes, row by row.

Every function looks at a snapshot and returns an :class:`Edit`; it changes nothing by itself.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from face_recognition_node.common.errors import GalleryConflictError, InputError
from face_recognition_node.gallery.changes import Cell, Change, Transaction
from face_recognition_node.gallery.config import GalleryConfig
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.gallery.values import NewTemplate, Person, Provenance, Session

SealCrop = Callable[[int, NewTemplate], bytes | None]
"""Returns the encrypted crop of a new template, or None where none is kept."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a change is planned on: the gallery as it is in the transaction that makes the change.

    Attributes:
        snapshot: Who is known.
        transaction: Gives out numbers.
        config: Parameters.
        now: Unix seconds.
        seal_crop: Seals what is to be kept of a new template's crop.
        has_crop: Says whether a crop of a template is kept.
    """

    snapshot: Snapshot
    transaction: Transaction
    config: GalleryConfig
    now: float
    seal_crop: SealCrop
    has_crop: Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of the gallery.

    Attributes:
        sentence: What it does, for people.
        changes: The rows it touches.
        persons: Ids it touches; the first is the one to answer with.
        is_recorded: It can be undone.
        forgotten: Persons it removes, as they were.
    """

    sentence: str
    changes: tuple[Change, ...]
    persons: tuple[str, ...]
    is_recorded: bool = True
    forgotten: tuple[Person, ...] = ()


def add_person(
    at: Context,
    name: str,
    templates: Sequence[NewTemplate],
    *,
    is_stranger: bool,
    expires: float | None,
) -> Edit:
    """Store a new person or stranger in the current session."""
    snapshot, now = at.snapshot, at.now
    name = checked_name(name, may_be_empty=is_stranger)
    if not templates:
        raise InputError(f"templates of {name!r}: expected at least one, got none")
    check_limit(name, 0, len(templates), at)
    person_id = new_person_id(at, is_stranger)
    session = snapshot.sessions[snapshot.session]
    if is_stranger and expires is None:
        expires = stranger_end(at.config, now)
    ends = [moment for moment in (session.expiry(now), expires) if moment is not None]
    row = person_row(name, is_stranger, session.name, now, min(ends, default=None))
    changes = [Change("insert", "persons", person_id, row), *template_rows(at, person_id, templates)]
    sentence = f"add {name or person_id} with {_counted(len(templates), 'template')}"
    return Edit(sentence, tuple(changes), (person_id,), is_recorded=not is_stranger)


def enroll(at: Context, name: str, templates: Sequence[NewTemplate], absorbed_ids: Sequence[str]) -> Edit:
    """Make a person of strangers and new templates; the first stranger's id stays, the others lead to it."""
    snapshot = at.snapshot
    name = checked_name(name)
    if not templates:
        raise InputError(f"templates of {name!r}: expected at least one, got none")
    strangers = list({snapshot.resolve(key): snapshot.person(key) for key in absorbed_ids}.values())
    for person in strangers:
        if not person.is_stranger:
            raise GalleryConflictError(f"{person.label} ({person.person_id}) is no stranger any more")
    first, *others = strangers
    check_limit(name, sum(person.n_templates for person in strangers), len(templates), at)
    session = snapshot.sessions[snapshot.session]
    values: dict[str, Cell] = {
        "name": name, "is_stranger": 0, "session": session.name, "expires": session.expiry(at.now),
        "created": min(person.created for person in strangers),
        "last_seen": max((p.last_seen for p in strangers if p.last_seen is not None), default=None),
    }  # fmt: skip
    changes = [Change("update", "persons", first.person_id, values)]
    changes += joining(first.person_id, others)
    changes += template_rows(at, first.person_id, templates)
    known_as = ", ".join(person.label for person in strangers)
    sentence = f"add {name}, known as {known_as}, with {_counted(len(templates), 'template')}"
    return Edit(sentence, tuple(changes), tuple(person.person_id for person in strangers))


def learn(at: Context, person_id: str, templates: Sequence[NewTemplate], replaced_ids: Iterable[int]) -> Edit:
    """Store templates that the node found by itself, in place of others it had found."""
    replaced = at.snapshot.templates(replaced_ids)
    person = at.snapshot.person(person_id)
    for template in replaced:
        if template.person_id != person.person_id or template.provenance is not Provenance.ADAPTED:
            raise GalleryConflictError(f"template {template.template_id} was not learned of {person.label}")
    edit = add_templates(at, person_id, templates, n_replaced=len(replaced))
    removed = [c for t in replaced for c in _template_removal(t.template_id, at)]
    return replace(edit, changes=(*edit.changes, *removed), is_recorded=False)


def add_templates(at: Context, person_id: str, templates: Sequence[NewTemplate], n_replaced: int = 0) -> Edit:
    """Store more templates of a person, of whom some others are removed in the same change."""
    person = at.snapshot.person(person_id)
    if not templates:
        raise InputError(f"templates of {person.label!r}: expected at least one, got none")
    check_limit(person.label, person.n_templates - n_replaced, len(templates), at)
    changes = template_rows(at, person.person_id, templates)
    sentence = f"add {_counted(len(templates), 'template')} to {person.label}"
    return Edit(sentence, tuple(changes), (person.person_id,), is_recorded=not person.is_stranger)


def rename(at: Context, person_id: str, name: str) -> Edit:
    """Give a person another name; a stranger becomes a person and keeps id and templates.

    Whoever names a stranger enrolls them: the templates count as enrolled from then on, so that adaptation
    can go on from them and its rollback leaves them.
    """
    person = at.snapshot.person(person_id)
    name = checked_name(name)
    changes = naming(at.snapshot, person, name)
    return Edit(f"rename {person.label} to {name}", tuple(changes), (person.person_id,))


def naming(snapshot: Snapshot, person: Person, name: str) -> list[Change]:
    """Return the changes that :func:`rename` makes."""
    values: dict[str, Cell] = {"name": name}
    if not person.is_stranger:
        return [Change("update", "persons", person.person_id, values)]
    values |= {"is_stranger": 0, "expires": snapshot.sessions[person.session].expiry(person.created)}
    return [
        Change("update", "persons", person.person_id, values),
        *(
            Change("update", "templates", t.template_id, {"provenance": Provenance.ENROLLED.value})
            for t in snapshot.templates(person.template_ids)
            if t.provenance is Provenance.ADAPTED
        ),
    ]


def merge(at: Context, keep_id: str, other_ids: Sequence[str]) -> Edit:
    """Give all templates of the others to one person; their ids lead to it from now on."""
    snapshot = at.snapshot
    keep = snapshot.person(keep_id)
    others = list({snapshot.resolve(other_id): snapshot.person(other_id) for other_id in other_ids}.values())
    if not others or any(other.person_id == keep.person_id for other in others):
        raise GalleryConflictError(f"merge: expected other persons than {keep.label!r} itself")
    people = [keep, *others]
    check_limit(keep.label, keep.n_templates, sum(other.n_templates for other in others), at)
    values: dict[str, Cell] = {
        "created": min(person.created for person in people),
        "last_seen": max((p.last_seen for p in people if p.last_seen is not None), default=None),
    }
    named = [person for person in people if not person.is_stranger]
    if keep.is_stranger and named:
        values |= {
            "name": named[0].name, "is_stranger": 0, "session": named[0].session, "expires": named[0].expires,
        }  # fmt: skip
    elif keep.is_stranger:
        ends = [person.expires for person in people]
        values["expires"] = None if None in ends else max(end for end in ends if end is not None)
    changes = [Change("update", "persons", keep.person_id, values), *joining(keep.person_id, others)]
    sentence = f"merge {', '.join(other.label for other in others)} into {keep.label}"
    return Edit(sentence, tuple(changes), tuple(person.person_id for person in people))


def joining(keep_id: str, others: Sequence[Person]) -> list[Change]:
    """Return the changes that give the templates and ids of others to one person."""
    changes: list[Change] = []
    mine = {"person_id": keep_id}
    for other in others:
        changes += [Change("update", "templates", template_id, mine) for template_id in other.template_ids]
        changes += [Change("update", "aliases", alias, mine) for alias in other.aliases]
        changes.append(Change("delete", "persons", other.person_id))
        changes.append(Change("insert", "aliases", other.person_id, mine))
    return changes


def split(at: Context, template_ids: Iterable[int], name: str) -> Edit:
    """Make a person of its own of some templates of one person; without a name it is a stranger."""
    snapshot, now = at.snapshot, at.now
    templates = snapshot.templates(template_ids)
    owners = {template.person_id for template in templates}
    if len(owners) != 1:
        raise GalleryConflictError(f"split: expected templates of one person, got those of {len(owners)}")
    person = snapshot.persons[owners.pop()]
    if len(templates) == person.n_templates:
        raise GalleryConflictError(
            f"split: these are all templates of {person.label}; rename the person instead"
        )
    name = checked_name(name, may_be_empty=True)
    person_id = new_person_id(at, is_stranger=not name)
    if name and person.is_stranger:
        expires = snapshot.sessions[person.session].expiry(now)
    else:
        ends = [person.expires, None if name else stranger_end(at.config, now)]
        expires = min((end for end in ends if end is not None), default=None)
    row = person_row(name, not name, person.session, now, expires)
    changes = [Change("insert", "persons", person_id, row)]
    changes += [Change("update", "templates", t.template_id, {"person_id": person_id}) for t in templates]
    sentence = f"split {_counted(len(templates), 'template')} of {person.label} off as {name or person_id}"
    return Edit(sentence, tuple(changes), (person_id, person.person_id))


def remove_templates(at: Context, template_ids: Iterable[int]) -> Edit:
    """Remove templates; a person must keep at least one."""
    snapshot = at.snapshot
    templates = snapshot.templates(template_ids)
    if not templates:
        raise InputError("template_ids: expected at least one, got none")
    owners = dict.fromkeys(template.person_id for template in templates)
    for owner in owners:
        person = snapshot.persons[owner]
        if sum(template.person_id == owner for template in templates) == person.n_templates:
            raise GalleryConflictError(
                f"{person.label} would be left without templates; forget the person instead"
            )
    changes = [c for t in templates for c in _template_removal(t.template_id, at)]
    names = ", ".join(snapshot.persons[owner].label for owner in owners)
    return Edit(f"remove {_counted(len(templates), 'template')} of {names}", tuple(changes), tuple(owners))


def set_aside(at: Context, template_ids: Iterable[int], is_set_aside: bool, is_recorded: bool = True) -> Edit:
    """Keep templates out of the search, or let them in again."""
    snapshot = at.snapshot
    templates = [t for t in snapshot.templates(template_ids) if t.is_set_aside != is_set_aside]
    changes = [
        Change("update", "templates", t.template_id, {"is_set_aside": int(is_set_aside)}) for t in templates
    ]
    owners = dict.fromkeys(template.person_id for template in templates)
    names = ", ".join(snapshot.persons[owner].label for owner in owners)
    what = "set aside" if is_set_aside else "search again"
    sentence = f"{what} {_counted(len(templates), 'template')} of {names}"
    return Edit(sentence, tuple(changes), tuple(owners), is_recorded)


def rollback_adaptation(at: Context, person_id: str | None) -> Edit:
    """Remove the templates that the node added by itself; one that is all a person has is kept."""
    snapshot = at.snapshot
    persons = list(snapshot.persons.values()) if person_id is None else [snapshot.person(person_id)]
    removed: list[int] = []
    touched: list[str] = []
    for person in persons:
        templates = snapshot.templates(person.template_ids) if person.n_adapted else ()
        adapted = [t.template_id for t in templates if t.provenance is Provenance.ADAPTED]
        if adapted and len(adapted) < person.n_templates:
            removed += adapted
            touched.append(person.person_id)
    changes = [c for template_id in removed for c in _template_removal(template_id, at)]
    sentence = f"take back {_counted(len(removed), 'adapted template')} of {_counted(len(touched), 'person')}"
    return Edit(sentence, tuple(changes), tuple(touched))


def forget(at: Context, person_ids: Iterable[str]) -> Edit:
    """Remove persons with everything known of them."""
    snapshot = at.snapshot
    people = [snapshot.persons[key] for key in dict.fromkeys(snapshot.resolve(key) for key in person_ids)]
    changes: list[Change] = []
    for person in people:
        changes += [c for template_id in person.template_ids for c in _template_removal(template_id, at)]
        changes += [Change("delete", "aliases", alias) for alias in person.aliases]
        changes.append(Change("delete", "persons", person.person_id))
    names = ", ".join(person.label for person in people[:3]) + (" …" if len(people) > 3 else "")
    sentence = f"forget {names}" if len(people) < 4 else f"forget {len(people)} persons ({names})"
    ids = tuple(person.person_id for person in people)
    return Edit(sentence, tuple(changes), ids, forgotten=tuple(people))


def _template_removal(template_id: int, at: Context) -> list[Change]:
    crop = [Change("delete", "crops", template_id)] if at.has_crop(template_id) else []
    return [*crop, Change("delete", "templates", template_id)]


def person_row(
    name: str, is_stranger: bool, session: str, created: float, expires: float | None
) -> dict[str, Cell]:
    """Return the columns of a new row of persons."""
    return {
        "name": name, "is_stranger": int(is_stranger), "session": session,
        "created": created, "expires": expires, "last_seen": None,
    }  # fmt: skip


def template_rows(at: Context, person_id: str, templates: Sequence[NewTemplate]) -> list[Change]:
    """Return the changes that store templates of a person."""
    changes, dimension = [], at.snapshot.dimension
    ids = at.transaction.allocate("next_template", len(templates))
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
        changes.append(Change("insert", "templates", template_id, values))
        sealed = at.seal_crop(template_id, template)
        if sealed is not None:
            changes.append(Change("insert", "crops", template_id, {"sealed": sealed}))
    return changes


def new_person_id(at: Context, is_stranger: bool) -> str:
    """Return an id nobody has or ever had: random for a person, counted up for a stranger."""
    while True:
        number = at.transaction.allocate("next_stranger")[0] if is_stranger else 0
        person_id = f"stranger-{number}" if is_stranger else f"p-{secrets.token_hex(6)}"
        if person_id not in at.snapshot.persons and person_id not in at.snapshot.aliases:
            return person_id


def folded(name: str) -> str:
    """Return a name as names are compared: in one Unicode form, without regard to case."""
    return composed(name).casefold()


def composed(name: str) -> str:
    """Return a name in one of the forms that Unicode has for the same letters."""
    return unicodedata.normalize("NFC", name)


_BLANK_LETTERS = " \u115f\u1160\u2800\u3164\uffa0"
"""The space, and what Unicode counts as a letter or symbol but every font draws as nothing."""
_JOINER = re.compile(
    "(?<=[^\\W\\d_])[\u200c\u200d](?=[^\\W\\d_])|(?<=[\u0d4d\u0dca\u094d\u09cd])[\u200c\u200d]"
)


def checked_name(name: str, may_be_empty: bool = False) -> str:
    """Return a display name, every run of blanks in it one space, or raise InputError.

    Joiners (U+200C, U+200D) belong to the spelling of Persian, Sinhala and Malayalam names and are kept
    after a letter; elsewhere they would only make two names that look the same.
    """
    given = name.strip()
    name = composed(" ".join(given.split()))
    if not name.strip(_BLANK_LETTERS):
        if name or not may_be_empty:
            raise InputError("name: expected at least one letter, got an empty name")
        return name
    has_control = any(unicodedata.category(letter) == "Cc" for letter in given)
    if has_control or len(name) > 200 or not _JOINER.sub("", name).isprintable():
        raise InputError(f"name: expected up to 200 printable characters, got {given[:40]!r}")
    return name


def session_change(snapshot: Snapshot, session: Session) -> Edit:
    """Make a session known, or change its kind and time to live for those who come from now on."""
    values = {"kind": session.kind.value, "time_to_live_s": session.time_to_live_s}
    known = snapshot.sessions.get(session.name)
    if known is not None and known == replace(session):
        return Edit(f"continue session {session.name!r}", (), (), is_recorded=False)
    change = Change("insert" if known is None else "update", "sessions", session.name, values)
    return Edit(f"session {session.name!r}", (change,), (), is_recorded=False)


def stranger_end(config: GalleryConfig, now: float) -> float | None:
    """Return when a stranger seen at ``now`` is to be forgotten, Unix seconds; None for never."""
    return now + config.stranger_time_to_live_s if config.stranger_time_to_live_s else None


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

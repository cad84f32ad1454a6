"""What each operation on the gallery changes, row by row.

An operation works on the gallery as it is in the transaction that makes the change, and returns what it did.
:class:`gallery.Gallery` offers most of them under the same name, without the context.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from face_recognition_node.common.errors import GalleryConflictError, InputError
from face_recognition_node.gallery.changes import Cell, Context, Edit, Transaction
from face_recognition_node.gallery.retention import (
    earliest,
    expiry,
    members_of,
    members_of_runs,
    stranger_end,
)
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.gallery.values import NewTemplate, Person, Provenance, Session, checked_name

# refuses a change by raising, given the gallery as it is when the change is made: another process may have
# stored the same person since the caller looked
Check = Callable[[Snapshot], None]


def add_person(
    at: Context,
    name: str,
    templates: Sequence[NewTemplate],
    *,
    is_stranger: bool = False,
    expires: float | None = None,
    check: Check | None = None,
) -> Edit[str]:
    """Store a new person, or a stranger (whose name may be empty), in the current session."""
    if check is not None:
        check(at.snapshot)
    name = checked_name(name, may_be_empty=is_stranger)
    _require_templates(name, templates)
    check_limit(at, name, len(templates))
    person_id, session = new_person_id(at, is_stranger), at.snapshot.current_session
    expires = earliest(expires, expiry(at, session, is_stranger and expires is None))
    insert_person(at, person_id, name, is_stranger, session.name, expires)
    insert_templates(at, person_id, templates)
    sentence = f"add {name or person_id} with {_counted(len(templates), 'template')}"
    return Edit(person_id, sentence, (person_id,), is_recorded=not is_stranger)


def enroll(
    at: Context,
    name: str,
    templates: Sequence[NewTemplate],
    absorb: Sequence[str] = (),
    *,
    check: Check | None = None,
) -> Edit[str]:
    """Store a person, with all that is stored of the strangers this person was known as, in one step.

    The ids of ``absorb`` lead to the person from then on.

    Raises:
        PersonNotFoundError: A stranger was forgotten meanwhile.
        GalleryConflictError: One got a name meanwhile, or there would be too many templates.
    """
    if not absorb:
        return add_person(at, name, templates, check=check)
    if check is not None:
        check(at.snapshot)
    name = checked_name(name)
    _require_templates(name, templates)
    strangers = _distinct(at.snapshot, absorb)
    for person in strangers:
        if not person.is_stranger:
            raise GalleryConflictError(f"{person.label} ({person.person_id}) is no longer a stranger")
    check_limit(at, name, sum(person.n_templates for person in strangers) + len(templates))
    session = at.snapshot.current_session
    person_id = _name_strangers(at, strangers, name, session, session.expiry(at.now))
    insert_templates(at, person_id, templates)
    sentence = f"add {name}, known as {_labels(strangers)}, with {_counted(len(templates), 'template')}"
    return Edit(person_id, sentence, (person_id, *(person.person_id for person in strangers)))


def learn(
    at: Context, person_id: str, templates: Sequence[NewTemplate], replaced_ids: Iterable[int] = ()
) -> Edit[str]:
    """Store templates that the node found by itself; no step of the history (:func:`rollback_adaptation`)."""
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
    check_limit(at, person.label, person.n_templates - n_replaced + len(templates))
    insert_templates(at, person.person_id, templates)
    sentence = f"add {_counted(len(templates), 'template')} to {person.label}"
    return Edit(person.person_id, sentence, (person.person_id,), is_recorded=not person.is_stranger)


def rename(at: Context, person_id: str, name: str) -> Edit[str]:
    """Give a person another name; a stranger becomes a person with a new id, the old one leads to it."""
    person = at.snapshot.person(person_id)
    name = checked_name(name)
    person_id = give_name(at, person, name)
    touched = dict.fromkeys((person_id, person.person_id))
    return Edit(person_id, f"rename {person.label} to {name}", tuple(touched))


def give_name(at: Context, person: Person, name: str) -> str:
    """Change a person's name and return the id, which is a new one for a stranger.

    To name a stranger is to enroll them: the templates count as enrolled from then on, so that adaptation
    can go on from them and its rollback leaves them.
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


def merge(at: Context, keep_id: str, other_ids: str | Sequence[str]) -> Edit[str]:
    """Join others to one, to whom their ids then lead; somebody with a name is kept before a stranger."""
    others = _distinct(at.snapshot, [other_ids] if isinstance(other_ids, str) else other_ids)
    keep = at.snapshot.person(keep_id)
    if not others or any(other.person_id == keep.person_id for other in others):
        raise GalleryConflictError(f"merge: expected other persons than {keep.label!r} itself")
    people = [keep, *others]
    if keep.is_stranger:
        keep = next((person for person in others if not person.is_stranger), keep)
        others = [person for person in people if person is not keep]
    check_limit(at, keep.label, sum(person.n_templates for person in people))
    values = _joined_times(people)
    if keep.is_stranger:
        ends = [person.expires for person in people]
        values["expires"] = None if None in ends else max(end for end in ends if end is not None)
    at.rows.update("persons", keep.person_id, values)
    _join(at.rows, keep.person_id, others)
    sentence = f"merge {_labels(others)} into {keep.label}"
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


def split(at: Context, template_ids: Iterable[int], name: str = "") -> Edit[str]:
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
        expires = earliest(person.expires, None if name else stranger_end(at.config, at.now))
    insert_person(at, person_id, name, not name, person.session, expires)
    for template in templates:
        at.rows.update("templates", template.template_id, {"person_id": person_id})
    sentence = f"split {_counted(len(templates), 'template')} of {person.label} off as {name or person_id}"
    return Edit(person_id, sentence, (person_id, person.person_id))


def remove_templates(at: Context, template_ids: Iterable[int]) -> Edit[tuple[str, ...]]:
    """Remove templates and return their owners as they are now; each must keep at least one."""
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
    at: Context, template_ids: Iterable[int], is_set_aside: bool = True, *, is_recorded: bool = True
) -> Edit[tuple[str, ...]]:
    """Keep templates out of the search, or let them in again; return their owners."""
    templates = [t for t in at.snapshot.templates(template_ids) if t.is_set_aside != is_set_aside]
    for template in templates:
        at.rows.update("templates", template.template_id, {"is_set_aside": int(is_set_aside)})
    people = [at.snapshot.persons[owner] for owner in dict.fromkeys(t.person_id for t in templates)]
    edit = _edit_of_templates("set aside" if is_set_aside else "search again", len(templates), people)
    # what the node does by itself is not recorded: undone, it would only be done again
    return replace(edit, is_recorded=is_recorded)


def _edit_of_templates(verb: str, n: int, people: Sequence[Person]) -> Edit[tuple[str, ...]]:
    ids = tuple(person.person_id for person in people)
    return Edit(ids, f"{verb} {_counted(n, 'template')} of {_labels(people)}", ids)


def rollback_adaptation(at: Context, person_id: str | None = None) -> Edit[int]:
    """Remove what the node added by itself, of one person or all, but a person's last; return how many."""
    snapshot, n_removed, touched = at.snapshot, 0, []
    for person in snapshot.persons.values() if person_id is None else [snapshot.person(person_id)]:
        templates = snapshot.templates(person.template_ids) if person.n_adapted else ()
        adapted = [t.template_id for t in templates if t.provenance is Provenance.ADAPTED]
        if adapted and len(adapted) < person.n_templates:
            for template_id in adapted:
                at.rows.delete_template(template_id)
            n_removed += len(adapted)
            touched.append(person.person_id)
    sentence = f"remove {_counted(n_removed, 'adapted template')} of {_counted(len(touched), 'person')}"
    return Edit(n_removed, sentence, tuple(touched))


def forget(
    at: Context, person_ids: str | Iterable[str] = (), final: bool = False, *, session: str | None = None
) -> Edit[tuple[Person, ...]]:
    """Remove persons, or everybody of a session, with everything known of them; return them as they were.

    No embedding is left in the file, its log or memory. Until the undo window ends they can be brought back
    from a sealed copy, unless ``final``.
    """
    wanted = [person_ids] if isinstance(person_ids, str) else list(person_ids)
    people = _distinct(at.snapshot, wanted if session is None else wanted + members_of(at.snapshot, session))
    for person in people:
        for template_id in person.template_ids:
            at.rows.delete_template(template_id)
        for alias in person.aliases:
            at.rows.delete("aliases", alias)
        at.rows.delete("persons", person.person_id)
    names = _labels(people[:3]) + (" …" if len(people) > 3 else "")
    sentence = f"forget {names}" if len(people) < 4 else f"forget {len(people)} persons ({names})"
    is_final = final or at.config.undo_window_s == 0
    return Edit(tuple(people), sentence, tuple(person.person_id for person in people), is_final=is_final)


def forget_all(at: Context, final: bool = False) -> Edit[tuple[Person, ...]]:
    """Forget everybody."""
    return forget(at, at.snapshot.persons, final)


def start_run(at: Context) -> Edit[tuple[Person, ...]]:
    """Forget for good who was stored for an earlier run of the node only; the node calls it at start."""
    return forget(at, members_of_runs(at.snapshot), final=True)


# Parts of several changes.


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


def check_limit(at: Context, label: str, n: int) -> None:
    """Raise GalleryConflictError if a person would have too many templates."""
    limit = at.config.max_templates_per_person
    if n > limit:
        raise GalleryConflictError(
            f"{label or 'a person'} would have {n} templates, at most {limit} are allowed "
            "(gallery.max_templates_per_person); remove some first"
        )


def _labels(people: Iterable[Person]) -> str:
    return ", ".join(person.label for person in people)


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")

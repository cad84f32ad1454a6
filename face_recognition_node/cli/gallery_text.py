"""People, templates and changes as text and as JSON, and people found by what a user types."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from face_recognition_node.common.errors import PersonNotFoundError

if TYPE_CHECKING:
    from face_recognition_node.gallery.gallery import Person, Snapshot, Template
    from face_recognition_node.gallery.history import HistoryEntry


def find_person(snapshot: Snapshot, text: str) -> Person:
    """Return the person meant by an id, a former id, the beginning of an id, or a name.

    Raises:
        PersonNotFoundError: Nobody, or more than one, can be meant.
    """
    from face_recognition_node.gallery.values import composed, folded

    if text in snapshot.persons or text in snapshot.aliases:
        return snapshot.person(text)
    people = list(snapshot.persons.values())
    for fits in (
        [p for p in people if composed(p.name) == composed(text)],
        [p for p in people if folded(p.name) == folded(text)],
        [p for p in people if text and p.person_id.startswith(text)],
    ):
        if len(fits) == 1:
            return fits[0]
        if fits:
            ids = ", ".join(f"{p.person_id} ({p.label})" for p in fits)
            raise PersonNotFoundError(f"{text!r} can mean {ids}; give one of these ids")
    raise PersonNotFoundError(f"nobody has the id or the name {text!r}; see: face-recognition gallery list")


def person_as_dict(person: Person) -> dict[str, Any]:
    """Return a person for JSON; times are Unix seconds."""
    return {
        "person_id": person.person_id,
        "name": person.name,
        "is_stranger": person.is_stranger,
        "session": person.session,
        "created": person.created,
        "expires": person.expires,
        "last_seen": person.last_seen,
        "n_templates": person.n_templates,
        "n_enrolled": person.n_enrolled,
        "n_adapted": person.n_adapted,
        "n_imported": person.n_imported,
        "template_ids": list(person.template_ids),
        "aliases": list(person.aliases),
    }


def template_as_dict(template: Template) -> dict[str, Any]:
    """Return a template for JSON, without the embedding."""
    return {
        "template_id": template.template_id,
        "person_id": template.person_id,
        "quality": round(template.quality, 4),
        "yaw": round(template.pose.yaw, 2),
        "pitch": round(template.pose.pitch, 2),
        "roll": round(template.pose.roll, 2),
        "provenance": template.provenance.value,
        "precision": template.precision,
        "created": template.created,
        "is_set_aside": template.is_set_aside,
    }


def persons_table(persons: Sequence[Person]) -> str:
    """Return people as aligned lines."""
    if not persons:
        return "nobody"
    rows = [("PERSON ID", "NAME", "TEMPLATES", "SESSION", "LAST SEEN", "EXPIRES")]
    for person in persons:
        parts = {"enrolled": person.n_enrolled, "adapted": person.n_adapted, "imported": person.n_imported}
        kinds = ", ".join(f"{n} {kind}" for kind, n in parts.items() if n)
        name = person.name or "(stranger)"
        seen, end = _moment(person.last_seen), _moment(person.expires)
        rows.append(
            (person.person_id, name, f"{person.n_templates} ({kinds})", person.session or "-", seen, end)
        )
    return _aligned(rows)


def templates_table(templates: Sequence[Template], persons: Mapping[str, Person]) -> str:
    """Return templates as aligned lines."""
    rows = [("TEMPLATE ID", "OF", "PROVENANCE", "QUALITY", "YAW", "PITCH", "STORED", "")]
    for template in templates:
        rows.append(
            (
                str(template.template_id),
                persons[template.person_id].label,
                template.provenance.value,
                f"{template.quality:.2f}",
                f"{template.pose.yaw:+.0f}",
                f"{template.pose.pitch:+.0f}",
                _moment(template.created),
                "set aside" if template.is_set_aside else "",
            )
        )
    return _aligned(rows)


def changes_table(entries: Sequence[HistoryEntry]) -> str:
    """Return the changes that can be undone or done again as lines, the next one to undo marked."""
    if not entries:
        return "nothing to undo or to do again"
    last = max((entry.entry_id for entry in entries if entry.is_done), default=None)
    lines = []
    for entry in entries:
        mark = ">" if entry.entry_id == last else " "
        state = "" if entry.is_done else "  (undone)"
        end = "" if entry.deadline is None else f"  (until {_moment(entry.deadline)})"
        lines.append(f"{mark} {_moment(entry.made)}  {entry.sentence}{state}{end}")
    return "\n".join(lines)


def _moment(seconds: float | None) -> str:
    return "-" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
    )

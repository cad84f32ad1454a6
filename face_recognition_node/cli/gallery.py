"""``face-recognition gallery WHAT``: look after the people in a gallery file.

Every change is durable when the command returns; a node that has the same file open follows within a moment.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from face_recognition_node.cli.options import (
    add_gallery,
    add_json_flag,
    add_settings,
    config_from,
    gallery_path_from,
    given_path,
    not_blank,
    report,
)
from face_recognition_node.common.errors import InputError, PersonNotFoundError
from face_recognition_node.common.tables import aligned

if TYPE_CHECKING:
    from face_recognition_node.gallery.gallery import Gallery, Person, Snapshot, Template
    from face_recognition_node.gallery.history import HistoryEntry

    Action = Callable[[Gallery, argparse.Namespace], "Answer"]

Answer = tuple[str, dict[str, Any]]  # text for people, and the same for programs
READING = ("list", "history", "verify", "export")  # verbs that change nothing in the file

EPILOG = """\
A PERSON is a person id, four or more characters of its beginning, or a name that only one person has.

exit codes: 0 done, 1 'verify' found a problem, 2 wrong input or failure (nothing was changed)

examples:
  face-recognition gallery list
  face-recognition gallery rename Jane Jayne
  face-recognition gallery forget --session party --final
  face-recognition gallery undo
  face-recognition gallery export people.db && face-recognition gallery import people.db --gallery other.db
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare what can be done."""
    verbs = parser.add_subparsers(
        dest="what", metavar="WHAT", required=True, parser_class=argparse.ArgumentParser
    )

    def verb(name: str, action: Action, summary: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        add_gallery(sub)
        add_json_flag(sub)
        sub.set_defaults(action=action)
        return sub

    sub = verb("list", _list, "show who is known")
    sub.add_argument("--session", help="only the people of this session")
    sub.add_argument("--templates", action="store_true", help="also show each stored view")
    sub = verb("rename", _rename, "rename a person, or name a stranger")
    sub.add_argument("person", metavar="PERSON", type=not_blank)
    sub.add_argument("name", metavar="NAME")
    sub = verb("merge", _merge, "make one person of several; the first one's id and name stay")
    sub.add_argument("keep", metavar="PERSON", type=not_blank)
    sub.add_argument("others", metavar="PERSON", type=not_blank, nargs="+")
    sub = verb("split", _split, "make a person of their own of some templates of one person")
    sub.add_argument("templates", metavar="TEMPLATE_ID", type=int, nargs="+", help="see list --templates")
    sub.add_argument("--name", default="", help="name of the new person; without it, a stranger")
    sub = verb("remove", _remove, "remove templates; each person must keep at least one")
    sub.add_argument("templates", metavar="TEMPLATE_ID", type=int, nargs="+", help="see list --templates")
    sub = verb("forget", _forget, "remove people and everything stored about them")
    sub.add_argument("persons", metavar="PERSON", type=not_blank, nargs="*")
    sub.add_argument("--session", type=not_blank, help="everybody of this session")
    sub.add_argument("--all", action="store_true", help="everybody")
    sub.add_argument(
        "--final", action="store_true", help="cannot be undone; otherwise undo works for a while"
    )
    for name, summary in (("undo", "undo the latest changes"), ("redo", "redo what was undone")):
        sub = verb(name, _undo_or_redo, summary)
        sub.add_argument("steps", metavar="N", type=int, nargs="?", default=1, help="how many (default 1)")
    verb("history", _history, "show what can be undone or redone")
    sub = verb("export", _export, "write people to one file")
    sub.add_argument("file", metavar="FILE", type=given_path)
    sub.add_argument("--only", metavar="PERSON", type=not_blank, nargs="+", help="these people only")
    sub.add_argument("--overwrite", action="store_true", help="replace an existing file")
    sub = verb("import", _import, "add the people of an exported file, all or none")
    sub.add_argument("file", metavar="FILE", type=given_path)
    sub.add_argument("--session", help="store them under this session (default: the current one)")
    sub.add_argument(
        "--on-conflict",
        choices=["merge", "skip", "copy", "refuse"],
        default="merge",
        help="what to do with people who exist already: add their new templates (default), leave them as "
        "they are, store them once more as other people, or import nothing",
    )
    verb("verify", _verify, "check the file, its contents and the search index; list doubtful templates")
    sub = verb("session", _session, "show the current session, or start or continue one for newcomers")
    sub.add_argument("name", metavar="NAME", nargs="?", help="'' for the default session")
    sub.add_argument("--kind", choices=["permanent", "event", "run"])
    sub.add_argument("--time-to-live", type=float, metavar="S", help="lifetime of new people, seconds")
    sub = verb("rollback", _rollback, "remove the templates that the node added by itself")
    sub.add_argument("person", metavar="PERSON", type=not_blank, nargs="?", help="of this person only")
    sub = verb("reembed", _reembed, "convert the gallery to the present model, from stored crops")
    sub.add_argument(
        "--remove-without-crop", action="store_true", help="remove templates without a stored crop"
    )
    add_settings(sub)


def run(arguments: argparse.Namespace) -> int:
    """Do it and print the answer."""
    from face_recognition_node.gallery.gallery import Gallery
    from face_recognition_node.gallery.transfer import export_fingerprint

    is_import = arguments.what == "import"
    path = gallery_path_from(arguments, must_exist=not is_import)
    fingerprint = export_fingerprint(arguments.file) if is_import and not path.exists() else None
    reads = arguments.what in READING or (arguments.what == "session" and arguments.name is None)
    with Gallery.open(path, fingerprint, read_only=reads) as gallery:
        if not reads:
            gallery.expire()
        text, answer = arguments.action(gallery, arguments)
        answer["version"] = gallery.snapshot().version
    report(text, answer, arguments.json)
    return 1 if answer.get("problems") else 0


def _list(gallery: Gallery, arguments: argparse.Namespace) -> Answer:
    snapshot = gallery.snapshot()
    persons = sorted(snapshot.persons.values(), key=lambda p: (p.is_stranger, p.name.casefold(), p.person_id))
    if arguments.session is not None:
        persons = [person for person in persons if person.session == arguments.session]
    answer: dict[str, Any] = {
        "gallery": str(gallery.path),
        "fingerprint": snapshot.fingerprint,
        "n_templates": snapshot.n_templates,
        "session": snapshot.session,
        "persons": [person_as_dict(person) for person in persons],
    }
    text = persons_table(persons)
    if arguments.templates:
        templates = [one for person in persons for one in snapshot.templates_of(person.person_id)]
        answer["templates"] = [template_as_dict(template) for template in templates]
        text += "\n\n" + templates_table(templates, snapshot.persons)
    return text, answer


def _rename(gallery: Gallery, arguments: argparse.Namespace) -> Answer:
    before = find_person(gallery.snapshot(), arguments.person)
    person = gallery.rename(before.person_id, arguments.name)
    return f"{before.label} is now {person.name} ({person.person_id})", {"person": person_as_dict(person)}


def _merge(gallery: Gallery, arguments: argparse.Namespace) -> Answer:
    snapshot = gallery.snapshot()
    keep = find_person(snapshot, arguments.keep)
    others = [find_person(snapshot, text).person_id for text in arguments.others]
    person = gallery.merge(keep.person_id, others)
    text = f"{person.label} ({person.person_id}) now has {person.n_templates} templates"
    return text, {"person": person_as_dict(person)}


def _split(gallery: Gallery, arguments: argparse.Namespace) -> Answer:
    person = gallery.split(arguments.templates, arguments.name)
    text = f"{person.label} ({person.person_id}) has {person.n_templates} templates"
    return text, {"person": person_as_dict(person)}


def _remove(gallery: Gallery, arguments: argparse.Namespace) -> Answer:
    persons = gallery.remove_templates(arguments.templates)
    text = "\n".join(f"{person.label} has {person.n_templates} templates left" for person in persons)
    return text, {"persons": [person_as_dict(person) for person in persons]}


def _forget(gallery: Gallery, arguments: argparse.Namespace) -> Answer:
    chosen = [bool(arguments.persons), arguments.session is not None, arguments.all]
    if sum(chosen) != 1:
        raise InputError("forget: expected either people, or --session NAME, or --all")
    if arguments.all:
        gone = gallery.forget_all(arguments.final)
    elif arguments.session is not None:
        gone = gallery.forget(final=arguments.final, session=arguments.session)
    else:
        snapshot = gallery.snapshot()
        ids = [find_person(snapshot, text).person_id for text in arguments.persons]
        gone = gallery.forget(ids, arguments.final)
    text = f"forgot {len(gone)}: {', '.join(person.label for person in gone)}" if gone else "there was nobody"
    window = gallery.config.undo_window_s
    if gone and not arguments.final and window:
        text += f"\n'undo' brings them back for {window / 60:g} minutes; '--final' would not have kept them"
    text += f"\n{gallery.unfinished}" if gallery.unfinished else ""
    return text, {"forgotten": [person_as_dict(person) for person in gone], "unfinished": gallery.unfinished}


def _undo_or_redo(gallery: Gallery, arguments: argparse.Namespace) -> Answer:
    step, word = (gallery.undo, "undone") if arguments.what == "undo" else (gallery.redo, "redone")
    changes = step(arguments.steps)
    return "\n".join(f"{word}: {change}" for change in changes), {word: list(changes)}


def _history(gallery: Gallery, arguments: argparse.Namespace) -> Answer:
    entries = gallery.history()
    answer = [
        {"made": e.made, "change": e.sentence, "is_done": e.is_done, "deadline": e.deadline} for e in entries
    ]
    return changes_table(entries), {"changes": answer}


def _export(gallery: Gallery, arguments: argparse.Namespace) -> Answer:
    snapshot = gallery.snapshot()
    only = arguments.only and [find_person(snapshot, text).person_id for text in arguments.only]
    made = gallery.export_to(arguments.file, person_ids=only, overwrite=arguments.overwrite)
    text = f"wrote {made.n_persons} persons with {made.n_templates} templates to {made.path}"
    text += "\nit holds biometric data: keep it as you would keep their photographs"
    return text, {**asdict(made), "path": str(made.path)}


def _import(gallery: Gallery, arguments: argparse.Namespace) -> Answer:
    from face_recognition_node.gallery.transfer import ImportConflict

    stored = gallery.import_from(
        arguments.file, session=arguments.session, on_conflict=ImportConflict(arguments.on_conflict)
    )
    text = f"stored {stored.n_persons} new persons and {stored.n_templates} templates"
    text += f"; {stored.n_skipped} templates were skipped" if stored.n_skipped else ""
    return text, asdict(stored)


def _verify(gallery: Gallery, arguments: argparse.Namespace) -> Answer:
    found = gallery.verify()
    lines = list(found.problems) or ["no problem found"]
    lines.append(f"{found.n_persons} persons, {found.n_templates} templates, model {found.fingerprint}")
    if found.suspicious_template_ids:
        ids = " ".join(map(str, found.suspicious_template_ids))
        cure = "one person enrolled twice? merge the two; else split or remove them"
        lines.append(f"closer to somebody else than to their own person ({cure}): {ids}")
    return "\n".join(lines), asdict(found)


def _session(gallery: Gallery, arguments: argparse.Namespace) -> Answer:
    from face_recognition_node.gallery.gallery import SessionKind

    if arguments.name is not None:
        kind = SessionKind(arguments.kind) if arguments.kind else None
        gallery.set_session(arguments.name, kind, arguments.time_to_live)
    session, snapshot = gallery.session, gallery.snapshot()
    lines = []
    for one in sorted(snapshot.sessions.values(), key=lambda one: one.name):
        n = sum(person.session == one.name for person in snapshot.persons.values())
        life = "" if one.time_to_live_s is None else f", newcomers forgotten after {one.time_to_live_s:g} s"
        mark = "*" if one.name == session.name else " "
        lines.append(f"{mark} {one.name or '(default)'}: {one.kind.value}, {n} persons{life}")
    answer = {"name": session.name, "kind": session.kind.value, "time_to_live_s": session.time_to_live_s}
    return "\n".join(lines), {"session": answer, "sessions": sorted(snapshot.sessions)}


def _rollback(gallery: Gallery, arguments: argparse.Namespace) -> Answer:
    person_id = arguments.person and find_person(gallery.snapshot(), arguments.person).person_id
    n = gallery.rollback_adaptation(person_id)
    return f"removed {n} adapted templates", {"n_templates": n}


def _reembed(gallery: Gallery, arguments: argparse.Namespace) -> Answer:
    from face_recognition_node.backends import load_embedder

    embedder = load_embedder(config_from(arguments).models)
    done = gallery.reembed(embedder, remove_without_crop=arguments.remove_without_crop)
    text = f"{done.n_embedded} templates embedded again with {embedder.fingerprint}"
    if done.n_removed:
        text += f"; {done.n_removed} removed"
    if done.removed_persons:
        text += f"; without any crop, so gone: {', '.join(done.removed_persons)}"
    return text, {**asdict(done), "fingerprint": embedder.fingerprint}


def find_person(snapshot: Snapshot, text: str) -> Person:
    """Return the person meant by an id, a former id, the beginning of one, or a name.

    A beginning has four characters or more and is no id itself: stranger-1 who is gone is not stranger-12.

    Raises:
        PersonNotFoundError: Nobody, or more than one, can be meant.
    """
    from face_recognition_node.gallery.values import composed, folded

    if text in snapshot.persons or text in snapshot.aliases:
        return snapshot.person(text)
    people = list(snapshot.persons.values())
    is_beginning = len(text) >= 4 and not re.fullmatch("stranger-[0-9]+", text)
    for fits in (
        [p for p in people if composed(p.name) == composed(text)],
        [p for p in people if folded(p.name) == folded(text)],
        [p for p in people if is_beginning and any(i.startswith(text) for i in (p.person_id, *p.aliases))],
    ):
        if len(fits) == 1:
            return fits[0]
        if fits:
            ids = ", ".join(f"{p.person_id} ({p.label})" for p in fits)
            raise PersonNotFoundError(f"{text!r} can mean {ids}; give one of these ids")
    raise PersonNotFoundError(f"nobody has the id or the name {text!r}; see: face-recognition gallery list")


def person_as_dict(person: Person) -> dict[str, Any]:
    """Return a person for JSON; times are Unix seconds."""
    return {**asdict(person), "n_templates": person.n_templates}


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
    return aligned(rows)


def templates_table(templates: Sequence[Template], persons: Mapping[str, Person]) -> str:
    """Return templates as aligned lines."""
    rows = [("TEMPLATE ID", "OF", "PROVENANCE", "QUALITY", "YAW", "PITCH", "STORED", "")]
    for one in templates:
        yaw, pitch = f"{one.pose.yaw:+.0f}", f"{one.pose.pitch:+.0f}"
        who, origin = persons[one.person_id].label, one.provenance.value
        state = "set aside" if one.is_set_aside else ""
        number, quality, stored = str(one.template_id), f"{one.quality:.2f}", _moment(one.created)
        rows.append((number, who, origin, quality, yaw, pitch, stored, state))
    return aligned(rows)


def changes_table(entries: Sequence[HistoryEntry]) -> str:
    """Return the changes that can be undone or done again as lines, the next one to undo marked."""
    if not entries:
        return "nothing to undo or redo"
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

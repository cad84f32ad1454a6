"""Read what a version of the gallery holds, or what has changed since another one."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from face_recognition_node.gallery.columns import Columns, Row, read_columns
from face_recognition_node.gallery.store_schema import COLUMNS
from face_recognition_node.vision.faces import FloatArray


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows read for a reader that follows.

    Attributes:
        version: Of the gallery they belong to.
        is_everything: The rows are the whole gallery; otherwise what was touched since the version asked for.
        persons: Rows of the table persons, in the order in which they were created, then by id.
        aliases: (alias, person_id) of those persons.
        templates: The table templates, ascending id.
        embeddings: (n, D) their embeddings.
        memberships: (person_id, template_id, provenance) of all templates of those persons; empty if the rows
            are everything, for ``templates`` says it then.
        sessions: Rows of the table sessions, always all.
        session: Name of the current session.
        touched_persons: Ids touched; one that is not among ``persons`` is gone.
        touched_templates: Ids touched; one that is not among ``templates`` is gone.
    """

    version: int
    is_everything: bool
    persons: list[Row]
    aliases: list[Row]
    templates: Columns
    embeddings: FloatArray
    memberships: list[Row]
    sessions: list[Row]
    session: str
    touched_persons: frozenset[str] = frozenset()
    touched_templates: frozenset[int] = frozenset()


def _templates(
    connection: sqlite3.Connection, dimension: int, where: str = "", values: tuple[int | str, ...] = ()
) -> tuple[Columns, FloatArray]:
    names = ", ".join(COLUMNS["templates"])
    cursor = connection.execute(f"SELECT {names} FROM templates {where} ORDER BY template_id", values)
    return read_columns(cursor.fetchmany, dimension)


def read_rows(connection: sqlite3.Connection, version: int) -> Rows:
    """Return the rows touched after ``version``, or everything where the log does not reach back.

    Raises:
        InputError: An embedding is of the wrong length.
    """
    execute = connection.execute
    meta = dict(execute("SELECT key, value FROM meta").fetchall())
    now, dimension = int(meta["version"]), int(meta["dimension"])
    persons = f"SELECT {', '.join(COLUMNS['persons'])} FROM persons"
    in_order = "ORDER BY created, person_id"
    memberships = "SELECT person_id, template_id, provenance FROM templates"
    sessions = execute("SELECT name, kind, time_to_live_s FROM sessions").fetchall()
    session = str(meta["session"])
    n_versions = execute(
        "SELECT count(DISTINCT version) FROM changes WHERE version > ?", (version,)
    ).fetchone()[0]
    bulk = execute("SELECT 1 FROM changes WHERE version > ? AND kind = '*'", (version,)).fetchone()
    if version < 0 or bulk or n_versions != now - version:
        templates, embeddings = _templates(connection, dimension)
        return Rows(
            version=now,
            is_everything=True,
            persons=execute(f"{persons} {in_order}").fetchall(),
            aliases=execute("SELECT alias, person_id FROM aliases").fetchall(),
            templates=templates,
            embeddings=embeddings,
            memberships=[],
            sessions=sessions,
            session=session,
        )
    where = "WHERE template_id IN (SELECT key FROM changes WHERE version > ? AND kind = ?)"
    templates, embeddings = _templates(connection, dimension, where, (version, "t"))
    inside = "(SELECT DISTINCT key FROM changes WHERE version > ? AND kind = ?)"
    touched = execute("SELECT DISTINCT kind, key FROM changes WHERE version > ?", (version,)).fetchall()
    return Rows(
        version=now,
        is_everything=False,
        persons=execute(f"{persons} WHERE person_id IN {inside} {in_order}", (version, "p")).fetchall(),
        aliases=execute(
            f"SELECT alias, person_id FROM aliases WHERE person_id IN {inside}", (version, "p")
        ).fetchall(),
        templates=templates,
        embeddings=embeddings,
        memberships=execute(
            f"{memberships} WHERE person_id IN {inside} ORDER BY template_id", (version, "p")
        ).fetchall(),
        sessions=sessions,
        session=session,
        touched_persons=frozenset(str(key) for kind, key in touched if kind == "p"),
        touched_templates=frozenset(int(key) for kind, key in touched if kind == "t"),
    )

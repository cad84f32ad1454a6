"""Carry people over to a file, and from a file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from face_recognition_node.common.errors import (
    GalleryConflictError,
    GalleryMismatchError,
    GalleryUnavailableError,
    InputError,
)
from face_recognition_node.common.files import PRIVATE, explain_os_error, user_path
from face_recognition_node.gallery.changes import Cell, Context, Edit
from face_recognition_node.gallery.check import row_problems, unit_problems
from face_recognition_node.gallery.edits import check_limit, give_name, insert_person, new_person_id
from face_recognition_node.gallery.files import (
    journal_paths,
    make_private_folder,
    warn_if_in_source_tree,
    write_private,
)
from face_recognition_node.gallery.retention import expiry
from face_recognition_node.gallery.schema import COLUMNS, Row, Rows, read_table, require_gallery
from face_recognition_node.gallery.store import Store
from face_recognition_node.gallery.values import Provenance, Session, checked_name


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export wrote; ``n_persons`` counts strangers, too."""

    path: Path
    n_persons: int
    n_templates: int


@dataclass(frozen=True, slots=True)
class ExportFile:
    """The content of an exported file, rows as in the schema; ``gallery_id`` says where it came from."""

    gallery_id: str
    fingerprint: str
    dimension: int
    persons: list[Row]
    aliases: list[Row]
    templates: list[Row]

    def checksum(self) -> str:
        """Return the SHA-256 of all of it."""
        digest = hashlib.sha256(json.dumps([self.gallery_id, self.fingerprint, self.dimension]).encode())
        for number, table in enumerate((self.persons, self.aliases, self.templates)):
            digest.update(f"\ntable {number}\n".encode())
            for row in sorted(table, key=lambda row: str(row[0])):
                digest.update(repr(row).encode())
        return digest.hexdigest()


def write_export(
    store: Store, rows: Rows, path: Path, person_ids: Collection[str] | None, overwrite: bool
) -> ExportReport:
    """Write the rows of some persons (None: all) to a file that is whole or not there at all.

    The file is a gallery of its own, readable by its owner only, with a checksum. Crops and the list of
    changes stay behind, for they are sealed with keys of this machine.

    Raises:
        GalleryConflictError: The file exists and may not be overwritten.
        GalleryUnavailableError: It cannot be written.
    """
    _require_free(path, store.path, overwrite)
    wanted = {row[0] for row in rows.persons} if person_ids is None else set(person_ids)
    persons = [row for row in rows.persons if row[0] in wanted]
    aliases = [row for row in rows.aliases if row[1] in wanted]
    columns = ", ".join(COLUMNS["templates"])
    stored = store.connection.execute(f"SELECT {columns} FROM templates ORDER BY template_id")
    templates = [row for row in stored if row[1] in wanted]
    make_private_folder(path.parent)
    warn_if_in_source_tree(path)
    fingerprint, dimension = str(store.meta("fingerprint")), int(store.meta("dimension"))
    gallery_id = str(store.meta("gallery_id"))
    export = ExportFile(gallery_id, fingerprint, dimension, persons, aliases, templates)
    copy = Store(None, fingerprint, dimension)
    try:
        with copy.transaction() as transaction:
            insert = transaction.connection.executemany
            sessions = {row[3] for row in persons}
            insert(
                "INSERT OR IGNORE INTO sessions VALUES (?, ?, ?)",
                [row for row in rows.sessions if row[0] in sessions],
            )
            for table, content in (("persons", persons), ("aliases", aliases), ("templates", templates)):
                insert(f"INSERT INTO {table} VALUES ({', '.join('?' * len(COLUMNS[table]))})", content)
            for counter in ("next_template", "next_stranger"):
                transaction.set_meta(counter, store.meta(counter))
            more = {"checksum": export.checksum(), "exported_from": gallery_id}
            transaction.connection.executemany("INSERT INTO meta VALUES (?, ?)", more.items())
        _write_database(copy.connection, path, overwrite)
    except OSError as error:
        raise GalleryUnavailableError(f"{path} could not be written ({explain_os_error(error)})") from error
    except sqlite3.OperationalError as error:
        raise GalleryUnavailableError(f"{path} could not be written ({error})") from error
    finally:
        copy.close()
    return ExportReport(path, len(persons), len(templates))


def _write_database(content: sqlite3.Connection, path: Path, may_replace: bool) -> None:
    """Write a database to a file, through one that has lost its name before anything is in it."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with open(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, PRIVATE), "rb") as file:
        try:
            target = sqlite3.connect(draft, isolation_level=None)
            target.execute("PRAGMA journal_mode = OFF").fetchone()
        finally:
            draft.unlink()
        with contextlib.closing(target):
            content.backup(target)
        write_private(path, file, may_replace)


def _require_free(path: Path, gallery: Path | None, overwrite: bool) -> None:
    """Raise GalleryConflictError unless a file may be written, in place of an older export at most."""
    if gallery is not None:
        mine = (gallery, *journal_paths(gallery))
        if any(path == one or (path.exists() and one.exists() and path.samefile(one)) for one in mine):
            raise GalleryConflictError(f"{path} is the gallery itself or a part of it; choose another name")
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise GalleryConflictError(f"{path} exists; choose another name or allow overwriting")
    if not stat.S_ISREG(path.lstat().st_mode) or not _is_export(path):
        raise GalleryConflictError(f"{path} is not an export and is not overwritten; choose another name")


def _is_export(path: Path) -> bool:
    try:
        with _opened(path) as connection:
            found = connection.execute("SELECT 1 FROM meta WHERE key = 'exported_from'").fetchone()
    except GalleryUnavailableError:
        return False
    return found is not None


MOST_BYTES = 2**30  # a larger file is not imported: about two million templates
# reading a file may take so long, and a second more for so many bytes of it
DEADLINE_S, BYTES_PER_SECOND = 10.0, 5e6


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file from elsewhere to be read: it must have a gallery's tables and nothing else, and be quick.

    Raises:
        GalleryUnavailableError: It is missing, too large, damaged, no gallery, or takes too long to read.
    """
    if not path.is_file():
        raise GalleryUnavailableError(f"there is no file {path}")
    size = sum(one.stat().st_size for one in (path, *journal_paths(path)) if one.exists())
    if size > MOST_BYTES:
        raise GalleryUnavailableError(
            f"{path} is too large to import ({size >> 20} MiB, at most {MOST_BYTES >> 20}); "
            "export some of its people at a time"
        )
    deadline = time.monotonic() + DEADLINE_S + size / BYTES_PER_SECOND
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        with contextlib.closing(connection):
            connection.set_progress_handler(lambda: time.monotonic() > deadline, 1000)
            require_gallery(connection, path)
            yield connection
    except (sqlite3.DatabaseError, InputError, KeyError, ValueError, TypeError) as error:
        what = "it takes too long to read" if str(error) == "interrupted" else str(error)[:200]
        raise GalleryUnavailableError(
            f"{path} is damaged or not a gallery ({what}); export it again"
        ) from error


def read_export(path: Path, fingerprint: str) -> ExportFile:
    """Read and check an exported file (or another gallery).

    Raises:
        GalleryUnavailableError: It is missing, damaged, no gallery, or takes too long to read.
        GalleryMismatchError: Its embeddings come from another model or alignment.
    """
    with _opened(path) as connection:
        execute = connection.execute
        found = _fingerprint(connection)
        if found != fingerprint:
            raise GalleryMismatchError(
                f"{path}: expected embeddings of model and alignment {fingerprint}, got those of {found}; "
                "export it from a gallery of the same model, or enroll these people again"
            )
        answer = execute("PRAGMA integrity_check(1)").fetchone()[0]
        if answer != "ok":
            raise InputError(answer)
        execute("BEGIN")
        meta = dict(execute("SELECT key, value FROM meta").fetchall())
        dimension = meta["dimension"]
        if not isinstance(dimension, int) or not 1 <= dimension <= 65536:
            raise InputError(f"embeddings of {dimension!r:.40} numbers")
        for problem in row_problems(connection, dimension):
            raise InputError(problem)

        def rows(table: str) -> list[Row]:
            columns = COLUMNS[table]
            return execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {columns[0]}").fetchall()

        export = ExportFile(
            str(meta.get("exported_from", meta["gallery_id"])), found, dimension,
            rows("persons"), rows("aliases"), rows("templates"),
        )  # fmt: skip
    table, embeddings = read_table(iter(export.templates), dimension)
    for problem in unit_problems(table["template_id"], embeddings):
        raise GalleryUnavailableError(f"{path} is damaged ({problem}); export it again")
    expected = export.checksum()
    if meta.get("checksum", expected) != expected:
        raise GalleryUnavailableError(f"{path} was changed after it was exported (checksum); export it again")
    return export


def export_fingerprint(path: str | Path) -> str:
    """Return the fingerprint of the model and alignment that a file's embeddings come from."""
    with _opened(user_path(path, "any", error=GalleryUnavailableError)) as connection:
        return _fingerprint(connection)


def _fingerprint(connection: sqlite3.Connection) -> str:
    (found,) = connection.execute("SELECT value FROM meta WHERE key = 'fingerprint'").fetchone()
    if not isinstance(found, str) or not found.isprintable() or len(found) > 1000:
        raise InputError(f"its model fingerprint is {found!r:.40}")
    return found


class ImportConflict(str, Enum):
    """What to do with a person whose id is in the gallery already."""

    MERGE = "merge"  # add the templates that are new; a name used here stays
    SKIP = "skip"  # leave the person as it is
    COPY = "copy"  # store it as another person
    REFUSE = "refuse"  # import nothing at all


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import stored."""

    person_ids: tuple[str, ...]  # everybody in the file who is in the gallery now, as called here
    n_persons: int  # persons who were not here before
    n_templates: int
    n_skipped: int  # templates that were here already, or belong to a person skipped


def import_people(
    at: Context, export: ExportFile, gallery_id: str, session: str | None, on_conflict: ImportConflict
) -> Edit[ImportReport]:
    """Store the people of a file under a session, by default the current one.

    A stranger of another gallery gets a new number here: "stranger-7" there is not "stranger-7" here. A
    person with a view that is stored here already, to the last bit, is the one who has it here, whatever the
    ids say: two entries with the same views could never be told apart.

    Raises:
        GalleryConflictError: A person is here already and that is to be refused, or would have too many
            templates; or there is no such session.
        GalleryMismatchError: Embeddings of another length.
    """
    if export.dimension != at.snapshot.dimension:
        raise GalleryMismatchError(
            f"expected embeddings of {at.snapshot.dimension} numbers, got {export.dimension}"
        )
    name = at.snapshot.session if session is None else session
    if name not in at.snapshot.sessions:
        raise GalleryConflictError(f"there is no session {name!r}; start it first")
    importer = _Import(at, export.gallery_id == gallery_id, at.snapshot.sessions[name])
    templates: dict[str, list[Row]] = {}
    for row in export.templates:
        templates.setdefault(str(row[1]), []).append(row)
    for person in export.persons:
        importer.add(person, templates.get(str(person[0]), []), on_conflict)
    for alias, person_id in export.aliases:
        importer.add_alias(str(alias), str(person_id))
    ids, n = tuple(dict.fromkeys(importer.ids.values())), importer.n_templates
    report = ImportReport(ids, importer.n_persons, n, len(export.templates) - n)
    return Edit(report, f"import {len(ids)} persons with {n} templates", ids)


class _Import:
    def __init__(self, at: Context, is_same_gallery: bool, session: Session) -> None:
        self._at, self._snapshot, snapshot = at, at.snapshot, at.snapshot
        self._is_same_gallery, self._session = is_same_gallery, session
        self.ids: dict[str, str] = {}
        self.n_persons = self.n_templates = 0
        self._named: dict[str, str] = {}
        self._owners: dict[object, str] = {
            template.embedding.tobytes(): person_id
            for person_id in snapshot.persons
            for template in snapshot.templates_of(person_id)
        }

    def add(self, row: Row, templates: list[Row], on_conflict: ImportConflict) -> None:
        old_id, is_stranger = str(row[0]), bool(row[2])
        name = checked_name(str(row[1]), may_be_empty=True)
        here = None if self._is_foreign_number(old_id) else self._snapshot.aliases.get(old_id, old_id)
        if here not in self._snapshot.persons:
            owners = [owner for row in templates if (owner := self._owners.get(row[2]))]
            here = max(owners, key=owners.count, default=here)
        known = None if here is None else self._snapshot.persons.get(here)
        if known is not None and on_conflict is ImportConflict.REFUSE:
            label = name or old_id
            raise GalleryConflictError(f"{label} ({old_id}) exists already; import with merge, skip or copy")
        if known is not None and on_conflict is ImportConflict.SKIP:
            return
        if known is not None and on_conflict is ImportConflict.MERGE:
            here = known.person_id
            if known.is_stranger and not is_stranger and here not in self._named:
                self._named[here] = give_name(self._at, known, name)
            here = self._named.get(here, here)
            new = [row for row in templates if row[2] not in self._owners]
            self._add_templates(old_id, here, new, known.n_templates)
            return
        if here is None or known is not None or here in self._snapshot.aliases:
            here = new_person_id(self._at, is_stranger)
        expires = expiry(self._at, self._session, is_stranger)
        insert_person(self._at, here, name, is_stranger, self._session.name, expires)
        self.n_persons += 1
        self._add_templates(old_id, here, templates)

    def _add_templates(self, old_id: str, here: str, new: list[Row], n_present: int = 0) -> None:
        check_limit(self._at, here, n_present + len(new))
        ids = self._at.rows.allocate("next_template", len(new))
        for template_id, row in zip(ids, new, strict=True):
            values: dict[str, Cell] = dict(zip(COLUMNS["templates"], row, strict=True))
            del values["template_id"]
            values |= {"person_id": here, "provenance": Provenance.IMPORTED.value}
            self._at.rows.insert("templates", template_id, values)
        self.n_templates += len(new)
        self.ids[old_id] = here

    def add_alias(self, alias: str, old_id: str) -> None:
        here = self.ids.get(old_id)
        is_taken = alias in {*self._snapshot.persons, *self._snapshot.aliases}
        if here and not self._is_foreign_number(alias) and not is_taken:
            self._at.rows.insert("aliases", alias, {"person_id": here})

    def _is_foreign_number(self, person_id: str) -> bool:
        return person_id.startswith("stranger-") and not self._is_same_gallery

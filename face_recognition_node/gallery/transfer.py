"""Write a gallery, or some of its people, to one file, and read such a file."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import secrets
import sqlite3
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from face_recognition_node.common.errors import (
    GalleryConflictError,
    GalleryMismatchError,
    GalleryUnavailableError,
    InputError,
)
from face_recognition_node.gallery.columns import Row, read_columns
from face_recognition_node.gallery.files import (
    journal_paths,
    make_private_folder,
    sync_folder,
    warn_if_in_source_tree,
)
from face_recognition_node.gallery.store import Store
from face_recognition_node.gallery.store_reading import Rows
from face_recognition_node.gallery.store_schema import APPLICATION_ID, COLUMNS, FORMAT_VERSION
from face_recognition_node.gallery.values import LENGTH_TOLERANCE


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        path: The file.
        n_persons: Persons and strangers in it.
        n_templates: Their templates.
    """

    path: Path
    n_persons: int
    n_templates: int


@dataclass(frozen=True, slots=True)
class ExportFile:
    """The checked content of an exported file, rows as in the schema.

    Attributes:
        gallery_id: Of the gallery it came from.
        fingerprint: Of the model and alignment.
        dimension: Length of an embedding.
        persons: Rows of persons.
        aliases: Rows of aliases.
        templates: Rows of templates.
    """

    gallery_id: str
    fingerprint: str
    dimension: int
    persons: list[Row]
    aliases: list[Row]
    templates: list[Row]


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
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fingerprint, dimension = str(store.meta("fingerprint")), int(store.meta("dimension"))
    try:
        copy = Store(draft, fingerprint, dimension)
        try:
            with copy.transaction() as transaction:
                insert = transaction.connection.executemany
                insert("INSERT OR IGNORE INTO sessions VALUES (?, ?, ?)", rows.sessions)
                for table, content in (("persons", persons), ("aliases", aliases), ("templates", templates)):
                    insert(f"INSERT INTO {table} VALUES ({', '.join('?' * len(COLUMNS[table]))})", content)
                for counter in ("next_template", "next_stranger"):
                    transaction.set_meta(counter, store.meta(counter))
                checksum = _checksum(
                    str(store.meta("gallery_id")), fingerprint, dimension, persons, aliases, templates
                )
                more = {"checksum": checksum, "exported_from": str(store.meta("gallery_id"))}
                transaction.connection.executemany("INSERT INTO meta VALUES (?, ?)", more.items())
            copy.connection.execute("PRAGMA journal_mode = DELETE")
        finally:
            copy.close()
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise GalleryUnavailableError(f"{path} could not be written ({error.strerror})") from error
    finally:
        draft.unlink(missing_ok=True)
    return ExportReport(path, len(persons), len(templates))


def _require_free(path: Path, gallery: Path | None, overwrite: bool) -> None:
    """Raise GalleryConflictError unless a file may be written, in place of an older export at most."""
    if gallery is not None:
        mine = (gallery, *journal_paths(gallery))
        if any(path == one or (path.exists() and one.exists() and path.samefile(one)) for one in mine):
            raise GalleryConflictError(f"{path} is the gallery itself or a part of it; choose another name")
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise GalleryConflictError(f"{path} exists; choose another name or allow overwriting (--overwrite)")
    if not stat.S_ISREG(path.lstat().st_mode) or not _is_export(path):
        raise GalleryConflictError(f"{path} is no export and is not overwritten; choose another name")


def _is_export(path: Path) -> bool:
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            found = connection.execute("SELECT 1 FROM meta WHERE key = 'exported_from'").fetchone()
    except sqlite3.DatabaseError:
        return False
    return application == APPLICATION_ID and found is not None


def read_export(path: Path, fingerprint: str) -> ExportFile:
    """Read and check an exported file (or another gallery).

    Raises:
        GalleryUnavailableError: It is missing, damaged or no gallery.
        GalleryMismatchError: Its embeddings come from another model or alignment.
    """
    found = _read_checked(path)
    if found.fingerprint != fingerprint:
        raise GalleryMismatchError(
            f"{path}: expected embeddings of model and alignment {fingerprint}, got those of "
            f"{found.fingerprint}; "
            "export it from a gallery of the same model, or enroll these people again"
        )
    return found


def _read_checked(path: Path) -> ExportFile:
    if not path.is_file():
        raise GalleryUnavailableError(f"there is no file {path}")
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            found = _read(connection, path)
            checksum = connection.execute("SELECT value FROM meta WHERE key = 'checksum'").fetchone()
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise GalleryUnavailableError(
            f"{path} is damaged or no gallery ({error}); export it again"
        ) from error
    _require_usable(found, path)
    expected = _checksum(
        found.gallery_id, found.fingerprint, found.dimension, found.persons, found.aliases, found.templates
    )
    if checksum is not None and checksum[0] != expected:
        raise GalleryUnavailableError(f"{path} was changed after it was exported (checksum); export it again")
    return found


def _require_usable(found: ExportFile, path: Path) -> None:
    """Raise GalleryUnavailableError for rows that this gallery could not read back, or find nobody by."""
    try:
        remaining = iter(found.templates)
        columns, embeddings = read_columns(lambda n: list(itertools.islice(remaining, n)), found.dimension)
        lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
        if not (np.abs(lengths - 1.0) <= LENGTH_TOLERANCE).all() or not np.isfinite(columns.quality).all():
            raise InputError("an embedding that is no unit vector, or a quality that is no number")
    except (InputError, KeyError, ValueError, TypeError) as error:
        raise GalleryUnavailableError(f"{path} is damaged ({error}); export it again") from error


def export_fingerprint(path: str | Path) -> str:
    """Return the fingerprint of the model and alignment that a file's embeddings come from."""
    return _read_checked(Path(path).expanduser()).fingerprint


def _read(connection: sqlite3.Connection, path: Path) -> ExportFile:
    execute = connection.execute
    if execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise GalleryUnavailableError(f"{path} is an SQLite file, but no gallery")
    version = execute("PRAGMA user_version").fetchone()[0]
    if version != FORMAT_VERSION:
        raise GalleryUnavailableError(
            f"{path} has format {version}, expected {FORMAT_VERSION}; export it again with this version"
        )
    answer = execute("PRAGMA integrity_check(1)").fetchone()[0]
    if answer != "ok":
        raise GalleryUnavailableError(f"{path} is damaged ({answer}); export it again")
    execute("BEGIN")
    meta = dict(execute("SELECT key, value FROM meta").fetchall())

    def rows(table: str) -> list[Row]:
        columns = COLUMNS[table]
        return execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY {columns[0]}").fetchall()

    return ExportFile(
        str(meta.get("exported_from", meta["gallery_id"])), str(meta["fingerprint"]), int(meta["dimension"]),
        rows("persons"), rows("aliases"), rows("templates"),
    )  # fmt: skip


def _checksum(gallery_id: str, fingerprint: str, dimension: int, *tables: Iterable[Row]) -> str:
    digest = hashlib.sha256(json.dumps([gallery_id, fingerprint, dimension]).encode())
    for number, table in enumerate(tables):
        digest.update(f"\ntable {number}\n".encode())
        for row in sorted(table, key=lambda row: str(row[0])):
            digest.update(repr(row).encode())
    return digest.hexdigest()

"""Files: the one way to write one whole, and the one gate for every path that a user gives."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from face_recognition_node.common.errors import FaceRecognitionError, InputError

PRIVATE = 0o600  # mode of every file that holds faces or names, whatever the umask is


def user_folder(variable: str, below_home: str) -> Path | None:
    """Return the user's folder that an XDG variable names or its usual place; None without a home folder."""
    value = os.environ.get(variable, "")
    try:
        return Path(value) if os.path.isabs(value) else Path.home() / below_home
    except RuntimeError:
        return None


_FULL = "the disk is full; free some space and try again"
_DENIED = "permission denied for this user; check its owner and mode (ls -ld) or choose another place"
_CURES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: "the disk is mounted read-only; choose a place on another disk",
    errno.ENAMETOOLONG: "the name is too long for the file system; choose a shorter one",
}


def explain_os_error(error: OSError) -> str:
    """Return what went wrong, with the cure where there is a common one."""
    if error.errno not in _CURES:
        return str(error)
    where = f"{os.fsdecode(error.filename)[:200]}: " if error.filename else ""
    return where + _CURES[error.errno]


@contextlib.contextmanager
def written_whole(path: Path, mode: int | None = None) -> Iterator[Path]:
    """Give a draft's path to write to; the file has its name when the block ends, and never part of it.

    An exception inside of the block leaves whatever was at ``path`` untouched. The draft lies in the same
    folder, which is created when it is missing, and keeps the ending of the name. With a mode it is readable
    by its owner only; without, the file is as the umask says.

    Raises:
        OSError: If the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600))
    try:
        yield draft
        if mode is not None:
            draft.chmod(mode)
        with draft.open("rb") as stream:  # or a crash may leave the new name with the content of neither
            os.fsync(stream.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str, mode: int | None = None) -> None:
    """Write UTF-8 text whole or not at all."""
    with written_whole(path, mode) as draft:
        draft.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes, mode: int | None = None) -> None:
    """Write bytes whole or not at all."""
    with written_whole(path, mode) as draft:
        draft.write_bytes(data)


def write_json(path: Path, values: Mapping[str, Any], mode: int | None = None) -> None:
    """Write ``values`` as an indented JSON file, whole or not at all."""
    write_text(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n", mode)


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def require_plain_text(
    text: str, *, name: str = "path", error: type[FaceRecognitionError] = InputError
) -> str:
    """Return the text of a path or URL; raise ``error`` if it is empty, not UTF-8 or has a NUL character."""
    if not text.strip():
        raise error(f"{name}: expected the name of a file or folder, got an empty text")
    if "\0" in text:
        raise error(f"{name}: expected a path, got {text!r} with a NUL character in it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise error(f"{name}: expected a path in UTF-8, got {text!r}; rename the file or folder") from None
    return text


def user_path(
    given: str | os.PathLike[str],
    kind: Literal["file", "folder", "either", "any"] = "either",
    *,
    must_exist: bool = False,
    name: str = "path",
    error: type[FaceRecognitionError] = InputError,
) -> Path:
    """Return a path that a user gave, with ``~`` expanded; every such path goes through here.

    ``kind`` is what it has to be if there is something; devices and pipes are neither file nor folder. Of
    "any" the caller looks for itself. ``name`` is what the path is called in the message of the ``error``.

    Raises:
        FaceRecognitionError: ``error``, if the path is empty, has a NUL character or bytes that are not
            UTF-8 (which OpenCV and SQLite cannot take), is longer than a file system takes, names an unknown
            user's home, or is of another kind.
    """
    text = require_plain_text(os.fspath(given), name=name, error=error)
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # "~nobody/..."
        raise error(f"{name}: {text}: no such user's home folder") from None
    try:
        mode: int | None = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except OSError as problem:
        if kind == "any" and problem.errno != errno.ENAMETOOLONG:
            return path
        raise error(f"{name}: {str(path)[:200]}: cannot be reached ({problem.strerror})") from problem
    if kind == "any":
        return path
    if mode is None:
        if must_exist:
            raise error(f"{name}: {path}: no such {'file or folder' if kind == 'either' else kind}")
        return path
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise error(f"{name}: {path} is a device, pipe or socket; expected a file or folder")
    if kind == "file" and stat.S_ISDIR(mode):
        raise error(f"{name}: {path} is a folder; expected the name of a file")
    if kind == "folder" and not stat.S_ISDIR(mode):
        raise error(f"{name}: {path} is a file; expected the name of a folder")
    return path

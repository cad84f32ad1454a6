"""Where a gallery lives on the disk, and who may read it."""

from __future__ import annotations

import contextlib
import errno
import glob
import logging
import os
import secrets
import shutil
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO

from face_recognition_node.common.errors import GalleryUnavailableError
from face_recognition_node.common.files import PRIVATE, user_folder

LOGGER = logging.getLogger(__name__)
FOLDER = "face_recognition_node"


def default_gallery_path() -> Path:
    """Return ``face_recognition_node/gallery.db`` in the user's data folder (XDG base directories).

    Raises:
        GalleryUnavailableError: There is no home folder.
    """
    root = user_folder("XDG_DATA_HOME", ".local/share")
    if root is None:
        raise GalleryUnavailableError(
            "no home folder to keep a gallery in; name its file (--gallery, parameter gallery_path), or a "
            "folder by XDG_DATA_HOME"
        )
    return root / FOLDER / "gallery.db"


def default_keys_folder() -> Path:
    """Return ``face_recognition_node/keys`` in the user's state folder, apart from the galleries.

    Without a home folder that can be written to, as in some containers, it lies with the temporary files, so
    that people can be forgotten all the same: an undo then ends with the container.

    Raises:
        GalleryUnavailableError: Somebody else has made that folder.
    """
    root = user_folder("XDG_STATE_HOME", ".local/state")
    if root is not None:
        lowest = next(part for part in (root, *root.parents) if part.exists())
        if os.access(lowest, os.W_OK | os.X_OK) or (root / FOLDER / "keys").is_dir():
            return root / FOLDER / "keys"
    root = Path(tempfile.gettempdir()) / f"{FOLDER}-{os.getuid()}"
    if root.is_symlink() or (root.exists() and root.stat().st_uid != os.getuid()):
        raise GalleryUnavailableError(f"{root} belongs to somebody else; name a folder by XDG_STATE_HOME")
    LOGGER.warning("no home folder: keys are kept in %s; name a lasting one by XDG_STATE_HOME", root)
    return root / FOLDER / "keys"


def choose_keys_folder(file: Path, gallery_id: str, chosen: Path | None) -> Path:
    """Return the folder for a gallery's keys.

    Args:
        file: The gallery's, absolute.
        gallery_id: Names the folder.
        chosen: Where such folders lie; by default the user's state folder.

    Raises:
        GalleryUnavailableError: If the keys would lie with what they seal.
    """
    folder = (chosen or default_keys_folder()).absolute() / gallery_id
    mine = (folder, *folder.parents) if chosen is not None else (folder, folder.parent)
    if file.parent in mine:
        raise GalleryUnavailableError(
            f"keys must not lie with what they seal: choose a keys folder outside {file.parent}"
        )
    return folder


def make_private_folder(folder: Path) -> None:
    """Create ``folder`` with mode 0700 where it is missing; an existing one is left as it is.

    Raises:
        GalleryUnavailableError: It cannot be created.
    """
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    for part in reversed(missing):
        try:
            part.mkdir(mode=0o700)
        except FileExistsError:
            continue
        except OSError as error:
            raise GalleryUnavailableError(
                f"the folder {part} cannot be created ({error.strerror}); choose another place for "
                "the gallery, or for its keys by XDG_STATE_HOME"
            ) from error


def make_private_file(path: Path) -> bool:
    """Make sure ``path`` is a regular file that only its owner can read; return whether it was created.

    SQLite gives the journal beside a database the database's own mode, so this covers them too.

    Raises:
        GalleryUnavailableError: It is no regular file, or cannot be created or made private.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _tighten(path)
    except OSError as error:
        raise GalleryUnavailableError(
            f"the gallery {path} cannot be created ({error.strerror}); choose another path"
        ) from error
    os.close(descriptor)
    warn_if_in_source_tree(path)
    return True


def _tighten(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise GalleryUnavailableError(f"the gallery {path} cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(mode):
        raise GalleryUnavailableError(f"the gallery {path} should be a file, but it is not")
    if not os.access(path, os.R_OK | os.W_OK):
        raise GalleryUnavailableError(f"the gallery {path} cannot be read and written by this user")
    for name in (path, *journal_paths(path)):
        with contextlib.suppress(FileNotFoundError):
            if stat.S_IMODE(name.stat().st_mode) & 0o077:
                LOGGER.warning("%s could be read by other users; its mode is now 0600", name)
                _make_owner_only(name)
    return False


def _make_owner_only(path: Path) -> None:
    try:
        path.chmod(0o600)
    except OSError as error:
        raise GalleryUnavailableError(
            f"{path} can be read by other users and its mode cannot be changed ({error.strerror}); "
            f"ask its owner to run: chmod 600 {path}"
        ) from error


def journal_paths(path: Path) -> tuple[Path, Path]:
    """Return the names of the write-ahead log and its index beside the database."""
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def warn_if_in_source_tree(path: Path) -> None:
    """Log a warning if faces are about to be stored where they may be committed and published."""
    root = Path(__file__).resolve().parents[2]
    if (root / "setup.py").exists() and root in path.resolve().parents:
        LOGGER.warning("%s lies in the source tree: do not commit it, it holds biometric data", path)


def write_private(path: Path, source: BinaryIO, may_replace: bool = False) -> None:
    """Copy a stream into a file of mode 0600 that is whole and durable, or not there at all.

    Until it is whole it has no name, so that nothing stays of it if this process is killed. On a file system
    without such files, and for a moment when another file is replaced, it has a hidden one; whoever writes
    the file next removes what an earlier one left.

    Raises:
        OSError: It cannot be written, or exists and may not be replaced.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        left.unlink(missing_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        descriptor = os.open(path.parent, os.O_WRONLY | os.O_TMPFILE, PRIVATE)
        is_named = False
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
            raise
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
        is_named = True
    try:
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(descriptor)
            if not is_named:
                goal = draft if may_replace else path
                here = f"/proc/self/fd/{descriptor}"
                os.link(here, goal, src_dir_fd=descriptor, follow_symlinks=True)
        if is_named or may_replace:
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make names created or removed in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

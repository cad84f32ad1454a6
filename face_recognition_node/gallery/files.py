"""Where a gallery and its keys live on the disk, who may read them, and what the keys seal.

A forgotten person can be brought back for a while only because the removed rows are kept encrypted
(AES-256-GCM, NIST SP 800-38D) in the gallery, with a key in another folder. Destroying the key, a file of 32
bytes, is what makes forgetting final at once.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import io
import logging
import os
import secrets
import shutil
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import cv2
import numpy as np

from face_recognition_node.common.errors import GalleryUnavailableError
from face_recognition_node.common.files import PRIVATE, explain_os_error, user_folder
from face_recognition_node.vision.faces import ImageArray

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

LOGGER = logging.getLogger(__name__)
FOLDER = "face_recognition_node"
KEY_BYTES, NONCE_BYTES = 32, 12
KEY_NAME = "crops"


def default_gallery_path() -> Path:
    """Return ``gallery.db`` in the user's data folder (XDG), or raise GalleryUnavailableError."""
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


def choose_keys_folder(file: Path | None, gallery_id: str, chosen: Path | None) -> Path | None:
    """Return the folder for the keys of the gallery in ``file`` (absolute), None for one in memory.

    It lies in the ``chosen`` folder, by default the user's state folder.

    Raises:
        GalleryUnavailableError: If the keys would lie with what they seal.
    """
    if file is None:
        return None
    folder = (chosen or default_keys_folder()).absolute() / gallery_id
    mine = (folder, *folder.parents) if chosen is not None else (folder, folder.parent)
    if file.parent in mine:
        raise GalleryUnavailableError(
            f"keys must not lie with what they seal: choose a keys folder outside {file.parent}"
        )
    return folder


def make_private_folder(folder: Path) -> None:
    """Create ``folder`` with mode 0700 where it is missing, or raise GalleryUnavailableError."""
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


def make_private_file(path: Path) -> None:
    """Make sure ``path`` is a regular file that only its owner can read.

    SQLite gives the journal beside a database the database's own mode, so this covers them too.

    Raises:
        GalleryUnavailableError: It is no regular file, or cannot be created or made private.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        warn_if_in_source_tree(path)
    except FileExistsError:
        _tighten(path)
    except OSError as error:
        raise GalleryUnavailableError(
            f"the gallery {path} cannot be created ({error.strerror}); choose another path"
        ) from error


def _tighten(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise GalleryUnavailableError(f"the gallery {path} cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(mode):
        raise GalleryUnavailableError(f"the gallery {path} should be a file, but it is not")
    if not os.access(path, os.R_OK | os.W_OK):
        raise GalleryUnavailableError(
            f"this user may not read and write the gallery {path}, or its disk is read-only; "
            "copy it to a place where this user may write"
        )
    for name in (path, *journal_paths(path)):
        with contextlib.suppress(FileNotFoundError):
            if stat.S_IMODE(name.stat().st_mode) & 0o077:
                LOGGER.warning("%s could be read by other users; its mode is now 0600", name)
                try:
                    name.chmod(0o600)
                except OSError as error:
                    raise GalleryUnavailableError(
                        f"{name} can be read by other users and its mode cannot be changed "
                        f"({error.strerror}); ask its owner to run: chmod 600 {name}"
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
    without such files, and for a moment when another file is replaced, it has a hidden one; the next
    writer removes what an earlier one left.

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


class KeyRing:
    """Named keys of one gallery, in a file each in ``folder``; None keeps them in memory only."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._keys: dict[str, bytes] = {}

    def create(self, name: str | None = None, *, prefix: str = "") -> str:
        """Make a key, durable when this returns, and return its name (``prefix`` and random by default)."""
        name = name or prefix + secrets.token_hex(8)
        key = secrets.token_bytes(KEY_BYTES)
        if self._folder is None:
            self._keys[name] = key
            return name
        make_private_folder(self._folder)
        try:
            write_private(self._folder / f"{name}.key", io.BytesIO(key))
        except OSError as error:
            raise GalleryUnavailableError(
                f"a key cannot be written to {self._folder} ({explain_os_error(error)}); nothing was changed"
            ) from error
        return name

    def has(self, name: str) -> bool:
        """Return whether the key exists."""
        return name in self._keys if self._folder is None else (self._folder / f"{name}.key").exists()

    def seal(self, name: str, plain: bytes, belongs_to: str) -> bytes:
        """Return ``plain`` encrypted; it can be opened only as ``belongs_to``."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + _cipher(self._key(name)).encrypt(nonce, plain, belongs_to.encode())

    def unseal(self, name: str, sealed: bytes, belongs_to: str) -> bytes:
        """Return what was sealed; GalleryUnavailableError if the key is gone or the bytes are damaged."""
        from cryptography.exceptions import InvalidTag

        try:
            return _cipher(self._key(name)).decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], belongs_to.encode()
            )
        except InvalidTag as error:
            raise GalleryUnavailableError(
                f"sealed data ({belongs_to}) cannot be opened: it is damaged or was sealed with another key"
            ) from error

    def destroy(self, name: str) -> None:
        """Overwrite and remove a key; what it sealed can never be opened again. A missing key is fine."""
        if self._folder is None:
            self._keys.pop(name, None)
            return
        path = self._folder / f"{name}.key"
        try:
            with path.open("r+b") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
        except FileNotFoundError:
            return
        sync_folder(self._folder)

    def names(self, older_than_s: float = 0.0) -> list[str]:
        """Return the names of all keys that were made so long ago."""
        if self._folder is None:
            return sorted(self._keys)
        newest = time.time() - older_than_s
        return sorted(path.stem for path in self._folder.glob("*.key") if path.stat().st_mtime <= newest)

    def _key(self, name: str) -> bytes:
        if self._folder is None:
            key = self._keys.get(name)
        else:  # another process may have destroyed it: the file decides
            path = self._folder / f"{name}.key"
            key = path.read_bytes() if path.exists() else None
        if key is None or len(key) != KEY_BYTES:
            raise GalleryUnavailableError(
                f"the key {name!r} is not in {self._folder or 'memory'}: what it sealed cannot be opened here"
            )
        return key


def _cipher(key: bytes) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise GalleryUnavailableError(
            "sealing needs the package cryptography: pip install cryptography, or apt install "
            "python3-cryptography; without it, set gallery.undo_window_s to 0 and gallery.keep_crops to false"
        ) from error
    return AESGCM(key)


class CropSafe:
    """Seals and opens the crops of one gallery with one key, which lies outside the gallery's folder."""

    def __init__(self, keys: KeyRing, gallery_id: str) -> None:
        self._keys = keys
        self._gallery_id = gallery_id

    def seal(self, template_id: int, crop_bgr: ImageArray) -> bytes:
        """Return a (112, 112, 3) crop as an encrypted PNG that belongs to a template."""
        if not self._keys.has(KEY_NAME):
            self._keys.create(KEY_NAME)
        done, png = cv2.imencode(".png", crop_bgr)
        if not done:
            raise GalleryUnavailableError("the face crop could not be encoded as PNG")
        return self._keys.seal(KEY_NAME, png.tobytes(), self._purpose(template_id))

    def open(self, template_id: int, sealed: bytes) -> ImageArray:
        """Return the crop of a template; GalleryUnavailableError if its key is not here or it is damaged."""
        png = self._keys.unseal(KEY_NAME, sealed, self._purpose(template_id))
        image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise GalleryUnavailableError(f"the face crop of template {template_id} is not a picture")
        return np.asarray(image, np.uint8)

    def _purpose(self, template_id: int) -> str:
        return f"crop {self._gallery_id} {template_id}"

"""Keys kept apart from the gallery, and what is sealed with them.

A forgotten person can be brought back for a while only because the removed rows are kept encrypted
(AES-256-GCM, NIST SP 800-38D) in the gallery, with a key in another folder. Destroying the key, a file of 32
bytes, is what makes forgetting final at once.
"""

from __future__ import annotations

import io
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from face_recognition_node.common.errors import GalleryUnavailableError
from face_recognition_node.common.files import in_words
from face_recognition_node.gallery.files import make_private_folder, sync_folder, write_private
from face_recognition_node.vision.faces import ImageArray

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12


class KeyRing:
    """Named keys of one gallery.

    Args:
        folder: Where the keys are kept, one file each; None keeps them in memory only.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._keys: dict[str, bytes] = {}

    def create(self, name: str | None = None, *, prefix: str = "") -> str:
        """Make a key, durable when this returns, and return its name (``prefix`` and random by default).

        Raises:
            GalleryUnavailableError: It cannot be written; nothing of it stays.
        """
        name = name or prefix + secrets.token_hex(8)
        key = secrets.token_bytes(KEY_BYTES)
        if self._folder is not None:
            make_private_folder(self._folder)
            try:
                write_private(self._folder / f"{name}.key", io.BytesIO(key))
            except OSError as error:
                raise GalleryUnavailableError(
                    f"a key cannot be written to {self._folder} ({in_words(error)}); nothing was changed"
                ) from error
        self._keys[name] = key
        return name

    def has(self, name: str) -> bool:
        """Return whether the key exists."""
        if self._folder is None:
            return name in self._keys
        return (self._folder / f"{name}.key").exists()

    def seal(self, name: str, plain: bytes, belongs_to: str) -> bytes:
        """Return ``plain`` encrypted; it can be opened only as ``belongs_to``."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + _cipher(self._key(name)).encrypt(nonce, plain, belongs_to.encode())

    def unseal(self, name: str, sealed: bytes, belongs_to: str) -> bytes:
        """Return what was sealed.

        Raises:
            GalleryUnavailableError: The key is gone, or the sealed bytes are damaged or of something else.
        """
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
        self._keys.pop(name, None)
        if self._folder is None:
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


KEY_NAME = "crops"


class CropSafe:
    """Seals and opens the crops of one gallery with one key, which lies outside the gallery's folder.

    Args:
        keys: Where the key is.
        gallery_id: Binds the crops to the gallery.
    """

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
        """Return the crop of a template.

        Raises:
            GalleryUnavailableError: The key is not on this machine, or the crop is damaged.
        """
        png = self._keys.unseal(KEY_NAME, sealed, self._purpose(template_id))
        image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise GalleryUnavailableError(f"the face crop of template {template_id} is no picture")
        return np.asarray(image, np.uint8)

    def _purpose(self, template_id: int) -> str:
        return f"crop {self._gallery_id} {template_id}"

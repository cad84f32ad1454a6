"""Face crops kept beside the templates, encrypted, for the day when another model embeds them again."""

from __future__ import annotations

import cv2
import numpy as np

from face_recognition_node.common.errors import GalleryUnavailableError
from face_recognition_node.gallery.sealing import KeyRing
from face_recognition_node.vision.faces import ImageArray

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

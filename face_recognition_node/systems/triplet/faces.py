"""ME and NOT_ME: folders of pictures, or people taken from an archive of labelled faces to try it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from face_recognition_node.common.errors import InputError, SourceError
from face_recognition_node.evaluation.picture_archive import IMAGE_ENDINGS, LfwArchive
from face_recognition_node.vision.faces import ImageArray

Crop = Callable[[ImageArray], ImageArray]
"""Finds the face in a picture and returns it aligned, (112, 112, 3) BGR uint8."""


@dataclass(frozen=True, slots=True, eq=False)
class OwnerFaces:
    """Aligned faces of the owner and of others, to train on and to try.

    Attributes:
        me: (K, 112, 112, 3) the owner's, to train on.
        not_me: (M, 112, 112, 3) other people's.
        me_tests: (T, 112, 112, 3) the owner's, not trained on; may be empty.
        not_me_tests: (S, 112, 112, 3) of people who are not in ``not_me``; may be empty.
    """

    me: ImageArray
    not_me: ImageArray
    me_tests: ImageArray
    not_me_tests: ImageArray


def read_folder(folder: Path, crop: Crop) -> ImageArray:
    """Return (N, 112, 112, 3) aligned faces of all pictures in ``folder``, in the order of their names.

    Raises:
        SourceError: If there is no such folder or no picture in it.
    """
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in (*IMAGE_ENDINGS, ".jpeg", ".bmp"))
    if not paths:
        raise SourceError(f"{folder}: expected a folder of pictures (jpg, png, webp), found none")
    return np.stack([read_face(path, crop) for path in paths])


def read_face(path: Path, crop: Crop) -> ImageArray:
    """Return the aligned face of one picture; a picture of 112×112 pixels is taken to be one already."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError(f"{path}: expected a picture, cannot read it")
    picture = np.asarray(image, np.uint8)
    return picture if picture.shape == (112, 112, 3) else crop(picture)


def demonstration(archive: LfwArchive, owner: str, n_me: int, n_not_me: int, seed: int) -> OwnerFaces:
    """Take ``owner``'s and other people's faces from an archive.

    Args:
        archive: Labelled aligned faces.
        owner: Name of a person with more than ``n_me`` faces.
        n_me: The owner's faces to train on; the others are tests.
        n_not_me: Other people to train on, one face each.
        seed: Of the choice.
    """
    random = np.random.default_rng(seed)
    people = np.array(archive.people)
    own = random.permutation(np.flatnonzero(people == owner))
    if len(own) <= n_me:
        raise InputError(f"{owner}: expected over {n_me} faces, the archive has {len(own)}")
    others = random.permutation(np.unique(people[people != owner]))[: n_not_me + 200]
    one_each = [int(random.choice(np.flatnonzero(people == name))) for name in others]
    me, tests = own[:n_me], own[n_me:]

    def read(numbers: list[int]) -> ImageArray:
        return np.stack([archive.read(int(number)) for number in numbers])

    return OwnerFaces(read(list(me)), read(one_each[:n_not_me]), read(list(tests)), read(one_each[n_not_me:]))


def people_with_many_faces(archive: LfwArchive, minimum: int) -> list[str]:
    """Return the names with at least ``minimum`` faces, most faces first."""
    names, counts = np.unique(np.array(archive.people), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [str(names[place]) for place in order if counts[place] >= minimum]

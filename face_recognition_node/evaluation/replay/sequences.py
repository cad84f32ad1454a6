"""Recordings of a scenario: clips below a data root, folders of pictures, folders inside a zip archive."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path

import cv2
import numpy as np

from face_recognition_node.common.errors import SourceError
from face_recognition_node.media.bags import is_bag
from face_recognition_node.media.images import read_image
from face_recognition_node.media.sources import (
    FOLDER_RATE_HZ,
    IMAGE_SUFFIXES,
    FrameSource,
    natural_key,
    open_source,
)
from face_recognition_node.vision.faces import Frame, ImageArray

INSIDE = "!"
"""``faces.zip!s1`` is the folder ``s1`` inside the archive; ``faces!s1`` is the folder ``faces/s1``."""


def list_people(root: Path, source: str) -> dict[str, int]:
    """Return the folders with pictures in a zip archive or folder, in natural order, with their counts."""
    counts: dict[str, int] = {}
    for folder, _ in _pictures(root, source):
        counts[folder] = counts.get(folder, 0) + 1
    return counts


def open_sequence(
    root: Path,
    source: str,
    *,
    rate: float | None = None,
    take: Collection[int] = (),
    skip: Collection[int] = (),
) -> FrameSource:
    """Open a recording of a scenario.

    Args:
        root: The folder that the scenario's sources lie in.
        source: A path below it, ``archive.zip!folder``, ``bag!/topic``, or ``"sample"``.
        rate: Frames per second in place of the recording's own.
        take: 1-based numbers of the only pictures to show, for pictures in folders.
        skip: 1-based numbers of the pictures to leave out, for pictures in folders.

    Raises:
        SourceError: If it is not there or cannot be read.
    """
    if INSIDE not in source:
        if take or skip:
            raise SourceError(f"{source}: pictures can be taken or skipped in 'archive.zip!folder' only")
        return open_source("sample" if source == "sample" else str(root / source), rate=rate).from_zero()
    outer, folder = source.split(INSIDE, 1)
    if (root / outer).exists() and is_bag(root / outer):
        return open_source(str(root / outer), rate=rate, topic=folder).from_zero()
    names = [name for place, name in _pictures(root, outer) if place == folder]
    names.sort(key=natural_key)
    wanted = [name for i, name in enumerate(names, 1) if (not take or i in take) and i not in skip]
    if not wanted:
        raise SourceError(f"{source}: no pictures there; is the data below {root} complete?")
    rate_hz = rate or FOLDER_RATE_HZ

    def frames() -> Iterator[Frame]:
        for index, image in enumerate(_read(root / outer, wanted)):
            yield Frame(image, index / rate_hz)

    return FrameSource(source, rate_hz, len(wanted), False, frames)


def _pictures(root: Path, source: str) -> list[tuple[str, str]]:
    """Return (folder, path inside the source) of all pictures that lie in a folder, in natural order."""
    path = root / source
    if path.is_dir():
        found = [str(entry.relative_to(path)) for entry in path.glob("*/*") if entry.is_file()]
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            found = archive.namelist()
    else:
        raise SourceError(f"{path}: expected a zip archive or a folder of folders; is the data root right?")
    pictures = [name for name in found if Path(name).suffix.lower() in IMAGE_SUFFIXES and "/" in name]
    return [(str(Path(name).parent), name) for name in sorted(pictures, key=natural_key)]


def _read(outer: Path, names: list[str]) -> Iterator[ImageArray]:
    if outer.is_dir():
        for name in names:
            yield read_image(outer / name)
        return
    with zipfile.ZipFile(outer) as archive:
        for name in names:
            image = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR)
            if image is None:
                raise SourceError(
                    f"{outer}{INSIDE}{name}: expected an image, got bytes that OpenCV cannot decode"
                )
            yield image.astype(np.uint8, copy=False)

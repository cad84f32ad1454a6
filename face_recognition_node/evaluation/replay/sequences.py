"""Recordings of a scenario: clips below a data root, folders of pictures, folders inside a zip archive."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from face_recognition_node.common.errors import SourceError
from face_recognition_node.evaluation.picture_archive import open_files
from face_recognition_node.media.bags import is_bag
from face_recognition_node.media.images import image_from
from face_recognition_node.media.sources import (
    FOLDER_RATE_HZ,
    IMAGE_SUFFIXES,
    FrameSource,
    natural_key,
    open_source,
)
from face_recognition_node.vision.faces import Frame

INSIDE = "!"  # `faces.zip!s1` is the folder `s1` inside the archive; `faces!s1` is the folder `faces/s1`


def list_people(path: Path) -> dict[str, list[str]]:
    """Return the pictures of each folder in a zip or folder (else SourceError), both in natural order."""
    people: dict[str, list[str]] = {}
    for name in sorted(open_files(path)[0], key=natural_key):
        place = PurePosixPath(name)
        if place.suffix.lower() in IMAGE_SUFFIXES and len(place.parts) > 1:
            people.setdefault(str(place.parent), []).append(name)
    return people


def open_sequence(
    root: Path,
    source: str,
    *,
    rate: float | None = None,
    take: Collection[int] = (),
    skip: Collection[int] = (),
) -> FrameSource:
    """Open a recording: a path below ``root``, ``archive.zip!folder``, ``bag!/topic`` or ``"sample"``.

    The rate, frames per second, replaces the recording's own. Of pictures in folders, ``take`` and ``skip``
    are the 1-based numbers of the only ones to show and of those to leave out.

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
    pictures = enumerate(list_people(root / outer).get(folder, []), 1)
    wanted = [name for number, name in pictures if (not take or number in take) and number not in skip]
    if not wanted:
        raise SourceError(f"{source}: no pictures there; is the data below {root} complete?")
    rate_hz = rate or FOLDER_RATE_HZ

    def frames() -> Iterator[Frame]:
        _, read = open_files(root / outer)
        for index, name in enumerate(wanted):
            yield Frame(image_from(read(name), f"{outer}{INSIDE}{name}"), index / rate_hz)

    return FrameSource(source, rate_hz, len(wanted), False, frames)

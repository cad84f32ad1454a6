"""Pictures of people from a zip or a folder, such as Labeled Faces in the Wild with its ``pairs.txt``."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import SourceError
from face_recognition_node.common.progress import progress_bar
from face_recognition_node.media.images import image_from
from face_recognition_node.vision.detector import Embedder
from face_recognition_node.vision.faces import FloatArray, ImageArray

IMAGE_ENDINGS = (".webp", ".jpg", ".png")


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPairs:
    """The pairs of a verification protocol, by number of picture."""

    first: NDArray[np.intp]  # (P,) numbers of the first pictures; `second` of the others
    second: NDArray[np.intp]
    is_same: NDArray[np.bool_]  # (P,) whether both show the same person
    fold: NDArray[np.intp]  # (P,) fold of each pair, from 0
    # (P,) name of the first picture's person; pairs of one person are not independent
    person: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.is_same)


@dataclass(frozen=True, slots=True, eq=False)
class LfwArchive:
    """Aligned pictures of people and the official pairs."""

    names: tuple[str, ...]  # `NAME/NAME_0001` of each picture
    pairs: LabelledPairs  # the protocol
    read: Callable[[int], ImageArray]  # returns picture number n as (H, W, 3) BGR uint8

    @property
    def people(self) -> tuple[str, ...]:
        """The person on each picture."""
        return tuple(PurePosixPath(name).parent.name for name in self.names)

    @classmethod
    def open(cls, path: Path) -> LfwArchive:
        """Open a zip or folder with ``pairs.txt`` and its ``NAME/NAME_0001.webp``, or raise SourceError."""
        files, read_bytes = open_files(path)
        protocol = [file for file in files if PurePosixPath(file).name == "pairs.txt"]
        if not protocol:
            raise SourceError(f"{path}: expected the official pairs.txt in it, found none")
        pictures = sorted(file for file in files if file.lower().endswith(IMAGE_ENDINGS))
        names = tuple("/".join(PurePosixPath(file).with_suffix("").parts[-2:]) for file in pictures)
        pairs = parse_pairs(read_bytes(protocol[0]).decode("utf-8"), names)
        return cls(names, pairs, lambda number: image_from(read_bytes(pictures[number]), pictures[number]))


def open_files(path: Path) -> tuple[list[str], Callable[[str], bytes]]:
    """Return the names of all files in a zip or folder (else SourceError), and a function that reads one."""
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        return names, lambda name: (path / name).read_bytes()
    if not zipfile.is_zipfile(path):
        got = "another or a damaged file" if path.exists() else "nothing there"
        raise SourceError(f"{path}: expected a zip file or a folder, got {got}")
    archive = zipfile.ZipFile(path)
    return [item.filename for item in archive.infolist() if not item.is_dir()], archive.read


def parse_pairs(text: str, names: tuple[str, ...]) -> LabelledPairs:
    """Parse LFW's ``pairs.txt`` (Huang et al. 2007); ``names`` are ``NAME/NAME_0001`` of all pictures.

    The first line has the number of folds and of pairs of each kind in a fold; then come, fold by fold, the
    same pairs (``NAME n m``) and the different pairs (``NAME n OTHER m``).

    Raises:
        SourceError: For a line of another form, a count that does not fit, or a picture that does not exist.
    """
    numbers = {name: number for number, name in enumerate(names)}
    lines = [line.split("\t") for line in text.splitlines() if line.strip()]
    try:
        folds, per_kind = (int(field) for field in lines[0])
    except (IndexError, ValueError) as error:
        raise SourceError("pairs.txt: expected 'FOLDS<tab>PAIRS' in its first line") from error
    rows = lines[1:]
    if len(rows) != 2 * folds * per_kind:
        raise SourceError(f"pairs.txt: expected {2 * folds * per_kind} pairs, got {len(rows)}")

    def number(person: str, index: str) -> int:
        name = f"{person}/{person}_{int(index):04d}"
        if name not in numbers:
            raise SourceError(f"pairs.txt: names the picture {name}, which is not there")
        return numbers[name]

    first, second = [], []
    for row in rows:
        if len(row) not in (3, 4):
            raise SourceError(f"pairs.txt: expected 3 or 4 fields, got {row}")
        first.append(number(row[0], row[1]))
        second.append(number(row[0] if len(row) == 3 else row[2], row[-1]))
    return LabelledPairs(
        np.array(first, np.intp),
        np.array(second, np.intp),
        np.array([len(row) == 3 for row in rows], bool),
        np.arange(len(rows), dtype=np.intp) // (2 * per_kind),
        tuple(row[0] for row in rows),
    )


BATCH = 16


def embed_in_batches(
    embedder: Embedder,
    read: Callable[[int], ImageArray],
    count: int,
    title: str = "embedding",
    shown: bool | None = None,
) -> FloatArray:
    """Return (count, D) embeddings of (112, 112, 3) BGR uint8 crops, read by number, with a progress bar."""
    embeddings = np.empty((count, embedder.dimension), np.float32)
    with progress_bar(total=count, unit="face", title=title, shown=shown) as bar:
        for start in range(0, count, BATCH):
            batch = np.stack([read(number) for number in range(start, min(start + BATCH, count))])
            embeddings[start : start + len(batch)] = embedder.embed(batch)
            bar.update(len(batch))
    return embeddings

"""Whether anything of what was removed is still in a file, at whatever position."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WORD = 8
CHUNK_BYTES = 2**24
MOST_TEXTS = 200
"""To rewrite a file is quicker than to look for more texts than these."""


def has_residue(paths: Iterable[Path], removed: Sequence[bytes | str]) -> bool:
    """Return whether any file holds a piece of removed bytes, or a removed text, at whatever position.

    A file is read once, as aligned words of eight bytes: whatever its position, a copy of 15 bytes or more
    covers one of them. The words looked for are those at the start, in the middle and near the end of each
    removed item, because a copy may be cut at either side.
    """
    existing = [path for path in paths if path.exists()]
    texts = {form for item in removed if isinstance(item, str) and item for form in _text_forms(item)}
    if len(texts) > MOST_TEXTS or any(_file_has_text(path, texts) for path in existing if texts):
        return True
    words = _words([item for item in removed if isinstance(item, bytes)])
    if len(words) == 0:
        return False
    is_ending = np.zeros(2**16, bool)
    is_ending[(words >> np.uint64(48)).astype(np.int64)] = True
    return any(_file_has(path, words, is_ending) for path in existing)


def _text_forms(text: str) -> Iterator[bytes]:
    """Yield the bytes to look for: a text as columns and the list of changes hold it, whole or cut in two."""
    for form in {text.encode(), json.dumps(text)[1:-1].encode()}:
        yield form
        if len(form) >= 12 and not text.startswith("stranger-"):  # half of which is everywhere
            yield form[: len(form) // 2]
            yield form[len(form) // 2 :]


def _file_has_text(path: Path, texts: Iterable[bytes]) -> bool:
    with path.open("rb") as file:
        if not path.stat().st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return any(content.find(text) >= 0 for text in texts)


def _words(removed: Sequence[bytes]) -> NDArray[np.uint64]:
    """Return the words of eight bytes to look for: eight phases at three places of each item."""
    found: set[bytes] = set()
    for item in removed:
        last = len(item) - 2 * WORD
        for place in {0, max(0, last // 2), max(0, last)}:
            pieces = (item[place + phase : place + phase + WORD] for phase in range(WORD))
            # Zeros are everywhere in a file, and no trace of anybody.
            found.update(piece for piece in pieces if len(piece) == WORD and piece.count(0) <= 2)
    return np.sort(np.frombuffer(b"".join(found), "<u8"))


def _file_has(path: Path, words: NDArray[np.uint64], is_ending: NDArray[np.bool_]) -> bool:
    with path.open("rb") as file:
        while content := file.read(CHUNK_BYTES):
            here = np.frombuffer(content[: len(content) // WORD * WORD], "<u8")
            endings = here.view("<u2")[WORD // 2 - 1 :: WORD // 2]
            likely = here[is_ending[endings]]
            at = np.minimum(np.searchsorted(words, likely), len(words) - 1)
            if (words[at] == likely).any():
                return True
    return False

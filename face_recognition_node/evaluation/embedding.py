"""Embed many pictures in batches: the one loop of the evaluations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from face_recognition_node.common.progress import progress_bar
from face_recognition_node.vision.embedder import Embedder
from face_recognition_node.vision.faces import FloatArray, ImageArray

BATCH = 16


def embed_in_batches(
    embedder: Embedder,
    read: Callable[[int], ImageArray],
    count: int,
    title: str = "embedding",
    shown: bool | None = None,
) -> FloatArray:
    """Return (count, D) embeddings of crops 0 … count - 1, with a progress bar.

    Args:
        embedder: Turns crops into unit vectors.
        read: Returns crop n as (112, 112, 3) BGR uint8.
        count: Number of crops.
        title: Of the progress bar.
        shown: Whether the bar is drawn; None: on a terminal only.
    """
    embeddings = np.empty((count, embedder.dimension), np.float32)
    with progress_bar(total=count, unit="face", title=title, shown=shown) as bar:
        for start in range(0, count, BATCH):
            batch = np.stack([read(number) for number in range(start, min(start + BATCH, count))])
            embeddings[start : start + len(batch)] = embedder.embed(batch)
            bar.update(len(batch))
    return embeddings

"""A tiny archive of made-up faces, so that training is tested where no data set is."""

import csv
from pathlib import Path

import cv2
import numpy as np


def write_archive(
    folder: Path, people: int | list[int] = 12, images: int = 4, unlabelled: int = 6, teacher: bool = True
) -> Path:
    """Write ``people`` × ``images`` labelled and some unlabelled noise faces; a person's faces are alike."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    rows, vectors, blobs = [], [], []
    numbers = range(people) if isinstance(people, int) else people
    for label in [person for person in numbers for _ in range(images)] + [None] * unlabelled:
        base = np.random.default_rng(label if label is not None else len(rows) + 1000)
        small = base.integers(0, 255, (7, 7, 3)).astype(np.float32)
        face = cv2.resize(small, (112, 112)) + random.normal(0, 8, (112, 112, 3))
        _, blob = cv2.imencode(".png", np.clip(face, 0, 255).astype(np.uint8))
        blobs.append(blob.tobytes())
        rows.append({"bytes": len(blob), "identity": "" if label is None else label, "source": "made"})
        vectors.append(base.normal(0, 40, 16).clip(-127, 127))
    with open(folder / "train_faces.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, ["bytes", "identity", "source"])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "train_faces.bin").write_bytes(b"".join(blobs))
    if teacher:
        np.save(folder / "train_teacher.npy", np.array(vectors).astype(np.int8))
    return folder

"""What is it worth to have been trained on somebody? For docs/notes/training.md; needs the `train` extra.

    ./run exec python tools/measure_memory.py WEIGHTS.safetensors … --data ../shared/data

Weights that have seen the archive's test people find them better than weights that have not, which says
nothing about strangers. This comparison is even: people whom all have been trained on (every tenth of the
training part), enrolled and searched just as ``face-recognition evaluate identification`` does with the test
people. The teacher's embeddings are judged beside them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from face_recognition_node.evaluation.degradation import reduce_face
from face_recognition_node.evaluation.face_archive import (
    FaceArchive,
    LabelArray,
    merge_doubles,
    split_identities,
)
from face_recognition_node.evaluation.identification import open_set_identification
from face_recognition_node.networks.loading import read_checkpoint
from face_recognition_node.training.stage import normalise_images
from face_recognition_node.vision.faces import FloatArray

REMAINDER, FAR_PX = 4, 24


def main() -> None:
    """Print a line for the teacher, and two for each weights file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="DIR")
    parser.add_argument("--enrolled", type=int, default=150, metavar="N")
    parser.add_argument("--shots", type=int, default=3, metavar="N")
    arguments = parser.parse_args()
    archive = FaceArchive.open(arguments.data)
    if archive.teacher is None:
        raise SystemExit(f"{arguments.data}: expected train_teacher.npy, by which doubles are found")
    trained = split_identities(archive.labels, archive.teacher).training
    chosen = trained[(archive.labels[trained] >= 0) & (archive.labels[trained] % 10 == REMAINDER)]
    people = merge_doubles(archive.labels[chosen], archive.sources[chosen], archive.teacher[chosen])
    print(f"{len(chosen)} faces of {len(np.unique(people))} people in training", flush=True)

    def judge(name: str, faces: FloatArray, probes: FloatArray | None = None) -> None:
        found = open_set_identification(faces, people, arguments.enrolled, arguments.shots, probes=probes)
        print(f"{name}: {found}", flush=True)

    judge("teacher", archive.teacher[chosen])
    for path in arguments.weights:
        network = read_checkpoint(path)
        whole = embed(network, archive, chosen, 112)
        judge(str(path), whole)
        judge(f"{path}, probes of {FAR_PX} px", whole, embed(network, archive, chosen, FAR_PX))


def embed(network: torch.nn.Module, archive: FaceArchive, chosen: LabelArray, side: int) -> FloatArray:
    """Return (N, D) unit vectors of the chosen faces, reduced to ``side`` pixels."""
    parts = []
    network.eval()
    for numbers in np.array_split(chosen, -(-len(chosen) // 64)):
        crops = np.stack([reduce_face(archive.crop(int(number)), side) for number in numbers])
        images = torch.from_numpy(crops[..., ::-1].transpose(0, 3, 1, 2).copy())
        with torch.inference_mode():
            unit = functional.normalize(network(normalise_images(images)), dim=1)
        parts.append(np.asarray(unit, np.float32))
    return np.concatenate(parts)


if __name__ == "__main__":
    main()

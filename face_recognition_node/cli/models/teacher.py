"""``face-recognition teacher FACES MODEL``: what a teacher says of each face, to distil from."""

from __future__ import annotations

import argparse

from face_recognition_node.cli.options import given_path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("faces", type=given_path, help="folder of an archive or of prepared faces")
    add("model", type=given_path, help="ONNX: (N, 3, 112, 112) RGB 0…255 → (N, D)")
    add("--out", type=given_path, help="folder for train_teacher.npy (FACES)")
    add("--threads", type=int, default=1, help="CPU threads")
    add(
        "--precision", choices=["auto", "fp32"], default="auto",
        help="auto: bfloat16 if the CPU supports it",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Compute, going on where an earlier call was cut off."""
    from face_recognition_node.training.data import open_faces
    from face_recognition_node.training.teacher import compute_teacher

    out = arguments.out or arguments.faces
    faces = open_faces(arguments.faces, with_teacher=False)
    compute_teacher(faces, arguments.model, out, arguments.threads, arguments.precision)
    print(f"teacher's vectors: {out}")
    return 0

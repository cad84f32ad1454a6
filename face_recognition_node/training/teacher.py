"""Compute once what a teacher network says of every training face."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import BackendUnavailableError, ModelMismatchError, ModelMissingError
from face_recognition_node.common.files import file_sha256, write_json
from face_recognition_node.common.progress import progress_bar
from face_recognition_node.evaluation.face_archive import TEACHER_STATE
from face_recognition_node.training.data import FaceSet
from face_recognition_node.vision.faces import FloatArray, ImageArray

Answers = tuple[FloatArray, FloatArray | None]
"""(N, D) embeddings and, if the teacher has them, (N, C, H, W) maps."""
EMBEDDINGS, MAPS, STATE = "train_teacher.npy", "teacher_maps.npy", TEACHER_STATE
_BATCH = 32
_BATCHES_PER_SAVE = 20


def compute_teacher(
    faces: FaceSet,
    model: Path,
    out: Path,
    threads: int = 1,
    precision: Literal["auto", "fp32"] = "auto",
) -> None:
    """Run ``model`` over all faces and their mirror images; goes on where an earlier call was cut off.

    Writes ``train_teacher.npy`` (N, D) int8, the mean embedding of a face and its mirror image, and, if the
    model has an output with four axes, ``teacher_maps.npy`` (N, 2, C, H, W) int8, the map of the face and of
    its mirror image; each row is scaled to its own largest value, since only directions are learned from.

    Args:
        faces: What to run it on.
        model: ONNX; input (N, 3, 112, 112) RGB in 0 … 255 as float; of its outputs the first with two axes
            is the embedding (N, D), the first with four the map (N, C, H, W), others are ignored.
        out: Folder for the files.
        threads: CPU threads.
        precision: ``auto`` is bfloat16 where the processor multiplies in it (OpenVINO).

    Raises:
        ModelMissingError: If there is no such model.
        ModelMismatchError: If its outputs have another shape, or the folder holds another teacher's files.
    """
    ask = open_teacher(model, threads, precision)
    first_embedding, first_map = ask(np.zeros((1, 112, 112, 3), np.uint8))
    count = len(faces.labels)
    out.mkdir(parents=True, exist_ok=True)
    shapes: dict[str, tuple[int, ...]] = {EMBEDDINGS: (count, first_embedding.shape[1])}
    if first_map is not None:
        shapes[MAPS] = (count, 2, *first_map.shape[1:])
    state = {"model": file_sha256(model), "faces": count}
    done = _done(out, state, shapes)
    if done == 0:
        _save([], out, {**state, "done": 0})
    tables = {name: _table(out / name, shape, done) for name, shape in shapes.items()}
    embeddings, maps = tables[EMBEDDINGS], tables.get(MAPS)
    with progress_bar(total=count, initial=done, unit="face", title="teacher", shown=True) as bar:
        for number, start in enumerate(range(done, count, _BATCH), 1):
            rows = slice(start, min(start + _BATCH, count))
            crops = np.stack([faces.crop(index) for index in range(rows.start, rows.stop)])
            plain, plain_map = ask(crops)
            mirrored, mirrored_map = ask(crops[:, :, ::-1])
            embeddings[rows] = to_int8(_unit(plain) + _unit(mirrored))
            if maps is not None and plain_map is not None and mirrored_map is not None:
                maps[rows, 0], maps[rows, 1] = to_int8(plain_map), to_int8(mirrored_map)
            bar.update(rows.stop - rows.start)
            if number % _BATCHES_PER_SAVE == 0 or rows.stop == count:
                _save(list(tables.values()), out, {**state, "done": rows.stop})


def to_int8(values: NDArray[np.floating]) -> NDArray[np.int8]:
    """Return (N, …) as int8, each row scaled so that its largest absolute value becomes 127."""
    axes = tuple(range(1, values.ndim))
    largest = np.maximum(np.abs(values).max(axis=axes, keepdims=True), 1e-12)
    return np.asarray(np.round(values * (127 / largest)), np.int8)


def open_teacher(model: Path, threads: int, precision: str) -> Callable[[ImageArray], Answers]:
    """Return what asks the teacher about (N, 112, 112, 3) BGR crops; OpenVINO runs it."""
    if not model.is_file():
        raise ModelMissingError(f"{model}: no such teacher; expected an ONNX file")
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailableError("a teacher needs OpenVINO; pip install openvino") from error
    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if precision == "fp32":
        options["INFERENCE_PRECISION_HINT"] = "f32"
    try:
        compiled = openvino.Core().compile_model(str(model), "CPU", options)
    except RuntimeError as error:
        raise ModelMismatchError(f"{model}: expected a teacher as an ONNX file: {error}") from error
    request = compiled.create_infer_request()

    def ask(crops_bgr: ImageArray) -> Answers:
        request.infer({0: np.ascontiguousarray(crops_bgr[..., ::-1].transpose(0, 3, 1, 2), np.float32)})
        outputs = [np.array(output.data, np.float32) for output in request.output_tensors]
        embeddings = next((one for one in outputs if one.ndim == 2), None)
        if embeddings is None:
            raise ModelMismatchError(
                f"{model}: expected an output (N, D), got {[one.shape for one in outputs]}"
            )
        return embeddings, next((one for one in outputs if one.ndim == 4), None)

    return ask


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)


def _done(out: Path, state: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> int:
    """Return how many faces an earlier call with the same teacher and faces has finished.

    Raises:
        ModelMismatchError: If the files there are another teacher's, or nobody knows whose.
    """
    present = [name for name in shapes if (out / name).is_file()]
    stored: dict[str, Any] = {}
    if (out / STATE).is_file():
        stored = json.loads((out / STATE).read_text(encoding="utf-8"))
    elif not present:
        return 0
    if {name: stored.get(name) for name in state} != state:
        raise ModelMismatchError(
            f"{out}: expected no files, or those of this teacher and these faces; "
            f"{', '.join(present) or STATE} there belongs to something else: name another folder with --out"
        )
    if present != list(shapes):
        return 0
    whole = all(np.load(out / name, mmap_mode="r").shape == shape for name, shape in shapes.items())
    return int(stored["done"]) if whole else 0


def _table(path: Path, shape: tuple[int, ...], done: int) -> Any:
    mode: Any = "r+" if done else "w+"
    return np.lib.format.open_memmap(path, mode=mode, dtype=np.int8, shape=shape)


def _save(tables: list[Any], out: Path, state: dict[str, Any]) -> None:
    for table in tables:
        table.flush()
    write_json(out / STATE, state)

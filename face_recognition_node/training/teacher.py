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

EMBEDDINGS, STATE = "train_teacher.npy", TEACHER_STATE
_BATCH = 32
_BATCHES_PER_SAVE = 20


def compute_teacher(
    faces: FaceSet, model: Path, out: Path, threads: int = 1, precision: Literal["auto", "fp32"] = "auto"
) -> None:
    """Run ``model`` over all faces and their mirror images; goes on where an earlier call was cut off.

    Writes ``train_teacher.npy`` (N, D) int8, the mean embedding of a face and its mirror image; each row is
    scaled to its own largest value, since only directions are learned from. The model is ONNX with the input
    (N, 3, 112, 112), RGB in 0 … 255 as float; of its outputs the first with two axes is the embedding (N, D).
    The precision ``auto`` is bfloat16 where the processor multiplies in it (OpenVINO).

    Raises:
        ModelMissingError: If there is no such model.
        ModelMismatchError: If its outputs have another shape, or the folder holds another teacher's files.
    """
    ask = open_teacher(model, threads, precision)
    shape = (len(faces.labels), ask(np.zeros((1, 112, 112, 3), np.uint8)).shape[1])
    out.mkdir(parents=True, exist_ok=True)
    state = {"model": file_sha256(model), "faces": len(faces.labels)}
    done = _done(out, state, shape)
    if done == 0:
        write_json(out / STATE, {**state, "done": 0})
    mode: Literal["r+", "w+"] = "r+" if done else "w+"
    table = np.lib.format.open_memmap(out / EMBEDDINGS, mode=mode, dtype=np.int8, shape=shape)
    with progress_bar(total=len(table), initial=done, unit="face", title="teacher", shown=True) as bar:
        for number, start in enumerate(range(done, len(table), _BATCH), 1):
            rows = slice(start, min(start + _BATCH, len(table)))
            crops = np.stack([faces.crop(index) for index in range(rows.start, rows.stop)])
            table[rows] = to_int8(_unit(ask(crops)) + _unit(ask(crops[:, :, ::-1])))
            bar.update(rows.stop - rows.start)
            if number % _BATCHES_PER_SAVE == 0 or rows.stop == len(table):
                _save(table, out, {**state, "done": rows.stop})


def to_int8(values: NDArray[np.floating]) -> NDArray[np.int8]:
    """Return (N, D) as int8, each row scaled so that its largest absolute value becomes 127."""
    largest = np.maximum(np.abs(values).max(axis=1, keepdims=True), 1e-12)
    return np.asarray(np.round(values * (127 / largest)), np.int8)


def open_teacher(model: Path, threads: int, precision: str) -> Callable[[ImageArray], FloatArray]:
    """Return what gives the teacher's (N, D) embeddings of (N, 112, 112, 3) BGR crops; OpenVINO runs it."""
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

    def ask(crops_bgr: ImageArray) -> FloatArray:
        request.infer({0: np.ascontiguousarray(crops_bgr[..., ::-1].transpose(0, 3, 1, 2), np.float32)})
        outputs = [np.array(output.data, np.float32) for output in request.output_tensors]
        embeddings = next((one for one in outputs if one.ndim == 2), None)
        if embeddings is None:
            raise ModelMismatchError(
                f"{model}: expected an output (N, D), got {[one.shape for one in outputs]}"
            )
        return embeddings

    return ask


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)


def _done(out: Path, state: dict[str, Any], shape: tuple[int, int]) -> int:
    """Return how many faces an earlier call with the same teacher and faces has finished.

    Raises:
        ModelMismatchError: If the files there are another teacher's, or nobody knows whose.
    """
    is_there = (out / EMBEDDINGS).is_file()
    stored: dict[str, Any] = {}
    if (out / STATE).is_file():
        stored = json.loads((out / STATE).read_text(encoding="utf-8"))
    elif not is_there:
        return 0
    if {name: stored.get(name) for name in state} != state:
        raise ModelMismatchError(
            f"{out}: expected no files, or those of this teacher and these faces; "
            f"{EMBEDDINGS if is_there else STATE} there belongs to something else: name another folder with "
            "--out"
        )
    is_whole = is_there and np.load(out / EMBEDDINGS, mmap_mode="r").shape == shape
    return int(stored["done"]) if is_whole else 0


def _save(table: np.memmap[Any, np.dtype[np.int8]], out: Path, state: dict[str, Any]) -> None:
    table.flush()
    write_json(out / STATE, state)

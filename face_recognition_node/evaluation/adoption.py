"""Find out what an unknown face embedder takes: try the usual conventions, keep what tells people apart.

Face networks differ in channel order, in what is subtracted from a pixel and what it is divided by, and few
files say it. A wrong convention still gives vectors, only worse ones. So each candidate embeds the same pairs
of labelled faces, and the one with the largest decidability index (Daugman 2000, eq. 3) is kept:
the distance of the two kinds' means in standard deviations. The area under the ROC curve saturates: a strong
network with its channels exchanged still reaches 0.999 of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from face_recognition_node.backends.openvino_runner import import_openvino
from face_recognition_node.common.errors import ModelMismatchError, ModelMissingError
from face_recognition_node.evaluation.picture_archive import LfwArchive
from face_recognition_node.evaluation.verification import BoolArray
from face_recognition_node.vision.faces import FloatArray, ImageArray
from face_recognition_node.vision.model_card import ModelInput

USUAL_CHANNELS = ("RGB", "BGR")
USUAL_MEAN_AND_SCALE = (
    ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),  # ArcFace, CosFace, FaceNet: [-1, 1]
    ((127.5, 127.5, 127.5), (128.0, 128.0, 128.0)),  # the first MXNet and MobileFaceNet files
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # the file normalizes by itself
    ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),  # [0, 1]
    ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),  # ImageNet's, in RGB order
)
# decidability below which nothing separates people: a strong network reaches 5 and more, noise 0
LEAST_DECIDABILITY = 2.5


@dataclass(frozen=True, slots=True)
class EmbedderFile:
    """What an ONNX file says of itself: input size (height, width) and layout, output with the embeddings."""

    size: tuple[int, int]
    layout: str
    output: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Trial:
    """One convention and how well it separates: its decidability index, 0 for chance."""

    input: ModelInput
    decidability: float

    def __str__(self) -> str:
        mean, scale = (sorted(set(values)) for values in (self.input.mean, self.input.scale))
        parts = ["/".join(f"{value:g}" for value in values) for values in (mean, scale)]
        return f"{self.input.channels}, minus {parts[0]}, divided by {parts[1]}: d' {self.decidability:.2f}"


def inspect_embedder(path: Path, output: str = "") -> EmbedderFile:
    """Read an ONNX file's shapes; ``output`` names that with the embeddings, empty: the only (B, D) one.

    Raises:
        ModelMissingError: If there is no such file.
        ModelMismatchError: If it is no ONNX file, takes no face, or gives no embedding or several.
    """
    if not path.is_file():
        raise ModelMissingError(f"{path}: no such file; expected a face embedder as .onnx")
    try:
        model = import_openvino().Core().read_model(path)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise ModelMismatchError(
            f"{path}: expected a face embedder in ONNX, cannot read it: {reason}"
        ) from error
    if len(model.inputs) != 1:
        raise ModelMismatchError(f"{path}: expected one input (a batch of faces), got {len(model.inputs)}")
    shape = [side.get_length() if side.is_static else 0 for side in model.inputs[0].get_partial_shape()]
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise ModelMismatchError(f"{path}: expected an input (B, 3, H, W) or (B, H, W, 3), got {shape}")
    layout = "NCHW" if shape[1] == 3 else "NHWC"
    height, width = shape[2:] if layout == "NCHW" else shape[1:3]
    found = {}
    for port in model.outputs:
        sides = list(port.get_partial_shape())
        if len(sides) == 2 and sides[1].is_static and (not output or output in port.get_names()):
            found[port.get_any_name()] = int(sides[1].get_length())
    if len(found) != 1:
        names = ", ".join(sorted(found)) or "none"
        wanted = f"an output {output!r}" if output else "one output"
        raise ModelMismatchError(
            f"{path}: expected {wanted} of shape (B, D), got {names}; name one by --output"
        )
    ((name, dimension),) = found.items()
    return EmbedderFile((height or 112, width or 112), layout, output or name, dimension)


def candidate_inputs(
    file: EmbedderFile, channels: str | None = None, mean: float | None = None, scale: float | None = None
) -> list[ModelInput]:
    """Return the conventions to try; what is given is not tried in other ways."""
    pairs: Iterable[tuple[tuple[float, ...], tuple[float, ...]]] = USUAL_MEAN_AND_SCALE
    if mean is not None or scale is not None:
        pairs = [((mean or 0.0,) * 3, (scale or 1.0,) * 3)]
    candidates = []
    for order in [channels] if channels else USUAL_CHANNELS:
        for means, scales in pairs:
            ordered = (means, scales) if order == "RGB" else (means[::-1], scales[::-1])
            candidates.append(ModelInput(file.size, order, *ordered, layout=file.layout))  # type: ignore[arg-type]
    return candidates


def try_inputs(
    candidates: Sequence[ModelInput],
    embed_with: Callable[[ModelInput, ImageArray], FloatArray],
    archive: LfwArchive,
    pairs: int = 400,
) -> list[Trial]:
    """Return each candidate with its decidability, best first; ``embed_with`` embeds crops under one."""
    same, different = (np.flatnonzero(archive.pairs.is_same == kind) for kind in (True, False))
    half = pairs // 2
    chosen = np.concatenate([part[:: max(1, len(part) // half)][:half] for part in (same, different)])
    first, second = archive.pairs.first[chosen], archive.pairs.second[chosen]
    numbers, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    crops = np.stack([archive.read(int(number)) for number in numbers])
    trials = []
    for candidate in candidates:
        vectors = embed_with(candidate, crops)
        a, b = vectors[places[: len(chosen)]], vectors[places[len(chosen) :]]
        trials.append(
            Trial(candidate, decidability(np.einsum("pd,pd->p", a, b), archive.pairs.is_same[chosen]))
        )
    return sorted(trials, key=lambda trial: -trial.decidability)


def decidability(similarity: FloatArray, is_same: BoolArray) -> float:
    """Return d' of (P,) similarities: how far the two kinds lie apart, in standard deviations."""
    same, different = similarity[is_same], similarity[~is_same]
    spread = np.sqrt((same.var() + different.var()) / 2)
    return float((same.mean() - different.mean()) / max(float(spread), 1e-9))

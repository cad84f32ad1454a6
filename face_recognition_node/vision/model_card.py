"""The model card: what a weights file is, what it eats, what it was measured to do."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.errors import ModelMismatchError, ModelMissingError
from face_recognition_node.common.files import file_sha256, write_text, written_whole

CALIBRATION = ".calibration.npz"  # ending of the file beside a card that holds the tables of its calibration

ADOPTED = "adopted"  # what a card calls the network of an ONNX file that comes from elsewhere


@dataclass(frozen=True, slots=True)
class ModelInput:
    """What a network eats: ``(pixel - mean) / scale`` in this channel order."""

    size: tuple[int, int] | None  # (height, width) in pixels, or None where any multiple of 32 goes
    channels: str  # "RGB" or "BGR"
    mean: tuple[float, float, float]  # one number a channel, in that order
    scale: tuple[float, float, float]  # one number a channel, in that order
    layout: str = "NCHW"  # "NCHW" or "NHWC"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelInput:
        """Read the card's ``input`` block; a lone number stands for all three channels."""
        size = values["size"]
        mean, scale = values["mean"], values["scale"]
        if values["channels"] not in ("RGB", "BGR"):
            raise ValueError(f"channels: expected RGB or BGR, got {values['channels']!r}")
        layout = values.get("layout", "NCHW")
        if layout not in ("NCHW", "NHWC"):
            raise ValueError(f"layout: expected NCHW or NHWC, got {layout!r}")
        return cls(
            None if size is None else (int(size[0]), int(size[1])),
            values["channels"],
            _triple(mean),
            _triple(scale),
            layout,
        )


def _triple(value: Any) -> tuple[float, float, float]:
    first, second, third = value if isinstance(value, (list, tuple)) else (value, value, value)
    return float(first), float(second), float(third)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model card, checked against the files beside it."""

    path: Path  # the card's file; the weights lie beside it as NAME.onnx and NAME.safetensors
    name: str
    network: str  # which network definition the weights fit
    # hexadecimal SHA-256 of NAME.safetensors, or of NAME.onnx where that is all there is: the identity of the
    # weights
    sha256: str
    onnx_sha256: str  # the same of NAME.onnx
    input: ModelInput
    alignment: str = ""  # fingerprint of the warp its faces are aligned by; empty for a detector
    dimension: int = 0  # length of an embedding; 0 for a detector
    output: str = ""  # name of the one output that is wanted; empty: all of them
    # what is said of the tables in :meth:`calibration_tables`: numbers and what was measured; None where
    # nothing was learnt yet
    calibration: Mapping[str, Any] | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | str) -> ModelCard:
        """Read ``NAME.json``, or raise ModelMissingError, or ModelMismatchError if it is not understood."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            others = ", ".join(sorted(other.stem for other in path.parent.glob("*.json"))) or "none"
            raise ModelMissingError(f"{path}: no such model card; models in that folder: {others}") from error
        try:
            values = json.loads(text)
            return cls(
                path=path,
                name=values["name"],
                network=values["network"],
                sha256=values["files"].get("safetensors") or values["files"]["onnx"],
                onnx_sha256=values["files"]["onnx"],
                input=ModelInput.from_dict(values["input"]),
                alignment=values["input"].get("alignment", ""),
                dimension=int(values.get("output", {}).get("dimension", 0)),
                output=str(values.get("output", {}).get("name", "")),
                calibration=values.get("calibration"),
                values=values,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelMismatchError(
                f"{path}: expected a model card, got {type(error).__name__}: {error}"
            ) from error

    @property
    def fingerprint(self) -> str:
        """Names weights and alignment together; embeddings of different fingerprints are never compared."""
        digest = hashlib.sha256(f"{self.sha256}+{self.alignment}".encode()).hexdigest()
        return f"{self.name}-{digest[:16]}"

    def weights(self, kind: str) -> Path:
        """Return a checked file of the model: "onnx", "safetensors", or "calibration.npz".

        Raises:
            ModelMissingError: If the file is not there.
            ModelMismatchError: If it is not the one the card describes.
        """
        file = self.path.with_suffix(f".{kind}")
        expected = self.onnx_sha256 if kind == "onnx" else self.sha256
        if kind == "calibration.npz":
            expected = self.values.get("files", {}).get("calibration", "")
        try:
            got = file_sha256(file)
        except FileNotFoundError as error:
            raise ModelMissingError(f"{file}: no such file, but its card is there; copy both") from error
        if got != expected:
            raise ModelMismatchError(
                f"{file}: expected SHA-256 {expected} (its card), got {got}; "
                "the file is damaged or belongs to another card: copy both from one place"
            )
        return file

    def calibration_tables(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of ``NAME.calibration.npz``, by name; the file is checked as the weights are."""
        with np.load(self.weights("calibration.npz"), allow_pickle=False) as tables:
            return dict(tables)

    def write_calibration(
        self, calibration: Mapping[str, Any], tables: Mapping[str, NDArray[Any]]
    ) -> ModelCard:
        """Write other tables beside the card, then the card, each whole; the fingerprint stays."""
        file = self.path.with_suffix(CALIBRATION)
        with written_whole(file) as draft:
            np.savez_compressed(draft, **tables)  # type: ignore[arg-type]
        files = {**self.values["files"], "calibration": file_sha256(file)}
        write_card(self.path, {**self.values, "files": files, "calibration": dict(calibration)})
        return ModelCard.read(self.path)


def write_card(path: Path, values: Mapping[str, Any]) -> None:
    """Write a card as JSON for people, whole or not at all: a list of numbers stands on one line."""
    text = json.dumps(values, indent=2, ensure_ascii=False)
    text = re.sub(r'\[\n\s+([^\[\]{}"]*?)\n\s+\]', lambda found: f"[{' '.join(found[1].split())}]", text)
    write_text(path, f"{text}\n")

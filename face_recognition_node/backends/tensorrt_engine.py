"""One TensorRT engine on its way: from the cache or the compiler, through the self-test, to service."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from face_recognition_node.backends.tensorrt_compiler import Engine, EngineCompiler, Shapes
from face_recognition_node.vision.faces import FloatArray

LEAST_COSINE = 0.999
"""An engine whose answers are less like the float32 network's than this never serves."""

_ONE_AT_A_TIME = threading.Lock()  # torch cannot export, nor read exported programs, on two threads
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineKey:
    """What an engine depends on; if any part differs it is another engine.

    Attributes:
        model: Name of the model, for people who look into the folder.
        weights: SHA-256 of the weights.
        shapes: Smallest, preferred and largest input shape, (B, 3, H, W) each.
        precision: "fp32" or "fp16".
        platform: GPU, driver and the versions of all libraries that take part.
    """

    model: str
    weights: str
    shapes: Shapes
    precision: str
    platform: str

    @property
    def file_name(self) -> str:
        """Name of the engine's file."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:20]
        _, _, height, width = self.shapes[1]
        return f"{self.model}-{height}x{width}-{self.precision}-{digest}.ep"


class EngineBuild:
    """Makes one engine; :meth:`run` is called once, on a background thread.

    Args:
        key: What the engine depends on.
        network: Returns the float32 network; called only to compile or to compare.
        compiler: Compiles, writes and reads engines.
        folder: Where engines are kept; created when the first one is stored.
        evaluate: Runs an engine or the network on a preprocessed tensor and returns arrays.
        test_inputs: Returns the self-test's tensors: of the smallest, preferred and largest shape.

    Attributes:
        engine: The engine once it has passed its self-test; None again when it has failed.
        finished: Set when it is ready or refused.
    """

    def __init__(
        self,
        key: EngineKey,
        network: Callable[[], Any],
        compiler: EngineCompiler,
        folder: Path,
        evaluate: Callable[[Engine, Any], tuple[FloatArray, ...]],
        test_inputs: Callable[[Shapes], Sequence[Any]],
    ) -> None:
        self.engine: Engine | None = None
        self.finished = threading.Event()
        self._key, self._network, self._compiler = key, network, compiler
        self._path = folder / key.file_name
        self._evaluate, self._test_inputs = evaluate, test_inputs
        self._step("waiting for its turn")

    @property
    def status(self) -> str:
        """How far the engine is, for how long, and what it was refused for."""
        waiting = "" if self.finished.is_set() else f" for {time.monotonic() - self._since:.0f} s"
        return f"{self._state}{waiting}"

    def run(self) -> None:
        """Read or build the engine, test it, and let it serve or refuse it. Never raises."""
        try:
            with _ONE_AT_A_TIME:
                engine = self._read() or self._compile()
            self._step(f"ready: self-test cosine {self._cosine:.5f}")
            self.engine = engine
        except Exception as error:  # TensorRT's own errors have no common base; the fallback serves on
            _log.exception("%s: TensorRT engine refused for %s", self._key.model, self._key.shapes[1])
            self._step(f"refused: {error if isinstance(error, _InexactError) else _named(error)}")
        finally:
            self.finished.set()

    def refuse(self, error: Exception) -> None:
        """Take an engine that failed while it served out of service for this run."""
        self.engine = None
        _log.error("%s: TensorRT engine failed, another backend serves: %s", self._key.model, error)
        self._step(f"refused: failed while it served: {_named(error)}")

    def _read(self) -> Engine | None:
        if not self._path.is_file():
            return None
        self._step("being read from the cache")
        try:
            engine = self._compiler.load(self._path)
        except Exception as error:  # a torn or foreign file: torch has no common base for its errors either
            _log.warning("%s: cannot be read, building it anew: %s", self._path, error)
            self._path.unlink(missing_ok=True)
            return None
        try:
            self._test(engine)
        except _InexactError as error:
            _log.warning("%s: is not what was stored, building it anew: %s", self._path, error)
            self._path.unlink(missing_ok=True)
            return None
        return engine

    def _compile(self) -> Engine:
        self._step("being built")
        engine = self._compiler.compile(self._network(), self._key.shapes, self._key.precision)
        _log.info("%s: TensorRT engine built in %.0f s", self._key.model, time.monotonic() - self._since)
        self._test(engine)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._path.parent, prefix=".building-") as place:
                self._compiler.save(engine, self._key.shapes, Path(place) / "engine.ep")
                os.replace(Path(place) / "engine.ep", self._path)
        except Exception as error:  # torch tells a full disk by exceptions of its own
            _log.warning("the engine cannot be kept for the next start: %s: %s", self._path.parent, error)
        return engine

    def _test(self, engine: Engine) -> None:
        """Compare the engine with the float32 network."""
        self._step("in its self-test")
        network = self._network()
        self._cosine = min(
            least_cosine(self._evaluate(network, tensor), self._evaluate(engine, tensor))
            for tensor in self._test_inputs(self._key.shapes)
        )
        if self._cosine < LEAST_COSINE:
            raise _InexactError(f"self-test cosine {self._cosine:.5f}, expected at least {LEAST_COSINE}")

    def _step(self, state: str) -> None:
        self._state, self._since = state, time.monotonic()


class _InexactError(Exception):
    """The engine's answers are not those of the network."""


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def least_cosine(expected: tuple[FloatArray, ...], got: tuple[FloatArray, ...]) -> float:
    """Return the smallest cosine between the outputs of two networks, over outputs and pictures.

    Outputs of another number or shape, or that are not finite, give -1.
    """
    if len(expected) != len(got):
        return -1.0
    worst = 1.0
    for one, other in zip(expected, got, strict=True):
        if one.shape != other.shape or not np.isfinite(other).all():
            return -1.0
        a, b = (array.reshape(len(array), -1).astype(np.float64) for array in (one, other))
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosines = (a * b).sum(axis=1) / np.maximum(lengths, 1e-30)
        worst = min(worst, float(cosines.min(initial=1.0)))
    return worst

"""One engine on its way: from the cache or the compiler, through the self-test, to service or refusal."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np

from face_recognition_node.backends.engine_cache import EngineCache, EngineKey
from face_recognition_node.backends.tensorrt_compiler import Engine, EngineCompiler, Shape
from face_recognition_node.vision.faces import FloatArray

LEAST_COSINE = 0.999
"""An engine whose answers are less like the float32 network's than this never serves."""

ONE_AT_A_TIME = threading.Lock()
"""Held by whoever builds: torch cannot export, nor read exported programs, on two threads."""

_log = logging.getLogger(__name__)


class EngineStage(str, Enum):
    """How far an engine is."""

    WAITING = "waiting for its turn"
    LOADING = "being read from the cache"
    BUILDING = "being built"
    TESTING = "in its self-test"
    READY = "ready"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """How far an engine is, and why.

    Attributes:
        stage: How far.
        since: Monotonic time of the last step, seconds.
        detail: What it was refused for, or the similarity of its self-test.
    """

    stage: EngineStage
    since: float
    detail: str = ""

    def __str__(self) -> str:
        seconds = (
            "" if self.stage in (EngineStage.READY, EngineStage.REFUSED) else f" for {self._age():.0f} s"
        )
        return f"{self.stage.value}{seconds}{': ' + self.detail if self.detail else ''}"

    def _age(self) -> float:
        return time.monotonic() - self.since


Reference = Callable[[Any], tuple[FloatArray, ...]]
"""Runs the float32 network on the same preprocessed tensor as the engine."""


class EngineBuild:
    """Makes one engine; :meth:`run` is called once, on a thread in the background.

    Args:
        key: What the engine depends on.
        network: Returns the float32 network; asked only when there is something to compile or to compare.
        compiler: Compiles, writes and reads engines.
        cache: Where engines are kept.
        evaluate: Runs an engine or the network on a tensor and gives arrays.
        test_inputs: Returns tensors for the self-test: of the smallest, preferred and largest shape.
    """

    def __init__(
        self,
        key: EngineKey,
        network: Callable[[], Any],
        compiler: EngineCompiler,
        cache: EngineCache,
        evaluate: Callable[[Engine, Any], tuple[FloatArray, ...]],
        test_inputs: Callable[[tuple[Shape, Shape, Shape]], list[Any]],
    ) -> None:
        self._key = key
        self._network = network
        self._compiler = compiler
        self._cache = cache
        self._evaluate = evaluate
        self._test_inputs = test_inputs
        self._status = EngineStatus(EngineStage.WAITING, time.monotonic())
        self._engine: Engine | None = None
        self._done = threading.Event()

    @property
    def status(self) -> EngineStatus:
        """How far the engine is."""
        return self._status

    @property
    def engine(self) -> Engine | None:
        """The engine once it has passed its self-test."""
        return self._engine

    def wait(self, timeout: float | None = None) -> bool:
        """Return whether it is ready or refused by then."""
        return self._done.wait(timeout)

    def run(self) -> None:
        """Read or build the engine, test it, and let it serve or refuse it. Never raises."""
        try:
            with ONE_AT_A_TIME:
                self._make()
        except Exception as error:  # TensorRT's own errors have no common base; the fall-back serves on
            _log.exception("%s: no TensorRT engine for %s", self._key.model, self._key.shapes[1])
            self._step(EngineStage.REFUSED, f"{type(error).__name__}: {error}")
        finally:
            self._done.set()

    def refuse(self, error: Exception) -> None:
        """Let an engine that failed while it served serve no longer in this run."""
        if self._engine is None:
            return
        self._engine = None
        _log.error("%s: TensorRT engine failed, another backend serves: %s", self._key.model, error)
        self._step(EngineStage.REFUSED, f"failed while it served: {type(error).__name__}: {error}")

    def _make(self) -> None:
        if self._restore():
            return
        self._step(EngineStage.BUILDING)
        began = time.monotonic()
        engine = self._compiler.compile(self._network(), self._key.shapes, self._key.precision)
        _log.info("%s: TensorRT engine built in %.0f s", self._key.model, time.monotonic() - began)
        if self._passes(engine):
            self._engine = engine
            self._cache.store(self._key, lambda path: self._compiler.save(engine, self._key.shapes, path))

    def _restore(self) -> bool:
        """Say whether the engine was read from the cache and is as good as when it was built."""
        stored = self._cache.find(self._key)
        if stored is None:
            return False
        self._step(EngineStage.LOADING)
        try:
            engine = self._compiler.load(stored)
        except Exception as error:  # a torn or foreign file: build anew
            _log.warning("%s: cannot be read, building it anew: %s", stored, error)
            self._cache.discard(self._key)
            return False
        if not self._passes(engine):
            self._cache.discard(self._key)
            return False
        self._engine = engine
        return True

    def _passes(self, engine: Engine) -> bool:
        """Compare the engine with the float32 network and say so."""
        self._step(EngineStage.TESTING)
        network = self._network()
        worst = 1.0
        for tensor in self._test_inputs(self._key.shapes):
            expected, got = self._evaluate(network, tensor), self._evaluate(engine, tensor)
            worst = min(worst, least_cosine(expected, got))
        if worst >= LEAST_COSINE:
            self._step(EngineStage.READY, f"self-test cosine {worst:.5f}")
            return True
        detail = f"self-test cosine {worst:.5f}, expected at least {LEAST_COSINE}"
        _log.warning("%s: TensorRT engine refused: %s", self._key.model, detail)
        self._step(EngineStage.REFUSED, detail)
        return False

    def _step(self, stage: EngineStage, detail: str = "") -> None:
        self._status = replace(self._status, stage=stage, since=time.monotonic(), detail=detail)


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

"""TensorRT through Torch-TensorRT, with another backend serving until an engine is ready and proven.

A detector gets an engine for each size of picture that comes again and again, as a camera's does; an embedder
gets one with a dynamic batch. An engine that fails, in its self-test or while it serves, is refused, the
report says why, and the other backend serves on.

See tensorrt_compiler.py for what has and what has not been run.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from face_recognition_node.backends.frame_search import FrameSearch
from face_recognition_node.backends.preprocessing import require_batch
from face_recognition_node.backends.tensorrt_compiler import Engine, EngineCompiler, Shapes
from face_recognition_node.backends.tensorrt_engine import EngineBuild, EngineKey
from face_recognition_node.backends.torch_tensors import TorchPreprocessing, as_arrays, import_torch
from face_recognition_node.common.resources import cache_directory
from face_recognition_node.vision.alignment import align_faces
from face_recognition_node.vision.faces import FloatArray, ImageArray
from face_recognition_node.vision.model_card import ModelCard, ModelsConfig
from face_recognition_node.vision.placement import Placement
from face_recognition_node.vision.retinaface_decoding import Cells
from face_recognition_node.vision.runner import BackendReport, ModelRunner

NAME = "torch_tensorrt"
EMBEDDER_BATCHES = (1, 4, 16)
"""Smallest, preferred and largest batch of an embedder's engine."""
ORDER_AFTER = 5
"""A size of a detector's picture is worth an engine when it comes so many times."""
_KEPT_ENGINES = 4
_COUNTED_SIZES = 64
_log = logging.getLogger(__name__)


class TorchTensorRtRunner:
    """Runs a model with TensorRT as soon as it can, and with ``fallback`` until then.

    Args:
        card: The model's card.
        models: Precision of the engines.
        fallback: Serves while engines are built, and whatever shape has none.
        compiler: Makes engines.
        reason: Why this backend was chosen.
        cache: Folder of engines; by default in the user's cache folder.
        order_after: See ORDER_AFTER.
    """

    def __init__(
        self,
        card: ModelCard,
        models: ModelsConfig,
        fallback: ModelRunner,
        compiler: EngineCompiler,
        reason: str = "",
        cache: Path | None = None,
        order_after: int = ORDER_AFTER,
    ) -> None:
        self._torch = import_torch()
        self._card, self._precision, self._reason = card, models.precision, reason
        self._fallback, self._compiler = fallback, compiler
        self._cache = cache or (cache_directory() or Path(os.devnull)) / "tensorrt"
        self._preprocess = TorchPreprocessing(card, compiler.device)
        self._search = FrameSearch(self._torch, self._preprocess, compiler.device)
        self._network: Any = None
        self._builds: OrderedDict[tuple[int, int], EngineBuild] = OrderedDict()  # longest unused first
        self._seen: Counter[tuple[int, int]] = Counter()
        self._order_after = order_after if card.input.size is None else 1
        self._latest: EngineBuild | None = None
        self._engine_answered: bool | None = None
        if card.input.size is not None:
            self._latest = self._build(*card.input.size)

    @property
    def report(self) -> BackendReport:
        """What answered last, and how far the engine is."""
        build, is_engine = self._latest, self._engine_answered
        if is_engine is None:  # nothing has been asked yet
            is_engine = build is not None and build.engine is not None
        if build is not None and is_engine:
            reason = "; ".join(filter(None, (self._reason, build.status.removeprefix("ready: "))))
            return BackendReport(NAME, self._compiler.device, reason, self._precision)
        serving = self._fallback.report
        state = build.status if build else f"ordered when a size has come {self._order_after} times"
        reason = f"{self._reason}; its engine is {state}; meanwhile {serving.name}".removeprefix("; ")
        return BackendReport(serving.name, serving.device, reason, serving.precision)

    def run(self, images_bgr: ImageArray) -> tuple[FloatArray, ...]:
        """Return the outputs for (B, H, W, 3) BGR uint8 images."""
        require_batch(images_bgr)
        _, height, width, _ = images_bgr.shape
        self._latest = build = self._build(height, width)
        if build is not None and (engine := build.engine) is not None:
            try:
                with self._torch.inference_mode():
                    outputs = self._evaluate(engine, self._preprocess(images_bgr))
            except RuntimeError as error:  # TensorRT's and CUDA's, out of memory among them
                build.refuse(error)
            else:
                self._engine_answered = True
                return outputs
        self._engine_answered = False
        return self._fallback.run(images_bgr)

    def find_cells(
        self, image_bgr: ImageArray, placements: Sequence[Placement], least_logit: float
    ) -> list[Cells] | None:
        """Return a detector's anchors over the threshold; None while a size has no engine."""
        builds = {size: self._builds.get(size) for size in dict.fromkeys(p.canvas for p in placements)}
        engines = {size: None if build is None else build.engine for size, build in builds.items()}
        if None in engines.values():
            return None  # and run(), asked next, orders what is missing
        self._latest = builds[placements[0].canvas]
        for size in builds:
            self._builds.move_to_end(size)
        try:
            cells = self._search.find_cells(
                lambda planes: engines[planes.shape[2], planes.shape[3]](planes),  # type: ignore[misc]
                image_bgr, placements, least_logit,
            )  # fmt: skip
        except RuntimeError as error:
            for build in filter(None, builds.values()):
                build.refuse(error)
            return None
        self._engine_answered = True
        return cells

    def align_faces(self, image_bgr: ImageArray, landmarks_xy: ArrayLike) -> ImageArray:
        """Return aligned faces, from the frame on the GPU where it was searched there."""
        try:
            return self._search.align_faces(image_bgr, landmarks_xy)
        except RuntimeError as error:
            _log.warning("faces are cut on the CPU: %s", error)
            return align_faces(image_bgr, landmarks_xy)

    def wait(self, timeout: float | None = None) -> bool:
        """Return whether every engine asked for so far is ready or refused by then."""
        return all(build.finished.wait(timeout) for build in list(self._builds.values()))

    def _build(self, height: int, width: int) -> EngineBuild | None:
        """Return the engine for a picture, ordering it when it is worth it; None until then."""
        size = (height, width)
        if size not in self._builds:
            self._seen[size] += 1
            if self._seen[size] < self._order_after:
                return None
            self._drop_unused()
            batches = (1, 1, 1) if self._card.input.size is None else EMBEDDER_BATCHES
            smallest, preferred, largest = ((batch, 3, height, width) for batch in batches)
            platform, card = self._compiler.platform, self._card
            key = EngineKey(card.name, card.sha256, (smallest, preferred, largest), self._precision, platform)
            self._builds[size] = build = EngineBuild(
                key, self._reference, self._compiler, self._cache, self._evaluate, self._test_inputs
            )
            threading.Thread(
                target=self._run, args=(build,), name=f"tensorrt-{card.name}", daemon=True
            ).start()
        self._builds.move_to_end(size)
        return self._builds[size]

    def _drop_unused(self) -> None:
        """Make room for one more engine; those that are being built stay."""
        self._seen = Counter(dict(self._seen.most_common(_COUNTED_SIZES)))
        for size, build in list(self._builds.items()):
            if len(self._builds) >= _KEPT_ENGINES and build.finished.is_set():
                del self._builds[size], self._seen[size]

    def _run(self, build: EngineBuild) -> None:
        build.run()
        if all(other.finished.is_set() for other in list(self._builds.values())):
            self._network = None  # frees its memory; another shape reads it again

    def _reference(self) -> Any:
        """Return the float32 network on the engines' device."""
        if self._network is None:
            from face_recognition_node.networks.loading import fold_batch_norm, load_network

            self._network = fold_batch_norm(load_network(self._card)).to(self._compiler.device)
        return self._network

    def _evaluate(self, engine: Engine, tensor: Any) -> tuple[FloatArray, ...]:
        with self._torch.no_grad():
            return as_arrays(engine(tensor))

    def _test_inputs(self, shapes: Shapes) -> list[Any]:
        """Return pictures of broad and fine noise in every shape, always the same."""
        generator = np.random.default_rng(0)
        tensors = []
        for batch, _, height, width in dict.fromkeys(shapes):
            coarse = generator.uniform(0, 255, (batch, -(-height // 16), -(-width // 16), 3))
            broad = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]
            fine = generator.normal(0, 20, (batch, height, width, 3))
            tensors.append(self._preprocess(np.clip(broad + fine, 0, 255).astype(np.uint8)))
        return tensors

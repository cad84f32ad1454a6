"""TensorRT through Torch-TensorRT, with another backend serving until an engine is ready and proven.

A detector gets an engine for each size of picture that comes again and again, as a camera's does; an
embedder gets one with a dynamic batch. An engine comes from the cache or the compiler on a background thread,
is compared with the float32 network, and serves or is refused; one that fails while it serves is refused too.
The report says why, and the other backend serves on.

Written against the documentation of Torch-TensorRT 2.14 and its converter list. **It has never been run on
a GPU by the authors:** there was none. Tested without one: that both networks export with no operator outside
the converter list, and, with a stand-in for the compiler, everything around it.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from face_recognition_node.backends.preprocessing import least_cosine, noise_pictures, require_batch
from face_recognition_node.backends.torch_runner import TorchPreprocessing, as_arrays, import_torch
from face_recognition_node.common.errors import BackendUnavailableError
from face_recognition_node.common.files import written_whole
from face_recognition_node.common.resources import cache_directory
from face_recognition_node.config import ModelsConfig
from face_recognition_node.vision.faces import FloatArray, ImageArray
from face_recognition_node.vision.model_card import ModelCard
from face_recognition_node.vision.runner import BackendReport, ModelRunner

if TYPE_CHECKING:
    import torch

NAME = "torch_tensorrt"
LEAST_COSINE = 0.999  # an engine whose answers are less like the float32 network's than this never serves
EMBEDDER_BATCHES = (1, 4, 16)  # smallest, preferred and largest batch of an embedder's engine
ORDER_AFTER = 5  # a size of a detector's picture is worth an engine when it comes so many times
_KEPT_ENGINES = 4
_COUNTED_SIZES = 64

Shape = tuple[int, int, int, int]
Shapes = tuple[Shape, Shape, Shape]  # smallest, preferred and largest input, (B, 3, H, W) each
# takes the preprocessed (B, 3, H, W) float32 tensor on the GPU, returns the network's outputs there
Engine = Callable[["torch.Tensor"], Any]

_ONE_AT_A_TIME = threading.Lock()  # torch cannot export, nor read exported programs, on two threads
_log = logging.getLogger(__name__)


class TorchTensorRtCompiler:
    """Compiles with ``torch_tensorrt.dynamo``, writes and reads engines; tests use a stand-in.

    Raises:
        BackendUnavailableError: If Torch-TensorRT is not installed or there is no NVIDIA GPU.
    """

    def __init__(self, device: str = "cuda:0") -> None:
        try:
            import torch
            import torch_tensorrt
        except (ImportError, OSError) as error:  # OSError: a library of TensorRT or CUDA is missing
            raise BackendUnavailableError(
                f"torch_tensorrt cannot be imported ({error}): pip install torch-tensorrt, on a machine with "
                "an NVIDIA GPU"
            ) from error
        if not torch.cuda.is_available():
            cure = "check the driver with nvidia-smi"
            raise BackendUnavailableError(f"torch_tensorrt needs an NVIDIA GPU, torch finds none: {cure}")
        names = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        if device not in ("cuda", *names):
            raise BackendUnavailableError(
                f"torch_tensorrt runs on NVIDIA GPUs only: expected models.device to be one of "
                f"{', '.join(names)}, got {device}"
            )
        self._torch, self._torch_tensorrt, self.device = torch, torch_tensorrt, device

    @property
    def platform(self) -> str:
        """Everything of this machine that engines are bound to: GPU, its driver, and the versions."""
        import tensorrt

        torch, gpu = self._torch, self._torch.cuda.get_device_properties(self.device)
        driver = Path("/proc/driver/nvidia/version")
        name = driver.read_text(encoding="utf-8").splitlines()[0] if driver.is_file() else "driver unknown"
        return (
            f"{gpu.name} sm{gpu.major}{gpu.minor}; {name}; cuda {torch.version.cuda}; "
            f"tensorrt {tensorrt.__version__}; torch {torch.__version__}; "
            f"torch_tensorrt {self._torch_tensorrt.__version__}"
        )

    def _input(self, shapes: Shapes) -> Any:
        names = ("min_shape", "opt_shape", "max_shape")
        return self._torch_tensorrt.Input(**dict(zip(names, shapes, strict=True)), dtype=self._torch.float32)

    def compile(self, network: Any, shapes: Shapes, precision: str) -> Engine:
        """Return the engine of a float32 network; every operator must go into it, or this fails."""
        torch, dynamo = self._torch, self._torch_tensorrt.dynamo
        program = export_network(network.to(self.device), shapes, precision, self.device)
        options: dict[str, Any] = {"require_full_compilation": True, "min_block_size": 1}
        if "enabled_precisions" in inspect.signature(dynamo.compile).parameters:
            # before 2.13 TensorRT did not take the graph's number formats as they are
            half = {torch.float16} if precision == "fp16" else set()
            options["enabled_precisions"] = {torch.float32, *half}
        if precision == "fp32":
            options["disable_tf32"] = True  # ten bits of mantissa are not what the self-test compares with
        compiled: Engine = dynamo.compile(
            program, inputs=[self._input(shapes)], device=torch.device(self.device), **options
        )
        return compiled

    def save(self, engine: Engine, shapes: Shapes, path: Path) -> None:
        """Write an engine that this object compiled as an exported program."""
        self._torch_tensorrt.save(engine, str(path), arg_inputs=[self._input(shapes)], retrace=False)

    def load(self, path: Path) -> Engine:
        """Read an engine that was saved on this platform."""
        loaded: Engine = self._torch.export.load(str(path)).module()
        return loaded


def export_network(
    network: Any, shapes: Shapes, precision: str, device: str = "cpu"
) -> torch.export.ExportedProgram:
    """Return ``network`` as an exported program that takes and gives float32.

    In fp16 the casts are part of the graph, so preprocessing and decoding stay the same. A batch from 1 to
    more is dynamic; height and width are those of the preferred shape.
    """
    import torch

    from face_recognition_node.networks.loading import HalfPrecision

    smallest, preferred, largest = shapes
    module = HalfPrecision(network) if precision == "fp16" else network
    example = torch.zeros(preferred, device=device)
    dynamic = None
    if largest[0] > smallest[0]:
        dynamic = ({0: torch.export.Dim("batch", min=smallest[0], max=largest[0])},)
    return torch.export.export(module.eval(), (example,), dynamic_shapes=dynamic)


def engine_file_name(model: str, weights: str, shapes: Shapes, precision: str, platform: str) -> str:
    """Return the name of an engine's file: another one if anything that the engine depends on differs."""
    parts = json.dumps([model, weights, shapes, precision, platform]).encode()
    _, _, height, width = shapes[1]
    return f"{model}-{height}x{width}-{precision}-{hashlib.sha256(parts).hexdigest()[:20]}.ep"


class _Engine:
    """One engine on its way; ``ready`` once it has passed its self-test, None again when it has failed."""

    def __init__(self, shapes: Shapes) -> None:
        self.ready: Engine | None = None
        self.finished = threading.Event()
        self.shapes = shapes
        self.step("waiting for its turn")

    def step(self, state: str) -> None:
        self._state, self._since = state, time.monotonic()

    @property
    def status(self) -> str:
        """How far the engine is, for how long, and what it was refused for."""
        waiting = "" if self.finished.is_set() else f" for {time.monotonic() - self._since:.0f} s"
        return f"{self._state}{waiting}"

    def refuse(self, error: Exception) -> None:
        """Take an engine that failed while it served out of service for this run."""
        self.ready = None
        _log.error("TensorRT engine for %s failed, another backend serves: %s", self.shapes[1], error)
        self.step(f"refused: failed while it served: {type(error).__name__}: {error}")


class TorchTensorRtRunner:
    """Runs a model with TensorRT as soon as it can, and with ``fallback`` until then; see ORDER_AFTER."""

    def __init__(
        self,
        card: ModelCard,
        models: ModelsConfig,
        fallback: ModelRunner,
        compiler: TorchTensorRtCompiler,
        reason: str = "",
        cache: Path | None = None,
        order_after: int = ORDER_AFTER,
    ) -> None:
        self._torch = import_torch()
        self._card, self._reason = card, reason
        self._precision = "fp32" if models.precision == "fp32" else "fp16"
        self._fallback, self._compiler = fallback, compiler
        self._cache = cache or (cache_directory() or Path(os.devnull)) / "tensorrt"
        self._preprocess = TorchPreprocessing(card, compiler.device)
        self._network: Any = None
        self._engines: OrderedDict[tuple[int, int], _Engine] = OrderedDict()  # longest unused first
        self._seen: Counter[tuple[int, int]] = Counter()
        self._order_after = order_after if card.input.size is None else 1
        self._latest = None if card.input.size is None else self._engine(*card.input.size)
        self._engine_answered: bool | None = None  # nothing has been asked yet

    @property
    def report(self) -> BackendReport:
        """What answered last, and how far the engine is."""
        latest, is_engine = self._latest, self._engine_answered
        if latest is not None and (latest.ready is not None if is_engine is None else is_engine):
            reason = "; ".join(filter(None, (self._reason, latest.status.removeprefix("ready: "))))
            return BackendReport(NAME, self._compiler.device, reason, self._precision)
        serving = self._fallback.report
        state = latest.status if latest else f"ordered when a size has come {self._order_after} times"
        reason = f"{self._reason}; its engine is {state}; meanwhile {serving.name}".removeprefix("; ")
        return BackendReport(serving.name, serving.device, reason, serving.precision)

    def run(self, images_bgr: ImageArray) -> tuple[FloatArray, ...]:
        """Return the outputs for (B, H, W, 3) BGR uint8 images."""
        require_batch(images_bgr)
        _, height, width, _ = images_bgr.shape
        self._latest = latest = self._engine(height, width)
        if latest is not None and (engine := latest.ready) is not None:
            try:
                with self._torch.inference_mode():
                    outputs = self._evaluate(engine, self._preprocess(images_bgr))
            except RuntimeError as error:  # TensorRT's and CUDA's, out of memory among them
                latest.refuse(error)
            else:
                self._engine_answered = True
                return outputs
        self._engine_answered = False
        return self._fallback.run(images_bgr)

    def wait(self, timeout: float | None = None) -> bool:
        """Return whether every engine asked for so far is ready or refused by then."""
        return all(engine.finished.wait(timeout) for engine in list(self._engines.values()))

    def _engine(self, height: int, width: int) -> _Engine | None:
        """Return the engine for a picture, ordering it when it is worth it; None until then."""
        size = (height, width)
        if size not in self._engines:
            self._seen[size] += 1
            if self._seen[size] < self._order_after:
                return None
            self._seen = Counter(dict(self._seen.most_common(_COUNTED_SIZES)))
            for other, engine in list(self._engines.items()):
                if len(self._engines) >= _KEPT_ENGINES and engine.finished.is_set():
                    del self._engines[other], self._seen[other]
            batches = (1, 1, 1) if self._card.input.size is None else EMBEDDER_BATCHES
            smallest, preferred, largest = ((batch, 3, height, width) for batch in batches)
            self._engines[size] = ordered = _Engine((smallest, preferred, largest))
            threading.Thread(
                target=self._make, args=(ordered,), name=f"tensorrt-{self._card.name}", daemon=True
            ).start()
        self._engines.move_to_end(size)
        return self._engines[size]

    def _make(self, order: _Engine) -> None:
        """Read or build the engine, test it, and let it serve or refuse it. Never raises."""
        card = self._card
        try:
            with _ONE_AT_A_TIME:
                platform = self._compiler.platform
                name = engine_file_name(card.name, card.sha256, order.shapes, self._precision, platform)
                path = self._cache / name
                engine, cosine = self._read(order, path) or self._build(order, path)
            order.step(f"ready: self-test cosine {cosine:.5f}")
            order.ready = engine
        except Exception as error:  # TensorRT's own errors have no common base; the fallback serves on
            _log.exception("%s: TensorRT engine refused for %s", card.name, order.shapes[1])
            kind = "" if isinstance(error, BackendUnavailableError) else f"{type(error).__name__}: "
            order.step(f"refused: {kind}{error}")
        finally:
            order.finished.set()
        if all(other.finished.is_set() for other in list(self._engines.values())):
            self._network = None  # frees its memory; another shape reads it again

    def _read(self, order: _Engine, path: Path) -> tuple[Engine, float] | None:
        if not path.is_file():
            return None
        order.step("being read from the cache")
        try:
            engine = self._compiler.load(path)
        except Exception as error:  # a torn or foreign file: torch has no common base for its errors either
            _log.warning("%s: cannot be read, building it anew: %s", path, error)
        else:
            try:
                return engine, self._test(order, engine)
            except BackendUnavailableError as error:
                _log.warning("%s: is not what was stored, building it anew: %s", path, error)
        path.unlink(missing_ok=True)
        return None

    def _build(self, order: _Engine, path: Path) -> tuple[Engine, float]:
        order.step("being built")
        started = time.monotonic()
        engine = self._compiler.compile(self._reference(), order.shapes, self._precision)
        _log.info("%s: TensorRT engine built in %.0f s", self._card.name, time.monotonic() - started)
        cosine = self._test(order, engine)
        try:
            with written_whole(path) as draft:
                self._compiler.save(engine, order.shapes, draft)
        except Exception as error:  # torch tells a full disk by exceptions of its own
            _log.warning("the engine cannot be kept for the next start: %s: %s", path.parent, error)
        return engine, cosine

    def _test(self, order: _Engine, engine: Engine) -> float:
        """Return the engine's least cosine to the float32 network, over noise in every shape."""
        order.step("in its self-test")
        network, cosine = self._reference(), 1.0
        for batch, _, height, width in dict.fromkeys(order.shapes):
            tensor = self._preprocess(noise_pictures(batch, height, width))
            expected, got = (self._evaluate(one, tensor) for one in (network, engine))
            cosine = min(cosine, least_cosine(expected, got))
        if cosine < LEAST_COSINE:
            raise BackendUnavailableError(f"self-test cosine {cosine:.5f}, expected at least {LEAST_COSINE}")
        return cosine

    def _reference(self) -> Any:
        """Return the float32 network on the engines' device."""
        if self._network is None:
            from face_recognition_node.networks.loading import fold_batch_norm, load_network

            self._network = fold_batch_norm(load_network(self._card)).to(self._compiler.device)
        return self._network

    def _evaluate(self, engine: Engine, tensor: Any) -> tuple[FloatArray, ...]:
        with self._torch.no_grad():
            return as_arrays(engine(tensor))

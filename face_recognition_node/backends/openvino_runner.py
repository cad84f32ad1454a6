"""OpenVINO: the default on a CPU.

The graph takes the camera's bytes: layout, channel order, mean and scale are folded into it, so that no
float copy of the frame is made in Python. Sizes of a detector's picture are compiled when first seen (a
static graph is the fastest) and kept while they are used; the batch of an embedder stays dynamic. Compiled
graphs are cached on disk, outside the source tree, which makes the next start fast.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

from face_recognition_node.backends.preprocessing import require_batch, thread_count
from face_recognition_node.common.errors import BackendUnavailableError
from face_recognition_node.common.files import file_sha256, write_text
from face_recognition_node.common.resources import cache_directory
from face_recognition_node.config import ModelsConfig
from face_recognition_node.vision.faces import FloatArray, ImageArray
from face_recognition_node.vision.model_card import ModelCard
from face_recognition_node.vision.runner import BackendReport

NAME = "openvino"
_KEPT_SHAPES = 4
_KEPT_RUNS = 300  # a compiled size is let go after so many runs of others: that of 640×480 takes 20 MB
_CONVERTER = "openvino.tools.ovc"
_log = logging.getLogger(__name__)


def import_openvino() -> Any:
    """Return the openvino module or raise BackendUnavailableError telling the cure.

    OpenVINO imports its model converter if it can, with a command-line parser and a telemetry client that a
    robot has no use for: measured, 17 of 30 MB and 0.1 of 0.15 s of processor time. It is kept out unless
    somebody has imported it already, and can be imported by its own name afterwards.
    """
    is_first = not {"openvino", _CONVERTER} & sys.modules.keys()
    if is_first:
        sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # Python's way of saying "not importable"
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailableError(f"openvino is not installed ({error}): pip install openvino") from error
    finally:
        if is_first:
            del sys.modules[_CONVERTER]
    return openvino


def remove_damaged(folder: Path) -> None:
    """Remove compiled models that are not what was written: OpenVINO would run them unchecked."""
    for compiled in folder.glob("*.blob"):
        stated = compiled.with_suffix(".sha256")
        if not stated.is_file() or stated.read_bytes() != file_sha256(compiled).encode():
            compiled.unlink(missing_ok=True)
            stated.unlink(missing_ok=True)


def state_checksums(folder: Path) -> None:
    """Write a SHA-256 beside each compiled model that has none yet."""
    try:
        for compiled in folder.glob("*.blob"):
            if not (stated := compiled.with_suffix(".sha256")).exists():
                write_text(stated, file_sha256(compiled))
    except OSError as error:  # a full disk: the next start compiles anew
        _log.warning("compiled models cannot be kept for the next start: %s: %s", folder, error)


def return_freed_memory() -> None:
    """Let the C library give freed memory back to the system; where it cannot (no glibc), nothing happens.

    Compiling a network takes and frees tens of megabytes in many pieces, which glibc keeps for later use.
    Takes some milliseconds; for moments when something large has been let go.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; no way to ask for it by None
        return
    trim(0)


class OpenVinoRunner:
    """Runs ``NAME.onnx`` with OpenVINO; raises what :func:`loading.open_runner` raises."""

    def __init__(self, card: ModelCard, models: ModelsConfig, reason: str = "") -> None:
        self._openvino = openvino = import_openvino()
        self._card = card
        self._device = models.device or "CPU"
        self._options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if self._device == "CPU":
            self._options["INFERENCE_NUM_THREADS"] = thread_count(models.threads)
        self._core = openvino.Core()
        precision = "fp32" if models.precision == "fp32" else self._native_precision()
        # told to every device: a GPU would compute in half precision unasked
        self._options["INFERENCE_PRECISION_HINT"] = {"fp32": "f32"}.get(precision, precision)
        self._cache = self._disk_cache()
        self._requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()  # the one used longest ago first
        self._last_run: dict[tuple[int, ...], int] = {}
        self._runs = 0
        self._file = card.weights("onnx")
        self.report = BackendReport(NAME, self._device, reason, precision)
        if card.input.size is not None:
            self._request((-1, *card.input.size))

    def _native_precision(self) -> str:
        """Return "bf16" for a CPU for which OpenVINO would choose that, else "fp32"."""
        if self._device != "CPU":
            return "fp32"
        native = self._core.get_property("CPU", "INFERENCE_PRECISION_HINT")
        return "bf16" if native == self._openvino.Type.bf16 else "fp32"

    def _disk_cache(self) -> Path | None:
        """Return the folder of compiled models, now in use and without damaged ones, or None."""
        if (root := cache_directory()) is None:
            return None
        folder = root / "openvino"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_damaged(folder)
        except OSError as error:
            _log.warning("no cache of compiled models, so starts are slower: %s: %s", folder, error)
            return None
        self._core.set_property({"CACHE_DIR": str(folder)})
        return folder

    def _graph(self) -> Any:
        """Return the model with the preprocessing in front: uint8 (B, H, W, 3) BGR."""
        from openvino import Layout, Type
        from openvino.preprocess import ColorFormat, PrePostProcessor

        needs = self._card.input
        processor = PrePostProcessor(self._core.read_model(self._file))
        image = processor.input()
        image.tensor().set_element_type(Type.u8).set_layout(Layout("NHWC")).set_color_format(ColorFormat.BGR)
        image.model().set_layout(Layout(needs.layout))
        steps = image.preprocess()
        if needs.channels == "RGB":
            steps.convert_color(ColorFormat.RGB)
        steps.convert_element_type(Type.f32).mean(list(needs.mean)).scale(list(needs.scale))
        return processor.build()

    def _request(self, shape: tuple[int, ...]) -> Any:
        """Return the inference request for (batch or -1, height, width)."""
        if shape not in self._requests:
            try:
                graph = self._graph()
                graph.reshape([*shape, 3])
                compiled = self._core.compile_model(graph, self._device, self._options)
            except RuntimeError as error:
                raise BackendUnavailableError(
                    f"openvino cannot run {self._file} on {self._device}: {error}"
                ) from error
            self._requests[shape] = compiled.create_infer_request()
            if self._cache is not None:
                state_checksums(self._cache)
        self._requests.move_to_end(shape)
        self._runs += 1
        self._last_run[shape] = self._runs
        self._let_go_of_unused()
        return self._requests[shape]

    def _let_go_of_unused(self) -> None:
        """Free the size used longest ago, if there are many or it has not been asked for since long."""
        oldest = next(iter(self._requests))
        if len(self._requests) > _KEPT_SHAPES or self._runs - self._last_run[oldest] > _KEPT_RUNS:
            del self._requests[oldest], self._last_run[oldest]
            return_freed_memory()

    def run(self, images_bgr: ImageArray) -> tuple[FloatArray, ...]:
        """Return the outputs for (B, H, W, 3) BGR uint8 images; valid until the next call."""
        require_batch(images_bgr)
        batch, height, width, _ = images_bgr.shape
        request = self._request((-1 if self._card.input.size is not None else batch, height, width))
        if not (images_bgr.flags.writeable and images_bgr.flags.c_contiguous):
            # OpenVINO shares memory only with arrays that it might write; images of messages are read-only.
            images_bgr = images_bgr.copy()
        request.set_input_tensor(self._openvino.Tensor(images_bgr, shared_memory=True))
        request.infer()
        if self._card.output:
            return (request.get_tensor(self._card.output).data,)
        return tuple(request.get_output_tensor(index).data for index in range(len(request.model_outputs)))

"""Plain torch, on a CPU or an NVIDIA GPU: the reference the other backends are compared with.

On a GPU what surrounds the detector's network is done there too: one upload a frame. The maps of a 1280×720
frame would be 2.3 MB to download and to look through on the CPU; here the anchors over the threshold are
picked out where they are, and some kilobytes come back. Overlaps are then thinned out on the CPU, among these
few. Aligned faces are cut from the frame that is there already.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from face_recognition_node.backends.preprocessing import require_batch, thread_count
from face_recognition_node.common.errors import BackendUnavailableError
from face_recognition_node.config import ModelsConfig
from face_recognition_node.vision.alignment import CROP_SIZE, Warp, align_faces, plan_warps
from face_recognition_node.vision.faces import FloatArray, ImageArray
from face_recognition_node.vision.model_card import ModelCard
from face_recognition_node.vision.retinaface_decoding import (
    ANCHORS,
    AVERAGED_FROM,
    Cells,
    Placement,
    require_maps,
)
from face_recognition_node.vision.runner import BackendReport

if TYPE_CHECKING:
    import torch

NAME = "torch"
Evaluate = Callable[["torch.Tensor"], Sequence["torch.Tensor"]]
"""Runs the network on a preprocessed (1, 3, H, W) float32 tensor."""


def import_torch() -> Any:
    """Return the torch module or raise BackendUnavailableError telling the cure."""
    try:
        import torch
    except ImportError as error:
        raise BackendUnavailableError(
            f"torch is not installed ({error}): pip install torch safetensors"
        ) from error
    # NVIDIA's default for float32 keeps ten bits of the mantissa; templates are compared across machines
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch


class TorchPreprocessing:
    """The card's preprocessing on the network's device; pictures are uploaded as bytes."""

    def __init__(self, card: ModelCard, device: str) -> None:
        self._torch = import_torch()
        self._device = device
        self._reverse = card.input.channels == "RGB"
        shape = (1, 3, 1, 1)
        self._mean = self._torch.tensor(card.input.mean, device=device).reshape(shape)
        self._factor = 1.0 / self._torch.tensor(card.input.scale, device=device).reshape(shape)

    def __call__(self, images_bgr: ImageArray) -> torch.Tensor:
        """Return (B, 3, H, W) float32 on the device, what the network takes, of (B, H, W, 3) uint8."""
        return self.normalise(self.upload(images_bgr))

    def upload(self, images_bgr: ImageArray) -> torch.Tensor:
        """Return (B, 3, H, W) uint8 BGR on the device."""
        pixels: torch.Tensor = self._torch.from_numpy(images_bgr).to(self._device).permute(0, 3, 1, 2)
        return pixels

    def normalise(self, pixels_bgr: torch.Tensor) -> torch.Tensor:
        """Return what the network takes of (B, 3, H, W) BGR in 0 … 255."""
        if self._reverse:
            pixels_bgr = pixels_bgr.flip(1)
        planes: torch.Tensor = (pixels_bgr.float() - self._mean) * self._factor
        return planes.contiguous()


def as_arrays(outputs: Any) -> tuple[FloatArray, ...]:
    """Return a network's output, one tensor or several, as float32 arrays."""
    tensors = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    return tuple(tensor.float().cpu().numpy() for tensor in tensors)


class FrameSearch:
    """Searches and cuts one frame at a time on a device, with the preprocessing of the detector's model."""

    def __init__(self, torch: Any, preprocess: TorchPreprocessing, device: str) -> None:
        self._torch = torch
        self._preprocess = preprocess
        steps = torch.arange(CROP_SIZE, dtype=torch.float32, device=device)
        rows, columns = torch.meshgrid(steps, steps, indexing="ij")
        self._crop_xy1 = torch.stack([columns, rows, torch.ones_like(rows)], dim=2).reshape(-1, 3)
        self._source: weakref.ref[ImageArray] | None = None
        self._frame: torch.Tensor | None = None

    def find_cells(
        self,
        evaluate: Evaluate,
        image_bgr: ImageArray,
        placements: Sequence[Placement],
        least_logit: float,
    ) -> list[Cells]:
        """Upload a (H, W, 3) BGR uint8 frame and return the anchors that reach the logit, by placement."""
        with self._torch.inference_mode():
            self._frame = self._preprocess.upload(np.ascontiguousarray(image_bgr)[None]).float()
            self._source = weakref.ref(image_bgr)
            return [
                self._select(evaluate(self._place(self._frame, placement)), least_logit)
                for placement in placements
            ]

    def align_faces(self, image_bgr: ImageArray, landmarks_xy: ArrayLike) -> ImageArray:
        """Return (N, 112, 112, 3) uint8 aligned faces, the same as alignment.align_faces but for rounding."""
        if self._frame is None or self._source is None or self._source() is not image_bgr:
            return align_faces(image_bgr, landmarks_xy)
        warps = plan_warps((image_bgr.shape[0], image_bgr.shape[1]), landmarks_xy)
        if not warps:
            return np.empty((0, CROP_SIZE, CROP_SIZE, 3), np.uint8)
        inverse = np.stack([cv2.invertAffineTransform(warp.matrix) for warp in warps]).astype(np.float32)
        with self._torch.inference_mode():
            matrices = self._torch.from_numpy(inverse).to(self._frame.device)
            crops = matrices.new_empty((len(warps), 3, CROP_SIZE, CROP_SIZE))
            whole = [number for number, warp in enumerate(warps) if warp.factor == 1]
            if whole:
                crops[whole] = self._sample(self._frame, matrices[whole])
            for number, warp in enumerate(warps):
                if warp.factor > 1:
                    crops[number] = self._sample(self._shrink(self._frame, warp), matrices[number, None])[0]
            pixels: ImageArray = crops.round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return pixels

    def _place(self, frame: torch.Tensor, placement: Placement) -> torch.Tensor:
        """Return (1, 3, H, W) on the canvas; its margin has the mean colour, zero to the network."""
        functional = self._torch.nn.functional
        (height, width), (rows, columns) = placement.content, placement.canvas
        if frame.shape[2:] != placement.content:
            # both as OpenCV does on the CPU: plain bilinear up to a factor of two, averaging beyond
            averaged = placement.scale > AVERAGED_FROM
            mode = "area" if averaged else "bilinear"
            frame = functional.interpolate(frame, placement.content, mode=mode)
        planes = self._preprocess.normalise(frame)
        right, below = columns - placement.left - width, rows - placement.top - height
        padded: torch.Tensor = functional.pad(planes, (placement.left, right, placement.top, below))
        return padded.contiguous()

    def _select(self, maps: Sequence[torch.Tensor], least_logit: float) -> Cells:
        """Return the anchors over the threshold; one synchronisation to count them, one to download."""
        require_maps([tuple(level.shape[1:]) for level in maps])
        table = self._torch.cat([self._by_anchor(level[0]) for level in maps], dim=2)
        anchors, cells = (table[:, 0] >= least_logit).nonzero(as_tuple=True)
        # whole numbers below 2**24 are exact in float32
        rows = self._torch.cat(
            [anchors[:, None].float(), cells[:, None].float(), table[anchors, :, cells]], 1
        )
        found = rows.cpu().numpy()
        anchor, cell = (found[:, column].astype(np.int64) for column in (0, 1))
        widths = np.array([level.shape[3] for level in maps])
        starts = np.cumsum([0] + [level.shape[2] * level.shape[3] for level in maps])
        index = np.searchsorted(starts, cell, side="right") - 1
        row, column = np.divmod(cell - starts[index], widths[index])
        return Cells(index, anchor, row, column, found[:, 2:])

    def _shrink(self, frame: torch.Tensor, warp: Warp) -> torch.Tensor:
        """Return the part of the frame that a face needs, averaged down."""
        part = frame[:, :, warp.top : warp.bottom, warp.left : warp.right]
        small: torch.Tensor = self._torch.nn.functional.avg_pool2d(part, warp.factor).round()
        return small

    def _sample(self, picture: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
        """Return (N, 3, 112, 112) of a (1, 3, H, W) picture; pixels from outside are black.

        The matrices (N, 2, 3) lead from a crop's pixels to the picture's.
        """
        count, (height, width) = len(matrices), picture.shape[2:]
        source = (self._crop_xy1 @ matrices.transpose(1, 2)).reshape(count, CROP_SIZE, CROP_SIZE, 2)
        # -1 and 1 are the centres of the first and the last pixel
        last = source.new_tensor([max(width - 1, 1), max(height - 1, 1)])
        crops: torch.Tensor = self._torch.nn.functional.grid_sample(
            picture.expand(count, -1, -1, -1),
            source * (2 / last) - 1,
            mode="bilinear",
            padding_mode="zeros",
            align_corners=True,
        )
        return crops

    def _by_anchor(self, level: torch.Tensor) -> torch.Tensor:
        """Return a (30, h, w) map as (2, 15, h w): for each anchor its logit, box and landmark numbers."""
        blocks = level[:ANCHORS], level[ANCHORS : ANCHORS * 5], level[ANCHORS * 5 :]
        rows: torch.Tensor = self._torch.cat(
            [b.reshape(ANCHORS, -1, level[0].numel()) for b in blocks], dim=1
        )
        return rows


def open_torch_runner(card: ModelCard, models: ModelsConfig, reason: str) -> TorchRunner:
    """Return a runner of ``NAME.safetensors``, or raise what :func:`loading.open_runner` raises."""
    import_torch()
    from face_recognition_node.networks.loading import fold_batch_norm, load_network

    return TorchRunner(card, fold_batch_norm(load_network(card)), models, reason)


class TorchRunner:
    """Runs a network eagerly; on a GPU what surrounds a detector's network as well.

    ``network`` is in evaluation mode and takes the preprocessed (B, 3, H, W) float32 tensor. Without a device
    among the ``models`` parameters it runs on the first NVIDIA GPU, else on the CPU.

    Raises:
        BackendUnavailableError: If the device does not exist.
    """

    def __init__(self, card: ModelCard, network: Any, models: ModelsConfig, reason: str) -> None:
        self._torch = import_torch()
        device = (models.device or ("cuda:0" if self._torch.cuda.is_available() else "cpu")).lower()
        try:
            self._network = network.to(device)
            self._preprocess = TorchPreprocessing(card, device)
        except (RuntimeError, AssertionError) as error:
            raise BackendUnavailableError(f"torch cannot use the device {device!r}: {error}") from error
        if device == "cpu":
            self._torch.set_num_threads(thread_count(models.threads))
        # on the CPU OpenCV resizes and cuts faster than torch does
        self._search = FrameSearch(self._torch, self._preprocess, device) if device != "cpu" else None
        self.report = BackendReport(NAME, device, reason, "fp32")

    def run(self, images_bgr: ImageArray) -> tuple[FloatArray, ...]:
        """Return the outputs for (B, H, W, 3) BGR uint8 images."""
        with self._torch.inference_mode():
            return as_arrays(self._network(self._preprocess(require_batch(images_bgr))))

    def find_cells(
        self, image_bgr: ImageArray, placements: Sequence[Placement], least_logit: float
    ) -> list[Cells] | None:
        """Return a detector's anchors over the threshold; see runner.FrameRunner."""
        if self._search is None:
            return None
        return self._search.find_cells(self._network, image_bgr, placements, least_logit)

    def align_faces(self, image_bgr: ImageArray, landmarks_xy: ArrayLike) -> ImageArray:
        """Return aligned faces; see runner.FrameRunner."""
        if self._search is None:
            return align_faces(image_bgr, landmarks_xy)
        return self._search.align_faces(image_bgr, landmarks_xy)

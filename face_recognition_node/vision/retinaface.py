"""Finds faces with RetinaFace: resizes the frame once, runs the network, decodes, thins out.

The longer side of the frame is brought down to ``working_width``. Beyond 512 pixels there is no anchor, and
the network's landmarks drift or the face is missed; so for faces that fill a large frame there is a second
pass over a small copy with a margin around it. At 640×480 it would find nothing more and is left out
(measured on portraits enlarged to 0.5–1.5 times the frame's height).
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from contextlib import nullcontext

import cv2
import numpy as np
from numpy.typing import NDArray

from face_recognition_node.common.stages import StageClock
from face_recognition_node.config import DetectorConfig
from face_recognition_node.vision.faces import Detection, FloatArray, ImageArray, require_image
from face_recognition_node.vision.geometry import box_areas, intersection_matrix, suppress_overlaps
from face_recognition_node.vision.model_card import ModelCard
from face_recognition_node.vision.relighting import brighten_frame
from face_recognition_node.vision.retinaface_decoding import (
    Cells,
    Placement,
    Proposals,
    decode_cells,
    least_logit,
    select_cells,
)
from face_recognition_node.vision.runner import BackendReport, ModelRunner

CLOSE_SIDE = 128  # longer side of the small copy for faces that fill the frame, pixels

CLOSE_MARGIN = 32  # margin around it, pixels

# longer side of a frame at the working resolution from which there is a second pass, pixels
CLOSE_PASS_FROM = 700

# heights of the faces each pass may report where there are two, pixels at the working resolution. Between the
# two both may, and the better score stays
MAIN_PASS_UP_TO, CLOSE_PASS_FACES_FROM = 512, 256

_AVERAGED_FROM = 2.0  # scale above which a frame is shrunk by averaging; bilinear sampling would skip pixels
_KEPT_CANVASES = 4
_INSIDE = 0.9  # a weaker box with this part of its area inside a stronger, larger one is a part of that face
_LEAST_LANDMARK_SPREAD = 0.05  # of the box's side; landmarks heaped in one place belong to no face


class RetinaFaceDetector:
    """The detector of the pipeline; safe to call from several threads."""

    def __init__(self, runner: ModelRunner, card: ModelCard, config: DetectorConfig) -> None:
        self.runner = runner  # the network itself, for benchmarks; do not use it while the detector is in use
        self.card = card
        self.config = config  # the thresholds and the resolution; may be replaced between frames
        self._lock = threading.Lock()
        self._canvases: OrderedDict[Placement, ImageArray] = OrderedDict()

    @property
    def backend(self) -> BackendReport:
        """What runs the network."""
        return self.runner.report

    def warm_up(self, size: tuple[int, int]) -> None:
        """Compile what frames of ``size`` (height, width) need, so that the first one is not late."""
        self.detect(np.zeros((*size, 3), np.uint8))

    def detect(self, image_bgr: ImageArray) -> list[Detection]:
        """Return the faces of a (H, W, 3) BGR uint8 image, best score first, in its pixel coordinates.

        A dark picture is brightened first (:mod:`relighting`).

        Raises:
            FrameError: For something that is no image.
        """
        return self.search(brighten_frame(require_image(image_bgr)))

    def search(self, lit_bgr: ImageArray, clock: StageClock | None = None) -> list[Detection]:
        """Return the faces of an image that needs no light any more; else the same as :meth:`detect`.

        The clock takes the time of the stage "resize".

        Raises:
            FrameError: For something that is no image.
        """
        require_image(lit_bgr)
        config = self.config
        size = lit_bgr.shape[0], lit_bgr.shape[1]
        placements = _placements(size, config)
        scale = placements[0].scale
        least = least_logit(config.far_score_threshold)
        with self._lock:
            cells = [self._pass(lit_bgr, placement, least, clock) for placement in placements]
        passes = [
            decode_cells(part).mapped(placement.scale, placement.left, placement.top)
            for part, placement in zip(cells, placements, strict=True)
        ]
        if len(passes) == 2:
            passes[0] = passes[0].of_heights(0, MAIN_PASS_UP_TO * scale)
            passes[1] = passes[1].of_heights(CLOSE_PASS_FACES_FROM * scale, math.inf)
        return select_faces(Proposals.joined(passes), config, scale)

    def network_inputs(self, image_bgr: ImageArray) -> list[ImageArray]:
        """Return what the network is given for an image, (1, H, W, 3) uint8 for each pass, for benchmarks."""
        require_image(image_bgr)
        size = image_bgr.shape[0], image_bgr.shape[1]
        with self._lock:
            return [self._place(image_bgr, p)[None].copy() for p in _placements(size, self.config)]

    def _pass(
        self, image_bgr: ImageArray, placement: Placement, least: float, clock: StageClock | None
    ) -> Cells:
        with clock.stage("resize") if clock is not None else nullcontext():
            picture = self._place(image_bgr, placement)
        return select_cells([output[0] for output in self.runner.run(picture[None])], least)

    def _place(self, image_bgr: ImageArray, placement: Placement) -> ImageArray:
        """Return the frame on its canvas; the frame itself where it fits as it is."""
        if image_bgr.shape[:2] == placement.canvas and image_bgr.flags.c_contiguous:
            return image_bgr
        canvas = self._canvas(placement)
        height, width = placement.content
        content = canvas[placement.top : placement.top + height, placement.left : placement.left + width]
        if image_bgr.shape[:2] == placement.content:
            np.copyto(content, image_bgr)
        else:
            method = cv2.INTER_AREA if placement.scale > _AVERAGED_FROM else cv2.INTER_LINEAR
            content[:] = cv2.resize(image_bgr, (width, height), interpolation=method)
        return canvas

    def _canvas(self, placement: Placement) -> ImageArray:
        """Return the kept canvas of a placement; its margin has the mean colour, zero to the network."""
        if placement not in self._canvases:
            channels = self.card.input.mean
            mean_bgr = channels if self.card.input.channels == "BGR" else channels[::-1]
            canvas = np.empty((*placement.canvas, 3), np.uint8)
            canvas[:] = np.round(mean_bgr).astype(np.uint8)
            self._canvases[placement] = canvas
            if len(self._canvases) > _KEPT_CANVASES:
                self._canvases.popitem(last=False)
        self._canvases.move_to_end(placement)
        return self._canvases[placement]


def _placements(size: tuple[int, int], config: DetectorConfig) -> list[Placement]:
    """Return where the frame goes in the main pass and, if there is one, in the close pass."""
    main = Placement.fit(size, config.working_width)
    if config.close_pass and max(main.content) >= CLOSE_PASS_FROM:
        return [main, Placement.fit(size, CLOSE_SIDE, CLOSE_MARGIN)]
    return [main]


def select_faces(proposals: Proposals, config: DetectorConfig, scale: float = 1.0) -> list[Detection]:
    """Thin proposals, in pixels of the image, out to faces, best score first.

    Dropped are: scores too low for the face's size, boxes that overlap a better one, parts of a face inside a
    better and larger box, faces smaller than asked for, and boxes whose landmarks lie all in one place.
    ``scale`` is the number of pixels of the image for one pixel at the working resolution.
    """
    boxes, landmarks = proposals.boxes_xyxy, proposals.landmarks_xy
    sides = boxes[:, 2:] - boxes[:, :2]
    spread = np.ptp(landmarks, axis=1).max(axis=1)
    usable = (sides > 0).all(axis=1) & np.isfinite(sides).all(axis=1) & np.isfinite(spread)
    usable &= (sides[:, 1] >= config.minimum_face_px) & (spread > _LEAST_LANDMARK_SPREAD * sides.max(axis=1))
    usable &= proposals.scores >= config.least_score(sides[:, 1] / scale)
    rows = np.flatnonzero(usable)
    if len(rows) == 0:
        return []
    kept = rows[suppress_overlaps(boxes[rows], proposals.scores[rows], config.overlap_threshold)]
    kept = kept[_not_inside_better(boxes[kept])][: config.maximum_faces]
    return [Detection(boxes[row], min(1.0, float(proposals.scores[row])), landmarks[row]) for row in kept]


def _not_inside_better(boxes_xyxy: FloatArray) -> NDArray[np.bool_]:
    """Return which of boxes sorted best first lie not inside an earlier one; (N,) bool."""
    shared = intersection_matrix(boxes_xyxy, boxes_xyxy)
    inside = shared > _INSIDE * box_areas(boxes_xyxy)[:, None]
    return np.asarray(~np.tril(inside, -1).any(axis=1))

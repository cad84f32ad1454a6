"""Whether a single view of a face is good enough to be kept as a template."""

from __future__ import annotations

from collections.abc import Sequence

from face_recognition_node.config import EnrollmentConfig
from face_recognition_node.enrollment.goal import Rejection
from face_recognition_node.vision.faces import Detection, FaceView, IdentifiedFace
from face_recognition_node.vision.geometry import covered_share
from face_recognition_node.vision.quality import measure_exposure

_MOST_OUTSIDE = 0.1  # share of the box that may lie outside the image
_MOST_COVERED = 0.2  # share of the box that another face's box may cover


def check_view(
    face: IdentifiedFace,
    others: Sequence[IdentifiedFace],
    image_size: tuple[int, int],
    config: EnrollmentConfig,
) -> Rejection | None:
    """Return the first reason not to keep a view, or None if it is good.

    The image is (width, height) pixels; one of the other faces of the frame in front of this one occludes it.
    """
    view, quality = face.view, face.view.quality
    covered = any(covered_share(view.detection, other.view.detection) > _MOST_COVERED for other in others)
    checks = (
        (face.flatness == "flat", Rejection.FLAT),
        (view.detection.score < config.minimum_score, Rejection.LOW_SCORE),
        (outside_share(view.detection, image_size) > _MOST_OUTSIDE, Rejection.CUT_OFF),
        (view.detection.size_px < config.minimum_size_px, Rejection.TOO_SMALL),
        (quality.exposure < config.minimum_exposure, _exposure_fault(view)),
        (quality.sharpness < config.minimum_sharpness, Rejection.BLURRED),
        (abs(view.pose.yaw) > config.maximum_yaw, Rejection.TURNED_TOO_FAR),
        (abs(view.pose.pitch) > config.maximum_pitch, Rejection.TURNED_TOO_FAR),
        (covered or quality.landmarks < config.minimum_landmarks, Rejection.POOR_LANDMARKS),
        (view.embedding is None, Rejection.NO_EMBEDDING),
    )
    return next((reason for is_fault, reason in checks if is_fault), None)


def outside_share(detection: Detection, image_size: tuple[int, int]) -> float:
    """Return the share in [0, 1] of the box that lies outside the image."""
    x1, y1, x2, y2 = detection.box_xyxy.tolist()
    width = max(0.0, min(x2, image_size[0]) - max(x1, 0.0))
    height = max(0.0, min(y2, image_size[1]) - max(y1, 0.0))
    return 1.0 - float(width * height) / (detection.width * detection.height)


def _exposure_fault(view: FaceView) -> Rejection:
    """Return which of the two exposure faults a view has the more of (dark, if its crop was not kept)."""
    if view.crop_bgr is None:
        return Rejection.TOO_DARK
    dark, bright = measure_exposure(view.crop_bgr[None])
    return Rejection.TOO_BRIGHT if bright[0] > dark[0] else Rejection.TOO_DARK

"""One frame's answer as a plain dictionary: the JSON line that ``recognize`` writes."""

from __future__ import annotations

import json
import math
from typing import Any

from face_recognition_node.vision.faces import IdentifiedFace, RecognitionResult


def frame_record(index: int, result: RecognitionResult) -> dict[str, Any]:
    """Return ``{"frame", "stamp", "faces": [...]}`` of plain numbers and strings, ready for JSON.

    Boxes and landmarks are pixels, ``stamp`` is seconds, ``score``, ``quality`` and ``probability`` lie in
    [0, 1], ``distance`` in [0, 2] or null where no template was compared. ``flatness`` is "unverified", "solid"
    or "flat"; ``position`` is in metres (x right, y down, z ahead of the camera), null without a camera model.
    """
    return {
        "frame": index,
        "stamp": _rounded(result.stamp, 6),
        "faces": [face_record(face) for face in result.faces],
    }


def face_record(face: IdentifiedFace) -> dict[str, Any]:
    """Return one face of :func:`frame_record`."""
    detection, identity, position = face.view.detection, face.identity, face.position
    return {
        "track_id": face.track_id,
        "box": [_rounded(value, 2) for value in detection.box_xyxy],
        "landmarks": [[_rounded(x, 2), _rounded(y, 2)] for x, y in detection.landmarks_xy],
        "score": _rounded(detection.score, 4),
        "quality": _rounded(face.view.quality.overall, 4),
        "state": identity.state.value,
        "person_id": identity.person_id,
        "name": identity.name,
        "probability": _rounded(identity.probability, 4),
        "distance": None if identity.distance is None else _rounded(identity.distance, 4),
        "flatness": face.flatness,
        "position": None if position is None else [_rounded(value, 3) for value in position.xyz_m],
    }


def frame_line(index: int, result: RecognitionResult) -> str:
    """Return :func:`frame_record` as one line of JSON without its line end."""
    return json.dumps(frame_record(index, result), ensure_ascii=False, allow_nan=False)


def _rounded(value: float, digits: int) -> float | None:
    """Return a Python float of few digits; JSON has no NaN, so what is not finite becomes null."""
    number = float(value)
    return round(number, digits) if math.isfinite(number) else None

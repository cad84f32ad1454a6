"""A recognized face as the fields of Face.msg: for the node's topic and for the bags written without ROS."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from face_recognition_node.vision.faces import IdentifiedFace, IdentityState

STATES = {IdentityState.UNDECIDED: 0, IdentityState.STRANGER: 1, IdentityState.KNOWN: 2}
FLATNESS = {"unverified": 0, "solid": 1, "flat": 2}
SOURCES = {"depth": 1, "size": 2}  # the numbers that Face.msg gives them


def face_fields(face: IdentifiedFace, point: Callable[..., Any]) -> dict[str, Any]:
    """Return the fields of one face without its embedding; what is not known is as Face.msg says.

    ``point`` makes a geometry_msgs Point of ``x``, ``y`` and ``z``.
    """
    view, detection, identity, position = face.view, face.view.detection, face.identity, face.position
    fields: dict[str, Any] = {
        "track_id": face.track_id,
        "box_xyxy": detection.box_xyxy,
        "landmarks_xy": detection.landmarks_xy.ravel(),
        "detection_score": float(detection.score),
        "flatness": FLATNESS[face.flatness],
        "flatness_source": face.flatness_source,
        "quality": float(view.quality.overall),
        "size_px": detection.height,
        "yaw": float(view.pose.yaw),
        "pitch": float(view.pose.pitch),
        "roll": float(view.pose.roll),
        "identity_state": STATES[identity.state],
        "person_id": identity.person_id or "",
        "name": identity.name,
        "probability": float(identity.probability),
        "runner_up_probability": 0.0,
        "template_distance": number(identity.distance),
        "evidence_age": number(identity.evidence_age),
    }
    if identity.runner_up is not None:
        fields["runner_up_person_id"] = identity.runner_up.person_id
        fields["runner_up_name"] = identity.runner_up.name
        fields["runner_up_probability"] = float(identity.runner_up.probability)
    place, fields["position_covariance"] = np.zeros(3, np.float32), np.zeros(9, np.float32)
    if position is not None:
        place, fields["position_covariance"] = position.xyz_m, position.covariance_m2.ravel()
        fields["has_position"], fields["position_source"] = True, SOURCES[position.source]
    fields["position"] = point(**dict(zip("xyz", place.tolist(), strict=True)))
    return fields


def number(value: float | None) -> float:
    """Return the number, or NaN for "not known"."""
    return math.nan if value is None else float(value)

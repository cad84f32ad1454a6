"""The JSON line of a frame."""

from __future__ import annotations

import json

import numpy as np

from face_recognition_node.cli.recognize import frame_line
from face_recognition_node.vision.faces import (
    Detection,
    FaceQuality,
    FaceView,
    HeadPose,
    IdentifiedFace,
    Identity,
    IdentityState,
    RecognitionResult,
)


def face(identity: Identity) -> IdentifiedFace:
    points = np.array([[12.344, 20], [30, 20], [21, 30], [14, 40], [28, 40.006]])
    detection = Detection(np.array([10.126, 10, 32, 50]), 0.98765, points)
    return IdentifiedFace(7, FaceView(detection, 1.5, FaceQuality(*[0.5] * 6), HeadPose(0, 0, 0)), identity)


def result(*faces: IdentifiedFace) -> RecognitionResult:
    return RecognitionResult(1.2345678, "camera", (64, 48), faces, 3)


def test_a_line_has_exactly_the_agreed_form() -> None:
    known = Identity(IdentityState.KNOWN, "p-1", "Renée", 0.98765, None, 0.71234, 0.1)
    line = frame_line(12, result(face(known)))
    assert "\n" not in line
    assert "Renée" in line
    assert json.loads(line) == {
        "frame": 12,
        "stamp": 1.234568,
        "faces": [
            {
                "track_id": 7,
                "box": [10.13, 10.0, 32.0, 50.0],
                "landmarks": [[12.34, 20.0], [30.0, 20.0], [21.0, 30.0], [14.0, 40.0], [28.0, 40.01]],
                "score": 0.9877,
                "quality": 0.5,
                "state": "known",
                "person_id": "p-1",
                "name": "Renée",
                "probability": 0.9877,
                "distance": 0.7123,
                "flatness": "unverified",
                "flatness_source": "",
                "position": None,
            }
        ],
    }


def test_nothing_known_is_null_not_nan() -> None:
    (entry,) = json.loads(frame_line(0, result(face(Identity(distance=float("nan"))))))["faces"]
    assert (entry["state"], entry["person_id"], entry["name"], entry["distance"]) == (
        "undecided",
        None,
        "",
        None,
    )
    assert json.loads(frame_line(0, result())) == {"frame": 0, "stamp": 1.234568, "faces": []}

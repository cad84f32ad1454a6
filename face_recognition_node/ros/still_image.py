"""The service that enrols the one face of a still image."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from face_recognition_node.enrollment.goal import EnrollmentGoal
from face_recognition_node.enrollment.session import EnrollmentSession
from face_recognition_node.recognizer import Recognizer
from face_recognition_node.ros.conversions import image_to_bgr
from face_recognition_node.ros.messages import number, to_view_report
from face_recognition_node.ros.runtime import Runtime
from face_recognition_node.vision.faces import Frame, RecognitionResult


def add_face_from_image(runtime: Runtime, request: Any, response: Any) -> None:
    """Enrol the one face of the request's image; refuses an image with none or with several equal ones.

    Raises:
        FrameError: The image cannot be used.
        InputError: The name cannot be used.
    """
    message = request.image if len(request.image.data) else request.compressed_image
    result = _look(runtime, Frame(image_to_bgr(message), time.time()))
    goal = EnrollmentGoal(request.name, request.person_id or None, wanted_views=1, minimum_views=1)
    gallery, models = runtime.gallery, runtime.models
    # There is no second picture to wait for before one of the faces is chosen.
    config = replace(runtime.recognizer.config.enrollment, selection_s=0.0)
    session = EnrollmentSession(goal, gallery, models.calibration, config)
    session.observe(result)
    session.finish()
    outcome = session.result()
    response.success, response.message = outcome.success, outcome.message
    response.person_id, response.name = outcome.person_id or "", outcome.name
    if outcome.nearest is not None:
        response.nearest_person_id, response.nearest_name = outcome.nearest.person_id, outcome.nearest.name
    response.nearest_similarity = number(None if outcome.nearest is None else outcome.nearest.similarity)
    response.nearest_probability = number(None if outcome.nearest is None else outcome.nearest.probability)
    views = session.views or _most_prominent(result)
    if views:
        reasons = [reason.value for reason in outcome.rejections]
        response.view = to_view_report(
            views[0], "" if outcome.success else next(iter(reasons), outcome.outcome.value)
        )


def _look(runtime: Runtime, frame: Frame) -> RecognitionResult:
    """Find and embed the faces of a picture that has nothing to do with the camera's tracks."""
    models = runtime.models
    config = runtime.recognizer.config
    recognizer = Recognizer(
        models.detector, models.embedder, runtime.gallery, models.calibration, config, align=models.align
    )
    try:
        return recognizer.process(frame, embed_all=True)
    finally:
        recognizer.close()


def _most_prominent(result: RecognitionResult) -> tuple[Any, ...]:
    """Return the view of the largest face, if there is one: the one people will ask about."""
    views = (face.view for face in result.faces)
    return tuple(sorted(views, key=lambda view: -view.detection.size_px)[:1])

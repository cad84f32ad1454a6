"""Get to know a person from a camera: ``python examples/enroll_from_camera.py NAME SOURCE GALLERY``."""

import sys
from pathlib import Path

from face_recognition_node import Config, EnrollmentGoal, EnrollmentSession, Pipeline, open_source


def main(name: str, source: str = "0", gallery_path: str = "people.db") -> str:
    """Enroll the person in front of the camera, say the hints a robot would say, return the person's id."""
    hint = ""
    with Pipeline.open(Config(), Path(gallery_path)) as pipeline:
        session = EnrollmentSession(EnrollmentGoal(name), pipeline.gallery, pipeline.models.calibration)
        for frame in open_source(source):
            feedback = session.observe(pipeline.process(frame, embed_all=True))
            if feedback.hint and feedback.hint != hint:
                hint = feedback.hint
                print(hint)
            if session.finished:
                break
        session.finish()
        result = session.result()
    print(result.message)
    return result.person_id or ""


if __name__ == "__main__":
    main(*sys.argv[1:])

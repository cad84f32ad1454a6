"""Make the README's picture: what the pipeline says of the packaged sample video.

    ./run exec python tools/make_demo_picture.py

enrolls the guest from the running sample and writes three moments side by side to docs/images/demo.jpg.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from face_recognition_node.assembly import load_models
from face_recognition_node.config import Config
from face_recognition_node.enrollment.goal import EnrollmentGoal
from face_recognition_node.evaluation.replay.replay import make_bench
from face_recognition_node.media.annotate import draw_faces
from face_recognition_node.media.sources import open_source

MOMENTS_S = (0.1, 6.5, 10.6)
HEIGHT = 300
GAP = 6
TARGET = Path(__file__).resolve().parents[1] / "docs" / "images" / "demo.jpg"


def main() -> None:
    """Play the sample, enroll the guest from 0.2 s on, keep three frames."""
    config = Config()
    bench = make_bench(load_models(config), config)
    session = None
    kept = []
    for frame in open_source("sample"):
        if session is None and frame.stamp >= 0.2:
            session = bench.begin(EnrollmentGoal("Eileen"))
        result = bench.process(frame, embed_all=session is not None and not session.finished)
        if session is not None and not session.finished:
            session.observe(result)
        taken = len(kept) // 2
        if taken < len(MOMENTS_S) and frame.stamp >= MOMENTS_S[taken]:
            drawn = draw_faces(frame.image_bgr, result.faces)
            width = round(drawn.shape[1] * HEIGHT / drawn.shape[0])
            kept.append(cv2.resize(drawn, (width, HEIGHT), interpolation=cv2.INTER_AREA))
            kept.append(np.full((HEIGHT, GAP, 3), 255, np.uint8))
    cv2.imwrite(str(TARGET), np.hstack(kept[:-1]), [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()

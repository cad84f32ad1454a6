"""Recognize the people of a video: ``python examples/recognize_video.py SOURCE GALLERY``.

SOURCE is a video, a folder of pictures, a camera's number or ``sample``; GALLERY a file made by
``face-recognition enroll``. Without a gallery everybody is a stranger.
"""

import sys
from pathlib import Path

from face_recognition_node import Config, IdentityState, Pipeline, open_source


def main(source: str = "sample", gallery_path: str = "") -> None:
    """Print each change of what is claimed of a face."""
    path = Path(gallery_path) if gallery_path else None
    claims: dict[int, str] = {}
    with Pipeline.open(Config(), path) as pipeline:
        for frame in open_source(source):
            for face in pipeline.process(frame).faces:
                identity = face.identity
                claim = identity.name if identity.state is IdentityState.KNOWN else identity.state.value
                if claims.get(face.track_id) != claim:
                    claims[face.track_id] = claim
                    print(f"{frame.stamp:7.2f} s  face {face.track_id}: {claim} ({identity.probability:.2f})")


if __name__ == "__main__":
    main(*sys.argv[1:])

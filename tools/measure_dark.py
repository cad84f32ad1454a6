"""Who is known in the dark? Two people, enrolled in one light and met in another, for the notes.

    ./run exec python tools/measure_dark.py --data ../shared/data

The clips are reduced until the woman's face has the given size, darkened with a camera's noise, and given to
``face-recognition enroll`` and ``recognize`` as folders of images, just as a team would.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import cv2

from face_recognition_node.assembly import load_models
from face_recognition_node.common.errors import SourceError
from face_recognition_node.config import Config
from face_recognition_node.evaluation.degradation import darken_face
from face_recognition_node.media.sources import open_source

CLIPS = {"woman": "head-pose-face-detection-female.gif", "man": "head-pose-face-detection-male.gif"}
LIGHTS = (1.0, 0.25, 0.12)


def main() -> None:
    """Print who is named in how many frames, for each pair of lights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="DIR")
    parser.add_argument("--face-pixels", type=float, default=60.0)
    arguments = parser.parse_args()
    clips = {who: str(arguments.data / "clips" / file) for who, file in CLIPS.items()}
    scale = arguments.face_pixels / _face_size(clips["woman"])
    with tempfile.TemporaryDirectory(prefix="face_recognition_dark_") as name:
        folder = Path(name)
        for light in LIGHTS:
            for who, clip in clips.items():
                _write_darkened(clip, folder / f"{who}-{light}", scale, light)
        for enrolled in LIGHTS:
            gallery = folder / f"{enrolled}.db"
            for who in clips:
                _run(["enroll", who, str(folder / f"{who}-{enrolled}"), "--gallery", str(gallery)])
            for met in LIGHTS:
                for who in clips:
                    counts = _recognize(folder / f"{who}-{met}", gallery)
                    print(
                        f"enrolled at {enrolled:g} of the light, {who} met at {met:g}: {counts}", flush=True
                    )


def _face_size(clip: str) -> float:
    found = load_models(Config()).detector.detect(next(iter(open_source(clip))).image_bgr)
    if not found:
        raise SourceError(f"{clip}: expected a face in the first picture, found none")
    return found[0].size_px


def _write_darkened(clip: str, target: Path, scale: float, light: float) -> None:
    target.mkdir()
    for number, frame in enumerate(open_source(clip)):
        small = cv2.resize(frame.image_bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(target / f"{number:04d}.png"), darken_face(small.astype("uint8", copy=False), light))


def _recognize(source: Path, gallery: Path) -> str:
    seen = Path(f"{source}.jsonl")
    _run(["recognize", str(source), "--gallery", str(gallery), "--json", str(seen)])
    frames = [json.loads(line)["faces"] for line in seen.read_text().splitlines()]
    counts = Counter(face["name"] or face["state"] for faces in frames for face in faces)
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) + f" of {len(frames)} frames"


def _run(arguments: list[str]) -> None:
    """Run a verb; its exit code also says whether somebody was recognized, which is not an error here."""
    done = subprocess.run(
        [sys.executable, "-m", "face_recognition_node.cli", *arguments], capture_output=True, text=True
    )
    if done.returncode == 2:
        raise SystemExit(done.stderr)


if __name__ == "__main__":
    main()

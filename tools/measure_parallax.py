"""How often does motion call heads solid and pictures flat? Clips, and heads and pictures turned by a hand.

    ./run exec python tools/measure_parallax.py DATA [--people 14]

Clips: real heads, looked at from every tenth frame on. Heads: RAP3DF people turned with their measured
relief. Pictures: the same people as prints, tilted in the same way.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from command import run_tool

from face_recognition_node.assembly import load_models
from face_recognition_node.config import Config
from face_recognition_node.evaluation.scenes.cast import Cast, Cutout
from face_recognition_node.evaluation.scenes.scene import FACE_HEIGHT_M
from face_recognition_node.media.sources import open_source
from face_recognition_node.vision.detector import Detector
from face_recognition_node.vision.faces import FloatArray, Frame, ImageArray
from face_recognition_node.vision.flatness import MotionEvidence

# degrees to which the head or the print is turned to either side; up and down to 0.6 of it
SWINGS = (12, 20, 30, 40)
SIZE, FOCAL_PX, DISTANCE_M = (256, 224), 600.0, 1.2


def turned(cutout: Cutout, swing: float, seed: int, *, is_picture: bool) -> Iterator[Frame]:
    """Yield 2.4 s at 10 Hz of a cut-out that turns, rolls, moves and comes nearer as in a hand."""
    random = np.random.default_rng(seed)
    phase, rate = random.uniform(0, 2 * math.pi, 6), random.uniform(0.25, 0.6, 6)
    image = np.where(cutout.alpha[..., None] > 0.5, cutout.image_bgr, 150).astype(np.uint8)
    relief = np.zeros(image.shape[:2], np.float32)
    if not is_picture and cutout.relief_m is not None:
        behind = float(np.nanpercentile(cutout.relief_m, 95))
        relief = np.nan_to_num(np.clip(cutout.relief_m, -0.06, 0.1), nan=behind).astype(np.float32)
        relief = np.asarray(cv2.GaussianBlur(relief, (0, 0), 1.5), np.float32)
    for k in range(24):
        way = np.sin(2 * math.pi * rate * k / 10 + phase)
        angles = np.radians([0.6 * swing * way[1], swing * way[0], 6 * way[2]])
        turn = np.linalg.multi_dot([cv2.Rodrigues(row)[0] for row in np.diag(angles)[::-1]])
        place = np.array([0.04 * way[3], 0.02 * way[4], DISTANCE_M * (1 + 0.05 * way[5])])
        seen = _render(image, relief, FACE_HEIGHT_M / cutout.height_px, turn, place)
        seen = seen + random.normal(0, 3, seen.shape[:2])[..., None]
        yield Frame(np.clip(seen, 0, 255).astype(np.uint8), k / 10, "")


def _render(
    image: ImageArray, relief: FloatArray, pixel_m: float, turn: FloatArray, place: FloatArray
) -> FloatArray:
    """Return what a pinhole camera sees: each pixel's ray meets the surface after a few steps."""
    u, v = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    rays = np.stack([(u - SIZE[0] / 2) / FOCAL_PX, (v - SIZE[1] / 2) / FOCAL_PX, np.ones(u.shape)], axis=-1)
    rays, origin = rays @ turn, place @ turn
    height = np.zeros(u.shape)
    for _ in range(3):
        points = rays * ((height + origin[2]) / rays[..., 2])[..., None] - origin
        x = (points[..., 0] / pixel_m + image.shape[1] / 2).astype(np.float32)
        y = (points[..., 1] / pixel_m + image.shape[0] / 2).astype(np.float32)
        height = cv2.remap(relief, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    gray = (120.0, 120.0, 120.0)
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_CUBIC, borderValue=gray), np.float32)


def judged(frames: Iterable[Frame], detector: Detector) -> str:
    """Return the last verdict on the largest face."""
    evidence = MotionEvidence()
    for frame in frames:
        if found := [face for face in detector.detect(frame.image_bgr) if face.score > 0.5]:
            evidence.add(frame.image_bgr, max(found, key=lambda face: face.size_px), frame.stamp)
    return evidence.verdict


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("data", type=Path, metavar="DATA", help="folder with clips and RAP3DF")
    parser.add_argument("--people", type=int, default=14, metavar="N", help="RAP3DF people (default: 14)")


def run(arguments: argparse.Namespace) -> int:
    """Print how often each verdict came."""
    detector = load_models(Config()).detector
    cast = Cast([arguments.data], detector)
    verdicts: Counter[str] = Counter()
    for path in sorted(cast.sources["clips"].iterdir()):
        source = open_source(str(path))
        frames = [Frame(f.image_bgr, k / source.rate_hz, "") for k, f in enumerate(source)]
        verdicts.update(judged(frames[first:], detector) for first in range(0, len(frames) - 8, 10))
    print("clips", dict(verdicts), flush=True)
    for swing in SWINGS:
        for is_picture in (False, True):
            verdicts = Counter(
                judged(turned(person.meet[0].cutouts[0], swing, k, is_picture=is_picture), detector)
                for k, person in enumerate(cast.people("heads", arguments.people))
            )
            print(f"{'pictures' if is_picture else 'heads'} to {swing} degrees", dict(verdicts), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(__doc__, configure, run))

"""Who is known by hard light from one side? Archives are relit with a head's shape, for the notes.

    ./run exec python tools/measure_side_light.py orl_faces.zip lfw_pairs_112.zip

Everybody is enrolled from half of the pictures as they are, and met in the other half relit from the side: a
lamp at an angle to the camera shines on a smooth head (an ellipsoid with nose and eye sockets, the same for
all), with the shadows that it casts on itself, a tenth of the light from everywhere, and a camera's noise.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from pathlib import Path

import cv2
import numpy as np
from command import run_tool
from face_collections import find_faces

from face_recognition_node.assembly import load_models
from face_recognition_node.config import Config
from face_recognition_node.evaluation.identification import identify
from face_recognition_node.vision import embedding
from face_recognition_node.vision.faces import FloatArray, ImageArray

ANGLES = (0, 25, 50, 65, 77)  # degrees between lamp and camera, the middles of Extended Yale B's subsets
MOST_FACES = 700
AMBIENT = 0.1
NOISE = 2.0


def head_depth() -> FloatArray:
    """Return (112, 112) how far each place of an aligned crop stands out towards the camera, pixels."""
    y, x = np.mgrid[0:112, 0:112].astype(np.float32)
    head = 52 * np.sqrt(np.clip(1 - ((x - 56) / 48) ** 2 - ((y - 66) / 64) ** 2, 0.0, None))
    nose = 13 * np.exp(-(((x - 56) / 7) ** 2)) * np.clip((y - 44) / 28, 0, 1) * (y < 76)
    eyes = sum(5 * np.exp(-(((x - at) / 9) ** 2) - ((y - 52) / 6) ** 2) for at in (38, 74))
    return np.asarray(cv2.GaussianBlur(np.asarray(head + nose - eyes, np.float32), (0, 0), 1.5), np.float32)


def side_light(angle: float) -> FloatArray:
    """Return (112, 112) the share of light that a lamp at an angle (degrees, from the right) gives."""
    depth = head_depth()
    down, across = np.gradient(depth)
    normal = np.stack([-across, -down, np.ones_like(depth)]) / np.sqrt(across**2 + down**2 + 1)
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    direct = np.clip(normal[0] * sine + normal[2] * cosine, 0, None)
    shadow = np.zeros_like(depth)
    for step in np.arange(1.0, 60.0):
        ray = np.array([[1, 0, step * sine], [0, 1, 0]], np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        met = cv2.warpAffine(depth, ray, depth.shape, flags=flags, borderMode=cv2.BORDER_CONSTANT)
        shadow = np.maximum(shadow, met > depth + step * cosine + 0.5)
    lit = direct * (1 - cv2.GaussianBlur(shadow, (0, 0), 1.0))
    return np.asarray(AMBIENT + (1 - AMBIENT) * lit, np.float32)


def relight(crop_bgr: ImageArray, angle: float, random: np.random.Generator) -> ImageArray:
    """Return a crop as if lit from the side, on either side by chance; the lamp alone is changed."""
    share = side_light(angle) / side_light(0)
    share = share[:, ::-1] if random.random() < 0.5 else share
    linear = (crop_bgr / np.float32(255)) ** 2.2 * np.minimum(share, 1.5)[..., None]
    noise = NOISE * random.standard_normal(crop_bgr.shape[:2])[..., None]
    return np.asarray(np.clip(255 * linear ** (1 / 2.2) + noise, 0, 255), np.uint8)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("archives", nargs="+", type=Path, metavar="ARCHIVE", help="ORL, RAP3DF or LFW faces")
    parser.add_argument("--picture", type=Path, metavar="OUT.png", help="write what relit faces look like")


def run(arguments: argparse.Namespace) -> int:
    """Print rank-1 rates, with the node's brightening of dark faces and without."""
    models = load_models(Config())
    brighten = embedding.brighten_faces
    for archive in arguments.archives:
        found = list(itertools.islice(find_faces(archive, models), MOST_FACES))
        crops = np.stack([crop for *_, crop in found])
        names, people = np.unique([person for person, *_ in found], return_inverse=True)
        order = np.array([np.count_nonzero(people[:k] == who) for k, who in enumerate(people)])
        is_enrolled = order % 2 == 0
        gallery = models.embedder.embed(crops[is_enrolled])
        for angle in ANGLES:
            random = np.random.default_rng(angle)
            met = crops[~is_enrolled]
            relit = np.stack([relight(crop, angle, random) for crop in met]) if angle else met
            if arguments.picture and angle == ANGLES[-1]:
                cv2.imwrite(str(arguments.picture), np.vstack([np.hstack(met[:8]), np.hstack(relit[:8])]))
            rates = []
            for how in (brighten, lambda crops: crops):
                embedding.brighten_faces = how
                _, who = identify(models.embedder.embed(relit), gallery, people[is_enrolled])
                rates.append(float((who == people[~is_enrolled]).mean()))
            embedding.brighten_faces = brighten
            print(f"{archive.name}: {len(names)} people, {len(relit)} faces relit at {angle} degrees: rank 1 "
                  f"{rates[0]:.3f}, without brightening {rates[1]:.3f}", flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(run_tool(__doc__, configure, run))

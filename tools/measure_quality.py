"""Does the quality of a view predict recognition? Measured on aligned faces, for docs/notes/performance.md.

    ./run exec python tools/measure_quality.py ../shared/data/lfw_pairs_112.zip

Of each person two photographs are taken; one is degraded in many ways (far, out of focus, moved, dark, too
bright, and pairs of these), the other left as it is. It prints

* which share of the pair's similarity is left, by the quality of the degraded face, and the rank correlation
  of the two over the ways and over single faces;
* the error-versus-discard characteristic (Grother and Tabassi 2007): the false non-match rate at a false
  match rate of 1e-3 once the faces of lowest quality are discarded.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from scipy.stats import spearmanr

from face_recognition_node.assembly import load_models
from face_recognition_node.config import Config
from face_recognition_node.evaluation.calibration_faces import list_photographs, locate, person_of
from face_recognition_node.evaluation.degradation import blur_face, darken_face, reduce_face
from face_recognition_node.vision.faces import Detection, FloatArray, ImageArray
from face_recognition_node.vision.quality import assess_quality

EDGES = (0.0, 0.36, 0.57, 0.69, 0.79, 0.86, 0.91, 0.94, 0.97, 0.99, 1.001)
DISCARDED = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
FALSE_MATCH_RATE = 1e-3
CLEAR = 0.3  # pairs less alike than this as they came say little about the share that is left

# the scale of the face that the picture stands for, and what is done to it
Way = tuple[float, Callable[[ImageArray], ImageArray]]


def main() -> None:
    """Embed everything and print the two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("faces", type=Path, help="zip or folder of aligned faces, PERSON/FILE")
    parser.add_argument("--people", type=int, default=700)
    arguments = parser.parse_args()
    models = load_models(Config())
    names, read = list_photographs(arguments.faces)
    of_person = defaultdict(list)
    for name in names:
        of_person[person_of(name)].append(name)
    pairs = [photographs[:2] for photographs in of_person.values() if len(photographs) > 1]
    chosen = np.random.default_rng(0).permutation(len(pairs))[: arguments.people]
    ways = _ways()
    clean, probes, qualities = [], [], []
    for k in chosen.tolist():
        mate, probe = (read(name) for name in pairs[k])
        place = locate(probe, models.detector)
        versions = np.stack([change(probe) for _, change in ways])
        places = [
            Detection(place.box_xyxy * np.float32(scale), place.score, place.landmarks_xy * np.float32(scale))
            for scale, _ in ways
        ]
        clean.append(models.embedder.embed(mate[None])[0])
        probes.append(models.embedder.embed(versions))
        qualities.append([quality.overall for quality in assess_quality(versions, places)])
    describe(np.stack(clean), np.stack(probes), np.array(qualities))


def _ways() -> list[Way]:
    """Return what is done to a face; the first does nothing."""
    ways: list[Way] = [(1.0, partial(blur_face, sigma=0.0))]
    ways += [(side / 112, partial(reduce_face, side=side)) for side in (12, 16, 20, 24, 32, 40, 56)]
    ways += [(1.0, partial(blur_face, sigma=sigma)) for sigma in (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)]
    ways += [(1.0, partial(_move, length=length)) for length in (5, 9, 13, 19)]
    ways += [(1.0, partial(darken_face, light=light, noise=3.0)) for light in (0.5, 0.25, 0.12, 0.06)]
    ways += [(1.0, partial(_overexpose, gain=gain)) for gain in (1.5, 2.0, 3.0)]
    ways.append((24 / 112, lambda face: reduce_face(darken_face(face, 0.25, 3.0), 24)))
    ways.append((32 / 112, lambda face: reduce_face(_move(face, 9), 32)))
    ways.append((1.0, lambda face: darken_face(blur_face(face, 1.5), 0.12, 3.0)))
    return ways


def _move(face: ImageArray, length: int) -> ImageArray:
    """Return the face as it comes out when it moves sideways by so many pixels during the exposure."""
    return np.asarray(cv2.blur(face, (length, 1)), np.uint8)


def _overexpose(face: ImageArray, gain: float) -> ImageArray:
    return np.asarray(cv2.convertScaleAbs(face, alpha=gain), np.uint8)


def describe(clean: FloatArray, probes: FloatArray, qualities: np.ndarray) -> None:
    """Print what (N, D) clean and (N, W, D) degraded faces with (N, W) qualities say."""
    similarity = np.einsum("nd,nwd->nw", clean, probes)
    whole = similarity[:, :1]
    clear = whole[:, 0] > CLEAR
    left, quality = (similarity / whole)[clear], qualities[clear]
    print(f"{quality.size} views of {len(quality)} people, degraded in {quality.shape[1] - 1} ways")
    print("overall  | similarity left (median)")
    for low, high in pairwise(EDGES):
        inside = (quality >= low) & (quality < high)
        if inside.any():
            print(f"{low:.2f}-{min(high, 1.0):.2f} | {np.median(left[inside]):.2f} ({inside.sum()} views)")
    of_ways = spearmanr(quality.mean(axis=0), left.mean(axis=0)).statistic
    of_faces = spearmanr(quality.ravel(), left.ravel()).statistic
    print(f"rank correlation: {of_ways:.2f} over the ways, {of_faces:.2f} over single views")

    others = np.einsum("nd,mwd->nmw", clean, probes)
    apart = ~np.eye(len(clean), dtype=bool)
    threshold = float(np.quantile(others[apart], 1.0 - FALSE_MATCH_RATE))
    missed = (similarity < threshold).ravel()[np.argsort(qualities.ravel())]
    print(f"false non-match rate at a false match rate of {FALSE_MATCH_RATE:g} (cosine {threshold:.3f})")
    for share in DISCARDED:
        kept = missed[round(share * len(missed)) :]
        print(f"{100 * share:3.0f} % discarded: {100 * kept.mean():.1f} %")


if __name__ == "__main__":
    main()

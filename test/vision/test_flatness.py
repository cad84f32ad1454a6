"""Heads and pictures of heads, as a depth camera of known noise sees them; and real heads."""

import zipfile

import cv2
import numpy as np
import pytest

from face_recognition_node.vision import flatness
from face_recognition_node.vision.faces import Detection, Intrinsics
from face_recognition_node.vision.flatness import (
    FLAT,
    LEAST_BULGE_M,
    SOLID,
    UNVERIFIED,
    Bulge,
    BulgeEvidence,
    sample_face_depth,
)
from face_recognition_node.vision.pose import position_from_depth

FOCAL_PX = 525.0
SIZE = (480, 640)
CENTRE = (320.0, 240.0)


def measure_bulge(depth_m: np.ndarray, detection: Detection) -> Bulge | None:
    face = sample_face_depth(depth_m, detection)
    return None if face is None else flatness.measure_bulge(face)


def noisy(depth: np.ndarray, seed: int) -> np.ndarray:
    """Axial noise of a structured-light camera (Nguyen, Izadi and Lovell 2012), and holes."""
    random = np.random.default_rng(seed)
    sigma = 0.0012 + 0.0019 * (depth - 0.4) ** 2
    seen = (depth + sigma * random.standard_normal(depth.shape)).astype(np.float32)
    seen[random.random(depth.shape) < 0.05] = np.nan
    return seen


def rays() -> tuple[np.ndarray, np.ndarray]:
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    return (u + 0.5 - CENTRE[0]) / FOCAL_PX, (v + 0.5 - CENTRE[1]) / FOCAL_PX


def face_at(distance: float, width_m: float = 0.14) -> Detection:
    half = np.array([width_m, 1.3 * width_m]) * FOCAL_PX / distance / 2
    box = np.concatenate([np.array(CENTRE) - half, np.array(CENTRE) + half]).astype(np.float32)
    return Detection(box, 0.99, np.full((5, 2), 320, np.float32))


def plane(distance: float, yaw_deg: float = 0.0, pitch_deg: float = 0.0) -> np.ndarray:
    x, y = rays()
    yaw, pitch = np.tan(np.deg2rad([yaw_deg, pitch_deg]))
    return distance / (1 - yaw * x - pitch * y)


def head(distance: float, scale: float = 1.0) -> np.ndarray:
    """The near side of an ellipsoid of a head's size before a wall; its nearest point at ``distance``."""
    x, y = rays()
    a, b, c = 0.075 * scale, 0.135 * scale, 0.095 * scale
    middle = distance + c
    p = (x / a) ** 2 + (y / b) ** 2 + 1 / c**2
    q = -2 * middle / c**2
    r = (middle / c) ** 2 - 1
    root = q * q - 4 * p * r
    return np.where(root >= 0, (-q - np.sqrt(np.maximum(root, 0))) / (2 * p), distance + 2.0)


def chest(distance: float, radius: float = 0.16) -> np.ndarray:
    """An upright cylinder: a shirt on a chest."""
    x, _ = rays()
    middle = distance + radius
    root = middle**2 - (1 + x**2) * (middle**2 - radius**2)
    return np.where(root >= 0, (middle - np.sqrt(np.maximum(root, 0))) / (1 + x**2), distance + 2.0)


def verdict_after(scene: np.ndarray, detection: Detection, frames: int = 5) -> str:
    evidence = BulgeEvidence()
    for seed in range(frames):
        bulge = measure_bulge(noisy(scene, seed), detection)
        if bulge is not None:
            evidence.add(bulge)
    return evidence.verdict


@pytest.mark.parametrize("distance", [0.6, 1.0, 1.5, 2.5, 3.0])
@pytest.mark.parametrize("scale", [0.8, 1.0])
def test_a_head_is_solid(distance: float, scale: float) -> None:
    assert verdict_after(head(distance, scale), face_at(distance, 0.14 * scale)) == SOLID


@pytest.mark.parametrize("distance", [0.6, 1.0, 1.5, 2.5, 3.0])
@pytest.mark.parametrize("slant", [(0, 0), (40, 0), (-30, 20)])
def test_a_poster_is_flat_at_any_slant(distance: float, slant: tuple[float, float]) -> None:
    assert verdict_after(plane(distance, *slant), face_at(distance)) == FLAT


def test_a_picture_on_a_telephone_and_on_a_shirt_is_flat() -> None:
    assert verdict_after(plane(0.6, 25), face_at(0.6, 0.05)) == FLAT
    assert verdict_after(chest(1.5), face_at(1.5)) == FLAT


def test_the_bulge_of_a_noiseless_plane_is_zero_and_of_a_hollow_negative() -> None:
    bulge = measure_bulge(plane(1.0, 35, -20).astype(np.float32), face_at(1.0))
    assert bulge is not None
    assert abs(bulge.metres) < 1e-5
    hollow = (2.0 - head(1.0)).astype(np.float32)
    bulge = measure_bulge(hollow, face_at(1.0))
    assert bulge is not None
    assert bulge.metres < -LEAST_BULGE_M


def test_little_depth_gives_no_verdict() -> None:
    nothing = np.full(SIZE, np.nan, np.float32)
    assert measure_bulge(nothing, face_at(1.0)) is None
    half = noisy(head(1.0), 0)
    half[:, 315:] = np.nan
    assert measure_bulge(half, face_at(1.0)) is None
    outside = Detection(np.array([900, 10, 950, 70], np.float32), 0.9, np.zeros((5, 2), np.float32))
    assert measure_bulge(noisy(head(1.0), 0), outside) is None
    six_pixels = Detection(np.array([317, 236, 323, 244], np.float32), 0.9, np.zeros((5, 2), np.float32))
    assert measure_bulge(noisy(head(1.0), 0), six_pixels) is None
    assert BulgeEvidence().verdict == UNVERIFIED


def test_a_face_is_located_at_its_depth_along_its_ray() -> None:
    box = np.array([420, 100, 480, 180], np.float32)
    detection = Detection(box, 0.99, np.zeros((5, 2), np.float32))
    face = sample_face_depth(np.full(SIZE, 2.0, np.float32), detection)
    assert face is not None
    position = position_from_depth(face.median, detection, Intrinsics(FOCAL_PX, FOCAL_PX, *CENTRE)).xyz_m
    assert position == pytest.approx([(450 - 320) / FOCAL_PX * 2, (140 - 240) / FOCAL_PX * 2, 2.0])


def test_an_unclear_bulge_is_no_verdict_and_a_lasting_change_turns_it() -> None:
    evidence = BulgeEvidence()
    evidence.add(Bulge(LEAST_BULGE_M + 0.001, 0.004))
    assert evidence.verdict == UNVERIFIED
    for _ in range(20):
        evidence.add(Bulge(0.0, 0.003))
    assert evidence.verdict == FLAT
    for _ in range(30):
        evidence.add(Bulge(0.02, 0.003))
    assert evidence.verdict == SOLID


def test_real_heads_bulge(shared_data) -> None:
    archive = shared_data / "rap3df_rgbd.zip"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there")
    bulging = []
    with zipfile.ZipFile(archive) as files:
        names = sorted(name for name in files.namelist() if name.endswith("_depth.png"))[::5]
        for name in names:
            raw = cv2.imdecode(np.frombuffer(files.read(name), np.uint8), cv2.IMREAD_UNCHANGED)
            depth = raw.astype(np.float32)
            depth[depth == 0] = np.nan
            # Depth comes without a unit; from the tip of the nose to the sides of a head are 6 cm at least.
            near, far = np.nanpercentile(depth, [5, 95])
            metres = 1.0 + 0.06 * (depth - near) / (far - near)
            height, width = metres.shape
            box = np.array([0.15 * width, 0.15 * height, 0.85 * width, 0.85 * height], np.float32)
            bulge = measure_bulge(metres, Detection(box, 0.99, np.zeros((5, 2), np.float32)))
            if bulge is not None:
                bulging.append(bulge.metres)
    assert len(bulging) > 0.8 * len(names)
    assert np.mean(np.array(bulging) > LEAST_BULGE_M) > 0.9
    assert min(bulging) > 0.004

"""Fixtures for the whole suite: sample pictures, a seeded generator, the folder of real test data."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from face_world import FaceWorld, empty_gallery
from hypothesis import HealthCheck, settings
from identity_desk import Desk

from face_recognition_node.gallery.gallery import Gallery

ROOT = Path(__file__).resolve().parents[1]

# Same examples on every run and no time limit per example: a slow machine must not turn the suite red.
settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("suite")

# A shell's background jobs ignore the interrupt, and so would the programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import files all of whose tests are of a kind that ``-m "not KIND"`` leaves out."""
    if collection_path.suffix != ".py":
        return None
    kinds = re.findall(r"^pytestmark = pytest\.mark\.(\w+)", collection_path.read_text("utf-8"), re.MULTILINE)
    return any(f"not {kind}" in config.option.markexpr for kind in kinds) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need real faces, by the fixtures that they ask for."""
    for item in items:
        if {"shared_data", "clips"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.data)


def find_shared_data() -> Path:
    """Return where real faces are looked for: $FACE_RECOGNITION_DATA, else ../shared/data."""
    named = os.environ.get("FACE_RECOGNITION_DATA")
    return Path(named).expanduser() if named else ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real faces (never part of the project), or skip saying where it was looked for."""
    folder = find_shared_data()
    if not folder.is_dir():
        pytest.skip(
            f"no test data at {folder}: set FACE_RECOGNITION_DATA to the folder with clips/ and the zips"
        )
    return folder


@pytest.fixture(scope="session")
def clips(shared_data: Path) -> Path:
    """Return the folder of short video clips, or skip."""
    folder = shared_data / "clips"
    if not folder.is_dir():
        pytest.skip(f"no clips at {folder}")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator that gives the same numbers in every run."""
    return np.random.default_rng(20260117)


@pytest.fixture(scope="session")
def guest_bgr() -> np.ndarray:
    """Return the public-domain portrait of the person who gets enrolled in the demo."""
    from face_recognition_node.media.sample import portrait

    return portrait("guest")


@pytest.fixture(scope="session")
def stranger_bgr() -> np.ndarray:
    """Return the public-domain portrait of the person who stays a stranger in the demo."""
    from face_recognition_node.media.sample import portrait

    return portrait("stranger")


@pytest.fixture(scope="session")
def two_faces_bgr() -> np.ndarray:
    """Return a 640x480 picture with the guest on the left and the stranger on the right."""
    from face_recognition_node.media.sample import sample_frame

    return sample_frame(size=(640, 480), faces=2)


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the sample video as a folder of pictures: ten a second, of half the pixels."""
    import cv2

    from face_recognition_node.media.sample import DURATION_S, render

    folder = tmp_path_factory.mktemp("sample")
    for number in range(int(10 * DURATION_S)):
        cv2.imwrite(str(folder / f"{number:03d}.jpg"), render(number / 10, (480, 360)))
    return folder


@pytest.fixture
def gallery() -> Iterator[Gallery]:
    """Open a gallery in memory that holds nobody."""
    with empty_gallery() as opened:
        yield opened


@pytest.fixture
def world() -> FaceWorld:
    """Return made-up people whose faces have known directions."""
    return FaceWorld()


@pytest.fixture
def desk(world: FaceWorld) -> Desk:
    """Return a resolver with a gallery, and tracks of those people to be filled by hand."""
    return Desk(world)

"""The whole pipeline with the real networks on the portraits that the project carries."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest

from face_recognition_node.assembly import Models, Pipeline, load_models
from face_recognition_node.common.background import BackgroundWriter
from face_recognition_node.common.errors import FrameError, GalleryMismatchError, GalleryUnavailableError
from face_recognition_node.common.parameters import with_values
from face_recognition_node.common.stages import StageClock
from face_recognition_node.config import Config
from face_recognition_node.gallery.gallery import Gallery
from face_recognition_node.gallery.values import NewTemplate
from face_recognition_node.recognizer import Recognizer
from face_recognition_node.vision.faces import (
    Detection,
    Frame,
    IdentifiedFace,
    IdentityState,
    RecognitionResult,
)

SIZE = (480, 270)


class CountingEmbedder:
    """Counts the faces that the real embedder is given."""

    def __init__(self, models: Models) -> None:
        self.inner, self.faces, self.calls = models.embedder, 0, 0
        self.dimension, self.fingerprint = models.embedder.dimension, models.embedder.fingerprint
        self.precision = "fp32"

    def embed(self, crops_bgr: np.ndarray) -> np.ndarray:
        self.faces += len(crops_bgr)
        self.calls += 1
        return self.inner.embed(crops_bgr)


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models(with_values(Config(), {"models.threads": 1}))


class Stage:
    """A recognizer and pictures with portraits put anywhere."""

    def __init__(
        self,
        models: Models,
        portraits: dict[str, np.ndarray],
        rotate: int = 0,
        is_live: bool = False,
        **values: object,
    ) -> None:
        self.config = with_values(
            Config(), {name.replace("__", "."): value for name, value in values.items()}
        )
        self.embedder = CountingEmbedder(models)
        counted = replace(models, embedder=self.embedder)  # type: ignore[arg-type]
        self.pipeline = Pipeline.open(self.config, models=counted, rotate=rotate, is_live=is_live)
        self.recognizer, self.gallery = self.pipeline.recognizer, self.pipeline.gallery
        self.rng = np.random.default_rng(0)
        self.portraits, self.stamp, self.rotate = portraits, 0.0, rotate

    def picture(self, places: Sequence[tuple[str, float, float, float]]) -> np.ndarray:
        """Return a picture with each portrait's face (who, x, y, height in pixels), later ones in front."""
        image = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
        for who, x, y, height in places:
            face = self.portraits[who]
            scale = height / face.shape[0]
            matrix = np.array([[scale, 0, x - scale * face.shape[1] / 2], [0, scale, y - height / 2]])
            cv2.warpAffine(
                face, matrix, SIZE, dst=image, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_TRANSPARENT
            )
        noise = self.rng.normal(0, 2, image.shape)
        return np.clip(image + noise, 0, 255).astype(np.uint8)

    def show(
        self,
        *places: tuple[str, float, float, float],
        wait: float = 0.1,
        depth_m: np.ndarray | None = None,
        embed_all: bool = False,
    ) -> RecognitionResult:
        self.stamp += wait
        image = self.picture(places)
        if self.rotate:
            image = cv2.rotate(image, {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180}[self.rotate])
        return self.recognizer.process(Frame(image, self.stamp, "camera", depth_m), embed_all=embed_all)

    def enroll(self, who: str, name: str) -> str:
        views = []
        for shift in (0, 3, 6):
            (face,) = self.show((who, 200 + shift, 135, 200 + 4 * shift), embed_all=True).faces
            assert face.view.embedding is not None
            views.append(NewTemplate(face.view.embedding, face.view.quality.overall, face.view.pose))
        self.recognizer.reset()
        return self.gallery.add_person(name, views).person_id


@pytest.fixture(scope="module")
def portraits(models: Models, guest_bgr: np.ndarray, stranger_bgr: np.ndarray) -> dict[str, np.ndarray]:
    """Return the heads of the two portraits, twice as high and wide as the face in their middle."""
    heads = {}
    for who, image in (("guest", guest_bgr), ("other", stranger_bgr)):
        face = models.detector.detect(image)[0]
        x, y = face.center_xy
        reach = face.height
        heads[who] = cv2.getRectSubPix(image, (round(2 * reach), round(2 * reach)), (float(x), float(y)))
    return heads


@pytest.fixture
def stage(models: Models, portraits: dict[str, np.ndarray]) -> Iterator[Stage]:
    stage = Stage(models, portraits, strangers__enabled=False)
    yield stage
    stage.pipeline.close()


def leftmost(result: RecognitionResult) -> IdentifiedFace:
    return min(result.faces, key=lambda face: face.view.detection.center_xy[0])


def test_empty_picture(stage: Stage) -> None:
    result = stage.show()
    assert result.faces == ()
    assert result.image_size == SIZE
    assert set(result.stage_seconds) == {"resize", "detect", "align", "embed", "track", "search"}
    assert stage.embedder.calls == 0


def test_header_is_kept_and_bad_frames_are_refused(stage: Stage) -> None:
    result = stage.show(("guest", 200, 135, 200))
    assert (result.stamp, result.frame_id) == (stage.stamp, "camera")
    with pytest.raises(FrameError):
        Frame(np.zeros((0, 5, 3), np.uint8), 1.0)


def test_named_at_once_and_the_other_never(stage: Stage) -> None:
    anna = stage.enroll("guest", "Anna")
    for _ in range(10):
        result = stage.show(("guest", 120, 135, 180), ("other", 360, 135, 180))
        assert len(result.faces) == 2
        assert leftmost(result).identity.person_id == anna
        other = max(result.faces, key=lambda face: face.view.detection.center_xy[0])
        assert other.identity.state is not IdentityState.KNOWN
    assert result.gallery_version == stage.gallery.snapshot().version


def test_faces_of_a_frame_are_embedded_in_one_call(stage: Stage) -> None:
    stage.show(("guest", 120, 135, 180), ("other", 360, 135, 180))
    assert (stage.embedder.calls, stage.embedder.faces) == (1, 2)


@pytest.mark.slow
def test_certain_faces_are_embedded_now_and_then_undecided_ones_always(stage: Stage) -> None:
    stage.enroll("guest", "Anna")
    places = (("guest", 120, 135, 180), ("other", 360, 135, 180))
    for _ in range(10):
        stage.show(*places)
    stage.embedder.faces = 0
    for _ in range(20):
        stage.show(*places)
    assert stage.embedder.faces == 20 + 20 / stage.config.tracker.recheck_frames
    stage.embedder.faces = 0
    result = stage.show(*places, embed_all=True)
    assert stage.embedder.faces == 2
    assert all(face.view.crop_bgr is not None and face.view.embedding is not None for face in result.faces)


def test_a_certain_face_that_is_exchanged_is_noticed_in_the_same_frame(stage: Stage) -> None:
    """A cut in the video: somebody else's face in the very same place."""
    stage.enroll("guest", "Anna")
    for _ in range(11):
        before = stage.show(("guest", 200, 135, 180))
    assert before.faces[0].identity.name == "Anna"
    after = stage.show(("other", 200, 135, 180), wait=0.033)
    assert after.faces[0].identity.name == ""
    assert after.faces[0].track_id != before.faces[0].track_id
    back = stage.show(("guest", 200, 135, 180), wait=0.033)
    assert back.faces[0].track_id == before.faces[0].track_id
    assert back.faces[0].identity.name == "Anna"


@pytest.mark.slow
def test_two_enrolled_people_cross(stage: Stage) -> None:
    names = {stage.enroll("guest", "Anna"): "guest", stage.enroll("other", "Bea"): "other"}
    tracks: dict[str, set[int]] = {"Anna": set(), "Bea": set()}
    for k in range(41):
        x = 80 + 8 * k
        result = stage.show(("other", 480 - x, 135, 150), ("guest", x, 135, 170), wait=0.05)
        for face in result.faces:
            if face.identity.person_id is None:
                continue
            who = names[face.identity.person_id]
            expected = x if who == "guest" else 480 - x
            if abs(480 - 2 * x) > 60:
                assert abs(face.view.detection.center_xy[0] - expected) < 30, f"frame {k}"
            tracks[face.identity.name].add(face.track_id)
    assert [len(numbers) for numbers in tracks.values()] == [1, 1]


def test_time_set_back_starts_afresh(stage: Stage) -> None:
    stage.enroll("guest", "Anna")
    for _ in range(3):
        before = stage.show(("guest", 200, 135, 180))
    stage.stamp = -100.0
    after = stage.show(("guest", 200, 135, 180))
    assert after.stamp < 0
    assert after.faces[0].track_id > before.faces[0].track_id
    assert after.faces[0].identity.name == "Anna"
    assert stage.show(("guest", 200, 135, 180)).faces[0].track_id == after.faces[0].track_id


def test_a_frame_slightly_late_changes_nothing(stage: Stage) -> None:
    first = stage.show(("guest", 200, 135, 180), wait=1.0)
    late = stage.show(("guest", 200, 135, 180), wait=-0.1)
    assert late.faces[0].track_id == first.faces[0].track_id


def test_parameters_take_effect_on_the_next_frame(stage: Stage) -> None:
    stage.enroll("guest", "Anna")
    assert stage.show(("guest", 200, 135, 180)).faces[0].identity.name == "Anna"
    stage.recognizer.update_config(with_values(stage.config, {"identity.minimum_quality": 1.0}))
    assert stage.recognizer.config.identity.minimum_quality == 1.0
    stage.recognizer.reset()
    result = stage.show(("guest", 200, 135, 180))
    assert result.faces[0].identity.state is IdentityState.UNDECIDED
    assert result.faces[0].view.embedding is None


def test_a_tiny_face_is_followed_and_not_named(stage: Stage) -> None:
    stage.enroll("guest", "Anna")
    numbers = set()
    for k in range(8):
        (face,) = stage.show(("guest", 200 + k, 135, 44)).faces
        assert face.view.detection.height < 20
        assert face.identity.state is not IdentityState.KNOWN
        numbers.add(face.track_id)
    assert len(numbers) == 1


def test_a_stranger_gets_an_id_and_keeps_it(models: Models, portraits: dict[str, np.ndarray]) -> None:
    stage = Stage(models, portraits)
    stage.embedder.precision = "fp16"
    for k in range(20):
        result = stage.show(("other", 200 + k, 135, 170 + k))
    created = result.faces[0].identity
    assert created.state is IdentityState.STRANGER
    assert created.person_id is not None
    assert {t.precision for t in stage.gallery.snapshot().templates_of(created.person_id)} == {"fp16"}
    stage.show(wait=20.0)
    again = stage.show(("other", 300, 135, 190)).faces[0]
    assert again.track_id != result.faces[0].track_id
    assert again.identity.person_id == created.person_id
    stage.gallery.rename(created.person_id, "Bea")
    assert stage.show(("other", 300, 135, 190)).faces[0].identity.name == "Bea"


@pytest.mark.parametrize("rotate", [90, 180])
def test_camera_mounted_otherwise(models: Models, portraits: dict[str, np.ndarray], rotate: int) -> None:
    stage = Stage(models, portraits, rotate=rotate)
    result = stage.show(("guest", 120, 100, 180))
    assert result.image_size == (SIZE if rotate == 180 else SIZE[::-1])
    (face,) = result.faces
    assert abs(face.view.pose.roll) < 15  # upright in the room
    expected = {180: (SIZE[0] - 120, SIZE[1] - 100), 90: (100, SIZE[0] - 120)}[rotate]
    assert np.abs(face.view.detection.center_xy - expected).max() < 30


def test_assembly_shares_models_and_opens_the_gallery(models: Models, tmp_path: object) -> None:
    with Pipeline.open(Config(), models=models) as pipeline:
        assert pipeline.models is models
        assert pipeline.process(Frame(np.zeros((64, 64, 3), np.uint8), 0.0)).faces == ()
    other = Gallery.open(None, "another model")
    with pytest.raises(GalleryMismatchError, match="enroll again"):
        Recognizer(models.detector, models.embedder, other, models.calibration, Config())


def test_the_gallery_is_closed_although_the_writer_fails_to_close(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline.open(Config(), models=models, is_live=True)

    def fail(self: object) -> None:
        raise RuntimeError("no thread to join")

    monkeypatch.setattr(BackgroundWriter, "close", fail)
    with pytest.raises(RuntimeError, match="no thread"):
        pipeline.close()
    with pytest.raises(GalleryUnavailableError):
        pipeline.gallery.add_person("Anna", [])


@pytest.mark.slow
def test_a_frame_does_not_wait_for_the_disk_and_closing_does(
    models: Models, portraits: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk stands still: a stranger is to be stored, frames go on, and nothing is lost at the end."""
    stage = Stage(models, portraits, is_live=True)
    disk, add_person = threading.Event(), Gallery.add_person
    stored = []

    def slow(*arguments: object, **options: object) -> object:
        assert disk.wait(60)
        stored.append(add_person(*arguments, **options))  # type: ignore[arg-type]
        return stored[-1]

    monkeypatch.setattr(Gallery, "add_person", slow)
    for _ in range(50):
        stage.show(("guest", 240, 135, 150))
    assert not stored
    disk.set()
    stage.pipeline.writer.close()
    assert len(stored) == 1
    stage.pipeline.close()


def bulging(places: Sequence[tuple[str, float, float, float]], relief_m: float) -> np.ndarray:
    """Return depth of a wall at 1.5 m from which each face stands out, by ``relief_m`` from rim to middle."""
    v, u = np.mgrid[: SIZE[1], : SIZE[0]]
    depth = np.full((SIZE[1], SIZE[0]), 1.5, np.float32)
    for _, x, y, height in places:
        away = ((u - x) ** 2 + (v - y) ** 2) / (0.4 * height) ** 2
        depth -= (relief_m * np.maximum(1 - away, 0)).astype(np.float32)
    return depth


@pytest.mark.slow
def test_a_portrait_on_the_wall_is_never_named_where_there_is_depth(
    models: Models, portraits: dict[str, np.ndarray]
) -> None:
    stage = Stage(models, portraits)
    stage.enroll("guest", "Eileen")
    place = ("guest", 240, 135, 150)
    flat = [stage.show(place, depth_m=bulging([place], 0.0)).faces for _ in range(50)]
    stage.pipeline.close()
    assert all(len(faces) == 1 for faces in flat)
    assert {faces[0].flatness for faces in flat} == {"flat"}
    assert {faces[0].identity.state for faces in flat[1:]} == {IdentityState.UNDECIDED}
    assert not any(person.is_stranger for person in stage.gallery.snapshot().persons.values())


@pytest.mark.slow
def test_whose_face_a_flat_track_is_is_looked_at_again(
    models: Models, portraits: dict[str, np.ndarray]
) -> None:
    """Somebody may step before the portrait where there is no depth; only a look can tell."""
    stage = Stage(models, portraits)
    place = ("guest", 240, 135, 150)
    for _ in range(20):
        (face,) = stage.show(place, depth_m=bulging([place], 0.0)).faces
    assert face.flatness == "flat"
    looks = [stage.show(place).faces[0].view.embedding is not None for _ in range(20)]
    stage.pipeline.close()
    assert sum(looks) == 20 // stage.config.tracker.recheck_frames


@pytest.mark.slow
def test_a_slow_camera_does_not_lose_a_name_between_two_looks(
    models: Models, portraits: dict[str, np.ndarray]
) -> None:
    stage = Stage(models, portraits, tracker__recheck_frames=60, identity__claim_timeout_s=4.0)
    stage.enroll("guest", "Eileen")
    seen = [stage.show(("guest", 240, 135, 150), wait=0.5).faces[0].identity.name for _ in range(30)]
    stage.pipeline.close()
    assert set(seen[3:]) == {"Eileen"}


def test_a_head_is_named_and_called_solid_and_without_depth_unverified(stage: Stage) -> None:
    stage.enroll("guest", "Eileen")
    place = ("guest", 240, 135, 150)
    for depth, verdict in ((bulging([place], 0.08), ("solid", "depth")), (None, ("unverified", ""))):
        stage.recognizer.reset()
        last = [stage.show(place, depth_m=depth).faces[0] for _ in range(8)][-1]
        assert (last.flatness, last.flatness_source) == verdict
        assert last.identity.name == "Eileen"


class CountingDetector:
    """Counts the frames that the real detector searches."""

    def __init__(self, models: Models) -> None:
        self.inner, self.calls = models.detector, 0

    def search(self, lit_bgr: np.ndarray, clock: StageClock | None = None) -> list[Detection]:
        self.calls += 1
        return self.inner.search(lit_bgr, clock)


@pytest.mark.slow
def test_identity_is_carried_between_searches(models: Models, portraits: dict[str, np.ndarray]) -> None:
    """Two people walk past each other's places; every third frame is searched, names and tracks stay."""
    detector = CountingDetector(models)
    stage = Stage(
        replace(models, detector=detector), portraits, strangers__enabled=False, detector__interval_frames=3
    )
    guest = stage.enroll("guest", "Guest")
    searched = detector.calls
    tracks = set()
    for step in range(24):
        reach = 40 * math.sin(step / 4)
        result = stage.show(("guest", 120 + reach, 135, 150), ("other", 350 - reach, 135, 150), wait=1 / 30)
        assert len(result.faces) == 2
        left, right = sorted(result.faces, key=lambda face: face.view.detection.center_xy[0])
        assert left.view.detection.center_xy[0] == pytest.approx(120 + reach, abs=15)
        if step > 3:
            assert left.identity.person_id == guest
        assert right.identity.person_id is None
        tracks |= {left.track_id, right.track_id}
    assert len(tracks) == 2
    assert detector.calls - searched == 8
    for _ in range(2):  # an enrollment needs what the detector sees
        stage.show(("guest", 120, 135, 150), wait=1 / 30, embed_all=True)
    assert detector.calls - searched == 10
    stage.gallery.close()


def test_what_no_head_can_have_bears_no_name(models: Models, portraits: dict[str, np.ndarray]) -> None:
    """A box between two faces: found where Anna's was, its mouth above its eyes."""

    class Upset(CountingDetector):
        is_upset = False

        def search(self, lit_bgr: np.ndarray, clock: StageClock | None = None) -> list[Detection]:
            found = super().search(lit_bgr, clock)
            return [
                replace(d, landmarks_xy=d.landmarks_xy[[3, 4, 2, 0, 1]]) if self.is_upset else d
                for d in found
            ]

    detector = Upset(models)
    stage = Stage(replace(models, detector=detector), portraits)
    anna = stage.enroll("guest", "Anna")
    named = stage.show(("guest", 200, 135, 180)).faces[0]
    detector.is_upset = True
    ghosts = [stage.show(("guest", 200, 135, 180), wait=1 / 30).faces[0] for _ in range(3)]
    detector.is_upset = False
    again = stage.show(("guest", 200, 135, 180), wait=1 / 30).faces[0]
    assert [ghost.identity.state for ghost in ghosts] == [IdentityState.UNDECIDED] * 3
    assert {named.track_id, again.track_id} == {named.track_id}
    assert named.identity.person_id == again.identity.person_id == anna
    stage.pipeline.close()

"""Drawing and writing: nothing leaves the image, states differ, files are whole."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from face_recognition_node.common.errors import FrameError, InputError, SourceError
from face_recognition_node.media import annotate
from face_recognition_node.media.annotate import STATE_COLORS, draw_faces, label_of
from face_recognition_node.media.lettering import letter, paint, shorten, spell, text_width
from face_recognition_node.media.sources import open_source
from face_recognition_node.media.writer import VideoWriter
from face_recognition_node.vision.faces import (
    Detection,
    FaceQuality,
    FaceView,
    HeadPose,
    IdentifiedFace,
    Identity,
    IdentityState,
)


def face(
    box: tuple[float, float, float, float],
    state: IdentityState = IdentityState.KNOWN,
    name: str = "Anna",
    probability: float = 0.97,
    person_id: str | None = "p-1",
) -> IdentifiedFace:
    x1, y1, x2, y2 = box
    places = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
    landmarks = places * [x2 - x1, y2 - y1] + [x1, y1]
    view = FaceView(Detection(np.array(box), 0.9, landmarks), 0.0, FaceQuality(*[0.5] * 6), HeadPose(0, 0, 0))
    return IdentifiedFace(4, view, Identity(state, person_id, name, probability))


def test_without_faces_the_image_is_unchanged() -> None:
    image = np.full((40, 60, 3), 90, np.uint8)
    drawn = draw_faces(image, [])
    assert np.array_equal(drawn, image)
    assert drawn is not image


def test_drawing_leaves_the_image_as_it_is() -> None:
    image = np.full((120, 160, 3), 90, np.uint8)
    drawn = draw_faces(image, [face((40, 40, 90, 100))])
    assert (image == 90).all()
    assert (drawn != 90).any()


@pytest.mark.parametrize("state", list(IdentityState))
def test_each_state_shows_its_own_colour(state: IdentityState) -> None:
    image = np.full((240, 320, 3), 90, np.uint8)
    drawn = draw_faces(image, [face((100, 80, 200, 200), state)])
    shown = {other: int((drawn == STATE_COLORS[other]).all(axis=2).sum()) for other in IdentityState}
    assert shown[state] > 20
    assert all(count == 0 for other, count in shown.items() if other is not state)


def test_undecided_faces_have_open_sides() -> None:
    image = np.full((240, 320, 3), 90, np.uint8)
    whole = draw_faces(image, [face((100, 80, 200, 200), IdentityState.STRANGER)])
    corners = draw_faces(image, [face((100, 80, 200, 200), IdentityState.UNDECIDED)])
    assert (whole[80, 145:155] != 90).any()
    assert (corners[80, 145:155] == 90).all()


def test_label_tells_name_and_probability_rounded_down() -> None:
    assert label_of(face((0, 0, 9, 9), probability=0.978)) == "Anna  97 %"
    assert label_of(face((0, 0, 9, 9), probability=1.0)) == "Anna  99 %"
    assert label_of(face((0, 0, 9, 9), IdentityState.UNDECIDED)) == ""
    assert label_of(face((0, 0, 9, 9), IdentityState.STRANGER, "", 0.5, "stranger-3")) == "stranger-3  50 %"
    assert label_of(face((0, 0, 9, 9), IdentityState.STRANGER, "", 0.5, None)) == "stranger"
    assert label_of(face((0, 0, 9, 9), name="")) == "p-1  97 %"


@settings(max_examples=25)
@given(
    width=st.integers(8, 300),
    height=st.integers(8, 300),
    box=st.tuples(*[st.floats(-2000, 2000)] * 2, *[st.floats(0.5, 3000)] * 2),
    state=st.sampled_from(list(IdentityState)),
    name=st.text(max_size=40),
)
@pytest.mark.slow
def test_any_box_name_and_image_size_can_be_drawn(
    width: int, height: int, box: tuple[float, ...], state: IdentityState, name: str
) -> None:
    x, y, w, h = box
    image = np.full((height, width, 3), 120, np.uint8)
    drawn = draw_faces(image, [face((x, y, x + w, y + h), state, name)])
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8


@pytest.mark.parametrize(
    "box", [(-20, -30, 40, 30), (270, 200, 330, 250), (0, 0, 320, 240), (150, -5, 180, 20)]
)
def test_a_label_lies_wholly_inside_the_image(box: tuple[float, float, float, float]) -> None:
    """The label's plate is the largest patch of the state's colour: none of it may be cut off."""

    def plate_area(image: np.ndarray) -> int:
        mask = (image == STATE_COLORS[IdentityState.KNOWN]).all(axis=2).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(cv2.erode(mask, np.ones((5, 5), np.uint8)))
        return int(stats[1:, cv2.CC_STAT_AREA].sum())

    free = plate_area(draw_faces(np.full((240, 320, 3), 90, np.uint8), [face((100, 100, 160, 170))]))
    at_edge = plate_area(draw_faces(np.full((240, 320, 3), 90, np.uint8), [face(box)]))
    assert at_edge > 0.95 * free


def test_labels_of_neighbours_do_not_cover_each_other() -> None:
    image = np.full((240, 320, 3), 90, np.uint8)
    both = [face((100, 100, 150, 160)), face((130, 104, 178, 160), IdentityState.STRANGER, "stranger-2")]
    together = draw_faces(image, both)
    for one in both:
        color = STATE_COLORS[one.identity.state]
        alone = (draw_faces(image, [one]) == color).all(axis=2).sum()
        assert (together == color).all(axis=2).sum() > 0.85 * alone


def test_in_a_crowd_labels_cover_neither_each_other_nor_numbers(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[tuple[int, int, int, int]] = []
    number, label = annotate._draw_track_number, annotate._paint_label
    monkeypatch.setattr(
        annotate, "_draw_track_number", lambda *a: [place := number(*a), place and places.append(place)][0]
    )
    monkeypatch.setattr(
        annotate,
        "_paint_label",
        lambda canvas, place, *rest: [places.append(place), label(canvas, place, *rest)],
    )
    names = ["Annabella Maria", "Ben", "Christopher", "Dora"]
    crowd = []
    for index in range(48):
        side = float(rng.integers(18, 46))
        x, y = 90.0 * (index % 8) + rng.integers(0, 40), 80.0 * (index // 8) + rng.integers(20, 50)
        crowd.append(face((x, y, x + side, y + 1.25 * side), IdentityState.KNOWN, names[index % 4]))
    for left in (20, 70, 120):
        crowd.append(face((left, 200, left + 100, 330), IdentityState.KNOWN, "Eileen Collins"))
    draw_faces(np.full((480, 720, 3), 90, np.uint8), crowd)
    assert len(places) > 51, "few are left out"
    for i, first in enumerate(places):
        for second in places[:i]:
            assert not annotate._overlap(first, second)
        assert first[0] >= 0
        assert first[1] >= 0
        assert first[0] + first[2] <= 720
        assert first[1] + first[3] <= 480


def test_small_faces_have_no_dots_on_them() -> None:
    image = np.full((120, 160, 3), 90, np.uint8)
    for side, has_dots in ((18.0, False), (30.0, True)):
        small = face((60, 50, 60 + side, 50 + side), IdentityState.UNDECIDED)
        inner = draw_faces(image, [small])[50 + 6 : 50 + int(side) - 6, 60 + 6 : 60 + int(side) - 6]
        assert bool((inner != 90).any()) is has_dots


def test_draw_faces_refuses_what_is_no_image() -> None:
    with pytest.raises(FrameError):
        draw_faces(np.zeros((4, 4), np.uint8), [])


def test_spelling_keeps_accents_and_falls_back() -> None:
    assert spell("Renée Łukasz Ωμέγα Ёж") == "Renée Łukasz Ωμέγα Ёж"
    assert spell("ﬁn \uff12") == "fin 2"
    assert spell("山\x00\n") == "□"


def test_letters_scale_and_shorten() -> None:
    assert letter("Anna", 20).shape[0] == 20
    assert letter("Anna", 20).max() > 200
    assert text_width("Anna", 40) == pytest.approx(2 * text_width("Anna", 20), abs=2)
    assert shorten("Anna", 20, 500) == "Anna"
    shorter = shorten("Annabella Maria", 20, 80)
    assert shorter.endswith("…")
    assert text_width(shorter, 20) <= 80
    assert shorten("Anna", 20, 3) == ""
    with pytest.raises(InputError, match="height"):
        letter("Anna", 3)


def test_paint_blends_like_the_slow_way_and_cuts_at_the_border(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (12, 15, 3), dtype=np.uint8)
    ink = rng.integers(0, 256, (8, 9), dtype=np.uint8)
    for left, top in ((2, 3), (-4, -5), (11, 9), (40, 0)):
        expected = image.copy()
        for row in range(8):
            for column in range(9):
                y, x = top + row, left + column
                if 0 <= y < 12 and 0 <= x < 15:
                    share = int(ink[row, column])
                    for channel, value in enumerate((10, 200, 90)):
                        old = int(image[y, x, channel])
                        expected[y, x, channel] = (old * (255 - share) + value * share + 127) // 255
        painted = image.copy()
        paint(painted, ink, left, top, (10, 200, 90))
        assert np.abs(painted.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_video_is_whole_also_when_the_block_is_interrupted(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, rate=25) as writer:  # noqa: PT012
        for level in (10, 100, 200):
            writer.write(np.full((48, 64, 3), level, np.uint8))
            assert not path.exists()
        raise KeyboardInterrupt
    levels = [float(frame.image_bgr.mean()) for frame in open_source(str(path))]
    assert levels == pytest.approx([10, 100, 200], abs=6)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_an_image_path_keeps_the_latest_frame(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "last.png", rate=1) as writer:
        for level in (1, 2):
            writer.write(np.full((5, 6, 3), level, np.uint8))
    assert (cv2.imread(str(tmp_path / "last.png")) == 2).all()


def test_writer_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"ending in \.avi, \.mkv, \.mp4"):
        VideoWriter(tmp_path / "out.txt", rate=25)
    with pytest.raises(SourceError, match="does not exist"):
        VideoWriter(tmp_path / "nowhere" / "out.mp4", rate=25)
    with pytest.raises(InputError, match="rate"):
        VideoWriter(tmp_path / "out.mp4", rate=0)
    with VideoWriter(tmp_path / "out.mp4", rate=25) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
        with pytest.raises(InputError, match="like the first"):
            writer.write(np.zeros((50, 64, 3), np.uint8))
    (tmp_path / ".none.partial.mp4").write_bytes(b"of a run that was killed")
    with VideoWriter(tmp_path / "none.mp4", rate=25):
        pass
    assert not (tmp_path / "none.mp4").exists()


@pytest.mark.parametrize("rate", [29.97, 66.6667, 100.123, 119.88, 700.123])
def test_every_rate_can_be_written(tmp_path: Path, rate: float) -> None:
    with VideoWriter(tmp_path / "fast.mp4", rate=rate) as writer:
        for _ in range(3):
            writer.write(np.zeros((32, 48, 3), np.uint8))
    assert open_source(str(tmp_path / "fast.mp4")).rate_hz == pytest.approx(rate, abs=0.5)


def test_an_older_video_is_left_alone_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"of yesterday")
    with pytest.raises(SourceError), VideoWriter(path, rate=25) as writer:  # noqa: PT012
        writer.write(np.zeros((48, 64, 3), np.uint8))
        raise SourceError("the camera is gone")
    assert path.read_bytes() == b"of yesterday"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.mp4"]


def test_a_video_that_cannot_be_played_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"of yesterday")
    writer = VideoWriter(path, rate=25)
    writer.write(np.zeros((48, 64, 3), np.uint8))
    assert writer._video is not None
    writer._video.release()
    writer._partial.write_bytes(b"cut off by a full disk")
    with pytest.raises(SourceError, match="disk full"):
        writer.close()
    assert path.read_bytes() == b"of yesterday"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.mp4"]

"""Detection metrics: which labelled face is found, how far off its landmarks are, and the edges."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluate_detector import (
    DetectionArchive,
    LabelledFace,
    compare,
    main,
    parse_labels,
    summarize,
)

from face_recognition_node.common.errors import InputError, SourceError
from face_recognition_node.vision.faces import Detection

HEADER = "path,x1,y1,x2,y2,le_x,le_y,re_x,re_y,nose_x,nose_y,lm_x,lm_y,rm_x,rm_y\n"
POINTS = np.array([[20, 30], [60, 30], [40, 50], [25, 70], [55, 70]], np.float32)
LABEL = LabelledFace("ann.jpg", np.array([0, 0, 80, 100], np.float32), POINTS)


def found(box, points=POINTS, score=0.9) -> Detection:
    return Detection(np.array(box, np.float32), score, np.array(points, np.float32))


def test_the_best_overlap_counts():
    outcome = compare(
        LABEL, [found([200, 200, 260, 280]), found([0, 0, 80, 100], POINTS + np.float32([4, 3]), 0.7)]
    )
    assert outcome.is_found
    assert outcome.iou == pytest.approx(1)
    assert outcome.score == pytest.approx(0.7)
    np.testing.assert_allclose(outcome.landmark_error, 5 / 40)


def test_a_face_elsewhere_is_not_found():
    for detections in ([], [found([200, 200, 260, 280])], [found([0, 0, 80, 39.9])]):
        outcome = compare(LABEL, detections)
        assert not outcome.is_found
        assert np.isnan(outcome.landmark_error).all()
    assert compare(LABEL, [found([0, 0, 80, 40.1])]).is_found


def test_errors_do_not_depend_on_the_size():
    small = compare(LABEL, [found(LABEL.box_xyxy, POINTS + 3)])
    double = compare(LABEL.scaled(2), [found(LABEL.box_xyxy * 2, POINTS * 2 + 6)])
    np.testing.assert_allclose(small.landmark_error, double.landmark_error, rtol=1e-6)


def test_summary():
    shift = np.zeros((5, 2), np.float32)
    shift[2] = (0, 4)
    outcomes = [
        compare(LABEL, [found(LABEL.box_xyxy)]),
        compare(LABEL, [found(LABEL.box_xyxy, POINTS + shift)]),
        compare(LabelledFace("lost.jpg", LABEL.box_xyxy, POINTS), []),
    ]
    result = summarize(outcomes)
    assert result.recall.value == pytest.approx(2 / 3)
    assert result.landmark_error.value == pytest.approx(0.01)
    assert result.by_landmark["nose"] == pytest.approx(0.05)
    assert result.by_landmark["left eye"] == 0
    assert result.missed == ("lost.jpg",)
    assert "lost.jpg" in str(result)
    assert "recall at IoU 0.4" in str(result)
    json.dumps(result.to_dict())


def test_summary_of_only_misses_and_of_nothing():
    result = summarize([compare(LABEL, [])])
    assert result.recall.value == 0
    assert np.isnan(result.landmark_error_median)
    assert str(result)
    with pytest.raises(InputError, match="at least one"):
        summarize([])


def test_eyes_in_one_place_are_refused():
    with pytest.raises(InputError, match="two eyes"):
        compare(LabelledFace("x", LABEL.box_xyxy, np.zeros((5, 2), np.float32)), [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "it has none"),
        ("path,x1\na.jpg,3\n", "row 2"),
        (HEADER + "a.jpg" + ",1" * 13 + ",x\n", "could not convert"),
    ],
)
def test_broken_tables_are_refused(text, message):
    with pytest.raises(SourceError, match=message):
        parse_labels(text)


@pytest.fixture
def archive(tmp_path: Path, guest_bgr) -> Path:
    """Return a zip with the guest's portrait as a small photograph, labelled, and an empty picture."""
    small = cv2.resize(guest_bgr, (200, 200), interpolation=cv2.INTER_AREA)
    rows = "people/guest.png,70,22,107,69,80,39.5,96.5,40.5,87.5,49.5,80,54.5,94.5,55.5\n"
    rows += (
        "nobody.png"
        + "".join(f",{n}" for n in (10, 10, 90, 90, 30, 40, 60, 40, 45, 60, 35, 75, 55, 75))
        + "\n"
    )
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("ground_truth.csv", HEADER + rows)
        file.writestr("images/guest.png", cv2.imencode(".png", small)[1].tobytes())
        empty = np.full((300, 300, 3), 120, np.uint8)
        file.writestr("images/nobody.png", cv2.imencode(".png", empty)[1].tobytes())
    return path


@pytest.mark.slow
def test_the_command_looks_at_an_archive(archive, capsys):
    assert main([str(archive), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["photographs"] == 2
    assert figures["doubled"] == 1
    assert figures["missed"] == ["nobody.png"]
    assert figures["recall"]["value"] == 0.5
    assert figures["landmark_error"]["value"] < 0.15


def test_a_missing_table_or_photograph_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"ground_truth\.csv in it"):
        DetectionArchive.open(tmp_path)
    (tmp_path / "ground_truth.csv").write_text(HEADER + "a.jpg" + ",1" * 14 + "\n")
    with pytest.raises(SourceError, match=r"a\.jpg, which is not there"):
        DetectionArchive.open(tmp_path)


def test_real_photographs(shared_data):
    """Every tenth labelled photograph; all of them: `tools/evaluate_detector.py`."""
    from face_recognition_node.backends import load_detector
    from face_recognition_node.config import DetectorConfig, ModelsConfig

    file = shared_data / "detector_lfw.zip"
    if not file.is_file():
        pytest.skip(f"no {file}")
    archive, detector = DetectionArchive.open(file), load_detector(ModelsConfig(), DetectorConfig())
    outcomes = []
    for number in range(0, len(archive.faces), 10):
        doubled = cv2.resize(archive.read(number), None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
        outcomes.append(compare(archive.faces[number].scaled(2), detector.detect(doubled)))
    result = summarize(outcomes)
    assert result.recall.value >= 0.97
    assert result.landmark_error.value <= 0.065

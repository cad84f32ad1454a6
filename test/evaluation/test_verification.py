"""Verification metrics: parity with scikit-learn, with a slow protocol, and the edges."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from face_recognition_node.cli import main
from face_recognition_node.common.errors import InputError, SourceError
from face_recognition_node.evaluation.picture_archive import LfwArchive, parse_pairs
from face_recognition_node.evaluation.verification import (
    accept_points,
    best_accuracy_threshold,
    best_f1,
    evaluate_all_pairs,
    evaluate_pairs,
    judge_by_folds,
    judged_f1,
    roc_curve,
)


@pytest.fixture
def scores(rng):
    """Return (similarity, is_same, fold) of 600 pairs in ten folds, with ties."""
    is_same = rng.random(600) < 0.5
    similarity = np.round(np.where(is_same, rng.normal(0.5, 0.2, 600), rng.normal(0.1, 0.2, 600)), 2)
    return similarity.astype(np.float32), is_same, np.repeat(np.arange(10), 60)


def test_roc_equals_scikit_learn(scores):
    metrics = pytest.importorskip("sklearn.metrics", reason="the independent computation is scikit-learn's")
    similarity, is_same, _ = scores
    curve = roc_curve(similarity, is_same)
    far, tar, thresholds = metrics.roc_curve(is_same, similarity, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_accept_rate, far)
    np.testing.assert_allclose(curve.true_accept_rate, tar)
    np.testing.assert_allclose(curve.threshold[1:], thresholds[1:])
    assert curve.area == pytest.approx(metrics.roc_auc_score(is_same, similarity))


def test_f1_equals_scikit_learn(scores):
    metrics = pytest.importorskip("sklearn.metrics", reason="the independent computation is scikit-learn's")
    similarity, is_same, _ = scores
    value, threshold = best_f1(roc_curve(similarity, is_same), is_same.sum(), (~is_same).sum())
    assert value == pytest.approx(metrics.f1_score(is_same, similarity >= threshold))
    others = [metrics.f1_score(is_same, similarity >= other) for other in np.unique(similarity)]
    assert value == pytest.approx(max(others))


def test_f1_of_the_folds_equals_scikit_learn(scores):
    metrics = pytest.importorskip("sklearn.metrics", reason="the independent computation is scikit-learn's")
    similarity, is_same, fold = scores
    right, _ = judge_by_folds(similarity, is_same, fold)
    said_same = np.where(right, is_same, ~is_same)
    assert judged_f1(right, is_same) == pytest.approx(metrics.f1_score(is_same, said_same))
    result = evaluate_pairs(similarity, is_same, fold)
    assert result.f1 == pytest.approx(judged_f1(right, is_same))
    assert result.f1 <= result.best_f1
    assert judged_f1(np.zeros(2, bool), np.array([True, False])) == 0


def test_accept_points_equal_scikit_learn(scores):
    metrics = pytest.importorskip("sklearn.metrics", reason="the independent computation is scikit-learn's")
    similarity, is_same, _ = scores
    far, tar, _ = metrics.roc_curve(is_same, similarity, drop_intermediate=False)
    rates = (0.2, 0.05, 0.01, 1e-5)
    for point in accept_points(roc_curve(similarity, is_same), (~is_same).sum(), rates):
        assert point.tar == pytest.approx(tar[far <= point.far].max())
        accepted = similarity[~is_same] >= point.threshold
        assert accepted.mean() <= point.far
        assert point.is_resolved == (point.far * (~is_same).sum() >= 1)


def slow_protocol(similarity, is_same, fold) -> float:
    """Try every threshold between neighbours on nine folds, judge the tenth."""
    accuracies = []
    for number in range(10):
        others, held_out = fold != number, fold == number
        ordered = np.unique(similarity[others]).astype(np.float64)
        middles = np.concatenate([[-9], (ordered[:-1] + ordered[1:]) / 2, [9]])
        right = [((similarity[others] >= m) == is_same[others]).sum() for m in middles]
        chosen = [m for m, r in zip(middles, right, strict=True) if r == max(right)]
        accuracies.append([((similarity[held_out] >= m) == is_same[held_out]).mean() for m in chosen])
    return accuracies


def test_folds_equal_a_slow_protocol(scores):
    similarity, is_same, fold = scores
    right, thresholds = judge_by_folds(similarity, is_same, fold)
    assert thresholds.shape == (10,)
    for number, possible in enumerate(slow_protocol(similarity, is_same, fold)):
        # where several thresholds are equally good on nine folds any of them is the protocol
        assert any(right[fold == number].mean() == pytest.approx(value) for value in possible)


def test_the_held_out_fold_does_not_choose_its_threshold():
    similarity = np.array([0.9, 0.8, 0.1, 0.2] * 4 + [0.3, 0.3, 0.25, 0.25], np.float32)
    is_same = np.array([True, True, False, False] * 5)
    fold = np.repeat(np.arange(5), 4)
    right, _ = judge_by_folds(similarity, is_same, fold)
    assert right[:16].all()
    assert right[16:].tolist() == [False, False, True, True]


@given(st.lists(st.tuples(st.floats(-1, 1, width=32), st.booleans()), min_size=2, max_size=40))
def test_no_threshold_beats_the_best_one(pairs):
    similarity = np.array([value for value, _ in pairs], np.float32)
    is_same = np.array([same for _, same in pairs])
    if is_same.all() or not is_same.any():
        with pytest.raises(InputError, match="both kinds"):
            roc_curve(similarity, is_same)
        return
    best = ((similarity >= best_accuracy_threshold(similarity, is_same)) == is_same).sum()
    for threshold in [*similarity, -np.inf, np.inf]:
        assert ((similarity >= threshold) == is_same).sum() <= best


def test_perfect_and_hopeless_scores():
    fold = np.repeat(np.arange(2), 4)
    is_same = np.array([True, False] * 4)
    perfect = evaluate_pairs(np.where(is_same, 0.9, 0.1).astype(np.float32), is_same, fold)
    assert (perfect.accuracy, perfect.area, perfect.f1, perfect.equal_error_rate) == (1, 1, 1, 0)
    assert all(point.tar == 1 for point in perfect.accept)
    assert perfect.threshold == pytest.approx(0.5)
    constant = evaluate_pairs(np.zeros(8, np.float32), is_same, fold)
    assert constant.area == pytest.approx(0.5)
    assert constant.accuracy == 0.5


def test_the_result_prints_itself(scores):
    result = evaluate_pairs(*scores)
    assert "accuracy" in str(result)
    assert "TAR@FAR 1e-03" in str(result)
    assert "too few pairs" in str(result)
    json.dumps(asdict(result))
    low, high = result.accuracy_interval.low, result.accuracy_interval.high
    assert low < result.accuracy < high


def test_bad_input_is_named(scores):
    similarity, is_same, _ = scores
    with pytest.raises(InputError, match="equal shapes"):
        roc_curve(similarity[:-1], is_same)
    with pytest.raises(InputError, match="finite"):
        roc_curve(np.full(2, np.nan), np.array([True, False]))
    with pytest.raises(InputError, match="at least two folds"):
        evaluate_pairs(similarity, is_same, np.zeros(600, int))


@pytest.mark.parametrize("block", [1, 7, 100])
def test_all_pairs_equal_a_slow_loop(rng, block):
    people = [f"p{n % 9}" for n in range(60)]
    embeddings = rng.normal(0, 1, (60, 8)).astype(np.float32)
    embeddings += np.stack([np.eye(9, 8)[n % 9] * 2 for n in range(60)]).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    same, different = [], []
    for i in range(60):
        for j in range(i + 1, 60):
            (same if people[i] == people[j] else different).append(float(embeddings[i] @ embeddings[j]))
    result = evaluate_all_pairs(embeddings, people, (0.1, 0.01, 1e-6), block)
    assert (result.n_same, result.n_different) == (len(same), len(different))
    different.sort(reverse=True)
    for point in result.accept:
        allowed = int(point.far * len(different))
        expected = np.mean([value > different[allowed] + 1e-7 for value in same])
        assert point.tar == pytest.approx(expected, abs=1.5 / len(same))
        assert point.is_resolved == (allowed >= 1)
    assert "all pairs" in str(result)


def test_all_pairs_need_both_kinds():
    with pytest.raises(InputError, match="one kind"):
        evaluate_all_pairs(np.eye(3, dtype=np.float32), ["a", "b", "c"])


PAIRS = "2\t1\nAnn\t1\t2\nAnn\t1\tBob\t1\nBob\t1\t2\nBob\t2\tAnn\t2\n"
NAMES = ("Ann/Ann_0001", "Ann/Ann_0002", "Bob/Bob_0001", "Bob/Bob_0002")


def test_pairs_are_parsed():
    pairs = parse_pairs(PAIRS, NAMES)
    assert pairs.first.tolist() == [0, 0, 2, 3]
    assert pairs.second.tolist() == [1, 2, 3, 1]
    assert pairs.is_same.tolist() == [True, False, True, False]
    assert pairs.fold.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line"),
        ("2\tx\n", "first line"),
        ("2\t1\nAnn\t1\t2\n", "expected 4 pairs, got 1"),
        (PAIRS.replace("Bob\t1\t2", "Bob\t1\t9"), "Bob_0009, which is not there"),
        (PAIRS.replace("Bob\t1\t2", "Bob\t1"), "3 or 4 fields"),
    ],
)
def test_broken_pairs_are_refused(text, message):
    with pytest.raises(SourceError, match=message):
        parse_pairs(text, NAMES)


@pytest.fixture
def archive(tmp_path: Path, rng) -> Path:
    """Return a zip of two made-up people, coloured noise, in LFW's layout."""
    path = tmp_path / "pairs.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("pairs.txt", PAIRS)
        for name in NAMES:
            base = np.random.default_rng(name.startswith("Ann")).integers(0, 256, (14, 14, 3))
            noisy = np.clip(base.repeat(8, 0).repeat(8, 1) + rng.normal(0, 9, (112, 112, 3)), 0, 255)
            file.writestr(f"{name}.png", cv2.imencode(".png", noisy.astype(np.uint8))[1].tobytes())
    return path


def test_a_zip_and_its_folder_are_the_same(archive, tmp_path):
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / "folder")
    zipped, unpacked = LfwArchive.open(archive), LfwArchive.open(tmp_path / "folder")
    assert zipped.names == unpacked.names == NAMES
    assert zipped.people == ("Ann", "Ann", "Bob", "Bob")
    assert all((zipped.read(n) == unpacked.read(n)).all() for n in range(4))


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(SourceError, match="expected a zip file or a folder"):
        LfwArchive.open(tmp_path / "x.txt")
    with pytest.raises(SourceError, match=r"official pairs\.txt"):
        LfwArchive.open(tmp_path)


@pytest.mark.slow
def test_the_command_judges_an_archive(archive, tmp_path, capsys):
    assert main(["evaluate", "verification", str(archive), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["pictures"] == 4
    assert figures["n_pairs"] == 4
    assert figures["accuracy"] == 1.0
    assert figures["all_pairs"]["n_same"] == 2
    out = tmp_path / "figures.json"
    assert main(["evaluate", "verification", str(archive), "--face-pixels", "24", "--json", str(out)]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert json.loads(out.read_text())["face_pixels"] == 24
    assert main(["evaluate", "verification", str(archive), "--face-pixels", "1"]) == 2
    assert "expected 4 to 112" in capsys.readouterr().err


def test_some_real_pairs_are_told_apart(shared_data):
    """A slice of the official protocol; the whole is `face-recognition evaluate verification`."""
    from face_recognition_node.backends import load_embedder
    from face_recognition_node.config import ModelsConfig

    file = shared_data / "lfw_pairs_112.zip"
    if not file.is_file():
        pytest.skip(f"no {file}")
    archive, embedder = LfwArchive.open(file), load_embedder(ModelsConfig())
    chosen = np.arange(0, 6000, 60)
    first, second = (
        embedder.embed(np.stack([archive.read(int(n)) for n in numbers[chosen]]))
        for numbers in (archive.pairs.first, archive.pairs.second)
    )
    accepted = (first * second).sum(1) >= 0.33
    assert (accepted == archive.pairs.is_same[chosen]).mean() >= 0.9

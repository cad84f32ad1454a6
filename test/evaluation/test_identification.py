"""Open-set identification against slow loops, and the archive's test people."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from face_recognition_node.cli import main
from face_recognition_node.cli.evaluate.identification import open_judged_faces
from face_recognition_node.common.errors import InputError, SourceError
from face_recognition_node.evaluation.face_archive import merge_doubles
from face_recognition_node.evaluation.identification import (
    identify,
    open_set_identification,
    person_similarity,
    rejection_threshold,
)


def unit(random, count, size=8):
    vectors = random.normal(size=(count, size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def people_around_centres(random, people, each, spread):
    centres = unit(random, people, 32)
    vectors = np.repeat(centres, each, axis=0) + spread * random.normal(size=(people * each, 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.repeat(np.arange(people), each)


def test_person_similarity_against_a_loop(rng):
    probes, gallery = unit(rng, 5), unit(rng, 7)
    people = np.array([4, 2, 2, 9, 4, 9, 9])
    scores, names = person_similarity(probes, gallery, people)
    assert names.tolist() == [2, 4, 9]
    for p in range(5):
        for column, name in enumerate(names):
            best = max(float(probes[p] @ gallery[t]) for t in range(7) if people[t] == name)
            assert scores[p, column] == pytest.approx(best, abs=1e-6)


def test_empty_galleries_and_probes():
    none = np.empty((0, 8), np.float32)
    scores, names = person_similarity(none, none, np.empty(0, np.int64))
    assert scores.shape == (0, 0)
    assert len(names) == 0
    with pytest.raises(InputError, match="empty"):
        identify(none, none, np.empty(0, np.int64))
    with pytest.raises(InputError, match="strangers"):
        rejection_threshold(np.empty(0, np.float32), 0.1)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=60), st.floats(0, 1))
def test_no_more_strangers_pass_than_allowed(scores, fpir):
    values = np.array(scores, np.float32)
    limit = rejection_threshold(values, fpir)
    assert (values > limit).sum() <= fpir * len(values) + 1e-9


def test_the_threshold_wastes_nothing():
    scores = np.linspace(0, 1, 100, dtype=np.float32)
    assert (scores > rejection_threshold(scores, 0.1)).sum() == 10
    assert (scores > rejection_threshold(scores, 0.0)).sum() == 0
    assert (scores > rejection_threshold(scores, 1.0)).sum() == 100


def test_people_far_apart_are_all_found(rng):
    embeddings, labels = people_around_centres(rng, 20, 5, 0.01)
    result = open_set_identification(embeddings, labels, 8, 2, repetitions=3)
    assert result.rank_one == 1
    assert [point.dir for point in result.points] == [1.0, 1.0]
    assert result.mated == 8 * 3
    assert result.non_mated == 12 * 5
    assert "DIR 100.0 %" in str(result)


def test_a_rate_below_one_stranger_is_said_to_be_unresolved(rng):
    embeddings, labels = people_around_centres(rng, 20, 5, 0.01)  # 60 probes of strangers
    result = open_set_identification(embeddings, labels, 8, 2, (1 / 60, 0.01), repetitions=3)
    assert [point.is_resolved for point in result.points] == [True, False]
    first, last = map(str, result.points)
    assert "too few" not in first
    assert "FPIR 1 % (too few strangers: at no false name)" in last


def test_noise_is_not_found(rng):
    labels = np.repeat(np.arange(30), 4)
    result = open_set_identification(unit(rng, 120), labels, 10, 2, repetitions=5)
    assert result.rank_one < 0.35
    assert result.points[1].dir < 0.15


def test_one_repetition_against_a_loop(rng):
    embeddings, labels = people_around_centres(rng, 12, 4, 0.25)
    result = open_set_identification(embeddings, labels, 5, 2, fpir=(0.2,), repetitions=1, seed=7)
    again = np.random.default_rng(7)
    enrolled = again.choice(np.arange(12), 5, replace=False)
    chosen = [face for p in enrolled for face in again.choice(np.flatnonzero(labels == p), 2, replace=False)]
    stranger_scores, mated = [], []
    for probe in range(len(labels)):
        if probe in chosen:
            continue
        best = max(chosen, key=lambda face: float(embeddings[probe] @ embeddings[face]))
        score = float(embeddings[probe] @ embeddings[best])
        if labels[probe] in enrolled:
            mated.append((score, labels[best] == labels[probe]))
        else:
            stranger_scores.append(score)
    allowed = int(0.2 * len(stranger_scores))
    limit = sorted(stranger_scores, reverse=True)[allowed]
    expected = np.mean([right and score > limit for score, right in mated])
    assert result.points[0].dir == pytest.approx(expected)
    assert result.points[0].threshold == pytest.approx(limit, abs=1e-5)
    assert result.points[0].low <= expected <= result.points[0].high


def test_intervals_are_of_95_percent_as_everywhere(rng, monkeypatch):
    asked = []
    quantile = np.quantile
    monkeypatch.setattr(np, "quantile", lambda values, at: asked.append(at) or quantile(values, at))
    embeddings, labels = people_around_centres(rng, 12, 5, 0.1)
    open_set_identification(embeddings, labels, 5, 2, (0.2,), 1, 7)
    assert asked == [pytest.approx((0.025, 0.975))]


def test_worse_probes_are_found_less_often(rng):
    embeddings, labels = people_around_centres(rng, 20, 5, 0.1)
    noisy, _ = people_around_centres(rng, 20, 5, 0.1)
    clean = open_set_identification(embeddings, labels, 8, 2)
    worse = open_set_identification(embeddings, labels, 8, 2, probes=noisy)
    assert worse.rank_one < clean.rank_one


def test_only_counted_probes_count(rng):
    embeddings, labels = people_around_centres(rng, 20, 5, 0.1)
    spoiled = embeddings.copy()
    counted = np.arange(len(labels)) % 5 == 4
    spoiled[~counted] = unit(rng, int((~counted).sum()), 32)
    good = open_set_identification(embeddings, labels, 8, 2, probes=spoiled, counted=counted)
    assert good.rank_one > 0.9
    assert open_set_identification(embeddings, labels, 8, 2, probes=spoiled).rank_one < 0.6
    with pytest.raises(InputError, match="got none"):
        open_set_identification(embeddings, labels, 8, 2, counted=np.zeros(len(labels), bool))


def test_galleries_that_cannot_be_made_are_refused(rng):
    embeddings, labels = people_around_centres(rng, 5, 2, 0.1)
    with pytest.raises(InputError, match="over 2 faces"):
        open_set_identification(embeddings, labels, 2, 2)
    with pytest.raises(InputError, match="expected more people"):
        open_set_identification(embeddings, labels, 5, 1)


def test_one_person_of_two_collections_is_merged():
    teacher = np.eye(4, dtype=np.float32)[[0, 0, 0, 1, 2]]
    labels, sources = np.array([3, 3, 8, 9, 10]), np.array(["a", "a", "b", "b", "a"])
    assert merge_doubles(labels, sources, teacher).tolist() == [3, 3, 3, 9, 10]
    same_home = np.array(["a"] * 5)
    assert merge_doubles(labels, same_home, teacher).tolist() == labels.tolist()
    assert labels.tolist() == [3, 3, 8, 9, 10]


def test_strangers_of_a_group_are_counted_at_everybodys_threshold(rng):
    embeddings, labels = people_around_centres(rng, 20, 5, 0.1)
    group = labels < 10
    # the group's people all look alike, so its strangers are taken for its members
    embeddings[group] = embeddings[0] + 0.05 * unit(rng, int(group.sum()), 32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    alike, others = (
        open_set_identification(embeddings, labels, 8, 2, fpir=(0.2,), counted=mask).points[0]
        for mask in (group, ~group)
    )
    assert alike.counted_fpir > 0.2 > others.counted_fpir
    assert alike.threshold == others.threshold
    everybody = open_set_identification(embeddings, labels, 8, 2, fpir=(0.2,)).points[0]
    assert everybody.counted_fpir is None
    all_counted = open_set_identification(embeddings, labels, 8, 2, fpir=(0.2,), counted=labels >= 0)
    assert all_counted.points[0].counted_fpir == pytest.approx(0.2, abs=0.02)
    assert all_counted.points[0].dir == everybody.dir
    assert "of these" in str(all_counted)


@pytest.fixture
def made_up_lfw(tmp_path, rng):
    """Return a folder in LFW's layout: 8 made-up people, coloured noise, 16 pictures each."""
    import cv2

    folder = tmp_path / "lfw"
    for person in range(8):
        base = np.random.default_rng(person).integers(0, 256, (14, 14, 3)).repeat(8, 0).repeat(8, 1)
        (folder / f"P{person}").mkdir(parents=True)
        for number in range(1, 17):
            noisy = np.clip(base + rng.normal(0, 9, base.shape), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / f"P{person}" / f"P{person}_{number:04d}.png"), noisy)
    (folder / "pairs.txt").write_text(
        "2\t2\nP0\t1\t2\nP1\t1\t2\nP0\t1\tP1\t1\nP2\t3\tP3\t2\n"
        "P2\t1\t2\nP3\t1\t2\nP4\t1\tP5\t1\nP6\t3\tP7\t2\n"
    )
    return folder


@pytest.mark.slow
def test_the_command_reports_groups_and_pictures(made_up_lfw, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib of the train extra")
    pytest.importorskip("sklearn", reason="projections need scikit-learn of the train extra")
    table, page = tmp_path / "groups.csv", tmp_path / "report.html"
    table.write_text("identity,group\n" + "".join(f"P{n},{'few' if n == 7 else 'many'}\n" for n in range(8)))
    command = ["evaluate", "identification", str(made_up_lfw), "--gallery-sizes", "3", "--shots", "2"]
    command += ["--repetitions", "2", "--groups", str(table), "--report", str(page), "--json"]
    assert main(command) == 0
    figures = json.loads(capsys.readouterr().out)
    assert list(figures["by_group"]) == ["many"]
    assert figures["left_out"] == ["few: 16"]
    assert figures["by_group"]["many"]["points"][0]["counted_fpir"] is not None
    assert page.read_text().count("data:image/png") == 3
    assert main(["evaluate", "verification", str(made_up_lfw), "--report", str(page)]) == 0
    assert page.read_text().count("data:image/png") == 3
    table.write_text("identity,group\nNobody,a\n")
    assert main(command) == 2
    assert "names nobody" in capsys.readouterr().err
    table.write_text("who,what\n")
    assert main(command) == 2
    assert "columns identity and group" in capsys.readouterr().err


@pytest.mark.slow
def test_a_prepared_folder_gives_its_held_out_people(tmp_path):
    pytest.importorskip("torch", reason="the train extra is not installed: no torch")
    rows = [f"faces/n{n:02d}/{k}.webp,n{n:02d},x,0.9,50" for n in range(12) for k in range(2)]
    (tmp_path / "manifest.csv").write_text("\n".join(["crop,identity,source,score,size_px", *rows]) + "\n")
    faces = open_judged_faces(tmp_path)
    assert faces.names.tolist() == ["n00", "n00", "n10", "n10"]
    assert faces.labels.tolist() == [0, 0, 10, 10]
    assert set(faces.collections) == {tmp_path.name}
    assert "4 faces of 2 people" in faces.description
    with pytest.raises(SourceError, match=r"n00/0\.webp"):
        faces.read(0)

"""Open-set identification against slow loops, and the archive's test people."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from face_recognition_node.core.errors import InputError
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

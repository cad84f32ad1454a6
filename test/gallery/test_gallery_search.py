from __future__ import annotations

import gc

import numpy as np
import pytest
from benchmark_gallery import decision_threshold
from gallery_helpers import face, open_gallery, template, templates, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from face_recognition_node.gallery.gallery import NewTemplate
from face_recognition_node.gallery.index import CellIndex, FlatIndex
from face_recognition_node.gallery.schema import rows_of, with_changed
from face_recognition_node.vision.faces import HeadPose


class Templates:
    """Templates of persons "p0", "p1" …; each person's faces lie around a mean."""

    def __init__(self, rng, counts, first_id=1, dimension=64):
        n = sum(counts)
        owners = np.repeat(np.arange(len(counts)), counts)
        means = unit(rng.normal(size=(len(counts), dimension)))
        noise = unit(rng.normal(size=(n, dimension)))
        self.embeddings = unit(means[owners] + 0.9 * noise) if n else np.zeros((0, dimension), np.float32)
        self.ids = np.arange(first_id, first_id + n)
        self.persons = np.empty(n, object)
        self.persons[:] = [f"p{owner}" for owner in owners]

    def cells(self):
        return CellIndex(self.ids, self.persons, self.embeddings, 1)

    def flat(self):
        return FlatIndex(self.ids, self.embeddings, 1)


def slow_search(snapshot, query, per_query):
    """Return (person, best similarity) by plain loops over what the gallery holds."""
    best: dict[str, float] = {}
    for person_id in snapshot.persons:
        for one in snapshot.templates_of(person_id):
            if not one.is_set_aside:
                similarity = sum(float(a) * float(b) for a, b in zip(one.embedding, query, strict=True))
                best[person_id] = max(best.get(person_id, -2.0), similarity)
    return sorted(best.items(), key=lambda item: -item[1])[:per_query]


def assert_same(found, expected):
    assert len(found) == len(expected)
    np.testing.assert_allclose([m.similarity for m in found], [v for _, v in expected], atol=1e-5)
    assert {m.person_id for m in found} == {person for person, _ in expected}


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.lists(st.integers(1, 40), max_size=8),
    per_query=st.integers(1, 12),
    n_queries=st.integers(1, 4),
)
@pytest.mark.slow
def test_a_search_equals_loops(seed, counts, per_query, n_queries):
    rng = np.random.default_rng(seed)
    with open_gallery(None) as gallery:
        for count in counts:
            person = gallery.add_person("x", templates(rng, count))
            gallery.set_aside([key for key in person.template_ids if key % 5 == 2])
        snapshot = gallery.snapshot()
        queries = face(rng, n_queries)
        answers = snapshot.search(queries, per_query)
        assert len(answers) == n_queries
        for query, found in zip(queries, answers, strict=True):
            assert_same(found, slow_search(snapshot, query, per_query))
            for match in found:  # the template named is the one that has this similarity
                (one,) = snapshot.templates([match.template_id])
                assert one.person_id == match.person_id
                assert float(one.embedding @ query) == pytest.approx(match.similarity, abs=1e-5)
                assert one.quality == pytest.approx(match.template_quality)


@pytest.mark.parametrize("dimension", [64, 24])
def test_both_indexes_find_the_same_when_every_cell_is_opened(rng, dimension):
    every = Templates(rng, [1, 3, 32, 33, 70, 2], dimension=dimension)
    queries = unit(rng.normal(size=(5, dimension)))
    flat, cells = (index.search(queries, 20, 6) for index in (every.flat(), every.cells()))
    expected = np.sort(queries @ every.embeddings.T, axis=1)[:, :-21:-1]
    for similarities, ids in (flat, cells):
        np.testing.assert_allclose(similarities, expected, atol=1e-5)
        for query, row, values in zip(queries, ids, similarities, strict=True):
            np.testing.assert_allclose(every.embeddings[row - 1] @ query, values, atol=1e-5)


@pytest.mark.parametrize("kind", ["flat", "cells"])
def test_embeddings_are_given_back_bit_by_bit_by_id(rng, kind):
    every = Templates(rng, [2, 3])
    index = getattr(every, kind)()
    for wanted in ([], [1], [2, 5]):
        np.testing.assert_array_equal(
            index.embeddings(np.array(wanted, np.int64)), every.embeddings[np.array(wanted, int) - 1]
        )


def test_the_index_of_a_large_gallery_misses_nobody_who_matters(rng):
    n_persons, queries_wanted = 1000, 200
    threshold = decision_threshold(20 * n_persons, 0.01)
    every = Templates(rng, [20] * n_persons)
    rows = rng.choice(len(every.ids), queries_wanted, replace=False)
    queries = unit(every.embeddings[rows] + 0.7 * face(rng, queries_wanted))
    similarities, ids = every.flat().search(queries, 32, 8)
    _, approximate = every.cells().search(queries, 32, 8)
    wanted = found = 0
    for values, true, got in zip(similarities, ids, approximate, strict=True):
        above = true[values >= threshold]
        wanted, found = wanted + len(above), found + int(np.isin(above, got).sum())
    assert wanted >= 150
    assert found / wanted >= 0.995


def test_newcomers_of_a_large_gallery_get_cells_of_their_own(rng):
    every = Templates(rng, [5] * 300)
    cells = every.cells()
    others = Templates(rng, [4] * 200, first_id=5000)
    others.persons[:] = [f"new {person}" for person in others.persons]
    assert cells.add(others.ids, others.persons, others.embeddings)
    _, ids = cells.search(unit(others.embeddings + 0.3 * face(rng, 800)), 1, 1)
    assert (ids[:, 0] == others.ids).mean() > 0.99
    crowd = Templates(rng, [1] * 2000, first_id=9000)
    crowd.persons[:] = [f"crowd {person}" for person in crowd.persons]
    assert not cells.add(crowd.ids, crowd.persons, crowd.embeddings)  # no room: to be made anew


def test_hundreds_of_templates_of_one_person_hide_nobody(rng):
    with open_gallery(None, max_templates_per_person=1000) as gallery:
        mean = face(rng)
        crowd = gallery.add_person("many", [template(unit(mean + 0.1 * face(rng))) for _ in range(600)])
        others = [gallery.add_person(f"p{i}", [template(unit(mean + 2 * face(rng)))]) for i in range(40)]
        (found,) = gallery.snapshot().search(mean[None], 32)
        assert len(found) == 32
        assert len({match.person_id for match in found}) == 32
        assert found[0].person_id == crowd.person_id
        every = {
            p.person_id: float(gallery.snapshot().templates_of(p.person_id)[0].embedding @ mean)
            for p in others
        }
        best = sorted(every, key=every.__getitem__, reverse=True)[:31]
        assert [match.person_id for match in found[1:]] == best


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), n_edits=st.integers(1, 25))
def test_a_gallery_found_through_many_edits_equals_loops(seed, n_edits):
    """Adds, merges, splits, removals and joins of base and tail leave the search equal to a fresh one."""
    rng = np.random.default_rng(seed)
    with open_gallery(None) as gallery:
        for number in range(n_edits):
            persons = list(gallery.snapshot().persons.values())
            choice = rng.integers(5) if len(persons) > 1 else 0
            person = persons[rng.integers(len(persons))] if persons else None
            if choice == 0 or person is None:
                gallery.add_person(
                    f"n{number}", [template(v) for v in face(rng, int(rng.integers(1, 150)))][:90]
                )
            elif choice == 1 and person.n_templates > 1:
                gallery.split(person.template_ids[:1], "split")
            elif choice == 2 and person.n_templates > 1:
                gallery.remove_templates(person.template_ids[-1:])
            elif choice == 3:
                gallery.forget(person.person_id)
            else:
                gallery.set_aside(person.template_ids[::2])
        snapshot = gallery.snapshot()
        queries = face(rng, 2)
        assert snapshot.n_templates == sum(p.n_templates for p in snapshot.persons.values())
        for query, found in zip(queries, snapshot.search(queries, 10), strict=True):
            assert_same(found, slow_search(snapshot, query, 10))
        assert gallery.verify().problems == ()


@pytest.mark.slow
def test_a_gallery_over_the_limit_of_exact_search_goes_on_like_a_small_one(rng):
    means = face(rng, 300)
    with open_gallery(None, exact_limit=1000) as gallery:
        for number, mean in enumerate(means):
            views = unit(mean + 0.7 * face(rng, 5))
            gallery.add_person(f"n{number}", [NewTemplate(v, 0.9, HeadPose(0, 0, 0)) for v in views])
        snapshot = gallery.snapshot()
        assert not snapshot.is_exact
        names = [snapshot.persons[found[0].person_id].name for found in snapshot.search(means, 3)]
        assert names == [f"n{number}" for number in range(300)]
        gone = [key for key, person in snapshot.persons.items() if person.name in ("n3", "n299")]
        gallery.forget(gone, final=True)
        found = gallery.snapshot().search(means[[3, 299]], 96)
        assert not {match.person_id for matches in found for match in matches} & set(gone)
        assert gallery.verify().problems == ()


def test_wiped_rows_are_zero_and_left_out_of_the_centroid(rng):
    every = Templates(rng, [1, 4])
    flat, cells = every.flat(), every.cells()
    for index in (flat, cells):
        index.wipe(np.array([1, 3, 77]))
        assert not index.embeddings(np.array([1, 3])).any()
        np.testing.assert_array_equal(index.embeddings(np.array([2, 4, 5])), every.embeddings[[1, 3, 4]])
    centroids = np.frombuffer(cells.memory(), np.float32).reshape(-1, 64)[-2:]
    assert not centroids[0].any()
    mean = every.embeddings[[1, 3, 4]].sum(axis=0)
    np.testing.assert_allclose(centroids[1], mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize("kind", ["flat", "cells"])
def test_an_index_that_is_let_go_leaves_zeros_behind(rng, kind):
    index = getattr(Templates(rng, [3]), kind)()
    memory = index._index
    assert memory.ntotal == 3
    del index
    gc.collect()
    zeros = np.zeros((1, 64), np.float32)
    if kind == "cells":
        memory.nprobe = 1000
        values, _ = memory.search(zeros + 1, 3)
        assert not values.any()
    else:
        assert not memory.reconstruct_n(0, 3).any()


def test_rows_are_found_by_template_id(rng):
    with open_gallery(None) as gallery:
        for count in (2, 3):
            gallery.add_person("x", templates(rng, count))
        table = gallery.snapshot().table
        for wanted in ([], [1], [1, 5, 77], [99], [0, 1]):
            rows = rows_of(table, np.array(wanted, np.int64))
            assert table["template_id"][rows].tolist() == [i for i in wanted if 1 <= i <= 5]
        assert len(with_changed(table, np.arange(9), table)) == 5

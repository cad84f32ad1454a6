from __future__ import annotations

import gc

import numpy as np
import pytest
from gallery_helpers import face, open_gallery, template, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from face_recognition_node.evaluation.gallery_benchmark import decision_threshold
from face_recognition_node.gallery.cell_search import CELL_ROWS, CellIndex, CellSearch
from face_recognition_node.gallery.columns import Columns
from face_recognition_node.gallery.exact_search import ExactSearch
from face_recognition_node.gallery.gallery import NewTemplate
from face_recognition_node.gallery.template_block import TemplateBlock
from face_recognition_node.vision.faces import HeadPose

NOTHING = np.zeros(0, np.int64)


def columns(rng, counts, first_id=1, aside=()) -> Columns:
    """Return templates of persons "p0", "p1" … in random order; each person's faces lie around a mean."""
    n = sum(counts)
    owners = np.repeat(np.arange(len(counts)), counts)
    means = face(rng, len(counts))
    embeddings = unit(means[owners] + 0.9 * face(rng, n)) if n else np.zeros((0, 64), np.float32)
    ids = np.arange(first_id, first_id + n)
    person_ids = np.empty(n, object)
    person_ids[:] = [f"p{owner}" for owner in owners]
    codes = np.zeros((n, 3), np.uint8)
    codes[np.isin(ids, list(aside)), 2] = 1
    quality = rng.uniform(size=n).astype(np.float32)
    whole = Columns(person_ids, ids, embeddings, quality, np.zeros((n, 3), np.float32), np.zeros(n), codes)
    return whole.take(rng.permutation(n))


def slow_search(parts, query, per_query):
    """Return (person, best similarity) by plain loops over (columns, rows that are dead)."""
    best: dict[str, float] = {}
    for part, dead in parts:
        for row in range(len(part)):
            if row in dead or part.codes[row, 2]:
                continue
            similarity = sum(float(a) * float(b) for a, b in zip(part.embeddings[row], query, strict=True))
            person = part.person_ids[row]
            best[person] = max(best.get(person, -2.0), similarity)
    return sorted(best.items(), key=lambda item: -item[1])[:per_query]


def assert_same(found, expected):
    assert len(found) == len(expected)
    np.testing.assert_allclose([m.similarity for m in found], [v for _, v in expected], atol=1e-5)
    assert {m.person_id for m in found} == {person for person, _ in expected}


@given(
    seed=st.integers(0, 2**32 - 1),
    base_counts=st.lists(st.integers(1, 6), max_size=8),
    tail_counts=st.lists(st.integers(1, 4), max_size=5),
    per_query=st.integers(1, 12),
    n_queries=st.integers(1, 4),
)
def test_exact_search_equals_loops(seed, base_counts, tail_counts, per_query, n_queries):
    rng = np.random.default_rng(seed)
    base = TemplateBlock(columns(rng, base_counts, aside=[2, 5]))
    tail = TemplateBlock(columns(rng, tail_counts, first_id=1000, aside=[1001]))
    dead = np.flatnonzero(rng.random(len(base)) < 0.3)
    queries = face(rng, n_queries)
    answers = ExactSearch(base, tail, dead).search(queries, per_query)
    assert len(answers) == n_queries
    for query, found in zip(queries, answers, strict=True):
        expected = slow_search([(base.columns, set(dead.tolist())), (tail.columns, set())], query, per_query)
        assert_same(found, expected)
        for match in found:  # the template named is the one that has this similarity
            for part in (base.columns, tail.columns):
                rows = np.flatnonzero(part.template_ids == match.template_id)
                for row in rows:
                    assert part.person_ids[row] == match.person_id
                    assert float(part.embeddings[row] @ query) == pytest.approx(match.similarity, abs=1e-5)
                    assert float(part.quality[row]) == pytest.approx(match.template_quality)


@pytest.mark.parametrize("cells_only", [True, False])
def test_cell_search_equals_loops_when_every_cell_is_opened(rng, cells_only):
    base = TemplateBlock(
        columns(rng, [1, 3, CELL_ROWS, CELL_ROWS + 1, 70, 2], aside=[3]), is_column_major=False
    )
    tail = TemplateBlock(columns(rng, [] if cells_only else [2, 0, 0, 0, 1, 0, 3], first_id=1000))
    dead = NOTHING if cells_only else np.array([0, 5, 40])
    search = CellSearch(base, CellIndex(base, 1), tail, dead)
    queries = face(rng, 5)
    for query, found in zip(queries, search.search(queries, 6), strict=True):
        parts = [(base.columns, set(dead.tolist())), (tail.columns, set())]
        assert_same(found, slow_search(parts, query, 6))


def test_cells_cover_every_row_once(rng):
    block = TemplateBlock(columns(rng, [1, CELL_ROWS, CELL_ROWS + 1, 5 * CELL_ROWS]), is_column_major=False)
    cells = CellIndex(block, 1)
    rows = [row for s, n in zip(cells.starts, cells.lengths, strict=True) for row in range(s, s + n)]
    assert rows == list(range(len(block)))
    assert max(cells.lengths) <= CELL_ROWS
    for cell, slot in enumerate(cells.slots):
        start = cells.starts[cell]
        assert block.columns.person_ids[start] == block.person_ids[slot]


def test_the_index_of_a_large_gallery_misses_nobody_who_matters(rng):
    n_persons, queries_wanted = 1000, 200
    threshold = decision_threshold(20 * n_persons, 0.01)
    base = TemplateBlock(columns(rng, [20] * n_persons), is_column_major=False)
    fast = CellSearch(base, CellIndex(base, 1), base.nothing(), NOTHING)
    exact = ExactSearch(base, base.nothing(), NOTHING)
    rows = rng.choice(len(base), queries_wanted, replace=False)
    queries = unit(base.columns.embeddings[rows] + 0.7 * face(rng, queries_wanted))
    wanted = found = 0
    for approximate, true in zip(fast.search(queries, 8), exact.search(queries, 8), strict=True):
        got = {(match.person_id, match.template_id) for match in approximate}
        above = [match for match in true if match.similarity >= threshold]
        wanted += len(above)
        found += sum((match.person_id, match.template_id) in got for match in above)
    assert wanted >= 150
    assert found / wanted >= 0.995


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


@settings(max_examples=20)
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
        every = TemplateBlock(snapshot.all_columns())
        assert len(every) == snapshot.n_templates == sum(p.n_templates for p in snapshot.persons.values())
        for query, found in zip(queries, snapshot.search(queries, 10), strict=True):
            assert_same(found, slow_search([(every.columns, set())], query, 10))
        assert gallery.verify().problems == ()


def test_a_gallery_over_the_limit_of_exact_search_goes_on_like_a_small_one(rng):
    means = face(rng, 300)
    with open_gallery(None, exact_limit=1000) as gallery:
        for number, mean in enumerate(means):
            views = unit(mean + 0.7 * face(rng, 5))
            gallery.add_person(f"n{number}", [NewTemplate(v, 0.9, HeadPose(0, 0, 0)) for v in views])
        snapshot = gallery.snapshot()
        assert snapshot.cells is not None
        names = [snapshot.persons[found[0].person_id].name for found in snapshot.search(means, 3)]
        assert names == [f"n{number}" for number in range(300)]
        gone = [key for key, person in snapshot.persons.items() if person.name in ("n3", "n299")]
        gallery.forget(gone, final=True)
        found = gallery.snapshot().search(means[[3, 299]], 96)
        assert not {match.person_id for matches in found for match in matches} & set(gone)
        assert gallery.verify().problems == ()


def test_wiped_rows_are_zero_in_every_block_and_centroid(rng):
    block = TemplateBlock(columns(rng, [1, 4]), is_column_major=False)
    cells = CellIndex(block, 1)
    rows = block.rows_of([1, 3])
    block.wipe(rows)
    cells.renew(block, rows)
    assert not block.columns.embeddings[rows].any()
    cell_of_single = int(np.flatnonzero(cells.lengths == 1)[0])
    centroids = np.array([cells._index.reconstruct(i) for i in range(2)])
    assert not centroids[cell_of_single].any()
    left = np.setdiff1d(np.arange(1, 5), rows)
    mean = block.columns.embeddings[left].sum(axis=0)
    np.testing.assert_allclose(centroids[1 - cell_of_single], mean / np.linalg.norm(mean), atol=1e-6)


def test_a_block_that_is_let_go_leaves_zeros_behind(rng):
    block = TemplateBlock(columns(rng, [3]))
    memory = block.columns.embeddings
    copy = block.template(0)
    assert memory.any()
    del block
    gc.collect()
    assert not memory.any()
    assert np.linalg.norm(copy.embedding) == pytest.approx(1.0, abs=1e-6)


def test_rows_are_found_by_template_id(rng):
    block = TemplateBlock(columns(rng, [2, 3]))
    for wanted in ([], [1], [5, 1, 1, 77], [99]):
        rows = block.rows_of(wanted)
        assert sorted(block.columns.template_ids[rows].tolist()) == sorted({i for i in wanted if i <= 5})
        assert rows.tolist() == sorted(rows.tolist())
    assert len(block.nothing().rows_of([1])) == 0

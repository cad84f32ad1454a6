"""What a kill and a crowd do to a gallery; the full runs are commands, these are short ones of them."""

from __future__ import annotations

import threading

import gallery_crash
import numpy as np
import pytest
from benchmark_gallery import best_of_persons, decision_threshold, measure_recall, recall
from gallery_concurrency import concurrency_test
from gallery_helpers import face, open_gallery, template, templates, unit

from face_recognition_node.cli.benchmark.gallery import DIMENSION
from face_recognition_node.config import GalleryConfig


@pytest.mark.slow
def test_no_promise_is_broken_by_kills(tmp_path):
    """Full run: ./run exec python tools/gallery_crash.py 200."""
    figures = gallery_crash.crash_test(tmp_path, 10, longest_s=0.15)
    assert figures.failures == ()
    assert figures.leftovers == ()
    assert figures.rounds == 10
    assert figures.acknowledged > 0


@pytest.mark.slow
def test_the_crash_test_notices_a_lost_change(tmp_path, monkeypatch):
    """The test above is able to fail: here the "durable" changes are thrown away."""
    honest = gallery_crash._write_and_kill

    def forgetful(path, keys, seed, delay_s):
        before = path.read_bytes() if path.exists() else None
        outcome = honest(path, keys, seed, delay_s)
        for name in path.parent.glob("gallery.db*"):
            name.unlink()
        if before is not None:
            path.write_bytes(before)
        return outcome

    monkeypatch.setattr(gallery_crash, "_write_and_kill", forgetful)
    figures = gallery_crash.crash_test(tmp_path, 2, longest_s=3.0)
    assert any("neither" in failure for failure in figures.failures)


def test_the_crash_test_notices_what_is_left_over(tmp_path):
    """The test above is able to fail: here is everything that it looks for."""
    for folder, name, content in (
        ("data", "gallery.db", b"...p-0123456789ab..."), ("data", ".all.part", b"faces"),
        ("keys", "undo-1.key", b""), ("exports", "all.export", b"half"),
    ):  # fmt: skip
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_bytes(content)
    found = " ".join(gallery_crash._leftovers(tmp_path, {"p-0123456789ab"}))
    for sentence in ("p-0123456789ab was forgotten", ".all.part stayed", "key of 0 bytes", "damaged"):
        assert sentence in found


@pytest.mark.slow
@pytest.mark.parametrize("exact_limit", [50000, 1000])
def test_search_goes_on_during_changes(tmp_path, rng, exact_limit):
    """Full run: ./run exec python tools/gallery_concurrency.py 60."""
    with open_gallery(tmp_path / "data" / "gallery.db", exact_limit=exact_limit) as gallery:
        for number in range(210 if exact_limit == 1000 else 5):
            gallery.add_person(f"n{number}", templates(rng, 5))
        figures = concurrency_test(gallery, 1.5)
        assert figures.failures == ()
        assert figures.edits > 0
        assert figures.searches > 0
        assert gallery.verify().problems == ()


@pytest.mark.slow
def test_a_large_gallery_goes_on_through_many_changes(rng):
    """Its index grows in place, is made anew when it is full, and loses no change."""
    with open_gallery(None, exact_limit=1000) as gallery:
        vectors = {}
        for number in range(400):
            mean = face(rng)
            person = gallery.add_person(
                f"n{number}", [template(unit(mean + 0.5 * face(rng))) for _ in range(5)]
            )
            vectors[person.person_id] = mean
            if number % 3 == 0:
                gone = list(vectors)[int(rng.integers(len(vectors)))]
                gallery.forget(gone, final=True)
                del vectors[gone]
        snapshot = gallery.snapshot()
        assert snapshot.n_templates > 1000
        assert not snapshot.is_exact
        assert set(snapshot.persons) == set(vectors)
        for person_id, found in zip(
            vectors, snapshot.search(np.stack(list(vectors.values())), 1), strict=True
        ):
            assert found[0].person_id == person_id
        assert gallery.verify().problems == ()


def test_writers_in_many_threads_take_turns(tmp_path, rng):
    with open_gallery(tmp_path / "data" / "gallery.db") as gallery:
        errors = []

        def write(number):
            own = np.random.default_rng(number)
            try:
                for _ in range(5):
                    person = gallery.add_person(f"t{number}", templates(own, 2))
                    gallery.rename(person.person_id, f"r{number}")
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert gallery.snapshot().version == 40
        assert len(gallery.snapshot().persons) == 20
        assert gallery.verify().problems == ()


@pytest.mark.slow
def test_the_benchmark_measures_both_kinds_of_index(tmp_path):
    exact, none_missed = measure_recall(100, tmp_path, repeats=3, edits=4, recall_queries=10)
    cells, few_missed = measure_recall(
        1500, tmp_path, repeats=3, edits=4, recall_queries=60, config=GalleryConfig(exact_limit=1000)
    )
    assert (exact.index, cells.index) == ("flat", "cells")
    assert none_missed.recall_best == none_missed.recall_all == 1.0
    assert few_missed.recall_best >= 0.995
    assert [path for path in (tmp_path / "data").iterdir()] == []


def test_recall_counts_what_a_search_misses(rng):
    class Blind:
        """Finds only the best match of every other query."""

        def __init__(self, snapshot):
            self.table, self.embeddings = snapshot.table, snapshot.embeddings
            self.search = lambda queries, n: [
                found[:1] if number % 2 else () for number, found in enumerate(snapshot.search(queries, n))
            ]

    with open_gallery(None) as gallery:
        means = face(rng, 6)
        for mean in means:
            gallery.add_person("x", [template(mean)])
        snapshot = gallery.snapshot()
        assert recall(snapshot, means, 0.9) == (1.0, 1.0, 6)
        assert recall(Blind(snapshot), means, 0.9) == (0.5, 0.5, 6)
        assert recall(snapshot, means, 2.0) == (1.0, 1.0, 0)
        best = best_of_persons(means, np.arange(7), means)
        np.testing.assert_allclose(best.max(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("n_templates", [1, 100, 1_000_000])
def test_the_decision_threshold_is_that_of_the_beta_distribution(n_templates):
    half = (DIMENSION - 1) / 2
    from scipy.stats import beta  # slow to import

    expected = 2 * beta.isf(0.01 / n_templates, half, half) - 1
    assert decision_threshold(n_templates, 0.01) == pytest.approx(expected, abs=1e-5)


def test_the_decision_threshold_is_what_strangers_reach_at_the_rate(rng):
    queries, others = face(rng, 2000), face(rng, 100)
    reached = (queries @ others.T).max(axis=1)
    threshold = decision_threshold(100, 0.05)
    assert (reached >= threshold).mean() == pytest.approx(0.05, abs=0.015)
    assert decision_threshold(1000, 0.05) > threshold

from __future__ import annotations

import sqlite3

import numpy as np
import pytest
from gallery_helpers import FINGERPRINT, face, open_gallery, sql, template, templates, unit

from face_recognition_node.common.errors import GalleryConflictError, GalleryUnavailableError
from face_recognition_node.config import GalleryConfig
from face_recognition_node.gallery.check import doubtful_templates
from face_recognition_node.gallery.files import CropSafe, KeyRing
from face_recognition_node.gallery.gallery import Gallery


@pytest.fixture
def path(tmp_path, rng):
    file = tmp_path / "data" / "gallery.db"
    with open_gallery(file) as gallery:
        for name in ("Anna", "Bob"):
            gallery.add_person(name, templates(rng, 3))
    return file


def problems_after(path, *statements):
    with sqlite3.connect(path) as connection:
        for statement, *values in statements:
            connection.execute(statement, values)
    connection.close()
    with open_gallery(path) as gallery:
        return gallery.verify().problems


def test_a_sound_gallery_has_no_problems(path):
    with open_gallery(path) as gallery:
        report = gallery.verify()
    assert report.is_sound
    assert (report.n_persons, report.n_templates, report.fingerprint) == (2, 6, FINGERPRINT)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE templates SET quality = 1.5 WHERE template_id = 2", "quality"),
        ("DELETE FROM persons WHERE name = 'Anna'", "refers to a row"),
        ("DELETE FROM templates WHERE template_id < 4", "no templates"),
        ("UPDATE meta SET value = 3 WHERE key = 'next_template'", "was never assigned"),
        ("INSERT INTO aliases SELECT person_id, person_id FROM persons LIMIT 1", "same time"),
        ("INSERT INTO crops VALUES (1, x'00')", "crops cannot be opened"),
    ],
)
def test_broken_rules_are_found(path, statement, expected):
    assert any(expected in problem for problem in problems_after(path, (statement,)))


@pytest.mark.parametrize("factor", [0.5, 0.0, np.nan])
def test_vectors_that_are_not_of_unit_length_are_found(path, rng, factor):
    blob = (face(rng) * factor).astype("<f4").tobytes()
    found = problems_after(path, ("UPDATE templates SET embedding = ? WHERE template_id = 5", blob))
    assert found == ("template 5: its embedding is not a unit vector",)


def test_an_index_that_differs_from_the_file_is_found(path, rng):
    with open_gallery(path) as gallery:
        gallery.snapshot().index.vectors()[1] = face(rng)
        assert any("differs" in problem for problem in gallery.verify().problems)


def test_doubtful_templates_resemble_somebody_else_more(rng):
    means = face(rng, 4)
    with open_gallery(None) as gallery:
        people = [
            gallery.add_person(f"n{i}", [template(unit(mean + 0.6 * face(rng))) for _ in range(4)])
            for i, mean in enumerate(means)
        ]
        assert doubtful_templates(gallery.snapshot()) == ()
        wrong = gallery.add_templates(people[0].person_id, [template(unit(means[1] + 0.5 * face(rng)))])
        assert doubtful_templates(gallery.snapshot()) == (wrong.template_ids[-1],)
        assert gallery.verify().suspicious_template_ids == (wrong.template_ids[-1],)
    with open_gallery(None) as gallery:
        assert doubtful_templates(gallery.snapshot()) == ()


class OtherEmbedder:
    """Stands for a newer model: its embedding is made from the crop's pixels."""

    dimension = 32
    fingerprint = "model-b/alignment-1"
    precision = "fp16"

    def embed(self, crops_bgr):
        flat = crops_bgr.reshape(len(crops_bgr), -1)[:, : 32 * 1000].reshape(len(crops_bgr), 32, -1)
        return unit(flat.mean(axis=2) - 100.0)


def crop(rng):
    return rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)


def with_crops(path, **values):
    config = GalleryConfig(keep_crops=True, poll_interval_s=0.0, **values)
    return Gallery.open(path, FINGERPRINT, config, keys_folder=path.parent.parent / "keys")


def test_crops_are_kept_only_on_request_and_encrypted(tmp_path, rng):
    path = tmp_path / "data" / "gallery.db"
    image = np.zeros((112, 112, 3), np.uint8)
    with open_gallery(path) as gallery:
        gallery.add_person("Anna", [template(face(rng), crop=image)])
        assert sql(path, "SELECT count(*) FROM crops") == [(0,)]
    with with_crops(path) as gallery:
        bob = gallery.add_person("Bob", [template(face(rng), crop=image)])
        ((sealed,),) = sql(path, "SELECT sealed FROM crops")
        ((gallery_id,),) = sql(path, "SELECT value FROM meta WHERE key = 'gallery_id'")
        safe = CropSafe(KeyRing(tmp_path / "keys" / gallery_id), gallery_id)
        assert b"PNG" not in sealed
        np.testing.assert_array_equal(safe.open(bob.template_ids[0], sealed), image)
        with pytest.raises(GalleryUnavailableError, match="cannot be opened"):
            safe.open(bob.template_ids[0] + 1, sealed)  # not that of another template
        keys = [key.name for key in (tmp_path / "keys").rglob("*.key")]
        assert keys == ["crops.key"]
        gallery.forget(bob.person_id)
        assert sql(path, "SELECT count(*) FROM crops") == [(0,)]
        assert sealed[20:60] not in path.read_bytes()
        gallery.undo()
        assert sql(path, "SELECT sealed FROM crops") == [(sealed,)]


def test_reembedding_carries_people_over_to_another_model(tmp_path, rng):
    path = tmp_path / "data" / "gallery.db"
    images = [crop(rng) for _ in range(3)]
    old = face(rng, 4)
    with with_crops(path) as gallery:
        anna = gallery.add_person("Anna", [template(old[i], crop=images[i]) for i in range(2)])
        bob = gallery.add_person("Bob", [template(old[2], crop=images[2]), template(old[3])])
        carl = gallery.add_person("Carl", templates(rng, 1))
        gallery.merge(carl.person_id, gallery.add_person("Carl 2", templates(rng, 1)).person_id)
    with Gallery.open(path, None, keys_folder=tmp_path / "keys") as gallery:
        with pytest.raises(GalleryConflictError, match="3 of 6 templates have no crop"):
            gallery.reembed(OtherEmbedder())
        assert gallery.fingerprint == FINGERPRINT
        done = []
        report = gallery.reembed(
            OtherEmbedder(), remove_without_crop=True, progress=lambda n, total: done.append((n, total))
        )
        assert (report.n_embedded, report.n_removed, report.removed_persons) == (3, 3, ("Carl",))
        assert done == [(3, 3)]
        snapshot = gallery.snapshot()
        assert snapshot.fingerprint == OtherEmbedder.fingerprint
        assert snapshot.dimension == 32
        assert {t.precision for t in snapshot.templates_of(anna.person_id)} == {"fp16"}
        assert set(snapshot.persons) == {anna.person_id, bob.person_id}
        expected = OtherEmbedder().embed(np.stack(images))
        for query, owner in zip(expected, (anna, anna, bob), strict=True):
            match = snapshot.search(query[None])[0][0]
            assert match.person_id == owner.person_id
            assert match.similarity == pytest.approx(1.0, abs=1e-5)
        assert gallery.history() == []
        assert gallery.verify().problems == ()
    for vector in old:
        assert vector.tobytes()[:16] not in path.read_bytes()
    with Gallery.open(path, OtherEmbedder.fingerprint, dimension=32, keys_folder=tmp_path / "keys"):
        pass


def test_reembedding_needs_the_key(tmp_path, rng):
    path = tmp_path / "data" / "gallery.db"
    with with_crops(path) as gallery:
        gallery.add_person("Anna", [template(face(rng), crop=crop(rng))])
    for key in (tmp_path / "keys").rglob("*.key"):
        key.unlink()
    with Gallery.open(path, None, keys_folder=tmp_path / "keys") as gallery:
        with pytest.raises(GalleryUnavailableError, match="key"):
            gallery.reembed(OtherEmbedder())
        assert gallery.fingerprint == FINGERPRINT


def test_a_gallery_reembedded_by_another_process_is_not_compared_with_old_faces(tmp_path, rng):
    path = tmp_path / "data" / "gallery.db"
    with with_crops(path) as node:
        node.add_person("Anna", [template(face(rng), crop=crop(rng))])
        with Gallery.open(path, None, keys_folder=tmp_path / "keys") as other:
            other.reembed(OtherEmbedder())
        before = node.snapshot()
        with pytest.raises(Exception, match="must not be compared"):
            node.follow()
        assert node.snapshot() is before

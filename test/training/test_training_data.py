"""Archives, prepared folders, the split of people, batches and augmentation."""

import csv

import cv2
import msgspec
import numpy as np
import pytest
from training_material import write_archive

from face_recognition_node.common.errors import ConfigurationError, InputError, SourceError
from face_recognition_node.evaluation.degradation import blur_face, reduce_face
from face_recognition_node.evaluation.face_archive import FaceArchive, nearest_similarity, split_identities

pytest.importorskip("msgspec", reason="recipes are read with msgspec")
torch = pytest.importorskip("torch", reason="the train extra is not installed: no torch")

# ruff: noqa: E402  # what follows needs torch
from face_recognition_node.training.augmentation import NO_AUGMENTATION, Augmentation, motion_kernel
from face_recognition_node.training.data import (
    AugmentedFaces,
    BatchStream,
    PreparedFaces,
    TrainingData,
    class_numbers,
    discriminants,
    open_faces,
)
from face_recognition_node.training.recipe import BatchRecipe, DataRecipe


def test_archive_gives_back_what_was_written(tmp_path):
    archive = FaceArchive.open(write_archive(tmp_path, people=3, images=2, unlabelled=1))
    assert len(archive) == 7
    assert archive.labels.tolist() == [0, 0, 1, 1, 2, 2, -1]
    assert archive.crop(0).shape == (112, 112, 3)
    assert archive.crops(np.array([], np.int64)).shape == (0, 112, 112, 3)
    near = [np.abs(archive.crop(0).astype(int) - archive.crop(other)).mean() for other in (1, 2)]
    assert near[0] < near[1]
    assert archive.teacher is not None
    assert np.allclose(np.linalg.norm(archive.teacher, axis=1), 1, atol=1e-5)


def test_torn_archives_are_refused(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        FaceArchive.open(tmp_path)
    write_archive(tmp_path, people=2, images=2)
    with open(tmp_path / "train_faces.bin", "ab") as stream:
        stream.write(b"x")
    with pytest.raises(SourceError, match="add up"):
        FaceArchive.open(tmp_path)


def test_teacher_of_another_archive_is_refused(tmp_path):
    write_archive(tmp_path, people=2, images=2)
    np.save(tmp_path / "train_teacher.npy", np.ones((3, 16), np.int8))
    with pytest.raises(SourceError, match="rows"):
        FaceArchive.open(tmp_path)


def test_held_out_people_are_nowhere_in_training():
    labels = np.repeat(np.arange(-1, 200), 2)
    split = split_identities(labels)
    parts = [set(labels[part]) for part in (split.training, split.validation, split.test)]
    assert parts[2] == set(range(0, 200, 10))
    assert parts[1] == {1, 51, 101, 151}
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert len(split.training) + len(split.validation) + len(split.test) == len(labels)


def test_look_alikes_of_held_out_people_leave_training():
    labels = np.array([0, 0, 2, 3, -1, -1])
    teacher = np.eye(6, dtype=np.float32)
    teacher[4] = teacher[0]
    split = split_identities(labels, teacher)
    assert split.training.tolist() == [2, 3, 5]
    assert split.n_lookalikes == 1


def test_nearest_similarity_against_a_loop():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(9, 4)).astype(np.float32), random.normal(size=(5, 4)).astype(np.float32)
    assert np.allclose(
        nearest_similarity(a, b, chunk=4), [max(float(x @ y) for y in b) for x in a], atol=1e-5
    )
    assert nearest_similarity(a, b[:0]).tolist() == [-1] * 9
    assert len(nearest_similarity(a[:0], b)) == 0


def test_class_numbers_count_training_faces_only():
    labels = np.array([5, 5, 5, 7, 7, 9, -1, 5])
    classes, count = class_numbers(labels, np.array([0, 1, 3, 4, 5, 6]), minimum=2)
    assert count == 2
    assert classes.tolist() == [0, 0, -1, 1, 1, -1, -1, -1]


def test_excluded_rows_are_never_trained_on_and_held_out_ones_stay(tmp_path):
    archive = write_archive(tmp_path / "faces", people=[10, 51, 2, 3], images=3, unlabelled=2, teacher=False)
    (tmp_path / "exclude.csv").write_text("row\n0\n6\n12\n")
    data = TrainingData.open(DataRecipe(archive, minimum_images=2, exclude=tmp_path / "exclude.csv"))
    assert data.split.training.tolist() == [7, 8, 9, 10, 11, 13]
    assert data.split.test.tolist() == [0, 1, 2]
    assert data.n_classes == 2
    assert data.classes[6] == -1


def test_clusters_give_identities_to_unlabelled_faces(tmp_path):
    archive = write_archive(tmp_path / "faces", people=[10, 2], images=2, unlabelled=4, teacher=False)
    (tmp_path / "clusters.csv").write_text("row,identity\n4,2\n5,100002\n6,100002\n")
    data = TrainingData.open(DataRecipe(archive, minimum_images=2, clusters=tmp_path / "clusters.csv"))
    assert data.labels.tolist() == [10, 10, 2, 2, 2, 100002, 100002, -1]
    assert data.classes.tolist() == [-1, -1, 0, 0, 0, 1, 1, -1]
    assert data.n_classes == 2
    assert data.faces.labels.tolist() == [10, 10, 2, 2, -1, -1, -1, -1]


@pytest.mark.parametrize(
    ("entry", "text", "message"),
    [
        ("exclude", "row\n99\n", "row numbers from 0 to 5, got 99 to 99"),
        ("exclude", "row\nx\n", "1 whole numbers a line"),
        ("clusters", "row,identity\n4\n", "2 whole numbers a line"),
        ("clusters", "row,identity\n4,100\n", "100 is no identity to train on"),
        ("clusters", "row,identity\n4,100051\n", "100051 is no identity to train on"),
        ("clusters", "row,identity\n2,7\n", "row 2 has the identity 2 already"),
    ],
)
def test_lists_of_other_faces_are_refused(entry, text, message, tmp_path):
    archive = write_archive(tmp_path / "faces", people=[10, 2], images=2, unlabelled=2, teacher=False)
    with pytest.raises(SourceError, match="no such file"):
        TrainingData.open(DataRecipe(archive, **{entry: tmp_path / "list.csv"}))
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(SourceError, match=message):
        TrainingData.open(DataRecipe(archive, **{entry: tmp_path / "list.csv"}))


def test_look_alikes_are_those_of_the_named_teacher(tmp_path):
    archive = write_archive(tmp_path / "faces", people=[10, 2], images=2, unlabelled=0)
    other = np.array([[100, 0], [100, 0], [0, 100], [60, 100]], np.int8)
    np.save(tmp_path / "teacher.npy", other)
    for similarity, training in ((0.55, [2, 3]), (0.45, [2])):
        data = TrainingData.open(
            DataRecipe(archive, teacher=tmp_path / "teacher.npy", lookalike_similarity=similarity)
        )
        assert data.split.training.tolist() == training


def stream_for(batch, rank=0, world=1, n=40):
    classes = np.arange(n) // 4
    classes[-4:] = -1
    return BatchStream(np.arange(n), classes, batch, seed=3, rank=rank, world=world), classes


def test_a_batch_depends_on_its_number_only():
    stream, _ = stream_for(BatchRecipe(identities=3, images_each=2, random=5))
    batches = [stream.draw(step) for step in range(30)]
    again, _ = stream_for(BatchRecipe(identities=3, images_each=2, random=5))
    again.first = 17
    walk = iter(again)
    assert [next(walk) for _ in range(13)] == batches[17:]


def test_identity_balanced_batches_hold_what_was_asked_for():
    stream, classes = stream_for(BatchRecipe(identities=3, images_each=2, random=5))
    for step in range(20):
        faces = np.array([face for face, _ in stream.draw(step)])
        assert len(faces) == 11
        values, counts = np.unique(classes[faces[:6]], return_counts=True)
        assert counts.tolist() == [2, 2, 2]
        assert (values >= 0).all()


def test_processes_share_an_epoch_without_overlap():
    streams = [stream_for(BatchRecipe(random=4), rank, 2)[0] for rank in range(2)]
    seen = [face for step in range(5) for stream in streams for face, _ in stream.draw(step)]
    assert sorted(seen) == list(range(40))
    second = [face for step in range(5, 10) for stream in streams for face, _ in stream.draw(step)]
    assert sorted(second) == list(range(40))
    assert second != seen


def test_too_few_faces_or_people_are_named():
    with pytest.raises(SourceError, match="fewer than one batch"):
        stream_for(BatchRecipe(random=64))
    with pytest.raises(SourceError, match="at most 9"):
        stream_for(BatchRecipe(identities=10, random=4))


def test_no_augmentation_changes_nothing():
    face = np.random.default_rng(0).integers(0, 255, (112, 112, 3)).astype(np.uint8)
    assert np.array_equal(NO_AUGMENTATION.apply(face, np.random.default_rng(1)), face)


@pytest.mark.parametrize("seed", range(20))
def test_augmented_faces_stay_faces(seed):
    face = np.random.default_rng(0).integers(0, 255, (112, 112, 3)).astype(np.uint8)
    strong = Augmentation(
        far=0.5, blur=0.5, motion=1, jpeg=1, grey=0.5, light=1, shade=1, noise=1, cover=1, lower_cover=1
    )
    before = face.copy()
    made = strong.apply(face, np.random.default_rng(seed))
    assert made.shape == face.shape
    assert made.dtype == np.uint8
    assert np.array_equal(face, before)
    assert np.array_equal(made, strong.apply(face, np.random.default_rng(seed)))


def test_far_faces_lose_detail_and_keep_their_light():
    face = np.random.default_rng(0).integers(0, 255, (112, 112, 3)).astype(np.uint8)
    far = reduce_face(face, 24)
    assert abs(float(far.mean()) - float(face.mean())) < 1
    assert far.std() < 0.5 * face.std()
    assert reduce_face(face, 112) is face
    assert blur_face(face, 0) is face
    assert blur_face(face, 2).std() < face.std()
    with pytest.raises(InputError):
        reduce_face(face, 0)
    with pytest.raises(InputError):
        blur_face(face, -1)


@pytest.mark.parametrize("angle", [0, 45, 90, 170])
def test_motion_kernels_sum_to_one(angle):
    for length in range(3, 11):
        assert motion_kernel(angle, length).sum() == pytest.approx(1, abs=1e-4)


def test_drawn_faces_are_rgb_and_carry_their_labels(tmp_path):
    archive = FaceArchive.open(write_archive(tmp_path, people=3, images=2))
    item = AugmentedFaces(archive, archive.labels, NO_AUGMENTATION)[(2, 99)]
    assert np.array_equal(item["image"].numpy().transpose(1, 2, 0)[:, :, ::-1], archive.crop(2))
    assert int(item["label"]) == 1
    assert np.allclose(item["teacher"], archive.teacher[2])


def test_faces_are_mirrored(tmp_path):
    archive = FaceArchive.open(write_archive(tmp_path, people=3, images=2))
    always = Augmentation(
        **{name: 0 for name in NO_AUGMENTATION.__struct_fields__ if not name.startswith("far_")}
        | {"mirror": 1}
    )
    item = AugmentedFaces(archive, archive.labels, always)[(0, 5)]
    assert np.array_equal(item["image"].numpy().transpose(1, 2, 0)[:, ::-1, ::-1], archive.crop(0))


def test_prepared_folders_are_read_by_their_manifest(tmp_path):
    (tmp_path / "anna").mkdir()
    cv2.imwrite(str(tmp_path / "anna" / "1.png"), np.full((112, 112, 3), 7, np.uint8))
    with open(tmp_path / "manifest.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["crop", "identity"], ["anna/1.png", "anna"], ["ben/1.png", "ben"]])
    faces = open_faces(tmp_path)
    assert isinstance(faces, PreparedFaces)
    assert faces.labels.tolist() == [0, 1]
    assert faces.crop(0)[0, 0].tolist() == [7, 7, 7]
    assert faces.teacher is None
    with pytest.raises(SourceError, match="cannot be read"):
        faces.crop(1)
    with pytest.raises(SourceError, match="prepare SOURCE"):
        open_faces(tmp_path / "nothing")


@pytest.mark.slow
def test_discriminants_tell_identities_apart_where_the_embedding_does_not():
    random = np.random.default_rng(3)
    classes = np.repeat(np.arange(40), 5)
    people = random.normal(0, 1, (40, 4))
    scatter = random.normal(0, 0.2, (200, 4)), random.normal(0, 2, (200, 12))
    teacher = np.concatenate([people[classes] + scatter[0], scatter[1]], axis=1).astype(np.float32)
    teacher /= np.linalg.norm(teacher, axis=1, keepdims=True)
    classes[180:] = -1  # four people of whom nobody knows who they are
    reduced = discriminants(teacher, classes, np.arange(200), 4)
    assert reduced.shape == (200, 4)
    assert reduced.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(reduced, axis=1), 1, atol=1e-5)
    person = np.repeat(np.arange(40), 5)[180:]
    same = person[:, None] == person[None]

    def gap(vectors):
        cosines = vectors[180:] @ vectors[180:].T
        return cosines[same].mean() - cosines[~same].mean()

    assert gap(reduced) > gap(teacher) + 0.3


@pytest.mark.parametrize("count", [0, 16, 40])
def test_more_discriminants_than_there_are_is_refused(count):
    teacher = np.random.default_rng(0).normal(size=(20, 15)).astype(np.float32)
    with pytest.raises(ConfigurationError, match="expected 1 to 9"):
        discriminants(teacher, np.repeat(np.arange(10), 2), np.arange(20), count)


def test_side_light_leaves_one_side_dark():
    grey = np.full((112, 112, 3), 120, np.uint8)
    lit = msgspec.structs.replace(NO_AUGMENTATION, side_light=1.0)
    for seed in range(20):
        face = lit.apply(grey, np.random.default_rng(seed)).mean(axis=2)
        left, right = face[:, :20].mean(), face[:, -20:].mean()
        assert min(left, right) < 0.75 * max(left, right)

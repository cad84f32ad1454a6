"""The gallery's file is exchanged, locked or full under a running node: what services and diagnostics say."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State
from ros_world import NODE, PATIENCE, Inbox, node_processes  # a network of our own, before rclpy joins one

from face_recognition_interfaces.srv import ForgetPersons, ListPersons, SetSession, VerifyGallery
from face_recognition_node.gallery.gallery import Gallery, NewTemplate
from face_recognition_node.vision.faces import HeadPose

pytestmark = pytest.mark.ros


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SimpleNamespace]:
    gallery = tmp_path / "data" / "gallery.db"
    gallery.parent.mkdir()
    with node_processes(gallery) as (children, remote):
        remote.bring_to(NODE, State.PRIMARY_STATE_INACTIVE, PATIENCE)
        yield SimpleNamespace(remote=remote, children=children, gallery=gallery)


def call(world: SimpleNamespace, type_: Any, service: str, /, **request: object) -> Any:
    return world.remote.call(type_, f"{NODE}/{service}", type_.Request(**request), PATIENCE)


def start_session(world: SimpleNamespace, name: str) -> Any:
    return call(world, SetSession, "set_session", name=name, kind=SetSession.Request.EVENT)


def wait_for_gallery(world: SimpleNamespace, level: bytes, words: str) -> None:
    """Wait until diagnostics say something of a level with these words."""
    inbox = Inbox(world.remote, DiagnosticArray, "/diagnostics")
    try:
        world.remote.wait_until(
            lambda: any(
                one.level == level and words in str((one.message, [v.value for v in one.values]))
                for message in inbox.messages
                for one in message.status
            ),
            PATIENCE,
            f"diagnostics of level {level!r} with {words!r}",
        )
    finally:
        inbox.close()


@pytest.mark.parametrize("how", ["removed", "exchanged"])
def test_nothing_is_acknowledged_that_goes_to_a_file_that_is_gone(world: SimpleNamespace, how: str) -> None:
    assert start_session(world, "before").success
    aside = world.gallery.with_name("aside.db")
    world.gallery.rename(aside)
    if how == "exchanged":
        with closing(sqlite3.connect(world.gallery)) as other:
            other.execute("CREATE TABLE another (file)")
    refused = start_session(world, "lost")
    assert not refused.success
    assert str(world.gallery) in refused.message
    assert not call(world, VerifyGallery, "verify_gallery").success
    wait_for_gallery(world, DiagnosticStatus.WARN, "gallery")
    aside.rename(world.gallery)
    assert start_session(world, "after").success
    assert world.children.end() == {"node": 0}


def test_a_locked_gallery_holds_up_neither_readers_nor_the_end(world: SimpleNamespace) -> None:
    assert start_session(world, "before").success
    with closing(sqlite3.connect(world.gallery, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert call(world, ListPersons, "list_persons").success
        refused = start_session(world, "late")
        assert not refused.success
        assert "lock" in refused.message
        wait_for_gallery(world, DiagnosticStatus.WARN, "lock")
        assert world.children.end() == {"node": 0}  # by SIGINT, which has eight seconds


def test_a_removal_that_cannot_be_finished_is_done_and_says_what_is_to_do(world: SimpleNamespace) -> None:
    vector = np.eye(64, dtype=np.float32)[0]
    with Gallery.open(world.gallery, fingerprint=None) as command:
        anna = command.add_person("Anna Unforgettable", [NewTemplate(vector, 0.9, HeadPose(0.0, 0.0, 0.0))])
    with closing(sqlite3.connect(world.gallery, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute(
            "SELECT count(*) FROM templates"
        ).fetchone()  # the log's pages cannot be overwritten now
        done = call(world, ForgetPersons, "forget_persons", person_ids=[anna.person_id], final=True)
        assert done.success
        assert list(done.forgotten_person_ids) == [anna.person_id]
        assert "another process is reading it" in done.message
        assert not call(world, ListPersons, "list_persons").persons
        wait_for_gallery(world, DiagnosticStatus.WARN, "another process is reading it")
    wait_for_gallery(world, DiagnosticStatus.OK, "open")
    rest = b"".join(file.read_bytes() for file in world.gallery.parent.iterdir())
    assert vector.tobytes() not in rest
    assert b"Unforgettable" not in rest

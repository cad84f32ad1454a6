"""Files are written whole or not at all, and a path that a user gives is checked once, in one place."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from face_recognition_node.common.errors import InputError, SourceError
from face_recognition_node.common.files import (
    explain_os_error,
    file_sha256,
    user_path,
    write_bytes,
    write_json,
    write_text,
    written_whole,
)


def test_a_file_appears_whole_and_with_its_mode(tmp_path):
    target = tmp_path / "new" / "page.html"
    with written_whole(target, 0o600) as draft:
        draft.write_text("half")
        assert not target.exists()
        assert draft.suffix == ".html"
    assert target.read_text() == "half"
    assert target.stat().st_mode & 0o777 == 0o600
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_the_old_file_and_no_draft(tmp_path):
    target = tmp_path / "table.csv"
    write_text(target, "old")

    def fail() -> None:
        with written_whole(target) as draft:
            draft.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_text_bytes_and_json_round_trip(tmp_path):
    write_bytes(tmp_path / "a", b"\0\1")
    assert (tmp_path / "a").read_bytes() == b"\0\1"
    write_json(tmp_path / "b.json", {"name": "Zoë"})
    assert (tmp_path / "b.json").read_text(encoding="utf-8") == '{\n "name": "Zoë"\n}\n'
    assert (tmp_path / "b.json").stat().st_mode & 0o777 == 0o644
    write_text(tmp_path / "abc", "abc")
    assert file_sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea")


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert user_path("~/faces") == Path("/home/somebody/faces")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("a\0b", "NUL"),
        (os.fsdecode(b"Z\xfcrich.mp4"), "UTF-8"),
        ("~nobody_has_this_name/x", "home folder"),
        ("x" * 5000, "cannot be reached"),
        ("/dev/null", "device"),
    ],
)
def test_a_path_that_nothing_can_use_is_refused(given, says):
    with pytest.raises(InputError, match=rf"^picture: .*{says}"):
        user_path(given, "file", name="picture")


def test_a_name_that_is_too_long_is_refused_whoever_looks_at_the_file():
    with pytest.raises(InputError, match="too long") as refused:
        user_path("/tmp/" + "x" * 5000, "any")
    assert len(str(refused.value)) < 300
    assert user_path("/dev/null", "any") == Path("/dev/null")


def test_the_kind_and_the_presence_are_checked(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert user_path(file, "file", must_exist=True) == file
    assert user_path(tmp_path, "folder", must_exist=True) == tmp_path
    assert user_path(tmp_path / "new", "file") == tmp_path / "new"
    with pytest.raises(InputError, match="is a folder"):
        user_path(tmp_path, "file")
    with pytest.raises(InputError, match="is a file"):
        user_path(file, "folder")
    with pytest.raises(SourceError, match="no such file"):
        user_path(file / "below", "file", must_exist=True, error=SourceError)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="device, pipe"):
        user_path(pipe)


def test_a_written_file_follows_the_umask(tmp_path):
    before = os.umask(0o007)
    try:
        write_json(tmp_path / "figures.json", {"a": 1})
        write_text(tmp_path / "private", "x", 0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "figures.json").stat().st_mode & 0o777 == 0o660
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "choose another place"),
        (errno.EROFS, "choose a place on another disk"),
        (errno.ENAMETOOLONG, "choose a shorter one"),
    ],
)
def test_an_error_of_the_system_names_the_file_and_the_cure(number: int, cure: str) -> None:
    message = explain_os_error(OSError(number, os.strerror(number), "/stick/team.frg"))
    assert message.startswith("/stick/team.frg: ")
    assert cure in message


def test_an_error_of_the_system_without_a_known_cure_is_quoted(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "none").read_bytes()
    assert explain_os_error(caught.value) == str(caught.value)


def test_a_name_that_leaves_no_room_for_the_draft_is_explained(tmp_path):
    with pytest.raises(OSError, match="too long") as caught:
        write_text(tmp_path / ("n" * 250), "text")
    assert explain_os_error(caught.value).endswith("choose a shorter one")

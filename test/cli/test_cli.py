"""The command line: verbs, help, exit codes, options, and a recording recognized from end to end."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_recognition_node.cli import VERBS, build_parser, main, run_guarded
from face_recognition_node.cli.benchmark import WHAT as BENCHMARKS
from face_recognition_node.cli.evaluate import WHAT as EVALUATIONS
from face_recognition_node.cli.options import (
    add_settings,
    config_from,
    file_or_stream,
    file_to_write,
    parse_value,
    report,
)
from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.media.sources import open_source
from face_recognition_node.media.writer import VideoWriter

PLAIN_VERBS = [[verb] for verb in VERBS]
NESTED_VERBS = [["evaluate", what] for what in EVALUATIONS] + [["benchmark", what] for what in BENCHMARKS]


@pytest.mark.parametrize("words", PLAIN_VERBS + NESTED_VERBS, ids=" ".join)
def test_every_verb_has_a_help_that_helps(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert " ".join(words) in text
    assert len(text.splitlines()) > 5


def test_help_of_everything_imports_nothing_heavy() -> None:
    script = (
        "import sys; from face_recognition_node.cli import build_parser; build_parser().format_help(); "
        "heavy = ('cv2', 'numpy', 'torch', 'openvino', 'faiss', 'rclpy'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_log_file_is_not_flooded_by_progress_bars() -> None:
    script = (
        "from face_recognition_node.cli import main\nmain(['recognize', 'nothing.mp4'])\n"
        "from time import sleep\nfrom tqdm import tqdm\n"
        "for _ in tqdm(range(10)): sleep(0.15)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stderr.count(b"\r") <= 3  # the empty bar and the full one


def test_no_verb_or_a_wrong_one_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["recognize"], ["evaluate"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
    assert "VERB" in build_parser().format_help()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["recognize", "nothing.mp4"], "no such file or folder"),
        (["recognize", "sample", "--topic", "/a"], "expected a ROS 2 bag"),
        (["recognize", "sample", "--gallery", "nothing.db"], "enroll somebody first"),
        (["recognize", "sample", "--start", "3", "--end", "2"], "start < end"),
        (["evaluate", "replay", "nothing"], "packaged in"),
    ],
)
def test_wrong_input_ends_with_code_2_and_the_cure(
    words: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == [], "a refused command leaves nothing behind"


def test_settings_are_read_in_their_types() -> None:
    parser = argparse.ArgumentParser()
    add_settings(parser)
    words = ["--set", "identity.target_false_accept_rate=0.002", "--set", "strangers.enabled:=False"]
    config = config_from(parser.parse_args([*words, "--backend", "onnxruntime"]))
    assert config.identity.target_false_accept_rate == 0.002
    assert config.strangers.enabled is False
    assert config.models.backend == "onnxruntime"
    for wrong, expected in [
        ("nothing=1", "no such parameter"),
        ("identity.target_false_acept_rate=1", "did you mean identity.target_false_accept_rate?"),
        ("identity.target_false_accept_rate", "NAME=VALUE"),
        ("identity.target_false_accept_rate=often", "expected float"),
        ("identity.target_false_accept_rate=2", "at most"),
        ("strangers.enabled=perhaps", "true or false"),
    ]:
        with pytest.raises(ConfigurationError, match=expected):
            config_from(parser.parse_args(["--set", wrong]))


def test_values_follow_the_default() -> None:
    assert parse_value("a", "7", 3) == 7
    assert parse_value("a", "7", 3.0) == 7.0
    assert parse_value("a", "true", False) is True
    assert parse_value("a", "7", "text") == "7"


@pytest.fixture(scope="module")
def sample_gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a gallery in which the sample's guest is enrolled from the sample's first seconds."""
    path = tmp_path_factory.mktemp("gallery") / "guest.db"
    assert main(["enroll", "Eileen", "sample", "--rate", "10", "--end", "4", "--gallery", str(path)]) == 0
    return path


@pytest.mark.slow
def test_a_recording_is_recognized_from_end_to_end(
    sample_gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines_path, video_path = tmp_path / "seen.jsonl", tmp_path / "seen.mp4"
    words = ["recognize", "sample", "--rate", "10", "--start", "5.5", "--gallery", str(sample_gallery)]
    capsys.readouterr()
    assert main([*words, "--json", str(lines_path), "--annotated", str(video_path)]) == 0
    lines = [json.loads(line) for line in lines_path.read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(65))
    assert [line["stamp"] for line in lines] == pytest.approx([5.5 + i / 10 for i in range(65)])
    faces = [face for line in lines for face in line["faces"]]
    names = {face["name"] for face in faces if face["state"] == "known"}
    assert names == {"Eileen"}
    assert {face["name"] for face in lines[-1]["faces"] if face["state"] == "known"} == {"Eileen"}
    assert len(list(open_source(str(video_path)))) == 65
    output = capsys.readouterr().out
    assert "Eileen" in output
    assert "65 frames" in output


@pytest.mark.slow
def test_looking_changes_nothing_unless_strangers_are_kept(
    sample_gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def persons() -> list[str]:
        from face_recognition_node.gallery.gallery import Gallery

        with Gallery.open(sample_gallery, None, must_exist=True) as gallery:
            return sorted(
                person.name for person in gallery.snapshot().persons.values() if not person.is_stranger
            )

    words = [
        "recognize",
        "sample",
        "--rate",
        "10",
        "--start",
        "7.9",
        "--end",
        "9.2",
        "--gallery",
        str(sample_gallery),
    ]
    before = persons()
    assert main([*words, "--json", "-"]) == 1, "only the stranger is in view there"
    assert persons() == before == ["Eileen"]
    captured = capsys.readouterr()
    assert all(json.loads(line)["faces"] is not None for line in captured.out.splitlines())
    assert "13 frames" in captured.err


@pytest.mark.slow
def test_an_interrupt_leaves_complete_files(sample_gallery: Path, tmp_path: Path) -> None:
    lines_path, video_path = tmp_path / "seen.jsonl", tmp_path / "seen.mp4"
    words = ["recognize", "sample", "--gallery", str(sample_gallery), "--json", str(lines_path)]
    command = [sys.executable, "-m", "face_recognition_node.cli", *words, "--annotated", str(video_path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        while child.poll() is None and not (lines_path.exists() and lines_path.read_text().count("\n") >= 5):
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        output, _ = child.communicate(timeout=60)
    finally:
        child.kill()
    lines = [json.loads(line) for line in lines_path.read_text().splitlines()]
    assert child.returncode == 130
    assert 5 <= len(lines) < 360
    assert len(lines) - 1 <= len(list(open_source(str(video_path)))) <= len(lines)
    assert f"{len(lines)} frames" in output or f"{len(lines) + 1} frames" in output


def test_a_file_to_write_in_a_folder_that_may_not_be_entered_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)  # nobody: root may enter every folder
    try:
        for read in (file_to_write, file_or_stream):
            with pytest.raises(argparse.ArgumentTypeError, match="cannot be written"):
                read(str(closed / "seen.json"))
    finally:
        os.seteuid(before)
        closed.chmod(0o700)


@pytest.mark.parametrize("verb", [["evaluate", "verification", "x"], ["calibrate", "x"]])
@pytest.mark.parametrize(("place", "cure"), [(".", "is a folder"), ("file/x.json", "cannot be written")])
def test_where_nothing_can_be_written_is_told_before_the_work(
    verb: list[str], place: str, cure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as raised:
        main([*verb, "--json", str(tmp_path / place)])
    assert raised.value.code == 2
    assert cure in capsys.readouterr().err


def test_a_report_may_lie_in_a_new_folder(tmp_path: Path) -> None:
    report("text", {"figure": 1}, str(file_to_write(str(tmp_path / "new" / "figures.json"))))
    assert json.loads((tmp_path / "new" / "figures.json").read_text()) == {"figure": 1}


@pytest.mark.slow
def test_what_is_read_is_not_overwritten_and_what_is_refused_empties_nothing(
    sample_gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sample_gallery.read_bytes()
    link, log = tmp_path / "link.json", sample_gallery.with_name(sample_gallery.name + "-wal")
    link.symlink_to(sample_gallery)
    for words in (
        ["recognize", "sample", "--end", "0.1", "--gallery", str(sample_gallery), "--json"],
        ["recognize", "sample", "--bag"],
        ["enroll", "Bea", "sample", "--gallery", str(tmp_path / "other.db"), "--json"],
        ["rehearse", "sample", "--report"],
        ["calibrate", "x", "--plot"],
        ["demo", "--annotated"],
    ):
        for target in (sample_gallery, link, log):
            with pytest.raises(SystemExit) as ended:
                main([*words, str(target)])
            assert ended.value.code == 2
            assert "would be overwritten" in capsys.readouterr().err
    assert sample_gallery.read_bytes() == before
    assert not log.exists()
    words = ["recognize", "sample", "--end", "0.1", "--json", str(tmp_path / "a.png")]
    assert main([*words, "--annotated", str(tmp_path / "a.png")]) == 2
    assert "different files" in capsys.readouterr().err
    (tmp_path / "junk.db").write_text("no gallery")
    (tmp_path / "seen.jsonl").write_text("of an earlier run")
    words = ["recognize", "sample", "--gallery", str(tmp_path / "junk.db")]
    assert main([*words, "--json", str(tmp_path / "seen.jsonl")]) == 2
    assert (tmp_path / "seen.jsonl").read_text() == "of an earlier run"


def test_a_first_recognition_needs_no_gallery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert main(["recognize", "sample", "--end", "0.3"]) == 1
    assert "everybody is a stranger" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main(["recognize", "sample", "--end", "0.3", "--gallery", str(tmp_path / "named.db")]) == 2


@pytest.mark.slow
def test_pictures_of_several_sizes_are_annotated_and_a_bad_one_is_named(
    sample_gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    for name, shape in (("a", (120, 160)), ("b", (200, 100)), ("d", (64, 300))):
        cv2.imwrite(str(tmp_path / "photos" / f"{name}.png"), np.full((*shape, 3), 90, np.uint8))
    (tmp_path / "photos" / "c.jpg").write_bytes(b"no picture")
    video = tmp_path / "seen.mp4"
    words = ["recognize", str(tmp_path / "photos"), "--gallery", str(sample_gallery)]
    assert main([*words, "--annotated", str(video)]) == 1
    assert "c.jpg: expected an image" in capsys.readouterr().err
    assert [frame.image_bgr.shape for frame in open_source(str(video))] == [(120, 160, 3)] * 3


@pytest.mark.slow
def test_a_part_without_frames_is_an_error(sample_gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recognize", "sample", "--start", "100", "--gallery", str(sample_gallery)]) == 2
    assert "no frame in the part chosen" in capsys.readouterr().err


RECOGNIZE = [sys.executable, "-m", "face_recognition_node.cli", "recognize", "sample", "--gallery"]


@pytest.mark.slow
def test_a_full_disk_is_no_answer(sample_gallery: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    command = [*RECOGNIZE, str(sample_gallery), "--end", "0.5", "--json", "/dev/full"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


@pytest.mark.slow
def test_a_reader_that_has_left_is_no_answer(sample_gallery: Path) -> None:
    command = [*RECOGNIZE, str(sample_gallery), "--json", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.wait(60) == 141


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_to_be_stopped_is_to_be_interrupted(
    sample_gallery: Path, tmp_path: Path, number: signal.Signals
) -> None:
    video = tmp_path / "seen.mp4"
    command = [*RECOGNIZE, str(sample_gallery), "--json", "-", "--annotated", str(video)]
    before = signal.signal(number, signal.SIG_DFL)  # below nohup it is ignored, by the child as well
    try:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    finally:
        signal.signal(number, before)
    with child:
        assert child.stdout is not None
        for _ in range(5):
            child.stdout.readline()
        child.send_signal(number)
        child.communicate(timeout=60)
    assert child.returncode == 130
    assert video.stat().st_size > 1000
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_a_device_is_written_to_and_never_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(argparse.ArgumentTypeError, match="device or a pipe"):
        file_to_write(str(tmp_path / "pipe"))
    descriptor = os.open(tmp_path / "pipe", os.O_RDWR)
    report("text", {"figure": 1}, str(tmp_path / "pipe"))
    assert json.loads(os.read(descriptor, 1000)) == {"figure": 1}
    os.close(descriptor)
    assert not (tmp_path / "pipe").is_file()


def test_a_picture_of_the_source_is_not_drawn_over(
    tmp_path: Path, guest_bgr: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, gallery = tmp_path / "pictures" / "0.png", tmp_path / "party.db"
    picture.parent.mkdir()
    cv2.imwrite(str(picture), guest_bgr)
    gallery.touch()  # what is refused is never opened
    before = picture.read_bytes()
    words = ["recognize", str(picture.parent), "--gallery", str(gallery)]
    assert main([*words, "--annotated", str(picture)]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert picture.read_bytes() == before


def test_an_unexpected_failure_is_one_line_and_not_a_no(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: argparse.Namespace) -> int:
        raise ValueError("embedded null byte")

    assert run_guarded("face-recognition recognize", fail, argparse.Namespace()) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_closed_output_does_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert run_guarded("face-recognition recognize", lambda _: 0, argparse.Namespace()) == 0


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
@pytest.mark.parametrize(("words", "code"), [(["gallery", "list"], 0), (["gallery", "undo", "9"], 2)])
def test_closed_streams_change_no_exit_code_and_no_file(
    sample_gallery: Path, closed: str, words: list[str], code: int
) -> None:
    before = sample_gallery.read_bytes()
    command = [sys.executable, "-m", "face_recognition_node.cli", *words, "--gallery", str(sample_gallery)]
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout.startswith("PERSON ID") == (code == 0 and "1>" not in closed)
    assert done.stderr.count("\n") == (code == 2 and "2>" not in closed)
    assert sample_gallery.read_bytes() == before


@pytest.mark.slow
def test_what_names_people_is_private_and_a_bag_is_written(sample_gallery: Path, tmp_path: Path) -> None:
    lines, bag = tmp_path / "seen.jsonl", tmp_path / "seen.mcap"
    lines.touch(0o666)
    words = ["recognize", "sample", "--end", "0.5", "--gallery", str(sample_gallery)]
    before = os.umask(0)
    try:
        assert main([*words, "--json", str(lines), "--bag", str(bag)]) in (0, 1)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (lines, bag)} == {0o600}
    assert open_source(str(bag)).n_frames == lines.read_text().count("\n") == 15


NO_HOME = (
    "import os, pwd, sys; os.environ.pop('HOME', None)\n"
    "def nobody(uid): raise KeyError(uid)\n"
    "pwd.getpwuid = nobody\n"
    "from face_recognition_node.cli import main; sys.exit(main(sys.argv[1:]))"
)


@pytest.mark.slow
def test_a_user_without_a_home_folder_can_recognize_and_forget(sample_gallery: Path, tmp_path: Path) -> None:
    gallery = tmp_path / "gallery.db"
    gallery.write_bytes(sample_gallery.read_bytes())
    drop = ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in drop}
    environment["TMPDIR"] = str(tmp_path)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", NO_HOME, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    done = run("recognize", "sample", "--end", "0.3")
    assert done.returncode == 1, done.stderr
    assert "XDG_DATA_HOME" in done.stderr
    assert "XDG_CACHE_HOME" in done.stderr
    (name,) = (
        line.split()[1] for line in run("gallery", "list", "--gallery", str(gallery)).stdout.splitlines()[1:]
    )
    done = run("gallery", "forget", name, "--gallery", str(gallery))
    assert done.returncode == 0, done.stderr
    assert "XDG_STATE_HOME" in done.stderr
    assert run("gallery", "undo", "--gallery", str(gallery)).returncode == 0
    done = run("enroll", "Anna", "sample")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--gallery" in done.stderr


@pytest.mark.slow
def test_a_rehearsal_is_one_page_with_ten_sentences(
    sample_gallery: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, page = tmp_path / "arena <b>.mp4", tmp_path / "page.html"
    with VideoWriter(video, 30) as writer:
        for frame in itertools.islice(open_source("sample"), 0, 120, 2):
            writer.write(frame.image_bgr)
    before = sample_gallery.read_bytes()
    capsys.readouterr()
    words = ["rehearse", str(video), "--gallery", str(sample_gallery), "--report", str(page)]
    assert main(words) in (0, 1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert any("Everybody enrolled (1) was recognized" in line for line in lines)
    text = page.read_text()
    assert text.count("<li class=") == 10
    assert "arena &lt;b&gt;.mp4" in text
    assert "arena <b>" not in text
    assert "Eileen" in text
    assert re.search(r"(src|href)='?\"?(?!data:)[a-z/]", text) is None, "nothing is fetched from elsewhere"
    assert page.stat().st_mode & 0o777 == 0o600
    assert sample_gallery.read_bytes() == before
    assert main(["rehearse", "sample", "--gallery", str(tmp_path / "none.db")]) == 2


@pytest.mark.parametrize("port", ["65536", "-1", "web"])
def test_a_port_that_is_none_is_refused_before_the_models_load(port: str, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["web", "sample", "--port", port])
    assert f"argument --port: expected 0 to 65535, got '{port}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["recognize", "sample", "--bag", "~nobody_has_this_name/seen.mcap"],
        ["recognize", "sample", "--json", "~nobody_has_this_name/seen.jsonl"],
        ["gallery", "list", "--gallery", "~nobody_has_this_name/people.db"],
        ["gallery", "import", "~nobody_has_this_name/people.db", "--gallery", "here.db"],
        ["evaluate", "replay", "~nobody_has_this_name/scenario.yaml"],
        ["demo", "--annotated", "~nobody_has_this_name/seen.mp4"],
        ["demo", "--gallery", "~nobody_has_this_name/people.db"],
    ],
)
def test_a_home_folder_of_nobody_is_refused_in_one_line(arguments, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(arguments)
    except SystemExit as ended:  # what argparse refuses
        code = ended.code
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert "~nobody_has_this_name" in lines[-1]
    assert lines[-1].endswith("no such user's home folder")
    assert "unexpected" not in lines[-1]

"""The demo as a user starts it: a whole run, and an interrupt; no process of it stays behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

pytest.importorskip("built_interfaces")

from face_recognition_node.cli.demo_outputs import IdentityWatch, Screen
from face_recognition_node.cli.processes import Children, isolated_environment, process_usage
from face_recognition_node.media.sample import render

pytestmark = pytest.mark.ros
PATIENCE = 120.0


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """The first seconds of the sample, in which the guest is alone in view, as a folder of pictures."""
    folder = tmp_path_factory.mktemp("clip")
    for index in range(55):
        cv2.imwrite(str(folder / f"{index:03d}.jpg"), render(index / 10, (480, 360)))
    return folder


def demo(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "face_recognition_node.cli", "demo", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "ROS_DOMAIN_ID"}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


def children_of(process_id: int) -> list[int]:
    text = Path(f"/proc/{process_id}/task/{process_id}/children").read_text()
    return [int(child) for child in text.split()]


def is_alive(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_run_enrols_and_recognizes(clip: Path, tmp_path: Path) -> None:
    gallery, video = tmp_path / "gallery.db", tmp_path / "seen.mp4"
    process = demo("--once", "--source", str(clip), "--name", "Eileen", "--gallery", str(gallery),
                   "--annotated", str(video))  # fmt: skip
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, output
    assert "enrollment: Eileen is stored" in output
    assert "now: Eileen" in output
    assert "images/s" in output
    assert "Traceback" not in output
    assert gallery.stat().st_mode & 0o777 == 0o600
    capture = cv2.VideoCapture(str(video))
    assert capture.read()[1].shape == (360, 480, 3)


def test_ctrl_c_ends_it_and_its_children(clip: Path) -> None:
    process = demo("--source", str(clip))
    children: list[int] = []
    deadline = time.monotonic() + PATIENCE
    while len(children) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        children = children_of(process.pid)
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, output
    assert "images answered" in output
    assert "Traceback" not in output
    assert not any(is_alive(child) for child in children)


def test_a_source_that_is_not_there_is_told_before_anything_starts() -> None:
    process = demo("--source", "/no/such/clip.mp4")
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 2
    assert "/no/such/clip.mp4" in output
    assert "Traceback" not in output


def test_the_source_is_not_drawn_over(clip: Path) -> None:
    picture = next(clip.iterdir())
    before = picture.read_bytes()
    process = demo("--source", str(clip), "--annotated", str(picture))
    assert "would be overwritten" in process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 2
    assert picture.read_bytes() == before


def test_what_the_user_has_set_is_left_alone() -> None:
    assert "ROS_DOMAIN_ID" not in isolated_environment({"ROS_DOMAIN_ID": "7"})
    fresh = isolated_environment({})
    assert 1 <= int(fresh["ROS_DOMAIN_ID"]) <= 101
    assert fresh["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert Path(fresh["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()


def test_a_domain_is_given_to_one_process_at_a_time(monkeypatch) -> None:
    class Ordered:
        def sample(self, domains, count):
            return list(domains)[:count]

    monkeypatch.setattr("face_recognition_node.cli.processes.random.SystemRandom", Ordered)
    first, second = (isolated_environment({})["ROS_DOMAIN_ID"] for _ in range(2))
    assert int(first) < int(second)


def test_a_child_that_ends_by_itself_is_noticed() -> None:
    with Children() as children:
        child = children.start("broken part", "face_recognition_node.no_such_module:main")
        child.wait(PATIENCE)
        with pytest.raises(Exception, match="broken part ended unexpectedly with exit code 1"):
            children.check()


def test_own_usage_is_plausible() -> None:
    seconds, resident = process_usage(os.getpid())
    assert seconds > 0
    assert 10e6 < resident < 10e9


def face(track: int, state: int, person_id: str = "", name: str = ""):
    from face_recognition_interfaces.msg import Face

    return Face(track_id=track, identity_state=state, person_id=person_id, name=name, probability=0.997)


def test_one_line_per_change_of_identity() -> None:
    from builtin_interfaces.msg import Time
    from std_msgs.msg import Header

    from face_recognition_interfaces.msg import FaceArray

    stream = io.StringIO()
    watch = IdentityWatch(Screen(stream))
    now = int(time.time())
    looks = [[face(1, 0)], [face(1, 0)], [face(1, 1, "stranger-1")], [face(1, 2, "p-1", "Anna"), face(2, 0)],
             [face(1, 2, "p-1", "Anna")], []]  # fmt: skip
    for index, faces in enumerate(looks):
        watch.take(FaceArray(header=Header(stamp=Time(sec=now, nanosec=index * 10**8)), faces=faces))
    lines = [line.split("track ")[1].split() for line in stream.getvalue().splitlines()]
    assert lines == [
        ["1", "new", "face:", "undecided"],
        ["1", "now:", "stranger-1", "(99", "%)"],
        ["1", "now:", "Anna", "(99", "%)"],
        ["2", "new", "face:", "undecided"],
    ]
    assert watch.identified == {"stranger-1": "stranger-1", "p-1": "Anna"}
    assert "6 images answered; undecided in 3, Anna in 2, stranger-1 in 1" in watch.summary()
    assert "in view: nobody" in watch.status()

"""What a team reads in the log of a running node: a line for each thing that happens, ids only, no noise."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import pytest
import ros_world
from lifecycle_msgs.msg import State
from ros_world import NODE, PATIENCE
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from face_recognition_interfaces.srv import AddFaceFromImage, ForgetPersons, MergePersons, RenamePerson
from face_recognition_node.cli.processes import Children
from face_recognition_node.ros.messages import bgr_to_image
from face_recognition_node.ros.remote import Remote

pytestmark = pytest.mark.ros

LINE = re.compile(r"\[(INFO|WARN|ERROR|FATAL)\] \[[0-9.]+\] \[([^]]+)\]: (.*)")


class Camera:
    """Publishes pictures of nobody, without stamps, twice a second while the block runs."""

    def __init__(self, remote: Remote) -> None:
        self._node = remote.node
        self._publisher = self._node.create_publisher(Image, "/camera", 5)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            self._publisher.publish(bgr_to_image(ros_world.noise(), Header()))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._node.destroy_publisher(self._publisher)


def test_the_log_tells_what_a_team_wants_to_know_in_ids_and_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], guest_bgr: np.ndarray, stranger_bgr: np.ndarray
) -> None:
    log: list[str] = []

    def lines() -> list[str]:
        log.extend(capfd.readouterr().err.splitlines())
        return log

    def wait_for(words: str, times: int = 1) -> None:
        remote.wait_until(lambda: sum(words in line for line in lines()) == times, PATIENCE, words)

    def call(type_, service: str, **request):
        answer = remote.call(type_, f"{NODE}/{service}", type_.Request(**request), PATIENCE)
        assert answer.success, answer.message
        return answer

    parameters = (
        "always_on:=true",
        "image_topic:=/camera",
        "image_timeout:=2.0",
        "diagnostics_period:=0.5",
        "detector.working_width:=160",  # a busy machine must not be too slow for the stream
    )
    given = [
        part for one in (f"gallery_path:={tmp_path / 'gallery.db'}", *parameters) for part in ("-p", one)
    ]
    with Children() as children:
        children.start("node", "face_recognition_node.ros.main:main", given)
        with Remote("test_client", children.check) as remote:
            remote.bring_to(NODE, State.PRIMARY_STATE_ACTIVE, PATIENCE)
            wait_for("no image on /camera yet")
            with Camera(remote):
                wait_for("all is well again")
                anna, berta = (
                    call(
                        AddFaceFromImage, "add_face_from_image", name=name, image=bgr_to_image(bgr, Header())
                    )
                    for name, bgr in (("Anna", guest_bgr), ("Berta", stranger_bgr))
                )
                call(RenamePerson, "rename_person", person_id=anna.person_id, name="Annabel")
                call(
                    MergePersons,
                    "merge_persons",
                    keep_person_id=anna.person_id,
                    merge_person_ids=[berta.person_id],
                )
                call(ForgetPersons, "forget_persons", person_ids=[anna.person_id], final=True)
            wait_for("no image on /camera for")
            with Camera(remote):
                wait_for("all is well again", 2)
        assert children.end() == {"node": 0}
    found = [LINE.fullmatch(line) for line in lines()]
    assert all(found), log
    entries = [(line[1], line[3]) for line in found if line]
    expected = [
        ("INFO", r"configured: detector .+; gallery .+ with 0 persons and 0 strangers"),
        ("INFO", "active: answers images on /camera"),
        ("WARN", "no image on /camera yet; nobody publishes there.*"),
        ("INFO", "all is well again: .*"),
        ("INFO", f"enrolled {anna.person_id} from an image"),
        ("INFO", f"enrolled {berta.person_id} from an image"),
        ("INFO", f"renamed {anna.person_id}"),
        ("INFO", f"merged {berta.person_id} into {anna.person_id}"),
        ("INFO", f"forgot {anna.person_id}"),
        ("WARN", "no image on /camera for .*"),
        ("INFO", "all is well again: .*"),
    ]
    assert len(entries) == len(expected), entries
    for (level, text), (wanted_level, pattern) in zip(entries, expected, strict=True):
        assert (level, bool(re.fullmatch(pattern, text))) == (wanted_level, True), entries
    assert not any(name in text for _, text in entries for name in ("Anna", "Berta", "Annabel"))

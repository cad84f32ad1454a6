"""The node's lifecycle in this process: ten rounds, and every thing that can be missing."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import rclpy
import ros_world  # a network of our own, before rclpy joins one
from diagnostic_msgs.msg import DiagnosticStatus
from face_world import FaceWorld
from rclpy.executors import MultiThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from face_recognition_node.common.errors import ConfigurationError, GalleryError
from face_recognition_node.common.resources import models_directory
from face_recognition_node.gallery.gallery import Gallery, NewTemplate, SessionKind
from face_recognition_node.ros import main
from face_recognition_node.ros import node as node_module
from face_recognition_node.ros.images import check_qos_overrides
from face_recognition_node.ros.lifecycle import shut_down, state_label
from face_recognition_node.ros.node import FaceRecognitionNode
from face_recognition_node.vision.faces import HeadPose

pytestmark = pytest.mark.ros
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


@pytest.fixture
def node(tmp_path: Path):
    """A node that is being spun, as it is in its process, with a gallery of its own."""
    gallery = tmp_path / "gallery.db"
    rclpy.init(
        args=["--ros-args", "-p", f"gallery_path:={gallery}"], signal_handler_options=SignalHandlerOptions.NO
    )
    node = FaceRecognitionNode()
    executor = MultiThreadedExecutor(num_threads=4)
    executor.add_node(node)
    spinner = threading.Thread(target=executor.spin, daemon=True)
    spinner.start()
    yield node
    shut_down(node)
    assert state_label(node) == "finalized"
    executor.shutdown()
    spinner.join(ros_world.PATIENCE)
    assert not spinner.is_alive()
    node.destroy_node()
    rclpy.try_shutdown()


def entities(node: FaceRecognitionNode) -> dict[str, int]:
    """Count what the node has on the network."""
    kinds = ("publishers", "subscriptions", "services", "timers", "clients", "waitables")
    return {kind: len(list(getattr(node, kind))) for kind in kinds}


def wait_until(condition) -> None:
    """Wait for the graph, which learns of changes a little later."""
    deadline = time.monotonic() + ros_world.PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_people_of_a_run_outlive_a_cleanup(node: FaceRecognitionNode) -> None:
    """The run ends with the process; who changes a parameter has to clean up."""
    vector = np.eye(64, dtype=np.float32)[0]
    assert node.trigger_configure() == SUCCESS
    assert node.runtime is not None
    node.runtime.gallery.set_session("run", SessionKind.RUN)
    node.runtime.gallery.add_person("Anna", [NewTemplate(vector, 0.9, HeadPose(0, 0, 0))])
    for _ in range(2):
        assert node.trigger_cleanup() == SUCCESS
        assert node.trigger_configure() == SUCCESS
        assert node.runtime is not None
        assert [person.name for person in node.runtime.gallery.snapshot().persons.values()] == ["Anna"]


def test_ten_rounds_leave_nothing_behind(node: FaceRecognitionNode) -> None:
    node.set_parameters([Parameter("always_on", value=True)])
    before = entities(node)
    versions = set()
    for _ in range(10):
        assert node.trigger_configure() == SUCCESS
        assert state_label(node) == "inactive"
        assert node.runtime is not None
        versions.add(node.runtime.gallery.snapshot().version)
        assert node.trigger_activate() == SUCCESS
        assert state_label(node) == "active"
        wait_until(lambda: node.count_subscribers("/image") == 1)
        assert node.trigger_deactivate() == SUCCESS
        wait_until(lambda: node.count_subscribers("/image") == 0)
        assert node.trigger_cleanup() == SUCCESS
        assert state_label(node) == "unconfigured"
        assert node.runtime is None
        assert entities(node) == before
    assert len(versions) == 1, "a round changed the gallery"
    ours = [thread for thread in threading.enumerate() if thread.name.startswith(("recognizer", "strangers"))]
    assert ours == []


def test_nothing_waits_for_a_gallery_that_waits_for_the_disk(node: FaceRecognitionNode, monkeypatch) -> None:
    """Deactivate, parameters and diagnostics go on while the gallery waits for SQLite or is rewritten."""
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    begun, go_on = threading.Event(), threading.Event()

    def wait_for_the_disk(*_: object) -> None:
        begun.set()
        go_on.wait(2 * ros_world.PATIENCE)

    monkeypatch.setattr(node.runtime.gallery, "mark_seen", wait_for_the_disk)
    node._housekeeper._seen.add("p-1")
    try:
        assert begun.wait(ros_world.PATIENCE)

        def use() -> None:
            node.set_parameters([Parameter("always_on", value=True)])
            node.publish_gallery()
            node._diagnose()
            node.trigger_deactivate()

        thread = threading.Thread(target=use, daemon=True)
        thread.start()
        thread.join(ros_world.PATIENCE)
        assert state_label(node) == "inactive"
        assert not thread.is_alive()
    finally:
        go_on.set()


@pytest.mark.parametrize("part", ["writer"])
def test_the_gallery_is_closed_although_another_part_fails_to(node, monkeypatch, part: str) -> None:
    assert node.trigger_configure() == SUCCESS
    gallery = node.runtime.gallery

    def explode() -> None:
        raise ZeroDivisionError("cannot close")

    monkeypatch.setattr(type(getattr(node.runtime, part)), "close", lambda self: explode())
    assert node.trigger_cleanup() == FAILURE
    with pytest.raises(GalleryError, match="closed"):
        gallery.add_person("Anna", [])


def test_the_gallery_is_closed_although_a_publisher_cannot_be_destroyed(node, monkeypatch) -> None:
    assert node.trigger_configure() == SUCCESS
    gallery, close = node.runtime.gallery, node._answers.close

    def close_and_explode() -> None:
        close()
        raise ZeroDivisionError("cannot close")

    monkeypatch.setattr(node._answers, "close", close_and_explode)
    assert node.trigger_cleanup() == FAILURE
    with pytest.raises(GalleryError, match="closed"):
        gallery.add_person("Anna", [])


def test_a_gallery_that_cannot_be_written_is_a_warning_until_it_can(node, monkeypatch) -> None:
    assert node.trigger_configure() == SUCCESS
    person = node.runtime.gallery.add_person("Anna", FaceWorld().templates(0))
    logged: list[str] = []
    monkeypatch.setattr(
        "face_recognition_node.gallery.store.LOGGER.warning", lambda *a: logged.append(a[0] % a[1:])
    )

    def level() -> tuple[bytes, str]:
        messages: list = []
        with monkeypatch.context() as patched:
            patched.setattr(node._diagnostics, "publish", messages.append)
            node._diagnose()
        status = messages[0].status[2]
        return status.level, status.message

    assert level()[0] == DiagnosticStatus.OK
    with closing(sqlite3.connect(node.runtime.gallery.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        node._housekeeper._seen.add(person.person_id)
        node._tidy()
        node._tidy()
        severity, text = level()
    assert severity == DiagnosticStatus.WARN
    assert "nothing was stored (database is locked); another process is writing" in text
    assert logged == [text], "the same warning once"
    node._tidy()
    assert level()[0] == DiagnosticStatus.OK


def test_shutdown_from_active_closes_the_gallery(node: FaceRecognitionNode) -> None:
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    gallery = node.runtime.gallery
    assert node.trigger_shutdown() == SUCCESS
    assert state_label(node) == "finalized"
    with pytest.raises(Exception, match="closed"):
        gallery.add_person("Anna", [])


def configure_fails(node: FaceRecognitionNode, *words: str) -> None:
    assert node.trigger_configure() == FAILURE
    assert state_label(node) == "unconfigured"
    for word in words:
        assert word in node.last_error
    assert "Traceback" not in node.last_error
    assert node.runtime is None


def test_a_missing_model_file_fails_and_its_return_is_enough(node, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(models_directory(), models)
    onnx = models / "efficientnet_b0_64.onnx"
    onnx.rename(tmp_path / "elsewhere")
    node.set_parameters([Parameter("models.models_dir", value=str(models))])
    configure_fails(node, "efficientnet_b0_64.onnx")
    (tmp_path / "elsewhere").rename(onnx)
    assert node.trigger_configure() == SUCCESS
    assert node.last_error == ""


def test_a_damaged_model_file_fails(node, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(models_directory(), models)
    with (models / "retinaface_mobilenet025.onnx").open("ab") as file:
        file.write(b"!")
    node.set_parameters([Parameter("models.models_dir", value=str(models))])
    configure_fails(node, "retinaface_mobilenet025.onnx")


def test_no_models_folder_fails(node, tmp_path: Path) -> None:
    node.set_parameters([Parameter("models.models_dir", value=str(tmp_path / "nowhere"))])
    configure_fails(node, "nowhere")


def test_a_gallery_of_another_model_fails_and_is_not_touched(node, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with Gallery.open(path, "another-model") as gallery:
        version = gallery.snapshot().version
    node.set_parameters([Parameter("gallery_path", value=str(path))])
    configure_fails(node, "another-model")
    with Gallery.open(path, "another-model") as gallery:
        assert gallery.snapshot().version == version
    node.set_parameters([Parameter("gallery_path", value=str(tmp_path / "gallery.db"))])
    assert node.trigger_configure() == SUCCESS


def test_a_gallery_that_cannot_be_written_fails(node, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    node.set_parameters([Parameter("gallery_path", value=str(tmp_path / "file" / "gallery.db"))])
    configure_fails(node, "gallery")
    (tmp_path / "file").unlink()
    assert node.trigger_configure() == SUCCESS


def test_a_file_that_is_no_gallery_fails(node, tmp_path: Path) -> None:
    path = tmp_path / "foreign.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE precious (thing TEXT)")
    node.set_parameters([Parameter("gallery_path", value=str(path))])
    configure_fails(node, "foreign.db")


def test_an_error_nobody_foresaw_fails_loudly_and_can_be_tried_again(node, monkeypatch) -> None:
    def explode(*_: object) -> None:
        raise ZeroDivisionError("unforeseen")

    with monkeypatch.context() as patched:
        patched.setattr("face_recognition_node.ros.node.open_runtime", explode)
        assert node.trigger_configure() == FAILURE
    assert "ZeroDivisionError: unforeseen" in node.last_error
    assert node.trigger_configure() == SUCCESS


def test_what_configure_reads_cannot_be_set_after_it(node) -> None:
    assert node.trigger_configure() == SUCCESS
    (result,) = node.set_parameters([Parameter("gallery_path", value="/elsewhere.db")])
    assert not result.successful
    (result,) = node.set_parameters([Parameter("identity.target_false_accept_rate", value=0.05)])
    assert result.successful
    assert node.runtime.recognizer.config.identity.target_false_accept_rate == 0.05
    node.set_parameters([Parameter("detector.score_threshold", value=0.7)])
    assert node.runtime.models.detector.config.score_threshold == 0.7
    node.set_parameters([Parameter("gallery.max_templates_per_person", value=7)])
    assert node.runtime.gallery.config.max_templates_per_person == 7
    node.set_parameters([Parameter("adaptation.enabled", value=False)])
    assert not node.runtime.adapter.config.enabled


@pytest.mark.parametrize(
    ("executable", "parameter", "cure"),
    [
        ("main", "detector.score_threshold:=7.0", "detector.score_threshold: expected float 0.05 to 0.999"),
        ("main", "enrollment.minimum_views:=9", "minimum_views: expected at most wanted_views"),
        ("main", "qos_overrides./image.subscription.reliability:=relible", "expected best_effort, reliable"),
        ("video_source", "rate:=fast", "parameter rate: expected float 0 to 1000"),
    ],
)
def test_a_bad_parameter_at_start_is_one_line_and_exit_code_2(
    executable: str, parameter: str, cure: str
) -> None:
    code = f"import sys; from face_recognition_node.ros.main import {executable}; sys.exit({executable}())"
    command = [sys.executable, "-c", code, "--ros-args", "-p", parameter]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=ros_world.PATIENCE, check=False)
    (line,) = ended.stderr.splitlines()
    assert cure in line
    assert ended.returncode == 2


@pytest.mark.parametrize("executable", ["main", "web"])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--unheard-of"], "UnknownROSArgsError: ['--unheard-of']"), (["-r", "__node:=no-name!"], "no-name!")],
)
def test_arguments_that_ros_cannot_read_end_with_exit_code_2(
    executable: str, arguments: list[str], says: str
) -> None:
    code = f"import sys; from face_recognition_node.ros.main import {executable}; sys.exit({executable}())"
    command = [sys.executable, "-c", code, "--ros-args", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=ros_world.PATIENCE, check=False)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("cannot start: ")
    assert says in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("executable", ["video_source", "web"])
def test_without_a_place_for_logs_the_cure_names_the_variable(executable: str) -> None:
    code = f"import sys; from face_recognition_node.ros.main import {executable}; sys.exit({executable}())"
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "ROS_HOME")}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.splitlines()[-1].endswith("set ROS_LOG_DIR to a folder that can be written")


def test_interrupts_of_the_whole_group_end_all_in_order(tmp_path: Path) -> None:
    """Ctrl-C in a terminal goes to the launch and the nodes, and the launch passes it on."""

    processes: list[subprocess.Popen[str]] = []

    def prepare() -> None:
        os.setpgid(0, processes[0].pid if processes else 0)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))  # until the process is ready for it

    for executable in ("main", "video_source"):
        code = f"import sys; from face_recognition_node.ros.main import {executable} as f; sys.exit(f())"
        command = [sys.executable, "-c", code, "--ros-args", "-p", f"gallery_path:={tmp_path / 'people.db'}"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=prepare)
        processes.append(process)
    while any(process.poll() is None for process in processes):
        os.killpg(processes[0].pid, signal.SIGINT)
        time.sleep(0.005)
    assert [process.returncode for process in processes] == [0, 0]
    assert ["Traceback" in process.communicate()[1] for process in processes] == [False, False]


def test_overrides_of_quality_of_service_are_checked_at_start() -> None:
    name = "qos_overrides./robot/image.subscription"
    topics = ["/robot/image"]
    assert check_qos_overrides({f"{name}.depth": 7, f"{name}.reliability": "RELIABLE"}, topics) == []
    with pytest.raises(ConfigurationError, match=r"reliability: expected best_effort, .* got 'relible'"):
        check_qos_overrides({f"{name}.reliability": "relible"}, topics)
    with pytest.raises(ConfigurationError, match="depth: expected 0 to 100000, got 'deep'"):
        check_qos_overrides({f"{name}.depth": "deep"}, topics)
    other = "qos_overrides./image.subscription.depth"
    (text,) = check_qos_overrides({other: 7, "image_topic": "image"}, topics)
    assert text.startswith(f"{other} has no effect; there are {name}.history")


def test_quality_of_service_can_be_overridden_for_the_images() -> None:
    name = "qos_overrides./image.subscription"
    rclpy.init(
        args=["--ros-args", "-p", f"{name}.reliability:=reliable", "-p", f"{name}.depth:=7"],
        signal_handler_options=SignalHandlerOptions.NO,
    )
    node = FaceRecognitionNode()
    try:
        for _ in range(2):  # it is subscribed again and again
            node._input.open(node.settings.node)
            wait_until(lambda: node.get_subscriptions_info_by_topic("/image"))
            (info,) = node.get_subscriptions_info_by_topic("/image")
            assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
            node._input.close()
            wait_until(lambda: not node.get_subscriptions_info_by_topic("/image"))
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def test_the_process_of_the_node_has_no_pool_of_threads(monkeypatch) -> None:
    monkeypatch.setattr(main, "stop_on_signals", threading.Event)
    monkeypatch.setattr(main, "run_node", lambda make, stop, args: make(stop))
    monkeypatch.setattr(
        node_module, "FaceRecognitionNode", lambda: Mock(**{"settings.node.autostart": False})
    )
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        main.main([])
        assert cv2.getNumThreads() == 1
        assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    finally:
        cv2.setNumThreads(before)

"""Every example runs, is short, and uses the public API only; so does every cell of the notebook."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
NOTEBOOK = EXAMPLES / "pipeline.ipynb"
GUEST = "Eileen Collins"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, sample_folder: Path) -> Path:
    """A gallery with the guest of the sample video, made by the example that enrolls."""
    path = tmp_path_factory.mktemp("examples") / "people.db"
    assert load("enroll_from_camera").main(GUEST, str(sample_folder), str(path))
    return path


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_is_short_and_uses_the_public_api_only(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    inner = [
        node.module
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("face_recognition_node.")
    ]
    assert not inner


@pytest.mark.slow
def test_the_enrolled_guest_is_recognized(
    gallery: Path, sample_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load("recognize_video").main(str(sample_folder), str(gallery))
    printed = capsys.readouterr().out
    assert GUEST in printed
    assert "stranger" in printed or "undecided" in printed


@pytest.mark.slow
def test_without_a_gallery_nobody_is_named(sample_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("recognize_video").main(str(sample_folder))
    assert GUEST not in capsys.readouterr().out


@pytest.mark.slow
def test_templates_are_plotted(gallery: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "embeddings.png"
    load("plot_embeddings").main(str(gallery), str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.ros
def test_a_node_greets_and_enrolls(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    from lifecycle_msgs.msg import State
    from ros_world import NODE, PATIENCE, SOURCE, node_processes

    source = ["rate:=8.0", "wait_for_subscriber:=true", "width:=480", "height:=360"]
    with node_processes(tmp_path / "gallery.db", source=source) as (_, remote):
        remote.bring_to(NODE, State.PRIMARY_STATE_ACTIVE, PATIENCE)
        remote.bring_to(SOURCE, State.PRIMARY_STATE_ACTIVE, PATIENCE)
        command = [
            sys.executable,
            str(EXAMPLES / "greet_by_name.py"),
            "--ros-args",
            "-p",
            f"enroll_as:={GUEST}",
        ]
        with subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "RCUTILS_LOGGING_BUFFERED_STREAM": "0"},
        ) as greeter:
            assert greeter.stderr is not None
            patience = threading.Timer(PATIENCE, greeter.terminate)
            patience.start()
            try:
                seen = next((line for line in greeter.stderr if f"Hello, {GUEST}!" in line), None)
            finally:
                patience.cancel()
                greeter.terminate()
    assert seen is not None


@pytest.mark.ros
def test_a_behaviour_tree_finds_the_guest(gallery: Path) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    pytest.importorskip("py_trees", reason="needs py_trees: pip install -r requirements/test.txt")
    from lifecycle_msgs.msg import State
    from ros_world import NODE, PATIENCE, SOURCE, node_processes

    source = ["rate:=8.0", "wait_for_subscriber:=true", "width:=480", "height:=360"]
    with node_processes(gallery, source=source) as (_, remote):
        remote.bring_to(NODE, State.PRIMARY_STATE_ACTIVE, PATIENCE)
        remote.bring_to(SOURCE, State.PRIMARY_STATE_ACTIVE, PATIENCE)
        script = EXAMPLES / "find_person_behaviour.py"
        command = [sys.executable, str(script), "--ros-args", "-p", f"name:={GUEST}"]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=True)
    assert ended.stdout == f"SUCCESS {GUEST} is in view\n"


def cells() -> Iterator[str]:
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            yield "".join(cell["source"])


@pytest.mark.slow
def test_the_notebook_runs_and_holds_no_pictures_of_people() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    stored = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in stored), "clear the notebook's outputs before a commit"
    names: dict[str, object] = {}
    for cell in cells():
        exec(compile(cell, str(NOTEBOOK), "exec"), names)
    embeddings = names["embeddings"]
    assert isinstance(embeddings, np.ndarray)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-5)

"""A robot where rosdep could not install everything: the cure is named, and nothing else is hidden."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from face_recognition_node.common.libraries import PACKAGES, missing_library

ROOT = Path(__file__).resolve().parents[2]
NODE = "face_recognition_node.ros.main"
COMMANDS = {
    "command": "from face_recognition_node.cli import main; sys.exit(main(['gallery', 'list']))",
    "node": f"from {NODE} import main; sys.exit(main([]))",
}


def test_the_module_is_named_with_its_package() -> None:
    text = missing_library(ModuleNotFoundError("No module named 'faiss.swigfaiss'", name="faiss.swigfaiss"))
    assert text is not None
    assert "faiss is not installed" in text
    assert "pip install faiss-cpu" in text


@pytest.mark.parametrize("name", ["face_recognition_node.typo", "launch", None])
def test_other_imports_that_fail_are_bugs_and_stay_so(name: str | None) -> None:
    assert missing_library(ModuleNotFoundError("no", name=name)) is None


@pytest.mark.parametrize("library", ["cv2", "faiss"])
@pytest.mark.parametrize("what", COMMANDS)
def test_a_process_ends_with_the_cure_and_code_2(what: str, library: str) -> None:
    if what == "node":
        pytest.importorskip("built_interfaces")
    script = f"import sys; sys.modules[{library!r}] = None; {COMMANDS[what]}"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert re.search(rf"{library} is not installed; cure: .*pip install", ended.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["verb", "node"])
def test_the_page_asks_for_its_library_only_when_it_is_wanted(what: str) -> None:
    if what == "node":
        pytest.importorskip("built_interfaces")
        start = "from face_recognition_node.ros.main import web; sys.exit(web())"
    else:
        start = "from face_recognition_node.cli import main; sys.exit(main(['web', 'sample']))"
    script = f"import sys; sys.modules['aiohttp'] = None; {start}"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "pip install aiohttp" in ended.stderr


def test_what_rosdep_cannot_install_is_required_as_tested() -> None:
    def pins(name: str) -> set[str]:
        lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
        return {line for line in lines if line and not line.startswith("#")}

    assert pins("robot.txt") - pins("runtime.txt") == {"numpy<2"}
    installed = {"numpy", "tqdm", "cryptography", "PyYAML", "opencv-python-headless"}  # by rosdep
    assert set(PACKAGES.values()) - installed <= {re.split(r"[<=]", pin)[0] for pin in pins("robot.txt")}

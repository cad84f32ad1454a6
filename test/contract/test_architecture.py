"""Who may import whom: a table, enforced on the source text and by imports in a Python that lacks things."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "face_recognition_node"


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MESSAGES = words(
    "action_msgs builtin_interfaces diagnostic_msgs face_recognition_interfaces geometry_msgs lifecycle_msgs "
    "rcl_interfaces sensor_msgs std_msgs std_srvs"
)
PLOTS = words("matplotlib")
PEERS = words("dlib face_recognition_models retinaface")


@dataclass(frozen=True)
class Room:
    """What a folder of the package may import, at the top of its files and, in addition, late."""

    rooms: frozenset[str] = frozenset()  # other rooms of the package
    libraries: frozenset[str] = frozenset()  # libraries; the standard library is always allowed
    # rooms that may be imported inside of functions or for type checking
    late_rooms: frozenset[str] = frozenset()
    late_libraries: frozenset[str] = frozenset()  # libraries of the same kind


ARRAYS = words("numpy cv2")
# room → what it may import. `cli` may import anything, late: see test_the_command_line_starts_bare
TABLE = {
    "common": Room(words(""), ARRAYS, late_libraries=words("yaml tqdm")),
    # All parameters in one tree: it declares, and every room may import it.
    "config": Room(words("common"), ARRAYS),
    "vision": Room(words("common config"), ARRAYS),
    "tracking": Room(words("common config vision"), ARRAYS),
    "gallery": Room(words("common config vision"), ARRAYS, late_libraries=words("cryptography faiss")),
    "identity": Room(words("common config vision tracking gallery"), ARRAYS),
    "enrollment": Room(words("common config vision tracking gallery identity"), ARRAYS),
    "recognizer": Room(words("common config vision tracking gallery identity"), ARRAYS),
    "media": Room(words("common vision"), ARRAYS, late_libraries=words("rosbags pillow_heif PIL")),
    "backends": Room(
        words("common config vision"),
        ARRAYS,
        late_rooms=words("networks"),
        late_libraries=words("openvino onnxruntime torch torch_tensorrt tensorrt safetensors retinaface"),
    ),
    # The one place that puts models, configuration and objects together for those who run them.
    "assembly": Room(
        words("common config vision tracking gallery identity enrollment recognizer"),
        ARRAYS,
        late_rooms=words("backends"),
    ),
    # The operator's page; it knows a robot by one interface, which ros implements, too.
    "web": Room(
        words("common config vision gallery identity enrollment media assembly"),
        ARRAYS | words("aiohttp msgspec"),
    ),
    "networks": Room(
        words("common vision"),
        ARRAYS | words("torch"),
        late_libraries=words("onnx onnxruntime safetensors retinaface"),
    ),
    "evaluation": Room(
        words("common config vision tracking gallery identity enrollment recognizer backends media assembly"),
        ARRAYS | words("msgspec"),
        late_libraries=words("sklearn yaml tqdm psutil onnxruntime openvino torch") | PLOTS | PEERS,
    ),
    "training": Room(
        words("common config vision identity networks evaluation"),
        ARRAYS | words("torch lightning pytorch_metric_learning msgspec tqdm yaml"),
        late_rooms=words("media backends assembly"),
        late_libraries=words("sklearn onnx onnxruntime openvino pymilvus") | PLOTS,
    ),
    "systems": Room(
        words("common config vision identity networks evaluation training"),
        ARRAYS | words("torch lightning pytorch_metric_learning msgspec tqdm yaml"),
        late_rooms=words("media backends assembly"),
        late_libraries=words("sklearn onnx onnxruntime") | PLOTS,
    ),
    "ros": Room(
        words("common config vision tracking gallery identity enrollment recognizer media assembly web"),
        ARRAYS | words("rclpy") | MESSAGES,
        late_rooms=words("backends"),
        late_libraries=words("ament_index_python cv_bridge vision_msgs hri_msgs yaml"),
    ),
}

LARGEST_FOLDER = 17  # modules in a folder, `__init__` left out; the aim is 16
# modules in the longest chain of imports at the top of files; types alone are imported for type checking
DEEPEST_IMPORT = 10

# what no file of `cli` imports at its top
HEAVY = words("torch lightning openvino onnxruntime faiss rclpy sklearn matplotlib onnx")


@dataclass(frozen=True)
class Import:
    """One import statement: where it stands, what it names, whether it runs only when its function does."""

    path: Path
    line: int
    module: str
    is_late: bool

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


@functools.cache
def find_imports(path: Path, text: str | None = None) -> tuple[Import, ...]:
    """Return every import of a file (or of ``text`` as if it were the file's)."""

    def modules_of(statement: ast.Import | ast.ImportFrom) -> list[str]:
        if isinstance(statement, ast.Import):
            return [alias.name for alias in statement.names]
        if statement.level:
            folders = path.relative_to(ROOT).parts[: -statement.level]
            return [".".join((*folders, statement.module or "")).rstrip(".")]
        if statement.module == PACKAGE.name:
            return [f"{PACKAGE.name}.{alias.name}" for alias in statement.names]
        return [statement.module or ""]

    def visit(node: ast.AST, is_late: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                for module in modules_of(child):
                    yield Import(path, child.lineno, module, is_late)
            elif isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
                inside = is_late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                yield from visit(child, inside or is_type_checking(child))

    return tuple(visit(ast.parse(path.read_text(encoding="utf-8") if text is None else text), False))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def module_of(path: Path) -> str:
    """Return a file's module below the package: ``vision.faces``, ``gallery`` for its ``__init__``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def violations(room: str, rule: Room) -> list[str]:
    """Return a sentence for every import of the room that the table does not allow."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if room_of(path) != room:
            continue
        for statement in find_imports(path):
            top, _, rest = statement.module.partition(".")
            if top == PACKAGE.name:
                other = rest.split(".")[0]
                if other in ("", "__version__", room) or other in rule.rooms:
                    continue
                is_allowed = statement.is_late and other in rule.late_rooms
                name = f"the room {other}"
            elif top in sys.stdlib_module_names or top in rule.libraries:
                continue
            else:
                is_allowed = statement.is_late and top in rule.late_libraries
                name = top
            if not is_allowed:
                when = "" if statement.is_late else " at the top of a file"
                found.append(f"{statement}: {room} must not import {name}{when}")
    return found


@pytest.mark.parametrize("room", sorted(TABLE))
def test_a_room_imports_only_what_the_table_allows(room: str) -> None:
    found = violations(room, TABLE[room])
    assert not found, "\n".join(["", *found])


def import_graph() -> dict[str, set[str]]:
    """Return which module of the package imports which others when it is imported."""
    modules = {module_of(path): path for path in PACKAGE.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        graph[module] = set()
        for statement in find_imports(path):
            top, _, rest = statement.module.partition(".")
            if top != PACKAGE.name or statement.is_late:
                continue
            while rest and rest not in modules:
                rest = rest.rpartition(".")[0]
            if rest and rest != module:
                graph[module].add(rest)
    return graph


def longest_chain(graph: dict[str, set[str]]) -> tuple[str, ...]:
    """Return the longest chain of imports; a cycle is an error that names its modules."""
    known: dict[str, tuple[str, ...]] = {}

    def chain_from(module: str, above: tuple[str, ...]) -> tuple[str, ...]:
        assert module not in above, "cycle of imports: " + " -> ".join((*above, module))
        if module not in known:
            below = [chain_from(other, (*above, module)) for other in sorted(graph[module])]
            known[module] = (module, *max(below, key=len, default=()))
        return known[module]

    return max((chain_from(module, ()) for module in sorted(graph)), key=len)


def test_imports_have_no_cycle_and_are_not_deep() -> None:
    chain = longest_chain(import_graph())
    print(f"cycles: 0; longest chain of imports: {len(chain)} modules: {' -> '.join(chain)}")
    assert len(chain) <= DEEPEST_IMPORT


def test_late_imports_hide_no_cycle_of_types() -> None:
    """A module that needs another only for its types, and the other way round, is one module cut in two."""
    graph = {
        module_of(path): {
            statement.module.partition(".")[2]
            for statement in find_imports(path)
            if statement.module.startswith(f"{PACKAGE.name}.")
        }
        for path in PACKAGE.rglob("*.py")
    }
    found = sorted(
        f"{module} <-> {other}"
        for module, others in graph.items()
        for other in others
        if module < other and module in graph.get(other, set())
    )
    assert not found, "\n".join(["", *found])


def test_no_folder_holds_more_than_a_reader_can() -> None:
    folders: dict[str, int] = {}
    for path in PACKAGE.rglob("*.py"):
        if path.name != "__init__.py":
            folder = path.parent.relative_to(PACKAGE).as_posix()
            folders[folder] = folders.get(folder, 0) + 1
    print(", ".join(f"{folder} {count}" for folder, count in sorted(folders.items())))
    assert max(folders.values()) <= LARGEST_FOLDER, {k: n for k, n in folders.items() if n > LARGEST_FOLDER}


def test_every_room_is_in_the_table() -> None:
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__", "cli"}
    assert rooms <= set(TABLE), f"no rule for {sorted(rooms - set(TABLE))}: add one to TABLE and to the docs"


def test_the_command_line_imports_nothing_heavy_at_the_top() -> None:
    found = [
        f"{statement}: cli must import {statement.module} late, inside of the verb that needs it"
        for path in sorted((PACKAGE / "cli").rglob("*.py"))
        for statement in find_imports(path)
        if not statement.is_late and statement.module.split(".")[0] in HEAVY
    ]
    assert not found, "\n".join(["", *found])


def test_the_check_sees_late_relative_and_type_only_imports() -> None:
    text = (
        "from typing import TYPE_CHECKING\n"
        "import torch\n"
        "from face_recognition_node import media\n"
        "if TYPE_CHECKING:\n"
        "    import rclpy\n"
        "def f():\n"
        "    import openvino.runtime\n"
        "class C:\n"
        "    from ..ros import node\n"
    )
    seen = {(i.line, i.module, i.is_late) for i in find_imports(PACKAGE / "vision" / "faces.py", text)}
    assert seen == {
        (1, "typing", False),
        (2, "torch", False),
        (3, "face_recognition_node.media", False),
        (5, "rclpy", True),
        (7, "openvino.runtime", True),
        (9, "face_recognition_node.ros", False),
    }


BLOCKER = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(name + " is blocked by the test")
        return None

sys.meta_path.insert(0, Blocker())
"""


def run_without(blocked: set[str], code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh Python in which some modules cannot be imported."""
    program = BLOCKER.format(blocked=blocked) + code
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=ROOT, check=False
    )


RECOGNITION = ["common", "vision", "tracking", "gallery", "identity", "enrollment"]
ROBOT_ONLY = {"rclpy", "torch", "timm", "lightning", "face_recognition_interfaces", "sensor_msgs", "std_msgs"}
ALL_OF = """
import importlib, pkgutil
for room in {rooms!r}:
    package = importlib.import_module("face_recognition_node." + room)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
print("imported")
"""


def test_the_rooms_around_recognition_import_without_ros_and_torch() -> None:
    done = run_without(ROBOT_ONLY, ALL_OF.format(rooms=["media", "backends", "evaluation"]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("imported\n")


def test_recognition_imports_without_the_libraries_that_run_models() -> None:
    blocked = ROBOT_ONLY | {"openvino", "onnxruntime", "sklearn", "matplotlib", "yaml", "cryptography"}
    done = run_without(blocked, ALL_OF.format(rooms=RECOGNITION))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("imported\n")


def test_the_command_line_starts_bare() -> None:
    code = "from face_recognition_node.cli import main\nmain(['--help'])"
    done = run_without(set(HEAVY) | ROBOT_ONLY, code)
    assert done.returncode == 0, done.stderr
    assert "recognize" in done.stdout


def test_the_blocker_blocks() -> None:
    done = run_without({"json"}, "import json")
    assert done.returncode != 0
    assert "json is blocked by the test" in done.stderr

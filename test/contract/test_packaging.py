"""What is installed, where, and with which versions: by pip, by colcon and by ./run."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INTERFACES = ROOT / "face_recognition_interfaces"
REQUIREMENTS = ROOT / "requirements"

# import name → distribution, where they differ
MODULES = {"PIL": "pillow", "cv2": "opencv-python-headless", "faiss": "faiss-cpu", "yaml": "pyyaml"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(layer: str) -> dict[str, list[str]]:
    """Return distribution → requirement lines of a layer."""
    lines: dict[str, list[str]] = {}
    for line in (REQUIREMENTS / f"{layer}.txt").read_text(encoding="utf-8").splitlines():
        text = line.split("#")[0].strip()
        if text:
            lines.setdefault(normal(re.split(r"[ =<>;\[]", text)[0]), []).append(text)
    return lines


def package_xml(path: Path) -> ElementTree.Element:
    return ElementTree.parse(path).getroot()


def names(root: ElementTree.Element, *tags: str) -> set[str]:
    return {element.text or "" for tag in tags for element in root.findall(tag)}


def setup_call() -> dict[str, ast.expr]:
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (call,) = [node for node in calls if ast.unparse(node.func) == "setup"]
    return {keyword.arg or "": keyword.value for keyword in call.keywords}


def entry_points() -> dict[str, str]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = parser["options.entry_points"]["console_scripts"].strip().splitlines()
    return {name.strip(): target.strip() for name, target in (line.split("=") for line in lines)}


class TestVersions:
    def test_the_version_is_the_same_everywhere(self) -> None:
        from face_recognition_node import __version__

        text = (INTERFACES / "pyproject.toml").read_text(encoding="utf-8")
        found = {
            "setup.py": ast.literal_eval(setup_call()["version"]),
            "package.xml": package_xml(ROOT / "package.xml").findtext("version"),
            "interfaces/package.xml": package_xml(INTERFACES / "package.xml").findtext("version"),
            "interfaces/pyproject.toml": re.findall(r'^version = "(.*)"$', text, flags=re.MULTILINE)[0],
            "__init__.py": __version__,
        }
        assert set(found.values()) == {__version__}, found

    def test_the_version_is_a_literal_that_release_tools_can_replace(self) -> None:
        version = package_xml(ROOT / "package.xml").findtext("version")
        assert f"version='{version}'," in (ROOT / "setup.py").read_text(encoding="utf-8")

    def test_the_changelog_names_the_package(self) -> None:
        lines = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8").splitlines()
        assert lines[1] == "Changelog for package face_recognition_node"
        assert lines[0] == lines[2] == "^" * len(lines[1])
        headings = [lines[i] for i in range(len(lines) - 1) if lines[i] and set(lines[i + 1]) == {"-"}]
        allowed = re.compile(r"Forthcoming|\d+\.\d+\.\d+ \(\d{4}-\d{2}-\d{2}\)")
        assert all(allowed.fullmatch(text) for text in headings)


class TestManifests:
    def test_pyproject_has_no_project_table(self) -> None:
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert not re.search(r"^\[project", text, flags=re.MULTILINE)

    def test_the_outer_manifest_has_the_dependencies_of_the_inner_one(self) -> None:
        tags = ("buildtool_depend", "build_depend", "depend", "exec_depend")
        inner = names(package_xml(INTERFACES / "package.xml"), *tags)
        assert inner <= names(package_xml(ROOT / "package.xml"), *tags)

    def test_both_are_interface_packages_built_by_cmake(self) -> None:
        for folder in (ROOT, INTERFACES):
            root = package_xml(folder / "package.xml")
            assert names(root, "member_of_group") == {"rosidl_interface_packages"}
            assert root.findtext("export/build_type") == "ament_cmake"
            assert root.findtext("name") == folder.name or folder == ROOT
            assert root.findtext("license") == "Apache-2.0"

    def test_every_ros_package_imported_is_declared(self) -> None:
        declared = names(package_xml(ROOT / "package.xml"), "depend", "exec_depend")
        optional = {"cv_bridge", "vision_msgs", "hri_msgs", "face_recognition_interfaces"}
        for path in sorted((ROOT / "face_recognition_node").rglob("*.py")):
            for line, module in imported_modules(path):
                if module.endswith(("_msgs", "_interfaces")) or module in ("rclpy", "ament_index_python"):
                    assert module in declared | optional, f"{path.relative_to(ROOT)}:{line}: {module}"

    def test_cmake_installs_what_pip_installs(self) -> None:
        text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
        assert "add_subdirectory(face_recognition_interfaces)" in text
        assert re.search(r"install\(DIRECTORY config launch models\s+DESTINATION share/", text)
        assert "SCRIPTS_DESTINATION lib/${PROJECT_NAME}" in text

    def test_the_index_marker_is_there(self) -> None:
        assert (ROOT / "resource" / "face_recognition_node").is_file()


class TestEntryPoints:
    def test_they_are_the_command_and_the_three_nodes(self) -> None:
        assert entry_points() == {
            "face-recognition": "face_recognition_node.cli:main",
            "face_recognition_node": "face_recognition_node.ros.main:main",
            "video_source_node": "face_recognition_node.ros.main:video_source",
            "web_node": "face_recognition_node.ros.main:web",
        }

    @pytest.mark.parametrize("target", sorted(entry_points().values()))
    def test_the_function_is_there(self, target: str) -> None:
        module, _, function = target.partition(":")
        path = ROOT / (module.replace(".", "/") + ".py")
        path = path if path.is_file() else path.with_suffix("") / "__init__.py"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]

    @pytest.mark.parametrize("name", ["face_recognition_node", "video_source_node", "web_node"])
    def test_ros2_run_finds_a_script_that_calls_the_same(self, name: str) -> None:
        script = ROOT / "scripts" / name
        assert os.access(script, os.X_OK)
        module, _, function = entry_points()[name].partition(":")
        text = script.read_text(encoding="utf-8")
        assert text.startswith("#!/usr/bin/env python3\n")
        assert f"from {module} import {function}\n" in text
        assert f"sys.exit({function}())" in text


class TestRequirements:
    @pytest.mark.parametrize("layer", ["runtime", "ros", "build", "test", "train", "constraints"])
    def test_every_line_is_an_exact_version(self, layer: str) -> None:
        for lines in pins(layer).values():
            for line in lines:
                assert re.fullmatch(r'[\w.-]+==[\w.]+(; python_version (<|>=) "3\.1\d")?', line), line

    def test_no_two_layers_disagree(self) -> None:
        layers = {layer: pins(layer) for layer in ("runtime", "ros", "test", "constraints")}
        seen: dict[str, tuple[str, list[str]]] = {}
        for layer, lines in layers.items():
            for name, text in lines.items():
                other = seen.setdefault(name, (layer, text))
                assert other[1] == text, f"{name}: {other} and {(layer, text)}"

    def test_the_runtime_needs_no_torch(self) -> None:
        assert not {"torch", "timm", "lightning", "torchvision"} & (set(pins("runtime")) | set(pins("ros")))

    def test_one_distribution_of_ros(self) -> None:
        assert {name.split("-")[1] for name in pins("ros") if name.startswith("ros-")} == {"kilted"}

    def test_pytest_is_one_that_launch_pytest_works_with(self) -> None:
        assert pins("test")["pytest"] == ["pytest==8.3.5"]

    def test_what_the_robot_imports_is_pinned(self) -> None:
        """Top-level imports of what runs on the robot; late ones are optional or have their own layer."""
        known = set(pins("runtime")) | {normal(name) for name in ("rclpy", "face_recognition_interfaces")}
        for room in ("core", "media", "ros"):
            for path in sorted((ROOT / "face_recognition_node" / room).rglob("*.py")):
                for line, module in imported_modules(path, only_top=True):
                    if module in sys.stdlib_module_names or module == "face_recognition_node":
                        continue
                    if module.endswith(("_msgs", "_interfaces")):
                        continue
                    name = normal(MODULES.get(module, module))
                    assert name in known, f"{path.relative_to(ROOT)}:{line}: {module}"

    def test_setup_py_asks_for_the_runtime(self) -> None:
        asked = ast.literal_eval(setup_call()["install_requires"])
        assert {normal(re.split(r"[<=>]", text)[0]) for text in asked} == set(pins("runtime"))

    def test_the_extras_are_there(self) -> None:
        extras = ast.literal_eval(setup_call()["extras_require"])
        assert set(extras) == {"train", "test", "tensorrt", "web", "bags", "heif"}
        pinned = {normal(name) for name in pins("test")}
        assert {normal(re.split(r"[<=>]", text)[0]) for text in extras["test"]} == pinned

    def test_the_interface_package_uses_the_wheels_pinned_here(self) -> None:
        text = (INTERFACES / "pyproject.toml").read_text(encoding="utf-8")
        assert set(re.findall(r'"(ros-kilted-[\w-]+)"', text)) <= set(pins("ros"))


@pytest.mark.slow
class TestWheel:
    @pytest.fixture(scope="class")
    def members(self, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
        """Return the names in a wheel that was built from a copy of the sources."""
        source = tmp_path_factory.mktemp("source") / "package"
        source.mkdir()
        for item in ("config", "face_recognition_node", "launch", "models", "resource", "scripts"):
            shutil.copytree(ROOT / item, source / item, ignore=shutil.ignore_patterns("__pycache__"))
        for weights in (*(source / "models").glob("*.onnx"), *(source / "models").glob("*.safetensors")):
            weights.write_bytes(b"")  # only names are looked at, and to pack the weights takes long
        for item in ("package.xml", "setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in"):
            shutil.copy(ROOT / item, source / item)
        target = tmp_path_factory.mktemp("wheel")
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
        done = subprocess.run(
            [*command, "--wheel-dir", str(target), str(source)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        (wheel,) = target.glob("*.whl")
        return set(zipfile.ZipFile(wheel).namelist())

    def test_it_holds_every_file_of_the_package(self, members: set[str]) -> None:
        files = [path for path in (ROOT / "face_recognition_node").rglob("*") if path.is_file()]
        expected = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
        assert not expected - members

    def test_it_holds_the_shared_data(self, members: set[str]) -> None:
        data = {name.split(".data/data/", 1)[1] for name in members if ".data/data/" in name}
        expected = {
            "share/ament_index/resource_index/packages/face_recognition_node",
            "share/face_recognition_node/package.xml",
            "lib/face_recognition_node/face_recognition_node",
            "lib/face_recognition_node/video_source_node",
            "lib/face_recognition_node/web_node",
        }
        for folder in ("config", "launch", "models"):
            for path in (ROOT / folder).rglob("*"):
                if path.is_file() and "__pycache__" not in path.parts:
                    expected.add(f"share/face_recognition_node/{path.relative_to(ROOT)}")
        assert data == expected

    def test_it_holds_nothing_else(self, members: set[str]) -> None:
        tops = {name.split("/")[0] for name in members}
        assert {re.sub(r"-0.*\.", ".", top) for top in tops} <= {
            "face_recognition_node",
            "face_recognition_node.data",
            "face_recognition_node.dist-info",
        }


class TestFastDdsProfile:
    PATH = ROOT / "config" / "fastdds_profile.xml"
    SPACE = "{http://www.eprosima.com}"

    def test_shared_memory_holds_several_large_images(self) -> None:
        root = ElementTree.parse(self.PATH).getroot()
        transports = {
            element.findtext(f"{self.SPACE}type"): element
            for element in root.iter(f"{self.SPACE}transport_descriptor")
        }
        assert set(transports) == {"SHM", "UDPv4"}
        shared = transports["SHM"]
        segment = int(shared.findtext(f"{self.SPACE}segment_size") or 0)
        largest = int(shared.findtext(f"{self.SPACE}maxMessageSize") or 0)
        assert largest > 1920 * 1080 * 3
        assert segment >= 4 * largest
        assert segment >= 10 * 1280 * 720 * 3

    def test_the_default_participant_uses_these_transports_only(self) -> None:
        root = ElementTree.parse(self.PATH).getroot()
        (participant,) = root.iter(f"{self.SPACE}participant")
        assert participant.get("is_default_profile") == "true"
        identifiers = {element.text for element in root.iter(f"{self.SPACE}transport_id")}
        used = participant.find(f"{self.SPACE}rtps/{self.SPACE}userTransports")
        assert used is not None
        assert {element.text for element in used} == identifiers
        assert participant.findtext(f"{self.SPACE}rtps/{self.SPACE}useBuiltinTransports") == "false"


class TestRun:
    """The script ./run, as far as it goes without installing anything."""

    def call(self, *arguments: str, script: Path = ROOT / "run", **environment: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", str(script), *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
            cwd="/",
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    @pytest.fixture
    def bare(self, tmp_path: Path) -> Path:
        """Return a copy of the script in a folder without an environment."""
        shutil.copytree(REQUIREMENTS, tmp_path / "requirements")
        shutil.copy(ROOT / "run", tmp_path / "run")
        return tmp_path / "run"

    def test_it_explains_itself(self) -> None:
        status, text = self.call("help")
        assert status == 0
        for command in ("demo", "test", "lint", "exec", "setup"):
            assert re.search(rf"^  {command} ", text, flags=re.MULTILINE)

    def test_an_unknown_command_is_refused(self) -> None:
        status, text = self.call("destroy")
        assert status == 2
        assert "usage:" in text

    def test_exec_asks_for_a_command(self) -> None:
        assert self.call("exec")[0] == 1

    def test_a_wrong_python_is_named(self, bare: Path) -> None:
        status, text = self.call("setup", script=bare, PYTHON="/bin/false")
        assert status == 1
        assert "PYTHON=/bin/false is not Python 3.10 to 3.13" in text

    def test_no_python_is_named_with_its_cure(self, bare: Path, tmp_path: Path) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        for tool in ("bash", "cat", "cut", "dirname", "env", "head", "readlink", "sed", "uname"):
            (folder / tool).symlink_to(shutil.which(tool) or "/missing")
        status, text = self.call("setup", script=bare, PATH=str(folder))
        assert status == 1
        assert "no Python 3.10 to 3.13 found" in text
        assert "sudo apt install python3" in text

    def test_a_path_that_cmake_cannot_build_below_is_refused(self, bare: Path) -> None:
        folder = bare.parent / "Küche"
        folder.mkdir()
        status, text = self.call("setup", script=Path(shutil.copy(bare, folder)))
        assert status == 1
        assert f"this checkout lies at {folder}; CMake cannot build below letters beyond ASCII" in text
        assert "move it" in text
        assert [path.name for path in folder.iterdir()] == ["run"]

    def test_a_broken_environment_is_named_with_its_cure(self, bare: Path) -> None:
        (bare.parent / ".venv").mkdir()
        status, text = self.call("setup", script=bare)
        assert status == 1
        assert f"rm -r '{bare.parent}/.venv'" in text

    def test_ci_calls_the_linters_and_then_the_tests(self) -> None:
        text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
        assert os.access(ROOT / ".ci" / "run", os.X_OK)
        assert os.access(ROOT / "run", os.X_OK)
        assert text.index("./run lint") < text.index("./run test")


class TestRepository:
    def test_galleries_and_environments_are_never_committed(self) -> None:
        if shutil.which("git") is None or not (ROOT / ".git").exists():
            pytest.skip("not a git checkout")
        private = ["gallery.db", "gallery.db-wal", "config/people.sqlite3", ".venv/x", "galleries/a.bin"]
        done = subprocess.run(
            ["git", "check-ignore", *private], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.stdout.split() == private

    def test_the_licence_is_there_in_full(self) -> None:
        text = (ROOT / "LICENSE").read_text(encoding="utf-8")
        assert "Apache License" in text
        assert "END OF TERMS AND CONDITIONS" in text


def imported_modules(path: Path, *, only_top: bool = False) -> list[tuple[int, str]]:
    """Return (line, top module) of the absolute imports of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in tree.body if only_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name.split(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.append((node.lineno, (node.module or "").split(".")[0]))
    return found

"""The interface package: complete, commented, and working once it is built."""

from __future__ import annotations

import importlib
import math
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "face_recognition_interfaces"
FILES = sorted(path for kind in ("msg", "srv", "action") for path in (FOLDER / kind).iterdir())
SERVICES = [path for path in FILES if path.suffix == ".srv"]
IDS = [path.name for path in FILES]

FIELD = re.compile(r"^(?P<type>[\w/]+(\[\d*\])?)\s+(?P<name>[a-z]\w*)(\s+[^#=]+)?\s*(#.*)?$")
EMPTY = "structure_needs_at_least_one_member"
CONSTANT = re.compile(r"^(?P<type>\w+)\s+(?P<name>[A-Z][A-Z_0-9]*)\s*=\s*(?P<value>[^#]+?)\s*(#.*)?$")


def python_class(path: Path) -> type:
    module = importlib.import_module(f"face_recognition_interfaces.{path.parent.name}")
    return getattr(module, path.stem)


def sections(path: Path) -> list[str]:
    """Return the parts of a file: one of a message, request and response, goal, result and feedback."""
    return re.split(r"^---$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)


def statements(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def fields(text: str) -> list[str]:
    return [match["name"] for line in statements(text) if (match := FIELD.match(line))]


@pytest.fixture(scope="module", autouse=True)
def built_package() -> None:
    pytest.importorskip("built_interfaces")


def test_cmake_builds_every_file_and_no_other() -> None:
    listed = re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', (FOLDER / "CMakeLists.txt").read_text())
    assert sorted(listed) == sorted(f"{path.parent.name}/{path.name}" for path in FILES)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_a_file_says_first_what_it_is(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 20


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_every_line_is_a_field_or_a_constant_that_is_not_too_long(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        assert len(line) <= 120, f"{path.name}: {line}"
    for line in statements("".join(sections(path))):
        assert FIELD.match(line) or CONSTANT.match(line), f"{path.name}: {line}"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_numbers_say_their_unit_or_meaning(path: Path) -> None:
    counts = {"gallery_version", "n_persons", "n_templates", "views_kept", "views_rejected", "wanted_views"}
    bare = [
        line
        for line in statements("".join(sections(path)))
        if re.match(r"(float|u?int)\w*(\[\d*\])? ", line)
        and "#" not in line
        and line.split()[1] not in counts
    ]
    assert not bare, f"{path.name}: without a comment: {bare}"


@pytest.mark.parametrize("path", SERVICES, ids=[path.name for path in SERVICES])
def test_every_answer_says_whether_why_and_of_which_version(path: Path) -> None:
    assert fields(sections(path)[1])[:3] == ["success", "message", "gallery_version"]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_the_built_class_has_the_fields_of_the_file(path: Path) -> None:
    built = python_class(path)
    classes = {
        "msg": [built],
        "srv": [getattr(built, name, None) for name in ("Request", "Response")],
        "action": [getattr(built, name, None) for name in ("Goal", "Result", "Feedback")],
    }[path.parent.name]
    for text, part in zip(sections(path), classes, strict=True):
        names = [name for name in part.get_fields_and_field_types() if name != EMPTY]
        assert names == fields(text), f"{path.name}: rebuild the interface package (./run setup)"


def test_the_states_are_three() -> None:
    face = python_class(FOLDER / "msg" / "Face.msg")
    assert (face.UNDECIDED, face.STRANGER, face.KNOWN) == (0, 1, 2)
    assert (face.UNVERIFIED, face.SOLID, face.FLAT) == (0, 1, 2)
    assert face().identity_state == face.UNDECIDED


def test_the_kinds_of_session_are_the_same_everywhere() -> None:
    info = python_class(FOLDER / "msg" / "GalleryInfo.msg")
    request = python_class(FOLDER / "srv" / "SetSession.srv").Request
    for name in ("PERMANENT", "EVENT", "RUN"):
        assert getattr(info, name) == getattr(request, name)


def test_reasons_and_outcomes_are_their_own_names() -> None:
    counted = python_class(FOLDER / "msg" / "RejectionCount.msg")
    result = python_class(FOLDER / "action" / "EnrollPerson.action").Result
    for path, part, built in (
        ("msg/RejectionCount.msg", 0, counted),
        ("action/EnrollPerson.action", 1, result),
    ):
        text = sections(FOLDER / path)[part]
        names = [match["name"] for line in statements(text) if (match := CONSTANT.match(line))]
        assert len(names) >= 10
        for name in names:
            assert getattr(built, name) == name.lower()


def test_a_message_survives_the_wire() -> None:
    from rclpy.serialization import deserialize_message, serialize_message

    face_class = python_class(FOLDER / "msg" / "Face.msg")
    array_class = python_class(FOLDER / "msg" / "FaceArray.msg")
    face = face_class(
        track_id=7,
        box_xyxy=[1.5, -2.0, 30.25, 40.0],
        landmarks_xy=[float(number) for number in range(10)],
        identity_state=face_class.KNOWN,
        person_id="p-1",
        name="Zoë Müller",
        probability=0.75,
        template_distance=math.nan,
        embedding=[0.125] * 64,
    )
    sent = array_class(faces=[face, face_class()], gallery_version=2**40, image_width=640, image_height=480)
    sent.header.frame_id = "camera"
    sent.header.stamp.nanosec = 5

    received = deserialize_message(serialize_message(sent), array_class)

    assert received.header == sent.header
    assert received.gallery_version == 2**40
    assert [len(item.embedding) for item in received.faces] == [64, 0]
    assert received.faces[0].name == "Zoë Müller"
    assert list(received.faces[0].box_xyxy) == [1.5, -2.0, 30.25, 40.0]
    assert math.isnan(received.faces[0].template_distance)

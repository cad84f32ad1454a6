"""The reference tables and the parameter files, written from the declarations that the nodes themselves use.

``python tools/reference.py docs`` brings the tables in the DOCUMENTS up to date,
``… config`` the PARAMETER_FILES; a test compares both with what would be written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from face_recognition_node.common.parameters import Value, flatten
from face_recognition_node.ros.messages import ACTIONS, OPTIONAL_TOPICS, SERVICES, TOPICS
from face_recognition_node.ros.parameters import Declarations, NodeParameters, bounds, declarations
from face_recognition_node.ros.video_source import VideoSourceConfig
from face_recognition_node.ros.web.node import WebConfig

WIDTH = 100
Rows = Iterable[Sequence[str]]


def topics_table() -> str:
    """Return the published topics as a Markdown table."""
    rows = [
        (f"`{topic.name}`", f"`{_type_name(topic.type)}`", _qos(topic.qos), topic.text) for topic in TOPICS
    ]
    return _table(("topic", "type", "offered QoS", "what"), rows)


def optional_topics_table() -> str:
    """Return the topics in messages of other packages, but for those that REP 155 defines, as a table."""
    rows = [
        (f"`{topic.name}`", f"`{topic.type}`", _qos(topic.qos), topic.text)
        for topic in OPTIONAL_TOPICS
        if not topic.name.startswith("/humans/")
    ]
    return _table(("topic", "type", "offered QoS", "what"), rows)


def services_table() -> str:
    """Return the services as a Markdown table."""
    return _table(("service", "what"), [(f"`{call.name}`", call.text) for call in SERVICES])


def actions_table() -> str:
    """Return the actions as a Markdown table."""
    return _table(("action", "what"), [(f"`{call.name}`", call.text) for call in ACTIONS])


def main_parameters_table() -> str:
    """Return the parameters a robot is likely to set as a Markdown table."""
    rows = [
        (f"`{name}`", f"`{_yaml(value)}`", _sentence(declared.description))
        for name, declared, value in declarations()
        if name in MAIN_PARAMETERS
    ]
    return _table(("parameter", "default", "what"), rows)


MAIN_PARAMETERS = frozenset(
    {
        "rotate",
        "gallery_path",
        "always_on",
        "detector.working_width",
        "identity.target_false_accept_rate",
        "strangers.enabled",
        "gallery.undo_window_s",
    }
)
# name of a table between `<!-- begin NAME -->` and `<!-- end NAME -->`, and what makes it
TABLES = {
    "topics": topics_table,
    "optional_topics": optional_topics_table,
    "services": services_table,
    "actions": actions_table,
    "main_parameters": main_parameters_table,
}

DOCUMENTS = ("docs/ros.md", "README.md")


def fill_tables(document: str) -> str:
    """Return a Markdown document with every marked table in it replaced by the present one."""
    for name, make in TABLES.items():
        head, tail = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        before, found, rest = document.partition(head)
        if found:
            document = before + head + make() + tail + rest.partition(tail)[2]
    return document


def recognition_file() -> str:
    """Return the YAML file of the recognition node's parameters."""
    usage = "Copy this file, keep what you change, and give it to the launch file as params_file."
    return _parameter_file("the recognition node", usage, list(declarations()), NodeParameters.FIXED)


def video_source_file() -> str:
    """Return the YAML file of the video source's parameters."""
    usage = "Use: ros2 run face_recognition_node video_source_node --ros-args --params-file FILE"
    items = list(flatten(VideoSourceConfig()))
    return _parameter_file("the video source", usage, items, frozenset({"autostart"}))


def web_file() -> str:
    """Return the YAML file of the parameters of the operator's page."""
    usage = "Use: ros2 run face_recognition_node web_node --ros-args --params-file FILE"
    items = list(flatten(WebConfig()))
    return _parameter_file("the operator's page", usage, items, frozenset(name for name, _, _ in items))


# path of a parameter file, and what makes it
PARAMETER_FILES: dict[str, Callable[[], str]] = {
    "config/face_recognition.yaml": recognition_file,
    "config/video_source.yaml": video_source_file,
    "config/web.yaml": web_file,
}


def _parameter_file(node: str, usage: str, items: Declarations, fixed: frozenset[str]) -> str:
    """Return a node's parameter file; ``fixed`` names what can be set at start only."""
    about = (
        f"Every parameter of {node} with its default. The comment before it ends with the range or the "
        "choices (in parentheses) and with [configure] if it can be set only while the node is "
        "unconfigured, or [start] if only at start; any other takes effect on the next image. A default "
        "with a decimal point is a double: `ros2 param set` wants 2.0, not 2."
    )
    written = "Written by `python tools/reference.py config`; a test compares it with the declarations."
    lines = [line for text in (about, usage, written) for line in _comment(text, "")]
    lines += ["/**:", "  ros__parameters:"]
    section: tuple[str, ...] = ()
    for name, declared, value in items:
        *parents, leaf = name.split(".")
        for depth, parent in enumerate(parents):
            if section[: depth + 1] != (*parents[: depth + 1],):
                lines += ["", f"{_indent(depth)}{parent}:"]
        section = tuple(parents)
        text = _sentence(declared.description)
        if allowed := bounds(declared):
            text += f" ({allowed})"
        if name in fixed:
            text += " [start]"
        elif declared.read_only:
            text += " [configure]"
        lines += _comment(text, _indent(len(parents)))
        lines.append(f"{_indent(len(parents))}{leaf}: {_yaml(value)}")
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Rows) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _type_name(type_: type) -> str:
    package, kind = type_.__module__.split(".")[:2]
    return f"{package}/{kind}/{type_.__name__}"


def _qos(qos: QoSProfile) -> str:
    reliability = "reliable" if qos.reliability != ReliabilityPolicy.BEST_EFFORT else "best effort"
    latched = ", transient local" if qos.durability == DurabilityPolicy.TRANSIENT_LOCAL else ""
    return f"{reliability}{latched}, depth {qos.depth}"


def _sentence(text: str) -> str:
    text = text.strip().rstrip(".") + "."
    # "raw: …" begins with a value, which is written as it is.
    return text if text.split()[0].endswith(":") else text[:1].upper() + text[1:]


def _comment(text: str, indent: str) -> list[str]:
    """Return a comment broken into lines of at most WIDTH characters."""
    lines, line = [], ""
    for word in text.split():
        if line and len(indent) + 2 + len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [f"{indent}# {part}" for part in (*lines, line)]


def _indent(depth: int) -> str:
    return "  " * (depth + 2)


def _yaml(value: Value) -> str:
    if isinstance(value, float):
        text = repr(value)
        # YAML 1.1 takes "1e-06" for a string: a number with an exponent needs a point.
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    return json.dumps(value)


def main(arguments: Sequence[str]) -> int:
    """Rewrite the documents or the parameter files of a source tree."""
    root = Path(__file__).resolve().parents[1]
    if list(arguments) == ["docs"]:
        for document in map(root.joinpath, DOCUMENTS):
            if document.exists():
                document.write_text(fill_tables(document.read_text()))
    elif list(arguments) == ["config"]:
        for path, make in PARAMETER_FILES.items():
            (root / path).write_text(make())
    else:
        sys.stderr.write(f"expected 'docs' or 'config', got {list(arguments)}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

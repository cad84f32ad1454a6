"""The README and the pages it leads to: links, commands, tables and topics are as they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from face_recognition_node.cli import VERBS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "config" / "scenarios" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def section(name: str) -> str:
    """Return what stands between the markers of a generated table of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- begin {name} -->\n(.*?)<!-- end {name} -->", text, re.DOTALL)
    assert found, f"README.md has no section {name}"
    return found[1]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_headings(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8"))
    assert [
        link for link in links if link[1] not in anchors(page.parent / link[0] if link[0] else page)
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []
    named = re.findall(r"`((?:core|cli|evaluation|backends|media|ros|config|docs|test)/[\w/.-]+\.\w+)`", text)
    package = ROOT / "face_recognition_node"
    real = [name for name in named if "NAME" not in name]
    assert [name for name in real if not any((base / name).exists() for base in (ROOT, package))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_verbs(page: Path) -> None:
    used = set(re.findall(r"face-recognition ([a-z]+)", page.read_text(encoding="utf-8")))
    assert used <= set(VERBS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_no_machine(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"(?:/home/|/root/|/work/|/tmp/)\S*", text) == []


def test_readme_names_the_demo_and_the_tests() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for needed in ("./run demo", "./run test", "colcon build", "ros2 launch face_recognition_node"):
        assert needed in text
    assert re.findall(r"TODO|TBD|XXX", text) == []


def test_the_readme_is_one_page_with_one_picture_and_one_diagram() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 170
    assert (text.count("!["), text.count("```mermaid")) == (1, 1)

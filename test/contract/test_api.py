"""The public names: all there, all documented, and free until they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import face_recognition_node

NAMES = [name for name in face_recognition_node.__all__ if name != "__version__"]


def test_there_are_about_twenty_public_names() -> None:
    assert 15 <= len(NAMES) <= 25
    assert face_recognition_node.__all__ == sorted(face_recognition_node.__all__)
    assert set(NAMES) <= set(dir(face_recognition_node))


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(face_recognition_node, name)
    assert value.__name__ == name
    assert value.__doc__, f"{name} needs a docstring"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Recognition'"):
        _ = face_recognition_node.Recognition  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, face_recognition_node; print({'numpy', 'cv2', 'faiss'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

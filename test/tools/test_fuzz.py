"""The fuzzer, for a moment: the node lives, answers, and the tally says what was sent."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import pytest

pytest.importorskip("built_interfaces")

import fuzz
from sensor_msgs.msg import Image


def test_a_seed_makes_the_same_messages_again() -> None:
    first, again = (
        [fuzz.hostile_image(random.Random(k), Image()).data.tobytes() for k in range(20)] for _ in range(2)
    )
    assert first == again
    assert len(set(first)) > 10


@pytest.mark.ros
def test_the_node_lives_and_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fuzz, "EVERY", 20)
    target = tmp_path / "tally.json"
    arguments = argparse.Namespace(messages=120, minutes=10.0, seed=2, progress=False, json=str(target))
    assert fuzz.run(arguments) == 0
    tally = json.loads(target.read_text())
    assert sum(tally["sent"].values()) == 120
    assert {"raw", "compressed"} <= tally["sent"].keys()
    assert (tally["deaths"], tally["unanswered"]) == (0, 0)
    assert tally["recoveries"] >= 5
    assert tally["bad"]

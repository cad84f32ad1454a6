"""The generated figures of README.md and docs/identity.md say what the reports say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from update_figures import (
    SCENARIOS,
    calibration_table,
    fill,
    replay_table,
    track_table,
)

from face_recognition_node.common.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]


def share(value: float, count: int) -> dict[str, Any]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "count": count}


def track(right: int, wrong: int = 0, frames: int = 10, enrolled: bool = True) -> dict[str, Any]:
    return {
        "is_enrolled": enrolled,
        "frames": frames,
        "enrolled_frames": frames if enrolled else 0,
        "right_frames": right,
        "wrong_frames": wrong,
        "named_share": right / frames if enrolled else None,
        "seconds_to_name": 0.25 if right else None,
    }


@pytest.fixture
def report() -> dict[str, Any]:
    ids = {
        "frames": 10,
        "ids": {"stranger-1": 8},
        "main_id_share": 0.8,
        "id_consistency": 1.0,
        "fragments": 1,
    }
    return {
        "identification_rate": share(0.5, 2),
        "false_positive_identification_rate": share(0.25, 4),
        "seconds_under_a_wrong_name": 0.5,
        "stranger_ids_shared_by_persons": 1,
        "episodes": [
            {"tracks": [track(10), track(0, wrong=2), track(0, enrolled=False)], "strangers": [ids]}
        ],
        "unmet": [],
    }


def test_failures_are_told(report: dict[str, Any]) -> None:
    table = replay_table(dict.fromkeys(SCENARIOS, report))
    assert "50 % [49, 51] of 2 tracks identified, 1 under a wrong name" in table
    assert "1 of 4 tracks named: 25.0 % [24.0, 26.0]" in table
    assert (
        "the right name in 50.0 % of the frames of 2 tracks (0 % in the worst), 0.5 s under a wrong" in table
    )
    assert "80 % of frames under one id, 100 % of those with an id" in table
    assert "; ids per stranger: 1 (1×); shared by two people: 1" in table
    assert all(f"| `{name}`: " in table for name in SCENARIOS)


def test_success_is_told_without_exceptions(report: dict[str, Any]) -> None:
    report["episodes"][0]["tracks"] = [track(10), track(10)]
    report["seconds_under_a_wrong_name"] = 0
    table = replay_table(dict.fromkeys(SCENARIOS, report))
    assert "none under a wrong name" in table
    assert "the right name in all frames of 2 tracks, 0 s under a wrong one" in table


def test_the_pages_show_the_calibration_of_the_weights() -> None:
    card = json.loads((ROOT / "models" / "efficientnet_b0_64.json").read_text(encoding="utf-8"))
    report = card["calibration"]["report"]
    page = (ROOT / "docs" / "identity.md").read_text(encoding="utf-8")
    assert fill(page, "calibration_figures", calibration_table(report)) == page
    assert fill(page, "track_figures", track_table(report)) == page


def test_rates_are_written_as_powers_of_ten() -> None:
    numbers = {"n_people": 1000, "cllr": 0.25, "cllr_minimum": 0.2, "expected_calibration_error": 0.01}
    numbers |= {"correlation_s": 0.21, "comparisons_per_track": 2.4}
    table = calibration_table({**numbers, "false_match": [[0.01, 0.0123], [0.0001, 0.00009]]})
    assert "| false match rate promised 10⁻² / 10⁻⁴ | 1.2·10⁻² / 9.0·10⁻⁵ |" in table


def test_only_what_is_between_the_markers_changes() -> None:
    page = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n"
    assert fill(page, "x", "new\n") == page.replace("old", "new")
    with pytest.raises(ConfigurationError, match="markers"):
        fill(page, "y", "new\n")

"""The tables of docs/notes/performance.md: right numbers in the right columns."""

from __future__ import annotations

import update_performance as tables

MACHINE = {
    "processor": "Abacus",
    "cores": 2,
    "memory_gb": 8.0,
    "system": "Linux",
    "load": 0.1,
    "libraries": {"numpy": "2"},
}


def timing(name: str, wall: float, cpu: float, ratio: float) -> dict[str, object]:
    return {
        "name": name,
        "median_ms": wall,
        "low_ms": wall - 1,
        "high_ms": wall + 1,
        "cpu_ms": cpu,
        "ratio": ratio,
        "ratio_low": ratio - 0.1,
        "ratio_high": ratio + 0.1,
        "runs": 7,
        "note": "",
    }


TABLE = {
    "task": "embed 2 faces",
    "timings": [timing("ours", 4.0, 6.0, 1.0), timing("other", 40.0, 30.0, 10.0)],
}


def test_races_become_a_table_with_a_column_each():
    other = {"task": "embed 5 faces", "timings": [timing("ours", 9.0, 9.5, 1.0)]}
    lines = tables.race_table([TABLE, other]).splitlines()
    assert lines[0] == "|  | embed 2 faces, 7 rounds | embed 5 faces, 7 rounds |  |"
    assert lines[2] == "| ours | 4.0 (6.0) | 9.0 (9.5) |  |"
    assert lines[-1] == "| other | 40.0 (30.0), 10.00 × [9.90, 10.10] |  |  |"
    assert len({line.count("|") for line in lines}) == 1


def test_notes_that_differ_between_races_are_all_given():
    notes = ("1 found", "2 found")
    races = [
        {"task": "detect", "timings": [{**timing("ours", 4.0, 6.0, 1.0), "note": note}]} for note in notes
    ]
    assert tables.race_table(races).endswith("| 1 found / 2 found |")


def test_sections_name_machine_and_load():
    assert "Abacus, 2 cores" in tables.tables_section({"machine": MACHINE, "tables": [TABLE]})
    report = {
        "machine": MACHINE,
        "start": {"loaded_s": 0.5, "first_frame_s": 0.6, "resident_mb": 200.0},
        "scenes": [{**TABLE, "profile_ms": {"detect": 5.0}, "faces_seen": 2.0, "certain": 1.5}],
    }
    section = tables.pipeline_section(report)
    assert "load 0.1" in section
    assert "detect 5.00" in section
    assert "certain 1.50" in section
    assert "first frame answered after 0.60 s" in section


def test_processor_time_of_an_answer():
    report = {
        "size": "640x480", "faces": 2, "rate": 30.0, "answered": 600, "sent": 600, "latency_p50_ms": 15.0,
        "latency_p95_ms": 20.0, "cpu_percent": 45.0, "answered_hz": 30.0, "resident_mb": 330.0,
        "start_s": 1.2, "load": 0.5, "stages_ms": {"detect": 9.0},
    }  # fmt: skip
    section = tables.ros_section([report])
    assert "| 45 % | 15.0 | 330 |" in section
    assert "detect 9.00" in section


def test_the_soaks_verdict():
    growth = {
        "mb_per_hour": 0.5, "low": -1.0, "high": 2.0, "seconds": 1500.0, "warm_up_s": 300.0,
        "resident_mb": 330.0, "is_growing": False,
    }  # fmt: skip
    report = {
        "machine": MACHINE,
        "task": "a wall",
        "growth": growth,
        "samples": [{"answered_hz": 10.0, "tracks": 4}],
    }
    assert "did not grow: slope +0.50 MB/h [-1.00, +2.00] over 25 minutes" in tables.soak_section(report)
    report["growth"]["is_growing"] = True
    assert "grew by more than is allowed" in tables.soak_section(report)

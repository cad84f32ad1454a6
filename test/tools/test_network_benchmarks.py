"""The benchmarks of single networks run."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import benchmark_detector
import benchmark_embedder
import benchmark_int8
import pytest


def run_benchmark(capsys, tool: ModuleType, *arguments: str) -> dict:
    assert tool.main([*arguments, "--rounds", "2", "--no-peers", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_the_detector_benchmark_runs(capsys):
    figures = run_benchmark(capsys, benchmark_detector, "--sizes", "320x240")
    timings = figures["tables"][0]["timings"]
    assert timings[0]["name"].startswith("ours")
    assert timings[0]["median_ms"] > 0
    assert timings[-1]["runs"] == 2


@pytest.mark.slow
def test_the_embedder_benchmark_runs(capsys):
    figures = run_benchmark(capsys, benchmark_embedder, "--faces", "1", "2")
    assert [table["task"] for table in figures["tables"]] == ["embed 1 aligned face", "embed 2 aligned faces"]
    assert benchmark_embedder.main(["--faces", "0"]) == 2


def test_int8_without_nncf_tells_the_cure(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nncf", None)
    assert benchmark_int8.main(["lfw.zip", "faces"]) == 2
    assert "pip install nncf" in capsys.readouterr().err
    assert benchmark_int8.main(["lfw.zip", "faces", "--samples", "0"]) == 2

"""The soak's verdict: growth is found, wandering is not growth, and the benchmark itself runs."""

from __future__ import annotations

import csv
import importlib.util
import json

import numpy as np
import pytest
from benchmark_soak import (
    SoakSample,
    judge_growth,
    main,
    plot_samples,
    slope,
    slope_interval,
    write_samples,
)

from face_recognition_node.common.errors import InputError


def series(memory: np.ndarray, latency: np.ndarray | float = 20.0) -> list[SoakSample]:
    """Return a sample every ten seconds."""
    latencies = np.broadcast_to(latency, memory.shape)
    return [
        SoakSample(10.0 * (n + 1), float(m), 40.0, 30.0, float(p), 1.5 * float(p), n)
        for n, (m, p) in enumerate(zip(memory, latencies, strict=True))
    ]


def wandering(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return noise that remembers where it was, as memory does: an AR(1) process of spread 0.5."""
    values = np.zeros(count)
    for n in range(1, count):
        values[n] = 0.8 * values[n - 1] + 0.3 * rng.standard_normal()
    return values


def test_a_leak_is_found(rng):
    minutes = np.arange(180) / 6
    growth = judge_growth(series(300 + 0.5 * minutes + wandering(rng, 180)), 300.0, 4.0)
    assert growth.is_growing
    assert growth.low < 30.0 < growth.high
    assert growth.mb_per_hour == pytest.approx(30.0, abs=3.0)
    assert "memory GROWS" in str(growth)
    assert growth.samples == 150
    assert growth.seconds == pytest.approx(1500.0)


def test_caches_that_fill_and_noise_are_no_leak(rng):
    minutes = np.arange(180) / 6
    memory = 300 - 40 * np.exp(-minutes) + wandering(rng, 180)
    growth = judge_growth(series(memory), 300.0, 4.0)
    assert not growth.is_growing
    assert growth.low < 0.0 < growth.high
    assert "does not grow" in str(growth)


@pytest.mark.slow
def test_the_interval_allows_for_neighbours_that_are_alike(rng):
    """Of 100 level series at most a few may have an interval without 0; one for white noise misses many."""
    hours = np.arange(150) / 360
    misses = 0
    for number in range(100):
        low, high = slope_interval(hours, wandering(np.random.default_rng(number), 150))
        misses += not low <= 0.0 <= high
    assert misses <= 20


def test_slope_is_polyfits(rng):
    x, y = rng.random(30), rng.random(30)
    assert slope(x, y) == pytest.approx(np.polyfit(x, y, 1)[0])


def test_slower_answers_are_told_and_silence_is_left_out():
    latency = 20 + np.arange(60) / 6
    latency[40] = np.nan
    growth = judge_growth(series(np.full(60, 300.0), latency), 60.0, 4.0)
    assert growth.latency_ms_per_hour == pytest.approx(60.0)


def test_too_short_a_run_is_refused():
    with pytest.raises(InputError, match="at least 8 samples"):
        judge_growth(series(np.full(10, 300.0)), 60.0, 4.0)


@pytest.mark.slow
def test_samples_are_written_and_drawn(tmp_path):
    samples = series(300 + np.arange(20.0))
    write_samples(samples, tmp_path / "soak.csv")
    with (tmp_path / "soak.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert float(rows[3]["resident_mb"]) == 303.0
    assert rows[3]["tracks"] == "3"
    pytest.importorskip("matplotlib")
    picture = plot_samples(samples, judge_growth(samples, 50.0, 4.0), tmp_path / "soak.png", "a test")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("wrong", [("--minutes", "1", "--warm-up", "2"), ("--every", "0"), ("--size", "big")])
def test_arguments_are_checked(wrong, capsys):
    assert main([*wrong]) == 2
    assert "expected" in capsys.readouterr().err


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("rclpy") is None, reason="ROS 2 is not installed")
def test_the_soak_runs(tmp_path, capsys):
    arguments = ["--minutes", "0.1", "--warm-up", "0.01", "--every", "0.5", "--rate", "10", "--faces", "1"]
    code = main([
        *arguments, "--size", "320x240", "--allowed-growth", "1e9",
        "--csv", str(tmp_path / "soak.csv"), "--json",
    ])  # fmt: skip
    figures = json.loads(capsys.readouterr().out)
    assert code == 0
    assert figures["samples"][-1]["tracks"] >= 1
    assert figures["samples"][-1]["resident_mb"] > 50
    judged = [sample for sample in figures["samples"] if sample["seconds"] > 0.6]
    assert len(figures["samples"]) == 12
    assert figures["growth"]["samples"] == len(judged) >= 8
    assert len((tmp_path / "soak.csv").read_text().splitlines()) == 13

"""The benchmark's arithmetic: interleaving, medians, paired ratios; and that the commands run."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict

import cv2
import numpy as np
import pytest
from benchmark_pipeline import photographs_on_a_wall

from face_recognition_node.cli import main
from face_recognition_node.cli.benchmark.frames import FRAMES, parse_size, sway, swaying_frames
from face_recognition_node.cli.benchmark.pipeline import parse_scene
from face_recognition_node.common.errors import InputError
from face_recognition_node.evaluation.bootstrap import estimate, median
from face_recognition_node.evaluation.timing import Contestant, Machine, race, resident_mb


@pytest.fixture(autouse=True)
def no_rest(monkeypatch) -> None:
    """Let no time pass between the runs, and little with the intervals."""
    monkeypatch.setattr("face_recognition_node.evaluation.timing._REST_S", 0.0)
    monkeypatch.setattr("face_recognition_node.evaluation.bootstrap.RESAMPLES", 200)


class Clock:
    """Time that passes only when a contestant says so, and ever faster or slower with the rounds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now

    def contestant(self, name: str, seconds: float) -> Contestant:
        def run(number: int) -> None:
            self.order.append(name)
            self.now += seconds * (1 + number % 5)

        return Contestant(name, run, "a note")


def test_medians_and_paired_ratios():
    clock = Clock()
    table = race("task", [clock.contestant("a", 0.001), clock.contestant("b", 0.003)], 25, clock=clock)
    assert table.baseline == "a"
    assert table.of("a").median_ms == pytest.approx(3)
    assert table.of("b").median_ms == pytest.approx(9)
    # whatever slows a round down slows both: the ratio does not waver
    assert (table.of("b").ratio, table.of("b").ratio_low, table.of("b").ratio_high) == pytest.approx(
        (3, 3, 3)
    )
    assert table.of("a").low_ms < 3 < table.of("a").high_ms
    assert table.of("b").p95_ms == pytest.approx(15)
    assert table.of("a").runs == 25


def test_runs_are_interleaved_in_changing_order():
    clock = Clock()
    names = ["a", "b", "c"]
    race("task", [clock.contestant(name, 0.001) for name in names], 30, warm_up=2, clock=clock)
    assert clock.order[:6] == ["a", "a", "b", "b", "c", "c"]
    rounds = [tuple(clock.order[at : at + 3]) for at in range(6, 96, 3)]
    assert len(rounds) == 30
    assert all(sorted(order) == names for order in rounds)
    assert len(set(rounds)) > 3


def test_a_round_of_several_calls_counts_their_mean():
    now = [0.0]
    calls = []

    def work(_: int) -> None:
        calls.append(now[0])
        now[0] += 5.0 if len(calls) % 5 == 0 else 1.0

    contestants = [Contestant("cycle", work, calls=5)]
    table = race("cycle", contestants, 4, warm_up=0, clock=lambda: now[0])
    assert len(calls) == 20
    assert table.of("cycle").median_ms == pytest.approx(1800.0)
    assert table.of("cycle").runs == 4


def test_the_table_prints_itself_and_becomes_json():
    clock = Clock()
    table = race(
        "the task", [clock.contestant("ours", 0.001), clock.contestant("theirs", 0.01)], 5, clock=clock
    )
    text = str(table)
    assert text.startswith("the task")
    assert "theirs" in text
    assert "a note" in text
    assert json.loads(json.dumps(asdict(table)))["timings"][1]["ratio"] == pytest.approx(10)
    with pytest.raises(InputError, match="no such contestant"):
        table.of("nobody")


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_a_race_needs_distinct_contestants(names):
    with pytest.raises(InputError, match="distinct"):
        race("task", [Contestant(name, print) for name in names], 3)
    with pytest.raises(InputError, match="a round"):
        race("task", [Contestant("a", print)], 0)


def test_the_median_lies_in_its_interval(rng):
    values = rng.lognormal(0, 0.5, 101)
    found = estimate(values, statistic=median)
    assert found.low < np.median(values) < found.high
    assert found.value == np.median(values)
    equal = estimate(np.full(9, 2.0), statistic=median)
    assert (equal.low, equal.high) == (2, 2)


def test_the_machine_is_described():
    machine = Machine.here()
    assert machine.cores >= 1
    assert "numpy" in machine.libraries
    assert str(machine.cores) in str(machine)
    assert resident_mb() > 10


def test_frames():
    frames = swaying_frames((320, 240), 2)
    assert len(frames) == FRAMES
    assert {frame.shape for frame in frames} == {(240, 320, 3)}
    assert (frames[0] != frames[10]).mean() > 0.5
    assert sway(np.full((40, 50, 3), 100, np.uint8))[0].shape == (40, 50, 3)


@pytest.mark.parametrize("text", ["640", "axb", "640x4", "99999x480"])
def test_sizes_are_checked(text):
    assert parse_size("640x480") == (640, 480)
    with pytest.raises(InputError, match="expected"):
        parse_size(text)


@pytest.mark.parametrize("text", ["640x480", "640x480:", "640x480:0", "640x480:13", "640x480:two"])
def test_scenes_are_checked(text):
    assert parse_scene("1280x720:5") == ((1280, 720), 5)
    with pytest.raises(InputError, match="WxH:FACES"):
        parse_scene(text)


def test_photographs_hang_on_the_wall(tmp_path, rng):
    with zipfile.ZipFile(tmp_path / "people.zip", "w") as file:
        for number in range(4):
            picture = np.full((60, 50, 3), 40 * number, np.uint8)
            file.writestr(f"{number}.png", cv2.imencode(".png", picture)[1].tobytes())
    frames = photographs_on_a_wall(tmp_path / "people.zip", (320, 240), 4)
    assert frames[0].shape == (240, 320, 3)
    with pytest.raises(InputError, match="at least 5 pictures"):
        photographs_on_a_wall(tmp_path / "people.zip", (320, 240), 5)


def run_benchmark(capsys, *arguments: str) -> dict:
    assert main(["benchmark", *arguments, "--rounds", "2", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_the_pipeline_benchmark_runs(capsys):
    figures = run_benchmark(capsys, "pipeline", "--scenes", "320x240:2")
    (scene,) = figures["scenes"]
    names = [timing["name"] for timing in scene["timings"]]
    assert names == [
        "pipeline",
        "pipeline, every face",
        "pipeline, search 1 of 3",
        "networks alone",
        "detector network alone",
    ]
    assert set(scene["profile_ms"]) >= {"detect", "align", "embed", "track", "search", "resize"}
    assert scene["faces_seen"] == 2
    assert figures["start"]["first_frame_s"] > figures["start"]["loaded_s"] > 0

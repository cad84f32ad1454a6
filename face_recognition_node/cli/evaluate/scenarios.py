"""``face-recognition evaluate scenarios [DATA…]``: scenes of a RoboCup@Home run, composed of real faces."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from face_recognition_node.cli.evaluate.replay import find_data
from face_recognition_node.cli.options import (
    add_json_flag,
    add_progress,
    add_settings,
    config_from,
    file_to_write,
    given_path,
    report,
)
from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.common.progress import progress_bar

if TYPE_CHECKING:
    from face_recognition_node.evaluation.scenes.stage import Measured, ScenarioOutcome

EPILOG = """\
DATA is a folder of clips, a zip of LFW, ORL or RAP3DF faces, or a folder that holds them.

exit codes: 0 every scenario that was run passed, 1 one failed, 2 wrong input or failure
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "data",
        nargs="*",
        type=given_path,
        metavar="DATA",
        help="where faces come from (default: as --data of replay)",
    )
    parser.add_argument("--only", metavar="A1,A5", default="", help="run only these scenarios")
    parser.add_argument("--short", action="store_true", help="few people, few frames: a trial run")
    add_json_flag(parser)
    parser.add_argument("--report", type=file_to_write, metavar="OUT.html", help="write a page with pictures")
    add_settings(parser)
    add_progress(parser)


def run(arguments: argparse.Namespace) -> int:
    """Play the scenarios and print the table."""
    from face_recognition_node.assembly import load_models
    from face_recognition_node.cli.evaluate.live import LIVE, play_live
    from face_recognition_node.evaluation.scenes.cast import Cast
    from face_recognition_node.evaluation.scenes.scenarios import SCENARIOS, run_scenario
    from face_recognition_node.evaluation.scenes.stage import ScenarioOutcome, Stage

    wanted = [number.strip().upper() for number in arguments.only.split(",") if number.strip()]
    known = [scenario.number for scenario in SCENARIOS]
    if unknown := [number for number in wanted if number not in known]:
        raise ConfigurationError(f"--only: expected some of {', '.join(known)}, got {', '.join(unknown)}")
    config = config_from(arguments)
    models = load_models(config)
    cast = Cast(arguments.data or [find_data(None)], models.detector)
    outcomes = []
    with progress_bar(shown=arguments.progress) as bar:

        def on_frame(place: str) -> None:
            bar.set_description(place, refresh=False)
            bar.update()

        for scenario in SCENARIOS:
            if wanted and scenario.number not in wanted:
                continue
            stage = Stage(cast, models, config, is_short=arguments.short, on_frame=on_frame)
            measured, reason = run_scenario(scenario, stage)
            if scenario.number in LIVE and not reason:
                bar.set_description(f"{scenario.number} with the node")
                live, reason = play_live(scenario.number, stage)
                measured = _both(measured, live, reason)
            outcomes.append(ScenarioOutcome(scenario, measured, reason))
            if not arguments.json:
                print(table(outcomes[-1:]), flush=True)
    if arguments.report is not None:
        _write_report(arguments.report, outcomes)
    if arguments.json:
        report("", [outcome.to_dict() for outcome in outcomes], arguments.json)
    return int(any(outcome.verdict == "FAIL" for outcome in outcomes))


def _both(composed: Measured | None, live: Measured | None, reason: str) -> Measured | None:
    """Join what the pipeline and what the running node came to."""
    from face_recognition_node.evaluation.scenes.stage import Measured

    if composed is None:
        return live
    if live is None:
        return replace(composed, text=f"{composed.text}\nwith the node: not run: {reason}")
    return Measured(
        f"{composed.text}\n{live.text}",
        composed.passed and live.passed,
        {**composed.figures, **live.figures},
        composed.pictures,
    )


def table(outcomes: list[ScenarioOutcome]) -> str:
    """Return one block of lines a scenario: what must hold, what was measured."""
    lines = []
    for outcome in outcomes:
        scenario = outcome.scenario
        lines.append(f"{scenario.number:<4} {outcome.verdict:<8} {scenario.title}; must: {scenario.must}")
        told = outcome.measured.text if outcome.measured else outcome.reason
        lines += [f"     {line}" for line in told.splitlines()]
    return "\n".join(lines)


def _write_report(path: Path, outcomes: list[ScenarioOutcome]) -> None:
    import cv2

    from face_recognition_node.evaluation.plots import Section, write_page

    with tempfile.TemporaryDirectory() as folder:
        sections = []
        for outcome in outcomes:
            files = []
            for index, picture in enumerate(outcome.measured.pictures if outcome.measured else ()):
                name = "".join(c if c.isalnum() else "_" for c in picture.caption)
                file = Path(folder) / f"{outcome.scenario.number}_{index}_{name}.png"
                cv2.imwrite(str(file), picture.image_bgr)
                files.append(file)
            heading = f"{outcome.scenario.number} {outcome.scenario.title}: {outcome.verdict}"
            sections.append(Section(heading, table([outcome]), tuple(files)))
        write_page(path, "Scenarios", sections)

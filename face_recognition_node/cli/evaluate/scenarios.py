"""``face-recognition evaluate scenarios [DATA…]``: scenes of a RoboCup@Home run, composed of real faces."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from html import escape
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
from face_recognition_node.common.files import PRIVATE, write_text
from face_recognition_node.common.progress import progress_bar

if TYPE_CHECKING:
    from face_recognition_node.evaluation.scenes.stage import Measured, ScenarioOutcome

EPILOG = """\
DATA is a folder of clips, a zip of LFW, ORL or RAP3DF faces, or a folder that holds them.

exit codes: 0 every scenario that was run passed, 1 one failed, 2 wrong input or failure
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add(
        "data",
        nargs="*",
        type=given_path,
        metavar="DATA",
        help="where faces come from (default: as --data of replay)",
    )
    add("--only", metavar="A1,A5", default="", help="run only these scenarios")
    add("--short", action="store_true", help="few people, few frames: a trial run")
    add_json_flag(parser)
    add("--report", type=file_to_write, metavar="OUT.html", help="write a page with pictures")
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
                print(table(outcomes[-1]), flush=True)
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


def table(outcome: ScenarioOutcome) -> str:
    """Return a block of lines: the scenario, what must hold, what was measured."""
    scenario = outcome.scenario
    head = f"{scenario.number:<4} {outcome.verdict:<8} {scenario.title}; must: {scenario.must}"
    return "\n".join([head, *(f"     {line}" for line in outcome.text.splitlines())])


_KEY = """<p><small>In the pictures: <b>green</b>, above a face, who it is; <b>white</b>, beneath it, what the
robot says, with its probability; <b>red</b>, a picture of somebody. Intervals: 95 %, over people.</small></p>
"""


def _write_report(path: Path, outcomes: list[ScenarioOutcome]) -> None:
    """Write a page: a table of all scenarios, and below it frames of those that were composed."""
    import cv2

    from face_recognition_node.evaluation import page

    rows, frames = [], [_KEY]
    for outcome in outcomes:
        scenario, measured = outcome.scenario, outcome.measured
        verdict = f"<span class={'bad' if outcome.verdict == 'FAIL' else 'good'}>{outcome.verdict}</span>"
        title, must, text = map(escape, (scenario.title, scenario.must, outcome.text))
        rows.append((scenario.number, title, must, verdict, text.replace("\n", "<br>")))
        if measured and measured.pictures:
            frames.append(f"<h2>{scenario.number} {title}</h2>")
        for one in measured.pictures if measured else ():
            encoded = cv2.imencode(".jpg", one.image_bgr)[1].tobytes()
            frames.append(page.picture(encoded, one.caption, "jpeg"))
    head = ("", "scene", "must hold", "", "measured")
    counts = Counter(outcome.verdict for outcome in outcomes)
    summary = ", ".join(f"{counts[one]} {one}" for one in ("pass", "FAIL", "not run") if counts[one])
    parts = [f"<p>{summary}</p>", page.table(rows, head), *frames]
    write_text(path, page.page("Scenarios of a run", parts), PRIVATE)

"""``face-recognition evaluate replay SCENARIO.yaml``: play recordings, judge every claim."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from face_recognition_node.common.files import PRIVATE, user_path, write_text
from face_recognition_node.common.progress import progress_bar

if TYPE_CHECKING:
    from face_recognition_node.evaluation.replay.replay import Bench
    from face_recognition_node.vision.faces import RecognitionResult

DATA_VARIABLE = "FACE_RECOGNITION_DATA"
EPILOG = """\
SCENARIO.yaml is a file, or the name of a packaged scenario: sample, couple, signers, orl …
Except for 'sample', their pictures are not included; see config/scenarios/README.md.

exit codes: 0 everything that the scenario requires was met, 1 something was not, 2 wrong input or failure
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("scenario", metavar="SCENARIO.yaml", help="a scenario file, or the name of a packaged one")
    add(
        "--data",
        type=given_path,
        metavar="DIR",
        help=f"folder that the scenario's sources lie in (default: ${DATA_VARIABLE}, else ../shared/data)",
    )
    add_json_flag(parser)
    add("--report", type=file_to_write, metavar="OUT.html", help="write a page with a timeline of each track")
    add_settings(parser)
    add_progress(parser)


def run(arguments: argparse.Namespace) -> int:
    """Replay the scenario and print what came out."""
    from face_recognition_node.assembly import load_models
    from face_recognition_node.common.parameters import with_values
    from face_recognition_node.evaluation.replay.replay import make_bench, replay
    from face_recognition_node.evaluation.replay.replay_page import render_page
    from face_recognition_node.evaluation.replay.requirements import unmet
    from face_recognition_node.evaluation.replay.scenario import read_scenario

    root = find_data(arguments.data)
    scenario = read_scenario(find_scenario(arguments.scenario), root)
    config = config_from(arguments)
    models = load_models(config)

    def fresh_bench(settings: Mapping[str, Any]) -> Bench:
        return make_bench(models, with_values(config, settings))

    with progress_bar(shown=arguments.progress) as bar:

        def on_frame(place: str, result: RecognitionResult) -> None:
            bar.set_description(place, refresh=False)
            bar.update()

        judged = replay(scenario, root, fresh_bench, on_frame)
    missed = unmet(judged, scenario.require)
    if arguments.report is not None:
        write_text(arguments.report, render_page(judged, missed), PRIVATE)
    text = "\n".join([str(judged), *(f"  NOT MET: {sentence}" for sentence in missed)])
    report(text, {**judged.to_dict(), "unmet": missed}, arguments.json)
    return 1 if missed else 0


def find_data(named: Path | None) -> Path:
    """Return the data root; whether what is needed lies there shows when it is read."""
    given = os.environ.get(DATA_VARIABLE) or Path("..") / "shared" / "data"
    return named or user_path(given, "any", name=DATA_VARIABLE)


def find_scenario(text: str) -> Path:
    """Return the scenario file that ``text`` means: a path, or the name of a packaged one."""
    from face_recognition_node.common.resources import config_directory

    path = user_path(text, "any", name="scenario")
    if path.is_file():
        return path
    folder = config_directory() / "scenarios"
    packaged = folder / f"{text.removesuffix('.yaml')}.yaml"
    if packaged.is_file():
        return packaged
    names = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none"
    raise ConfigurationError(f"{text}: no such scenario file; packaged in {folder}: {names}")

"""``face-recognition rehearse SOURCE… --gallery FILE``: what would go wrong on the day, on one page."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from face_recognition_node.cli.options import (
    SOURCE_HELP,
    add_pipeline,
    add_progress,
    file_to_write,
    gallery_path_from,
    open_pipeline,
    require_frames,
)
from face_recognition_node.common.progress import progress_bar

if TYPE_CHECKING:
    from face_recognition_node.evaluation.rehearsal import Finding, Rehearsal
    from face_recognition_node.vision.faces import ImageArray

EPILOG = """\
Record some minutes of the place with the robot's camera, with people walking up and past, and a poster if
there is one. The gallery is read only.

exit codes: 0 nothing to act on, 1 something is, 2 wrong input or failure, 130 interrupted

examples:
  face-recognition rehearse arena.mp4 --gallery party.db --report rehearsal.html
  face-recognition rehearse bag_of_the_hall/ entrance.mp4 --gallery party.db
"""
_COLUMNS = ("Person", "Views", "Directions", "Views to add: looking", "Frames named")
_MARKS = {"act": ("!", "Act"), "look": ("?", "Look"), "fine": ("✓", "Fine")}
_STYLE = """
ol{list-style:none;padding:0}li{display:grid;grid-template-columns:2.2rem 1fr;gap:.2rem .8rem;padding:.8rem 0;
border-top:1px solid #e3e3e3}li>b{width:1.9rem;height:1.9rem;border-radius:50%;text-align:center;
line-height:1.9rem;color:#fff}li.act>b{background:#b03a00}li.look>b{background:#b37400}li.fine>b{background:#2b7a3d}
li p{margin:.1rem 0}.do{font-weight:600}.row{display:flex;flex-wrap:wrap;gap:.6rem;margin-top:.4rem}
.row figure{margin:0}.row img{height:7rem;border-radius:.4rem;display:block}
.wide{display:grid;grid-template-columns:1fr 1fr;gap:1rem}
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("sources", nargs="+", metavar="SOURCE", help=SOURCE_HELP)
    add_pipeline(parser)
    add(
        "--report", type=file_to_write, metavar="PAGE.html", default=Path("rehearsal.html"),
        help="page to write (default rehearsal.html)",
    )  # fmt: skip
    add("--topic", default="", help="topic of the images in a ROS 2 bag, if it has several")
    add_progress(parser)


def run(arguments: argparse.Namespace) -> int:
    """Watch the sources, print the ten sentences and write the page."""
    from face_recognition_node.common.files import PRIVATE, write_text
    from face_recognition_node.evaluation.rehearsal import Rehearsal, coverage, list_directions
    from face_recognition_node.identity.operating_point import operating_point
    from face_recognition_node.media.sources import open_source

    sources = [open_source(text, topic=arguments.topic) for text in arguments.sources]
    path = gallery_path_from(arguments, must_exist=True)
    rehearsal = Rehearsal()
    with open_pipeline(arguments, path, {"strangers.enabled": False}) as pipeline:
        for source in sources:
            pipeline.recognizer.reset()
            rehearsal.rate_hz = max(rehearsal.rate_hz, source.rate_hz)
            n_frames = 0
            for frame in progress_bar(source, total=source.n_frames, shown=arguments.progress):
                began = time.perf_counter()
                result = pipeline.process(frame)
                rehearsal.add(source.name, frame, result, time.perf_counter() - began)
                n_frames += 1
            require_frames(n_frames, source)
            rehearsal.problems += source.problems
        snapshot, calibration = pipeline.gallery.snapshot(), pipeline.models.calibration
        cost = operating_point(calibration, pipeline.recognizer.config.identity, snapshot)
        findings = rehearsal.findings(calibration, snapshot, cost.strangers_named)
        named = sum((track.claims for track in rehearsal.tracks.values()), Counter[str]())
        rows = [
            (
                one.label,
                str(one.n_templates),
                str(covered),
                list_directions(covered.missing()),
                str(named[one.name]),
            )
            for one in snapshot.persons.values()
            if not one.is_stranger
            for covered in [coverage(snapshot, one)]
        ]
    for finding in findings:
        print(f"{_MARKS[finding.level][1]:>4}  {finding.topic}: {finding.text} {finding.advice}".rstrip())
    write_text(arguments.report, render_page(rehearsal, findings, rows), PRIVATE)
    print(f"page: {arguments.report}")
    return int(any(finding.level == "act" for finding in findings))


def render_page(rehearsal: Rehearsal, findings: Sequence[Finding], people: Sequence[tuple[str, ...]]) -> str:
    """Return the page; it needs nothing from elsewhere."""
    from face_recognition_node.evaluation.page import page, table

    items = "".join(
        f"<li class={one.level}><b title={_MARKS[one.level][1]}>{_MARKS[one.level][0]}</b><div>"
        f"<p><strong>{escape(one.topic)}.</strong> {escape(one.text)}"
        + (f"<p class=do>{escape(one.advice)}" if one.advice else "")
        + (f"<div class=row>{_figures(one.pictures)}</div>" if one.pictures else "")
        + "</div></li>"
        for one in findings
    )
    overviews = _figures([(picture, source) for source, (_, picture) in rehearsal.overviews.items()])
    n_act = sum(one.level == "act" for one in findings)
    amount = {0: "Nothing", 1: "One thing"}.get(n_act, f"{n_act} things")
    parts = [
        f"<p><small>{escape(', '.join(rehearsal.overviews))}</small>",
        f"<p>{amount} to act on before the day.<ol>{items}</ol><h2>People</h2>",
        table([list(map(escape, row)) for row in people], _COLUMNS),
        f"<h2>The fullest picture of each recording</h2><div class=wide>{overviews}</div>",
        "<p><small>This page shows faces: keep it among those concerned, and delete it afterwards.</small>",
    ]
    return page("Rehearsal", parts, _STYLE)


def _figures(pictures: Sequence[tuple[ImageArray, str]]) -> str:
    import cv2

    from face_recognition_node.evaluation.page import picture

    quality = [cv2.IMWRITE_JPEG_QUALITY, 85]
    return "".join(
        picture(cv2.imencode(".jpg", image, quality)[1].tobytes(), caption, "jpeg")
        for image, caption in pictures
    )

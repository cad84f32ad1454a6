"""``face-recognition enroll NAME SOURCE``: store a person from a video, camera, picture or folder."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from face_recognition_node.cli.options import (
    add_json_option,
    add_pipeline,
    add_progress,
    add_source,
    gallery_path_from,
    open_pipeline,
    report,
    require_frames,
    source_from,
)
from face_recognition_node.common.errors import InputError
from face_recognition_node.common.files import user_path
from face_recognition_node.common.progress import progress_bar

if TYPE_CHECKING:
    from face_recognition_node.enrollment.session import EnrollmentGoal, EnrollmentResult, EnrollmentSession
    from face_recognition_node.media.sources import FrameSource
    from face_recognition_node.recognizer import Recognizer

EPILOG = """\
exit codes: 0 stored, 1 nothing was stored (the reason is printed), 2 wrong input or failure, 130 interrupted

examples:
  face-recognition enroll Anna anna.mp4 --gallery party.db
  face-recognition enroll Bob two.gif --gallery party.db --region 0.5 0 1 1   # the face in the right half
  face-recognition enroll Carl carl.jpg --gallery party.db                    # one view; a video is better
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("name", metavar="NAME", help='display name; "" remembers the face without a name')
    add_source(parser)
    add_pipeline(parser)
    add("--views", type=int, default=0, metavar="N", help="views to keep (default 6)")
    add("--person", metavar="ID", help="add the views to this person instead of a new one")
    add(
        "--somebody-else",
        action="store_true",
        help="store a new person even if the face is a known person's (a twin)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--region", type=float, nargs=4, metavar=("X1", "Y1", "X2", "Y2"),
        help="the face in this part of the image, in fractions of its width and height",
    )  # fmt: skip
    which.add_argument(
        "--track", type=int, metavar="N", help="the face with this track id, as `recognize` reports it"
    )
    add_json_option(parser)
    add_progress(parser)


def run(arguments: argparse.Namespace) -> int:
    """Enroll one person; print what was kept and what was not, and why."""
    from face_recognition_node.enrollment.session import EnrollmentSession

    source = source_from(arguments)
    path = gallery_path_from(arguments)
    goal = _goal(arguments, source)
    # Strangers met on the way are nobody's wish here.
    with open_pipeline(arguments, path, {"strangers.enabled": False}) as pipeline:
        calibration, config = pipeline.models.calibration, pipeline.recognizer.config
        session = EnrollmentSession(goal, pipeline.gallery, calibration, config.enrollment)
        try:
            _watch(source, pipeline.recognizer, session, arguments)
        except KeyboardInterrupt:
            session.cancel()
            print(session.result().message, file=sys.stderr)
            return 130
        session.finish()
        result = session.result()
    report(_sentences(result), _figures(result), arguments.json)
    if not result.success and arguments.json is not None:
        print(result.message, file=sys.stderr)
    return 0 if result.success else 1


def _goal(arguments: argparse.Namespace, source: FrameSource) -> EnrollmentGoal:
    from face_recognition_node.enrollment.session import EnrollmentGoal, MostCentral, Region, Track

    selection: MostCentral | Region | Track = MostCentral()
    if arguments.region is not None:
        x1, y1, x2, y2 = arguments.region
        selection = Region((x1, y1, x2, y2))
    elif arguments.track is not None:
        selection = Track(arguments.track)
    if arguments.views < 0:
        raise InputError(f"--views: expected at least 1, got {arguments.views}")
    # A few pictures were chosen by hand; a recording has no hurry.
    minimum = 1 if _is_stills(arguments, source) else 0
    timeout_s = 0.0 if source.is_live else 3600.0
    return EnrollmentGoal(
        arguments.name,
        arguments.person,
        selection,
        arguments.views,
        timeout_s,
        minimum,
        arguments.somebody_else,
    )


def _is_stills(arguments: argparse.Namespace, source: FrameSource) -> bool:
    """Whether the source is a picture or a folder of pictures, and no recording."""
    return source.n_frames == 1 or user_path(arguments.source, "any", name="source").is_dir()


def _watch(
    source: FrameSource, recognizer: Recognizer, session: EnrollmentSession, arguments: argparse.Namespace
) -> None:
    """Show the session one frame after another until it has ended; say on the way what it asks for."""
    last, n_frames = "", 0
    for frame in progress_bar(source, total=source.n_frames, shown=arguments.progress):
        n_frames += 1
        feedback = session.observe(recognizer.process(frame, embed_all=True))
        if source.is_live and feedback.hint and feedback.hint != last:
            print(feedback.hint, file=sys.stderr)
            last = feedback.hint
        if session.finished:
            return
    require_frames(n_frames, source)


def _sentences(result: EnrollmentResult) -> str:
    """Return the result for people."""
    lines = [f"{result.message}."]
    if result.success:
        lines.append(f"person id: {result.person_id}")
    rejected = ", ".join(f"{count} {reason.value}" for reason, count in result.rejections.items())
    lines.append(f"views: {result.views_kept} kept; rejected: {rejected or 'none'}")
    if result.success:
        consistency = "-" if result.self_consistency is None else f"{result.self_consistency:.2f}"
        lines.append(f"poses as seen in the image: {result.coverage}; self-consistency: {consistency}")
        if result.nearest is not None:
            near = result.nearest
            lines.append(f"nearest other person: {near} at similarity {near.similarity:.2f}")
        if result.views_kept < 3:
            single = "a single view" if result.views_kept == 1 else f"only {result.views_kept} views"
            lines.append(f"note: {single}; a short video with a turning head is recognized far better")
    return "\n".join(lines)


def _figures(result: EnrollmentResult) -> dict[str, Any]:
    """Return the result for programs."""

    def resemblance(one: Any) -> dict[str, Any] | None:
        if one is None:
            return None
        return {
            "person_id": one.person_id,
            "name": one.name,
            "similarity": round(one.similarity, 4),
            "probability": round(one.probability, 4),
        }

    coverage = result.coverage
    return {
        "success": result.success,
        "outcome": result.outcome.value,
        "message": result.message,
        "person_id": result.person_id,
        "name": result.name,
        "views_kept": result.views_kept,
        "rejections": {reason.value: count for reason, count in result.rejections.items()},
        "coverage": {d: getattr(coverage, d) for d in ("left", "front", "right", "up", "down")},
        "self_consistency": None if result.self_consistency is None else round(result.self_consistency, 4),
        "nearest": resemblance(result.nearest),
        "looks_like": resemblance(result.known),
        "gallery_version": result.gallery_version,
    }

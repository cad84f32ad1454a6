"""A replay's report as one HTML file that needs nothing else: the figures and a time line for each track."""

from __future__ import annotations

from html import escape

from face_recognition_node.evaluation.page import page, table
from face_recognition_node.evaluation.replay.replay_report import EpisodeReport, ReplayReport
from face_recognition_node.evaluation.replay.track_metrics import FrameClaim, TrueTrack
from face_recognition_node.vision.faces import IdentityState

WIDTH = 640
_COLORS = {
    "right": "#0072b2",
    "wrong": "#d55e00",
    "stranger": "#e69f00",
    "undecided": "#cccccc",
    "missed": "#f4f4f4",
}
_STYLE = """
.key span{display:inline-block;width:.9em;height:.9em;margin:0 .3em 0 1em;vertical-align:-.1em}
svg{display:block}
"""


def render_page(report: ReplayReport, missed: list[str]) -> str:
    """Return the HTML text; ``missed`` are the requirements that were not met, as sentences."""
    figures = [
        ("Identified: enrolled people's tracks", report.identification_rate),
        ("Named: strangers' tracks", report.false_positive_rate),
        ("Median seconds to the right name, where it came", report.seconds_to_name),
        ("Seconds under a wrong name", f"{report.wrong_seconds:.2f}"),
        ("Swaps", report.swaps),
        ("Strangers' frames under one id", report.stranger_share),
        ("The same of their frames with an id", report.id_consistency),
        ("Stranger ids shared by two people", report.shared_ids),
    ]
    key = "".join(f'<span style="background:{color}"></span>{name}' for name, color in _COLORS.items())
    parts = [
        f"<p>{escape(report.description)}</p>",
        *[f"<p class=bad>{escape(sentence)}</p>" for sentence in missed],
        table([(escape(name), escape(str(value))) for name, value in figures]),
        f"<p class=key><small>{key}</small></p>",
        *[_episode(episode) for episode in report.episodes],
        "<p><small>Intervals: 95 %, bootstrap over persons; Clopper-Pearson where all tracks agree.</small>",
    ]
    return page(report.name, parts, _STYLE)


def _episode(episode: EpisodeReport) -> str:
    enrollments = []
    for one in episode.enrollments:
        failed = f"<span class=bad>{escape(one.message)}</span>"
        came = f"{one.views} views in {one.seconds:.1f} s" if one.success else failed
        enrollments.append(f"<li>{escape(one.name)} from {escape(one.source)}: {came}")
    rows = table(map(_row, episode.tracks))
    return f"<h2>{escape(episode.name)}</h2><ul>{''.join(enrollments)}</ul>{rows}"


def _row(track: TrueTrack) -> tuple[str, str, str]:
    what = escape(track.who) if track.who else "<i>no person</i>"
    if track.wrong:
        what += f" <span class=bad>named {escape(', '.join(track.wrong_names))}</span>"
    for small in (", ".join(track.stranger_ids), track.recording):
        what += f"<br><small>{escape(small)}</small>" if small else ""
    return what, f"{100 * track.named_share:.0f} %" if track.is_enrolled else "", _line(track)


def _line(track: TrueTrack) -> str:
    """Return an SVG bar: one rectangle for each run of equal claims, over the time the track spans."""
    if not track.claims:
        return "<small>never found</small>"
    start, end = track.claims[0].stamp, track.claims[-1].stamp + track.claims[-1].duration
    scale = WIDTH / max(end - start, 1e-6)
    bars = [f'<rect width="{WIDTH}" height="16" fill="{_COLORS["missed"]}"/>']
    run: list[FrameClaim] = []
    for claim in track.claims:
        joins = run and _kind(run[-1]) == _kind(claim) and run[-1].person_id == claim.person_id
        if run and not (joins and claim.stamp - run[-1].stamp <= 1.5 * run[-1].duration):
            bars.append(_bar(run, start, scale))
            run = []
        run.append(claim)
    bars.append(_bar(run, start, scale))
    return f'<svg width="{WIDTH}" height="16" viewBox="0 0 {WIDTH} 16">{"".join(bars)}</svg>'


def _bar(run: list[FrameClaim], start: float, scale: float) -> str:
    left = (run[0].stamp - start) * scale
    width = (run[-1].stamp + run[-1].duration - run[0].stamp) * scale
    label = run[0].name or run[0].person_id or run[0].state.value
    title = f"{label}, {run[0].stamp - start:.2f} s, {len(run)} frames"
    return (
        f'<rect x="{left:.1f}" width="{width:.1f}" height="16" fill="{_COLORS[_kind(run[0])]}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _kind(claim: FrameClaim) -> str:
    if claim.is_right:
        return "right"
    if claim.is_wrong:
        return "wrong"
    return "stranger" if claim.state is IdentityState.STRANGER else "undecided"

"""How many pictures need and allow which alpha: locks for several owners, trained and tried.

    ./run exec python tools/triplet_study.py lfw_pairs_112.zip --out runs/study

For docs/systems/triplet_face_id.md; needs the `train` extra. `study.png` and `report.json` go to the folder.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
from command import run_tool

from face_recognition_node.cli.options import given_path
from face_recognition_node.common.files import write_json
from face_recognition_node.common.progress import progress_bar
from face_recognition_node.common.tables import aligned
from face_recognition_node.evaluation import plots
from face_recognition_node.evaluation.picture_archive import LfwArchive
from face_recognition_node.systems.triplet import (
    HEAD,
    LockTrial,
    TripletSettings,
    demonstration,
    network_inputs,
    train_lock,
    try_lock,
)
from face_recognition_node.training.recipe import RunOptions

N_NOT_ME = 10
# heading, what of a trial, how it is written, and the factor on it
COLUMNS = (
    ("of me", "n_me", "{:.0f}", 1),
    ("alpha", "alpha", "{:+.1f}", 1),
    ("steps", "steps", "{:.0f}", 1),
    ("time", "seconds", "{:.1f} s", 1),
    ("owner", "owner_unlocks", "{:.0f} %", 100),
    ("stranger", "stranger_unlocks", "{:.0f} %", 100),
    ("equal error", "equal_error", "{:.1f} %", 100),
)
PANELS = (
    ("steps", "steps until no triplet costs anything", 1),
    ("equal_error", "equal error on new pictures, %", 100),
    ("owner_unlocks", "owner unlocks at half of alpha, %", 100),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("archive", type=given_path, metavar="FACES", help="labelled faces, as LFW's")
    parser.add_argument("--out", type=given_path, default=Path("runs/study"), help="folder for the results")
    parser.add_argument("--owners", type=int, default=6, help="people, those with the most pictures")
    parser.add_argument("--pictures", type=int, nargs="+", default=[2, 4, 7], help="of the owner")
    parser.add_argument("--alphas", type=float, nargs="+", default=[-0.5, 0.0, 0.5, 1.0])
    parser.add_argument("--network", choices=("small", "head"), default=HEAD, help="small takes much longer")
    parser.add_argument("--steps", type=int, default=300)


def run(arguments: argparse.Namespace) -> int:
    """Train and try the locks; print, draw and write the means over the owners."""
    archive = LfwArchive.open(arguments.archive)
    names, counts = np.unique(np.array(archive.people), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    owners = [str(names[n]) for n in order if counts[n] >= max(arguments.pictures) + 3][: arguments.owners]
    trials: list[LockTrial] = []
    total = len(owners) * len(arguments.pictures) * len(arguments.alphas)
    with progress_bar(total=total, unit="lock", title="study", shown=True) as bar:
        for (seed, owner), n_me in itertools.product(enumerate(owners), arguments.pictures):
            settings = TripletSettings(network=arguments.network, steps=arguments.steps)
            faces = demonstration(archive, owner, n_me, N_NOT_ME, seed)
            me, not_me, me_tests, not_me_tests = (network_inputs(settings, part) for part in faces)
            for alpha in arguments.alphas:
                chosen = TripletSettings(network=arguments.network, steps=arguments.steps, alpha=alpha)
                lock = train_lock(chosen, me, not_me, RunOptions(arguments.out))
                trials.append(try_lock(lock, me_tests, not_me_tests))
                bar.update()
    means = [
        mean_trial([t for t in trials if (t.n_me, t.alpha) == key])
        for key in itertools.product(arguments.pictures, arguments.alphas)
    ]
    draw(means, arguments.out / "study.png")
    write_json(arguments.out / "report.json", {"means": means, "trials": [asdict(trial) for trial in trials]})
    rows = [[heading for heading, *_ in COLUMNS]]
    rows += [[text.format(factor * mean[name]) for _, name, text, factor in COLUMNS] for mean in means]
    print(f"mean of {len(owners)} owners\n{aligned(rows, right=range(len(COLUMNS)))}")
    return 0


def mean_trial(trials: list[LockTrial]) -> dict[str, float]:
    """Return the mean of each figure of some trials, by name."""
    rows = [asdict(trial) for trial in trials]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def draw(means: list[dict[str, float]], path: Path) -> None:
    """Draw the figures over alpha, one line a number of pictures."""
    pyplot = plots.load_pyplot()
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(14, 3.8))
    for axis, (name, title, factor) in zip(axes, PANELS, strict=True):
        for n_me in sorted({mean["n_me"] for mean in means}):
            own = [mean for mean in means if mean["n_me"] == n_me]
            values = [factor * mean[name] for mean in own]
            axis.plot([mean["alpha"] for mean in own], values, marker="o", label=f"{n_me:.0f} pictures")
        axis.set(title=title, xlabel="alpha while training")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    plots.save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(run_tool(__doc__, configure, run))

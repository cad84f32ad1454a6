"""Read scenario files.

A scenario is a list of *episodes*; each begins with an empty gallery::

    name: both
    description: two enrolled people side by side
    settings: {identity.target_false_accept_rate: 0.01}     # optional, for every episode
    require: {wrong_seconds: 0, named_share: {W: 0.6}}      # optional, see requirements.py
    episodes:
      - name: both
        enroll:
          - {name: W, source: clips/woman.gif}              # before the play, as a person would do it
        play:
          - source: clips/both.gif
            faces:                                          # the first rule that fits a face's centre wins
              - {who: W, x: [0.0, 0.45]}                    # parts of the image, 0 to 1; t is in seconds
              - {who: M, x: [0.45, 1.0], t: [0.0, 9.0]}
            enroll:
              - {name: M, at: 1.5, x: [0.45, 1.0]}          # while it plays, with the face in that region

Two short forms spare repetition: ``rounds`` (each person's clips take turns to be the one enrolled from) and
``folders`` (a folder of pictures per person; some people are enrolled, the rest of the pictures are tracks).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.evaluation.replay.scenario import (
    EVERYWHERE,
    Enrollment,
    Episode,
    FaceRule,
    Play,
    Range,
    Scenario,
)
from face_recognition_node.evaluation.replay.sequences import list_people


def read_scenario(path: Path, root: Path) -> Scenario:
    """Read a scenario file; ``root`` is the folder that its sources lie in.

    Raises:
        ConfigurationError: If the file is no scenario; it tells the place and what was expected.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: is not YAML: {error}") from error
    return parse_scenario(document, root, str(path))


def parse_scenario(document: object, root: Path, where: str = "scenario") -> Scenario:
    """Turn the parsed YAML into a Scenario, short forms written out."""
    sections = {"episodes", "rounds", "folders"}
    table = _table(document, where, {"name", "description", "settings", "pause", "require", *sections})
    episodes = [_episode(item, f"{where}: episodes[{i}]") for i, item in enumerate(table.get("episodes", []))]
    if "rounds" in table:
        episodes += _rounds(table["rounds"], f"{where}: rounds")
    if "folders" in table:
        episodes += _folders(table["folders"], root, f"{where}: folders")
    if not episodes:
        raise ConfigurationError(f"{where}: expected episodes, rounds or folders, got none of them")
    settings = _table(table.get("settings", {}), f"{where}: settings", None)
    return Scenario(
        str(table.get("name", where)),
        str(table.get("description", "")).strip(),
        tuple(episodes),
        dict(settings),
        _number(table.get("pause", 5.0), f"{where}: pause"),
        dict(_table(table.get("require", {}), f"{where}: require", None)),
    )


def _episode(item: object, where: str) -> Episode:
    table = _table(item, where, {"name", "enroll", "play"})
    return Episode(
        str(table.get("name", where)),
        tuple(_enrollment(entry, f"{where}: enroll[{i}]") for i, entry in enumerate(table.get("enroll", []))),
        tuple(
            _play(entry, f"{where}: play[{i}]")
            for i, entry in enumerate(_list(table.get("play"), f"{where}: play"))
        ),
    )


def _play(item: object, where: str) -> Play:
    table = _table(item, where, {"source", "faces", "enroll", "rate", "skip"})
    rules = _list(table.get("faces"), f"{where}: faces")
    return Play(
        _text(table.get("source"), f"{where}: source"),
        tuple(_rule(entry, f"{where}: faces[{i}]") for i, entry in enumerate(rules)),
        tuple(_enrollment(entry, f"{where}: enroll[{i}]") for i, entry in enumerate(table.get("enroll", []))),
        None if table.get("rate") is None else _number(table["rate"], f"{where}: rate"),
        tuple(int(number) for number in table.get("skip", ())),
    )


def _enrollment(item: object, where: str) -> Enrollment:
    table = _table(item, where, {"name", "source", "at", "x", "y", "pictures"})
    return Enrollment(
        _text(table.get("name"), f"{where}: name"),
        str(table.get("source", "")),
        _number(table.get("at", 0.0), f"{where}: at"),
        _range(table, "x", where),
        _range(table, "y", where),
        tuple(int(number) for number in table.get("pictures", ())),
    )


def _rule(item: object, where: str) -> FaceRule:
    table = _table(item, where, {"who", "x", "y", "t"})
    t = _range(table, "t", where) if "t" in table else (0.0, float("inf"))
    return FaceRule(str(table.get("who") or ""), _range(table, "x", where), _range(table, "y", where), t)


def _rounds(item: object, where: str) -> list[Episode]:
    """Write out ``rounds``: episode n enrolls everybody from his n-th clip and plays all the other clips."""
    table = _table(item, where, {"people", "faces"})
    people = _table(table.get("people"), f"{where}: people", None)
    region = _table(table.get("faces", {}), f"{where}: faces", {"x", "y"})
    x, y = _range(region, "x", where), _range(region, "y", where)
    episodes = []
    for turn in range(max(len(clips) for clips in people.values())):
        chosen = {who: clips[turn % len(clips)] for who, clips in people.items()}
        enroll = tuple(Enrollment(who, clip) for who, clip in chosen.items())
        play = tuple(
            Play(clip, (FaceRule(who, x, y),))
            for who, clips in people.items()
            for clip in clips
            if clip != chosen[who]
        )
        episodes.append(Episode(f"round {turn + 1}", enroll, play))
    return episodes


def _folders(item: object, root: Path, where: str) -> list[Episode]:
    """Write out ``folders``: split the people into enrolled and strangers, first in order, then at random."""
    table = _table(
        item, where, {"source", "rate", "enrolled", "strangers", "pictures", "splits", "seed", "minimum"}
    )
    source = _text(table.get("source"), f"{where}: source")
    views = tuple(int(number) for number in _list(table.get("pictures"), f"{where}: pictures"))
    minimum = int(table.get("minimum", len(views) + 1))
    people = [name for name, count in list_people(root, source).items() if count >= minimum]
    enrolled, strangers = int(table.get("enrolled", 0)), int(table.get("strangers", 0))
    if len(people) < enrolled + strangers:
        raise ConfigurationError(
            f"{where}: expected {enrolled} + {strangers} people, got {len(people)} in {source}"
        )
    generator = np.random.default_rng(int(table.get("seed", 0)))
    rate = _number(table.get("rate", 5.0), f"{where}: rate")
    episodes = []
    for split in range(int(table.get("splits", 1))):
        order: Sequence[str] = (
            people if split == 0 else [people[i] for i in generator.permutation(len(people))]
        )
        known, unknown = order[:enrolled], order[enrolled : enrolled + strangers]
        play = [Play(f"{source}!{who}", (FaceRule(who),), rate=rate, skip=views) for who in known]
        play += [Play(f"{source}!{who}", (FaceRule(who),), rate=rate) for who in unknown]
        enroll = tuple(Enrollment(who, f"{source}!{who}", pictures=views) for who in known)
        episodes.append(Episode(f"split {split + 1}", enroll, tuple(play)))
    return episodes


def _table(value: object, where: str, keys: set[str] | None) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{where}: expected a table, got {value!r}")
    unknown = set(value) - keys if keys is not None else set()
    if unknown:
        raise ConfigurationError(
            f"{where}: unknown {sorted(map(str, unknown))}; known are {sorted(keys or ())}"
        )
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ConfigurationError(f"{where}: expected a list with entries, got {value!r}")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{where}: expected text, got {value!r}")
    return value


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise ConfigurationError(f"{where}: expected a number from 0, got {value!r}")
    return float(value)


def _range(table: Mapping[str, Any], key: str, where: str) -> Range:
    value = table.get(key, EVERYWHERE)
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not value[0] < value[1]:
        raise ConfigurationError(f"{where}: {key}: expected [from, to] with from < to, got {value!r}")
    return float(value[0]), float(value[1])

"""Scenarios that ask the running node, over DDS: A6's search by the action, and A9 to A14."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from face_recognition_node.cli.benchmark import ros as benchmark
from face_recognition_node.cli.benchmark.ros import NODE
from face_recognition_node.cli.evaluate.robot import PATIENCE_S, film, named, robot, ros_settings, settings
from face_recognition_node.cli.processes import ChildError, enter_own_network
from face_recognition_node.common.errors import FaceRecognitionError, InputError
from face_recognition_node.evaluation.scenes.cast import Person
from face_recognition_node.evaluation.scenes.scene import Scene, stand
from face_recognition_node.evaluation.scenes.stage import Measured, Stage

# environment variable: the file in which A11's node notes whom it asks outside of this machine
_ASKED = "FACE_RECOGNITION_ASKED_NETWORK"


def _people(stage: Stage, n: int) -> list[Person]:
    kinds = ("clips", "heads", "photographs")
    people = next((found for kind in kinds if len(found := stage.cast.people(kind, n)) > 1), [])
    if len(people) < 2:
        raise InputError("needs two people of heads, clips or photographs among the data")
    return people


def _side_by_side(people: Sequence[Person]) -> Scene:
    places = np.linspace(0.5 / len(people), 1 - 0.5 / len(people), len(people)).tolist()
    actors = [stand(p.name, p.meet, x, 1.5, (0.0, 9.0)) for p, x in zip(people, places, strict=True)]
    return Scene("side by side", tuple(actors), 3.0)


def play_names(stage: Stage, folder: Path) -> Measured:
    """A9: the first guest was misheard as Jane; the second is a Jayne, too."""
    first, second = _people(stage, 2)[:2]
    calls, seen = [], []
    with robot(folder / "gallery.db", stage.config) as (node, _):
        a, b = node.enroll(first, "Jane"), node.enroll(second, "Jayne")
        scene = _side_by_side([first, second])
        with node.watching(scene):
            both = node.wait_for(lambda who: who == {a: "Jane", b: "Jayne"})
            for k in range(stage.some(20, 4)):
                name = ("Jayne", "Jane")[k % 2]
                began = time.monotonic()
                node.call("RenamePerson", person_id=a, name=name)
                calls.append(1000 * (time.monotonic() - began))
                if node.wait_for(lambda who, name=name: who.get(a) == name, 5.0):  # type: ignore[misc]
                    seen.append(1000 * (time.monotonic() - began))
            node.call("RenamePerson", person_id=a, name="Jayne")
            namesakes = node.wait_for(lambda who: who == {a: "Jayne", b: "Jayne"}, 10.0)
        stays = node.names() == {a: "Jayne", b: "Jayne"}
    p95 = float(np.percentile(calls, 95))
    text = (
        f"{len(calls)} renames: p95 {p95:.0f} ms, longest {max(calls):.0f} ms; {len(seen)} seen in the "
        f"faces, after {np.median(seen or [np.nan]):.0f} ms (median, the camera has 10 Hz); ids "
        f"{'unchanged' if stays else 'CHANGED'}; both {'' if both and namesakes else 'NOT '}live as Jayne"
    )
    passed = p95 <= 100 and len(seen) == len(calls) and stays and both and namesakes
    return Measured(text, passed, {"rename_ms": calls, "seen_ms": seen})


def play_kills(stage: Stage, folder: Path) -> Measured:
    """A10: the node is killed while it renames people, and must come up with what it had acknowledged."""
    from face_recognition_interfaces.srv import RenamePerson

    # A killed process leaves its shared memory behind, 35 MB each.
    os.environ.pop("FASTDDS_DEFAULT_PROFILES_FILE", None)
    os.environ["FASTDDS_BUILTIN_TRANSPORTS"] = "UDPv4"
    people = _people(stage, 3)
    generator = random.Random(10)
    acknowledged: dict[str, str] = {}
    starts, broken, n_changes, interrupted = [], [], 0, 0
    sent: tuple[str, str] | None = None
    kills = stage.some(200, 2)
    for kill in range(kills + 1):
        with robot(folder / "gallery.db", stage.config) as (node, children):
            starts.append(node.start_s)
            found = node.names()
            if kill == 0:
                acknowledged = {node.enroll(p, f"guest {k}"): f"guest {k}" for k, p in enumerate(people)}
            elif found != acknowledged and found != {**acknowledged, **dict([sent] if sent else [])}:
                broken.append(f"kill {kill}: expected {acknowledged} or {sent}, found {found}")
            else:
                interrupted += sent is not None and found != acknowledged
                acknowledged = found
            if kill == kills:
                break
            timer = threading.Timer(generator.uniform(0.05, 0.5), children.kill)
            timer.start()
            with contextlib.suppress(ChildError):  # it is dead
                for number in itertools.count():
                    person_id = list(acknowledged)[number % len(acknowledged)]
                    sent = (person_id, f"{generator.getrandbits(40):010x}")
                    request = RenamePerson.Request(person_id=sent[0], name=sent[1])
                    if node.remote.call(RenamePerson, f"{NODE}/rename_person", request, 30.0).success:
                        acknowledged[person_id] = sent[1]
                        n_changes, sent = n_changes + 1, None
            timer.join()
    text = (
        f"{kills} kills in {n_changes} acknowledged changes: {len(broken)} promises broken, {interrupted} "
        f"changes durable without an answer; serving after {np.median(starts):.1f} s, longest "
        f"{max(starts):.1f} s"
    )
    figures = {"kills": kills, "changes": n_changes, "broken": broken, "start_s": starts}
    passed = n_changes > 0 and not broken and max(starts[1:]) <= 10.0
    return Measured("\n".join([text, *broken[:5]]), passed, figures)


def note_network(event: str, arguments: Any) -> None:
    """Note what asks for an address outside of this machine: an audit hook of A11's node."""
    if event not in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        return
    address = arguments[1] if event != "socket.getaddrinfo" else arguments
    host = str(address[0]) if isinstance(address, tuple) else ""
    if host and not host.startswith("127.") and host not in ("::1", "localhost", "0.0.0.0"):
        with open(os.environ[_ASKED], "a", encoding="utf-8") as file:
            file.write(f"{event} {host}\n")


def watched_node() -> int:
    """Run the recognition node and note what it asks of the network."""
    from face_recognition_node.ros.main import main

    sys.addaudithook(note_network)
    return main()


def is_cut_off() -> bool:
    """Tell whether no packet finds a way out of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: asks for the route only
        except OSError:
            return True
    return False


def play_cold_boot(stage: Stage, folder: Path) -> Measured:
    """A11: empty home folder, no network; who is enrolled is recognized."""
    if not is_cut_off():
        return _cut_off(stage, folder)
    os.environ[_ASKED] = str(folder / "asked")
    first, second = _people(stage, 2)[:2]
    with robot(folder / "gallery.db", stage.config, f"{__name__}:watched_node") as (node, _):
        a = node.enroll(first, "Jane")
        with node.watching(_side_by_side([first, second])):
            is_named = node.wait_for(lambda who: who == {a: "Jane"})
    asked = Path(os.environ[_ASKED])
    attempts = asked.read_text(encoding="utf-8").splitlines() if asked.is_file() else []
    text = (
        f"serving after {node.start_s:.1f} s; the enrolled one {'' if is_named else 'NOT '}named; "
        f"{len(attempts)} attempts to reach another machine from Python{': ' if attempts else ''}"
        f"{', '.join(sorted(set(attempts))[:3])}"
    )
    return Measured(text, is_named and not attempts, {"start_s": node.start_s, "attempts": attempts})


def _cut_off(stage: Stage, folder: Path) -> Measured:
    """Play A11 in a network of its own that leads nowhere, with an empty home folder (Linux)."""
    command = [sys.executable, "-m", "face_recognition_node.cli", "evaluate", "scenarios"]
    command += [*map(str, stage.cast.sources.values()), "--only", "A11", "--json", "--no-progress"]
    command += ["--short"] * stage.is_short
    for name, value in settings(stage.config).items():
        command += ["--set", f"{name}={value}"]
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        raise InputError("needs a machine without a network, or unshare and ip to make one")
    home = folder / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    inside = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
    done = subprocess.run(
        inside, env={**environment, "HOME": str(home)}, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise InputError(f"needs a machine without a network; one could not be made: {last[0]}")
    (row,) = json.loads(done.stdout)
    if row["measured"] is None:
        raise InputError(row["reason"])
    return Measured(row["measured"], row["verdict"] == "pass", row["figures"])


def play_load(stage: Stage, folder: Path) -> Measured:
    """A12."""
    seconds = float(stage.some(20, 3))
    wanted = argparse.Namespace(
        size="1280x720", faces=5, rate=30.0, seconds=seconds, settle=3.0, set=ros_settings(stage.config)
    )
    benchmark.prepare_images(folder / "images", (1280, 720), 5)
    figures = benchmark.measure(wanted, folder)
    runs_on = " and ".join(sorted(set(figures.backends.values())))
    text = (
        f"p95 {figures.latency_p95_ms:.0f} ms, longest {figures.latency_max_ms:.0f} ms, "
        f"{figures.answered_hz:.1f} Hz with {figures.faces_seen:.1f} faces; {figures.cores} cores, load "
        f"{figures.load:.1f}; diagnostics say {figures.told_hz or 'no'} Hz and {runs_on or 'no backend'}"
    )
    is_told = bool(figures.told_hz and runs_on)
    passed = figures.latency_p95_ms <= 100 and figures.answered_hz >= 5 and is_told
    return Measured(text, passed, {"p95_ms": figures.latency_p95_ms, "longest_ms": figures.latency_max_ms,
                                   "answered_hz": figures.answered_hz})  # fmt: skip


def play_forgetting(stage: Stage, folder: Path) -> Measured:
    """A13: after the first run its session is forgotten for good; the same people come again."""
    from face_recognition_node.gallery.gallery import Gallery

    people = _people(stage, stage.some(4, 2))
    path = folder / "gallery.db"
    with robot(path, stage.config) as (node, _):
        node.call("SetSession", name="morning-run", kind=1)
        ids = {node.enroll(p, f"Quirin-{k}-of-the-morning"): p for k, p in enumerate(people)}
        scene = _side_by_side(people)
        with node.watching(scene):
            met = node.wait_for(lambda who: len(who.keys() & ids) >= 2)
        secrets = [text.encode() for person_id, name in node.names().items() for text in (person_id, name)]
        with Gallery.open(path, None, read_only=True) as gallery:
            embeddings = gallery.snapshot().embeddings().astype("<f4")
        secrets += [b"morning-run", *(row.tobytes() for row in embeddings)]
        before = _found(path.parent, secrets)
        node.call("SetSession", name="noon-run", kind=1)
        node.call("ForgetPersons", session="morning-run", final=True)
        after = _found(path.parent, secrets)
        seen = len(node.answers)
        images = film(scene)
        for _ in range(stage.some(4, 1)):
            node.show(images)
        known = {person_id for answer in node.answers[seen:] for person_id in named(answer)}
    stopped = _found(path.parent, secrets)
    text = (
        f"{len(known)} of {len(ids)} recognized afterwards ({'' if met else 'NOT '}recognized before); of "
        f"{len(secrets)} names, ids and embeddings {before} were in the files before, {after} after the "
        f"answer, {stopped} after the end"
    )
    passed = met and not known and before == len(secrets) and after == stopped == 0
    return Measured(text, passed, {"known": len(known), "before": before, "after": after, "stopped": stopped})


def _found(folder: Path, secrets: Sequence[bytes]) -> int:
    """Return how many byte strings lie in the files of a folder."""
    content = b"\0".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return sum(secret in content for secret in secrets)


def play_edits(stage: Stage, folder: Path) -> Measured:
    """A14: names change 20 times a second while faces are answered; each name tells which edit it is of."""
    from face_recognition_node.ros.messages import stamp_to_seconds

    people = _people(stage, 4)
    seconds = stage.some(20, 3)
    with robot(folder / "gallery.db", stage.config) as (node, _):
        ids = [node.enroll(person, f"{k} 0") for k, person in enumerate(people)]
        edits: dict[str, list[tuple[float, float, int]]] = {i: [(0.0, 0.0, 0)] for i in ids}
        errors = []
        with node.watching(_side_by_side(people)):
            node.wait_for(lambda who: len(who) >= 2)
            first = len(node.answers)
            began = time.monotonic()
            for number in range(1, 20 * seconds + 1):
                time.sleep(max(0.0, began + number / 20 - time.monotonic()))
                k = number % len(ids)
                asked = time.time()
                try:
                    node.call("RenamePerson", person_id=ids[k], name=f"{k} {number}")
                except FaceRecognitionError as error:
                    errors.append(str(error))
                edits[ids[k]].append((asked, time.time(), number))
            rate = 20 * seconds / (time.monotonic() - began)
            time.sleep(0.5)
        torn, late, n_named, version = 0, 0, 0, 0
        for answer in node.answers[first:]:
            stamp = stamp_to_seconds(answer.header.stamp)
            torn += answer.gallery_version < version
            version = answer.gallery_version
            for person_id, name in named(answer).items():
                k, number = map(int, name.split())
                n_named += 1
                torn += ids[k] != person_id or all(edit != number for *_, edit in edits[person_id])
                late += number < max(edit for _, done, edit in edits[person_id] if done < stamp)
        last = {person_id: f"{k} {edits[person_id][-1][2]}" for k, person_id in enumerate(ids)}
        kept = node.names() == last
    text = (
        f"{20 * seconds} edits at {rate:.1f} a second: {len(errors)} errors; of {n_named} named faces {torn} "
        f"torn, {late} with a name older than the last change before the image; the list at the end is "
        f"{'right' if kept else 'WRONG'}"
    )
    passed = not errors and torn == late == 0 and kept and rate > 19 and n_named > 0
    figures = {"edits": 20 * seconds, "rate": rate, "errors": errors, "torn": torn, "late": late}
    return Measured("\n".join([text, *errors[:3]]), passed, figures)


def play_find(stage: Stage, folder: Path) -> Measured:
    """A6 by the action: the camera turns to the room; found how long after the face shows 40 px or more?"""
    from face_recognition_interfaces.action import FindPerson
    from face_recognition_node.evaluation.scenes.scenarios import search_scenes
    from face_recognition_node.ros.messages import stamp_to_seconds, to_duration

    people = stage.cast.people("heads", 8)
    waits: list[float | None] = []
    overruns: list[float] = []
    wrong = 0
    with robot(folder / "gallery.db", stage.config) as (node, _):
        ids = {person.name: node.enroll(person, person.name) for person in people[:4]}
        absent = node.enroll(stage.cast.people("heads", 9)[8], "somebody absent")
        client = node.remote.action_client(FindPerson, f"{NODE}/find_person")
        node.remote.wait_until(client.server_is_ready, PATIENCE_S, "the action find_person")

        turning = film(Scene("camera turns", (), 1.0))

        def search(person_id: str, timeout_s: float, images: list[Any]) -> tuple[Any, float, float, float]:
            """Return the result, when search and first image began, and when the search ended."""
            goal = FindPerson.Goal(person_id=person_id, timeout=to_duration(timeout_s))
            ended: list[float] = []
            sent: list[float] = []
            began = time.time()
            accepted = node.remote.wait_for_future(client.send_goal_async(goal), PATIENCE_S, "an answer")
            future = accepted.get_result_async()
            future.add_done_callback(lambda _: ended.append(time.time()))
            node.show(images, sent.append)
            result = node.remote.wait_for_future(future, PATIENCE_S, "the end of the search").result
            return result, began, sent[0], ended[0]

        for scene in search_scenes(people, stage.some(12, 2)):
            faces = [face for face in scene.truth(1.0) if face.height_px >= 40 and face.visible > 0.75]
            truth = {face.who: face for face in faces}
            images = film(scene)
            for who in sorted(truth.keys() & ids):
                node.show(turning)
                result, _, sent, ended = search(ids[who], 4.0, images)
                waits.append(ended - sent if result.success else None)
                if result.success:  # an image from before the camera turned shows where people were
                    is_now = stamp_to_seconds(result.header.stamp) > sent - 0.001
                    wrong += not (is_now and _is_at(result.face, truth[who].box_xyxy))
            if len(overruns) < 4:
                result, began, _, ended = search(absent, 2.0, images)
                wrong += bool(result.success)
                overruns.append(ended - began - 2.0)
    found = [wait for wait in waits if wait is not None]
    in_time = sum(wait <= 0.5 for wait in found)
    text = (
        f"FindPerson over DDS: {in_time} of {len(waits)} faces of 40 px and more found within 0.5 s, "
        f"{len(found)} within 2 s (median {np.median(found or [np.nan]):.2f} s); {wrong} wrong; not found "
        f"said {max(overruns):.2f} s after the 2 s at most"
    )
    passed = bool(waits) and in_time >= 0.95 * len(waits) and wrong == 0 and max(overruns) <= 0.3
    return Measured(text, passed, {"find_s": waits, "find_wrong": wrong, "not_found_late_s": overruns})


def _is_at(face: Any, box_xyxy: Sequence[float]) -> bool:
    """Tell whether the middle of a found face lies in a box."""
    x, y = (face.box_xyxy[0] + face.box_xyxy[2]) / 2, (face.box_xyxy[1] + face.box_xyxy[3]) / 2
    return bool(box_xyxy[0] <= x <= box_xyxy[2] and box_xyxy[1] <= y <= box_xyxy[3])


LIVE: dict[str, Callable[[Stage, Path], Measured]] = {
    "A6": play_find, "A9": play_names, "A10": play_kills, "A11": play_cold_boot, "A12": play_load,
    "A13": play_forgetting, "A14": play_edits,
}  # fmt: skip


def play_live(number: str, stage: Stage) -> tuple[Measured | None, str]:
    """Play the part of a scenario that asks the node; None and why, where it cannot be."""
    before = dict(os.environ)
    try:
        enter_own_network()
        with tempfile.TemporaryDirectory(prefix="face_recognition_scenarios_") as folder:
            return LIVE[number](stage, Path(folder)), ""
    except FaceRecognitionError as error:
        return None, str(error)
    finally:
        os.environ.clear()
        os.environ.update(before)

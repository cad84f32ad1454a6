"""The operator's page as a node beside the real recognition node, over DDS; asked as a browser asks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ros_world import PATIENCE, SOURCE, node_processes

from face_recognition_node.cli.processes import Children, isolated_environment

aiohttp = pytest.importorskip("aiohttp", reason="needs aiohttp (requirements/web.txt)")

pytestmark = pytest.mark.ros


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Children]]:
    from lifecycle_msgs.msg import State

    gallery = tmp_path_factory.mktemp("web_node") / "gallery.db"
    port = free_port()
    source = ["source:=sample", "at_end:=loop", "rate:=6.0"]
    with node_processes(gallery, "gallery.keep_crops:=true", source=source) as (children, remote):
        children.start(
            "page", "face_recognition_node.ros.main:web", ["--log-level", "warn", "-p", f"port:={port}"]
        )
        for node in ("/face_recognition", SOURCE):
            remote.bring_to(node, State.PRIMARY_STATE_ACTIVE, PATIENCE)
        yield f"http://127.0.0.1:{port}", children
        assert children.end("page") == {"page": 0}


@pytest.fixture
def page(world: tuple[str, Children]) -> str:
    return world[0]


class Visitor:
    """What the page's script does, without a browser."""

    def __init__(self, session: aiohttp.ClientSession, address: str, stream: Any) -> None:
        self.session, self.address, self.stream = session, address, stream
        self.status: dict[str, Any] = {}
        self.picture: dict[str, Any] = {"faces": []}

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Follow the stream until the condition is true, and return its value."""
        while not (value := condition()):
            message = await self.stream.receive(PATIENCE)
            if message.type is aiohttp.WSMsgType.TEXT:
                self.status = json.loads(message.data)["status"]
            else:
                (length,) = struct.unpack_from("<I", message.data)
                self.picture = json.loads(message.data[4 : 4 + length])
                assert message.data[4 + length :][:2] == b"\xff\xd8"  # a JPEG
                await self.stream.send_str("shown")
        return value

    async def post(self, action: str, /, **body: Any) -> Any:
        async with self.session.post(
            f"{self.address}/api/{action}", json=body, headers={"Origin": self.address}
        ) as answer:
            return await answer.json()

    def ended(self, before: int) -> dict[str, Any] | None:
        """Return the enrollment that came after number ``before``, once it has ended."""
        state = self.status.get("enrollment") or {"number": 0}
        return state if state["number"] > before and not state["is_running"] else None

    async def enroll(self, name: str, before: int) -> None:
        """Begin to enroll the first face in view."""
        face = await self.until(lambda: next(iter(self.picture["faces"]), None))
        answer = await self.post("enroll", track_id=face["track_id"], name=name, person_id="")
        assert name in answer["message"], answer
        await self.until(lambda: (self.status.get("enrollment") or {"number": 0})["number"] > before)

    async def people(self) -> dict[str, str]:
        """Return the ids of the people by name."""
        overview = await self.post("overview")
        return {one["name"]: one["person_id"] for one in overview["people"] if not one["is_stranger"]}

    async def until_people(self, names: set[str]) -> None:
        while set(await self.people()) != names:
            await asyncio.sleep(0.1)


@pytest.fixture
def visit(page: str) -> Callable[[Callable[[Visitor], Awaitable[None]]], None]:
    async def work(story: Callable[[Visitor], Awaitable[None]]) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    stream = await session.ws_connect(f"{page}/live", origin=page)
                    break
                except aiohttp.ClientConnectionError:  # the process is not there yet
                    await asyncio.sleep(0.1)
            async with stream:
                await story(Visitor(session, page, stream))

    return lambda story: asyncio.run(asyncio.wait_for(work(story), 2 * PATIENCE))


def test_a_face_is_enrolled_renamed_forgotten_and_brought_back(visit: Any, tmp_path: Path) -> None:
    async def story(visitor: Visitor) -> None:
        await visitor.until(lambda: visitor.picture["faces"] and visitor.status.get("rate_hz"))
        assert visitor.picture["size"] == [640, 480]
        assert not [one for one in visitor.status["problems"] if one["is_error"]]
        assert visitor.status["backend"]
        assert visitor.status["latency_ms"] > 0

        for n_before in range(2):  # at once, maybe before the node has accepted
            await visitor.enroll("Anna", n_before)
            await visitor.post("cancel_enrollment")
            assert (await visitor.until(lambda n=n_before: visitor.ended(n)))["outcome"] == "canceled"

        for n_before in range(2, 7):  # the camera moves on: a face may leave before enough is seen of it
            await visitor.enroll("Anna", n_before)
            state = await visitor.until(lambda n=n_before: visitor.ended(n))
            if state["outcome"] == "stored":
                break
        assert state["outcome"] == "stored", state
        assert state["views_kept"] >= 2
        assert "front" in state["coverage"]

        await visitor.until_people({"Anna"})
        await visitor.until(lambda: "Anna" in [one["name"] for one in visitor.picture["faces"]])
        anna = (await visitor.people())["Anna"]
        views = await visitor.post("views", person_id=anna)
        (card,) = [one for one in (await visitor.post("overview"))["people"] if one["person_id"] == anna]
        assert card["picture"] in [view["template_id"] for view in views]
        async with visitor.session.get(f"{visitor.address}/crop/{card['picture']}") as answer:
            picture = cv2.imdecode(np.frombuffer(await answer.read(), np.uint8), cv2.IMREAD_COLOR)
            assert picture.shape == (112, 112, 3)
        async with visitor.session.get(f"{visitor.address}/crop/999999") as answer:
            assert answer.status == 404
        await visitor.post("rename", person_id=anna, name="Bob")
        await visitor.until_people({"Bob"})
        await visitor.post("forget", person_ids=[anna])
        await visitor.until_people(set())
        forgotten = (await visitor.post("overview"))["history"][-1]
        assert forgotten["deadline"] > forgotten["made"] > 1e9  # the undo window
        assert "forget" in (await visitor.post("undo"))["message"].lower()
        await visitor.until_people({"Bob"})
        steps = (await visitor.post("overview"))["history"]  # those of the gallery, not of this page
        assert [(one["sentence"], one["is_done"]) for one in steps[-2:]] == [
            ("rename Anna to Bob", True), ("forget Bob", False),
        ]  # fmt: skip

        assert "no problem" in (await visitor.post("verify"))["summary"]
        path = tmp_path / "people.db"
        assert str(path) in (await visitor.post("export_people", path=str(path)))["message"]
        await visitor.post("start_session", name="party", kind="event", time_to_live_s=60)
        await visitor.post("forget", person_ids=[anna], is_final=True)
        await visitor.until_people(set())
        overview = await visitor.post("overview")
        assert overview["session"] == "party"
        party = {"name": "party", "kind": "event", "time_to_live_s": 60.0}
        assert party in overview["sessions"]
        assert not [step for step in overview["history"] if "Bob" in step["sentence"]]
        await visitor.post("import_people", path=str(path))
        await visitor.until_people({"Bob"})

    visit(story)


def test_the_operating_point_is_that_of_the_node(visit: Any) -> None:
    async def story(visitor: Visitor) -> None:
        await visitor.until(lambda: visitor.status.get("version"))
        before = (await visitor.post("overview"))["operating_point"]
        assert before["target"] == pytest.approx(0.01)
        assert "0.100%" in (await visitor.post("set_target", rate=0.001))["message"]
        after = (await visitor.post("overview"))["operating_point"]
        assert after["target"] == pytest.approx(0.001)
        assert after["people_named"] <= before["people_named"]
        assert "target_false_accept_rate" in (await visitor.post("set_target", rate=7))["error"]

    visit(story)


def test_what_the_node_refuses_is_said(visit: Any) -> None:
    async def story(visitor: Visitor) -> None:
        await visitor.until(lambda: visitor.status.get("version"))
        assert "person" in (await visitor.post("rename", person_id="p-nobody", name="X"))["error"]

    visit(story)


def test_a_node_that_goes_away_ends_the_enrollment_and_is_missed(
    visit: Any, world: tuple[str, Children]
) -> None:
    async def story(visitor: Visitor) -> None:
        await visitor.until(lambda: visitor.status.get("enrollment"))
        before = visitor.status["enrollment"]["number"]
        await visitor.enroll("Carl", before)
        world[1]._running["node"].kill()  # no farewell, as at a power cut
        assert (await visitor.until(lambda: visitor.ended(before)))["outcome"] == "lost"
        problem = await visitor.until(
            lambda: next((one for one in visitor.status["problems"] if one["is_error"]), None)
        )
        assert "No messages from /face_recognition" in problem["what"]
        assert "ROS_DOMAIN_ID" in problem["cure"]
        assert "is it running" in (await visitor.post("undo"))["error"]

    visit(story)


def test_interrupts_of_the_whole_group_end_the_page_in_order() -> None:
    """Ctrl-C in a terminal goes to the launch and the node, and the launch passes it on."""
    code = "import sys; from face_recognition_node.ros.main import web; sys.exit(web())"
    command = [sys.executable, "-c", code, "--ros-args", "-p", "port:=0"]
    environment = {**os.environ, **isolated_environment(os.environ)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        assert "The page is at" in process.stdout.readline()
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.005)
        assert (process.returncode, "Traceback" in process.communicate()[1]) == (0, False)

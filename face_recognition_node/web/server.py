"""The page's server: files, one stream of pictures, and each function of the operator as one POST."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from face_recognition_node.common.errors import FaceRecognitionError, InputError
from face_recognition_node.web.access import Gate
from face_recognition_node.web.feed import Feed
from face_recognition_node.web.operator import Operator

LOGGER = logging.getLogger(__name__)

ASSETS = Path(__file__).with_name("assets")
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
STATUS_GAP_S = 0.2
PICTURES_IN_FLIGHT = 2
"""Pictures sent to a browser that it has not shown yet; a slow one gets fewer pictures, not older ones."""

Body = Mapping[str, Any]
ACTIONS: dict[str, Callable[[Operator, Body], Any]] = {
    "overview": lambda o, b: asdict(o.overview()),
    "views": lambda o, b: {"views": [asdict(view) for view in o.views(_text(b, "person_id"))]},
    "enroll": lambda o, b: o.enroll(
        int(_number(b, "track_id")), _text(b, "name"), _text(b, "person_id"), bool(b.get("is_somebody_else"))
    ),
    "cancel_enrollment": lambda o, b: o.cancel_enrollment(),
    "rename": lambda o, b: o.rename(_text(b, "person_id"), _text(b, "name")),
    "merge": lambda o, b: o.merge(_text(b, "keep_id"), _list(b, "other_ids", str)),
    "split": lambda o, b: o.split(_list(b, "template_ids", int), _text(b, "name")),
    "forget": lambda o, b: o.forget(_list(b, "person_ids", str), b.get("is_final") is True),
    "undo": lambda o, b: o.undo(),
    "redo": lambda o, b: o.redo(),
    "start_session": lambda o, b: o.start_session(
        _text(b, "name"), _text(b, "kind"), _number(b, "time_to_live_s") or None
    ),
    "export": lambda o, b: o.export_people(_text(b, "path"), b.get("overwrite") is True),
    "import": lambda o, b: o.import_people(_text(b, "path")),
    "verify": lambda o, b: asdict(o.verify()),
    "set_target": lambda o, b: o.set_target(_number(b, "rate")),
}
"""Function → what it does with the operator and the request's JSON; a sentence, or values for the page."""


def _text(body: Body, key: str) -> str:
    value = body.get(key, "")
    if not isinstance(value, str) or len(value) > 4096:
        raise InputError(f"{key}: expected a text, got {value!r:.60}")
    return value.strip()


def _number(body: Body, key: str) -> float:
    value = body.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{key}: expected a number, got {value!r:.60}")
    return float(value)


def _list(body: Body, key: str, kind: type) -> list[Any]:
    value = body.get(key)
    if not isinstance(value, list) or not value or not all(type(item) is kind for item in value):
        raise InputError(f"{key}: expected a list of {kind.__name__} that is not empty, got {value!r:.60}")
    return value


class Page:
    """The page of one operator.

    Args:
        operator: Robot or camera behind the page.
        host: Address to listen on; any but a loopback address needs a token, made here.
        port: 0 takes a free one.
    """

    def __init__(self, operator: Operator, host: str = "127.0.0.1", port: int = 8642) -> None:
        self._operator, self._host, self._port = operator, host, port
        self.gate = Gate(host)
        self._feed = Feed(operator)
        self._workers = ThreadPoolExecutor(4, thread_name_prefix="page")
        self._status, self._status_changed = "", asyncio.Condition()
        self._sockets: set[web.WebSocketResponse] = set()

    @property
    def address(self) -> str:
        """What to type into the browser, with the token if one is needed."""
        name = socket.gethostname() if self._host in ("0.0.0.0", "::", "") else self._host
        host = f"[{name}]" if ":" in name else name
        query = f"?token={self.gate.token}" if self.gate.token else ""
        return f"http://{host}:{self._port}/{query}"

    async def serve(self, is_ready: Callable[[str], None], stop: asyncio.Event) -> None:
        """Listen until ``stop`` is set; ``is_ready`` is told the address.

        Raises:
            InputError: If the address cannot be listened on.
        """
        application = web.Application(middlewares=[self.gate.middleware()], client_max_size=1 << 20)
        application.router.add_get("/", self._index)
        application.router.add_get("/assets/{name}", self._asset)
        application.router.add_get("/live", self._live)
        application.router.add_get(r"/crop/{template:\d{1,15}}", self._crop)
        application.router.add_post("/api/{name}", self._act)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        tasks = [asyncio.create_task(self._feed.run()), asyncio.create_task(self._tell_status())]
        try:
            site = web.TCPSite(runner, self._host, self._port)
            try:
                await site.start()
            except OSError as error:
                raise InputError(
                    f"cannot listen on {self._host}, port {self._port} ({error.strerror}); "
                    "choose another one with --port, or 0 for any"
                ) from error
            self._port = int(runner.addresses[0][1])
            is_ready(self.address)
            await stop.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for stream in list(self._sockets):
                await stream.close(code=1001, message=b"the server ends")
            await runner.cleanup()
            self._workers.shutdown(wait=False)

    async def _index(self, request: web.Request) -> web.Response:
        return self._file("index.html")

    async def _asset(self, request: web.Request) -> web.Response:
        return self._file(request.match_info["name"])

    def _file(self, name: str) -> web.Response:
        path = ASSETS / name
        if path.parent != ASSETS or path.suffix not in KINDS or not path.is_file():
            raise web.HTTPNotFound()
        return web.Response(body=path.read_bytes(), content_type=KINDS[path.suffix], charset="utf-8")

    async def _crop(self, request: web.Request) -> web.Response:
        work, loop = self._operator.crop, asyncio.get_running_loop()
        try:
            jpeg = await loop.run_in_executor(self._workers, work, int(request.match_info["template"]))
        except FaceRecognitionError as error:
            raise web.HTTPNotFound(text=str(error)) from error
        if jpeg is None:
            raise web.HTTPNotFound()
        return web.Response(body=jpeg, content_type="image/jpeg")

    async def _act(self, request: web.Request) -> web.Response:
        action = ACTIONS.get(request.match_info["name"])
        if action is None:
            raise web.HTTPNotFound()
        try:
            body = await request.json() if request.can_read_body else {}
            if not isinstance(body, dict):
                raise InputError("expected a JSON object")
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._workers, action, self._operator, body)
        except json.JSONDecodeError as error:
            return web.json_response({"error": f"no JSON: {error}"}, status=400)
        except (FaceRecognitionError, OSError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"message": answer} if isinstance(answer, str) else answer)

    async def _tell_status(self) -> None:
        """Ask the operator for its status while somebody looks."""
        loop = asyncio.get_running_loop()
        while True:
            if self._sockets:
                try:
                    status = await loop.run_in_executor(self._workers, self._operator.status)
                    text = json.dumps({"status": asdict(status)}, separators=(",", ":"))
                except FaceRecognitionError:
                    LOGGER.warning("no status", exc_info=True)
                    text = self._status
                if text != self._status:
                    async with self._status_changed:
                        self._status = text
                        self._status_changed.notify_all()
            await asyncio.sleep(STATUS_GAP_S)

    async def _live(self, request: web.Request) -> web.WebSocketResponse:
        """Send one browser the newest picture whenever it has shown an earlier one, and the status."""
        stream = web.WebSocketResponse(heartbeat=10.0, compress=False, max_msg_size=1024)
        await stream.prepare(request)
        self._sockets.add(stream)
        credit = asyncio.Semaphore(PICTURES_IN_FLIGHT)
        try:
            async with (
                self._feed.viewer() as before,
                _running(self._send_pictures(stream, credit, before), self._send_status(stream)),
            ):
                async for message in stream:
                    if message.type is WSMsgType.TEXT and message.data == "shown":
                        credit.release()
        finally:
            self._sockets.discard(stream)
        return stream

    async def _send_pictures(
        self, stream: web.WebSocketResponse, credit: asyncio.Semaphore, last: int
    ) -> None:
        while True:
            await credit.acquire()
            last, message = await self._feed.newest(last)
            await stream.send_bytes(message)

    async def _send_status(self, stream: web.WebSocketResponse) -> None:
        text = self._status
        while True:
            if text:
                await stream.send_str(text)
            async with self._status_changed:
                await self._status_changed.wait()
                text = self._status


@contextlib.asynccontextmanager
async def _running(*work: Any) -> AsyncIterator[None]:
    """Run coroutines beside the block and cancel them with its end; a closed connection ends them quietly."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, ConnectionError):
                LOGGER.error("the stream to a browser ended", exc_info=outcome)


def serve_until_stopped(page: Page, is_ready: Callable[[str], None]) -> None:
    """Serve a page on this thread until SIGINT or SIGTERM (on the main thread), or until canceled."""

    async def run() -> None:
        stop = asyncio.Event()
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop.set)
        await page.serve(is_ready, stop)

    asyncio.run(run())

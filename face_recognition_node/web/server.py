"""The page's server: files, one stream of pictures, and each function of the operator as one POST."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
from aiohttp import WSMsgType, web

from face_recognition_node.common.errors import FaceRecognitionError, InputError
from face_recognition_node.web.access import Gate
from face_recognition_node.web.feed import JSON, Feed, Latest
from face_recognition_node.web.operator import Operator

LOGGER = logging.getLogger(__name__)

ASSETS = Path(__file__).with_name("assets")
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
STATUS_GAP_S = 0.2
# pictures sent to a browser that it has not shown yet; a slow one gets fewer pictures, not older ones
PICTURES_IN_FLIGHT = 2

# methods of the operator that a browser may call
ACTIONS = (
    "overview", "views", "enroll", "cancel_enrollment", "rename", "merge", "split", "forget", "undo", "redo",
    "start_session", "export_people", "import_people", "verify", "set_target",
)  # fmt: skip


def _request_of(method: Callable[..., Any]) -> type[msgspec.Struct]:
    """Return the JSON object that a browser sends for a method: its arguments by name, each of its type."""
    hints = get_type_hints(method, include_extras=True)
    fields: list[Any] = []
    for name, argument in list(inspect.signature(method).parameters.items())[1:]:
        is_required = argument.default is argument.empty
        fields.append((name, hints[name]) if is_required else (name, hints[name], argument.default))
    return msgspec.defstruct(method.__name__, fields, kw_only=True)


REQUESTS = {name: _request_of(getattr(Operator, name)) for name in ACTIONS}


class Page:
    """The page of one operator.

    Any but a loopback address to listen on needs a token, made here; port 0 takes a free one.

    Raises:
        InputError: If the host is empty, which would be every network of the machine.
    """

    def __init__(self, operator: Operator, host: str = "127.0.0.1", port: int = 8642) -> None:
        if not host.strip():
            raise InputError("host: expected an address, got an empty text; 0.0.0.0 is every network")
        self._operator, self._host, self._port = operator, host, port
        self.gate = Gate(host)
        self._feed = Feed(operator)
        self._workers = ThreadPoolExecutor(4, thread_name_prefix="page")
        self._status = Latest()
        self._sockets: set[web.WebSocketResponse] = set()

    @property
    def address(self) -> str:
        """What to type into the browser, with the token if one is needed."""
        name = socket.gethostname() if self._host in ("0.0.0.0", "::") else self._host
        host = f"[{name}]" if ":" in name else name
        query = f"?token={self.gate.token}" if self.gate.token else ""
        return f"http://{host}:{self._port}/{query}"

    async def serve(self, is_ready: Callable[[str], None], stop: asyncio.Event) -> None:
        """Listen until ``stop`` is set (InputError if that cannot be); ``is_ready`` is told the address."""
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
                is_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
                raise InputError(
                    f"cannot listen on {self._host}, port {self._port} ({error.strerror}); "
                    + ("choose another port, or 0 for any" if is_port else "the host must be this machine's")
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
        name = request.match_info["name"]
        if name not in REQUESTS:
            raise web.HTTPNotFound()
        try:
            arguments = msgspec.json.decode(await request.read() or b"{}", type=REQUESTS[name])
            work = partial(getattr(self._operator, name), **msgspec.structs.asdict(arguments))
            answer = await asyncio.get_running_loop().run_in_executor(self._workers, work)
            status, content = 200, {"message": answer} if isinstance(answer, str) else answer
        except (FaceRecognitionError, OSError, msgspec.DecodeError) as error:
            status, content = 400, {"error": str(error)}
        body = JSON.encode(content)
        return web.Response(status=status, body=body, content_type="application/json")

    async def _tell_status(self) -> None:
        """Ask the operator for its status while somebody looks."""
        loop = asyncio.get_running_loop()
        while True:
            if self._sockets:
                try:
                    status = await loop.run_in_executor(self._workers, self._operator.status)
                    message = JSON.encode({"status": status})
                    if message != self._status.message:
                        await self._status.put(message)
                except FaceRecognitionError:
                    LOGGER.warning("no status", exc_info=True)
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
        number = 0
        while True:
            number, message = await self._status.after(number)
            await stream.send_str(message.decode())


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


def serve_until_stopped(
    page: Page, is_ready: Callable[[str], None], stopped: threading.Event | None = None
) -> None:
    """Serve a page on this thread until ``stopped`` (by default by SIGINT or SIGTERM) or canceled."""

    async def run() -> None:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def pass_on(stopped: threading.Event) -> None:
            stopped.wait()
            loop.call_soon_threadsafe(stop.set)

        if stopped is not None:
            threading.Thread(target=pass_on, args=(stopped,), daemon=True).start()
        elif threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop.set)
        await page.serve(is_ready, stop)

    asyncio.run(run())

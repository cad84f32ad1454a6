"""One stream of pictures for however many browsers: encoded once, each takes the newest when it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import msgspec
import numpy as np

from face_recognition_node.web.operator import Operator, Picture

LOGGER = logging.getLogger(__name__)

# of what the operator returns; numpy's numbers are numbers
JSON = msgspec.json.Encoder(enc_hook=lambda number: number.item())
LARGEST_WIDTH = 960  # wider pictures are sent smaller; the boxes stay in pixels of the original
_QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 75)
_SHORTEST_GAP_S = 1 / 32  # between two pictures: no screen of an operator needs more than about 30 a second


def encode(picture: Picture, number: int) -> bytes:
    """Return a picture as one message: 4 bytes with the length of the JSON, the JSON, the JPEG."""
    image: np.ndarray = picture.image_bgr
    height, width = image.shape[:2]
    if width > LARGEST_WIDTH:
        size = (LARGEST_WIDTH, round(height * LARGEST_WIDTH / width))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", image, _QUALITY)
    text = JSON.encode({"number": number, "size": [width, height], "faces": picture.faces})
    return struct.pack("<I", len(text)) + text + jpeg.tobytes()


class Latest:
    """A message that is replaced by newer ones; each reader takes the newest when it is ready for it."""

    def __init__(self) -> None:
        self.number, self.message = 0, b""
        self._changed = asyncio.Condition()

    async def put(self, message: bytes) -> None:
        """Replace the message."""
        async with self._changed:
            self.number, self.message = self.number + 1, message
            self._changed.notify_all()

    async def after(self, number: int) -> tuple[int, bytes]:
        """Return number and message of the newest, once there is one later than ``number``."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.number > number)
            return self.number, self.message


class Feed:
    """Encodes the newest picture while at least one browser waits for one; idle otherwise."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="picture encoder")
        self._arrived, self._wanted = asyncio.Event(), asyncio.Event()
        self._latest = Latest()
        self._waiting = self._viewers = 0

    async def run(self) -> None:
        """Encode until canceled."""
        loop = asyncio.get_running_loop()
        self._operator.follow(lambda: _call_soon(loop, self._arrived.set))
        try:
            while True:
                await self._wanted.wait()
                await self._arrived.wait()
                self._arrived.clear()
                picture = self._operator.picture()
                if picture is None:
                    continue
                began = loop.time()
                try:
                    number = self._latest.number + 1
                    message = await loop.run_in_executor(self._worker, encode, picture, number)
                except Exception:  # the next one may be better; without this loop no browser sees any
                    LOGGER.exception("a picture could not be encoded")
                    continue
                await self._latest.put(message)
                if self._waiting == 0:
                    self._wanted.clear()
                await asyncio.sleep(max(0.0, began + _SHORTEST_GAP_S - loop.time()))
        finally:
            self._worker.shutdown(wait=False)

    async def newest(self, after: int) -> tuple[int, bytes]:
        """Return number and message of the newest picture, once there is one later than number ``after``."""
        self._waiting += 1
        self._wanted.set()
        try:
            return await self._latest.after(after)
        finally:
            self._waiting -= 1

    @contextlib.asynccontextmanager
    async def viewer(self) -> AsyncIterator[int]:
        """Count somebody who looks; yields the number after which that browser's first picture comes."""
        self._viewers += 1
        self._operator.watch(True)
        self._arrived.set()  # a source that stands still has a picture, too
        try:
            yield max(self._latest.number - 1, 0)
        finally:
            self._viewers -= 1
            if self._viewers == 0:
                self._operator.watch(False)


def _call_soon(loop: asyncio.AbstractEventLoop, work: object) -> None:
    """Run ``work`` on the loop unless that has ended meanwhile."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(work)  # type: ignore[arg-type]

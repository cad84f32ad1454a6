"""Choose the best of several video streams in an MP4, MOV, Matroska or WebM file; OpenCV reads the first.

The header tells the size of each stream. FFmpeg gets the file in parts that leave out one byte of each other
stream's header, with another byte of the file for it, so that it passes over a kind of stream unknown to it.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from face_recognition_node.common.errors import SourceError

LOGGER = logging.getLogger(__name__)
_MATROSKA = b"\x1a\x45\xdf\xa3"
_MP4 = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_MOST_PARTS = 10_000  # of one level that are looked at in a file made to waste time

Parts = Iterator[tuple[bytes, int, int]]  # kind, and where in the file the content begins and ends


@dataclass(frozen=True)
class VideoStream:
    """A video stream as the header of its container describes it."""

    width: int  # pixels
    height: int
    is_picture: bool  # a thumbnail: the only picture of its stream, as far as the container tells
    place: int  # in the file, of the byte that makes it a video stream
    substitute: int  # place of a byte that makes it none


def best_stream(path: Path) -> str:
    """Return what OpenCV has to open for the best video stream of a file: the first of the largest.

    A thumbnail is the last choice. The log names the stream that is read, of several. The path is absolute:
    of a relative one FFmpeg takes what is before a colon for a protocol, as in 2026-01-17T20:15.mp4.

    Raises:
        SourceError: If it is not the first, and the path cannot be part of a URL of FFmpeg.
    """
    whole = str(path.absolute())
    streams = video_streams(path)
    if len(streams) < 2:
        return whole
    best = max(streams, key=lambda stream: (not stream.is_picture, stream.width * stream.height))
    number = streams.index(best)
    sizes = ", ".join(f"{stream.width}x{stream.height}" for stream in streams)
    LOGGER.warning("%s: %d video streams (%s); number %d is read", path, len(streams), sizes, number + 1)
    if number == 0:
        return whole
    if "|" in whole:
        raise SourceError(f"{path}: expected a path without '|', as FFmpeg has to choose a stream; rename it")
    parts, begin = [], 0
    for stream in streams:
        if stream is not best:
            parts += [(begin, stream.place), (stream.substitute, stream.substitute + 1)]
            begin = stream.place + 1
    parts.append((begin, path.stat().st_size))
    return "concat:" + "|".join(f"subfile,,start,{a},end,{b},,:{whole}" for a, b in parts)


def video_streams(path: Path) -> list[VideoStream]:
    """Return the video streams of an MP4, MOV, Matroska or WebM file in their order; of other files none."""
    if not path.is_file():  # what is read of a pipe is gone
        return []
    try:
        with path.open("rb") as file:
            head = file.read(8)
            size = file.seek(0, io.SEEK_END)
            if head.startswith(_MATROSKA):
                return list(_matroska_streams(file, size))
            return list(_mp4_streams(file, size)) if head[4:] in _MP4 else []
    except (OSError, struct.error, IndexError):  # damaged; FFmpeg says so, or makes the best of it
        return []


def _mp4_streams(file: BinaryIO, size: int) -> Iterator[VideoStream]:
    """Yield the video streams of an MP4 or MOV file (ISO/IEC 14496-12)."""
    for kind, begin, end in _boxes(file, *_first(_boxes, file, 0, size, b"moov")):
        if kind != b"trak":
            continue
        media = _first(_boxes, file, begin, end, b"mdia")
        if _read(file, _first(_boxes, file, *media, b"hdlr")[0] + 8, 4) == b"vide":
            table = _first(_boxes, file, *media, b"minf", b"stbl")
            entry = _read(file, _first(_boxes, file, *table, b"stsd")[0] + 40, 4)
            count = _read(file, _first(_boxes, file, *table, b"stsz")[0] + 8, 4)
            width, height = struct.unpack(">HH", entry)
            yield VideoStream(width, height, count == b"\0\0\0\1", begin - 4, begin - 3)


def _matroska_streams(file: BinaryIO, size: int) -> Iterator[VideoStream]:
    """Yield the video streams of a Matroska or WebM file (RFC 9559)."""
    tracks = _first(_elements, file, 0, size, b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b")
    for kind, begin, end in _elements(file, *tracks):
        if kind != b"\xae":
            continue
        after_type = _first(_elements, file, begin, end, b"\x83")[1]
        if _read(file, after_type - 1, 1) == b"\1":
            video = _first(_elements, file, begin, end, b"\xe0")
            width, height = (
                int.from_bytes(_read(file, place, after - place), "big")
                for place, after in (_first(_elements, file, *video, name) for name in (b"\xb0", b"\xba"))
            )
            yield VideoStream(width, height, False, after_type - 1, after_type - 2)


def _first(
    split: Callable[[BinaryIO, int, int], Parts], file: BinaryIO, begin: int, end: int, *kinds: bytes
) -> tuple[int, int]:
    """Return where the first part of the last kind begins and ends, each kind within the one before it.

    Raises:
        IndexError: If there is none.
    """
    for kind in kinds:
        found = next((part for part in split(file, begin, end) if part[0] == kind), None)
        if found is None:
            raise IndexError(f"no {kind!r}")
        _, begin, end = found
    return begin, end


def _boxes(file: BinaryIO, begin: int, end: int) -> Parts:
    """Yield the boxes of ISO/IEC 14496-12 between two places of a file."""
    for _ in range(_MOST_PARTS):
        if begin + 8 > end:
            return
        length, kind = struct.unpack(">I4s", _read(file, begin, 8))
        content = begin + 8
        if length == 1:
            (length,) = struct.unpack(">Q", _read(file, content, 8))
            content += 8
        after = begin + length if length else end
        if after < content:
            return
        yield kind, content, min(after, end)
        begin = after


def _elements(file: BinaryIO, begin: int, end: int) -> Parts:
    """Yield the EBML elements (RFC 8794) between two places of a file."""
    for _ in range(_MOST_PARTS):
        if begin >= end:
            return
        head = _read(file, begin, 12)
        n_kind = 9 - head[0].bit_length()
        n_length = 9 - head[n_kind].bit_length()
        length = int.from_bytes(head[n_kind : n_kind + n_length], "big") & (1 << 7 * n_length) - 1
        content = begin + n_kind + n_length
        if content > end:
            return
        is_open = length == (1 << 7 * n_length) - 1  # written before its end was known
        after = end if is_open else content + length
        yield head[:n_kind], content, min(after, end)
        begin = after


def _read(file: BinaryIO, place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)

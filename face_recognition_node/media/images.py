"""Read one picture: recognized by its content, and refused by the size in its header before it is decoded."""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import threading
from pathlib import Path

import cv2
import numpy as np

from face_recognition_node.common.errors import SourceError
from face_recognition_node.vision.faces import ImageArray

# larger pictures are refused (but for a parameter of the node): 100 kB can unpack to gigabytes
MAXIMUM_MEGAPIXELS = 64.0
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis"})
_PNM = re.compile(rb"P[1-6]\s+(?:#[^\n]*\n\s*)*(\d+)\s+(?:#[^\n]*\n\s*)*(\d+)")


# how the lines begin that libjpeg, libpng and OpenCV write to stderr about a picture
_SAID_BY_LIBRARIES = re.compile(
    rb"libpng (?:error|warning): |Corrupt JPEG data: |Premature end of JPEG file|Invalid SOS parameters"
    rb"|Inconsistent progression sequence|Invalid (?:adaptation|color quantization)|Warning: unknown "
    rb"|Unsupported marker|\[ ?(?:WARN|ERROR|INFO):\d"
)
_STDERR = 2
_decoding = threading.Lock()


def decode_picture(data: bytes, flags: int) -> tuple[ImageArray | None, str]:
    """Return what ``cv2.imdecode`` makes of bytes, or None, and what the libraries say about them.

    They say it to the process's stderr, once a picture: a camera with a bad cable would flood the log. The
    descriptor leads elsewhere while they work; what other threads write meanwhile is passed on afterwards.
    """
    if not hasattr(os, "memfd_create"):  # Linux has it
        return _imdecode(data, flags)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_decoding)
        try:
            stderr = os.dup(_STDERR)
        except OSError:  # closed, as some daemons do: nobody is disturbed
            return _imdecode(data, flags)
        stack.callback(os.close, stderr)
        scratch = os.memfd_create("stderr")
        stack.callback(os.close, scratch)
        os.dup2(scratch, _STDERR)
        try:
            image, reason = _imdecode(data, flags)
        finally:
            os.dup2(stderr, _STDERR)
        written = os.pread(scratch, 1 << 20, 0)
        if not written:
            return image, reason
        first_line, others = b"", b""
        for line in written.splitlines(keepends=True):
            if _SAID_BY_LIBRARIES.match(line):
                first_line = first_line or line
            else:
                others += line
        with contextlib.suppress(OSError):
            os.write(stderr, others)
    return image, reason or first_line.decode(errors="replace").strip()[:200]


def _imdecode(data: bytes, flags: int) -> tuple[ImageArray | None, str]:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags), ""  # type: ignore[return-value]  # 8 bits
    except cv2.error as error:
        return None, str(error.err)


def picture_kind(head: bytes) -> str:
    """Return the kind of picture that begins with these bytes (``"jpeg"``, ``"heif"`` ...), or empty."""
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "heif"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    beginnings = {
        b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png", b"II*\0": "tiff", b"MM\0*": "tiff",
    }  # fmt: skip
    for beginning, kind in beginnings.items():
        if head.startswith(beginning):
            return kind
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "bmp"
    return "pnm" if _PNM.match(head) else ""


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) in pixels as the header of a picture states them, or None if it does not."""
    kind = picture_kind(data[:256])
    try:
        if kind == "png":
            width, height = struct.unpack_from(">II", data, 16)
        elif kind == "jpeg":
            width, height, _ = _jpeg_frame(data)
        elif kind == "bmp":
            width, height = struct.unpack_from("<ii", data, 18)
        elif kind == "webp":
            width, height = _webp_size(data)
        elif kind == "tiff":
            width, height = _tiff_size(data)
        elif kind == "pnm":
            found = _PNM.match(data)
            width, height = (int(found[1]), int(found[2])) if found else (0, 0)
        else:
            return None
    except (struct.error, KeyError, IndexError):
        return None
    return abs(int(width)), abs(int(height))


def read_image(path: Path) -> ImageArray:
    """Return an image file as (H, W, 3) BGR uint8, turned upright as its EXIF says.

    Raises:
        SourceError: If the file cannot be read, is no image, half of one, or too large (MAXIMUM_MEGAPIXELS).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"{path}: cannot be read ({error.strerror}); check the path and its permissions"
        ) from error
    return image_from(data, path)


def image_from(data: bytes, path: Path | str) -> ImageArray:
    """Return the bytes of an image file as :func:`read_image` does; ``path`` names it in errors."""
    kind = picture_kind(data[:256])
    if kind == "heif":
        return _read_heif(path, data)
    size = picture_size(data)
    if size is not None:
        _require_moderate(path, size)
    if kind == "jpeg" and not is_whole(data, kind):
        raise SourceError(f"{path}: expected a whole image, got a JPEG that breaks off; copy it again")
    image, reason = decode_picture(data, cv2.IMREAD_COLOR) if data else (None, "")
    if image is None:
        cause = f" ({reason})" if reason else ""
        raise SourceError(
            f"{path}: expected an image, got {len(data)} bytes that OpenCV cannot decode{cause}"
        )
    return image.astype(np.uint8, copy=False)


def _require_moderate(path: Path | str, size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAXIMUM_MEGAPIXELS * 1e6:
        limit = f"{MAXIMUM_MEGAPIXELS:g} megapixels"
        raise SourceError(f"{path}: {size[0]}x{size[1]} pixels; expected at most {limit}, scale it down")


def _read_heif(path: Path | str, data: bytes) -> ImageArray:
    """Return the main picture of a HEIC, HEIF or AVIF file, whole: OpenCV would take its first tile."""
    cure = (
        "python3 -m pip install pillow-heif (requirements/heif.txt of the source tree, ./run setup heif), or "
        "convert it to JPEG: heif-convert IN.heic OUT.jpg"
    )
    try:
        import pillow_heif
        from PIL import Image, ImageOps
    except ImportError as error:
        raise SourceError(
            f"{path}: this is HEIC, HEIF or AVIF, which the library {error.name} reads; {cure}"
        ) from error
    pillow_heif.register_heif_opener()
    try:
        with Image.open(io.BytesIO(data)) as picture:  # Pillow's limit is below ours and only warns
            _require_moderate(path, picture.size)
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except SourceError:
        raise
    except Exception as error:  # of several libraries
        raise SourceError(
            f"{path}: expected HEIC, HEIF or AVIF, cannot be decoded ({error}); {cure}"
        ) from error
    return np.ascontiguousarray(np.asarray(upright, np.uint8)[..., ::-1])


def _jpeg_frame(data: bytes) -> tuple[int, int, int]:
    """Return width, height and where the first scan begins; struct.error or IndexError if it is not there."""
    place, width, height = 2, 0, 0
    while True:
        if data[place] != 0xFF:
            raise IndexError("no marker")
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        if marker == 0xDA:
            return width, height, place
        (length,) = struct.unpack_from(">H", data, place + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, place + 5)
            if not data.find(b"\xff\xda", place) >= 0:
                return width, height, len(data)
        place += 2 + length


def is_whole(data: bytes, kind: str) -> bool:
    """Return whether a JPEG or PNG has its end: OpenCV decodes a torn one to a half-grey picture."""
    if kind == "png":
        return data.rfind(b"IEND") > data.rfind(b"IDAT")
    try:
        scan = _jpeg_frame(data)[2]  # a thumbnail before it has an end as well
    except (struct.error, IndexError):
        scan = 0
    return data.rfind(b"\xff\xd9") > scan


def _webp_size(data: bytes) -> tuple[int, int]:
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _tiff_size(data: bytes) -> tuple[int, int]:
    order = "<" if data[:2] == b"II" else ">"
    (place,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, place)
    values = {}
    for entry in range(min(count, 100)):
        tag, kind = struct.unpack_from(order + "HH", data, place + 2 + 12 * entry)
        if tag in (256, 257):
            (values[tag],) = struct.unpack_from(
                order + ("H" if kind == 3 else "I"), data, place + 10 + 12 * entry
            )
    return values[256], values[257]

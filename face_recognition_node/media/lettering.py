"""Anti-aliased text of any height from a glyph sheet, for names beyond ASCII.

OpenCV's own fonts have strokes of one width and know no accents; this sheet covers Latin with all European
accents, Greek and Cyrillic. What it lacks is spelled without accents where possible, else shown as a square.
"""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from face_recognition_node.common.errors import InputError
from face_recognition_node.vision.faces import ImageArray

ASSETS = Path(__file__).parent / "assets"
_UNKNOWN = "□"


@dataclass(frozen=True)
class _Sheet:
    coverage: ImageArray
    height: int
    margin: int
    glyphs: dict[str, tuple[int, int, int]]


@lru_cache(maxsize=1)
def _sheet() -> _Sheet:
    layout = json.loads((ASSETS / "lettering.json").read_text(encoding="utf-8"))
    coverage = cv2.imread(str(ASSETS / "lettering.png"), cv2.IMREAD_GRAYSCALE)
    if coverage is None:
        raise InputError(
            f"{ASSETS / 'lettering.png'}: expected the glyph sheet, found none; reinstall the package"
        )
    glyphs = {character: (place[0], place[1], place[2]) for character, place in layout["glyphs"].items()}
    return _Sheet(coverage.astype(np.uint8, copy=False), layout["height"], layout["margin"], glyphs)


def spell(text: str) -> str:
    """Return ``text`` in characters of the sheet; never longer than needed, control characters dropped."""
    glyphs = _sheet().glyphs
    spelled = []
    for character in unicodedata.normalize("NFC", text):
        if character in glyphs:
            spelled.append(character)
        elif unicodedata.category(character)[0] not in "CM":
            plain = "".join(part for part in unicodedata.normalize("NFKD", character) if part in glyphs)
            spelled.append(plain or _UNKNOWN)
    return "".join(spelled)


@lru_cache(maxsize=512)
def letter(text: str, height: int) -> ImageArray:
    """Return (height, W) uint8 coverage of one line of text: 255 where ink is, W >= 1.

    The height, at least 4 pixels, is that of the line, accents and descenders included.
    """
    if height < 4:
        raise InputError(f"height: expected at least 4 pixels, got {height}")
    sheet = _sheet()
    places = [sheet.glyphs[character] for character in spell(text)]
    width = sum(advance for _, _, advance in places) + 2 * sheet.margin
    line = np.zeros((sheet.height, width), np.uint8)
    pen = 0
    for x, y, advance in places:
        cell = sheet.coverage[y : y + sheet.height, x : x + advance + 2 * sheet.margin]
        target = line[:, pen : pen + advance + 2 * sheet.margin]
        np.maximum(target, cell, out=target)
        pen += advance
    scaled_width = max(1, round(width * height / sheet.height))
    method = cv2.INTER_AREA if height < sheet.height else cv2.INTER_CUBIC
    scaled = cv2.resize(line, (scaled_width, height), interpolation=method)
    scaled.flags.writeable = False
    return scaled.astype(np.uint8, copy=False)


def text_width(text: str, height: int) -> int:
    """Return the width in pixels that ``text`` takes at this line height."""
    return int(letter(text, height).shape[1])


def shorten(text: str, height: int, width: int) -> str:
    """Return ``text``, cut and ended by an ellipsis if it is wider than ``width`` pixels, or empty."""
    if text_width(text, height) <= width:
        return text
    for end in range(len(text) - 1, 0, -1):
        shorter = text[:end].rstrip() + "…"
        if text_width(shorter, height) <= width:
            return shorter
    return ""


def paint(
    image_bgr: ImageArray, coverage: ImageArray, left: int, top: int, color: tuple[int, int, int]
) -> None:
    """Blend ink of ``color`` into ``image_bgr`` in place; what reaches outside the image is cut off."""
    height, width = image_bgr.shape[:2]
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + coverage.shape[1], width), min(top + coverage.shape[0], height)
    if x1 >= x2 or y1 >= y2:
        return
    ink = coverage[y1 - top : y2 - top, x1 - left : x2 - left] * np.float32(1 / 255)
    region = image_bgr[y1:y2, x1:x2]
    region[:] = cv2.blendLinear(region, np.full_like(region, color), 1 - ink, ink)

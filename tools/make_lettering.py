"""Make the glyph sheet that annotations are lettered with. Needs Pillow and a TrueType font.

    python tools/make_lettering.py /usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf

writes face_recognition_node/media/assets/lettering.png (grey = coverage) and lettering.json (where each
character lies). The sheet is kept in the repository, so that robots need neither Pillow nor the font.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PIXELS = 36
SHEET_WIDTH = 1024
RANGES = [(0x20, 0x7F), (0xA0, 0x180), (0x218, 0x21C), (0x386, 0x3CF), (0x400, 0x460), (0x490, 0x492)]
EXTRA = "–—‘’“”„•…€№−ẞ□"
ASSETS = Path(__file__).resolve().parents[1] / "face_recognition_node" / "media" / "assets"


def main(font_path: str) -> None:
    """Draw every character once, left to right, row by row."""
    font = ImageFont.truetype(font_path, PIXELS)
    ascent, descent = font.getmetrics()
    height = ascent + descent
    characters = [chr(code) for first, last in RANGES for code in range(first, last)] + list(EXTRA)
    missing = bytes(font.getmask("\U000e0fff"))
    rows, glyphs, x, y = [], {}, 0, 0
    for character in characters:
        if character not in " \xa0" and bytes(font.getmask(character)) == missing:
            continue
        advance = round(font.getlength(character))
        width = max(advance, 1) + 4
        if x + width > SHEET_WIDTH:
            x, y = 0, y + height
        cell = Image.new("L", (width, height))
        ImageDraw.Draw(cell).text((2, 0), character, fill=255, font=font)
        rows.append((x, y, np.asarray(cell)))
        glyphs[character] = [x, y, advance]
        x += width
    sheet = np.zeros((y + height, SHEET_WIDTH), np.uint8)
    for left, top, cell in rows:
        sheet[top : top + height, left : left + cell.shape[1]] = cell
    Image.fromarray(sheet).quantize(16).save(ASSETS / "lettering.png", optimize=True)
    layout = {"height": height, "ascent": ascent, "margin": 2, "glyphs": glyphs}
    (ASSETS / "lettering.json").write_text(
        json.dumps(layout, ensure_ascii=False, separators=(",", ":")) + "\n"
    )


if __name__ == "__main__":
    main(sys.argv[1])

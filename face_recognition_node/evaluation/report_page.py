"""One HTML file with text and pictures in it, to be sent around and opened anywhere."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_STYLE = (
    "body{font-family:sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "img{max-width:100%}pre{background:#f4f4f4;padding:.8rem;overflow-x:auto}"
)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Attributes:
        heading: Its title.
        text: Figures, shown as they are.
        pictures: PNG files, which are copied into the page.
    """

    heading: str
    text: str = ""
    pictures: tuple[Path, ...] = ()


def write_page(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write the page whole or not at all."""
    parts = [f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"]
    parts.append(f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>")
    for section in sections:
        parts.append(f"<h2>{html.escape(section.heading)}</h2>")
        if section.text:
            parts.append(f"<pre>{html.escape(section.text)}</pre>")
        for picture in section.pictures:
            data = base64.b64encode(picture.read_bytes()).decode("ascii")
            parts.append(f'<p><img alt="{html.escape(picture.stem)}" src="data:image/png;base64,{data}">')
    temporary = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text("\n".join(parts) + "\n", encoding="utf-8")
    os.replace(temporary, path)

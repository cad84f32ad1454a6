"""One HTML file that needs nothing else: what every report with pictures or lines of time is written with."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{margin-bottom:0}h2{margin-top:2.2rem}small,figcaption{color:#666}figcaption{font-size:.8rem}
figure{margin:0 0 1rem}img{max-width:100%}pre{background:#f4f4f4;padding:.8rem;overflow-x:auto}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;vertical-align:middle}
tr+tr td{border-top:1px solid #e3e3e3}.bad{color:#b03a00;font-weight:600}.good{white-space:nowrap}
"""


def page(title: str, parts: Iterable[str], style: str = "") -> str:
    """Return a whole page: a title (text), parts of HTML beneath it, and more rules of style."""
    head = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style><h1>{escape(title)}</h1>"
    )
    return "\n".join([head, *parts]) + "\n"


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Return a table of HTML cells under a head of text."""
    names = "".join(f"<th>{escape(name)}" for name in head)
    lines = ["<tr>" + "".join(f"<td>{cell}" for cell in row) for row in rows]
    return "<table>" + "\n".join([f"<tr>{names}"] * bool(head) + lines) + "</table>"


def picture(encoded: bytes, caption: str, kind: str = "png") -> str:
    """Return a picture file's bytes as a figure with its caption (text)."""
    source = f"data:image/{kind};base64,{base64.b64encode(encoded).decode('ascii')}"
    text = escape(caption)
    return f'<figure><img alt="{text}" src="{source}"><figcaption>{text}</figcaption></figure>'

"""The one progress bar."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any


def progress_bar(
    items: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    initial: int = 0,
    unit: str = "frame",
    title: str = "",
    shown: bool | None = None,
) -> Any:
    """Return a bar on standard error, to iterate over or to use in a ``with`` and update.

    Args:
        items: What it is drawn around; None: it is moved by its ``update``.
        total: How many there will be, where ``items`` does not tell.
        initial: How many are done already.
        unit: What is counted, in the singular.
        title: What is done.
        shown: Whether it is drawn; None: on a terminal only.
    """
    from tqdm import tqdm

    hidden = not sys.stderr.isatty() if shown is None else not shown
    return tqdm(
        items, total=total, initial=initial, unit=f" {unit}s", desc=title or None, disable=hidden,
        file=sys.stderr, dynamic_ncols=True, leave=False,
    )  # fmt: skip

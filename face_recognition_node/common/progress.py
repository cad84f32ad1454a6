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
    """Return a bar on standard error, to iterate over or to update; without ``shown`` on a terminal only."""
    from tqdm import tqdm

    hidden = not sys.stderr.isatty() if shown is None else not shown
    return tqdm(
        items, total=total, initial=initial, unit=f" {unit}s", desc=title or None, disable=hidden,
        file=sys.stderr, dynamic_ncols=True, leave=False,
    )  # fmt: skip

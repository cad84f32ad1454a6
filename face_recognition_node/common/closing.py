"""What is closed where its ``with`` block ends: the one way to write that down."""

from __future__ import annotations

from types import TracebackType
from typing import TypeVar

ClosingT = TypeVar("ClosingT", bound="Closing")


class Closing:
    """A context manager that closes itself, also after an interrupt.

    A class that writes a file overrides :meth:`_discard`, called in place of :meth:`close` after an
    error.
    """

    __slots__ = ()

    def close(self) -> None:
        """Finish; nothing may be done afterwards."""
        raise NotImplementedError

    def _discard(self) -> None:
        self.close()

    def __enter__(self: ClosingT) -> ClosingT:
        """Return the object itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it, or discard what it wrote."""
        if isinstance(error, Exception):
            self._discard()
        else:
            self.close()

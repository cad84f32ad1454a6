"""Compiled engines on disk: one file each, named by everything it depends on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineKey:
    """What an engine depends on; if any part differs it is another engine.

    Attributes:
        model: Name of the model, for people who look into the folder.
        weights: SHA-256 of the weights.
        shapes: Smallest, preferred and largest input shape, (B, 3, H, W) each.
        precision: "fp32" or "fp16".
        platform: GPU, driver and the versions of all libraries that take part.
    """

    model: str
    weights: str
    shapes: tuple[tuple[int, int, int, int], tuple[int, int, int, int], tuple[int, int, int, int]]
    precision: str
    platform: str

    @property
    def file_name(self) -> str:
        """Name of the engine's file."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:20]
        _, _, height, width = self.shapes[1]
        return f"{self.model}-{height}x{width}-{self.precision}-{digest}.ep"


class EngineCache:
    """A folder of engines.

    Args:
        folder: Created when the first engine is stored.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, key: EngineKey) -> Path:
        """Return where the engine is or would be."""
        return self._folder / key.file_name

    def find(self, key: EngineKey) -> Path | None:
        """Return the engine's file if there is one."""
        path = self.path(key)
        return path if path.is_file() else None

    def store(self, key: EngineKey, write: Callable[[Path], None]) -> Path | None:
        """Let ``write`` write the engine to a path and keep it, whole or not at all.

        Returns:
            The engine's file, or None if it could not be written: the engine then serves this run only.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder, prefix=".building-") as place:
                unfinished = Path(place) / "engine.ep"
                write(unfinished)
                os.replace(unfinished, self.path(key))
        except Exception as error:  # torch tells a full disk by exceptions of its own
            _log.warning("the engine cannot be kept for the next start: %s: %s", self._folder, error)
            return None
        return self.path(key)

    def discard(self, key: EngineKey) -> None:
        """Remove the engine, if there is one: it could not be loaded or failed its self-test."""
        self.path(key).unlink(missing_ok=True)

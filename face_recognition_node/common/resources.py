"""Where the files that come with the package lie: models and configuration."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from face_recognition_node.common.errors import ConfigurationError, ModelMissingError

_log = logging.getLogger(__name__)

PACKAGE = "face_recognition_node"
MODELS_VARIABLE = "FACE_RECOGNITION_MODELS"
"""Environment variable that names another folder of models."""


def _shares() -> Iterator[Path]:
    """Yield the folders that may hold the package's data, best first."""
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix:
            yield Path(prefix) / "share" / PACKAGE
    yield Path(sys.prefix) / "share" / PACKAGE
    yield Path(__file__).resolve().parents[2]


def models_directory(configured: str = "") -> Path:
    """Return the folder of model files.

    That is ``configured``, else what FACE_RECOGNITION_MODELS names, else ``models`` in the share folder of
    the ROS installation, of the Python installation, or in the source tree.

    Raises:
        ModelMissingError: If there is none.
    """
    explicit = configured or os.environ.get(MODELS_VARIABLE, "")
    if explicit:
        folder = Path(explicit).expanduser()
        if folder.is_dir():
            return folder
        origin = "models.models_dir" if configured else MODELS_VARIABLE
        raise ModelMissingError(f"{origin}: expected a folder of models, got {folder}, which is no folder")
    tried = [share / "models" for share in _shares()]
    for folder in tried:
        if any(folder.glob("*.json")):
            return folder
    places = ", ".join(str(folder) for folder in tried)
    raise ModelMissingError(f"no folder with models found; looked in {places}; name one by {MODELS_VARIABLE}")


def adopted_models_directory() -> Path:
    """Return the folder of embedders that the user has adopted: XDG's data folder, created when needed."""
    base = os.environ.get("XDG_DATA_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".local" / "share"
    return root / PACKAGE / "models"


def config_directory() -> Path:
    """Return the folder of configuration files (parameters, Fast DDS profile, scenarios).

    Raises:
        ConfigurationError: If there is none.
    """
    tried = [share / "config" for share in _shares()]
    for folder in tried:
        if folder.is_dir():
            return folder
    raise ConfigurationError(
        f"no config folder found; looked in {', '.join(str(folder) for folder in tried)}"
    )


def cache_directory() -> Path | None:
    """Return the folder for what can be rebuilt (compiled models): XDG's cache, created when needed.

    It is None where the user has no home directory, as in some containers.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    except RuntimeError:
        _log.warning("no home directory, so nothing is cached; name a folder by XDG_CACHE_HOME")
        return None
    return root / PACKAGE

"""Where the files that come with the package lie: models and configuration."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from face_recognition_node.common.errors import ConfigurationError, ModelMissingError
from face_recognition_node.common.files import user_folder, user_path

_log = logging.getLogger(__name__)

PACKAGE = "face_recognition_node"
MODELS_VARIABLE = "FACE_RECOGNITION_MODELS"  # environment variable that names another folder of models


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
        origin = "models.models_dir" if configured else MODELS_VARIABLE
        folder = user_path(explicit, "any", name=origin, error=ModelMissingError)
        if folder.is_dir():
            return folder
        raise ModelMissingError(f"{origin}: expected a folder of models, got {folder}, which is no folder")
    tried = [share / "models" for share in _shares()]
    for folder in tried:
        if any(folder.glob("*.json")):
            return folder
    places = ", ".join(str(folder) for folder in tried)
    raise ModelMissingError(f"no folder with models found; looked in {places}; name one by {MODELS_VARIABLE}")


def adopted_models_directory() -> Path | None:
    """Return the folder of embedders that the user has adopted, created when needed; None without a home."""
    root = user_folder("XDG_DATA_HOME", ".local/share")
    return None if root is None else root / PACKAGE / "models"


def config_directory() -> Path:
    """Return the folder of parameters, DDS profile and scenarios; ConfigurationError if there is none."""
    tried = [share / "config" for share in _shares()]
    for folder in tried:
        if folder.is_dir():
            return folder
    raise ConfigurationError(
        f"no config folder found; looked in {', '.join(str(folder) for folder in tried)}"
    )


def interfaces_directory() -> Path:
    """Return the folder of the interface package, with ``msg/Face.msg`` in it; ConfigurationError without."""
    name = "face_recognition_interfaces"
    for share in _shares():
        for folder in (share.parent / name, share / name):
            if (folder / "msg" / "Face.msg").is_file():
                return folder
    raise ConfigurationError(
        f"the definitions of the messages are missing: install the package {name}, or name the folder that "
        "holds its share/ by AMENT_PREFIX_PATH"
    )


def cache_directory() -> Path | None:
    """Return the user's private folder for what can be rebuilt; None where it cannot be made."""
    root = user_folder("XDG_CACHE_HOME", ".cache")
    if root is None:
        _log.warning("no home folder, so nothing is cached; name a folder by XDG_CACHE_HOME")
        return None
    folder = root / PACKAGE
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_uid == os.getuid():
            folder.chmod(0o700)  # made by an earlier version
    except OSError as error:
        _log.warning("no cache of compiled models (%s); name a writable folder by XDG_CACHE_HOME", error)
        return None
    return folder

"""What a stage's checkpoint was made from, kept beside it: a run goes on only where it is the same run."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.common.files import write_json
from face_recognition_node.training.recipe import differing_entries, plain_values
from face_recognition_node.training.stages import StageRecipe

CHECKPOINT, RECORD = "last.ckpt", "stage.json"
_MAY_CHANGE = ("steps", "warmup", "cooldown", "schedule")
"""How long a stage goes on may be changed while it runs."""


def check_record(folder: Path, stage: StageRecipe, is_fast: bool, start: str | None) -> None:
    """Write what the stage in ``folder`` is made from, or compare with what its checkpoint was made from.

    Args:
        folder: Of the stage.
        stage: How it is trained.
        is_fast: It is the short run that only shows that everything works.
        start: Weights it starts from: a file, another word, or None.

    Raises:
        ConfigurationError: If the checkpoint there belongs to another run.
    """
    record = {"fast": is_fast, "start": _fingerprint(start), **_settings(stage)}
    if (folder / RECORD).is_file() and (folder / CHECKPOINT).is_file():
        different = differing_entries(folder / RECORD, record)
        if different:
            raise ConfigurationError(
                f"{folder}: its checkpoint was made with another {', '.join(different)}; name another --out, "
                "or remove the folder to train this stage anew"
            )
    elif int(os.environ.get("LOCAL_RANK", "0")) == 0:
        write_json(folder / RECORD, record)


def _settings(stage: StageRecipe) -> dict[str, Any]:
    values = plain_values(stage)
    return {name: value for name, value in values.items() if name not in _MAY_CHANGE}


def _fingerprint(start: str | None) -> str | None:
    path = None if start is None else Path(start).expanduser()
    if path is None or not path.is_file():
        return start
    return hashlib.sha256(path.read_bytes()).hexdigest()

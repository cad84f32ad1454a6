"""Recipes as frozen dataclasses read from YAML; an unknown or ill-typed key is an error."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from face_recognition_node.common.errors import ConfigurationError

RecipeT = TypeVar("RecipeT")


def read_recipe(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML recipe and apply ``changes`` like ``seed=3`` or ``stages.1.steps=100``.

    Raises:
        ConfigurationError: If there is no such file, it is no mapping, or a change does not fit.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path}: no such recipe; the ones shipped are in config/training/")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not YAML: {error}") from error
    if not isinstance(values, dict) or "kind" not in values:
        raise ConfigurationError(f"{path}: expected a mapping with a 'kind'")
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            raise ConfigurationError(f"--set {change}: expected NAME=VALUE")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigurationError(f"--set {change}: the value is not YAML: {error}") from error
        set_value(values, name, value)
    return values


def set_value(values: Any, name: str, value: object) -> None:
    """Set the entry that ``name`` leads to: names of mappings and numbers of lists, with dots between.

    Raises:
        ConfigurationError: If it leads nowhere.
    """
    *parents, last = name.split(".")
    for part in parents:
        if isinstance(values, dict) and values.get(part) is None:
            values[part] = {}
        values = values[_key(values, part, name)]
    values[_key(values, last, name)] = value


def _key(values: object, part: str, name: str) -> int | str:
    if isinstance(values, list) and part.isdecimal() and int(part) < len(values):
        return int(part)
    if isinstance(values, dict):
        return part
    has = f"a list of {len(values)}, numbered from 0" if isinstance(values, list) else repr(values)
    raise ConfigurationError(f"{name}: {part!r} leads nowhere; before it stands {has}")


def build(kind: type[RecipeT], values: object, where: str = "recipe") -> RecipeT:
    """Make a dataclass of ``kind`` from plain values, nested ones too.

    Args:
        kind: A dataclass whose annotations are plain types, dataclasses, tuples of them, or optional ones.
        values: A mapping from field names.
        where: Prefix for error messages.

    Raises:
        ConfigurationError: For an unknown, missing or ill-typed entry, named with its place.
    """
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"{where}: expected a mapping, got {values!r}")
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]  # a dataclass
    hints = typing.get_type_hints(kind)
    unknown = set(values) - set(fields)
    if unknown:
        raise ConfigurationError(f"{where}: unknown {sorted(unknown)}; known are {sorted(fields)}")
    made = {name: _convert(hints[name], value, f"{where}.{name}") for name, value in values.items()}
    try:
        return kind(**made)
    except TypeError as error:
        raise ConfigurationError(f"{where}: {error}") from error


def _convert(hint: Any, value: object, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(one for one in arguments if one is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigurationError(f"{where}: expected a list, got {value!r}")
        return tuple(_convert(arguments[0], item, f"{where}.{number}") for number, item in enumerate(value))
    if hint is Path and isinstance(value, str):
        return Path(value).expanduser()
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):
        # YAML reads 1e-3 (no dot) as text
        try:
            return float(value)
        except ValueError:
            raise ConfigurationError(f"{where}: expected a number, got {value!r}") from None
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigurationError(f"{where}: expected {hint.__name__}, got {value!r}")
    return value


def differing_entries(path: Path, values: Mapping[str, object]) -> dict[str, object]:
    """Return what a JSON file, written at the beginning of a run, holds in place of ``values``, by name."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    return {name: stored.get(name) for name in values if stored.get(name) != values[name]}


def plain_values(recipe: Any) -> dict[str, Any]:
    """Return a recipe as plain values for JSON."""
    return typing.cast(dict[str, Any], _plain(dataclasses.asdict(recipe)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value

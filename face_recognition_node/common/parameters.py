"""Declare a parameter once: type, default, bounds, description, whether it may change while running.

A section is a frozen dataclass whose fields are made by :func:`parameter`. The same declaration makes the
ROS parameters, the YAML files, the README's table and the error messages.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from face_recognition_node.common.errors import ConfigurationError

Value = bool | int | float | str
SectionT = TypeVar("SectionT")


@dataclass(frozen=True, slots=True)
class Parameter:
    """What is known of one parameter."""

    default: Value  # value when nobody sets it; its type is the parameter's type
    description: str  # one sentence with the unit
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[Value, ...] = ()
    read_only: bool = False  # set at start only

    def check(self, name: str, value: object) -> Value:
        """Return ``value`` in the parameter's type, or raise ConfigurationError telling the bounds."""
        kind = type(self.default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not kind:
            raise ConfigurationError(f"{name}: expected {kind.__name__}, got {value!r}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigurationError(f"{name}: expected a finite number, got {value!r}")
        if self.choices and value not in self.choices:
            raise ConfigurationError(f"{name}: expected one of {list(self.choices)}, got {value!r}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if self.minimum is not None and value < self.minimum:
                raise ConfigurationError(f"{name}: expected at least {self.minimum}, got {value}")
            if self.maximum is not None and value > self.maximum:
                raise ConfigurationError(f"{name}: expected at most {self.maximum}, got {value}")
        return value  # its type was just compared with the default's


def parameter(
    default: Value,
    description: str,
    *,
    limits: tuple[float | None, float | None] = (None, None),
    choices: tuple[Value, ...] = (),
    read_only: bool = False,
) -> Any:
    """Declare a dataclass field as a parameter (see :class:`Parameter`) between two ``limits``."""
    declared = Parameter(default, description, *limits, choices, read_only)
    return field(default=default, metadata={"parameter": declared})


fixed_parameter = partial(parameter, read_only=True)  # set at start only


class Section:
    """A frozen dataclass of parameters, all of which are checked when it is made."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            declared = item.metadata.get("parameter")
            if declared is not None:
                object.__setattr__(self, item.name, declared.check(item.name, getattr(self, item.name)))


def flatten(section: Any, prefix: str = "") -> Iterator[tuple[str, Parameter, Value]]:
    """Yield ``("identity.target_false_accept_rate", its Parameter, its value)`` for all nested sections."""
    for item in dataclasses.fields(section):
        value = getattr(section, item.name)
        declared = item.metadata.get("parameter")
        if declared is not None:
            yield prefix + item.name, declared, value
        elif dataclasses.is_dataclass(value):
            yield from flatten(value, f"{prefix}{item.name}.")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the known name that is most like a misspelled one, or nothing."""
    found = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def with_values(section: SectionT, values: Mapping[str, object], prefix: str = "") -> SectionT:
    """Return ``section`` with dotted ``values`` replaced; ConfigurationError for an unknown or bad one."""
    known = {name: declared for name, declared, _ in flatten(section)}
    changes: dict[str, dict[str, object]] = {}
    for name, value in values.items():
        if name not in known:
            raise ConfigurationError(f"{prefix}{name}: no such parameter{nearest(name, known)}")
        head, _, rest = name.partition(".")
        changes.setdefault(head, {})[rest] = known[name].check(prefix + name, value)
    replaced: dict[str, Any] = {}
    for head, inner in changes.items():
        is_value = "" in inner
        replaced[head] = (
            inner[""] if is_value else with_values(getattr(section, head), inner, f"{prefix}{head}.")
        )
    return dataclasses.replace(section, **replaced)  # type: ignore[type-var]

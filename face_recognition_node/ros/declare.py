"""A declared parameter as a ROS parameter: descriptor, bounds, the value given at start."""

from __future__ import annotations

from collections.abc import Sequence

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.node import Node

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.common.parameters import Parameter, Value

Declarations = Sequence[tuple[str, Parameter, Value]]


def describe(declared: Parameter, *, is_fixed: bool = False) -> ParameterDescriptor:
    """Return the ROS descriptor of a declared parameter.

    Args:
        declared: The declaration; ``read_only`` there means "only while unconfigured", because a lifecycle
            node is set up anew each time it is configured.
        is_fixed: The parameter can only be given at start, so ROS itself may call it read-only.
    """
    notes = []
    descriptor = ParameterDescriptor(description=declared.description, read_only=is_fixed)
    if declared.choices:
        notes.append(f"one of {bounds(declared)}")
    elif declared.minimum is not None and declared.maximum is not None:
        if isinstance(declared.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(declared.minimum), to_value=float(declared.maximum))
            ]
        else:
            descriptor.integer_range = [
                IntegerRange(from_value=int(declared.minimum), to_value=int(declared.maximum), step=1)
            ]
    elif bounds(declared):
        notes.append(bounds(declared))
    if declared.read_only and not is_fixed:
        notes.append("may be set while the node is unconfigured")
    descriptor.additional_constraints = "; ".join(notes)
    return descriptor


def declare(node: Node, items: Declarations, fixed: frozenset[str] = frozenset()) -> dict[str, Value]:
    """Declare parameters on a node and return their values, those given at start included.

    Raises:
        ConfigurationError: If a value given at start has the wrong type or lies outside its bounds.
    """
    values: dict[str, Value] = {}
    for name, declared, default in items:
        descriptor = describe(declared, is_fixed=name in fixed)
        try:
            value: object = node.declare_parameter(name, default, descriptor).value
        except (ParameterException, TypeError) as error:
            kind = type(declared.default).__name__
            raise ConfigurationError(
                f"parameter {name}: expected {kind} {bounds(declared)}; {error}"
            ) from error
        values[name] = declared.check(name, value)
    return values


def bounds(declared: Parameter) -> str:
    """Return the allowed values in words: ``raw, compressed``, ``0.1 to 60``, ``at least 1`` or nothing."""
    if declared.choices:
        return ", ".join(str(choice) for choice in declared.choices)
    low, high = (None if bound is None else f"{bound:.10g}" for bound in (declared.minimum, declared.maximum))
    if low is not None and high is not None:
        return f"{low} to {high}"
    if low is not None:
        return f"at least {low}"
    return "" if high is None else f"at most {high}"

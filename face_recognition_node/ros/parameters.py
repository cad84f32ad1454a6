"""The recognition node's parameters: checked on every change and handed on for the next frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from rclpy.validate_topic_name import validate_topic_name

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.ros.declare import declare
from face_recognition_node.ros.settings import Settings, declarations

TOPICS = ("image_topic", "depth_topic", "camera_info_topic")
MAY_BE_EMPTY = TOPICS[1:]


class NodeParameters:
    """The parameters of the recognition node.

    Args:
        node: Declares them on this node.
        is_configured: Tells whether parameters that matter at configure only are refused now.
        on_change: Called with the new settings after a change was accepted, on the thread of the service.

    Attributes:
        settings: The values in force.

    Raises:
        ConfigurationError: If a value given at start cannot be used.
    """

    FIXED = frozenset({"autostart", "diagnostics_period"})

    def __init__(
        self, node: Node, is_configured: Callable[[], bool], on_change: Callable[[Settings], None]
    ) -> None:
        self._is_configured = is_configured
        self._on_change = on_change
        self._declared = {name: declared for name, declared, _ in declarations()}
        self._node = node
        self.settings = self._with_values(Settings(), declare(node, list(declarations()), self.FIXED))
        # Humble has nothing after the check; there is no other callback of ours that might still refuse.
        has_post = hasattr(node, "add_post_set_parameters_callback")
        node.add_on_set_parameters_callback(self._check if has_post else self._check_and_apply)
        if has_post:
            node.add_post_set_parameters_callback(self._apply)

    def _ours(self, parameters: Sequence[RosParameter[Any]]) -> Iterator[RosParameter[Any]]:
        return (parameter for parameter in parameters if parameter.name in self._declared)

    def _check(self, parameters: Sequence[RosParameter[Any]]) -> SetParametersResult:
        """Accept or refuse a change as a whole, saying why."""
        changes = {parameter.name: parameter.value for parameter in self._ours(parameters)}
        current = {name: value for name, _, value in declarations(self.settings)}
        if self._is_configured():
            for name, value in changes.items():
                if self._declared[name].read_only and value != current[name]:
                    reason = (
                        f"{name}: takes effect at configure; deactivate and clean up the node, then set it"
                    )
                    return SetParametersResult(successful=False, reason=reason)
        try:
            self._with_values(self.settings, changes)
        except ConfigurationError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply(self, parameters: Sequence[RosParameter[Any]]) -> None:
        changes = {parameter.name: parameter.value for parameter in self._ours(parameters)}
        if changes:
            self.settings = self.settings.with_values(changes)
            self._on_change(self.settings)

    def _check_and_apply(self, parameters: Sequence[RosParameter[Any]]) -> SetParametersResult:
        result = self._check(parameters)
        if result.successful:
            self._apply(parameters)
        return result

    def _with_values(self, settings: Settings, values: Mapping[str, Any]) -> Settings:
        """Return the settings with some values replaced, or raise ConfigurationError for one of no use."""
        changed = settings.with_values(values)
        for name in TOPICS:
            topic = getattr(changed.node, name)
            if not topic and name in MAY_BE_EMPTY:
                continue
            try:
                validate_topic_name(self._node.resolve_topic_name(topic))
            except Exception as error:  # a name that cannot be expanded raises an error of rcl's own
                reason = str(error).splitlines()[0].rstrip(":")
                raise ConfigurationError(
                    f"{name}: expected the name of a topic, got {topic!r} ({reason})"
                ) from error
        return changed

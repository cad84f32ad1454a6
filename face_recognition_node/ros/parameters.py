"""Every parameter of the node: declared once, checked on every change and handed on for the next frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
from rclpy.validate_topic_name import validate_topic_name

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.common.parameters import (
    Parameter,
    Section,
    Value,
    fixed_parameter,
    flatten,
    nearest,
    parameter,
    with_values,
)
from face_recognition_node.config import Config

# words that YAML takes for words: it would read `on` and `off` as true and false
OUTPUT_CHOICES = ("auto", "always", "never")


@dataclass(frozen=True, slots=True)
class NodeConfig(Section):
    """Topics, gallery file, transport; ``read_only`` here means: only while the node is unconfigured."""

    autostart: bool = fixed_parameter(
        False, "Configure and activate at start; for a start without the launch file or a lifecycle manager."
    )
    image_topic: str = fixed_parameter("image", "Topic of the camera images; may be remapped.")
    image_transport: str = fixed_parameter(
        "raw",
        "raw: sensor_msgs/Image on image_topic; compressed: sensor_msgs/CompressedImage (JPEG or PNG) on "
        "image_topic/compressed.",
        choices=("raw", "compressed"),
    )
    depth_topic: str = fixed_parameter(
        "",
        "Topic of the depth images registered to the camera images (16UC1 in mm or 32FC1 in m); empty: none.",
    )
    camera_info_topic: str = fixed_parameter(
        "", "Topic of sensor_msgs/CameraInfo, needed for positions in space; empty: none."
    )
    depth_tolerance: float = parameter(
        0.05,
        "Maximum difference between the stamps of an image and its depth image, seconds.",
        limits=(0.0, 1.0),
    )
    qos_reliability: str = fixed_parameter(
        "best_effort",
        "Reliability of the image subscriptions; best_effort is ROS's sensor data profile.",
        choices=("best_effort", "reliable"),
    )
    qos_depth: int = fixed_parameter(
        2, "Images that the middleware queues; only the newest is processed.", limits=(1, 100)
    )
    maximum_megapixels: float = parameter(
        64.0, "Larger images are refused before decoding, millions of pixels.", limits=(0.1, 1000.0)
    )
    rotate: int = parameter(
        0,
        "Clockwise turn in degrees that makes the image upright; results stay in the coordinates of the "
        "original image.",
        choices=(0, 90, 180, 270),
    )
    gallery_path: str = fixed_parameter(
        "", "Gallery file; empty: face_recognition_node/gallery.db in the user's data folder (XDG)."
    )
    always_on: bool = parameter(
        False, "Process every image even while nobody subscribes to the faces and no action runs."
    )
    publish_embeddings: bool = parameter(False, "Publish the embedding of each face (biometric data).")
    publish_detections: str = fixed_parameter(
        "auto",
        "Also publish the faces as vision_msgs; auto: if vision_msgs is installed.",
        choices=OUTPUT_CHOICES,
    )
    publish_humans: str = fixed_parameter(
        "never",
        "Also publish the faces by ROS4HRI (REP 155) below /humans; auto: if hri_msgs is installed.",
        choices=OUTPUT_CHOICES,
    )
    publish_markers: str = fixed_parameter(
        "auto",
        "Also publish faces that have a position as markers for RViz; auto: if visualization_msgs is "
        "installed.",
        choices=OUTPUT_CHOICES,
    )
    publish_frames: str = fixed_parameter(
        "never",
        "Also publish a TF frame person_ID for everybody who has an id and a position; auto: if tf2_msgs "
        "is installed.",
        choices=OUTPUT_CHOICES,
    )
    annotated_rate: float = parameter(
        10.0,
        "Maximum rate of annotated images per second; drawn only while somebody subscribes.",
        limits=(0.1, 1000.0),
    )
    image_timeout: float = parameter(
        2.0,
        "Seconds without an image after which diagnostics warn and an enrollment ends.",
        limits=(0.1, 60.0),
    )
    diagnostics_period: float = fixed_parameter(
        1.0, "Time between two diagnostics messages, seconds.", limits=(0.1, 60.0)
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """Every parameter of the node."""

    node: NodeConfig = dataclasses.field(default_factory=NodeConfig)  # what only ROS needs
    # what the core needs; its dotted names are parameter names as they are
    recognition: Config = dataclasses.field(default_factory=Config)

    def with_values(self, values: Mapping[str, object]) -> Settings:
        """Return the settings with parameters replaced; ConfigurationError for an unknown or bad one."""
        own = {field.name for field in dataclasses.fields(NodeConfig)}
        return Settings(
            with_values(self.node, {name: value for name, value in values.items() if name in own}),
            with_values(self.recognition, {name: value for name, value in values.items() if name not in own}),
        )


def declarations(settings: Settings | None = None) -> Iterator[tuple[str, Parameter, Value]]:
    """Yield (name, declaration, value) of every parameter, the node's own first."""
    settings = settings or Settings()
    yield from flatten(settings.node)
    yield from flatten(settings.recognition)


Declarations = Sequence[tuple[str, Parameter, Value]]


def describe(declared: Parameter, *, is_fixed: bool = False) -> ParameterDescriptor:
    """Return the ROS descriptor of a declared parameter.

    One that ``is_fixed`` can only be given at start, so ROS itself may call it read-only. The declaration's
    ``read_only`` means "only while unconfigured", because a lifecycle node is set up anew each time.
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
    """Declare parameters and return their values; ConfigurationError for one given at start and wrong."""
    values: dict[str, Value] = {}
    for name, declared, default in items:
        descriptor = describe(declared, is_fixed=name in fixed)
        given = node._parameter_overrides.get(name)
        if isinstance(declared.default, float) and given is not None and type(given.value) is int:
            node._parameter_overrides[name] = RosParameter(name, value=float(given.value))
        try:
            value: object = node.declare_parameter(name, default, descriptor).value
        except (ParameterException, TypeError) as error:
            kind = type(declared.default).__name__
            raise ConfigurationError(
                f"parameter {name}: expected {kind} {bounds(declared)}; {error}"
            ) from error
        values[name] = declared.check(name, value)
    for text in unknown_overrides(set(node._parameter_overrides) - {"use_sim_time"}, set(values)):
        node.get_logger().warning(text)
    return values


def unknown_overrides(given: set[str], known: set[str]) -> list[str]:
    """Return a sentence for every parameter given at start that does not exist, naming the nearest."""
    found = []
    for name in sorted(given - known):
        if name.startswith(("qos_overrides.", "start_type_description_service")):
            continue  # rclpy's own
        found.append(f"there is no parameter {name[:200]!r}, it has no effect{nearest(name, known)}")
    return found


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


TOPICS = ("image_topic", "depth_topic", "camera_info_topic")
MAY_BE_EMPTY = TOPICS[1:]


class NodeParameters:
    """The parameters of the recognition node; ``settings`` are the values in force.

    Parameters that matter at configure only are refused while ``is_configured()``. ``on_change`` is called
    with the new settings after a change was accepted, on the thread of the service.

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

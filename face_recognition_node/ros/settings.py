"""The node's own parameters, and all parameters together: what only ROS needs beside the core's sections."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from face_recognition_node.common.parameters import (
    Parameter,
    Value,
    check_section,
    flatten,
    parameter,
    with_values,
)
from face_recognition_node.config import Config

OUTPUT_CHOICES = ("auto", "always", "never")
"""Words that YAML takes for words: it would read ``on`` and ``off`` as true and false."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Topics, gallery file, transport; ``read_only`` here means: only while the node is unconfigured."""

    autostart: bool = parameter(
        False,
        "Configure and activate at start, for a start without launch or a lifecycle manager.",
        read_only=True,
    )
    image_topic: str = parameter("image", "Topic of the camera's images; may be remapped.", read_only=True)
    image_transport: str = parameter(
        "raw",
        "raw: sensor_msgs/Image on image_topic; compressed: sensor_msgs/CompressedImage (JPEG or PNG) on "
        "image_topic/compressed.",
        choices=("raw", "compressed"),
        read_only=True,
    )
    depth_topic: str = parameter(
        "",
        "Topic of depth images registered to the camera's (16UC1 in mm or 32FC1 in m); empty: none.",
        read_only=True,
    )
    camera_info_topic: str = parameter(
        "",
        "Topic of the camera's sensor_msgs/CameraInfo; with it and depth, faces get a position in space; "
        "empty: none.",
        read_only=True,
    )
    depth_tolerance: float = parameter(
        0.05, "Largest difference of stamps between image and depth image, seconds.", minimum=0.0, maximum=1.0
    )
    qos_reliability: str = parameter(
        "best_effort",
        "How images are received; best_effort is ROS's sensor data profile.",
        choices=("best_effort", "reliable"),
        read_only=True,
    )
    qos_depth: int = parameter(
        2,
        "Images the middleware holds for us; only the newest is worked on.",
        minimum=1,
        maximum=100,
        read_only=True,
    )
    rotate: int = parameter(
        0,
        "Turn the image clockwise by this many degrees to make it upright; what is published stays in the "
        "coordinates of the image as it came.",
        choices=(0, 90, 180, 270),
    )
    gallery_path: str = parameter(
        "",
        "The gallery's file; empty: face_recognition_node/gallery.db in the user's data folder (XDG).",
        read_only=True,
    )
    always_on: bool = parameter(
        False, "Work on every image even while nobody subscribes to the faces and nobody is being enrolled."
    )
    publish_embeddings: bool = parameter(
        False, "Publish the embedding of each face (biometric data) along with it."
    )
    publish_detections: str = parameter(
        "auto",
        "Also publish the faces as vision_msgs/Detection2DArray; auto: where vision_msgs is installed.",
        choices=OUTPUT_CHOICES,
        read_only=True,
    )
    publish_humans: str = parameter(
        "never",
        "Also publish the faces by ROS4HRI (REP 155) below /humans; auto: where hri_msgs is installed.",
        choices=OUTPUT_CHOICES,
        read_only=True,
    )
    annotated_rate: float = parameter(
        10.0,
        "Most annotated images per second; drawn only while somebody subscribes.",
        minimum=0.1,
        maximum=1000.0,
    )
    image_timeout: float = parameter(
        2.0,
        "Without an image for this time diagnostics warn and an enrolment ends, seconds.",
        minimum=0.1,
        maximum=60.0,
    )
    diagnostics_period: float = parameter(
        1.0, "Time between two diagnostics messages, seconds.", minimum=0.1, maximum=60.0, read_only=True
    )

    def __post_init__(self) -> None:
        check_section(self)


@dataclass(frozen=True, slots=True)
class Settings:
    """Every parameter of the node.

    Attributes:
        node: What only ROS needs.
        recognition: What the core needs; its dotted names are parameter names as they are.
    """

    node: NodeConfig = dataclasses.field(default_factory=NodeConfig)
    recognition: Config = dataclasses.field(default_factory=Config)

    def with_values(self, values: Mapping[str, object]) -> Settings:
        """Return the settings with some parameters replaced.

        Raises:
            ConfigurationError: For an unknown name or a value outside its bounds.
        """
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

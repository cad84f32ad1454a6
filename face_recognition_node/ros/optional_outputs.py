"""Outputs in the messages of other packages, made where these are installed."""

from __future__ import annotations

from typing import Protocol

from rclpy.lifecycle import LifecycleNode

from face_recognition_interfaces.msg import FaceArray
from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.ros.humans_output import HumansOutput
from face_recognition_node.ros.settings import NodeConfig
from face_recognition_node.ros.vision_output import VisionOutput


class OptionalOutput(Protocol):
    """Publishes the faces in other words."""

    def count_subscribers(self) -> int:
        """Return how many want them."""
        ...

    def publish(self, faces: FaceArray) -> None:
        """Publish the answer to one image."""
        ...

    def clear(self) -> None:
        """End what is said of the faces: no more images are answered."""
        ...

    def close(self) -> None:
        """Take the publishers off the network."""
        ...


def make_outputs(node: LifecycleNode, config: NodeConfig) -> list[OptionalOutput]:
    """Return the outputs that the parameters ask for.

    Raises:
        ConfigurationError: One is to be made ``always``, and its message package is not installed.
    """
    outputs: list[OptionalOutput] = []
    for wish, parameter, package, make in (
        (config.publish_detections, "publish_detections", "vision_msgs", VisionOutput),
        (config.publish_humans, "publish_humans", "hri_msgs", HumansOutput),
    ):
        if wish == "never":
            continue
        try:
            outputs.append(make(node))
        except ImportError as error:
            if wish == "always":
                for output in outputs:
                    output.close()
                raise ConfigurationError(
                    f"{parameter} is always, but the package {package} cannot be imported ({error}); cure: "
                    f"sudo apt install ros-$ROS_DISTRO-{package.replace('_', '-')}, or set it to never"
                ) from error
    return outputs

"""Starts the recognition node and a video source that feeds it, and brings both to active.

    ros2 launch face_recognition_node face_recognition_with_source.launch.py source:=0

Takes all arguments of face_recognition.launch.py, too.
"""

import runpy
from pathlib import Path

from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

RECOGNITION = str(Path(__file__).resolve().with_name("face_recognition.launch.py"))
shared = runpy.run_path(RECOGNITION)
"""The functions of the other launch file, whose name cannot be imported."""

ARGUMENTS = {
    "source": ("sample", "Camera number (0), video, GIF, folder, bag, URL, or sample (built in)."),
    "rate": ("0.0", "Frames per second; 0.0: as recorded."),
    "frame_id": ("camera", "Coordinate frame in the header of the images."),
    # The source and the node must agree: what the parameter file says of these two does not count here.
    "image": ("image", "Topic of the images, from the source to the node."),
    "image_transport": ("raw", "Transport of the images.", ["raw", "compressed"]),
    "at_end": ("loop", "When a recording ends: play it again, or stop.", ["loop", "stop"]),
}
"""Name → default, description and, where they are limited, the values."""


def check_rate(context):
    """Refuse a rate that is no number before anything is started."""
    rate = LaunchConfiguration("rate").perform(context)
    try:
        float(rate)
    except ValueError:
        raise RuntimeError(f"rate: expected frames per second, got {rate!r}") from None


def start_source(context):
    """Return the source and what brings it up.

    Runs after the included file, so that its arguments (image, namespace ...) have their values.
    """

    def value(name):
        return LaunchConfiguration(name).perform(context)

    node = LifecycleNode(
        package="face_recognition_node",
        executable="video_source_node",
        name="video_source",
        namespace=value("namespace"),
        parameters=[
            {
                # A bare "0" would be taken for a number.
                "source": ParameterValue(value("source"), value_type=str),
                "rate": float(value("rate")),
                "frame_id": ParameterValue(value("frame_id"), value_type=str),
                "at_end": value("at_end"),
                "transport": value("image_transport"),
                "autostart": shared["brings_itself_up"](value),
            }
        ],
        remappings=[("image", value("image"))],
        arguments=["--ros-args", "--log-level", value("log_level")],
        output="screen",
        **shared["at_exit"](value),
    )
    return shared["bring_up"](node, value)


def generate_launch_description():
    return LaunchDescription(
        [
            *shared["declare"](ARGUMENTS),
            OpaqueFunction(function=check_rate),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(RECOGNITION)),
            OpaqueFunction(function=start_source),
        ]
    )

"""Starts the recognition node and a video source that feeds it, and brings both to active.

    ros2 launch face_recognition_node face_recognition_with_source.launch.py source:=0

Takes all arguments of face_recognition.launch.py, too.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.events import matches_action
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition

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


def declare_arguments():
    """Return the declarations of ARGUMENTS."""
    actions = []
    for name, (default, text, *choices) in ARGUMENTS.items():
        limits = {"choices": choices[0]} if choices else {}
        actions.append(DeclareLaunchArgument(name, default_value=default, description=text, **limits))
    return actions


def start_source(context):
    """Return the source and what brings it up.

    Runs after the included file, so that its arguments (image, namespace ...) have their values.
    """

    def value(name):
        return LaunchConfiguration(name).perform(context)

    try:
        rate = float(value("rate"))
    except ValueError:
        raise RuntimeError(f"rate: expected frames per second, got {value('rate')!r}") from None

    node = LifecycleNode(
        package="face_recognition_node",
        executable="video_source_node",
        name="video_source",
        namespace=value("namespace"),
        parameters=[
            {
                # A bare "0" would be taken for a number.
                "source": ParameterValue(value("source"), value_type=str),
                "rate": rate,
                "frame_id": ParameterValue(value("frame_id"), value_type=str),
                "at_end": value("at_end"),
                "transport": value("image_transport"),
            }
        ],
        remappings=[("image", value("image"))],
        arguments=["--ros-args", "--log-level", value("log_level")],
        output="screen",
    )

    def change(transition):
        return EmitEvent(
            event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition)
        )

    waiting = [change(Transition.TRANSITION_ACTIVATE)]

    def activate_once(context):
        # later on an operator may configure the source and want it to stay inactive
        return [waiting.pop()] if waiting else []

    activate = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="inactive",
            entities=[OpaqueFunction(function=activate_once)],
        )
    )
    if value("autostart") != "true":
        return [node]
    return [activate, node, change(Transition.TRANSITION_CONFIGURE)]


def generate_launch_description():
    recognition = Path(__file__).resolve().with_name("face_recognition.launch.py")
    return LaunchDescription(
        [
            *declare_arguments(),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(recognition))),
            OpaqueFunction(function=start_source),
        ]
    )

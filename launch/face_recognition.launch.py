"""Starts the recognition node and brings it to active.

    ros2 launch face_recognition_node face_recognition.launch.py image:=/camera/image_raw

All arguments: ``ros2 launch face_recognition_node face_recognition.launch.py --show-args``.
"""

import os
from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition

SHARE = Path(__file__).resolve().parents[1]
"""The package's share folder, or its source tree: launch/ and config/ lie side by side in both."""

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""What Fast DDS looks at since version 2.14, and before (ROS 2 Humble)."""

ARGUMENTS = {
    "image": ("", "Topic of the camera's images; empty: image_topic of the parameter file ('image')."),
    "image_transport": (
        "",
        "raw, or compressed (reads <image>/compressed); empty: that of the parameter file (raw).",
        ["", "raw", "compressed"],
    ),
    "depth": ("", "Topic of depth images registered to the camera's; empty: that of the parameter file."),
    "camera_info": ("", "Topic of the camera's CameraInfo; empty: that of the parameter file."),
    "namespace": ("", "Namespace of the node."),
    "params_file": (str(SHARE / "config" / "face_recognition.yaml"), "Parameter file (YAML)."),
    "gallery_path": ("", "Gallery file; empty: that of the parameter file (the user's data folder)."),
    "models_dir": ("", "Folder of models; empty: that of the parameter file (the package's own)."),
    "log_level": ("info", "Least severe messages to log.", ["debug", "info", "warn", "error", "fatal"]),
    "autostart": ("true", "Configure and activate; otherwise the node waits to be told.", ["true", "false"]),
    "use_sim_time": ("false", "Take the time from /clock (recordings, simulation).", ["true", "false"]),
    "fastdds_profile": (
        str(SHARE / "config" / "fastdds_profile.xml"),
        "Fast DDS profile for large images, unless the environment names one already; empty: none.",
    ),
}
"""Name → default, description and, where they are limited, the values."""

PARAMETERS = {
    "image": "image_topic",
    "image_transport": "image_transport",
    "depth": "depth_topic",
    "camera_info": "camera_info_topic",
    "gallery_path": "gallery_path",
    "models_dir": "models.models_dir",
}
"""Argument → parameter of the node."""

NOT_CONFIGURED = (
    "The node could not be configured; it says above why not. When that is cured: "
    "ros2 lifecycle set <node> configure, then activate."
)


def declare_arguments():
    """Return the declarations of ARGUMENTS."""
    actions = []
    for name, (default, text, *choices) in ARGUMENTS.items():
        limits = {"choices": choices[0]} if choices else {}
        actions.append(DeclareLaunchArgument(name, default_value=default, description=text, **limits))
    return actions


def set_fastdds_profile(context):
    """Return what makes room for images in shared memory, unless the user has seen to that."""
    path = LaunchConfiguration("fastdds_profile").perform(context)
    if not path or any(os.environ.get(name) for name in PROFILE_VARIABLES):
        return []
    return [SetEnvironmentVariable(name, path) for name in PROFILE_VARIABLES]


def start_node(context):
    """Return the node with the parameters asked for, and what brings it up."""

    def value(name):
        return LaunchConfiguration(name).perform(context)

    # Only what was asked for: the rest is up to the parameter file.
    overrides = {
        parameter: ParameterValue(value(argument), value_type=str)
        for argument, parameter in PARAMETERS.items()
        if value(argument)
    }
    if value("use_sim_time") == "true":
        overrides["use_sim_time"] = True

    node = LifecycleNode(
        package="face_recognition_node",
        executable="face_recognition_node",
        name="face_recognition",
        namespace=value("namespace"),
        parameters=[value("params_file"), *([overrides] if overrides else [])],
        arguments=["--ros-args", "--log-level", value("log_level")],
        output="screen",
    )
    if value("autostart") != "true":
        return [node]
    return bring_up(node)


def bring_up(node):
    """Return the actions that start a lifecycle node, configure it and, once that is done, activate it."""

    def change(transition):
        return EmitEvent(
            event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition)
        )

    activate = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="inactive",
            entities=[change(Transition.TRANSITION_ACTIVATE)],
        )
    )
    explain = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="unconfigured",
            entities=[LogInfo(msg=NOT_CONFIGURED)],
        )
    )
    return [activate, explain, node, change(Transition.TRANSITION_CONFIGURE)]


def generate_launch_description():
    return LaunchDescription(
        [
            *declare_arguments(),
            OpaqueFunction(function=set_fastdds_profile),
            OpaqueFunction(function=start_node),
        ]
    )

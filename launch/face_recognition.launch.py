"""Starts the recognition node and brings it to active.

    ros2 launch face_recognition_node face_recognition.launch.py image:=/camera/image_raw

All arguments: ``ros2 launch face_recognition_node face_recognition.launch.py --show-args``.
"""

import os
import signal
from pathlib import Path

import yaml
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
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition

SHARE = Path(__file__).resolve().parents[1]
"""The package's share folder, or its source tree: launch/ and config/ lie side by side in both."""

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""What Fast DDS looks at since version 2.14, and before (ROS 2 Humble); newer ones warn about the latter."""

ARGUMENTS = {
    "image": ("", "Topic of the camera's images; empty: image_topic of the parameter file ('image')."),
    "image_transport": (
        "",
        "raw, or compressed (reads <image>/compressed); empty: that of the parameter file (raw).",
        ["", "raw", "compressed"],
    ),
    "depth": ("", "Topic of depth images registered to the camera's; empty: that of the parameter file."),
    "camera_info": ("", "Topic of the camera's CameraInfo; empty: that of the parameter file."),
    "qos_reliability": (
        "",
        "How images are received; empty: that of the parameter file (best_effort).",
        ["", "best_effort", "reliable"],
    ),
    "publish_humans": (
        "",
        "Also publish by ROS4HRI below /humans; empty: that of the parameter file (never).",
        ["", "auto", "always", "never"],
    ),
    "publish_detections": (
        "",
        "Also publish vision_msgs; empty: that of the parameter file (auto).",
        ["", "auto", "always", "never"],
    ),
    "params": ("{}", 'Any other parameters as YAML: "{rotate: 180, detector.working_width: 960}".'),
    "respawn": ("false", "Start a node again whenever its process ends.", ["true", "false"]),
    "namespace": ("", "Namespace of the node."),
    "params_file": (str(SHARE / "config" / "face_recognition.yaml"), "Parameter file (YAML)."),
    "gallery_path": ("", "Gallery file; empty: that of the parameter file (the user's data folder)."),
    "models_dir": ("", "Folder of models; empty: that of the parameter file (the package's own)."),
    "log_level": ("info", "Least severe messages to log.", ["debug", "info", "warn", "error", "fatal"]),
    "autostart": ("true", "Configure and activate the node at start.", ["true", "false"]),
    "web": ("false", "Also start the operator's page in the browser.", ["true", "false"]),
    "web_host": ("127.0.0.1", "Address the page listens on; any other needs the token that it prints."),
    "web_port": ("8642", "Port of the page."),
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
    "qos_reliability": "qos_reliability",
    "publish_humans": "publish_humans",
    "publish_detections": "publish_detections",
    "gallery_path": "gallery_path",
    "models_dir": "models.models_dir",
}
"""Argument → parameter of the node."""

NOT_CONFIGURED = (
    "The node could not be configured; it says above why not. When that is cured: "
    "ros2 lifecycle set <node> configure, then activate."
)


def declare(arguments):
    """Return the declarations of arguments like ARGUMENTS."""
    actions = []
    for name, (default, text, *choices) in arguments.items():
        limits = {"choices": choices[0]} if choices else {}
        actions.append(DeclareLaunchArgument(name, default_value=default, description=text, **limits))
    return actions


def set_fastdds_profile(context):
    """Return what makes room for images in shared memory, unless the user has seen to that."""
    path = LaunchConfiguration("fastdds_profile").perform(context)
    named = {name: os.environ[name] for name in PROFILE_VARIABLES if os.environ.get(name)}
    missing = [
        LogInfo(msg=f"{name} names {file}, which does not exist: large images will be lost")
        for name, file in (named or ({"fastdds_profile": path} if path else {})).items()
        if not Path(file).is_file()
    ]
    if named or missing or not path:
        return missing
    is_humble = os.environ.get("ROS_DISTRO") == "humble"
    return [SetEnvironmentVariable(PROFILE_VARIABLES[is_humble], path)]


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
    try:
        more = yaml.safe_load(value("params")) or {}
    except yaml.YAMLError:
        more = None
    if not isinstance(more, dict):
        raise RuntimeError(f"params: expected '{{name: value, ...}}', got {value('params')!r}")
    overrides.update(more)
    if not Path(value("params_file")).is_file():  # launch_ros would go on with the defaults
        raise RuntimeError(f"params_file: there is no file {value('params_file')!r}")
    if brings_itself_up(value):
        overrides["autostart"] = True

    node = LifecycleNode(
        package="face_recognition_node",
        executable="face_recognition_node",
        name="face_recognition",
        namespace=value("namespace"),
        parameters=[value("params_file"), *([overrides] if overrides else [])],
        arguments=["--ros-args", "--log-level", value("log_level")],
        output="screen",
        **at_exit(value),
    )
    page = [start_page(value)] if value("web") == "true" else []
    return [*bring_up(node, value), *page]


def brings_itself_up(value):
    """Return whether a node configures and activates itself: one that is started again has to."""
    return value("respawn") == value("autostart") == "true"


def at_exit(value):
    """Return what becomes of a node, or of the launch, when its process ends."""
    if value("respawn") == "true":
        return {"respawn": True, "respawn_delay": 1.0}
    return {"on_exit": end_with_failure}


def start_page(value):
    """Return the node of the operator's page; the robot goes on without it when it ends."""
    if not value("web_port").isdecimal():
        raise RuntimeError(f"web_port: expected a port, got {value('web_port')!r}")
    return Node(
        package="face_recognition_node",
        executable="web_node",
        name="web",
        namespace=value("namespace"),
        parameters=[
            {
                "host": ParameterValue(value("web_host"), value_type=str),
                "port": int(value("web_port")),
            }
        ],
        output="screen",
    )


NO_FAILURES = (0, -signal.SIGINT, -signal.SIGTERM)
"""Exit codes of a node that somebody ended; the signals, if they came before it could handle them."""


def end_with_failure(event, context):
    """End the launch with an error when the node ended with one; without this it would wait for ever."""
    if event.returncode not in NO_FAILURES and not context.is_shutdown:
        raise RuntimeError(f"{event.process_name} ended with exit code {event.returncode}; it says why above")


def bring_up(node, value):
    """Return the actions that start a lifecycle node and, with autostart, configure and activate it."""
    if value("autostart") != "true" or brings_itself_up(value):
        return [node]

    def change(transition):
        return EmitEvent(
            event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition)
        )

    waiting = [change(Transition.TRANSITION_ACTIVATE)]

    def activate_once(context):
        # later on an operator may configure the node and want it to stay inactive
        return [waiting.pop()] if waiting else []

    once_configured = {
        "inactive": OpaqueFunction(function=activate_once),
        "unconfigured": LogInfo(msg=NOT_CONFIGURED),
    }
    handlers = [
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node, start_state="configuring", goal_state=state, entities=[action]
            )
        )
        for state, action in once_configured.items()
    ]
    return [*handlers, node, change(Transition.TRANSITION_CONFIGURE)]


def generate_launch_description():
    return LaunchDescription(
        [
            *declare(ARGUMENTS),
            OpaqueFunction(function=set_fastdds_profile),
            OpaqueFunction(function=start_node),
        ]
    )

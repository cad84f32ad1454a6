"""The launch files: run against stand-ins for launch and launch_ros, and for real where these exist."""

from __future__ import annotations

import ast
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "launch"
ALONE = FOLDER / "face_recognition.launch.py"
WITH_SOURCE = FOLDER / "face_recognition_with_source.launch.py"
FILES = [ALONE, WITH_SOURCE]
IDS = [path.name for path in FILES]

# the names that Humble, Jazzy and Kilted have in common; a launch file that uses another one fails here
STAND_INS = {
    "launch": ["LaunchDescription"],
    "launch.actions": [
        "DeclareLaunchArgument",
        "EmitEvent",
        "IncludeLaunchDescription",
        "LogInfo",
        "OpaqueFunction",
        "RegisterEventHandler",
        "SetEnvironmentVariable",
    ],
    "launch.events": ["matches_action"],
    "launch.launch_description_sources": ["PythonLaunchDescriptionSource"],
    "launch.substitutions": ["LaunchConfiguration"],
    "launch_ros": [],
    "launch_ros.actions": ["LifecycleNode", "Node"],
    "launch_ros.event_handlers": ["OnStateTransition"],
    "launch_ros.events": [],
    "launch_ros.events.lifecycle": ["ChangeState"],
    "launch_ros.parameter_descriptions": ["ParameterValue"],
    "lifecycle_msgs.msg": ["Transition"],
}


class StandIn:
    """Remembers what it was made with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs

    def perform(self, context: dict[str, str]) -> str:
        return context[self.args[0]]


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, members in STAND_INS.items():
        module = types.ModuleType(name)
        for member in members:
            kind = type(member, (StandIn,), {"TRANSITION_CONFIGURE": 1, "TRANSITION_ACTIVATE": 3})
            setattr(module, member, kind)
        monkeypatch.setitem(sys.modules, name, module)
    for variable in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        monkeypatch.delenv(variable, raising=False)


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.name.split(".")[0], path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def kind(action: Any) -> str:
    return type(action).__name__


def run(path: Path, **given: str) -> list[Any]:
    """Return the actions of a launch file, those of included files and functions among them."""
    module = load(path)
    context: dict[str, str] = {}
    actions: list[Any] = []

    def visit(entities: list[Any]) -> None:
        for entity in entities:
            actions.append(entity)
            if kind(entity) == "DeclareLaunchArgument":
                name = entity.args[0]
                context.setdefault(name, given.get(name, entity.kwargs["default_value"]))
                assert context[name] in entity.kwargs.get("choices", [context[name]])
            elif kind(entity) == "OpaqueFunction":
                visit(entity.kwargs["function"](context) or [])
            elif kind(entity) == "IncludeLaunchDescription":
                visit(load(Path(entity.args[0].args[0])).generate_launch_description().args[0])

    visit(module.generate_launch_description().args[0])
    unknown = set(given) - set(context)
    assert not unknown, f"not declared: {unknown}"
    return actions


def nodes(actions: list[Any]) -> dict[str, Any]:
    return {action.kwargs["name"]: action for action in actions if kind(action) == "LifecycleNode"}


def plain(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: getattr(value, "args", [value])[0] for name, value in parameters.items()}


def transitions(actions: list[Any], node: Any) -> list[tuple[str, int]]:
    """Return (at once or the state waited for, transition) of what is done to a node, in order."""
    found = []
    for action in actions:
        event, when = action, "at once"
        if kind(action) == "RegisterEventHandler":
            handler = action.args[0].kwargs
            (event,) = handler["entities"]
            if kind(event) == "OpaqueFunction":
                (event,) = event.kwargs["function"](None)
            when = f"{handler['start_state']} -> {handler['goal_state']}"
            assert handler["target_lifecycle_node"] in nodes(actions).values()
        if kind(event) == "EmitEvent":
            change = event.kwargs["event"].kwargs
            if change["lifecycle_node_matcher"].args[0] is node:
                found.append((when, change["transition_id"]))
    return found


def test_the_folder_holds_these_launch_files() -> None:
    assert sorted(FOLDER.glob("*.launch.py")) == sorted(FILES)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_only_names_that_every_distribution_has_are_imported(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("launch", "lifecycle_msgs")):
            for alias in node.names:
                assert alias.name in STAND_INS[node.module or ""], f"{path.name}:{node.lineno}"


@pytest.mark.usefixtures("stand_ins")
class TestWithStandIns:
    @pytest.mark.parametrize("path", FILES, ids=IDS)
    def test_every_argument_is_described(self, path: Path) -> None:
        declared = [action for action in run(path) if kind(action) == "DeclareLaunchArgument"]
        names = [action.args[0] for action in declared]
        # the source's file gives these two other defaults
        twice = {"image", "image_transport"} if path == WITH_SOURCE else set()
        assert {name for name in names if names.count(name) > 1} == twice
        for action in declared:
            assert len(action.kwargs["description"]) > 10
            assert isinstance(action.kwargs["default_value"], str)

    def test_the_arguments_promised_are_there(self) -> None:
        names = {action.args[0] for action in run(ALONE) if kind(action) == "DeclareLaunchArgument"}
        assert names >= {
            "image",
            "image_transport",
            "depth",
            "camera_info",
            "namespace",
            "params_file",
            "gallery_path",
            "models_dir",
            "log_level",
            "autostart",
        }

    def test_the_node_gets_the_shipped_parameters_and_nothing_else(self) -> None:
        node = nodes(run(ALONE))["face_recognition"]
        assert node.kwargs["package"] == "face_recognition_node"
        assert node.kwargs["executable"] == "face_recognition_node"
        (params_file,) = node.kwargs["parameters"]
        assert Path(params_file).is_file()

    def test_what_is_asked_for_overrides_the_parameter_file(self, tmp_path: Path) -> None:
        mine = tmp_path / "my.yaml"
        mine.touch()
        actions = run(
            ALONE,
            image="/camera/image_raw",
            image_transport="compressed",
            depth="/camera/depth",
            camera_info="/camera/camera_info",
            gallery_path="/data/0",
            models_dir="/models",
            params_file=str(mine),
            namespace="head",
            log_level="debug",
            use_sim_time="true",
        )
        node = nodes(actions)["face_recognition"]
        params_file, overrides = node.kwargs["parameters"]
        assert params_file == str(mine)
        assert plain(overrides) == {
            "image_topic": "/camera/image_raw",
            "image_transport": "compressed",
            "depth_topic": "/camera/depth",
            "camera_info_topic": "/camera/camera_info",
            "gallery_path": "/data/0",
            "models.models_dir": "/models",
            "use_sim_time": True,
        }
        assert node.kwargs["namespace"] == "head"
        assert node.kwargs["arguments"] == ["--ros-args", "--log-level", "debug"]

    def test_every_override_is_a_parameter_of_the_node(self) -> None:
        pytest.importorskip("built_interfaces")
        from face_recognition_node.ros.parameters import declarations

        known = {name: type(value) for name, _, value in declarations()}
        for parameter in load(ALONE).PARAMETERS.values():
            assert known[parameter] is str

    def test_every_value_for_the_source_is_a_parameter_of_it(self) -> None:
        pytest.importorskip("built_interfaces")
        from face_recognition_node.common.parameters import flatten
        from face_recognition_node.ros.video_source import VideoSourceConfig

        known = {name: (declared, type(value)) for name, declared, value in flatten(VideoSourceConfig())}
        (values,) = nodes(run(WITH_SOURCE))["video_source"].kwargs["parameters"]
        for name, value in plain(values).items():
            declared, expected = known[name]
            assert type(value) is expected
            declared.check(name, value)

    def test_the_page_comes_when_asked_for_with_parameters_of_its_own(self) -> None:
        assert "Node" not in [kind(action) for action in run(ALONE)]
        for more in ({}, {"autostart": "false"}, {"respawn": "true"}):
            actions = run(ALONE, web="true", web_host="192.168.1.5", web_port="80", namespace="head", **more)
            (page,) = [action for action in actions if kind(action) == "Node"]
            assert (page.kwargs["executable"], page.kwargs["namespace"]) == ("web_node", "head")
            (values,) = page.kwargs["parameters"]
            assert plain(values) == {"host": "192.168.1.5", "port": 80}

    def test_the_node_is_configured_and_then_activated(self) -> None:
        actions = run(ALONE)
        node = nodes(actions)["face_recognition"]
        assert transitions(actions, node) == [("configuring -> inactive", 3), ("at once", 1)]
        order = [kind(action) for action in actions]
        # The handler must wait before the node starts, and the node be there before it is told.
        assert order.index("RegisterEventHandler") < order.index("LifecycleNode") < order.index("EmitEvent")

    def test_a_failed_configuration_is_explained(self) -> None:
        handlers = [action.args[0].kwargs for action in run(ALONE) if kind(action) == "RegisterEventHandler"]
        (explained,) = [handler for handler in handlers if handler["goal_state"] == "unconfigured"]
        assert "ros2 lifecycle" in explained["entities"][0].kwargs["msg"]

    @pytest.mark.parametrize("path", FILES, ids=IDS)
    def test_without_autostart_the_nodes_wait(self, path: Path) -> None:
        actions = run(path, autostart="false")
        for node in nodes(actions).values():
            assert transitions(actions, node) == []

    def test_the_profile_for_large_images_is_set(self) -> None:
        actions = run(ALONE)
        variables = dict(action.args for action in actions if kind(action) == "SetEnvironmentVariable")
        assert set(variables) == {"FASTDDS_DEFAULT_PROFILES_FILE"}
        assert all(Path(path).is_file() for path in variables.values())
        order = [kind(action) for action in actions]
        assert order.index("SetEnvironmentVariable") < order.index("LifecycleNode")

    @pytest.mark.parametrize("variable", ["FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"])
    def test_a_profile_of_the_user_is_kept(self, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(variable, "/mine.xml")
        assert "SetEnvironmentVariable" not in [kind(action) for action in run(ALONE)]

    def test_humble_knows_the_older_variable_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ROS_DISTRO", "humble")
        (variable,) = [action for action in run(ALONE) if kind(action) == "SetEnvironmentVariable"]
        assert variable.args[0] == "FASTRTPS_DEFAULT_PROFILES_FILE"

    def test_a_profile_that_does_not_exist_is_reported_and_not_set(self) -> None:
        actions = run(ALONE, fastdds_profile="/no/such.xml")
        assert "SetEnvironmentVariable" not in [kind(action) for action in actions]
        assert "/no/such.xml" in next(a for a in actions if kind(a) == "LogInfo").kwargs["msg"]

    def test_any_parameter_can_be_given(self) -> None:
        actions = run(ALONE, params="{rotate: 180}", publish_humans="auto", qos_reliability="reliable")
        _, overrides = nodes(actions)["face_recognition"].kwargs["parameters"]
        assert plain(overrides) == {"rotate": 180, "publish_humans": "auto", "qos_reliability": "reliable"}

    @pytest.mark.parametrize("text", ["rotate", "{rotate: 180", "[rotate]"])
    def test_parameters_that_cannot_be_read_are_refused_by_the_name_of_the_argument(self, text: str) -> None:
        with pytest.raises(RuntimeError, match="params: expected"):
            run(ALONE, params=text)

    def test_a_parameter_file_that_is_not_there_is_no_reason_to_run_without_it(self) -> None:
        with pytest.raises(RuntimeError, match=r"params_file: there is no file '/no/such\.yaml'"):
            run(ALONE, params_file="/no/such.yaml")

    def test_a_port_that_is_no_number_is_refused_by_the_name_of_its_argument(self) -> None:
        with pytest.raises(RuntimeError, match="web_port: expected a port, got 'http'"):
            run(ALONE, web="true", web_port="http")

    def test_a_node_that_is_respawned_brings_itself_up(self) -> None:
        actions = run(WITH_SOURCE, respawn="true")
        for node in nodes(actions).values():
            assert node.kwargs["respawn"] is True
            assert "on_exit" not in node.kwargs
            assert node.kwargs["parameters"][-1]["autostart"] is True
            assert transitions(actions, node) == []

    @pytest.mark.parametrize("path", FILES, ids=IDS)
    def test_the_nodes_are_activated_once_only(self, path: Path) -> None:
        handlers = [action.args[0].kwargs for action in run(path) if kind(action) == "RegisterEventHandler"]
        for handler in handlers:
            if handler["goal_state"] == "inactive":
                activate = handler["entities"][0].kwargs["function"]
                assert [len(activate(None)) for _ in range(3)] == [1, 0, 0]

    @pytest.mark.parametrize("name", ["face_recognition", "video_source"])
    def test_the_launch_fails_with_a_node(self, name: str) -> None:
        on_exit = nodes(run(WITH_SOURCE))[name].kwargs["on_exit"]
        running, ending = types.SimpleNamespace(is_shutdown=False), types.SimpleNamespace(is_shutdown=True)
        for code in (2, -11, -9):  # a refusal to start, a crash, killed for want of memory
            with pytest.raises(RuntimeError, match=f"{name}-1 ended with exit code {code}"):
                on_exit(types.SimpleNamespace(process_name=f"{name}-1", returncode=code), running)
        assert on_exit(types.SimpleNamespace(returncode=-2), running) is None
        assert on_exit(types.SimpleNamespace(returncode=0), running) is None
        assert on_exit(types.SimpleNamespace(returncode=1), ending) is None

    def test_the_profile_can_be_left_out(self) -> None:
        assert "SetEnvironmentVariable" not in [kind(action) for action in run(ALONE, fastdds_profile="")]

    def test_source_and_node_speak_of_the_same_topic(self) -> None:
        actions = run(WITH_SOURCE, source="0", image="/cam", image_transport="compressed", namespace="head")
        both = nodes(actions)
        assert set(both) == {"face_recognition", "video_source"}
        source, node = both["video_source"], both["face_recognition"]
        assert source.kwargs["remappings"] == [("image", "/cam")]
        assert source.kwargs["namespace"] == node.kwargs["namespace"] == "head"
        assert plain(node.kwargs["parameters"][1])["image_topic"] == "/cam"
        (values,) = source.kwargs["parameters"]
        assert values["transport"] == "compressed"
        assert values["source"].args[0] == "0"
        assert values["source"].kwargs["value_type"] is str

    def test_the_source_and_the_node_agree_whatever_the_parameter_file_says(self, tmp_path: Path) -> None:
        mine = tmp_path / "with_another_topic.yaml"
        mine.touch()
        both = nodes(run(WITH_SOURCE, params_file=str(mine)))
        _, overrides = both["face_recognition"].kwargs["parameters"]
        assert plain(overrides) == {"image_topic": "image", "image_transport": "raw"}
        (values,) = both["video_source"].kwargs["parameters"]
        assert values["transport"] == "raw"
        assert both["video_source"].kwargs["remappings"] == [("image", "image")]

    def test_a_rate_that_is_no_number_is_refused_by_the_name_of_its_argument(self) -> None:
        with pytest.raises(RuntimeError, match="rate: expected frames per second, got 'fast'"):
            run(WITH_SOURCE, rate="fast")
        # before a node is started that would have to be ended again
        entities = load(WITH_SOURCE).generate_launch_description().args[0]
        checks = [entity for entity in entities if kind(entity) == "OpaqueFunction"]
        assert entities.index(checks[0]) < [kind(each) for each in entities].index("IncludeLaunchDescription")

    def test_both_are_brought_up(self) -> None:
        for name in nodes(run(WITH_SOURCE)):
            actions = run(WITH_SOURCE)
            node = nodes(actions)[name]
            assert transitions(actions, node) == [("configuring -> inactive", 3), ("at once", 1)]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_the_real_launch_accepts_the_file(path: Path) -> None:
    launch = pytest.importorskip("launch", reason="ROS's launch is not among the wheels")
    if not hasattr(launch, "LaunchDescription"):
        pytest.skip("the module 'launch' found here is not ROS's")
    pytest.importorskip("launch_ros", reason="launch_ros is not installed")
    description = load(path).generate_launch_description()
    assert {argument.name for argument in description.get_launch_arguments()} >= {"image", "autostart"}

"""``face-recognition demo``: the real nodes, as a robot runs them, on a video; enroll the first to come."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from face_recognition_node.cli.options import add_address, file_to_write, given_path
from face_recognition_node.cli.processes import Children, enter_own_network
from face_recognition_node.cli.recognize import refuse_the_same
from face_recognition_node.gallery.files import default_gallery_path
from face_recognition_node.media.sources import FrameSource, is_url, open_source

if TYPE_CHECKING:
    from face_recognition_node.cli.demo_outputs import IdentityWatch, Screen
    from face_recognition_node.ros.remote import Remote

NAMESPACE = "/face_recognition_demo"
NODE = f"{NAMESPACE}/face_recognition"
SOURCE = f"{NAMESPACE}/video_source"
LOOK_S = 0.7  # a face has to be in view for this long before it is decided whether it is a newcomer

CUT_SHORT_S = 5.0  # how long the end of an enrollment is waited for after the last image

EPILOG = """\
The demo starts the video source and the recognition node as two processes, brings them to active, enrolls the
first unknown face that stays in view through the action, and prints every change of identity. It runs until
Ctrl-C and repeats a recording; --once plays it once.

exit codes: 0 somebody was identified, 1 nobody was, 2 wrong input or failure, 130 interrupted (with --once)

examples:
  ./run demo                                        # the built-in clip
  ./run demo --web                                  # with the operator's page in the browser
  ./run demo --source 0 --name Anna                 # a webcam, and the person in front of it
  ./run demo --source party.mp4 --once --annotated seen.mp4
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add(
        "--source",
        default="sample",
        help="camera number, video, GIF, picture or folder (default: a built-in clip)",
    )
    add("--name", help="name to enroll (default: the built-in clip's, or Guest)")
    add(
        "--gallery",
        type=given_path,
        metavar="FILE",
        help="gallery file to use and keep, or 'default' for the user's; without it, one that is deleted "
        "at the end",
    )
    add("--annotated", type=file_to_write, metavar="OUT.mp4", help="write the annotated video")
    add("--once", action="store_true", help="end with the clip; exit code 0 only if people were identified")
    add(
        "--web",
        action="store_true",
        help="serve the operator's page; nobody is enrolled until you click a face there",
    )
    add_address(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; return 0, or 1 if nobody was identified."""
    enter_own_network()
    # a camera is left to the node that will own it; of a recording it is seen here that it can be played
    is_camera = arguments.source.isdigit() and not Path(arguments.source).exists()
    source = None if is_camera else open_source(arguments.source)
    if source is not None and arguments.annotated is not None:
        refuse_the_same(arguments.annotated, Path(arguments.source).expanduser())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from face_recognition_node.cli.demo_outputs import IdentityWatch, Screen

    screen = Screen()
    watch = IdentityWatch(screen)
    with contextlib.ExitStack() as stack:
        gallery = arguments.gallery
        if gallery is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="face_recognition_demo_"))
            gallery = Path(folder) / "gallery.db"
            screen.line("The faces of this demo are deleted at its end (--gallery FILE keeps them).")
        elif gallery == Path("default"):
            gallery = default_gallery_path()
        try:
            return _play(arguments, source, str(gallery.absolute()), screen, watch)
        except KeyboardInterrupt:
            screen.end()
            screen.line(watch.summary())
            return 130 if arguments.once else 0


def _play(
    arguments: argparse.Namespace,
    source: FrameSource | None,
    gallery: str,
    screen: Screen,
    watch: IdentityWatch,
) -> int:
    from face_recognition_node.ros.remote import Remote

    at_end = "stop" if arguments.once else "loop"
    is_as_typed = arguments.source == "sample" or source is None or is_url(arguments.source)
    clip = arguments.source if is_as_typed else str(Path(arguments.source).absolute())
    with Children() as children:
        children.start("recognition node", "face_recognition_node.ros.main:main", [
            "--log-level", "warn", "-r", f"__ns:={NAMESPACE}",
            "-p", f"gallery_path:={gallery}", "-p", "annotated_rate:=1000.0",
        ])  # fmt: skip
        children.start("video source", "face_recognition_node.ros.main:video_source", [
            "--log-level", "warn", "-r", f"__ns:={NAMESPACE}",
            "-p", f"source:='{clip}'", "-p", f"at_end:={at_end}", "-p", "wait_for_subscriber:=true",
        ])  # fmt: skip
        if arguments.web:
            children.start("operator's page", "face_recognition_node.ros.main:web", [
                "--log-level", "warn", "-r", f"__ns:={NAMESPACE}",
                "-p", f"port:={arguments.port}", "-p", f"host:='{arguments.host}'",
            ])  # fmt: skip
        with Remote("face_recognition_demo", children.check) as remote, _video(arguments, source, remote):
            ended = _follow(remote, watch)
            began = time.monotonic()
            _start_nodes(remote, screen)
            screen.line(
                f"Both nodes are active ({time.monotonic() - began:.1f} s after the network was joined)."
            )
            newcomer = _Newcomer(remote, screen, arguments.name or _guest_name(arguments.source))
            while not ended:
                children.check()
                if not arguments.web:
                    newcomer.step(watch)
                screen.status(watch.status())
                time.sleep(0.02)
            _drain(watch)
            newcomer.wait()
        screen.end()
        screen.line(watch.summary())
    if not watch.identified:
        screen.line("Nobody was identified.")
        if not arguments.web and not newcomer.is_done:
            screen.line(
                "The clip was over before anybody could be enrolled; without --once it plays over and over."
            )
    return 0 if watch.identified else 1


def _start_nodes(remote: Remote, screen: Screen) -> None:
    """Bring both nodes to active through their lifecycle services."""
    from lifecycle_msgs.msg import State

    screen.line("Starting the nodes …")
    remote.bring_to(NODE, State.PRIMARY_STATE_ACTIVE)
    publisher_is_matched = lambda: remote.node.count_publishers(f"{NODE}/faces") > 0  # noqa: E731
    remote.wait_until(publisher_is_matched, 10.0, "the face topic")
    remote.bring_to(SOURCE, State.PRIMARY_STATE_ACTIVE)


def _follow(remote: Remote, watch: IdentityWatch) -> list[bool]:
    """Subscribe to the faces; the returned list is filled when the video source stops by itself."""
    from lifecycle_msgs.msg import State, TransitionEvent

    from face_recognition_interfaces.msg import FaceArray

    ended: list[bool] = []

    def on_transition(event: TransitionEvent) -> None:
        if event.start_state.id == State.TRANSITION_STATE_DEACTIVATING:
            ended.append(True)

    remote.node.create_subscription(FaceArray, f"{NODE}/faces", watch.take, 30)
    remote.node.create_subscription(TransitionEvent, f"{SOURCE}/transition_event", on_transition, 10)
    return ended


def _drain(watch: IdentityWatch) -> None:
    """Wait until no more answers come."""
    seen = -1
    while seen != watch.n_messages:
        seen = watch.n_messages
        time.sleep(0.4)


def _guest_name(source: str) -> str:
    if source != "sample":
        return "Guest"
    from face_recognition_node.media.sample import NAMES

    return NAMES["guest"]


class _Newcomer:
    """Enrolls the first unknown face that stays in view, once, through the action, and tells how it goes."""

    def __init__(self, remote: Remote, screen: Screen, name: str) -> None:
        from face_recognition_interfaces.action import EnrollPerson

        self._type = EnrollPerson
        self._client = remote.action_client(EnrollPerson, f"{NODE}/enroll_person")
        self._screen, self._name = screen, name
        self._first_seen: float | None = None
        self.is_done = False  # there was time to enroll somebody, or no need to
        self._is_running = False
        self._said = ""

    def step(self, watch: IdentityWatch) -> None:
        """Look whether it is time to enroll somebody."""
        message = watch.latest
        if self.is_done or message is None or not message.faces or not self._client.server_is_ready():
            return
        now = time.monotonic()
        self._first_seen = self._first_seen or now
        if any(face.identity_state == face.KNOWN for face in message.faces):
            self._screen.line("           This face is known already; nobody needs to be enrolled.")
            self.is_done = True
        elif now - self._first_seen > LOOK_S:
            self.is_done = True
            self._screen.line(
                f"           Somebody new: enrolling as {self._name!r} from the running video …"
            )
            self._is_running = True
            goal = self._type.Goal(name=self._name)
            self._client.send_goal_async(goal, self._on_feedback).add_done_callback(self._on_accepted)

    def wait(self) -> None:
        """Wait for the end of an enrollment that the end of the video has cut short."""
        deadline = time.monotonic() + CUT_SHORT_S
        while self._is_running and time.monotonic() < deadline:
            time.sleep(0.02)

    def _on_accepted(self, future: Any) -> None:
        future.result().get_result_async().add_done_callback(self._on_result)

    def _on_feedback(self, message: Any) -> None:
        feedback = message.feedback
        text = f"{feedback.views_kept} of {feedback.wanted_views} views  {feedback.hint}"
        if text != self._said:
            self._said = text
            self._screen.line(f"           enrollment: {text}")

    def _on_result(self, future: Any) -> None:
        result = future.result().result
        rejected = ", ".join(f"{item.count} {item.reason}" for item in result.rejections) or "none"
        self._screen.line(f"           enrollment: views kept {result.views_kept}, not kept: {rejected}")
        if result.success:
            text = f"{result.name} is stored with {result.views_kept} views, as {result.person_id}"
        else:
            text = f"nobody was enrolled ({result.outcome}): {result.message}"
        self._screen.line(f"           enrollment: {text}.")
        self._is_running = False


@contextlib.contextmanager
def _video(arguments: argparse.Namespace, source: FrameSource | None, remote: Remote) -> Iterator[None]:
    """Write the annotated images to a video, if that is wanted."""
    if not arguments.annotated:
        yield
        return
    from sensor_msgs.msg import Image

    from face_recognition_node.cli.demo_outputs import AnnotatedVideo

    rate = source.rate_hz if source is not None else 30.0
    with AnnotatedVideo(arguments.annotated, rate) as video:
        subscription = remote.node.create_subscription(Image, f"{NODE}/annotated", video.take, 30)
        try:
            yield
        finally:
            remote.node.destroy_subscription(subscription)
    sys.stdout.write(f"wrote {arguments.annotated}\n")

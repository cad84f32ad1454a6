"""The recognition node as a process of its own, with a camera that shows it composed scenes."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from face_recognition_node.cli.benchmark.ros import NAMESPACE, NODE, NODE_ENTRY, start_node
from face_recognition_node.cli.processes import Children
from face_recognition_node.common.errors import FaceRecognitionError, InputError
from face_recognition_node.common.parameters import flatten
from face_recognition_node.config import Config
from face_recognition_node.evaluation.scenes.cast import Person
from face_recognition_node.evaluation.scenes.scene import Scene

if TYPE_CHECKING:
    from face_recognition_node.ros.remote import Remote

PATIENCE_S = 60.0  # how long a loaded machine may take for anything that is not timed


class Robot:
    """The recognition node as a process, and a camera that shows it scenes; use :func:`robot`."""

    def __init__(self, remote: Remote, gallery: Path, started: float) -> None:
        from sensor_msgs.msg import Image

        from face_recognition_interfaces.msg import FaceArray

        self.remote, self.gallery = remote, gallery
        self.answers: list[Any] = []
        self._images = remote.node.create_publisher(Image, f"{NAMESPACE}/image", 10)
        remote.wait_until(lambda: remote.state_of(NODE, PATIENCE_S) == "active", PATIENCE_S, "the node")
        self.start_s = time.monotonic() - started
        remote.node.create_subscription(FaceArray, f"{NODE}/faces", self.answers.append, 100)
        remote.wait_until(self._images.get_subscription_count, PATIENCE_S, "the node to look at images")

    def show(self, images: Sequence[Any], on_image: Callable[[float], None] = lambda sent: None) -> None:
        """Play images at 10 Hz, stamped with the time they are sent; tell that time."""
        from face_recognition_node.ros.messages import seconds_to_stamp

        began = time.monotonic()
        for index, image in enumerate(images):
            time.sleep(max(0.0, began + index / 10 - time.monotonic()))
            stamp = time.time()
            image.header.stamp = seconds_to_stamp(stamp)
            on_image(stamp)
            self._images.publish(image)

    @contextlib.contextmanager
    def watching(self, scene: Scene) -> Iterator[None]:
        """Show a scene over and over while the block runs."""
        is_over = threading.Event()
        images = film(scene)

        def play() -> None:
            while not is_over.is_set():
                self.show(images)

        thread = threading.Thread(target=play, name="camera", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def call(self, service: str, **request: Any) -> Any:
        """Call a service of the node by the name of its type; its answer must be a success."""
        import face_recognition_interfaces.srv as services

        type_ = getattr(services, service)
        name = "".join("_" + c.lower() if c.isupper() else c for c in service).lstrip("_")
        answer = self.remote.call(type_, f"{NODE}/{name}", type_.Request(**request), PATIENCE_S)
        if not answer.success:
            raise InputError(f"{name}: {answer.message}")
        return answer

    def enroll(self, person: Person, name: str) -> str:
        """Add the pictures for enrolling; return the person_id."""
        from face_recognition_node.evaluation.scenes.scenarios import introduce

        person_id, reason = "", ""
        scene = introduce(person).source
        assert isinstance(scene, Scene)
        for image in film(replace(scene, seconds=4.0, rate_hz=1.0)):
            try:
                answer = self.call("AddFaceFromImage", image=image, name=name, person_id=person_id)
                person_id = str(answer.person_id)
            except InputError as error:  # a view that is not good enough
                reason = str(error)
        if not person_id:
            raise InputError(f"{person.name} could not be enrolled: {reason}")
        return person_id

    def names(self) -> dict[str, str]:
        """Return the names of the gallery by person_id."""
        return {person.person_id: person.name for person in self.call("ListPersons").persons}

    def wait_for(self, known: Callable[[dict[str, str]], bool], timeout: float = PATIENCE_S) -> bool:
        """Wait until an answer that comes from now on names fitting (person_id, name) pairs."""
        seen = len(self.answers)
        with contextlib.suppress(FaceRecognitionError):
            return bool(
                self.remote.wait_until(
                    lambda: any(known(named(answer)) for answer in self.answers[seen:]), timeout, "a name"
                )
            )
        return False


def film(scene: Scene) -> list[Any]:
    """Return the frames of a scene as image messages."""
    from std_msgs.msg import Header

    from face_recognition_node.ros.messages import bgr_to_image

    return [bgr_to_image(frame.image_bgr, Header(frame_id="camera")) for frame in scene.frames()]


def named(answer: Any) -> dict[str, str]:
    """Return the names of the known people of a FaceArray by person_id."""
    return {face.person_id: face.name for face in answer.faces if face.identity_state == face.KNOWN}


def settings(config: Config) -> dict[str, Any]:
    """Return the parameters that are not at their default by name."""
    return {name: value for name, declared, value in flatten(config) if value != declared.default}


def ros_settings(config: Config) -> list[str]:
    """Return them as ``NAME=VALUE`` for a node's command line."""
    return [f"{name}={json.dumps(value)}" for name, value in settings(config).items()]


@contextlib.contextmanager
def robot(gallery: Path, config: Config, entry: str = NODE_ENTRY) -> Iterator[tuple[Robot, Children]]:
    """Run the node on a gallery file, active, with us beside it."""
    from face_recognition_node.ros.remote import Remote

    with Children() as children, Remote("face_recognition_scenarios", children.check) as remote:
        started = time.monotonic()
        start_node(children, gallery, ros_settings(config), entry)
        yield Robot(remote, gallery, started), children

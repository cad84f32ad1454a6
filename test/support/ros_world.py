"""A ROS network of the test's own, the nodes as processes in it, and a client to talk to them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("built_interfaces")

from face_recognition_node.cli.processes import Children, isolated_environment
from face_recognition_node.ros.remote import Remote

# Before anything joins the network: a domain of our own, on this machine alone, with the images' profile.
os.environ.update(isolated_environment(os.environ))

NODE = "/face_recognition"
SOURCE = "/video_source"
# seconds a loaded machine may take for anything; nothing sleeps that long, it waits for what happens
PATIENCE = 60.0


@contextlib.contextmanager
def node_processes(
    gallery: Path, *more: str, source: list[str] | None = None
) -> Iterator[tuple[Children, Remote]]:
    """Run the recognition node with ``more`` parameters, a video source if it has some, and a client."""

    def arguments(parameters: Iterable[str]) -> list[str]:
        return ["--log-level", "warn", *(part for item in parameters for part in ("-p", item))]

    with Children() as children:
        main = "face_recognition_node.ros.main"
        children.start("node", f"{main}:main", arguments((f"gallery_path:={gallery}", *more)))
        if source is not None:
            children.start("source", f"{main}:video_source", arguments(source))
        with Remote("test_client", children.check) as remote:
            yield children, remote


class Inbox:
    """Collects the messages of a topic."""

    def __init__(self, remote: Remote, type_: Any, topic: str, qos: Any = 30) -> None:
        self.remote = remote
        self.topic = topic
        self.messages: list[Any] = []
        self.subscription = remote.node.create_subscription(type_, topic, self.messages.append, qos)

    def wait(self, condition: Any, what: str) -> Any:
        """Return the first message, of those to come as well, that fits."""

        def find() -> Any:
            return next((message for message in list(self.messages) if condition(message)), None)

        return self.remote.wait_until(find, PATIENCE, f"{what} on {self.topic}")

    def close(self) -> None:
        self.remote.node.destroy_subscription(self.subscription)


def wait_for_subscriber(remote: Remote, publisher: Any) -> None:
    """Wait until somebody receives what a publisher of ours sends."""
    remote.wait_until(lambda: publisher.get_subscription_count() > 0, PATIENCE, publisher.topic_name)


def noise(height: int = 48, width: int = 64) -> np.ndarray:
    """Return a picture with nobody in it."""
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)

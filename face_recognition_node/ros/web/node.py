"""The operator's page as a node of its own: its parameters, and its life."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass

from face_recognition_node.common.parameters import Section, fixed_parameter, flatten
from face_recognition_node.ros.parameters import declare
from face_recognition_node.ros.remote import Remote
from face_recognition_node.ros.web.operator import RobotOperator
from face_recognition_node.web.server import Page, serve_until_stopped


@dataclass(frozen=True, slots=True)
class WebConfig(Section):
    """Parameters of the page's node."""

    node: str = fixed_parameter(
        "face_recognition", "Name of the recognition node, relative to the namespace."
    )
    host: str = fixed_parameter(
        "127.0.0.1", "Address to listen on; any other than this machine's own requires the printed token."
    )
    port: int = fixed_parameter(8642, "Port; 0: any.", limits=(0, 65535))


def serve(stop: threading.Event) -> None:
    """Serve the page until ``stop`` is set; InputError if the address cannot be listened on."""
    with Remote("web") as remote:
        items = list(flatten(WebConfig()))
        fixed = frozenset(name for name, _, _ in items)
        config = WebConfig(**declare(remote.node, items, fixed))  # type: ignore[arg-type]
        is_absolute = config.node.startswith("/")
        node = config.node if is_absolute else f"{remote.node.get_namespace().rstrip('/')}/{config.node}"
        with RobotOperator(remote, node) as operator:
            serve_until_stopped(Page(operator, config.host, config.port), _tell, stop)


def _tell(address: str) -> None:
    """Say where the page is; not in ROS's log, a topic that everybody reads: there may be a token in it."""
    sys.stdout.write(f"The page is at {address}\n")
    sys.stdout.flush()

"""A leaf of a py_trees behaviour tree that looks out for a person: RUNNING, then SUCCESS or FAILURE.

python examples/find_person_behaviour.py --ros-args -p name:=Anna
"""

import py_trees
import rclpy
from py_trees.common import Status
from rclpy.action import ActionClient
from rclpy.duration import Duration
from rclpy.node import Node

from face_recognition_interfaces.action import FindPerson


class LookFor(py_trees.behaviour.Behaviour):
    """Sends one FindPerson goal; the result is kept for the rest of the tree (a position to drive to)."""

    def __init__(self, node: Node, person: str, seconds: float = 20.0) -> None:
        super().__init__(f"look for {person}")
        self.client = ActionClient(node, FindPerson, "/face_recognition/find_person")
        self.goal = FindPerson.Goal(name=person, timeout=Duration(seconds=seconds).to_msg())
        self.handle, self.result = None, None

    def initialise(self) -> None:
        """Send the goal as soon as the server is there."""
        self.handle, self.result, self.sent = None, None, None

    def update(self) -> Status:
        """Say how it stands; never waits."""
        if self.sent is None and self.client.server_is_ready():
            self.sent = self.client.send_goal_async(self.goal)
        if self.handle is None and self.sent is not None and self.sent.done():
            self.handle = self.sent.result()
            self.answer = self.handle.get_result_async()
        if self.handle is None or not self.answer.done():
            return Status.RUNNING
        self.result = self.answer.result().result
        self.feedback_message = self.result.message
        return Status.SUCCESS if self.result.success else Status.FAILURE

    def terminate(self, new_status: Status) -> None:
        """Cancel the search when the tree turns to something else."""
        if new_status == Status.INVALID and self.handle is not None and self.result is None:
            self.handle.cancel_goal_async()


if __name__ == "__main__":
    rclpy.init()
    node = rclpy.create_node("find_person_behaviour")
    leaf = LookFor(node, node.declare_parameter("name", "Anna").value)
    while leaf.status in (Status.INVALID, Status.RUNNING):
        rclpy.spin_once(node, timeout_sec=0.1)
        leaf.tick_once()
    print(leaf.status.name, leaf.feedback_message)

"""A ROS 2 node beside the recognition node: greets whom it recognizes, and enrolls one person by name.

python examples/greet_by_name.py --ros-args -p enroll_as:=Anna
"""

import rclpy
from rclpy.action import ActionClient
from rclpy.node import Node

from face_recognition_interfaces.action import EnrollPerson
from face_recognition_interfaces.msg import Face, FaceArray


class Greeter(Node):
    """Subscribes to the faces; sends one EnrollPerson goal if the parameter enroll_as is set."""

    def __init__(self) -> None:
        super().__init__("greeter")
        self.greeted: set[str] = set()
        self.enrolled_as = ""
        self.create_subscription(FaceArray, "/face_recognition/faces", self.on_faces, 10)
        self.client = ActionClient(self, EnrollPerson, "/face_recognition/enroll_person")
        name = self.declare_parameter("enroll_as", "").value
        if name:
            self.client.wait_for_server()
            goal = self.client.send_goal_async(EnrollPerson.Goal(name=name), self.on_feedback)
            goal.add_done_callback(lambda accepted: self.wait_for_result(accepted.result()))

    def on_faces(self, message: FaceArray) -> None:
        """Greet each known person once."""
        for face in message.faces:
            if face.identity_state == Face.KNOWN and face.person_id not in self.greeted:
                self.greeted.add(face.person_id)
                self.get_logger().info(f"Hello, {face.name}!")

    def on_feedback(self, message: EnrollPerson.Impl.FeedbackMessage) -> None:
        """Say what the person should do."""
        self.get_logger().info(message.feedback.hint)

    def wait_for_result(self, goal: rclpy.action.client.ClientGoalHandle) -> None:
        """Report how the enrollment ended."""
        goal.get_result_async().add_done_callback(lambda done: self.on_result(done.result().result))

    def on_result(self, result: EnrollPerson.Result) -> None:
        """Keep the id of the person; a name is not an id."""
        self.enrolled_as = result.person_id
        self.get_logger().info(result.message)


if __name__ == "__main__":
    rclpy.init()
    rclpy.spin(Greeter())

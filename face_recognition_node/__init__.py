"""Real-time face recognition for ROS 2: who is in front of the robot, on the robot, without a network."""

__version__ = "0.1.0"

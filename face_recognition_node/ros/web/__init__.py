"""The operator's page as a node of its own, which knows the robot by its topics, services and action only."""

"""Verbs that make a model: faces and a teacher to train from, training, and what the robot runs."""

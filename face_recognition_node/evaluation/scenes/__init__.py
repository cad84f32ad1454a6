"""Scenes composed of real faces, where the composition is the ground truth."""

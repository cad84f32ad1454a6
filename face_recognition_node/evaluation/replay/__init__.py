"""Scenarios with ground truth, played through the whole pipeline."""

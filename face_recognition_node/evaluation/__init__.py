"""Metrics, protocols and benchmarks: pure functions that return dataclasses which print themselves."""

"""Get to know a person from the running video."""

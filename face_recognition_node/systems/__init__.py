"""The other published face recognition systems, each self-contained."""

"""One face followed over frames."""

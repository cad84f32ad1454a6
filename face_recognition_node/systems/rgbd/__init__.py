"""RGB-D Face ID: a lock for colour and depth."""

"""What a comparison is worth, and whose face a track is."""

"""Read videos, images and cameras; draw and write annotated video."""

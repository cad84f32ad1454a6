"""Plot the templates of a gallery: ``python examples/plot_embeddings.py GALLERY PICTURE``."""

import sys
from pathlib import Path

import matplotlib
import numpy as np

from face_recognition_node import Config, load_models, open_gallery

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main(gallery_path: str, picture: str = "embeddings.png") -> None:
    """Draw each template at its first two principal components, one color a person."""
    config = Config()
    with open_gallery(Path(gallery_path), load_models(config), config) as gallery:
        known = gallery.snapshot()
        people = [
            (person.name or person_id, np.stack([t.embedding for t in known.templates_of(person_id)]))
            for person_id, person in known.persons.items()
        ]
    vectors = np.concatenate([templates for _, templates in people])
    center = vectors.mean(axis=0)
    axes = np.linalg.svd(vectors - center, full_matrices=False)[2][:2]
    figure, plot = plt.subplots(figsize=(6, 5), layout="constrained")
    for name, templates in people:
        x, y = ((templates - center) @ axes.T).T
        plot.scatter(x, y, label=name)
    plot.set(xlabel="first principal component", ylabel="second principal component")
    plot.legend()
    figure.savefig(picture)


if __name__ == "__main__":
    main(*sys.argv[1:])

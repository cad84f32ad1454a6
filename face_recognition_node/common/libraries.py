"""What to install where a library that everything needs is not there: ROS's rosdep does not know them all."""

from __future__ import annotations

# module → package on PyPI. Backends are not among them: each says for itself what it lacks
PACKAGES = {
    "cryptography": "cryptography",
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "numpy": "numpy",
    "tqdm": "tqdm",
    "yaml": "PyYAML",
}
# modules of the verbs that train, or use what was trained
TRAINING = ("lightning", "msgspec", "pytorch_metric_learning", "sklearn", "tensorboard", "torch")


def missing_library(error: ModuleNotFoundError) -> str | None:
    """Return what is missing and its cure, or None if the import that failed is not of one of these."""
    module = (error.name or "").partition(".")[0]
    if module == "aiohttp":
        return (
            "the operator's page needs the Python library aiohttp; cure: sudo apt install python3-aiohttp, "
            "or python3 -m pip install aiohttp"
        )
    if module in TRAINING:
        return f"this needs more packages ({error}): python3 -m pip install -r requirements/train.txt"
    package = PACKAGES.get(module)
    if package is None:
        return None
    return (
        f"the Python library {module} is not installed; cure: python3 -m pip install {package} "
        "(on a robot, all at once: -r requirements/robot.txt of the source tree)"
    )

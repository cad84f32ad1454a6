"""Installs the package by pip; colcon builds it by CMakeLists.txt."""

import sys
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
README = ROOT / "README.md"
NAME = "face_recognition_node"
SHARE = f"share/{NAME}"


def share_files(*folders):
    """Return every file of the folders as data_files entries below share/."""
    entries = []
    for folder in folders:
        for directory in sorted({path.parent for path in (ROOT / folder).rglob("*") if path.is_file()}):
            relative = directory.relative_to(ROOT).as_posix()
            if "__pycache__" not in relative:
                names = sorted(path.name for path in directory.iterdir() if path.is_file())
                entries.append((f"{SHARE}/{relative}", [f"{relative}/{name}" for name in names]))
    return entries


# An editable installation would get copies that nobody updates; there the data is found in the source tree
# (the script ./run adds links for the tools of ROS).
data_files = []
if "editable_wheel" not in sys.argv:
    data_files = [
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml"]),
        # pip ignores setup.cfg's install_scripts, and `ros2 run` looks nowhere else.
        (f"lib/{NAME}", ["scripts/face_recognition_node", "scripts/video_source_node", "scripts/web_node"]),
        *share_files("config", "launch", "models"),
    ]

setup(
    name=NAME,
    version='0.1.0',
    description="Real-time face recognition for ROS 2 service robots.",
    long_description=README.read_text(encoding="utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    maintainer="The face_recognition_node developers",
    maintainer_email="maintainers@face-recognition-node.invalid",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed", "*/assets/*"]},
    data_files=data_files,
    zip_safe=False,
    # Exact versions for the development environment are in requirements/.
    install_requires=[
        "PyYAML",
        "cryptography",
        "faiss-cpu",
        "msgspec",
        "numpy",
        "onnxruntime",
        "opencv-python-headless<5",
        "openvino",
        "tqdm",
    ],
    extras_require={
        "web": ["aiohttp"],
        "bags": ["rosbags"],
        "heif": ["pillow-heif"],
        "train": [
            "lightning",
            "matplotlib",
            "onnx",
            "pytorch-metric-learning",
            "safetensors",
            "scikit-learn",
            "tensorboard",
            "torch",
        ],
        "test": [
            "av",
            "hypothesis",
            "import-linter",
            "lightning",
            "matplotlib",
            "mcap",
            "mcap-ros2-support",
            "mypy",
            "onnx",
            "psutil",
            "py-trees",
            "pytest<8.4",
            "pytest-xdist",
            "pytorch-metric-learning",
            "ruff",
            "safetensors",
            "scikit-learn",
            "scipy",
            "selenium",
            "tensorboard",
            "torch",
        ],
        "tensorrt": ["safetensors", "torch", "torch-tensorrt"],
    },
)

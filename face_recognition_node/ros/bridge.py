"""The real cv_bridge, where it can be imported and proves that it converts correctly.

The port of cv_bridge on PyPI silently corrupts 16UC1 images and padded rows, and the distributions' builds
break with newer numpy. So it is never the primary path; tests compare our converter with it where it passes.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from sensor_msgs.msg import Image


def load_trusted_bridge() -> tuple[Any | None, str]:
    """Return (a CvBridge that passed the self-test, "") or (None, the reason why there is none)."""
    try:
        bridge = importlib.import_module("cv_bridge").CvBridge()
    except (ImportError, AttributeError) as error:  # built for another numpy: AttributeError at import
        return None, f"cv_bridge cannot be imported: {error}"
    try:
        return (bridge, "") if _passes(bridge) else (None, "cv_bridge corrupts 16UC1 or padded images")
    except Exception as error:  # foreign code under test; the reason is handed on
        return None, f"cv_bridge fails its self-test: {error}"


def _passes(bridge: Any) -> bool:
    depth = np.arange(12, dtype=np.uint16).reshape(3, 4) * 1000
    rows = np.zeros((3, 10), np.uint8)
    rows[:, :8] = depth.view(np.uint8)
    padded = Image(height=3, width=4, encoding="16UC1", step=10, data=rows.tobytes())
    plain = Image(height=3, width=4, encoding="16UC1", step=8, data=depth.tobytes())
    return all(np.array_equal(bridge.imgmsg_to_cv2(message), depth) for message in (padded, plain))

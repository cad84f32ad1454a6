"""Write what was recognized as a bag: FaceArray beside the images, and annotations that Foxglove draws."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from face_recognition_node.common.closing import Closing
from face_recognition_node.common.errors import SourceError
from face_recognition_node.common.files import PRIVATE
from face_recognition_node.common.resources import interfaces_directory
from face_recognition_node.media.annotate import STATE_COLORS, label_of
from face_recognition_node.media.bags import bag_library
from face_recognition_node.media.face_fields import face_fields
from face_recognition_node.media.writer import place_to_write
from face_recognition_node.vision.faces import Frame, IdentityState, RecognitionResult

IMAGES, FACES, ANNOTATIONS = "/image/compressed", "/face_recognition/faces", "/face_recognition/annotations"
_TYPES = {
    IMAGES: "sensor_msgs/msg/CompressedImage",
    FACES: "face_recognition_interfaces/msg/FaceArray",
    ANNOTATIONS: "foxglove_msgs/msg/ImageAnnotations",
}
# the schema that Foxglove knows by its name (docs.foxglove.dev, ImageAnnotations)
_FOXGLOVE = {
    "Color": "float64 r\nfloat64 g\nfloat64 b\nfloat64 a",
    "Point2": "float64 x\nfloat64 y",
    "CircleAnnotation": "builtin_interfaces/Time timestamp\nfoxglove_msgs/Point2 position\n"
    "float64 diameter\nfloat64 thickness\nfoxglove_msgs/Color fill_color\nfoxglove_msgs/Color outline_color",
    "PointsAnnotation": "builtin_interfaces/Time timestamp\nuint8 UNKNOWN=0\nuint8 POINTS=1\n"
    "uint8 LINE_LOOP=2\nuint8 LINE_STRIP=3\nuint8 LINE_LIST=4\nuint8 type\n"
    "foxglove_msgs/Point2[] points\nfoxglove_msgs/Color outline_color\n"
    "foxglove_msgs/Color[] outline_colors\nfoxglove_msgs/Color fill_color\nfloat64 thickness",
    "TextAnnotation": "builtin_interfaces/Time timestamp\nfoxglove_msgs/Point2 position\nstring text\n"
    "float64 font_size\nfoxglove_msgs/Color text_color\nfoxglove_msgs/Color background_color",
    "ImageAnnotations": "foxglove_msgs/CircleAnnotation[] circles\nfoxglove_msgs/PointsAnnotation[] points\n"
    "foxglove_msgs/TextAnnotation[] texts",
}
_LINE_LOOP, _POINTS = 2, 1
_FACE = "face_recognition_interfaces/msg/Face"
_JPEG_QUALITY = 90


class BagWriter(Closing):
    """An mcap file that appears under its name when the ``with`` block ends, also after an interrupt.

    Raises:
        SourceError: For another ending, a missing folder or library, or a full disk.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = place_to_write(path, [".mcap"], "bag to write")
        rosbag2, typesys = bag_library(self.path)
        self._store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
        definitions = {f"foxglove_msgs/msg/{name}": text for name, text in _FOXGLOVE.items()}
        for name in ("Face", "FaceArray"):
            text = (interfaces_directory() / "msg" / f"{name}.msg").read_text(encoding="utf-8")
            definitions[f"face_recognition_interfaces/msg/{name}"] = text
        types: dict[str, Any] = {}
        for name, text in definitions.items():
            types.update(typesys.get_types_from_msg(text, name))
        self._store.register(types)
        self._reader = rosbag2.Reader
        self._work = Path(
            tempfile.mkdtemp(prefix=f".{self.path.stem}.", suffix=".part", dir=self.path.parent)
        )
        self._writer = rosbag2.Writer(
            self._work / "bag", version=9, storage_plugin=rosbag2.StoragePlugin.MCAP
        )
        self._writer.open()
        self._connections = {
            topic: self._writer.add_connection(topic, type_, typestore=self._store)
            for topic, type_ in _TYPES.items()
        }
        self._n_written = 0

    def write(self, frame: Frame, result: RecognitionResult) -> None:
        """Append one frame and what was recognized in it."""
        header = self._header(result.stamp, result.frame_id)
        is_encoded, data = cv2.imencode(".jpg", frame.image_bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        if not is_encoded:
            raise SourceError(f"{self.path}: a picture of {frame.image_bgr.shape} cannot be written as JPEG")
        point = partial(self._make, "geometry_msgs/msg/Point")
        image = self._make(_TYPES[IMAGES], header=header, format="jpeg", data=data.ravel())
        array = self._make(
            _TYPES[FACES],
            header=header,
            faces=[self._make(_FACE, **face_fields(face, point)) for face in result.faces],
            gallery_version=result.gallery_version,
            image_width=result.image_size[0],
            image_height=result.image_size[1],
        )
        for topic, message in (
            (IMAGES, image),
            (FACES, array),
            (ANNOTATIONS, self._annotations(result, header.stamp)),
        ):
            nanoseconds = header.stamp.sec * 10**9 + header.stamp.nanosec
            content = self._store.serialize_cdr(message, _TYPES[topic])
            self._writer.write(self._connections[topic], nanoseconds, content)
            self._n_written += 1

    def close(self) -> None:
        """Finish the file, look whether it is whole, and give it its name; without a frame there is none."""
        try:
            self._writer.close()
            if self._n_written:
                draft = self._work / "bag" / "bag.mcap"
                with self._reader(draft) as reader:
                    count = sum(1 for _ in reader.messages())
                if count != self._n_written:
                    raise SourceError(
                        f"{self.path}: {count} of {self._n_written} messages were written; is the disk full?"
                    )
                draft.chmod(PRIVATE)
                os.replace(draft, self.path)
        finally:
            self._discard()

    def _discard(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)

    # --- messages -----------------------------------------------------------------------------------

    def _make(self, type_: str, **values: Any) -> Any:
        """Return a message with these fields; the others are empty, and numbers NaN or 0."""
        fields = dict(self._store.fielddefs[type_][1])
        return self._store.types[type_](
            **{name: values.get(name, self._blank(*kind)) for name, kind in fields.items()}
        )

    def _blank(self, node: Any, detail: Any) -> Any:
        if node.name == "NAME":
            return self._make(detail)
        if node.name == "BASE":
            name = detail[0]
            if name.endswith("string"):
                return ""
            return False if name == "bool" else math.nan if name.startswith("float") else 0
        (inner, kind), length = detail
        if inner.name == "BASE" and not kind[0].endswith("string"):
            return np.full(length if node.name == "ARRAY" else 0, self._blank(inner, kind), kind[0])
        return []

    def _header(self, stamp: float, frame_id: str) -> Any:
        whole = max(0, int(stamp))
        nanoseconds = min(max(0, round((stamp - whole) * 1e9)), 999_999_999)
        time = self._make("builtin_interfaces/msg/Time", sec=whole, nanosec=nanoseconds)
        return self._make("std_msgs/msg/Header", stamp=time, frame_id=frame_id)

    def _annotations(self, result: RecognitionResult, stamp: Any) -> Any:
        """Return boxes, landmarks and labels; Foxglove shows them on the image of the same stamp."""
        points, texts = [], []
        size = max(12.0, result.image_size[1] / 28)
        for face in result.faces:
            x1, y1, x2, y2 = (float(value) for value in face.view.detection.box_xyxy)
            color = self._color(face.identity.state)
            shapes = [(_LINE_LOOP, [(x1, y1), (x2, y1), (x2, y2), (x1, y2)])]
            shapes.append((_POINTS, [(float(x), float(y)) for x, y in face.view.detection.landmarks_xy]))
            points += [
                self._make(
                    "foxglove_msgs/msg/PointsAnnotation",
                    timestamp=stamp,
                    type=kind,
                    points=[self._point(x, y) for x, y in places],
                    outline_color=color,
                    fill_color=self._make("foxglove_msgs/msg/Color", r=0.0, g=0.0, b=0.0, a=0.0),
                    thickness=max(2.0, size / 8),
                )
                for kind, places in shapes
            ]
            texts.append(
                self._make(
                    "foxglove_msgs/msg/TextAnnotation",
                    timestamp=stamp,
                    position=self._point(x1, y1 - 2),
                    text=label_of(face) or f"{face.track_id}",
                    font_size=size,
                    text_color=self._make("foxglove_msgs/msg/Color", r=0.1, g=0.1, b=0.1, a=1.0),
                    background_color=color,
                )
            )
        return self._make(_TYPES[ANNOTATIONS], points=points, texts=texts)

    def _point(self, x: float, y: float) -> Any:
        return self._make("foxglove_msgs/msg/Point2", x=x, y=y)

    def _color(self, state: IdentityState) -> Any:
        blue, green, red = (value / 255 for value in STATE_COLORS[state])
        return self._make("foxglove_msgs/msg/Color", r=red, g=green, b=blue, a=1.0)

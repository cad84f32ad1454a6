"""All parameters of the core in one tree; the dotted names are the parameters of the ROS node."""

from __future__ import annotations

from dataclasses import dataclass, field

from face_recognition_node.enrollment.goal import EnrollmentConfig
from face_recognition_node.gallery.values import GalleryConfig
from face_recognition_node.identity.adaptation_values import AdaptationConfig
from face_recognition_node.identity.identity import IdentityConfig
from face_recognition_node.identity.strangers import StrangersConfig
from face_recognition_node.tracking.tracker import TrackerConfig
from face_recognition_node.vision.detector import DetectorConfig
from face_recognition_node.vision.model_card import ModelsConfig


@dataclass(frozen=True, slots=True)
class Config:
    """What can be set; each section is declared where it is used.

    ``with_values(Config(), {"identity.target_false_accept_rate": 0.001})`` changes values by name.
    """

    models: ModelsConfig = field(default_factory=ModelsConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    identity: IdentityConfig = field(default_factory=IdentityConfig)
    strangers: StrangersConfig = field(default_factory=StrangersConfig)
    enrollment: EnrollmentConfig = field(default_factory=EnrollmentConfig)
    adaptation: AdaptationConfig = field(default_factory=AdaptationConfig)
    gallery: GalleryConfig = field(default_factory=GalleryConfig)

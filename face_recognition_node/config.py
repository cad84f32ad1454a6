"""All parameters of the core in one tree; the dotted names are the parameters of the ROS node.

Every room may import this file: it declares, and does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.common.parameters import check_section, parameter

FAR_FACE_PX = 20.0
NEAR_FACE_PX = 96.0
"""Heights between which the score threshold rises, pixels at the working resolution."""
MOST_STRANGERS = 100_000


@dataclass(frozen=True, slots=True)
class ModelsConfig:
    """Which models run, and on what."""

    models_dir: str = parameter("", "folder of model files; empty: the one installed", read_only=True)
    detector: str = parameter(
        "retinaface_mobilenet025",
        "face detector: its card's name in the models folder",
        choices=("retinaface_mobilenet025", "retinaface_resnet50"),
        read_only=True,
    )
    embedder: str = parameter(
        "efficientnet_b0_64", "face embedder: its card's name in the models folder", read_only=True
    )
    backend: str = parameter(
        "auto",
        "what runs the networks; auto takes the fastest one that is installed and says why",
        choices=("auto", "openvino", "onnxruntime", "torch", "torch_tensorrt"),
        read_only=True,
    )
    device: str = parameter(
        "",
        "device as the backend names it (CPU, GPU, cuda:0); empty: the backend's own choice",
        read_only=True,
    )
    precision: str = parameter(
        "auto",
        "number format of the networks; auto: fp16 with TensorRT, and bfloat16 with OpenVINO on a CPU that "
        "multiplies in it, at half the time; fp32 elsewhere",
        choices=("auto", "fp32"),
        read_only=True,
    )
    threads: int = parameter(
        0,
        "CPU threads of a network; 0: one per core but one, at most 4",
        minimum=0,
        maximum=64,
        read_only=True,
    )

    def __post_init__(self) -> None:
        check_section(self)


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """How faces are found.

    The network is surer the larger a face is: measured on photographs, faces of 100 pixels score above 0.9
    even when half covered, and few other things do; faces of 16 pixels score around 0.6. The threshold
    therefore rises with the size of the face, see :meth:`least_score`.
    """

    score_threshold: float = parameter(
        0.9, "smallest score in [0, 1] of a face at least 96 pixels high", minimum=0.05, maximum=0.999
    )
    far_score_threshold: float = parameter(
        0.2,
        "smallest score in [0, 1] of a face at most 20 pixels high; between 20 and 96 pixels it rises",
        minimum=0.05,
        maximum=0.999,
    )
    overlap_threshold: float = parameter(
        0.4,
        "boxes that overlap a better one by more than this (intersection over union) are dropped",
        minimum=0.05,
        maximum=0.95,
    )
    working_width: int = parameter(
        1280,
        "longer side in pixels at which faces are searched; larger images are shrunk to it",
        minimum=160,
        maximum=3840,
    )
    interval_frames: int = parameter(
        1,
        "faces are searched in every this many images and followed by optical flow in between; a face that "
        "comes into view waits for the next search",
        minimum=1,
        maximum=30,
    )
    close_pass: bool = parameter(
        True, "look a second time at a small copy of a large image, for faces that fill it"
    )
    minimum_face_px: int = parameter(
        10, "smallest face height in pixels of the image", minimum=4, maximum=1000
    )
    maximum_faces: int = parameter(
        50, "most faces in one image; the best-scored stay", minimum=1, maximum=500
    )

    def __post_init__(self) -> None:
        check_section(self)
        if self.far_score_threshold > self.score_threshold:
            raise ConfigurationError(
                "far_score_threshold: expected at most score_threshold "
                f"({self.score_threshold}), got {self.far_score_threshold}"
            )

    def least_score(self, heights_px: ArrayLike) -> NDArray[np.float32]:
        """Return the score that faces of (N,) heights need, in pixels at the working resolution.

        Linear in the logarithm of the height from 20 to 96 pixels, constant outside.
        """
        logarithms = np.log(np.maximum(np.asarray(heights_px, np.float32), 1e-6))
        ends = (self.far_score_threshold, self.score_threshold)
        return np.asarray(np.interp(logarithms, np.log([FAR_FACE_PX, NEAR_FACE_PX]), ends), np.float32)


@dataclass(frozen=True, slots=True)
class TrackerConfig:
    """How faces are followed."""

    lost_after_s: float = parameter(
        2.0,
        "seconds after which an unseen face is given up and no longer found again",
        minimum=0.1,
        maximum=30.0,
    )
    continuity_s: float = parameter(
        0.25,
        "seconds a face may be missed and still be continued by position; after that its look must match",
        minimum=0.0,
        maximum=2.0,
    )
    continuity_odds: float = parameter(
        4.0,
        "natural log of the odds that a face continued by position is the same; more contradiction splits",
        minimum=1.0,
        maximum=12.0,
    )
    relink_odds: float = parameter(
        4.0, "natural log-likelihood ratio needed to find a lost face again", minimum=0.0, maximum=12.0
    )
    recheck_frames: int = parameter(
        5,
        "a face whose identity is certain is looked at again every this many frames",
        minimum=1,
        maximum=100,
    )

    def __post_init__(self) -> None:
        check_section(self)


@dataclass(frozen=True, slots=True)
class IdentityConfig:
    """When a name is claimed."""

    target_false_accept_rate: float = parameter(
        0.01, "chance that a stranger's whole track is ever given a name", minimum=1e-6, maximum=0.5
    )
    minimum_probability: float = parameter(
        0.9, "posterior that a person must reach before the name is claimed", minimum=0.5, maximum=0.9999
    )
    new_person_prior: float = parameter(
        0.5,
        "probability, before looking, that a face belongs to nobody in the gallery",
        minimum=0.01,
        maximum=0.99,
    )
    release_factor: float = parameter(
        10.0,
        "a claim stands until its false match rate is this many times the allowed one",
        minimum=1.0,
        maximum=1e4,
    )
    claim_timeout_s: float = parameter(
        10.0, "seconds without a supporting look after which a claim lapses", minimum=0.5, maximum=600.0
    )
    minimum_quality: float = parameter(
        0.15, "views of lower quality are followed but count for nothing", minimum=0.0, maximum=1.0
    )
    minimum_face_px: float = parameter(
        18.0,
        "faces smaller than this (root of width times height of the box) are followed but count for nothing",
        minimum=0.0,
        maximum=1000.0,
    )
    minimum_detection_score: float = parameter(
        0.8, "views the detector is less sure of are followed but count for nothing", minimum=0.0, maximum=1.0
    )

    def __post_init__(self) -> None:
        check_section(self)


@dataclass(frozen=True, slots=True)
class StrangersConfig:
    """When an unknown person gets an id."""

    enabled: bool = parameter(True, "whether unknown people get an id by which they are found again")
    minimum_views: int = parameter(
        4, "good views needed before a stranger gets an id", minimum=2, maximum=100
    )
    minimum_span_s: float = parameter(0.1, "seconds that these views must span", minimum=0.0, maximum=60.0)
    minimum_quality: float = parameter(0.5, "quality of a good view", minimum=0.1, maximum=1.0)
    minimum_detection_score: float = parameter(
        0.9, "how sure the detector must be of a good view", minimum=0.0, maximum=1.0
    )
    patience_s: float = parameter(
        3.0, "seconds after which a face that stays between a name and nobody gets a stranger's id",
        minimum=0.5, maximum=600.0,
    )  # fmt: skip
    false_match_rate: float = parameter(
        0.01, "chance that somebody new is taken for one of the known strangers", minimum=1e-6, maximum=0.5
    )
    maximum_views: int = parameter(10, "views stored of one stranger", minimum=1, maximum=50)
    maximum_strangers: int = parameter(
        200, "strangers kept; the one longest unseen makes room", minimum=1, maximum=MOST_STRANGERS
    )

    def __post_init__(self) -> None:
        check_section(self)


@dataclass(frozen=True, slots=True)
class EnrollmentConfig:
    """What makes a view good enough, how many are wanted, and how long to wait."""

    wanted_views: int = parameter(6, "Views to keep unless the goal says otherwise.", minimum=1, maximum=50)
    minimum_views: int = parameter(
        3,
        "Fewer views are not stored, unless the goal wants fewer; at most wanted_views.",
        minimum=1,
        maximum=50,
    )
    timeout_s: float = parameter(
        15.0, "Seconds after which an enrollment ends with what it has.", minimum=1.0, maximum=600.0
    )
    selection_s: float = parameter(
        0.3, "Seconds for which candidates are watched before one is chosen.", minimum=0.0, maximum=2.0
    )
    no_face_s: float = parameter(
        2.0, "Seconds without the wanted face after which the reason is reported.", minimum=0.2, maximum=30.0
    )
    person_left_s: float = parameter(
        2.0, "Seconds out of view after which the person counts as gone.", minimum=0.2, maximum=30.0
    )
    person_changed_s: float = parameter(
        0.8, "Seconds of somebody else's face after which the enrollment ends.", minimum=0.1, maximum=10.0
    )
    pose_patience_s: float = parameter(
        2.0, "Seconds for which places are kept free for poses still missing.", minimum=0.0, maximum=30.0
    )
    view_interval_s: float = parameter(
        0.4, "Seconds after which a view much like an earlier one is taken too.", minimum=0.0, maximum=10.0
    )
    minimum_size_px: float = parameter(
        36.0, "Smallest face, pixels (geometric mean of box width and height).", minimum=12.0, maximum=1000.0
    )
    minimum_score: float = parameter(0.8, "Smallest detection score in [0, 1].", minimum=0.0, maximum=1.0)
    minimum_sharpness: float = parameter(0.6, "Least sharpness in [0, 1].", minimum=0.0, maximum=1.0)
    minimum_exposure: float = parameter(0.6, "Least exposure in [0, 1].", minimum=0.0, maximum=1.0)
    minimum_landmarks: float = parameter(
        0.45, "Least plausibility of the landmarks in [0, 1].", minimum=0.0, maximum=1.0
    )
    maximum_yaw: float = parameter(
        55.0, "Farthest turn of the head to the side, degrees.", minimum=5.0, maximum=90.0
    )
    maximum_pitch: float = parameter(
        40.0, "Farthest turn of the head up or down, degrees.", minimum=5.0, maximum=90.0
    )
    new_look_similarity: float = parameter(
        0.9, "A view more similar than this to a kept one is too similar.", minimum=0.0, maximum=1.0
    )
    ambiguity: float = parameter(
        0.8, "The second face's share of the first one's prominence from which on they count as equal.",
        minimum=0.1, maximum=1.0,
    )  # fmt: skip
    warn_probability: float = parameter(
        0.5, "Probability from which on somebody is said to be known already.", minimum=0.0, maximum=1.0
    )

    def __post_init__(self) -> None:
        check_section(self)
        if self.minimum_views > self.wanted_views:
            raise ConfigurationError(
                f"minimum_views: expected at most wanted_views ({self.wanted_views}), got "
                f"{self.minimum_views}; set both"
            )


@dataclass(frozen=True, slots=True)
class AdaptationConfig:
    """When a person's templates may follow a new look."""

    enabled: bool = parameter(True, "Add templates of a new look of people recognized with certainty.")
    in_events: bool = parameter(False, "Also for people of event and run sessions.")
    maximum_templates: int = parameter(6, "Adapted templates of one person.", minimum=0, maximum=50)
    minimum_probability: float = parameter(
        0.99, "Probability of the track's identity from which on its views may be learned.",
        minimum=0.9, maximum=1.0,
    )  # fmt: skip
    certain_log_ratio: float = parameter(
        7.0, "Log-likelihood ratio against an enrolled template that counts as certain.",
        minimum=3.0, maximum=20.0,
    )  # fmt: skip
    certain_views: int = parameter(
        5, "Certain views a track must have shown before anything is learned from it.", minimum=1, maximum=100
    )
    certain_span_s: float = parameter(1.0, "Seconds that these views must span.", minimum=0.0, maximum=60.0)
    minimum_log_ratio: float = parameter(
        5.0, "Log-likelihood ratio against an enrolled template that a view to be learned must reach.",
        minimum=2.0, maximum=20.0,
    )  # fmt: skip
    minimum_quality: float = parameter(
        0.6, "Least quality of a view to be learned, in [0, 1].", minimum=0.0, maximum=1.0
    )
    new_look_similarity: float = parameter(
        0.8, "A view more similar than this to one of the person's templates shows nothing new.",
        minimum=0.0, maximum=1.0,
    )  # fmt: skip
    confirming_views: int = parameter(
        3, "Certain views that must follow a view before it is stored.", minimum=1, maximum=100
    )
    interval_s: float = parameter(
        5.0, "Seconds between two templates learned of one person.", minimum=0.0, maximum=3600.0
    )

    def __post_init__(self) -> None:
        check_section(self)


@dataclass(frozen=True, slots=True)
class GalleryConfig:
    """How the gallery keeps, finds and forgets people."""

    keep_crops: bool = parameter(
        False,
        "Also keep each template's face crop, encrypted, so that a new model can embed it again.",
        read_only=True,
    )
    undo_window_s: float = parameter(
        600.0,
        "Seconds for which forgotten or removed templates can be brought back; 0: they never can.",
        minimum=0.0,
        maximum=86400.0,
    )
    history_length: int = parameter(100, "Number of changes that can be undone.", minimum=0, maximum=10000)
    max_templates_per_person: int = parameter(
        100, "More templates than this are refused for one person.", minimum=1, maximum=10000
    )
    stranger_time_to_live_s: float = parameter(
        3600.0,
        "Seconds after which a stranger who was not seen again and got no name is forgotten; 0: never.",
        minimum=0.0,
        maximum=31536000.0,
    )
    exact_limit: int = parameter(
        50000, "Up to this many templates every one is compared; beyond, an index is searched.",
        minimum=1000, maximum=2000000, read_only=True,
    )  # fmt: skip
    index_threads: int = parameter(
        1,
        "Threads that build and search the index beyond exact_limit.",
        minimum=1,
        maximum=64,
        read_only=True,
    )
    poll_interval_s: float = parameter(
        0.2,
        "Seconds between looks for changes made to the file by another process; 0: never look.",
        minimum=0.0,
        maximum=60.0,
        read_only=True,
    )

    def __post_init__(self) -> None:
        check_section(self)


@dataclass(frozen=True, slots=True)
class Config:
    """What can be set.

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

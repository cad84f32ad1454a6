"""All parameters of the core in one tree; the dotted names are the parameters of the ROS node.

Every room may import this file: it declares, and does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recognition_node.common.errors import ConfigurationError
from face_recognition_node.common.parameters import Section, fixed_parameter, parameter

FAR_FACE_PX = 20.0
NEAR_FACE_PX = 96.0  # heights between which the score threshold rises, pixels at the working resolution
MOST_STRANGERS = 100_000


@dataclass(frozen=True, slots=True)
class ModelsConfig(Section):
    """Which models run, and on what."""

    models_dir: str = fixed_parameter("", "Folder of the model files; empty: the installed ones.")
    detector: str = fixed_parameter(
        "retinaface_mobilenet025",
        "Face detector: the name of its card in the models folder.",
        choices=("retinaface_mobilenet025", "retinaface_resnet50"),
    )
    embedder: str = fixed_parameter(
        "efficientnet_b0_64", "Face embedder: the name of its card in the models folder."
    )
    backend: str = fixed_parameter(
        "auto",
        "Runtime of the networks; auto: the fastest one installed, with the reason in the diagnostics.",
        choices=("auto", "openvino", "onnxruntime", "torch", "torch_tensorrt"),
    )
    device: str = fixed_parameter(
        "", "Device as the backend names it (CPU, GPU, cuda:0); empty: the backend's default."
    )
    precision: str = fixed_parameter(
        "auto",
        "Arithmetic of the networks; auto: fp16 with TensorRT, bfloat16 with OpenVINO on a CPU that "
        "supports it (half the time), else fp32.",
        choices=("auto", "fp32"),
    )
    threads: int = fixed_parameter(
        0, "CPU threads per network; 0: one fewer than there are cores, at most 4.", limits=(0, 64)
    )


@dataclass(frozen=True, slots=True)
class DetectorConfig(Section):
    """How faces are found.

    The network is surer the larger a face is: measured on photographs, faces of 100 pixels score above 0.9
    even when half covered, and few other things do; faces of 16 pixels score around 0.6. The threshold
    therefore rises with the size of the face, see :meth:`least_score`.
    """

    score_threshold: float = parameter(
        0.9, "Minimum detection score in [0, 1] of a face at least 96 pixels high.", limits=(0.05, 0.999)
    )
    far_score_threshold: float = parameter(
        0.2,
        "Minimum detection score in [0, 1] of a face at most 20 pixels high; between the two it rises.",
        limits=(0.05, 0.999),
    )
    overlap_threshold: float = parameter(
        0.4,
        "A box is dropped if its intersection over union with a better one exceeds this.",
        limits=(0.05, 0.95),
    )
    working_width: int = parameter(
        1280,
        "Longer image side in pixels at which faces are detected; larger images are scaled down to it.",
        limits=(160, 3840),
    )
    interval_frames: int = parameter(
        1,
        "Detect faces in every n-th image and follow them by optical flow in between; a new face waits "
        "for the next detection.",
        limits=(1, 30),
    )
    close_pass: bool = parameter(
        True, "Also detect in a small copy of a large image, for faces that fill it."
    )
    minimum_face_px: int = parameter(10, "Minimum height of a face in image pixels.", limits=(4, 1000))
    maximum_faces: int = parameter(
        50, "Maximum number of faces per image; those with the best scores are kept.", limits=(1, 500)
    )

    def __post_init__(self) -> None:
        Section.__post_init__(self)
        if self.far_score_threshold > self.score_threshold:
            raise ConfigurationError(
                "far_score_threshold: expected at most score_threshold "
                f"({self.score_threshold}), got {self.far_score_threshold}"
            )

    def least_score(self, heights_px: ArrayLike) -> NDArray[np.float32]:
        """Return the scores that (N,) heights, working pixels, need: linear in their logarithm, 20 to 96."""
        logarithms = np.log(np.maximum(np.asarray(heights_px, np.float32), 1e-6))
        ends = (self.far_score_threshold, self.score_threshold)
        return np.asarray(np.interp(logarithms, np.log([FAR_FACE_PX, NEAR_FACE_PX]), ends), np.float32)


@dataclass(frozen=True, slots=True)
class TrackerConfig(Section):
    """How faces are followed."""

    lost_after_s: float = parameter(2.0, "Seconds after which a lost face is given up.", limits=(0.1, 30.0))
    continuity_s: float = parameter(
        0.25,
        "Seconds for which a missed face may be continued by position alone; after that it must also "
        "match by its embedding.",
        limits=(0.0, 2.0),
    )
    continuity_odds: float = parameter(
        4.0,
        "Log odds against the same person at which a face continued by position becomes a new track.",
        limits=(1.0, 12.0),
    )
    relink_odds: float = parameter(
        4.0, "Log-likelihood ratio needed to continue the track of a lost face.", limits=(0.0, 12.0)
    )
    recheck_frames: int = parameter(
        5, "A face whose identity is certain is embedded again in every n-th image.", limits=(1, 100)
    )


@dataclass(frozen=True, slots=True)
class IdentityConfig(Section):
    """When a name is claimed."""

    target_false_accept_rate: float = parameter(
        0.01, "Probability that a stranger's track is ever given a name.", limits=(1e-6, 0.5)
    )
    minimum_probability: float = parameter(
        0.9,
        "Posterior probability that a person must reach before the name is claimed.",
        limits=(0.5, 0.9999),
    )
    new_person_prior: float = parameter(
        0.5, "Prior probability that a face belongs to nobody in the gallery.", limits=(0.01, 0.99)
    )
    release_factor: float = parameter(
        10.0,
        "A claim ends when its false match rate exceeds the allowed one by this factor.",
        limits=(1.0, 1e4),
    )
    claim_timeout_s: float = parameter(
        10.0, "Seconds without a supporting view after which a claim ends.", limits=(0.5, 600.0)
    )
    minimum_quality: float = parameter(
        0.15, "Views of lower quality are tracked but not compared.", limits=(0.0, 1.0)
    )
    minimum_face_px: float = parameter(
        18.0,
        "Smaller faces (square root of the box's area, in pixels) are tracked but not compared.",
        limits=(0.0, 1000.0),
    )
    minimum_detection_score: float = parameter(
        0.8, "Views with a lower detection score are tracked but not compared.", limits=(0.0, 1.0)
    )


@dataclass(frozen=True, slots=True)
class StrangersConfig(Section):
    """When an unknown person gets an id."""

    enabled: bool = parameter(True, "Give unknown people an id by which they are recognized again.")
    minimum_views: int = parameter(4, "Good views needed before a stranger gets an id.", limits=(2, 100))
    minimum_span_s: float = parameter(
        0.1, "Minimum time between the first and the last of these views, seconds.", limits=(0.0, 60.0)
    )
    minimum_quality: float = parameter(0.5, "Minimum quality of a good view.", limits=(0.1, 1.0))
    minimum_detection_score: float = parameter(
        0.9, "Minimum detection score of a good view.", limits=(0.0, 1.0)
    )
    patience_s: float = parameter(
        3.0, "Seconds after which a face that stays undecided gets a stranger's id.",
        limits=(0.5, 600.0)
    )  # fmt: skip
    false_match_rate: float = parameter(
        0.005, "Probability that a new person is taken for a known stranger.", limits=(1e-6, 0.5)
    )
    maximum_views: int = parameter(10, "Maximum number of views stored per stranger.", limits=(1, 50))
    maximum_strangers: int = parameter(
        200,
        "Maximum number of strangers; the one not seen for longest is replaced.",
        limits=(1, MOST_STRANGERS),
    )


@dataclass(frozen=True, slots=True)
class EnrollmentConfig(Section):
    """What makes a view good enough, how many are wanted, and how long to wait."""

    wanted_views: int = parameter(
        6, "Number of views to keep unless the goal says otherwise.", limits=(1, 50)
    )
    minimum_views: int = parameter(
        3,
        "Minimum number of views to store, unless the goal wants fewer; at most wanted_views.",
        limits=(1, 50),
    )
    timeout_s: float = parameter(
        15.0, "Seconds after which an enrollment ends with the views it has.", limits=(1.0, 600.0)
    )
    selection_s: float = parameter(
        0.3, "Seconds for which candidates are watched before one is chosen.", limits=(0.0, 2.0)
    )
    no_face_s: float = parameter(
        2.0, "Seconds without the wanted face after which the enrollment fails.", limits=(0.2, 30.0)
    )
    person_left_s: float = parameter(
        2.0, "Seconds out of view after which the person counts as gone.", limits=(0.2, 30.0)
    )
    person_changed_s: float = parameter(
        0.8, "Seconds of somebody else's face after which the enrollment fails.", limits=(0.1, 10.0)
    )
    pose_patience_s: float = parameter(
        2.0, "Seconds for which places are reserved for missing head poses.", limits=(0.0, 30.0)
    )
    view_interval_s: float = parameter(
        0.4, "Seconds after which a view is kept even if it is similar to an earlier one.", limits=(0.0, 10.0)
    )
    minimum_size_px: float = parameter(
        36.0, "Minimum size of a face in pixels (square root of the box's area).", limits=(12.0, 1000.0)
    )
    minimum_score: float = parameter(0.8, "Minimum detection score in [0, 1].", limits=(0.0, 1.0))
    minimum_sharpness: float = parameter(0.6, "Minimum sharpness in [0, 1].", limits=(0.0, 1.0))
    minimum_exposure: float = parameter(0.6, "Minimum exposure in [0, 1].", limits=(0.0, 1.0))
    minimum_landmarks: float = parameter(
        0.45, "Minimum plausibility of the landmarks in [0, 1].", limits=(0.0, 1.0)
    )
    maximum_yaw: float = parameter(55.0, "Maximum turn of the head to the side, degrees.", limits=(5.0, 90.0))
    maximum_pitch: float = parameter(
        40.0, "Maximum turn of the head up or down, degrees.", limits=(5.0, 90.0)
    )
    new_look_similarity: float = parameter(
        0.9, "A view whose cosine similarity to a kept one exceeds this is too similar.", limits=(0.0, 1.0)
    )
    ambiguity: float = parameter(
        0.8, "Two faces count as equally prominent if the second has at least this share of the first one's "
        "prominence.",
        limits=(0.1, 1.0)
    )  # fmt: skip
    warn_probability: float = parameter(
        0.5, "Warn if the face is a known person's with at least this probability.", limits=(0.0, 1.0)
    )

    def __post_init__(self) -> None:
        Section.__post_init__(self)
        if self.minimum_views > self.wanted_views:
            raise ConfigurationError(
                f"minimum_views: expected at most wanted_views ({self.wanted_views}), got "
                f"{self.minimum_views}; set both"
            )


@dataclass(frozen=True, slots=True)
class AdaptationConfig(Section):
    """When a person's templates may follow a new look."""

    enabled: bool = parameter(True, "Learn new appearances of people who are recognized with certainty.")
    in_events: bool = parameter(False, "Also learn of people enrolled in event and run sessions.")
    maximum_templates: int = parameter(6, "Maximum number of learned templates per person.", limits=(0, 50))
    minimum_probability: float = parameter(
        0.99, "Minimum posterior probability of a track's identity for its views to be learned.",
        limits=(0.9, 1.0)
    )  # fmt: skip
    certain_log_ratio: float = parameter(
        7.0, "A view is certain if its log-likelihood ratio to an enrolled template is at least this.",
        limits=(3.0, 20.0)
    )  # fmt: skip
    certain_views: int = parameter(
        5, "Number of certain views that a track needs before anything is learned from it.", limits=(1, 100)
    )
    certain_span_s: float = parameter(
        1.0, "Minimum time between the first and the last of these views, seconds.", limits=(0.0, 60.0)
    )
    minimum_log_ratio: float = parameter(
        5.0, "Minimum log-likelihood ratio between a view to be learned and an enrolled template.",
        limits=(2.0, 20.0)
    )  # fmt: skip
    minimum_quality: float = parameter(
        0.6, "Minimum quality in [0, 1] of a view to be learned.", limits=(0.0, 1.0)
    )
    new_look_similarity: float = parameter(
        0.8, "A view whose cosine similarity to a template of the person exceeds this is not learned.",
        limits=(0.0, 1.0)
    )  # fmt: skip
    confirming_views: int = parameter(
        3, "Number of certain views that must follow before a view is stored.", limits=(1, 100)
    )
    interval_s: float = parameter(
        5.0, "Minimum time between two templates learned of one person, seconds.", limits=(0.0, 3600.0)
    )


@dataclass(frozen=True, slots=True)
class GalleryConfig(Section):
    """How the gallery keeps, finds and forgets people."""

    keep_crops: bool = fixed_parameter(
        False, "Also keep each template's face crop, encrypted, so that another model can embed it later."
    )
    undo_window_s: float = parameter(
        600.0,
        "Seconds for which forgotten people and removed templates can be brought back; 0: never.",
        limits=(0.0, 86400.0),
    )
    history_length: int = parameter(100, "Number of changes that can be undone.", limits=(0, 10000))
    max_templates_per_person: int = parameter(
        100, "Maximum number of templates per person; more are refused.", limits=(1, 10000)
    )
    stranger_time_to_live_s: float = parameter(
        3600.0,
        "Seconds since the last sighting after which an unnamed stranger is forgotten; 0: never.",
        limits=(0.0, 31536000.0),
    )
    exact_limit: int = fixed_parameter(
        50000, "Up to this number of templates the search is exhaustive; beyond, it is approximate.",
        limits=(1000, 2000000)
    )  # fmt: skip
    index_threads: int = fixed_parameter(
        1, "Threads that build and search the index of a gallery larger than exact_limit.", limits=(1, 64)
    )
    poll_interval_s: float = fixed_parameter(
        0.2,
        "Seconds between checks for changes made to the file by other processes; 0: none.",
        limits=(0.0, 60.0),
    )


@dataclass(frozen=True, slots=True)
class Config:
    """What can be set; :func:`with_values` changes values by their dotted names."""

    models: ModelsConfig = field(default_factory=ModelsConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    identity: IdentityConfig = field(default_factory=IdentityConfig)
    strangers: StrangersConfig = field(default_factory=StrangersConfig)
    enrollment: EnrollmentConfig = field(default_factory=EnrollmentConfig)
    adaptation: AdaptationConfig = field(default_factory=AdaptationConfig)
    gallery: GalleryConfig = field(default_factory=GalleryConfig)

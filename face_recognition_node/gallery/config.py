"""The parameters of the gallery."""

from __future__ import annotations

from dataclasses import dataclass

from face_recognition_node.common.parameters import check_section, parameter


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

"""Where a frame of any size lies on the picture that the detector's network takes."""

from __future__ import annotations

from dataclasses import dataclass

SIZE_MULTIPLE = 32
"""The network takes pictures whose sides are multiples of this."""

AVERAGED_FROM = 2.0
"""Scale above which a frame is shrunk by averaging; bilinear sampling would skip pixels."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How a frame lies on the network's canvas.

    Attributes:
        canvas: (height, width) of the canvas, multiples of 32.
        content: (height, width) of the resized frame on it.
        left: Columns before the content.
        top: Rows above the content.
        scale: Pixels of the frame for one pixel of the canvas.
    """

    canvas: tuple[int, int]
    content: tuple[int, int]
    left: int
    top: int
    scale: float

    @classmethod
    def fit(cls, size: tuple[int, int], longer_side: int, margin: int = 0) -> Placement:
        """Place a frame of ``size`` (height, width) so that its longer side is at most ``longer_side``."""
        scale = max(1.0, max(size) / longer_side)
        height, width = (max(1, round(side / scale)) for side in size)
        rows, columns = (-(-(side + 2 * margin) // SIZE_MULTIPLE) * SIZE_MULTIPLE for side in (height, width))
        return cls((rows, columns), (height, width), margin, margin, scale)

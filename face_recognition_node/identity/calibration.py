"""What a similarity is worth: from cosines and qualities to log-likelihood ratios and false match rates.

Two faces are compared by their cosine ``s``, corrected for the hubness of each face,

    s' = s - weight * ((h(a) + h(b)) / 2 - h0),      h(x) = mean cosine of x to its k nearest prototypes,

where the prototypes are cluster centres of many other people's faces. A face in a dense region of the
embedding space resembles everybody a little; the correction takes that part off, as CSLS does for words
(Conneau et al. 2018, eq. 4) and adaptive score normalisation for voices (Matejka et al. 2017). ``h0`` is the
mean of ``h``, so that for an ordinary face ``s' = s``.

Two tables over (quality, quality, s') were learned from labelled pairs that the embedder has not seen:

    log_likelihood_ratio   ln p(s' | same person) / p(s' | different people)
    log_false_match        ln P(S' >= s' | different people)

both monotone in ``s'``, read by linear interpolation. ``face-recognition calibrate`` writes them beside the
model card; how they are fitted stands in ``evaluation/calibration.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from face_recognition_node.common.errors import ModelMismatchError

if TYPE_CHECKING:
    from face_recognition_node.vision.faces import FloatArray

FORMAT = 4
_CURE = "run `face-recognition calibrate` for these weights"


class _Card(Protocol):
    """The part of a model card that is read here."""

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    @property
    def calibration(self) -> Mapping[str, Any] | None: ...

    def calibration_tables(self) -> Mapping[str, NDArray[Any]]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The score distributions of one embedder."""

    qualities: FloatArray  # (Q,) rising quality levels in [0, 1] at which the tables stand
    similarities: FloatArray  # (S,) rising, evenly spaced corrected similarities
    # (Q, Q, S) natural-log likelihood ratio, symmetric in the qualities, rising in similarity
    ratio: FloatArray
    false_match: FloatArray  # (Q, Q, S) natural log of the false match rate, symmetric, falling in similarity
    prototypes: FloatArray  # (B, D) unit vectors, cluster centres of many faces
    neighbours: int  # how many nearest prototypes make the hubness
    weight: float  # how much of the hubness is taken off a similarity
    mean_hubness: float  # hubness of an ordinary face
    # how many independent comparisons one whole track of a stranger is worth (see `identity.py`)
    comparisons_per_track: float
    correlation_s: float  # time after which the noise in a face's embedding has lost 1 - 1/e of its memory
    embedder_sha256: str = ""  # weights these tables belong to
    # what was measured while fitting (Cllr, calibration error, counts), for people
    report: Mapping[str, Any] | None = None
    # mean and standard deviation of the corrected similarity of different people at the best quality; follows
    # from `false_match`
    different_people: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        expected = (len(self.qualities), len(self.qualities), len(self.similarities))
        for name in ("ratio", "false_match"):
            got = getattr(self, name).shape
            if got != expected:
                raise ModelMismatchError(f"calibration {name}: expected shape {expected}, got {got}; {_CURE}")
        steps = np.diff(self.similarities)
        if (
            len(steps) == 0
            or not np.allclose(steps, steps[0], rtol=1e-3)
            or (np.diff(self.qualities) <= 0).any()
        ):
            raise ModelMismatchError(f"calibration: expected rising qualities and an even grid; {_CURE}")
        if self.prototypes.ndim != 2 or len(self.prototypes) < self.neighbours:
            raise ModelMismatchError(
                f"calibration prototypes: expected {self.neighbours} or more, got {self.prototypes.shape}"
            )
        object.__setattr__(self, "different_people", self._measure_different_people())  # asked for every face

    @classmethod
    def from_card(cls, card: _Card) -> Calibration:
        """Read the calibration of an embedder's model card; ModelMismatchError if it has none that fits."""
        if not card.calibration:
            raise ModelMismatchError(f"model card {card.name}: it holds no calibration; {_CURE}")
        calibration = cls.from_tables(card.calibration, card.calibration_tables())
        if calibration.embedder_sha256 != card.sha256:
            raise ModelMismatchError(
                f"model card {card.name}: the calibration is of weights {calibration.embedder_sha256[:12]}…, "
                f"the card to {card.sha256[:12]}…; {_CURE}"
            )
        return calibration

    @classmethod
    def from_tables(cls, data: Mapping[str, Any], tables: Mapping[str, NDArray[Any]]) -> Calibration:
        """Read what :meth:`to_tables` gave; ModelMismatchError if that is incomplete or of another format."""
        if data.get("format") != FORMAT:
            raise ModelMismatchError(
                f"calibration: expected format {FORMAT}, got {data.get('format')!r}; {_CURE}"
            )
        try:
            return cls(
                qualities=tables["qualities"],
                similarities=tables["similarities"],
                ratio=tables["log_likelihood_ratio"],
                false_match=tables["log_false_match"],
                prototypes=tables["prototypes"],
                neighbours=int(data["neighbours"]),
                weight=float(data["weight"]),
                mean_hubness=float(data["mean_hubness"]),
                comparisons_per_track=float(data["comparisons_per_track"]),
                correlation_s=float(data["correlation_s"]),
                embedder_sha256=str(data["embedder_sha256"]),
                report=data.get("report"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelMismatchError(f"calibration: damaged ({error!r}); {_CURE}") from error

    def to_tables(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """Return what the model card says, ready for JSON, and the float32 tables that lie beside it."""
        numbers = {
            "format": FORMAT,
            "embedder_sha256": self.embedder_sha256,
            "neighbours": self.neighbours,
            "weight": self.weight,
            "mean_hubness": round(self.mean_hubness, 4),
            "comparisons_per_track": self.comparisons_per_track,
            "correlation_s": self.correlation_s,
            "report": dict(self.report) if self.report else None,
        }
        tables = {
            "qualities": self.qualities,
            "similarities": self.similarities,
            "log_likelihood_ratio": self.ratio,
            "log_false_match": self.false_match,
            "prototypes": self.prototypes,
        }
        return numbers, {name: np.asarray(table, np.float32) for name, table in tables.items()}

    def log_name_limit(self, target: float, n_persons: int, n_views: float = math.inf) -> float:
        """Return the natural log of the false match rate at which a track is given a name, or an id.

        That is ``ln(target / (N (1 + ln L) min(n, L)))``: the union bound over the N persons compared with
        (none counts as one; for an id, the strangers known), and the target spent over the n comparisons made
        so far. One independent view is one comparison; a whole track, however long, is worth L of them
        (``comparisons_per_track``).
        The first comparison spends ``1 / (1 + ln L)`` of the target, those after it the rest, ``ln L / (1 +
        ln L)``, the integral of 1/n from 1 to L (alpha spending, Lan and DeMets 1983). One person alone is no
        yardstick of how alike people are here: a single view then has to be as alike as a whole track. The
        target is the chance that the track of somebody who is none of them is ever taken for one.
        """
        most = self.comparisons_per_track
        n_comparisons = min(max(n_views, 1.0), most) if n_persons > 1 else most
        share = target / (1.0 + math.log(most))
        return math.log(share) - math.log(max(n_persons, 1) * n_comparisons)

    def hubness(self, embeddings: ArrayLike) -> FloatArray:
        """Return (N,) how much each of (N, D) unit vectors looks like everybody: ``h`` above, a cosine."""
        vectors = np.asarray(embeddings, np.float32)
        if len(vectors) == 0:
            return np.zeros(0, np.float32)
        cosines = vectors @ self.prototypes.T
        kept = -self.neighbours
        return np.asarray(np.partition(cosines, kept, axis=1)[:, kept:].mean(axis=1), np.float32)

    def correct(self, similarity: ArrayLike, hubness: ArrayLike) -> FloatArray:
        """Return ``s'`` of cosines, given the mean hubness of each comparison's two sides."""
        excess = np.asarray(hubness, np.float32) - np.float32(self.mean_hubness)
        return np.asarray(np.asarray(similarity, np.float32) - np.float32(self.weight) * excess, np.float32)

    def log_likelihood_ratio(
        self,
        similarity: ArrayLike,
        quality_query: ArrayLike,
        quality_template: ArrayLike,
        hubness: ArrayLike | None = None,
    ) -> NDArray[np.float64]:
        """Return ``ln p(similarity | same) / p(similarity | different)``, natural log.

        Cosines and qualities, in [0, 1], of any shape broadcast against one another, as does the mean of the
        two sides' :meth:`hubness`; without it both faces are taken as ordinary.
        """
        return self._read(self.ratio, similarity, quality_query, quality_template, hubness)

    def log_false_match(
        self,
        similarity: ArrayLike,
        quality_query: ArrayLike,
        quality_template: ArrayLike,
        hubness: ArrayLike | None = None,
    ) -> NDArray[np.float64]:
        """Return ``ln P(as similar or more | different people)``; arguments as above."""
        return self._read(self.false_match, similarity, quality_query, quality_template, hubness)

    def _measure_different_people(self) -> tuple[float, float]:
        beyond = np.exp(self.false_match[-1, -1].astype(np.float64))
        share = beyond[:-1] - beyond[1:]
        if not share.any():  # a table that is still to be filled in
            return float("nan"), float("nan")
        middle = (self.similarities[:-1] + self.similarities[1:]).astype(np.float64) / 2
        mean = float(share @ middle / share.sum())
        return mean, float(np.sqrt(share @ (middle - mean) ** 2 / share.sum()))

    def _read(
        self,
        table: FloatArray,
        similarity: ArrayLike,
        quality_a: ArrayLike,
        quality_b: ArrayLike,
        hubness: ArrayLike | None,
    ) -> NDArray[np.float64]:
        if hubness is not None:
            similarity = self.correct(similarity, hubness)
        levels, grid = self.qualities, self.similarities
        first, step = float(grid[0]), float(grid[1] - grid[0])
        place = (np.asarray(similarity, np.float64) - first) / step
        k, tk = _cell(place, len(grid))
        index = np.arange(len(levels), dtype=np.float64)
        i, ti = _cell(np.interp(np.asarray(quality_a, np.float64), levels, index), len(levels))
        j, tj = _cell(np.interp(np.asarray(quality_b, np.float64), levels, index), len(levels))
        # One number for the three indices: a gather by it takes a quarter of the time.
        flat, column, row = table.reshape(-1), len(grid), len(levels) * len(grid)
        corner = row * i + column * j + k

        def along(start: Any) -> Any:
            return flat[start] * (1 - tk) + flat[start + 1] * tk

        low = along(corner) * (1 - tj) + along(corner + column) * tj
        high = along(corner + row) * (1 - tj) + along(corner + row + column) * tj
        return np.asarray(low * (1 - ti) + high * ti, np.float64)


def _cell(place: NDArray[np.float64], length: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Split places on a grid of ``length`` >= 2 nodes into the node below and the fraction beyond it."""
    held = np.minimum(np.maximum(place, 0.0), length - 1.0)
    below = np.minimum(held.astype(np.intp), length - 2)
    return below, held - below

"""What preparing a folder of photographs comes to: a manifest, the rejects with reasons, duplicates found."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from face_recognition_node.common.errors import ConfigurationError, SourceError
from face_recognition_node.common.files import write_bytes, write_json, written_whole
from face_recognition_node.vision.faces import Detection, FloatArray, ImageArray

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".pgm")
MANIFEST, REJECTS, JOURNAL, SETTINGS = "manifest.csv", "rejects.csv", "journal.jsonl", "settings.json"
# crops of one person whose 64-bit hashes differ in at most so many bits are compared pixel by pixel
CANDIDATE_BITS = 14
# such crops are one picture (scaled, cut, saved again) if they correlate as well as this once one is laid
# over the other. Of 160 photographs, found anew after each change, this finds all that were compressed or
# made grey, 99 % of those brightened, 98 % of those enlarged or cut and 92 % of those reduced to 0.7. Of
# 7,271 pairs of one person in LFW it takes 3 for copies, and they are; by the hash alone it was 56, and of
# many photographs of a person one in seven was thrown away
COPY_CORRELATION = 0.985
_SIDE = 56
_PLAIN_CORRELATION = 0.8  # unaligned, 99.7 % of the copies reach this and 3 % of the others

Detect = Callable[[ImageArray], Sequence[Detection]]
Align = Callable[[ImageArray, Detection], ImageArray]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What became of one picture."""

    source: str  # path relative to the source folder
    identity: str  # name of its folder
    crop: str = ""  # path of the crop relative to the output folder; empty if there is none
    reason: str = ""  # why there is none; empty if there is one
    score: float = 0.0  # of the detector
    size_px: float = 0.0  # of the face
    picture_hash: str = ""  # SHA-256 of the file
    crop_hash: str = ""  # 64-bit difference hash of the crop, hexadecimal


@dataclass(frozen=True, slots=True)
class PreparationLimits:
    """What is good enough to train on."""

    minimum_score: float = 0.7  # of the detection
    minimum_size_px: float = 20.0  # of the face in the photograph
    quality: int = 92  # webP quality of the crops


def find_pictures(source: Path) -> list[str]:
    """Return all pictures of ``source/IDENTITY/…`` relative to it, sorted; SourceError if there are none."""
    found = (path.relative_to(source) for path in source.rglob("*") if path.suffix.lower() in PICTURES)
    pictures = sorted(str(path) for path in found if len(path.parts) > 1)
    if not pictures:
        raise SourceError(f"{source}: expected one folder of pictures per identity, found no picture in any")
    return pictures


def prepare_picture(
    source: Path, name: str, out: Path, detect: Detect, align: Align, limits: PreparationLimits
) -> Prepared:
    """Detect, align and store the face of one picture: of several, the large one near the middle.

    The name is relative to the folder of identities; the crop goes to ``out``.
    """
    identity = Path(name).parts[0]
    if any("\ud800" <= letter <= "\udfff" for letter in name):  # so Python shows bytes that are no UTF-8
        return Prepared(name, identity, reason="its name is not UTF-8; rename it")
    try:
        data = (source / name).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except OSError as error:
        return Prepared(name, identity, reason=f"cannot be read ({error.strerror})")
    except cv2.error:  # OpenCV refuses pictures of over 2^30 pixels with an error of its own
        image = None
    if image is None:
        return Prepared(name, identity, reason="cannot be decoded", picture_hash=digest)
    picture = np.asarray(image, np.uint8)
    faces = [face for face in detect(picture) if face.score >= limits.minimum_score]
    if not faces:
        return Prepared(name, identity, reason="no face found", picture_hash=digest)
    face = max(faces, key=lambda one: _prominence(one, picture))
    if face.size_px < limits.minimum_size_px:
        reason = f"face of {face.size_px:.0f} px is too small"
        return Prepared(
            name, identity, reason=reason, score=face.score, size_px=face.size_px, picture_hash=digest
        )
    crop = align(picture, face)
    place = Path("faces") / Path(name).with_suffix(Path(name).suffix + ".webp")
    _, encoded = cv2.imencode(".webp", crop, [cv2.IMWRITE_WEBP_QUALITY, limits.quality])
    write_bytes(out / place, encoded.tobytes())
    return Prepared(
        name,
        identity,
        place.as_posix(),
        "",
        round(face.score, 4),
        round(face.size_px, 1),
        digest,
        difference_hash(crop),
    )


def _prominence(face: Detection, image: ImageArray) -> float:
    middle = np.array([image.shape[1], image.shape[0]]) / 2
    off = float(np.linalg.norm((face.center_xy - middle) / middle))
    return face.size_px * (1 - 0.4 * min(off, 1.0))


def difference_hash(crop: ImageArray) -> str:
    """Return 16 hexadecimal digits: which of 8 × 9 cells is brighter than its left neighbour."""
    grey = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), (9, 8), interpolation=cv2.INTER_AREA).astype(
        int
    )
    bits = (grey[:, 1:] > grey[:, :-1]).ravel()
    return f"{int(''.join('1' if bit else '0' for bit in bits), 2):016x}"


def thumbnail(crop: ImageArray) -> FloatArray:
    """Return a (H, W, 3) crop as (56, 56) smooth grey, to be compared by :func:`is_copy`."""
    grey = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0), np.float32)


def is_copy(first: FloatArray, second: FloatArray) -> bool:
    """Return whether two thumbnails show the same picture, up to a small affine shift.

    The shift is found by maximizing the correlation (ECC: Evangelidis & Psarakis 2008).
    """
    plain = _correlation(first, second)
    if plain >= COPY_CORRELATION or plain < _PLAIN_CORRELATION:
        return plain >= COPY_CORRELATION
    shift = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 1e-3)
    try:
        cv2.findTransformECC(first, second, shift, cv2.MOTION_AFFINE, stop)
    except cv2.error:  # it does not converge: they have too little in common
        return False
    laid = cv2.warpAffine(second, shift, (_SIDE, _SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    inner = slice(_SIDE // 8, -_SIDE // 8)
    return _correlation(first[inner, inner], np.asarray(laid[inner, inner], np.float32)) >= COPY_CORRELATION


def _correlation(first: FloatArray, second: FloatArray) -> float:
    a, b = first - first.mean(), second - second.mean()
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-6))


def mark_duplicates(
    prepared: Iterable[Prepared], read_crop: Callable[[Prepared], ImageArray | None]
) -> list[Prepared]:
    """Return the same list with later copies of a picture, in this order, turned into rejects.

    Within one identity the crops decide; across identities only an identical file counts. A copy under
    another name says whose it is. ``read_crop`` gives the stored crop, None if it is gone.
    """
    files: dict[str, Prepared] = {}
    crops: dict[str, list[Prepared]] = {}
    seen: dict[str, FloatArray] = {}  # thumbnails of the identity at hand, by crop

    def look(one: Prepared) -> FloatArray:
        if one.crop not in seen:
            crop = read_crop(one)
            seen[one.crop] = np.zeros((_SIDE, _SIDE), np.float32) if crop is None else thumbnail(crop)
        return seen[one.crop]

    def is_same(other: Prepared, one: Prepared) -> bool:
        return _bits(other.crop_hash, one.crop_hash) <= CANDIDATE_BITS and is_copy(look(other), look(one))

    marked = []
    for one in prepared:
        if one.reason:
            marked.append(one)
            continue
        if one.identity not in crops:
            seen.clear()
        known = crops.setdefault(one.identity, [])
        first = files.get(one.picture_hash) or next((other for other in known if is_same(other, one)), None)
        if first is not None:
            files.setdefault(one.picture_hash, first)
            marked.append(Prepared(**{**asdict(one), "reason": f"duplicate of {first.source}"}))
            continue
        files[one.picture_hash] = one
        known.append(one)
        marked.append(one)
    return marked


def _bits(first: str, second: str) -> int:
    return (int(first, 16) ^ int(second, 16)).bit_count()


def check_settings(out: Path, settings: Mapping[str, object]) -> None:
    """Write what a folder is prepared with, or compare with what it was begun with.

    Raises:
        ConfigurationError: If that was something else.
    """
    path = out / SETTINGS
    if not path.is_file():
        write_json(path, settings)
        return
    stored = json.loads(path.read_text(encoding="utf-8"))
    others = [f"{name} {stored.get(name)!r}" for name in settings if stored.get(name) != settings[name]]
    if others:
        raise ConfigurationError(
            f"{out}: was begun with {', '.join(others)}; prepare with the same, or into another folder"
        )


def read_journal(out: Path) -> dict[str, Prepared]:
    """Return what an earlier, cut-off call has done, by source; a torn last line is left out."""
    done: dict[str, Prepared] = {}
    if (out / JOURNAL).is_file():
        for line in (out / JOURNAL).read_text(encoding="utf-8").splitlines():
            try:
                one = Prepared(**json.loads(line))
            except (json.JSONDecodeError, TypeError):
                continue
            done[one.source] = one
    return done


def write_tables(prepared: Sequence[Prepared], out: Path) -> tuple[int, int]:
    """Write the manifest and the rejects; return how many rows each has."""

    def read_crop(one: Prepared) -> ImageArray | None:
        crop = cv2.imread(str(out / one.crop))
        return None if crop is None else np.asarray(crop, np.uint8)

    marked = mark_duplicates(sorted(prepared, key=lambda one: one.source), read_crop)
    kept, rejected = [one for one in marked if not one.reason], [one for one in marked if one.reason]
    for name, rows, columns in (
        (MANIFEST, kept, ["crop", "identity", "source", "score", "size_px"]),
        (REJECTS, rejected, ["source", "identity", "reason"]),
    ):
        with (
            written_whole(out / name) as draft,
            open(draft, "w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
        ):
            writer = csv.DictWriter(stream, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
    return len(kept), len(rejected)

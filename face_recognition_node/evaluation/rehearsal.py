"""What would go wrong on the day: a video of the place and the gallery, judged in ten sentences.

Nobody says who is in the video, so nothing here is a measured accuracy: a track counts as an enrolled
person's once it was named, and the rest follows from views, sizes, light and the calibration.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from face_recognition_node.enrollment.coverage import PoseCoverage
from face_recognition_node.gallery.snapshot import Snapshot
from face_recognition_node.gallery.values import Person
from face_recognition_node.identity.calibration import Calibration
from face_recognition_node.identity.person_models import pairs_of_one_person
from face_recognition_node.media.annotate import draw_faces
from face_recognition_node.vision.faces import (
    Frame,
    IdentifiedFace,
    IdentityState,
    ImageArray,
    RecognitionResult,
)

# limits of the classes of face height in which the share of named frames is reported
SIZES_PX = (0, 20, 30, 40, 60, 90, 140, 10_000)
_SETTLING_S = 0.7  # from its first sight on a track may be undecided for so long
# probability that two people are one, by their views, from which on they are named, and acted on
_RISKY, _GRAVE = 0.02, 0.3
_DARK, _BACKLIT = 45.0, 0.5  # mean brightness of a face of 255; and of a face by that of its surroundings
_WEAK_VIEWS, _WEAK_QUALITY = 3, 0.45
# a face that stays in place for so long, to so much of its height, is likely to be a picture
_STILL_S, _STILL_SHARE = 3.0, 0.004
_DOUBTFUL_SCORE, _DOUBTFUL_LANDMARKS = 0.85, 0.3
_PICTURE_HEIGHT = 150
Shown = tuple[tuple[ImageArray, str], ...]  # pictures with their captions


@dataclass
class Track:
    """One face followed through one source: a value for each frame, and its largest picture."""

    stamps: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # empty where no name was claimed
    places: list[tuple[float, float, float]] = field(default_factory=list)  # centre and height, pixels
    # brightness of the face and of its surroundings, and where in the width of the picture, in [0, 1]
    light: list[tuple[float, float, float]] = field(default_factory=list)
    # detection score, and how well the landmarks fit a face
    detector: list[tuple[float, float]] = field(default_factory=list)
    flatness: set[str] = field(default_factory=set)
    picture: ImageArray | None = None
    picture_px: float = 0.0

    @property
    def claims(self) -> Counter[str]:
        """Frames for each name it was given."""
        return Counter(name for name in self.names if name)

    @property
    def is_still(self) -> bool:
        """Whether it did not move as a living head does."""
        if self.stamps[-1] - self.stamps[0] < _STILL_S:
            return False
        spread = np.std(self.places, axis=0)[:2].max()
        return bool(spread < _STILL_SHARE * np.mean(self.places, axis=0)[2])

    @property
    def is_doubtful(self) -> bool:
        """Whether it is likely to be no face at all."""
        score, landmarks = np.mean(self.detector, axis=0)
        is_poor = bool(score < _DOUBTFUL_SCORE or landmarks < _DOUBTFUL_LANDMARKS)
        return is_poor and not self.claims and not self.is_badly_lit

    @property
    def is_badly_lit(self) -> bool:
        """Whether most of it is too dark or against the light."""
        return sum(map(_is_bad_light, self.light)) > len(self.light) / 2


@dataclass(frozen=True)
class Finding:
    """One sentence for the team."""

    level: str  # "act", "look" or "fine"
    topic: str  # in two or three words
    text: str  # what was found
    advice: str = ""  # what to do; empty where all is well
    pictures: Shown = ()  # worst cases first


class Rehearsal:
    """Collects what is seen in one source after the other."""

    def __init__(self) -> None:
        self.tracks: dict[tuple[str, int], Track] = {}
        self.overviews: dict[str, tuple[tuple[int, int], ImageArray]] = {}
        self.seconds: list[float] = []
        self.rate_hz = 0.0
        self.problems: list[str] = []

    def add(self, source: str, frame: Frame, result: RecognitionResult, seconds: float) -> None:
        """Note one frame, and how long it took."""
        self.seconds.append(seconds)
        grey = np.asarray(cv2.cvtColor(frame.image_bgr, cv2.COLOR_BGR2GRAY), np.uint8)
        for face in result.faces:
            track = self.tracks.setdefault((source, face.track_id), Track())
            detection, identity = face.view.detection, face.identity
            track.stamps.append(result.stamp)
            track.names.append(identity.name if identity.state is IdentityState.KNOWN else "")
            track.places.append((*detection.center_xy.tolist(), detection.height))
            track.light.append((*_light(grey, face), float(detection.center_xy[0]) / grey.shape[1]))
            track.detector.append((detection.score, face.view.quality.landmarks))
            track.flatness.add(face.flatness)
            if track.picture is None or detection.height > 1.15 * track.picture_px:
                track.picture, track.picture_px = _cut(frame.image_bgr, face), detection.height
        n_named = sum(face.identity.state is IdentityState.KNOWN for face in result.faces)
        fullness = (len(result.faces), n_named)
        if source not in self.overviews or fullness > self.overviews[source][0]:
            drawn = draw_faces(frame.image_bgr, result.faces)
            scale = min(1.0, 800 / drawn.shape[1])
            small = cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            self.overviews[source] = (fullness, np.asarray(small, np.uint8))

    def findings(self, calibration: Calibration, snapshot: Snapshot, strangers_named: float) -> list[Finding]:
        """Return ten, the most urgent first; ``strangers_named`` is the expected share, in [0, 1]."""
        people = [person for person in snapshot.persons.values() if not person.is_stranger]
        found = [
            self._mistaken(calibration, snapshot), _views(snapshot, people), self._absent(people),
            self._distance(), self._lighting(), self._pictures(), self._false_detections(), self._speed(),
            _strangers(strangers_named, len(people)), self._material(),
        ]  # fmt: skip
        return sorted(found, key=lambda one: ("act", "look", "fine").index(one.level))

    def _mistaken(self, calibration: Calibration, snapshot: Snapshot) -> Finding:
        topic = "Mistaken for one another"
        changed = [track for track in self.tracks.values() if len(track.claims) > 1]
        risky = pairs_of_one_person(calibration, snapshot, _RISKY)
        pairs = [(snapshot.persons[a], snapshot.persons[b], chance) for a, b, chance in risky]
        pairs = [pair for pair in pairs if not (pair[0].is_stranger or pair[1].is_stranger)][:3]
        if not pairs and not changed:
            return Finding("fine", topic, "No two enrolled people look alike to the robot.")
        alike = "; ".join(f"{a.label} and {b.label} ({chance:.0%} likely one)" for a, b, chance in pairs)
        on_the_way = "; ".join(" and ".join(track.claims) for track in changed[:3])
        concerned = list(dict.fromkeys(person for pair in pairs for person in pair[:2]))
        missing = {person.label: coverage(snapshot, person).missing() for person in concerned[:4]}
        advice = [
            f"Add views of {name} looking {list_directions(to_add)}."
            for name, to_add in missing.items()
            if to_add
        ]
        tracks = [t for p in concerned for t in self.tracks.values() if p.name in t.claims] + changed
        return Finding(
            "act" if changed or pairs[0][2] > _GRAVE else "look", topic,
            (f"Most alike by their views: {alike}." if alike else "")
            + (f" Faces that changed their name on the way: {on_the_way}." if changed else ""),
            " ".join(advice) or "Add views in this light; if they are one person, merge them.",
            _show(tracks, lambda track: " / ".join(track.claims)),
        )  # fmt: skip

    def _absent(self, people: Sequence[Person]) -> Finding:
        if not people:
            return Finding(
                "look", "Never recognized", "Nobody is enrolled who could be.", "Enroll the team first."
            )
        seen = {name for track in self.tracks.values() for name in track.claims}
        absent = [person.label for person in people if person.name not in seen]
        if not absent:
            return Finding("fine", "Never recognized", f"Everybody enrolled ({len(people)}) was recognized.")
        unnamed = [track for track in self.tracks.values() if not track.claims and len(track.names) > 10]
        return Finding(
            "look", "Never recognized",
            f"{len(absent)} of {len(people)} enrolled people were not recognized: {_some(absent)}.",
            "If one of them is among these faces, enroll them again in this light; else they were not there.",
            _show(sorted(unnamed, key=lambda track: -track.picture_px), lambda _: "no name"),
        )  # fmt: skip

    def _distance(self) -> Finding:
        settled = [
            (place[2], bool(name))
            for track in self.tracks.values()
            for stamp, name, place in zip(track.stamps, track.names, track.places, strict=True)
            if track.claims and stamp - track.stamps[0] >= _SETTLING_S
        ]
        rows = []
        for low, high in itertools.pairwise(SIZES_PX):
            named = [is_named for height, is_named in settled if low <= height < high]
            if len(named) >= 10:
                rows.append((low, sum(named) / len(named), len(named)))
        if not rows:
            return Finding(
                "look", "Distance", "No enrolled person was followed long enough to tell where names stop.",
                "Record an enrolled person who walks up to the robot from afar.",
            )  # fmt: skip
        poor = [low for low, share, _ in rows if share < 0.8]
        shares = ", ".join(f"from {low} px {share:.0%} of {count}" for low, share, count in rows)
        text = f"Of people named at some time, frames with the name by height of the face: {shares}"
        if not poor:
            return Finding("fine", "Distance", f"{text}. Names held at all distances that occurred.")
        limit = min((low for low, *_ in rows if low > max(poor)), default=None)
        reach = "at no size are they reliable" if limit is None else f"names are reliable from {limit} px"
        return Finding(
            "act" if limit is None or limit > 60 else "look", "Distance", f"{text}: {reach}.",
            "Drive nearer, zoom in or take a larger image (detector.working_width), until faces are higher.",
            _show([track for track in self.tracks.values() if track.claims and "" in track.names],
                  lambda track: f"{track.picture_px:.0f} px"),
        )  # fmt: skip

    def _lighting(self) -> Finding:
        seen = [one for track in self.tracks.values() for one in track.light]
        if not seen:
            return Finding("look", "Light", "No face was seen that tells it.", "Record people in this light.")
        bad = [one for one in seen if _is_bad_light(one)]
        if len(bad) < 0.05 * len(seen):
            return Finding("fine", "Light", "The faces are lit well.")
        third = Counter(min(max(int(3 * one[2]), 0), 2) for one in bad).most_common(1)[0][0]
        is_dark = sum(one[0] < _DARK for one in bad) >= len(bad) / 2
        tracks = [track for track in self.tracks.values() if any(map(_is_bad_light, track.light))]
        return Finding(
            "act" if len(bad) > 0.3 * len(seen) else "look", "Light",
            f"{len(bad) / len(seen):.0%} of the faces are {'too dark' if is_dark else 'against the light'}, "
            f"most of them in the {('left', 'middle', 'right')[third]} third of the picture.",
            "Put a lamp there, or let the camera expose longer." if is_dark
            else "Turn the robot away from the window or lamp, or put light on the faces.",
            _show(sorted(tracks, key=lambda track: min(track.light)),
                  lambda track: f"brightness {min(track.light)[0]:.0f} of 255"),
        )  # fmt: skip

    def _pictures(self) -> Finding:
        tracks = list(self.tracks.values())
        flat = [track for track in tracks if "flat" in track.flatness]
        suspects = flat or [t for t in tracks if t.is_still and t.flatness <= {"unverified"}]
        if not suspects:
            n_unknown = sum(track.flatness <= {"unverified"} for track in tracks)
            unknown = f"; {n_unknown} of {len(tracks)} could not be judged, without depth and turning"
            text = f"No face looks like a poster or a screen{unknown if n_unknown else ''}."
            return Finding("fine", "Pictures of faces", text)
        named = _some(sorted({name for track in suspects for name in track.claims}))
        return Finding(
            "act" if named else "look", "Pictures of faces",
            f"{len(suspects)} face(s) are {'flat' if flat else 'without any motion'}"
            + (f", and were named {named}." if named else "."),
            "Take such posters down; with a depth camera (depth_topic) they are never named.",
            _show(suspects, lambda track: " / ".join(track.claims) or "no name"),
        )  # fmt: skip

    def _false_detections(self) -> Finding:
        doubtful = [track for track in self.tracks.values() if track.is_doubtful]
        if not doubtful:
            return Finding("fine", "False detections", "All that was found looks like a face.")
        return Finding(
            "look", "False detections", f"{len(doubtful)} of {len(self.tracks)} tracks may be no faces.",
            "Look at them; if they are none, cover the pattern or raise detector.score_threshold.",
            _show(doubtful, lambda track: f"score {np.mean(track.detector, axis=0)[0]:.2f}"),
        )  # fmt: skip

    def _speed(self) -> Finding:
        if not self.tracks:
            return Finding("look", "Speed", "No frame had a face, which takes time.", "Record people.")
        median, late = (1000 * float(value) for value in np.percentile(self.seconds, [50, 95]))
        able = 1 / float(np.mean(self.seconds))
        text = f"This machine takes {median:.0f} ms for a frame (95 %: {late:.0f} ms): {able:.0f} a second"
        if able >= min(self.rate_hz, 10.0):
            return Finding("fine", "Speed", f"{text}; the recording has {self.rate_hz:.0f} a second.")
        return Finding(
            "act", "Speed", f"{text}, too few to follow people by.",
            "If it is the robot's, close other programs, set detector.interval_frames to 3, or use a GPU.",
        )  # fmt: skip

    def _material(self) -> Finding:
        n_frames, n_faces = len(self.seconds), len(self.tracks)
        text = f"{n_frames} frames with {n_faces} faces were looked at"
        if self.problems:
            text = f"{text}; {len(self.problems)} part(s) could not be read"
            return Finding("look", "Recording", f"{text}.", f"The first: {self.problems[0]}")
        if n_faces < 3 or n_frames < 100:
            return Finding(
                "look", "Recording", f"{text}, which is little.", "Record some minutes of the place."
            )
        return Finding("fine", "Recording", f"{text}.")


def _views(snapshot: Snapshot, people: Sequence[Person]) -> Finding:
    weak = []
    for person in people:
        views = [one for one in snapshot.templates_of(person.person_id) if not one.is_set_aside]
        quality = float(np.mean([one.quality for one in views])) if views else 0.0
        if len(views) < _WEAK_VIEWS:
            weak.append(f"{person.label} has {len(views)} view(s)")
        elif quality < _WEAK_QUALITY:
            weak.append(f"those of {person.label} are poor (quality {quality:.2f})")
        elif "front" in coverage(snapshot, person).missing():
            weak.append(f"{person.label} has none from the front")
    if not people:
        return Finding("act", "Views", "Nobody is enrolled.", "Enroll the people of the team first.")
    if not weak:
        return Finding("fine", "Views", f"Everybody enrolled ({len(people)}) has good views.")
    return Finding(
        "act", "Views", f"Weakly enrolled: {_some(weak)}.",
        "Enroll them again for five seconds, in good light, while they turn their head slowly.",
    )  # fmt: skip


def _strangers(share: float, n_people: int) -> Finding:
    text = f"About {100 * share:.1f} % of strangers will be given a name, with {n_people} enrolled."
    advice = "Lower identity.target_false_accept_rate, or forget people who do not take part."
    return Finding("fine", "Strangers", text) if share <= 0.02 else Finding("look", "Strangers", text, advice)


def coverage(snapshot: Snapshot, person: Person) -> PoseCoverage:
    """Return which directions of the head a person's views cover."""
    views = snapshot.templates_of(person.person_id)
    return PoseCoverage.of(one.pose for one in views if not one.is_set_aside)


def list_directions(directions: Iterable[str]) -> str:
    """Return where to look, as seen in the picture."""
    words = {"front": "into the camera", "left": "to the left of the picture", "right": "to its right"}
    return ", ".join(words.get(direction, direction) for direction in directions)


def _is_bad_light(one: tuple[float, float, float]) -> bool:
    return one[0] < _DARK or one[0] < _BACKLIT * one[1]


def _light(grey: ImageArray, face: IdentifiedFace) -> tuple[float, float]:
    """Return the mean brightness of the middle of a face and of what is around it."""
    x1, y1, x2, y2 = (max(0, round(float(value))) for value in face.view.detection.box_xyxy)
    wide, high = x2 - x1, y2 - y1
    inner = grey[y1 + high // 5 : y2, x1 + wide // 5 : x2 - wide // 5]
    around = grey[max(0, y1 - high // 2) : y2 + high // 2, max(0, x1 - wide) : x2 + wide]
    return (float(inner.mean()), float(around.mean())) if inner.size else (255.0, 255.0)


def _cut(image_bgr: ImageArray, face: IdentifiedFace) -> ImageArray:
    """Return the face with some of its surroundings, 150 pixels high."""
    (x, y), half = face.view.detection.center_xy, 0.9 * face.view.detection.size_px
    rows, columns = (slice(max(0, int(at - half)), int(at + half) + 2) for at in (y, x))
    part = image_bgr[rows, columns]
    size = (max(1, round(part.shape[1] * _PICTURE_HEIGHT / part.shape[0])), _PICTURE_HEIGHT)
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)


def _show(tracks: Iterable[Track], caption: Callable[[Track], str]) -> Shown:
    distinct = {id(track): track for track in tracks}.values()
    return tuple((track.picture, caption(track)) for track in distinct if track.picture is not None)[:4]


def _some(names: Sequence[str]) -> str:
    return "; ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

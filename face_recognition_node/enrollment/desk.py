"""One enrolment at a time."""

from __future__ import annotations

import threading

from face_recognition_node.common.errors import EnrollmentError
from face_recognition_node.enrollment.session import EnrollmentSession
from face_recognition_node.enrollment.values import EnrollmentConfig, EnrollmentGoal, Outcome
from face_recognition_node.gallery.gallery import Gallery
from face_recognition_node.identity.calibration import Calibration


class EnrollmentDesk:
    """Starts enrolments; a second one is refused while the first has not ended, which goes on undisturbed."""

    def __init__(self, gallery: Gallery, calibration: Calibration) -> None:
        self._gallery, self._calibration = gallery, calibration
        self._lock = threading.Lock()
        self._current: EnrollmentSession | None = None

    @property
    def current(self) -> EnrollmentSession | None:
        """The enrolment that is running, or None."""
        current = self._current
        return None if current is None or current.finished else current

    def begin(self, goal: EnrollmentGoal, config: EnrollmentConfig | None = None) -> EnrollmentSession:
        """Start an enrolment.

        Raises:
            EnrollmentError: If another one is running (reason ``"busy"``).
        """
        with self._lock:
            if self.current is not None:
                raise EnrollmentError(Outcome.BUSY.value, "another enrolment is running; wait or cancel it")
            self._current = EnrollmentSession(goal, self._gallery, self._calibration, config)
            return self._current

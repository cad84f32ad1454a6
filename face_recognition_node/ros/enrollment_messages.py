"""Enrolment goals, feedback and results between the core and the EnrollPerson action."""

from __future__ import annotations

from collections.abc import Mapping

from face_recognition_interfaces.action import EnrollPerson
from face_recognition_interfaces.msg import PoseCoverage as PoseCoverageMessage
from face_recognition_interfaces.msg import RejectionCount
from face_recognition_node.common.errors import InputError
from face_recognition_node.enrollment.coverage import PoseCoverage
from face_recognition_node.enrollment.goal import (
    EnrollmentFeedback,
    EnrollmentGoal,
    EnrollmentResult,
    MostCentral,
    Region,
    Rejection,
    Selection,
    Track,
)
from face_recognition_node.ros.messages import number, to_duration, to_seconds


def to_goal(request: EnrollPerson.Goal) -> EnrollmentGoal:
    """Return what the client asks for.

    Raises:
        InputError: If the goal contradicts itself or is out of bounds.
    """
    return EnrollmentGoal(
        name=request.name,
        person_id=request.person_id or None,
        selection=_selection(request),
        wanted_views=int(request.wanted_views),
        timeout_s=to_seconds(request.timeout),
    )


def _selection(request: EnrollPerson.Goal) -> Selection:
    if request.selection == EnrollPerson.Goal.SELECT_MOST_CENTRAL:
        return MostCentral()
    if request.selection == EnrollPerson.Goal.SELECT_TRACK:
        return Track(int(request.track_id))
    if request.selection == EnrollPerson.Goal.SELECT_REGION:
        x1, y1, x2, y2 = (float(value) for value in request.region)
        return Region((x1, y1, x2, y2))
    raise InputError(f"selection: expected SELECT_MOST_CENTRAL, _TRACK or _REGION, got {request.selection}")


def to_feedback(feedback: EnrollmentFeedback) -> EnrollPerson.Feedback:
    """Return where an enrolment stands."""
    message = EnrollPerson.Feedback(
        track_id=feedback.track_id or 0,
        views_kept=feedback.views_kept,
        wanted_views=feedback.wanted_views,
        rejections=_rejections(feedback.rejections),
        coverage=_coverage(feedback.coverage),
        hint=feedback.hint,
        last_view_accepted=feedback.last_view_accepted,
        last_reason="" if feedback.last_reason is None else feedback.last_reason.value,
        elapsed=to_duration(feedback.elapsed_s),
    )
    if feedback.known is not None:
        message.already_known = True
        message.known_person_id = feedback.known.person_id
        message.known_name = feedback.known.name
        message.known_probability = float(feedback.known.probability)
    return message


def to_result(result: EnrollmentResult, gallery_version: int) -> EnrollPerson.Result:
    """Return how an enrolment ended; ``gallery_version`` is that of now."""
    nearest = result.nearest
    return EnrollPerson.Result(
        success=result.success,
        message=result.message,
        outcome=result.outcome.value,
        person_id=result.person_id or "",
        name=result.name,
        views_kept=result.views_kept,
        views_rejected=sum(result.rejections.values()),
        rejections=_rejections(result.rejections),
        self_consistency=number(result.self_consistency),
        nearest_person_id="" if nearest is None else nearest.person_id,
        nearest_name="" if nearest is None else nearest.name,
        nearest_similarity=number(None if nearest is None else nearest.similarity),
        nearest_probability=number(None if nearest is None else nearest.probability),
        gallery_version=result.gallery_version or gallery_version,
        coverage=_coverage(result.coverage),
    )


def refusal(outcome: str, message: str, gallery_version: int = 0) -> EnrollPerson.Result:
    """Return the result of an enrolment that stored nothing for a reason outside the core."""
    nan = float("nan")
    return EnrollPerson.Result(
        outcome=outcome,
        message=message,
        self_consistency=nan,
        nearest_similarity=nan,
        nearest_probability=nan,
        gallery_version=gallery_version,
    )


def _rejections(counts: Mapping[Rejection, int]) -> list[RejectionCount]:
    return [RejectionCount(reason=reason.value, count=count) for reason, count in counts.items() if count]


def _coverage(coverage: PoseCoverage) -> PoseCoverageMessage:
    return PoseCoverageMessage(
        left=coverage.left,
        front=coverage.front,
        right=coverage.right,
        up=coverage.up,
        down=coverage.down,
    )

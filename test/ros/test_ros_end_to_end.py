"""The node as a process on a network: a newcomer is enrolled and recognized; services; bad images."""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import ros_world
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from ros_world import NODE, PATIENCE, SOURCE, Inbox, node_processes, wait_for_subscriber
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from face_recognition_interfaces.action import EnrollPerson, FindPerson
from face_recognition_interfaces.msg import Addressee, Face, FaceArray, GalleryInfo
from face_recognition_interfaces.srv import (
    AddFaceFromImage,
    ExportGallery,
    ForgetPersons,
    GetCrop,
    ImportGallery,
    ListPersons,
    MergePersons,
    RenamePerson,
    ReviewGallery,
    RollbackAdaptation,
    SetSession,
    SplitTemplate,
    UndoGallery,
    VerifyGallery,
)
from face_recognition_node.media.sample import sample_frame
from face_recognition_node.ros.actions import MOST_SEARCHES
from face_recognition_node.ros.messages import bgr_to_image, bgr_to_jpeg
from face_recognition_node.ros.remote import Remote

pytestmark = pytest.mark.ros
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One active node with a slow sample video running beside it, for the whole module."""
    gallery = tmp_path_factory.mktemp("gallery") / "gallery.db"
    source = ["rate:=8.0", "wait_for_subscriber:=true", "width:=480", "height:=360"]
    with node_processes(gallery, source=source) as (children, remote):
        remote.bring_to(NODE, State.PRIMARY_STATE_ACTIVE, PATIENCE)
        remote.bring_to(SOURCE, State.PRIMARY_STATE_INACTIVE, PATIENCE)
        yield SimpleNamespace(remote=remote, children=children, gallery=gallery)
        assert children.end() == {"node": 0, "source": 0}, "SIGINT must end both in order"


@contextlib.contextmanager
def playing(remote: Remote):
    """Let the video source play while the block runs."""
    remote.bring_to(SOURCE, State.PRIMARY_STATE_ACTIVE, PATIENCE)
    try:
        yield
    finally:
        assert remote.transition(SOURCE, 4, PATIENCE), "the source must stop"


@pytest.fixture
def faces(world):
    inbox = Inbox(world.remote, FaceArray, f"{NODE}/faces")
    yield inbox
    inbox.close()


def call(world, type_, service: str, /, **request):
    return world.remote.call(type_, f"{NODE}/{service}", type_.Request(**request), PATIENCE)


def forget_everybody(world) -> None:
    assert call(world, ForgetPersons, "forget_persons", all=True, final=True).success


def enroll(world, **goal):
    """Send a goal and return the handle when it was accepted, and a list that collects its feedback."""
    client = world.remote.action_client(EnrollPerson, f"{NODE}/enroll_person")
    world.remote.wait_until(client.server_is_ready, PATIENCE, "the enrollment action")
    feedback: list = []
    future = client.send_goal_async(
        EnrollPerson.Goal(**goal), lambda message: feedback.append(message.feedback)
    )
    handle = world.remote.wait_for_future(future, PATIENCE, "the goal's acceptance")
    assert handle.accepted
    return handle, feedback


def result_of(world, handle):
    wrapped = world.remote.wait_for_future(handle.get_result_async(), PATIENCE, "the enrollment's result")
    return wrapped.status, wrapped.result


def test_a_newcomer_is_enrolled_from_the_video_and_named(world, faces) -> None:
    forget_everybody(world)
    gallery = Inbox(world.remote, GalleryInfo, f"{NODE}/gallery", LATCHED)
    with playing(world.remote):
        faces.wait(lambda message: len(message.faces) == 1, "a face")
        handle, feedback = enroll(world, name="Eileen", wanted_views=4)
        status, result = result_of(world, handle)
        assert (result.success, result.outcome) == (True, "stored"), result.message
        assert status == GoalStatus.STATUS_SUCCEEDED
        assert result.views_kept >= 3
        assert result.name == "Eileen"
        assert 0.5 < result.self_consistency <= 1
        assert feedback
        assert feedback[-1].wanted_views == 4
        assert [item.views_kept for item in feedback] == sorted(item.views_kept for item in feedback)
        named = faces.wait(
            lambda message: any(face.identity_state == Face.KNOWN for face in message.faces), "the name"
        )
        face = next(face for face in named.faces if face.identity_state == Face.KNOWN)
        assert (face.name, face.person_id) == ("Eileen", result.person_id)
        assert face.probability > 0.9
        assert named.gallery_version >= result.gallery_version
        assert named.header.frame_id == "camera"
        assert (named.image_width, named.image_height) == (480, 360)
        assert face.box_xyxy[0] < face.landmarks_xy[0] < face.box_xyxy[2]
        faces.wait(lambda message: any(is_other_stranger(f, result) for f in message.faces), "the stranger")
    for message in faces.messages:
        names = [face.name for face in message.faces if face.identity_state == Face.KNOWN]
        assert names in ([], ["Eileen"]), "one person is at most one face, and nobody else is known"
    stored = gallery.wait(lambda info: info.version >= result.gallery_version, "the gallery with the person")
    (person,) = [person for person in stored.persons if person.name == "Eileen"]
    assert person.person_id == result.person_id
    assert person.n_enrolled == result.views_kept
    assert not person.is_stranger
    late = Inbox(world.remote, GalleryInfo, f"{NODE}/gallery", LATCHED)
    late.wait(lambda info: any(p.name == "Eileen" for p in info.persons), "the latched gallery")
    gallery.close()
    late.close()


def is_other_stranger(face, enrolled) -> bool:
    return face.identity_state == Face.STRANGER and face.person_id not in ("", enrolled.person_id)


def test_enrollments_that_cannot_succeed_say_why(world) -> None:
    status, result = result_of(world, enroll(world, name="Nobody")[0])
    assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, "no_images")
    goal = {"name": "Nobody", "selection": EnrollPerson.Goal.SELECT_REGION, "region": [0.5, 0.5, 0.2, 0.9]}
    assert result_of(world, enroll(world, **goal)[0])[1].outcome == "invalid_goal"
    assert result_of(world, enroll(world, name="x", person_id="p-nobody")[0])[1].outcome == "no_such_person"
    for outcome in (result,):
        assert not outcome.success
        assert outcome.message
        assert math.isnan(outcome.self_consistency)


def test_a_second_goal_is_refused_and_the_first_can_be_cancelled(world, faces) -> None:
    before = call(world, ListPersons, "list_persons").gallery_version
    with playing(world.remote):
        faces.wait(lambda message: message.faces, "a face")
        first, _ = enroll(world, name="Slow", wanted_views=50)
        second, _ = enroll(world, name="Eager")
        status, result = result_of(world, second)
        assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, "busy")
        world.remote.wait_for_future(first.cancel_goal_async(), PATIENCE, "the cancellation")
        status, result = result_of(world, first)
        assert (status, result.outcome) == (GoalStatus.STATUS_CANCELED, "canceled")
        assert not result.success
    names = {
        person.name for person in call(world, ListPersons, "list_persons", include_strangers=True).persons
    }
    assert not names & {"Slow", "Eager"}
    assert call(world, ListPersons, "list_persons").gallery_version >= before


def test_deactivating_ends_an_enrollment(world, faces) -> None:
    with playing(world.remote):
        faces.wait(lambda message: message.faces, "a face")
        handle, _ = enroll(world, name="Interrupted", wanted_views=50)
        assert world.remote.transition(NODE, 4, PATIENCE)
        status, result = result_of(world, handle)
        assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, "not_active")
        assert result_of(world, enroll(world, name="Late")[0])[1].outcome == "not_active"
    world.remote.bring_to(NODE, State.PRIMARY_STATE_ACTIVE, PATIENCE)


def add(world, picture: np.ndarray, /, **request):
    message = bgr_to_jpeg(picture, Header(), 95)
    return call(world, AddFaceFromImage, "add_face_from_image", compressed_image=message, **request)


def test_the_gallery_services(world, tmp_path: Path, guest_bgr, stranger_bgr) -> None:
    forget_everybody(world)
    anna = add(world, guest_bgr, name="Anna")
    assert anna.success, anna.message
    assert anna.view.accepted
    assert anna.view.size_px > 50
    image = bgr_to_image(stranger_bgr, Header())
    grace = call(world, AddFaceFromImage, "add_face_from_image", image=image, name="Grace")
    assert grace.success, grace.message

    listed = call(world, ListPersons, "list_persons", include_templates=True)
    assert [person.name for person in listed.persons] == ["Anna", "Grace"]
    assert {template.person_id for template in listed.templates} == {anna.person_id, grace.person_id}

    renamed = call(world, RenamePerson, "rename_person", person_id=anna.person_id, name="Anne")
    assert (renamed.success, renamed.person.name, renamed.person.person_id) == (True, "Anne", anna.person_id)
    assert renamed.gallery_version > listed.gallery_version
    undone = call(world, UndoGallery, "undo_gallery")
    assert undone.success
    assert len(undone.changes) == 1
    assert undone.n_redo == 1
    assert call(world, UndoGallery, "undo_gallery", redo=True, steps=1).success

    more = add(world, guest_bgr[:, ::-1], person_id=anna.person_id)
    assert more.success, more.message
    listed = call(world, ListPersons, "list_persons", include_templates=True)
    templates = [t.template_id for t in listed.templates if t.person_id == anna.person_id]
    assert len(templates) == 2
    split = call(world, SplitTemplate, "split_template", template_ids=templates[1:], name="Twin")
    assert split.success, split.message
    assert (split.person.n_templates, split.remaining.person_id) == (1, anna.person_id)
    merged = call(
        world,
        MergePersons,
        "merge_persons",
        keep_person_id=anna.person_id,
        merge_person_ids=[split.person.person_id],
    )
    assert (merged.success, merged.person.n_templates) == (True, 2)

    path = tmp_path / "export.db"
    exported = call(world, ExportGallery, "export_gallery", path=str(path))
    assert (exported.success, exported.n_persons, exported.n_templates) == (True, 2, 3), exported.message
    assert not call(world, ExportGallery, "export_gallery", path=str(path)).success
    assert not call(world, ExportGallery, "export_gallery", path="relative.db").success

    session = call(world, SetSession, "set_session", name="cup", kind=SetSession.Request.EVENT)
    assert (session.success, session.previous_name) == (True, "")
    gone = call(world, ForgetPersons, "forget_persons", person_ids=[anna.person_id, grace.person_id])
    assert (gone.success, gone.n_templates) == (True, 3)
    assert set(gone.forgotten_person_ids) == {anna.person_id, grace.person_id}
    imported = call(world, ImportGallery, "import_gallery", path=str(path))
    assert imported.success, imported.message
    assert imported.n_templates == 3
    by_session = call(world, ListPersons, "list_persons", session="cup")
    assert {person.name for person in by_session.persons} == {"Anne", "Grace"}
    verified = call(world, VerifyGallery, "verify_gallery")
    assert (verified.success, list(verified.problems), verified.n_persons) == (True, [], 2)
    rolled_back = call(world, RollbackAdaptation, "rollback_adaptation")
    assert (rolled_back.success, rolled_back.n_templates) == (True, 0)
    forgotten = call(world, ForgetPersons, "forget_persons", session="cup", final=True)
    assert (forgotten.success, len(forgotten.forgotten_person_ids)) == (True, 2)
    assert call(world, SetSession, "set_session").success


def test_the_same_face_under_a_second_name_is_already_known(world, guest_bgr) -> None:
    forget_everybody(world)
    anna = add(world, guest_bgr, name="Anna")
    assert (anna.success, anna.outcome) == (True, "stored"), anna.message
    again = add(world, guest_bgr, name="Hanna")
    assert (again.success, again.outcome) == (False, "already_known")
    assert (again.nearest_person_id, again.nearest_name) == (anna.person_id, "Anna")
    twin = add(world, guest_bgr, name="Hanna", is_somebody_else=True)
    assert (twin.success, twin.outcome) == (True, "stored"), twin.message
    verified = call(world, VerifyGallery, "verify_gallery")
    assert verified.success
    assert list(verified.twin_person_ids) == [anna.person_id, twin.person_id]
    assert f"keep_person_id {anna.person_id} and merge_person_ids [{twin.person_id}]" in verified.message
    diagnostics = Inbox(world.remote, DiagnosticArray, "/diagnostics")

    def warns_of_twins(message) -> bool:
        gallery = next(status for status in message.status if status.name.endswith(": gallery"))
        return gallery.level == DiagnosticStatus.WARN and f"{anna.person_id} and {twin.person_id}" in (
            gallery.message
        )

    diagnostics.wait(warns_of_twins, "a warning of twins")
    diagnostics.close()
    forget_everybody(world)


def find(world, **goal):
    """Look for a person and return the goal's status and result, and how long it took, seconds."""
    client = world.remote.action_client(FindPerson, f"{NODE}/find_person")
    world.remote.wait_until(client.server_is_ready, PATIENCE, "the action that finds")
    goal.setdefault("timeout", Duration(sec=30))
    started = time.monotonic()
    future = client.send_goal_async(FindPerson.Goal(**goal))
    handle = world.remote.wait_for_future(future, PATIENCE, "the goal's acceptance")
    return *result_of(world, handle), time.monotonic() - started


def test_a_person_is_found_or_who_was_seen_instead(world, guest_bgr, stranger_bgr) -> None:
    forget_everybody(world)
    anna = add(world, guest_bgr, name="Anna")
    assert find(world)[1].outcome == "invalid_goal"
    assert find(world, name="Bob")[1].outcome == "no_such_person"
    status, result, seconds = find(world, name="anna", timeout=Duration(sec=1))
    assert (status, result.outcome, result.success) == (GoalStatus.STATUS_ABORTED, "no_images", False)
    assert seconds >= 1.0
    grace = add(world, stranger_bgr, name="Grace")
    with playing(world.remote):  # the guest alone at first, the stranger after some seconds
        status, result, seconds = find(world, name="Grace", timeout=Duration(sec=3))
        assert (status, result.outcome) == (GoalStatus.STATUS_ABORTED, "not_found")
        assert 3.0 <= seconds < 20.0  # later the stranger is in view
        assert [(face.person_id, face.name) for face in result.seen if face.name] == [
            (anna.person_id, "Anna")
        ]
        assert "Grace was not seen in 3 s; seen instead: Anna" in result.message
        status, result, _ = find(world, person_id=grace.person_id)
        assert (status, result.outcome) == (GoalStatus.STATUS_SUCCEEDED, "found"), result.message
        assert (result.face.person_id, result.face.name) == (grace.person_id, "Grace")
        assert result.face.probability > 0.9
        assert result.header.frame_id == "camera"
    forget_everybody(world)


def test_many_searches_hold_nothing_else_up(world, guest_bgr) -> None:
    """Each keeps a thread of the executor: four once left none to answer services or to cancel them."""
    remote = world.remote
    assert add(world, guest_bgr, name="Guest").success
    client = remote.action_client(FindPerson, f"{NODE}/find_person")
    remote.wait_until(client.server_is_ready, PATIENCE, "the search action")
    goal = FindPerson.Goal(name="Guest", timeout=Duration(sec=100_000))
    handles = [
        remote.wait_for_future(client.send_goal_async(goal), PATIENCE, "the goal's acceptance")
        for _ in range(MOST_SEARCHES)
    ]
    assert call(world, ListPersons, "list_persons").success
    late = remote.wait_for_future(client.send_goal_async(goal), PATIENCE, "the goal's acceptance")
    assert result_of(world, late)[1].outcome == EnrollPerson.Result.BUSY
    for handle in handles:
        remote.wait_for_future(handle.cancel_goal_async(), PATIENCE, "the cancellation")
        status, result = result_of(world, handle)
        assert (status, result.outcome) == (GoalStatus.STATUS_CANCELED, FindPerson.Result.CANCELED)
    forget_everybody(world)


def test_services_refuse_with_a_reason(world, two_faces_bgr) -> None:
    assert not call(world, ForgetPersons, "forget_persons").success
    assert not call(world, ForgetPersons, "forget_persons", session="never heard of").success
    unknown = call(world, RenamePerson, "rename_person", person_id="p-nobody", name="X")
    assert not unknown.success
    assert "p-nobody" in unknown.message
    nobody = add(world, ros_world.noise(240, 320), name="Nobody")
    assert not nobody.success
    assert nobody.outcome == EnrollPerson.Result.NO_FACE
    assert nobody.message
    assert math.isnan(nobody.nearest_similarity)
    assert math.isnan(nobody.nearest_probability)
    torn = CompressedImage(format="jpeg", data=cv2.imencode(".jpg", two_faces_bgr)[1].tobytes()[:5000])
    refused = call(world, AddFaceFromImage, "add_face_from_image", compressed_image=torn, name="Torn")
    assert not refused.success
    assert refused.outcome == EnrollPerson.Result.INVALID_GOAL
    assert math.isnan(refused.nearest_similarity)
    assert "end before the picture" in refused.message
    assert not call(world, UndoGallery, "undo_gallery", steps=1000).success
    assert not call(world, ImportGallery, "import_gallery", path="/no/such/file").success
    inbox = Inbox(world.remote, DiagnosticArray, "/diagnostics")
    inbox.wait(
        lambda message: any(s.name.endswith("gallery") for s in message.status),
        "diagnostics after a file that is not there",
    )
    levels = {s.level for message in inbox.messages for s in message.status if s.name.endswith("gallery")}
    inbox.close()
    assert levels == {DiagnosticStatus.OK}, "the gallery itself can be written"


def test_a_refusal_quotes_little_of_what_came(world, guest_bgr) -> None:
    long = "x" * 100_000
    refused = [
        call(world, RenamePerson, "rename_person", person_id=long, name="X"),
        call(world, ForgetPersons, "forget_persons", session=long),
        call(world, ExportGallery, "export_gallery", path=long),
        call(world, ImportGallery, "import_gallery", path=f"/tmp/{long}"),
        add(world, guest_bgr, name="X", person_id=long),
    ]
    for answer in refused:
        assert not answer.success
        assert "internal error" not in answer.message
        assert len(answer.message) < 500
    assert "nobody has the id 'xxx" in refused[0].message
    assert refused[0].message.endswith("see the list of persons")


def test_no_picture_is_given_away_where_the_owner_keeps_none(world, guest_bgr) -> None:
    forget_everybody(world)
    assert add(world, guest_bgr, name="Anna").success
    (template,) = call(world, ListPersons, "list_persons", include_templates=True).templates
    answer = call(world, GetCrop, "get_crop", template_id=template.template_id)
    assert not answer.success
    assert "gallery.keep_crops" in answer.message
    assert len(answer.crop.data) == 0
    assert not call(world, ReviewGallery, "review_gallery").keeps_crops


def set_parameter(world, name: str, value: ParameterValue) -> None:
    request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
    response = world.remote.call(SetParameters, f"{NODE}/set_parameters", request, PATIENCE)
    assert response.results[0].successful, response.results[0].reason


def test_bad_images_are_counted_and_good_ones_still_answered(world, faces) -> None:
    diagnostics = Inbox(world.remote, DiagnosticArray, "/diagnostics")
    publisher = world.remote.node.create_publisher(Image, "/image", qos_profile_sensor_data)
    wait_for_subscriber(world.remote, publisher)
    unknown, long, narrow = (bgr_to_image(ros_world.noise(), Header()) for _ in range(3))
    unknown.encoding = "bgr7"
    long.height += 1
    narrow.step -= 3

    def reported_kinds() -> set[str]:
        for message in (unknown, long, narrow):
            publisher.publish(message)
            # The next one would replace it before the node came to it: newest wins.
            time.sleep(0.05)
        pairs = (
            pair for message in diagnostics.messages for status in message.status for pair in status.values
        )
        return {
            pair.key.removeprefix("bad images, ") for pair in pairs if pair.key.startswith("bad images, ")
        }

    world.remote.wait_until(
        lambda: reported_kinds() == {"encoding", "size", "step"}, PATIENCE, "three kinds reported"
    )
    assert faces.messages == []
    good = bgr_to_image(ros_world.noise(), Header(frame_id="hand"))
    world.remote.wait_until(lambda: (publisher.publish(good), faces.messages)[1], PATIENCE, "an answer")
    assert faces.messages[0].header.frame_id == "hand"
    models = next(status for status in diagnostics.messages[-1].status if status.name.endswith(": models"))
    assert any("backend" in pair.key and pair.value for pair in models.values)
    world.remote.node.destroy_publisher(publisher)
    diagnostics.close()


def test_a_camera_of_another_type_is_named(world, faces) -> None:
    diagnostics = Inbox(world.remote, DiagnosticArray, "/diagnostics")
    expected = (
        "/other_camera publishes sensor_msgs/msg/CompressedImage there, expected sensor_msgs/msg/Image: "
        "set image_transport to compressed"
    )
    # A participant of its own: in one, a topic has one type until whatever had the other is wholly gone.
    with Remote("other_camera") as camera:
        camera.node.create_publisher(CompressedImage, "/image", qos_profile_sensor_data)
        diagnostics.wait(lambda message: expected in message.status[0].message, "the type of the camera")
    diagnostics.close()


def test_compressed_images_upside_down_on_a_reconfigured_node(world, faces, two_faces_bgr) -> None:
    remote = world.remote
    for transition in (4, 2):  # deactivate, clean up
        assert remote.transition(NODE, transition, PATIENCE)
    compressed = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="compressed")
    set_parameter(world, "image_transport", compressed)
    twice = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="image/compressed")
    set_parameter(world, "image_topic", twice)
    info = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="camera_info")
    set_parameter(world, "camera_info_topic", info)
    set_parameter(world, "rotate", ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=180))
    remote.bring_to(NODE, State.PRIMARY_STATE_ACTIVE, PATIENCE)
    annotated = Inbox(remote, Image, f"{NODE}/annotated")
    publisher = remote.node.create_publisher(CompressedImage, "/image/compressed", qos_profile_sensor_data)
    wait_for_subscriber(remote, publisher)
    picture = sample_frame(size=(640, 480), faces=2)
    message = bgr_to_jpeg(np.ascontiguousarray(picture[::-1, ::-1]), Header(frame_id="ceiling"))
    camera = remote.node.create_publisher(CameraInfo, "/camera_info", qos_profile_sensor_data)
    model = CameraInfo(width=640, height=480, k=[500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0])
    addressees = Inbox(remote, Addressee, f"{NODE}/addressee")

    def seen() -> FaceArray | None:
        camera.publish(model)
        publisher.publish(message)
        located = [f for f in faces.messages if len(f.faces) == 2 and all(x.has_position for x in f.faces)]
        return next(iter(located), None)

    found = remote.wait_until(seen, PATIENCE, "two faces")
    assert found.header.frame_id == "ceiling"
    for face in found.faces:
        eyes_y, mouth_y = face.landmarks_xy[1], face.landmarks_xy[9]
        assert eyes_y > mouth_y, "in the picture as it was sent, the eyes are below the mouth"
        assert face.position_source == Face.FROM_SIZE
        assert 0.2 < face.position.z < 5.0
        assert 0.05 < math.sqrt(face.position_covariance[8]) / face.position.z < 0.3
    chosen = remote.wait_until(
        lambda: (seen(), [one for one in addressees.messages if one.is_present])[1], PATIENCE, "an addressee"
    )
    assert chosen[0].header.frame_id == "ceiling"
    assert chosen[0].face.track_id in {face.track_id for face in found.faces}
    addressees.close()
    drawn = remote.wait_until(lambda: (seen(), annotated.messages)[1], PATIENCE, "an annotated image")[0]
    assert (drawn.width, drawn.height, drawn.header.frame_id) == (640, 480, "ceiling")
    remote.node.destroy_publisher(camera)
    remote.node.destroy_publisher(publisher)
    annotated.close()


def test_nobody_asks_nobody_listens(world) -> None:
    """Without subscribers the node does not even receive images."""
    remote = world.remote
    publisher = remote.node.create_publisher(CompressedImage, "/image/compressed", qos_profile_sensor_data)
    remote.wait_until(lambda: publisher.get_subscription_count() == 0, PATIENCE, "the node to unsubscribe")
    inbox = Inbox(remote, FaceArray, f"{NODE}/faces")
    wait_for_subscriber(remote, publisher)
    inbox.close()
    remote.wait_until(lambda: publisher.get_subscription_count() == 0, PATIENCE, "the node to unsubscribe")
    remote.node.destroy_publisher(publisher)

"""What the node counts, and how diagnostics judge it."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("diagnostic_msgs", reason="needs the ROS message packages")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from face_recognition_node.cli.processes import fast_dds_profile
from face_recognition_node.ros.diagnostics import (
    ImagePublisher,
    NodeHealth,
    StreamStatistics,
    TroubleLog,
    find_profile_trouble,
    to_diagnostics,
)

NAN = float("nan")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def statistics(clock):
    return StreamStatistics(window=5.0, clock=clock)


def stream(statistics, clock, rate: float, seconds: float, latency: float = 0.02) -> None:
    for _ in range(round(rate * seconds)):
        clock.now += 1 / rate
        statistics.count_received()
        statistics.count_answered(latency, {"detect": 0.01, "embed": 0.004})


def test_nothing_yet(statistics) -> None:
    summary = statistics.summarize()
    assert (summary.received, summary.answered, summary.received_hz, summary.answered_hz) == (0, 0, 0, 0)
    assert math.isnan(summary.latency_p50)
    assert math.isnan(summary.silence)
    assert summary.stage_seconds == {}


@pytest.mark.parametrize("seconds", [2.0, 20.0])
def test_rates_and_latency_of_the_last_seconds(statistics, clock, seconds: float) -> None:
    stream(statistics, clock, 25.0, seconds)
    summary = statistics.summarize(dropped=3)
    assert summary.received == summary.answered == round(25 * seconds)
    assert summary.answered_hz == pytest.approx(25.0, rel=0.02)
    assert summary.received_hz == pytest.approx(25.0, rel=0.02)
    assert (summary.latency_p50, summary.latency_p95) == pytest.approx((0.02, 0.02))
    assert summary.stage_seconds == pytest.approx({"detect": 0.01, "embed": 0.004})
    assert summary.dropped == 3


def test_old_latencies_are_forgotten(statistics, clock) -> None:
    stream(statistics, clock, 10.0, 6.0, latency=1.0)
    clock.now += 5.1
    stream(statistics, clock, 10.0, 2.0, latency=0.03)
    assert statistics.summarize().latency_p95 == pytest.approx(0.03)


def test_an_unstamped_image_has_no_latency(statistics) -> None:
    statistics.count_answered(NAN, {})
    summary = statistics.summarize()
    assert math.isnan(summary.latency_p95)
    assert summary.answered == 1


def test_the_first_bad_image_of_a_kind_is_news(statistics, clock) -> None:
    assert [statistics.count_bad(kind) for kind in ("size", "size", "nan", "size")] == [
        True,
        False,
        True,
        False,
    ]
    summary = statistics.summarize()
    assert dict(summary.bad) == {"size": 3, "nan": 1}
    assert summary.recently_bad == {"size": 3, "nan": 1}
    clock.now += 6
    assert statistics.summarize().recently_bad == {}
    assert dict(statistics.summarize().bad) == {"size": 3, "nan": 1}


def test_a_stage_that_ran_sometimes_is_averaged_over_all_images(statistics) -> None:
    statistics.count_answered(0.01, {"embed": 0.01})
    statistics.count_answered(0.01, {})
    assert statistics.summarize().stage_seconds == pytest.approx({"embed": 0.005})


def judge(health: NodeHealth) -> tuple[bytes, str]:
    status = to_diagnostics(health, "/face_recognition", Time(sec=5)).status[0]
    return status.level, status.message


def active(summary, **more) -> NodeHealth:
    return NodeHealth("active", wanted=["subscribers"], stream=summary, image_topic="/image", **more)


def test_a_good_stream_is_ok(statistics, clock) -> None:
    stream(statistics, clock, 30.0, 6.0)
    level, text = judge(active(statistics.summarize()))
    assert level == DiagnosticStatus.OK
    assert text in ("30.0 Hz", "30.2 Hz")  # one more or less at the window's edge


def test_silence_is_a_warning(statistics, clock) -> None:
    level, text = judge(active(statistics.summarize()))
    assert (level, text) == (DiagnosticStatus.WARN, "no image on /image yet")
    stream(statistics, clock, 30.0, 1.0)
    clock.now += 4
    level, text = judge(active(statistics.summarize()))
    assert (level, text) == (DiagnosticStatus.WARN, "no image on /image for 4.0 s")


def test_silence_is_explained(statistics) -> None:
    summary = statistics.summarize()
    image, compressed = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"

    def why(*publishers: ImagePublisher, **more) -> str:
        return judge(active(summary, publishers=publishers, **more))[1]

    assert "nobody publishes there" in why()
    camera = ImagePublisher("/camera", image, False)
    assert "Fast DDS profile" in why(camera)
    other = why(ImagePublisher("/camera", compressed, False))
    assert (
        f"/camera publishes {compressed} there, expected {image}: set image_transport to compressed" in other
    )
    assert "expected sensor_msgs/msg/CompressedImage" in why(camera, image_type=compressed)
    assert "qos_reliability reliable does not receive" in why(camera, is_reliable=True)
    reliable = why(ImagePublisher("/camera", image, True), is_reliable=True)
    assert reliable.endswith("Fast DDS profile of this package, or receive with image_transport compressed")
    assert "/x.xml, which cannot be read (No such file or directory)" in why(
        camera, profile_trouble=find_profile_trouble({"FASTDDS_DEFAULT_PROFILES_FILE": "/x.xml"})
    )
    assert "which is no XML" in find_profile_trouble({"FASTDDS_DEFAULT_PROFILES_FILE": __file__})
    assert find_profile_trouble({"FASTDDS_DEFAULT_PROFILES_FILE": str(fast_dds_profile())}) == ""
    assert find_profile_trouble({}) == ""


@pytest.mark.parametrize(("every", "share"), [(1, 0.0), (2, 0.0), (6, 0.83)])
def test_images_that_do_not_arrive_are_noticed_by_their_stamps(statistics, clock, every, share) -> None:
    """One of ``every`` arrives at random; every second one is a slower camera."""
    rng = np.random.default_rng(1)
    for k in range(300):
        arrives = k % 2 == 0 if every == 2 else rng.random() < 1 / every
        clock.now += 1 / 30
        if arrives:
            statistics.count_received(1000.0 + k / 30)
            statistics.count_answered(0.02, {})
    summary = statistics.summarize()
    assert summary.lost == pytest.approx(share, abs=0.08)
    level, text = judge(active(summary))
    assert (level == DiagnosticStatus.WARN) is (share > 0.5)
    assert ("do not arrive: start the camera's process with the Fast DDS profile" in text) is (share > 0.5)


def test_a_starved_camera_process_loses_nothing(statistics, clock) -> None:
    """It runs in short spells only, in which it hurries after its schedule, and stamps when it publishes."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        statistics.reset()
        now, may_run_until = 0.0, 0.0
        for k in range(80):
            now = max(now + 0.002, k / 30)
            if now > may_run_until:
                now += rng.exponential(0.1)
                may_run_until = now + rng.exponential(0.05)
            clock.now += 1 / 30
            statistics.count_received(1000.0 + now)
            statistics.count_answered(0.02, {})
        assert judge(active(statistics.summarize())) == (DiagnosticStatus.OK, "30.0 Hz")


def test_where_the_machine_is_too_slow_the_network_is_not_blamed(statistics, clock) -> None:
    rng = np.random.default_rng(1)
    for k in range(300):
        clock.now += 1 / 30
        if rng.random() < 1 / 6:
            statistics.count_received(1000.0 + k / 30)
            if rng.random() < 0.3:
                statistics.count_answered(0.5, {})
    summary = statistics.summarize()
    assert summary.lost > 0.5
    assert "too slow a machine" in judge(active(summary))[1]


def test_a_pause_is_no_loss(statistics, clock) -> None:
    for start in (0.0, 60.0, 3.0):
        for k in range(12):
            clock.now += 1 / 30
            statistics.count_received(1000.0 + start + k / 30)
    assert statistics.summarize().lost == pytest.approx(0.0, abs=0.01)


def test_two_publishers_are_a_warning(statistics, clock) -> None:
    stream(statistics, clock, 30.0, 6.0)
    two = [ImagePublisher(f"/camera{k}", "sensor_msgs/msg/Image", False) for k in range(2)]
    level, text = judge(active(statistics.summarize(), publishers=two))
    assert level == DiagnosticStatus.WARN
    assert "2 publishers on /image (/camera0, /camera1)" in text
    assert judge(active(statistics.summarize(), publishers=two[:1]))[0] == DiagnosticStatus.OK


def test_old_trouble_is_not_mixed_into_new(statistics, clock) -> None:
    statistics.count_bad("size")
    stream(statistics, clock, 30.0, 6.0)
    statistics.count_bad("nan")
    assert judge(active(statistics.summarize()))[1].endswith("bad images: 1 × nan")


def test_trouble_that_stays_is_logged_once_and_so_is_its_end(statistics, clock) -> None:
    bad = to_diagnostics(active(statistics.summarize()), "/n", Time())
    stream(statistics, clock, 30.0, 6.0)
    good = to_diagnostics(active(statistics.summarize()), "/n", Time())
    log = TroubleLog(patience=3)
    news = [log.news(message) for message in (bad, bad, good, bad, bad, bad, bad, bad, good, good)]
    silence, end = (True, "no image on /image yet"), (False, f"all is well again: {good.status[0].message}")
    # Models and gallery are not loaded in either message, which is no trouble.
    assert news == [[], [], [], [], [], [silence], [], [], [end], []]


def test_all_is_well_only_if_images_are_answered(statistics) -> None:
    bad = to_diagnostics(active(statistics.summarize()), "/n", Time())
    idle = to_diagnostics(NodeHealth("active", stream=statistics.summarize()), "/n", Time())
    log = TroubleLog(patience=1)
    assert [log.news(bad), log.news(idle, False), log.news(bad)] == [
        [(True, "no image on /image yet")],
        [],
        [(True, "no image on /image yet")],
    ]


def test_bad_images_are_a_warning_or_an_error(statistics, clock) -> None:
    statistics.count_received()
    statistics.count_bad("encoding")
    assert judge(active(statistics.summarize()))[0] == DiagnosticStatus.ERROR
    stream(statistics, clock, 30.0, 1.0)
    level, text = judge(active(statistics.summarize()))
    assert level == DiagnosticStatus.WARN
    assert "1 × encoding" in text
    stream(statistics, clock, 30.0, 6.0)
    assert judge(active(statistics.summarize()))[0] == DiagnosticStatus.OK


def test_a_slow_machine_is_said_to_be_slow(statistics, clock) -> None:
    for index in range(100):
        clock.now += 0.02
        statistics.count_received()
        if index % 4 == 0:
            statistics.count_answered(0.1, {})
    level, text = judge(active(statistics.summarize()))
    assert level == DiagnosticStatus.WARN
    assert "too slow" in text


def test_idle_and_inactive_are_not_faults(statistics) -> None:
    idle = NodeHealth("active", stream=statistics.summarize())
    assert judge(idle)[0] == DiagnosticStatus.OK
    assert "nobody" in judge(idle)[1]
    assert judge(NodeHealth("unconfigured"))[0] == DiagnosticStatus.OK


def test_a_failed_transition_is_an_error_everywhere() -> None:
    health = NodeHealth("unconfigured", error="configure failed: no model")
    array = to_diagnostics(health, "/face_recognition", Time(sec=5))
    assert [status.level for status in array.status] == [DiagnosticStatus.ERROR] * 3
    assert all("no model" in status.message for status in array.status)
    assert array.header.stamp.sec == 5


def test_the_values_tell_stages_backends_and_kinds(statistics, clock) -> None:
    statistics.count_bad("truncated")
    stream(statistics, clock, 10.0, 1.0)
    health = active(statistics.summarize(7), models={"detector backend": "openvino"}, gallery={"persons": 2})
    stream_status, models, gallery = to_diagnostics(health, "/n", Time()).status
    values = {pair.key: pair.value for pair in stream_status.values}
    assert values["stage detect [ms]"] == "10.00"
    assert values["bad images, truncated"] == "1"
    assert values["dropped"] == "7"
    assert (models.values[0].key, models.values[0].value) == ("detector backend", "openvino")
    assert gallery.values[0].value == "2"


def test_another_trouble_is_told_although_one_lasts() -> None:
    def entry(text: str) -> DiagnosticArray:
        level = DiagnosticStatus.WARN if text else DiagnosticStatus.OK
        return DiagnosticArray(status=[DiagnosticStatus(name="stream", level=level, message=text)])

    log = TroubleLog(patience=3)
    slow = [log.news(entry(f"{10 + k}.5 of 30.0 Hz: too slow")) for k in range(5)]
    assert [len(news) for news in slow] == [0, 0, 1, 0, 0]
    silent = [log.news(entry(f"no image for {k}.0 s")) for k in range(5)]
    assert [len(news) for news in silent] == [0, 0, 1, 0, 0]
    assert log.news(entry(""))[0][0] is False
    changing = [log.news(entry(text)) for text in ("a", "b", "a", "b", "")]
    assert [len(news) for news in changing] == [0, 0, 1, 0, 1]


def test_depth_that_never_fits_is_told(statistics, clock) -> None:
    for _ in range(10):
        clock.now += 0.1
        statistics.count_received()
        statistics.count_answered(0.01, {}, lacks_depth=True)
    summary = statistics.summarize()
    assert summary.lacks_depth
    health = NodeHealth("active", wanted=("subscribers",), stream=summary, depth_topic="/depth")
    (stream, *_) = to_diagnostics(health, "node", Time()).status
    assert stream.level == DiagnosticStatus.WARN
    assert "without depth: does /depth deliver" in stream.message
    statistics.count_answered(0.01, {})
    assert not statistics.summarize().lacks_depth

import signal
import time

import numpy as np
import pytest

LAYER = {"XR_ENABLE_API_LAYERS": "XR_APILAYER_TWINGUIDE_test"}
VALIDATION = {"XR_ENABLE_API_LAYERS": "XR_APILAYER_LUNARG_core_validation", "XR_CORE_VALIDATION_EXPORT_TYPE": "text"}


def test_a_session_walks_through_its_states_and_paces_frames(monado, run_client):
    told = run_client("session", monado).result()
    assert told["states"] == [
        *("idle", "ready", "synchronized", "visible", "focused"),
        *("visible", "synchronized", "stopping", "idle", "exiting"),
    ]
    assert told["info"]["space"] == "stage"
    assert told["info"]["blend"] == "opaque"  # all that this runtime offers
    assert told["gl_error"] == "GL_NO_ERROR"
    assert told["context_released"]
    # Display times lie on the run's clock, within a frame after the wake-up, and on the compositor's own grid. Medians,
    # because a busy machine wakes late now and then, and the compositor's first period is a guess.
    assert 0 < np.median(told["leads_ms"]) * 1e6 < told["period_ns"]
    periods = np.array(told["steps"]) / told["period_ns"]
    assert np.median(np.abs(periods - np.round(periods))) < 1e-4
    assert min(told["steps"]) > 0


def test_head_eyes_and_controllers_stand_where_the_runtime_puts_them(monado, run_client):
    told = run_client("poses", monado).result()
    c, s = np.cos(0.5), np.sin(0.5)
    head = np.array([[c, 0, s, 0.1], [0, 1, 0, 1.7], [-s, 0, c, 0.3], [0, 0, 0, 1]])
    tolerance = 2e-7 * 4  # poses travel as float32, of values up to 1.7
    np.testing.assert_allclose(told["head"], head, atol=tolerance)
    np.testing.assert_allclose(told["head_before"], head, atol=tolerance)
    np.testing.assert_allclose(told["head_met"], head, atol=tolerance)  # asked for while the next frame was waited for
    for eye, x in zip(told["eyes"], (-0.035, 0.035), strict=True):
        offset = np.eye(4)
        offset[0, 3] = x
        np.testing.assert_allclose(eye, head @ offset, atol=tolerance)
    np.testing.assert_allclose(told["fov"][0], (-0.8, 0.7, 0.75, -0.85), atol=1e-6)
    np.testing.assert_allclose(told["fov"][1], (-0.7, 0.8, 0.75, -0.85), atol=1e-6)
    # Only the position: the grip of this controller is turned against its raw pose by the runtime, and moved by less
    # than 10 cm.
    assert np.linalg.norm(np.array(told["right_grip"])[:3, 3] - (0.21, 1.12, -0.43)) < 0.1
    assert told["has_aim"]
    assert told["trigger"] == pytest.approx(0.75, abs=1e-6)
    assert told["buttons"] == ["a", "trigger"]
    assert told["active"] == {"left": False, "right": True}
    assert told["later"][-1:] == ["b"]


def act_at(call, service, client, how):
    """Send the runtime a signal once the client is ready: in the middle of a call, where one is named."""
    client.expect("ready")
    service.send(how)
    if call:
        client.go_on()
    client.expect("lost")


def layer_at(call):
    return {**LAYER, "AT": call} if call else {}


@pytest.mark.parametrize("call", ["", "xrReleaseSwapchainImage"])
def test_frames_go_on_while_the_runtime_is_dead_and_the_session_is_rebuilt(monado_own, run_client, call):
    monado_own.start()
    client = run_client("survive", monado_own, **layer_at(call))
    act_at(call, monado_own, client, signal.SIGKILL)
    time.sleep(1.0)
    monado_own.start()
    told = client.result()
    assert told["kinds"][:3] == ["lost", "recovered", "space_changed"]
    # The pace went on at the period last told, give or take a slow machine's hiccups.
    assert told["frames_meanwhile"] > 0.5 * told["seconds_lost"] * 1e9 / told["period_ns"]
    assert told["rendered_meanwhile"] == 0
    assert told["buffer"] == list(range(8))
    assert told["same_context"]
    assert told["states"][-1] == "exiting"


@pytest.mark.parametrize(
    "call",
    [
        *("", "xrBeginFrame", "xrAcquireSwapchainImage", "xrWaitSwapchainImage", "xrReleaseSwapchainImage"),
        "xrEndFrame",
    ],
)
def test_a_hanging_runtime_does_not_stop_the_loop(monado_own, run_client, call):
    monado_own.start()
    client = run_client("survive", monado_own, **layer_at(call))
    act_at(call, monado_own, client, signal.SIGSTOP)
    time.sleep(1.0)
    monado_own.send(signal.SIGCONT)
    told = client.result()
    assert told["kinds"][:2] == ["lost", "recovered"]
    assert told["seconds_lost"] > 0.9
    assert told["frames_meanwhile"] > 0.5 * told["seconds_lost"] * 1e9 / told["period_ns"]
    assert told["same_context"]
    assert told["states"][-1] == "exiting"


@pytest.mark.parametrize(("how", "call"), [(signal.SIGKILL, ""), (signal.SIGSTOP, ""), (signal.SIGSTOP, "xrEndFrame")])
def test_stopping_without_a_runtime_ends_cleanly(monado_own, run_client, how, call):
    monado_own.start()
    client = run_client("lost_at_stop", monado_own, **layer_at(call))
    act_at(call, monado_own, client, how)
    client.result()


def test_an_absent_runtime_is_named_with_a_remedy(monado_own, run_client):
    told = run_client("absent", monado_own).result()
    assert "wanted an OpenXR runtime" in told["error"]
    assert "--headset simulated" in told["error"]


def test_core_validation_finds_nothing_in_a_whole_session(monado, run_client, tmp_path):
    report = tmp_path / "validation.txt"
    run_client("session", monado, **VALIDATION, XR_CORE_VALIDATION_FILE_NAME=str(report)).result()
    findings = [line for line in report.read_text().splitlines() if "VALID_" in line and "VALID_DEBUG" not in line]
    assert findings == []


def test_core_validation_listens(monado, run_client, tmp_path):
    report = tmp_path / "validation.txt"
    run_client("wrong", monado, **VALIDATION, XR_CORE_VALIDATION_FILE_NAME=str(report)).result()
    assert "VALID_ERROR" in report.read_text()


@pytest.mark.parametrize(
    ("preferred", "chosen", "number", "flags"),
    [("alpha,additive,opaque", "alpha", 3, 2), ("additive,opaque", "additive", 2, 0), ("opaque", "opaque", 1, 0)],
)
def test_the_preferred_blend_mode_that_is_offered_is_submitted(monado, run_client, preferred, chosen, number, flags):
    told = run_client("blend", monado, BLEND=preferred, **LAYER).result()
    assert told["chosen"] == chosen
    assert set(told["ended"]) == {number}
    assert len(told["ended"]) >= 8
    assert told["pulses"] == 1
    assert set(told["flags"]) == {flags}  # alpha blend needs the layer's alpha, or it would cover the room


def test_a_moved_space_and_a_session_about_to_be_lost_are_told(monado, run_client):
    told = run_client("events", monado, **LAYER).result()
    assert told["changed"] == ["the runtime moved its stage space"]
    assert told["kinds"] == ["space_changed", "lost", "recovered", "space_changed", "stopping"]


def test_a_pose_that_is_none_costs_neither_the_session_nor_the_views(monado, run_client):
    told = run_client("spoiled", monado, **LAYER).result()
    assert [row[:4] for row in told["seen"]] == [[True] * 4, *[[False, False, False, True]] * 2, [True] * 4]
    assert told["met"] == [False, True, True, False]  # asked for while a frame was waited for
    assert [row[4] for row in told["seen"][1:3]] == [told["seen"][0][4]] * 2
    assert told["kinds"] == ["stopping"]


def test_a_headset_started_again_shows_pictures(monado, run_client):
    told = run_client("again", monado).result()
    assert told["painted"] == [6, 6]
    assert told["skipped"] < 20  # the second between the two is no row of skipped frames


@pytest.mark.parametrize("when", ["start", "stop"])
def test_a_session_that_comes_after_it_was_given_up_is_closed(monado, run_client, when):
    assert run_client("given_up", monado, WHEN=when, **LAYER).result()["in_time"]


def test_the_compositor_shows_each_eye_its_own_picture(monado_tool, monado_prefix, run_client):
    try:
        with monado_tool.xvfb() as (display, screen):
            service = monado_tool.Service(monado_prefix, display=display)
            try:
                service.start()
                client = run_client("picture", service)
                ready = client.expect("ready")
                width, height = ready["size"]
                boards = np.concatenate(np.array(ready["boards"], np.uint8), axis=1)  # side by side
                expected = boards.repeat(height // 8, axis=0).repeat(width // 8, axis=1)
                for _ in range(600):  # the compositor's first pictures wait for its shaders
                    picture = read_xwd(screen.read_bytes())
                    if np.array_equal(picture, expected):
                        break
                    time.sleep(0.1)
                client.go_on()
                client.result()
            finally:
                service.close()
    except monado_tool.MonadoError as error:
        pytest.skip(str(error))
    np.testing.assert_array_equal(picture, expected)


def read_xwd(data):
    """Return the picture, shape (height, width, 3), of an X window dump: 32 bits a pixel, BGRX."""
    header = np.frombuffer(data[:100], dtype=">u4")
    size, width, height, stride, colours = (int(header[i]) for i in (0, 4, 5, 12, 19))
    start = size + 12 * colours
    rows = np.frombuffer(data, np.uint8, height * stride, start).reshape(height, stride)
    return rows[:, : 4 * width].reshape(height, width, 4)[:, :, 2::-1]

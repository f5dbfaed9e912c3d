from dataclasses import replace

import numpy as np
import pytest

from twinguide.bodies import Bodies
from twinguide.clock import MS, SECOND
from twinguide.errors import BusError, RegistrationRefused
from twinguide.frames import Pose, Transform, rotation_from_vector
from twinguide.headset import HANDS, FrameTiming, Hand
from twinguide.history import PoseHistory
from twinguide.messages import Array, Exposure, PoseWire
from twinguide.registering import landmark_of, register, verification_error
from twinguide.scenario import HeadsetSettings, Scenario, Tool
from twinguide.touching import read_swing, read_touch
from twinguide.trust import Move

PERIOD = SECOND // 60
SIGMA = np.diag([1e-3] * 3 + [1e-4] * 3) ** 2  # (6, 6) [rad2, m2] of every sample
PLACES = {"patient": (0.0, 0.0, 1.0), "chest": (0.1, 0.0, 1.0), "needle": (0.0, 0.1, 1.0)}
STAGE = Pose(Transform.of("stage", "tracker", None, np.array([0.0, 1.0, 0.0])), 0, SIGMA)


def bodies_of(headset=None, **tools):
    return Bodies(Scenario(title="t", case="c", parts={}, tools=tools, headset=headset or HeadsetSettings()))


@pytest.fixture
def bodies():
    needle = Tool(role="needle", tip_mm=(0.0, 0.0, -100.0), pushes_mm=1.0)
    return bodies_of(patient=Tool(role="reference"), chest=Tool(role="surrogate"), needle=needle)


def see(bodies, count, *, first=0, moved=(), by=(0.0, 0.0, 0.0), without=()):
    """Let the camera see every body `count` times; return when the last exposure was made [ns]."""
    for k in range(first, first + count):
        tools = {
            name: PoseWire.of(Transform.of("tracker", name, None, np.array(p) + (by if name in moved else 0.0)), SIGMA)
            for name, p in PLACES.items()
            if name not in without
        }
        lost = dict.fromkeys(without, "occluded")
        bodies.take(Exposure(t_ns=k * PERIOD, sigma_t_ns=0, tools=tools, lost=lost), k * PERIOD)
    return (first + count - 1) * PERIOD


def frame(t_ns, horizon_ns=45 * MS):
    return FrameTiming(t_ns + horizon_ns, SECOND // 90, True, t_wake_ns=t_ns)


def tools_at(bodies, t_ns, step="guide"):
    timing = frame(t_ns)
    return bodies.tools_at(timing, bodies.at(timing), None, step)


def test_a_tool_is_told_in_reference_and_the_room_through_the_reference(bodies):
    bodies.follow(STAGE)
    seen = bodies.at(frame(see(bodies, 12)))
    tools, lost = tools_at(bodies, 11 * PERIOD)
    np.testing.assert_allclose(tools["needle"].tip.position, [0.0, 0.1, -0.1], atol=1e-12)
    assert tools["needle"].role == "needle"
    np.testing.assert_allclose(seen.stage_from_reference.transform.translation, [0.0, 1.0, 1.0], atol=1e-12)
    assert (seen.unseen, seen.horizon_ns, lost) == ("", 45 * MS, {})


def test_what_a_frame_asks_of_an_exposure_was_worked_out_when_it_came(bodies, monkeypatch):
    bodies.follow(STAGE)
    t_ns = see(bodies, 12)
    for work in ("_mean", "_fit"):
        monkeypatch.delattr(PoseHistory, work)
    assert bodies.at(frame(t_ns)).stage_from_reference is not None
    assert list(tools_at(bodies, t_ns)[0]) == ["needle"]


def test_a_step_of_the_reference_alone_is_a_bump_and_told_once(bodies):
    see(bodies, 12)
    see(bodies, 3, first=12, moved=("patient",), by=(0.01, 0.0, 0.0))
    assert bodies.take_move() == Move("reference", "the reference was bumped")
    assert bodies.take_move() is None


def test_a_step_that_all_bodies_share_is_the_trackers_and_no_bump(bodies):
    see(bodies, 12)
    see(bodies, 3, first=12, moved=PLACES, by=(0.01, 0.0, 0.0))
    assert bodies.take_move() == Move("tracker", "the tracker was moved")
    assert bodies.take_move() is None


def shifted(name, by):
    return Transform.of("tracker", name, None, np.array(PLACES[name]) + by)


def turned(turn):
    return rotation_from_vector(np.array(turn))


TWIST = (
    0.1
    * np.subtract(PLACES["chest"], PLACES["patient"])
    / np.linalg.norm(np.subtract(PLACES["chest"], PLACES["patient"]))
)
ABOUT_TRACKER = Transform.of("tracker", "tracker", turned([0.02, 0.05, 0.0]))


@pytest.mark.parametrize(
    ("moved", "of"),
    [
        # as far as the reference, and elsewhere
        ({"patient": shifted("patient", [0.01, 0, 0]), "chest": shifted("chest", [0, 0.01, 0])}, "reference"),
        # 2.5 mm as the chest shows it, 3.75 mm at the lever
        ({"patient": Transform.of("tracker", "patient", turned([0, 0.025, 0]), PLACES["patient"])}, "reference"),
        # about the line to the chest, whose origin stays where it is
        ({"patient": Transform.of("tracker", "patient", turned(TWIST), PLACES["patient"])}, "reference"),
        ({name: ABOUT_TRACKER @ shifted(name, 0.0) for name in PLACES}, "tracker"),
    ],
    ids=["another way than the chest", "turned, the chest near", "twisted towards the chest", "the tracker turned"],
)
def test_a_step_is_the_trackers_only_where_reference_and_chest_step_as_one(bodies, moved, of):
    see(bodies, 12)
    wires = {name: PoseWire.of(moved.get(name) or shifted(name, 0.0), SIGMA) for name in PLACES}
    for k in range(12, 15):
        bodies.take(Exposure(t_ns=k * PERIOD, sigma_t_ns=0, tools=wires), k * PERIOD)
    assert bodies.take_move().of == of


def test_where_the_chest_is_not_seen_a_step_of_the_reference_is_a_bump(bodies):
    see(bodies, 12, without=("chest",))
    see(bodies, 3, first=12, moved=PLACES, by=(0.01, 0.0, 0.0), without=("chest",))
    assert bodies.take_move().of == "reference"


def test_a_reference_that_is_pushed_slowly_has_moved(bodies):
    see(bodies, 60)
    for k in range(60, 100):
        see(bodies, 1, first=k, moved=("patient",), by=(0.0005 * (k - 60), 0.0, 0.0))
    assert bodies.take_move() == Move("either", "the reference or the tracker was moved")


def test_an_exposure_from_the_future_is_refused_and_leaves_the_next_ones_alone(bodies):
    see(bodies, 12)
    with pytest.raises(BusError, match="3600"):
        bodies.take(Exposure(t_ns=3600 * SECOND + 12 * PERIOD, sigma_t_ns=0, tools={}), 12 * PERIOD)
    now = see(bodies, 6, first=13)
    assert bodies.at(frame(now)).horizon_ns == 45 * MS


def test_exposures_that_repeat_one_stamp_are_silence(bodies):
    last = see(bodies, 12)
    same = PoseWire.of(Transform.of("tracker", "patient"), SIGMA)
    for k in range(1, 7):
        bodies.take(Exposure(t_ns=last, sigma_t_ns=0, tools={"patient": same}), last + k * PERIOD)
    assert bodies.at(frame(last + 6 * PERIOD)).silence == pytest.approx(6.0)


@pytest.mark.parametrize(
    "wire",
    [
        PoseWire("tracker", "patient", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0), Array.of(SIGMA)),
        PoseWire("polaris", "patient", (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), Array.of(SIGMA)),
    ],
    ids=["no rotation", "another frame"],
)
def test_an_unusable_pose_counts_as_not_seen_says_why_and_costs_no_other_tool(bodies, wire):
    now = see(bodies, 12)
    for _ in range(4):
        now += PERIOD
        needle = PoseWire.of(Transform.of("tracker", "needle", None, np.array(PLACES["needle"])), SIGMA)
        bodies.take(Exposure(t_ns=now, sigma_t_ns=0, tools={"patient": wire, "needle": needle}), now)
    seen = bodies.at(frame(now))
    assert seen.unseen.startswith("reference: unusable pose: wanted")
    assert seen.silence == pytest.approx(4.0)
    assert read_swing(bodies, "needle", 0)[0] == now


def test_a_reference_out_of_view_is_silent_though_the_camera_is_not(bodies):
    see(bodies, 12)
    seen = bodies.at(frame(see(bodies, 6, first=12, without=("patient",))))
    assert seen.unseen == "reference: occluded"
    assert seen.silence == pytest.approx(6.0)


def test_the_hands_tool_that_nobody_sees_is_named_with_the_reason_and_one_laid_down_is_not(bodies):
    see(bodies, 12)
    now = see(bodies, 3, first=12, without=("needle",))
    tools, lost = tools_at(bodies, now)
    assert "needle" not in tools
    assert lost["needle"].reason == "occluded"
    assert tools_at(bodies, now, step="register") == ({}, {})


def test_a_tool_is_nowhere_before_its_first_sample(bodies):
    now = see(bodies, 60, without=("needle",))
    for k in range(60, 66):  # stamped ahead, as by a clock that is mapped wrongly
        now, wires = k * PERIOD, {n: PoseWire.of(Transform.of("tracker", n), SIGMA) for n in ("patient", "needle")}
        bodies.take(Exposure(t_ns=now + 95 * MS, sigma_t_ns=0, tools=wires), now)
    timing = frame(now, horizon_ns=5 * MS)
    assert bodies.histories["needle"].at(timing.t_display_ns).quality == "lost"
    assert "needle" not in bodies.tools_at(timing, bodies.at(timing), None, "guide")[0]
    assert "needle" in bodies.tools_at(later := frame(now), bodies.at(later), None, "guide")[0]


def test_a_lost_tool_returns_with_its_fifth_sample(bodies):
    see(bodies, 12)
    see(bodies, 3, first=12, without=("needle",))
    assert "needle" not in tools_at(bodies, see(bodies, 4, first=15))[0]
    assert "needle" in tools_at(bodies, see(bodies, 1, first=19))[0]


def test_after_a_silent_camera_a_hand_must_be_seen_anew(bodies):
    see(bodies, 12)
    see(bodies, 1, first=20)
    assert "needle" not in tools_at(bodies, 20 * PERIOD)[0]


def test_a_touch_has_the_noise_of_one_sample_and_apart_what_no_averaging_reduces():
    needle = Tool(role="pointer", tip_mm=(0.0, 0.0, -100.0), tip_sigma_mm=0.5)
    bodies = bodies_of(patient=Tool(role="reference"), needle=needle)
    touch = read_touch(bodies, 0, see(bodies, 60))
    one, tilt = 1e-4**2, (1e-3 * 0.1) ** 2  # m2 along the pointer, and what its turn adds at its tip 100 mm away
    np.testing.assert_allclose(touch.tips, np.tile([0.0, 0.1, -0.1], (60, 1)), atol=1e-12)
    np.testing.assert_allclose(np.diag(touch.covariance), [one + tilt, one + tilt, one], rtol=1e-9)
    # the reference is the mean of 60 samples, its turn acts over the way from its origin to the tip
    reference = np.array([one + 2 * tilt, one + tilt, one + tilt]) / 60
    np.testing.assert_allclose(np.diag(touch.common), reference, rtol=1e-9)
    np.testing.assert_allclose(touch.shared @ touch.shared.T, 0.5e-3**2 * np.eye(3), rtol=1e-9, atol=1e-20)


def test_the_error_of_the_pointers_tip_is_that_of_every_touch_and_stays_in_the_registration():
    needle = Tool(role="pointer", tip_mm=(0.0, 0.0, -100.0), tip_sigma_mm=0.5)
    touch = read_touch(bodies := bodies_of(patient=Tool(role="reference"), needle=needle), 0, see(bodies, 60))
    image = {f"F{k}": np.array(place) for k, place in enumerate(np.vstack([0.1 * np.eye(3), -0.1 * np.eye(3)]))}
    marks = [
        landmark_of(name, replace(touch, tips=touch.tips * 0.0 + place), touch_sigma_m=3e-4, still_m=1e-3)
        for name, place in image.items()
    ]
    assert marks[0].covariance.numpy()[2, 2] == pytest.approx(0.5e-3**2 + 3e-4**2, rel=0.01)
    made = register(marks, image, np.zeros(3), 1)
    at_centre = made.reference_from_image.pose(0).point_covariance(np.zeros(3))
    np.testing.assert_allclose(np.diag(at_centre), 0.5e-3**2 + 3e-4**2 / 6, rtol=0.01)  # only their own error averages
    kept_back = landmark_of("V", replace(touch, tips=touch.tips * 0.0), touch_sigma_m=3e-4, still_m=1e-3)
    _, unseen = verification_error(kept_back, np.zeros(3), made)
    sigma = np.sqrt(3e-4**2 * 7 / 6)  # the tip's error is that of the fit's touches too: no landmark shows it
    assert unseen == pytest.approx(2.7955 * sigma, rel=0.01)


def test_a_touch_without_a_sight_of_the_chest_proves_no_breath_hold():
    needle = Tool(role="pointer", tip_mm=(0.0, 0.0, -100.0))
    bodies = bodies_of(patient=Tool(role="reference"), chest=Tool(role="surrogate"), needle=needle)
    assert read_touch(bodies, 0, see(bodies, 30, without=("chest",))).surrogate_motion_m == np.inf


def test_a_touch_during_which_the_reference_was_not_seen_is_refused():
    bodies = bodies_of(patient=Tool(role="reference"), needle=Tool(role="pointer", tip_mm=(0.0, 0.0, -100.0)))
    see(bodies, 30)
    until_ns = see(bodies, 30, first=30, without=("patient",))
    with pytest.raises(RegistrationRefused, match="the reference in view"):
        landmark_of("f1", read_touch(bodies, 30 * PERIOD, until_ns), touch_sigma_m=3e-4, still_m=1e-3)


def test_without_a_camera_a_controller_is_seen_by_the_headset_and_its_error_is_not_averaged():
    needle = Tool(role="needle", controller="right", tip_mm=(0.0, 0.0, -100.0))
    stated = HeadsetSettings(controller_sigma_mm=2.0, controller_sigma_deg=0.0)
    bodies = bodies_of(stated, room=Tool(role="reference", fixed=True), needle=needle)
    grip = Transform.of("stage", "grip", None, np.array([0.0, 1.0, -0.5]))
    for k in range(60):
        bodies.follow_hands(dict.fromkeys(HANDS, Hand(pose_grip=grip)), k * PERIOD)
    tip = tools_at(bodies, 59 * PERIOD)[0]["needle"].tip
    np.testing.assert_allclose(tip.position, [0.0, 1.0, -0.6], atol=1e-9)
    assert np.diag(tip.covariance).min() >= 0.002**2
    bodies.follow_hands(dict.fromkeys(HANDS, Hand()), 60 * PERIOD)
    assert bodies.controllers == {}

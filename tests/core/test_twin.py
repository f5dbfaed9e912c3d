import copy

import numpy as np
import pytest

from twinguide.clock import MS, SECOND
from twinguide.errors import BusError, FrameError
from twinguide.frames import Transform
from twinguide.headset import FrameTiming
from twinguide.messages import (
    Array,
    BulkRef,
    Calibration,
    Displacement,
    Exposure,
    PoseWire,
    Registration,
    Solution,
    WorkflowState,
)
from twinguide.scenario import Scenario, Tool
from twinguide.tooling import PUSH_REACH_M
from twinguide.twin import Twin

SIGMA = np.diag([1e-4] * 3 + [1e-4] * 3) ** 2
NOW = SECOND


def shown(case, room_sigma_m, *, still=False, told=True):
    """Return the view of a twin that is seen and registered, in a room known to `room_sigma_m` [m].

    How it breathes is `told`, or nothing in the run does so: `still`.
    """
    tools = {"patient": Tool(role="reference")}
    twin = Twin(case, Scenario(title="t", case="c", parts={}, tools=tools), lambda ref: None, still=still)
    seen = {"patient": PoseWire.of(Transform.of("tracker", "patient"), SIGMA)}
    for k in range(6):
        twin.take("tracker", Exposure(t_ns=NOW - (5 - k) * 16 * MS, sigma_t_ns=0, tools=seen), NOW)
    room = PoseWire.of(Transform.of("stage", "tracker"), np.diag([0.0] * 3 + [room_sigma_m**2] * 3))
    twin.take("room", Calibration(name="stage_from_tracker", pose=room), NOW)
    times, still = (NOW, NOW + 300 * MS), np.stack([np.eye(3) * 1e-8] * 2)
    rest = Displacement(of="liver", times_ns=times, mean=Array.of(np.zeros((2, 3))), covariance=Array.of(still))
    if told:
        twin.take("breathing", rest, NOW)
    pose = PoseWire.of(Transform.of("reference", "image"), SIGMA * 0.01)
    registration = Registration(version=1, state="confirmed", reference_from_image=pose)
    timing = FrameTiming(NOW + 40 * MS, SECOND // 90, True, t_wake_ns=NOW)
    return twin.at(timing, registration, WorkflowState(step="guide", waits_for="", version=1))


def test_in_a_room_that_is_known_well_the_target_is_valid(demo_case):
    assert shown(demo_case, 0.0005).target_status.state == "valid"


def test_where_the_room_is_known_worse_than_the_target_may_be_off_nothing_is_unmarked(demo_case):
    view = shown(demo_case, 0.02)
    states = {structure.status.state for structure in view.structures.values()} | {view.target_status.state}
    assert states == {"degraded"}
    assert view.target_status.reason.startswith("the room is known to 5")  # 2.7955 * 20 mm


def test_a_motion_model_that_has_told_nothing_yet_leaves_the_target_degraded_and_the_gate_unknown(demo_case):
    view = shown(demo_case, 0.0005, told=False)
    assert (view.target_status.state, view.target_status.reason) == ("degraded", "breathing not learnt")
    assert (view.gate_open, view.gate_reason) == (False, "unknown")


def test_an_organ_that_nothing_is_to_follow_lies_as_in_the_scan_and_is_valid(demo_case):
    view, moving = shown(demo_case, 0.0005, still=True, told=False), shown(demo_case, 0.0005)
    states = {structure.status.state for structure in view.structures.values()} | {view.target_status.state}
    assert states == {"valid"}
    assert (view.target_status.reason, view.gate_reason) == ("", "")
    np.testing.assert_allclose(view.target.position, demo_case.plan.target, atol=1e-12)
    np.testing.assert_allclose(view.target.covariance, moving.target.covariance, atol=2e-8)  # the model's own [m2]


@pytest.mark.parametrize("phase", ["unknown", "free-breathing"])
def test_an_organ_that_nothing_follows_is_never_valid_where_nobody_knows_how_it_lay_in_the_scan(demo_case, phase):
    case = copy.copy(demo_case)
    case.breathing_phase = phase
    view = shown(case, 0.0005, still=True, told=False)
    of = {name: structure.status for name, structure in view.structures.items()}
    moving = {name for name, structure in case.structures.items() if structure.moves}
    assert {name for name, status in of.items() if status.state == "degraded"} == moving
    assert {view.target_status.state, *(of[name].state for name in moving)} == {"degraded"}
    assert "phase" in view.target_status.reason
    case.breathing_phase = "end-inspiration"  # the breath may be held so
    assert shown(case, 0.0005, still=True, told=False).target_status.state == "valid"


def test_what_a_motion_model_moves_is_never_valid_where_the_scans_phase_is_unknown(demo_case):
    unknown = copy.copy(demo_case)
    unknown.breathing_phase = "unknown"
    view = shown(unknown, 0.0005)
    assert "phase" in view.target_status.reason
    assert {view.target_status.state, view.structures["liver"].status.state} == {"degraded"}
    assert not view.gate_open


def advanced(case, from_m, by_m, rest_s=0.0, pushes_mm=1.0, seen_until_s=9e9):
    """Return the target's covariance after a needle went on by `by_m` [m], in 2 s, from a depth and then rested."""
    needle = Tool(role="needle", pushes_mm=pushes_mm)
    tools = {"patient": Tool(role="reference"), "needle": needle}
    twin = Twin(case, Scenario(title="t", case="c", parts={}, tools=tools), lambda ref: None, still=True)
    plan = case.plan
    along = (plan.target - plan.entry) / np.linalg.norm(plan.target - plan.entry)
    across = np.linalg.svd(along[None])[2][1]
    turn = np.column_stack([across, np.cross(-along, across), -along])  # the tool's z points from its tip to the hand
    pose = PoseWire.of(Transform.of("reference", "image"), SIGMA * 0.01)
    registration = Registration(version=1, state="confirmed", reference_from_image=pose)
    for k in range(round((2.0 + rest_s) * 60) + 1):
        tip = plan.entry + (from_m + by_m * min(1.0, k / 120)) * along
        seen = {"patient": PoseWire.of(Transform.of("tracker", "patient"), SIGMA)}
        if k <= 60 * seen_until_s:
            seen["needle"] = PoseWire.of(Transform.of("tracker", "needle", turn, tip), SIGMA)
        t_ns = k * SECOND // 60
        twin.take("tracker", Exposure(t_ns=t_ns, sigma_t_ns=0, tools=seen), t_ns)
        timing = FrameTiming(t_ns, SECOND // 60, True, t_wake_ns=t_ns)
        view = twin.at(timing, registration, WorkflowState(step="guide", waits_for="", version=1))
    return view.target.covariance, along


def test_tissue_that_an_advancing_needle_pushes_is_in_the_targets_error_along_the_needle(demo_case):
    depth = float(np.linalg.norm(demo_case.plan.target - demo_case.plan.entry))
    unmoved, along = advanced(demo_case, depth - 0.04, 0.0)
    pushed, _ = advanced(demo_case, depth - 0.04, 0.04)  # the tip is at the target
    np.testing.assert_allclose(pushed - unmoved, 1e-6 * np.outer(along, along), atol=2e-9)
    near, _ = advanced(demo_case, depth - 0.04 - PUSH_REACH_M, 0.04)
    assert along @ (near - unmoved) @ along == pytest.approx(1e-6 * np.exp(-1.0), rel=0.01)
    slow, _ = advanced(demo_case, depth - 0.01, 0.01)  # 5 mm/s for 2 s
    assert along @ (slow - unmoved) @ along == pytest.approx((0.5 * (1 - np.exp(-2.0))) ** 2 * 1e-6, rel=0.05)


@pytest.mark.parametrize("seen_until_s", [9e9, 2.0], ids=["in view", "hidden since"])
def test_tissue_that_was_pushed_slips_back_whether_the_needle_is_seen_or_not(demo_case, seen_until_s):
    depth = float(np.linalg.norm(demo_case.plan.target - demo_case.plan.entry))
    unmoved, along = advanced(demo_case, depth, 0.0)
    slipping, _ = advanced(demo_case, depth - 0.01, 0.01, rest_s=0.5, seen_until_s=seen_until_s)
    left = 0.5 * (1 - np.exp(-2.0)) * np.exp(-0.5)
    assert along @ (slipping - unmoved) @ along == pytest.approx(left**2 * 1e-6, rel=0.05)
    slipped, _ = advanced(demo_case, depth - 0.01, 0.01, rest_s=8.0, seen_until_s=seen_until_s)
    np.testing.assert_allclose(slipped, unmoved, atol=1e-12)


@pytest.mark.parametrize(
    ("from_m", "by_m", "pushes_mm"),
    [(None, -0.02, 1.0), (-0.03, 0.02, 1.0), (None, 0.02, 0.0)],
    ids=["drawn back", "before the skin", "none stated"],
)
def test_a_needle_that_retreats_or_is_outside_pushes_nothing(demo_case, from_m, by_m, pushes_mm):
    depth = float(np.linalg.norm(demo_case.plan.target - demo_case.plan.entry)) if from_m is None else from_m
    unmoved, _ = advanced(demo_case, depth, 0.0)
    moved, _ = advanced(demo_case, depth, by_m, pushes_mm=pushes_mm)
    np.testing.assert_allclose(moved, unmoved, atol=1e-12)


def test_a_room_told_in_another_frame_is_refused_where_it_comes(demo_case):
    twin = Twin(demo_case, Scenario(title="t", case="c", parts={}, tools={}), lambda ref: None)
    pose = PoseWire.of(Transform.of("stage", "polaris"), SIGMA)
    with pytest.raises(FrameError, match="stage_from_polaris"):
        twin.take("room", Calibration(name="stage_from_tracker", pose=pose), NOW)


def test_a_displacement_of_what_the_case_does_not_hold_moves_nothing(demo_case):
    twin = Twin(demo_case, Scenario(title="t", case="c", parts={}, tools={}), lambda ref: None)
    far = Array.of(np.full((2, 3), 0.006)), Array.of(np.zeros((2, 3, 3)))
    with pytest.raises(BusError, match="lever"):
        twin.take("motion", Displacement(of="lever", times_ns=(0, NOW), mean=far[0], covariance=far[1]), NOW)


def test_a_solution_of_another_body_is_refused(demo_case):
    vertices = np.zeros((100, 3), np.float32)
    twin = Twin(demo_case, Scenario(title="t", case="c", parts={}, tools={}), lambda ref: vertices)
    ref = BulkRef("vertices", 0, 1, "f4", (100, 3))
    told = Solution(
        of="liver", vertices=ref, level="full", residual=0.0, sigma_m=0.001, smallest_j=1.0, deadline_met=True
    )
    with pytest.raises(BusError, match=r"\(100, 3\)"):
        twin.take("softbody", told, NOW)

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

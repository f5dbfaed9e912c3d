"""A controller as the pointer: its tip calibrated, fiducials touched and verified by hand, with no operator."""

from contextlib import ExitStack

import numpy as np
import pytest

from twinguide import app
from twinguide.bus.catalogue import Catalogue, Header, tag_of
from twinguide.calibrating.inputs import open_poses
from twinguide.calibrating.result import PivotResult, read_result
from twinguide.checking import check
from twinguide.clock import SECOND
from twinguide.errors import ScenarioError
from twinguide.frames import Transform, rotation_from_vector
from twinguide.headset import Hand, HeadsetEvent
from twinguide.messages import Shown
from twinguide.recording import Recorder
from twinguide.scenario import find, overridden
from twinguide_calibration import calibrate_pivot
from twinguide_patient.options import PatientOptions
from twinguide_patient.room import furnish

TIP, DIVOT = np.array([0.01, -0.005, -0.12]), np.array([0.2, 1.0, -0.3])
SETTINGS = (
    "tools.pointer.controller=right",
    "tools.pointer.calibrate=pivot",
    "tools.pointer.tip_mm=[0.0, 0.0, -100.0]",
    "registration.still_mm=50.0",  # nobody holds the breath; the hand touches places, not the moving skin
    "registration.verify_limit_mm=8.0",
    "record=false",
)


class Holder:
    """Holds a controller with a tip: swings it in a divot, or holds it on the landmark asked for, and presses `a`."""

    def __init__(self, room, case):
        self.room, self.case, self.rng = room, case, np.random.default_rng(1)
        self.flow, self.asked, self.since_ns = None, None, 0

    def __call__(self, t_ns):
        state = self.flow.state if self.flow else None
        asked = (state.step, state.waits_for) if state else None
        if asked != self.asked:
            self.asked, self.since_ns = asked, t_ns
        held_s = (t_ns - self.since_ns) / SECOND
        pressed = state is not None and state.waits_for and held_s % 1.0 > 0.9
        grip = Transform.of("stage", "grip_right", *self.place(state, t_ns))
        right = Hand(pose_grip=grip, buttons=frozenset({"a"} if pressed else ()), active=True)
        return {"left": Hand(), "right": right}

    def place(self, state, t_ns):
        if state and state.step == "calibrate":
            tilt = 0.5 * np.sin(2 * np.pi * np.array([0.47, 0.31]) * t_ns * 1e-9)
            turn, tip = rotation_from_vector(np.array([*tilt, 0.0])), DIVOT
        else:
            turn, tip = np.eye(3), DIVOT
        name = state.waits_for.removeprefix("touch ") if state else ""
        if name in self.case.landmarks:
            tip = self.room.stage_from_image.apply(self.case.landmarks[name].position)
        turn = turn @ rotation_from_vector(self.rng.normal(0.0, 1e-3, 3))
        return turn, tip - turn @ TIP + self.rng.normal(0.0, 3e-4, 3)


@pytest.fixture(scope="module")
def by_hand(registry, demo_case, tmp_path_factory):
    """Start `by_hand(tables, settings, last)`, which runs until a step and returns (plan, loop, room, frames)."""
    with ExitStack() as stack:

        def start(tables, settings, last):
            inside = [f"parts.{name}.placement=inside" for name in tables["parts"]]
            ready = overridden(tables, [f"case={demo_case.folder}", *inside, *settings])
            check(ready, registry)
            plan = app.Run(ready, registry, tmp_path_factory.mktemp("run"), lambda line: None)
            holder = Holder(furnish(1, PatientOptions(), demo_case), demo_case)
            loop = app.compose_loop(plan, demo_case, stack, draw=False, hands=holder)
            holder.flow = loop.workflow
            frames = []
            while loop.workflow.step != last:
                frames.append(loop.frame())
                assert frames[-1].t_ns < 60 * SECOND, f"{loop.workflow.state}"
            return plan, loop, holder.room, frames

        yield start


@pytest.fixture(scope="module")
def run(registry, by_hand):
    tables = find("liver_puncture", registry)
    del tables["parts"]["operator"]
    return by_hand(tables, SETTINGS, "train")


def test_the_tip_on_the_controller_is_found(run):
    result = read_result(run[0].out / "calibration/pointer.toml", PivotResult)
    assert np.linalg.norm(np.array(result.tip_mm) * 1e-3 - TIP) < 5e-4  # 0.3 mm and 1 mrad over 900 sightings
    assert result.divots[0].pivot_in == "stage"
    assert np.linalg.norm(np.array(result.divots[0].pivot_mm) * 1e-3 - DIVOT) < 5e-4


def test_the_swing_is_in_the_recording_and_gives_the_same_tip(run, tmp_path):
    catalogue = Catalogue()
    recorder = Recorder(tmp_path, catalogue)
    swing = [frame for frame in run[3] if frame.step == "calibrate"]
    for seq, frame in enumerate(swing):
        header = Header(tag_of(Shown), "twinguide", 1, seq, frame.t_ns, frame.t_ns)
        recorder.write("v1/stream/twinguide/shown", header, catalogue.encode(frame))
    recorder.close()
    track = open_poses(tmp_path).track("stage_from_pointer")
    assert len(track) > 600
    poses = np.tile(np.eye(4), (len(track), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = track.rotations, track.translations
    assert np.linalg.norm(calibrate_pivot(poses).tip - TIP) < 5e-4  # as the step of the run


def test_the_registration_is_verified_and_its_stated_error_has_the_controllers_in_it(run, demo_case):
    _, loop, room, _ = run
    registration, target = loop.workflow.registration, demo_case.plan.target
    assert registration.state == "confirmed"
    assert set(registration.verification_mm) == {"V1", "V2", "V3"}
    pose = registration.reference_from_image.pose(0)
    off_mm = 1e3 * np.linalg.norm(pose.transform.apply(target) - room.reference_from_image.apply(target))
    assert off_mm < registration.tre_p95_mm
    assert registration.tre_p95_mm > 1.0  # six fiducials of 1 mm each, and the headset's room


def test_the_wearer_sees_the_controllers_tip_with_its_error(run):
    shown = next(frame for frame in reversed(run[3]) if frame.step == "verify")
    sigma_mm = 1e3 * np.sqrt(np.trace(shown.tip_covariances["pointer"].numpy()) / 3)
    assert 1.0 < sigma_mm < 3.0


def test_a_reference_cannot_be_a_controller(registry):
    ready = overridden(find("liver_puncture", registry), ["tools.reference.controller=left"])
    with pytest.raises(ScenarioError, match=r"in the scenario, tools\.reference\.controller"):
        check(ready, registry)


UNTRACKED = (
    'tools={reference={role="reference", fixed=true}, needle={role="needle", controller="left"}, '
    'pointer={role="pointer", controller="right", calibrate="pivot"}}',
    'parts={patient={placement="inside"}, puncture={placement="inside"}}',
    "registration.verify_limit_mm=8.0",
    "record=false",
)


@pytest.fixture(scope="module")
def untracked(registry, by_hand):
    return by_hand(find("liver_puncture", registry), UNTRACKED, "guide")


def test_without_a_tracker_the_headsets_room_is_the_reference(untracked, demo_case):
    _, loop, room, frames = untracked
    pose = loop.workflow.registration.reference_from_image.pose(0)
    target = demo_case.plan.target
    off_mm = 1e3 * np.linalg.norm(pose.transform.apply(target) - room.stage_from_image.apply(target))
    assert off_mm < loop.workflow.registration.tre_p95_mm
    assert "pointer" in frames[-1].tips


def test_without_a_motion_model_the_wearer_is_told_what_the_organ_s_place_hangs_on(untracked):
    shown = untracked[3][-1]
    assert "breathing" not in " ".join((*shown.text, *(s.reason for s in shown.structures.values())))
    assert any("Organ motion is not tracked" in row for row in shown.text)


def test_without_a_tracker_a_jump_of_the_room_voids_the_registration(untracked):
    _, loop, _, _ = untracked
    loop.wearer.react(HeadsetEvent("space_changed", 0, reason="recentred"))
    loop.frame()
    assert loop.workflow.registration.state == "void"
    assert loop.workflow.step == "register"


def test_tracked_tools_beside_a_fixed_reference_are_refused(registry):
    ready = overridden(find("liver_puncture", registry), ["tools.reference.fixed=true"])
    with pytest.raises(ScenarioError, match="controllers alone"):
        check(ready, registry)

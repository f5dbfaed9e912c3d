"""The registered twin: registration o motion o deformation at the time of display, with its error.

`p_reference(t) = reference_from_image(p_image) + displacement(t)`: one owner, this file, for the target's position.
The displacement comes from the motion model as a short trajectory; a solver's vertices follow it and are shifted by
what has moved since the time they are valid for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinguide.calibrating.result import PivotResult
from twinguide.case import Case
from twinguide.clock import MS, SECOND
from twinguide.deformation import Deformation
from twinguide.frames import Pose, Transform, p95_from_covariance, p95_from_covariances, points_covariance
from twinguide.history import DisplacementHistory, PoseHistory
from twinguide.messages import (
    BulkRef,
    Calibration,
    Displacement,
    Exposure,
    Gate,
    Message,
    PoseWire,
    Registration,
    Solution,
    Training,
    WorkflowState,
)
from twinguide.registering import Touch
from twinguide.render.catalogue import text
from twinguide.scenario import Scenario
from twinguide.scene import Point, Status, StructureView, ToolView, TwinView
from twinguide.tooling import tip_covariance, tip_of, tool_view
from twinguide.trust import SILENT_PERIODS, Presence, Stream, Trust
from twinguide.xr.base import FrameTiming, Hand, HandName

Array = NDArray[np.float64]
IN_HAND = {
    "calibrate": ("pointer",),
    "register": ("pointer",),
    "verify": ("pointer",),
    "guide": ("needle",),
}  # a tool laid down is not lost
UNKNOWN_MOTION_M = 0.010  # 1 sigma per axis of an organ whose breathing is not known: 15 mm from rest to full breath
LEVER_M = 0.15  # from the reference body to what hangs on it: a turn of the body is a step out there
GATE_FRESH_NS = 100 * MS  # an older gate says nothing
SOLUTION_FRESH_NS = 250 * MS  # a body's shape older than this is not this breath's
EYE = np.eye(3)
NO_COVARIANCE = np.zeros((6, 6))
STILL = Point(np.zeros(3), np.zeros((3, 3)))
UNKNOWN = Point(np.zeros(3), np.eye(3) * UNKNOWN_MOTION_M**2)


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """What all structures of one frame share."""

    pose: Pose | None  # reference_from_image
    motion: Point
    fault: str
    silence: float
    horizon_ns: int
    unseen: str  # why the reference is not seen


class Twin:
    """What is known of patient and tools, asked for at one display time."""

    def __init__(
        self,
        case: Case,
        scenario: Scenario,
        bulk: Callable[[BulkRef], NDArray[Any] | None],
        exposure_hz: float = 60.0,
    ) -> None:
        """Take the case, the tools, how to read a shared array, and the rate that the tracker declares [Hz]."""
        self._case, self._tools, self._bulk = case, dict(scenario.tools), bulk
        self._roles = {tool.role: name for name, tool in scenario.tools.items()}
        patient_side = {n: t for n, t in scenario.tools.items() if t.role != "headset"}
        self._histories = {n: PoseHistory(static=t.role == "reference") for n, t in patient_side.items()}
        self._presence = {name: Presence() for name in patient_side}
        self.untracked = any(tool.fixed for tool in patient_side.values())  # the headset's room is the reference
        self._controllers: dict[str, HandName] = {n: t.controller for n, t in patient_side.items() if t.controller}
        turn, shift = np.radians(scenario.headset.controller_sigma_deg), scenario.headset.controller_sigma_mm * 1e-3
        self._controller_covariance = np.diag([turn**2] * 3 + [shift**2] * 3)
        self._stream = Stream(round(SECOND / exposure_hz))
        self._displacement = DisplacementHistory()
        self._deformation = Deformation(case, [n for n, s in case.structures.items() if s.moves])
        self._target_trust = Trust(scenario.target_tolerance_mm * 1e-3)
        self._trust = {name: Trust(s.tolerance_m) for name, s in case.structures.items()}
        self._moves = np.array([s.moves for s in case.structures.values()])
        self._centres = np.array([case.surface(name).vertices.mean(axis=0) for name in case.structures])
        self._registered: tuple[int, Pose | None] = (-1, None)  # version, reference_from_image
        self._bump_m = scenario.registration.bump_mm * 1e-3
        self._gate, self._gate_heard_ns = Gate(open=False, reason="unknown"), -SECOND
        still = Pose(Transform.of("stage", "tracker"), 0, NO_COVARIANCE)
        self._stage_from_tracker: Pose | None = still if self.untracked else None
        self._stage_reason = ""  # why it is not known
        self._fixed_stage: Pose | None = None  # stage_from_reference in rehearsal
        self._stage: tuple[Pose, Pose, Pose] | None = None  # of a calibration and a sample of the reference
        self._inverse: tuple[Pose, Pose] | None = None  # of a sample of the reference
        self._at_centres: tuple[Pose, Array] | None = None  # of a registration, the covariances at all centres
        self._radii: tuple[Pose, bool, list[float]] | None = None  # all structures' 95 % errors [m], and of what
        self._held: dict[str, Pose] = {}  # reference_from_<tool> of tools that a controller is
        self.controllers: dict[str, PoseWire] = {}  # stage_from_<tool> of this frame, as the headset told them
        self.training: dict[str, Training] = {}
        self.bumped = ""  # why, until asked

    # ---- what arrives -----------------------------------------------------------------------------------------------

    def take(self, source: str, message: Message, now_ns: int) -> None:
        """Take one message of a part at `now_ns` [ns]; types that the twin does not know are passed over."""
        match message:
            case Exposure():
                self._take_exposure(message, now_ns)
            case Displacement():
                self._displacement.add(message)
            case Solution():
                vertices = self._bulk(message.vertices)
                if vertices is not None:
                    sigma = self._bulk(message.sigma) if message.sigma is not None else None
                    self._deformation.take(message, vertices, sigma)
            case Calibration() if message.name == "stage_from_tracker" and not self._knows_stage:
                self._stage_from_tracker = message.pose.pose(message.t_ns)
            case Training():
                self.training[source] = message
            case Gate():
                self._gate, self._gate_heard_ns = message, now_ns
            case _:
                pass

    @property
    def _knows_stage(self) -> bool:
        return self.untracked or "headset" in self._roles

    def _take_exposure(self, exposure: Exposure, now_ns: int) -> None:
        if self._stream.silence(now_ns) >= SILENT_PERIODS:
            for name, presence in self._presence.items():
                if not self._histories[name].static and name not in self._controllers:
                    presence.gone("tracker silent")  # a hand moves on meanwhile: it is shown when seen anew
        self._stream.heard_ns = now_ns
        for name, history in self._histories.items():
            wire = exposure.tools.get(name)
            if name in self._controllers:
                continue  # the headset sees it, not the tracker
            if wire is None:
                self._presence[name].missed(exposure.lost.get(name, "not in view"))
            else:
                history.add(exposure.t_ns, wire)
                self._presence[name].seen()
        self._look_for_bump()

    def _look_for_bump(self) -> None:
        """Tell a bump, a step of the reference alone, from a moved camera, a step that all bodies share."""
        name = self._roles.get("reference")
        if name is None or self._histories[name].step_m(LEVER_M) < self._bump_m:
            return
        others = [self._histories[n].step_m(0.0) for n, t in self._tools.items() if t.role == "surrogate"]
        shared = bool(others) and min(others) > 0.5 * self._bump_m
        self.bumped = "the tracker was moved" if shared else "the reference was bumped"
        self._histories[name].clear()

    @property
    def training_progress(self) -> float:
        """How far the slowest part has learnt, 0..1."""
        return min((training.progress for training in self.training.values()), default=0.0)

    @property
    def all_trained(self) -> bool:
        """Whether every part that announced training is done, and what it learnt has arrived."""
        done = bool(self.training) and all(training.done for training in self.training.values())
        return done and self._displacement.newest is not None

    def forget_training(self) -> None:
        """Take no motion for known until it is learnt anew."""
        self.training.clear()
        self._displacement = DisplacementHistory()
        self._gate_heard_ns = -SECOND

    def take_bump(self) -> str:
        """Return why the reference can no longer be trusted, once; nothing while it can."""
        reason, self.bumped = self.bumped, ""
        return reason

    def follow(self, stage_from_tracker: Pose | None, reason: str) -> None:
        """Take where the headset's room lies now, as followed; None and the reason while nobody knows."""
        self._stage_from_tracker, self._stage_reason = stage_from_tracker, reason

    def follow_hands(self, hands: Mapping[HandName, Hand], t_ns: int) -> None:
        """Take where this run's controllers are at `t_ns` [ns], and a reference that stands still."""
        if self.untracked:
            name = self._roles["reference"]
            self._histories[name].add(t_ns, PoseWire.of(Transform.of("tracker", name), NO_COVARIANCE))
            self._presence[name].seen()
            self._stream.heard_ns = t_ns
        self.controllers = {}
        for name, side in self._controllers.items():
            grip = hands[side].pose_grip
            if grip is None:
                self._presence[name].missed("controller not tracked")
                continue
            self.controllers[name] = PoseWire.of(Transform("stage", name, grip.matrix), NO_COVARIANCE)
            self._histories[name].add(t_ns, self.controllers[name])
            self._presence[name].seen()

    def place(self, stage_from_reference: Transform) -> None:
        """Lay the patient down in stage, for rehearsal; nothing moves it from there."""
        self._fixed_stage = Pose(stage_from_reference, 0, np.zeros((6, 6)))

    def hold(self, tool: str, stage_from_tool: Transform, t_ns: int) -> None:
        """Let a controller be a tool, for rehearsal."""
        assert self._fixed_stage is not None
        self._held[tool] = Pose(self._fixed_stage.transform.inverse() @ stage_from_tool, t_ns, np.zeros((6, 6)))
        self._stream.heard_ns = t_ns

    def release(self, tool: str, t_ns: int) -> None:
        """Let a tool go whose controller is not tracked."""
        self._held.pop(tool, None)
        self._stream.heard_ns = t_ns

    # ---- calibrating and touching -----------------------------------------------------------------------------------

    def swung(self, tool: str, since_ns: int) -> tuple[int, Array]:
        """Return the time of a tool's newest sample [ns], and its poses since a time, shape (n, 4, 4).

        They are told in tracker; a controller's in stage.
        """
        history = self._histories[tool]
        return history.newest_ns, history.samples(since_ns)[0].copy()

    def calibrate(self, tool: str, result: PivotResult) -> None:
        """Use a tool's newly calibrated tip and its covariance from now on."""
        known = {"tip_mm": result.tip_mm, "tip_covariance_mm2": result.tip_covariance_mm2}
        self._tools[tool] = msgspec.structs.replace(self._tools[tool], **known)

    def touch(self, since_ns: int, until_ns: int) -> Touch:
        """Return the pointer's tips [m] in reference during a touch; see `Touch`."""
        pointer, reference = self._roles["pointer"], self._histories[self._roles["reference"]]
        base = self._base(pointer, reference.at(until_ns))
        matrices, covariances = self._histories[pointer].samples(since_ns)
        if base is None or not len(matrices):
            return Touch(np.zeros((0, 3)), np.eye(3), np.eye(3), 0.0)
        tip = tip_of(self._tools[pointer])
        reference_from_base = base.transform.inverse()
        tips = reference_from_base.apply(matrices[:, :3, :3] @ tip + matrices[:, :3, 3])
        mean = Transform(base.transform.target, pointer, matrices[-1])
        held = pointer in self._controllers
        sample = self._controller_covariance if held else covariances.mean(axis=0)
        one = Pose(mean, until_ns, sample).point_covariance(tip)
        turn = reference_from_base.rotation
        tool_turn = turn @ mean.rotation
        own = tool_turn @ tip_covariance(self._tools[pointer]) @ tool_turn.T
        common = base.inverse().point_covariance(mean.apply(tip)) + own
        if held:
            common = common + turn @ one @ turn.T  # slow too
        return Touch(tips, turn @ one @ turn.T, common, self._surrogate_motion(since_ns))

    def _base(self, tool: str, reference: Pose | None) -> Pose | None:
        """Return how the reference lies in the frame in which a tool is seen: the tracker, or the headset's room."""
        return self._stage_from_reference(reference) if tool in self._controllers else reference

    def _surrogate_motion(self, since_ns: int) -> float:
        """Return how far the surrogate wandered [m]: its smoothed first third against its last."""
        name = self._roles.get("surrogate")
        if name is None:
            return 0.0
        position = self._histories[name].samples(since_ns)[0][:, :3, 3]
        third = len(position) // 3
        if not third:
            return 0.0
        return float(np.linalg.norm(position[:third].mean(axis=0) - position[-third:].mean(axis=0)))

    # ---- what is shown ----------------------------------------------------------------------------------------------

    def at(
        self,
        timing: FrameTiming,
        registration: Registration,
        workflow: WorkflowState,
        *,
        deform: bool = True,
        judge: bool = True,
    ) -> TwinView:
        """Return the twin at a frame's display time, as known when the frame was begun.

        What moves is less sure where the display time is.
        Without `deform` the surfaces of a frame that nobody draws are left as they were. Without `judge` the structures
        keep the error last predicted for them, while registration and model stand; the target's is always its own.
        """
        t_ns, now_ns = timing.t_display_ns, timing.t_wake_ns
        reference = self._histories[self._roles["reference"]].at(t_ns) if "reference" in self._roles else None
        pose = self._pose_of(registration)
        moved = self._displacement.at(t_ns, timing.sigma_ns)
        rest = STILL if self._fixed_stage else UNKNOWN
        newest_ns = self._histories[self._roles["reference"]].newest_ns if reference else t_ns
        frame = _Frame(pose, moved or rest, self._fault(moved), self._silence(now_ns), t_ns - newest_ns, self._unseen())
        gate_open = self._gate.open and now_ns - self._gate_heard_ns < GATE_FRESH_NS and not frame.fault
        target = entry = None
        self._deformation.forget_before(t_ns - SOLUTION_FRESH_NS)
        if pose is not None:
            plan = self._case.plan
            target = _carried(pose, plan.target, frame.motion, self._deformation.target_covariance)
            entry = pose.transform.apply(plan.entry)
        target_p95 = p95_from_covariance(target.covariance) if target else None
        tools, lost = self._tools_at(timing, reference, entry, IN_HAND.get(workflow.step, ()))
        return TwinView(
            t_display_ns=t_ns,
            structures=self._structures(frame, registration, deform=deform, judge=judge),
            tools=tools,
            lost=lost,
            registration=registration,
            reference_from_image=pose.transform if pose else None,
            stage_from_reference=self._stage_from_reference(reference),
            target=target,
            displacement=moved,
            entry=entry,
            target_status=self._status(self._target_trust, target_p95, frame, registration, moves=True),
            workflow=workflow,
            gate_open=gate_open,
            gate_reason=self._gate_reason(now_ns, frame.fault),
            gate_seconds=self._gate.seconds_left,
            stage_reason="" if self._stage_from_tracker else self._stage_reason,
        )

    def _stage_from_reference(self, reference: Pose | None) -> Pose | None:
        if self._fixed_stage is not None:
            return self._fixed_stage
        if self._stage_from_tracker is None or reference is None:
            return None
        if self._stage is None or self._stage[:2] != (self._stage_from_tracker, reference):
            self._stage = (self._stage_from_tracker, reference, self._stage_from_tracker @ reference)
        return self._stage[2]

    def _silence(self, now_ns: int) -> float:
        """Return the silence of what the picture hangs on: the camera's, or that of the reference within it."""
        silence = self._stream.silence(now_ns)
        name = self._roles.get("reference")
        if name is None or not self._unseen():
            return silence
        return max(silence, (now_ns - self._histories[name].newest_ns) / self._stream.period_ns)

    def _unseen(self) -> str:
        """Return why the reference is not seen, or nothing."""
        presence = self._presence.get(self._roles.get("reference", ""))
        return f"reference: {presence.reason}" if presence and not presence.present else ""

    def _gate_reason(self, now_ns: int, fault: str) -> str:
        if self._fixed_stage:
            return ""  # a rehearsal's patient does not breathe
        if now_ns - self._gate_heard_ns >= GATE_FRESH_NS:
            return "unknown"
        return self._gate.reason or fault

    def _fault(self, moved: Point | None) -> str:
        """Return what the motion model says against itself."""
        if self._fixed_stage is not None:
            return ""  # a rehearsal's patient lies still by definition
        newest = self._displacement.newest
        if newest is None:
            return "breathing not learnt"
        if not newest.in_model:
            return f"out of model: {newest.reason}"
        return "" if moved is not None else "motion unknown"

    def _pose_of(self, registration: Registration) -> Pose | None:
        if registration.version != self._registered[0]:
            wire = registration.reference_from_image
            self._registered = (registration.version, wire.pose(0) if wire else None)
        return self._registered[1]

    def _structures(
        self, frame: _Frame, registration: Registration, *, deform: bool, judge: bool
    ) -> dict[str, StructureView]:
        """Return every structure with its state, and what it has moved beyond the solver's vertices."""
        radii: list[float] | list[None] = [None] * len(self._centres)
        shift = STILL.position
        if frame.pose is not None:
            of = (frame.pose, frame.motion is UNKNOWN)
            if judge or self._radii is None or self._radii[:2] != of:
                self._radii = (*of, self._judged(frame.pose, frame.motion.covariance))
            radii = self._radii[2]
            shift = frame.motion.position - frame.pose.transform.rotation @ self._deformation.at_target()
        views: dict[str, StructureView] = {}
        for name, moves, radius in zip(self._case.structures, self._moves.tolist(), radii, strict=True):
            status = self._status(self._trust[name], radius, frame, registration, moves=moves)
            vertices, version = (self._deformation.newest(name) if moves and deform else None) or (None, 0)
            views[name] = StructureView(name, status, shift if moves else STILL.position, vertices, version)
        return views

    def _judged(self, pose: Pose, motion: Array) -> list[float]:
        """Return the 95 % error at each centre [m]: the moving carry the motion's covariance [m2] and the solver's."""
        if self._at_centres is None or self._at_centres[0] is not pose:
            self._at_centres = (pose, points_covariance(pose, self._centres))
        covariances = self._at_centres[1].copy()
        covariances[self._moves] += motion + self._deformation.variances[:, None, None] * EYE
        return p95_from_covariances(covariances).tolist()

    def _status(
        self, trust: Trust, p95: float | None, frame: _Frame, registration: Registration, *, moves: bool
    ) -> Status:
        if p95 is None or registration.state in ("absent", "void", "suspended"):
            return Status("hidden", registration.reason or registration.state)
        fault = frame.unseen or (frame.fault if moves else "")
        status = trust.judge(p95, frame.silence, frame.horizon_ns, self._stream.period_ns, fault)
        if registration.state != "confirmed" and status.state != "hidden":
            reason = text("not_verified" if registration.state == "made" else "not_confirmed")
            return Status("unconfirmed", reason, status.silence, status.horizon_ns, p95)
        return status

    def _tools_at(
        self, timing: FrameTiming, reference: Pose | None, entry: Array | None, in_hand: tuple[str, ...]
    ) -> tuple[dict[str, ToolView], dict[str, Status]]:
        """Return the tools that are there, and those that this step's hand should hold and the camera does not see."""
        tools: dict[str, ToolView] = {}
        lost: dict[str, Status] = {}
        silence = self._silence(timing.t_wake_ns)
        for name, tool in self._tools.items():
            if tool.role not in ("needle", "pointer"):
                continue
            pose, reason = self._tool_pose(name, timing, reference, silence)
            if pose is None and tool.role in in_hand:
                lost[name] = Status("hidden", reason, silence)
            elif pose is not None:
                horizon = timing.t_display_ns - (self._histories[name].newest_ns or timing.t_display_ns)
                tools[name] = tool_view(name, tool, pose, Status("valid", "", silence, horizon), entry)
        return tools, lost

    def _tool_pose(
        self, name: str, timing: FrameTiming, reference: Pose | None, silence: float
    ) -> tuple[Pose | None, str]:
        """Return `reference_from_<tool>`, or why there is none."""
        if name in self._held:
            return self._held[name], ""
        presence = self._presence[name]
        if self._fixed_stage is not None:
            return None, "controller not tracked"
        if silence >= SILENT_PERIODS or reference is None:
            return None, self._unseen() or "tracker silent"
        if not presence.present:
            return None, presence.reason
        pose = self._histories[name].at(timing.t_display_ns, timing.sigma_ns)
        if pose is None:
            return None, presence.reason
        if name in self._controllers:
            stage = self._stage_from_reference(reference)
            slow = replace(pose, covariance=pose.covariance + self._controller_covariance)  # no line averages it
            return (stage.inverse() @ slow, "") if stage else (None, self._stage_reason)
        if self._inverse is None or self._inverse[0] is not reference:
            self._inverse = (reference, reference.inverse())
        return self._inverse[1] @ pose, ""


def _carried(pose: Pose, point: Array, motion: Point, solver: Array) -> Point:
    """Return a point of the image, registered and moved, with both covariances and the solver's [m2], in image."""
    turn = pose.transform.rotation
    position = pose.transform.apply(point) + motion.position
    return Point(position, pose.point_covariance(point) + motion.covariance + turn @ solver @ turn.T)

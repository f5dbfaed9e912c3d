"""The registered twin: registration o motion o deformation at the time of display, with its error.

`p_reference(t) = reference_from_image(p_image) + displacement(t)`: one owner, this file, for the target's position.
The displacement comes from the motion model as a short trajectory; a solver's vertices follow it and are shifted by
what has moved since the time they are valid for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide.bodies import Bodies, ReferenceSeen
from twinguide.case import Case
from twinguide.clock import MS, SECOND
from twinguide.deformation import Deformation
from twinguide.displacement import DisplacementHistory
from twinguide.errors import BusError, FrameError
from twinguide.frames import Pose, p95_from_covariance, points_covariance
from twinguide.headset import FrameTiming
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
from twinguide.scenario import Scenario
from twinguide.scene import Point, Status, StructureView, TwinView
from twinguide.tooling import Push
from twinguide.trust import Trust
from twinguide.wording import text

Array = NDArray[np.float64]
UNKNOWN_MOTION_M = 0.010  # 1 sigma per axis of an organ whose breathing is not known: 15 mm from rest to full breath
GATE_FRESH_NS = 100 * MS  # an older gate says nothing
SOLUTION_FRESH_NS = 250 * MS  # a body's shape older than this is not this breath's
EYE = np.eye(3)
STILL = Point(np.zeros(3), np.zeros((3, 3)))
UNKNOWN = Point(np.zeros(3), np.eye(3) * UNKNOWN_MOTION_M**2)


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """What all structures of one frame share."""

    pose: Pose | None  # reference_from_image
    motion: Point
    motion_known: bool
    fault: str  # why the motion model is not to be trusted
    sighting: ReferenceSeen
    room: str  # why the headset's room is not known well enough


class Twin:
    """What is known of patient and tools at one display time."""

    def __init__(
        self,
        case: Case,
        scenario: Scenario,
        bulk: Callable[[BulkRef], NDArray[Any] | None],
        exposure_hz: float = 60.0,
        levels: Mapping[str, float] | None = None,
        *,
        still: bool = False,
    ) -> None:
        """Take the case, the tools, how to read a shared array, and the rate that the tracker declares [Hz].

        `levels` are those of the declared solver's contract: level -> its 95 % error [mm]. `still`: no part of the run
        reports the organ's motion, so it is assumed to lie as in the CT.
        """
        self._case = case
        self._bulk = bulk
        self._still = still
        self.bodies = Bodies(scenario, exposure_hz)
        followed = any(tool.role == "headset" for tool in scenario.tools.values())
        self._stage_is_given = not (followed or self.bodies.untracked)
        self._push = Push(max((tool.pushes_mm for tool in scenario.tools.values()), default=0.0) * 1e-3)
        self._displacement = DisplacementHistory()
        self._deformation = Deformation(
            case, [n for n, s in case.structures.items() if s.moves], None if still else levels
        )
        self._target_trust = Trust(scenario.target_tolerance_mm * 1e-3)
        self._trust = {name: Trust(s.tolerance_m) for name, s in case.structures.items()}
        self._moves = np.array([s.moves for s in case.structures.values()])
        self._centres = np.array([case.surface(name).vertices.mean(axis=0) for name in case.structures])
        self._gate = Gate(open=False, reason="unknown")
        self._gate_heard_ns = -SECOND
        self._unpack = lru_cache(maxsize=1)(PoseWire.pose)
        self._centre_covariances = lru_cache(maxsize=1)(partial(points_covariance, points=self._centres))
        self._radii: list[float] = []  # all structures' 95 % errors [m], as last judged
        self._radii_basis: tuple[Pose | None, bool] = (None, False)  # registration, whether motion was known
        self.training: dict[str, Training] = {}

    # ---- what arrives -----------------------------------------------------------------------------------------------

    def take(self, source: str, message: Message, now_ns: int) -> None:
        """Take one message of a part at `now_ns` [ns]; types that the twin does not know are ignored."""
        match message:
            case Exposure():
                self.bodies.take(message, now_ns)
            case Displacement():
                names = (self._case.plan.target_structure, self._case.organ)
                if message.of not in names:
                    raise BusError(f"the displacement of {' or '.join(names)}", f"that of {message.of!r}", "motion")
                self._displacement.add(message)
            case Solution():
                vertices = self._bulk(message.vertices)
                if vertices is not None:
                    sigma = self._bulk(message.sigma) if message.sigma is not None else None
                    self._deformation.take(message, vertices, sigma)
            case Calibration() if message.name == "stage_from_tracker" and self._stage_is_given:
                pose = message.pose.pose(message.t_ns)
                if (pose.transform.target, pose.transform.source) != ("stage", "tracker"):
                    got = f"{pose.transform.target}_from_{pose.transform.source}"
                    raise FrameError("stage_from_tracker", got, "calibration")
                self.bodies.follow(pose)
            case Training():
                self.training[source] = message
            case Gate():
                self._gate = message
                self._gate_heard_ns = now_ns
            case _:
                pass

    @property
    def fault(self) -> str:
        """Warn that nothing in this run tracks the organ's motion; empty otherwise."""
        return text("still") if self._still and not self.bodies.placed else ""

    @property
    def training_progress(self) -> float:
        """The progress of the slowest part in training, 0..1."""
        return min((training.progress for training in self.training.values()), default=0.0)

    @property
    def all_trained(self) -> bool:
        """Whether every part that announced training is done, and what it learnt has arrived."""
        done = bool(self.training) and all(training.done for training in self.training.values())
        return done and self._displacement.newest is not None

    def forget_training(self) -> None:
        """Forget the learnt motion: it is unknown until it is learnt anew."""
        self.training.clear()
        self._displacement = DisplacementHistory()
        self._gate_heard_ns = -SECOND

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
        """Return the twin at a frame's display time, as known when the frame began.

        An uncertain display time (`timing.sigma_ns`) widens the covariance of everything that moves.
        Without `deform` the surfaces of a frame that nobody draws are left as they were. Without `judge` the structures
        keep the error last predicted for them, while registration and model stand; the target's is always its own.
        """
        t_ns = timing.t_display_ns
        now_ns = timing.t_wake_ns
        sighting = self.bodies.at(timing)
        wire = registration.reference_from_image
        pose = self._unpack(wire, 0) if wire else None
        displacement = self._displacement.at(t_ns, timing.sigma_ns)
        at_rest = self.bodies.placed or self._still
        motion = displacement or (STILL if at_rest else UNKNOWN)
        fault = self._fault(displacement)
        self._deformation.forget_before(t_ns - SOLUTION_FRESH_NS)
        plan = self._case.plan
        entry = pose.transform.apply(plan.entry) if pose else None
        tools, lost = self.bodies.tools_at(timing, sighting, entry, workflow.step)
        if not self.bodies.placed:  # a rehearsal's patient lies still by definition
            self._push.follow(tools.get(self.bodies.roles.get("needle", "")), entry, t_ns)
        target = target_p95 = None
        if pose is not None:
            target = _carry(pose, plan.target, motion, self._deformation.target_covariance)
            target = self._push.on(target)
            target_p95 = p95_from_covariance(target.covariance)
        room = self._room_fault(sighting.stage_from_reference, target)
        frame = _Frame(pose, motion, displacement is not None or at_rest, fault, sighting, room)
        return TwinView(
            t_display_ns=t_ns,
            structures=self._structures(frame, registration, deform=deform, judge=judge),
            tools=tools,
            lost=lost,
            registration=registration,
            reference_from_image=pose.transform if pose else None,
            stage_from_reference=sighting.stage_from_reference,
            target=target,
            displacement=displacement,
            entry=entry,
            target_status=self._status(self._target_trust, target_p95, frame, registration, fault),
            workflow=workflow,
            gate_open=self._gate.open and now_ns - self._gate_heard_ns < GATE_FRESH_NS and not fault,
            gate_reason=self._gate_reason(now_ns, fault),
            gate_seconds=self._gate.seconds_left,
            stage_reason=self.bodies.stage_reason,
        )

    def _gate_reason(self, now_ns: int, fault: str) -> str:
        if self.bodies.placed:
            return ""  # a rehearsal's patient does not breathe
        if now_ns - self._gate_heard_ns >= GATE_FRESH_NS:
            return "" if self._still and self._gate_heard_ns < 0 else "unknown"
        return self._gate.reason or fault

    def _fault(self, displacement: Point | None) -> str:
        """Return why the motion model is not to be trusted; empty where it is."""
        if self.bodies.placed:
            return ""  # a rehearsal's patient lies still by definition
        newest = self._displacement.newest
        phase = self._case.breathing_phase
        if newest is None and self._still:  # holds while the breath is held as in the scan, where that phase is known
            return "" if phase in ("end-expiration", "end-inspiration") else text("phase_unknown")
        if newest is None:
            return "breathing not learnt"
        if not newest.in_model:
            return f"out of model: {newest.reason}"
        if displacement is None:
            return "motion unknown"
        return "" if phase == "end-expiration" else text("phase_unknown")

    def _room_fault(self, stage_from_reference: Pose | None, target: Point | None) -> str:
        """Say that the room's own error exceeds the target's tolerance; no structure's error includes it."""
        if stage_from_reference is None or target is None:
            return ""
        p95 = p95_from_covariance(stage_from_reference.point_covariance(target.position))
        return "" if p95 <= self._target_trust.tolerance_m else f"the room is known to {p95 * 1e3:.1f} mm only"

    def _structures(
        self, frame: _Frame, registration: Registration, *, deform: bool, judge: bool
    ) -> dict[str, StructureView]:
        """Return every structure with its state, and what it has moved beyond the solver's vertices."""
        radii: list[float] | list[None] = [None] * len(self._centres)
        shift = STILL.position
        if frame.pose is not None:
            basis = (frame.pose, frame.motion_known)
            if judge or self._radii_basis != basis:
                self._radii_basis = basis
                self._radii = self._judge(frame.pose, frame.motion.covariance)
            radii = self._radii
            shift = frame.motion.position - frame.pose.transform.rotation @ self._deformation.at_target()
        fault = frame.fault or self._deformation.fault
        views: dict[str, StructureView] = {}
        for name, moves, radius in zip(self._case.structures, self._moves.tolist(), radii, strict=True):
            status = self._status(self._trust[name], radius, frame, registration, fault if moves else "")
            vertices, version = (self._deformation.newest(name) if moves and deform else None) or (None, 0)
            views[name] = StructureView(name, status, shift if moves else STILL.position, vertices, version)
        return views

    def _judge(self, pose: Pose, motion: Array) -> list[float]:
        """Return the 95 % error at each centre [m]: the moving carry the motion's covariance [m2] and the solver's."""
        covariances = self._centre_covariances(pose).copy()
        covariances[self._moves] += motion + self._deformation.variances[:, None, None] * EYE
        return list(map(p95_from_covariance, covariances))

    def _status(self, trust: Trust, p95: float | None, frame: _Frame, registration: Registration, fault: str) -> Status:
        """Return a structure's status for its 95 % error [m]; `fault` is why its own place is not to be trusted."""
        if p95 is None or registration.state in ("absent", "void", "suspended"):
            return Status("hidden", registration.reason or registration.state)
        s = frame.sighting
        status = trust.judge(p95, s.silence, s.horizon_ns, s.period_ns, frame.room or fault, s.unseen)
        if registration.state != "confirmed" and status.state != "hidden":
            reason = text("not_verified" if registration.state == "made" else "not_confirmed")
            return Status("unconfirmed", reason, status.silence, status.horizon_ns, p95)
        return status


def _carry(pose: Pose, point: Array, motion: Point, solver: Array) -> Point:
    """Return a point of the image, registered and moved, with both covariances and the solver's [m2], in image."""
    turn = pose.transform.rotation
    position = pose.transform.apply(point) + motion.position
    return Point(position, pose.point_covariance(point) + motion.covariance + turn @ solver @ turn.T)

"""The rigid bodies that camera and headset see: reference, tools, and the room in which the headset stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinguide.calibrating.result import PivotResult
from twinguide.clock import MS, SECOND
from twinguide.errors import BusError, FrameError, TwinGuideError
from twinguide.frames import NO_COVARIANCE, Pose, Transform, pose_covariance
from twinguide.history import PoseHistory, step_between
from twinguide.messages import Exposure, PoseWire
from twinguide.registering import Touch
from twinguide.scenario import Scenario
from twinguide.scene import Status, ToolView
from twinguide.tooling import tip_covariance, tip_of, tool_view
from twinguide.trust import SILENT_PERIODS, Presence, Stream
from twinguide.xr.base import FrameTiming, Hand, HandName

Array = NDArray[np.float64]
IN_HAND = {
    "calibrate": ("pointer",),
    "register": ("pointer",),
    "verify": ("pointer",),
    "guide": ("needle",),
}  # a tool laid down is not lost
AHEAD_NS = 100 * MS  # what a mapped clock may be wrong by
SLOW_NS = SECOND  # within which a reference that is pushed slowly is noticed
LEVER_M = 0.15  # from the reference body to what hangs on it: a turn of the body is a step out there


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """What a whole frame hangs on: where the patient's reference is at display time, and how well it is seen."""

    reference: Pose | None  # tracker_from_reference
    stage_from_reference: Pose | None
    silence: float  # in periods of the stream
    horizon_ns: int  # display time minus the reference's newest sample
    period_ns: int
    unseen: str  # why the reference is not seen


class Bodies:
    """Every body of a run, asked for at one display time. A tool's pose is told in reference."""

    def __init__(self, scenario: Scenario, exposure_hz: float = 60.0) -> None:
        """Take the tools, and the rate that the tracker declares [Hz]."""
        self._tools = dict(scenario.tools)
        self._roles = {tool.role: name for name, tool in scenario.tools.items()}
        patient_side = {n: t for n, t in scenario.tools.items() if t.role != "headset"}
        capacity = max(128, round(2 * exposure_hz))
        static = {name: tool.role == "reference" for name, tool in patient_side.items()}
        self._histories = {name: PoseHistory(static=rests, capacity=capacity) for name, rests in static.items()}
        self._presence = {name: Presence() for name in patient_side}
        self.untracked = any(tool.fixed for tool in patient_side.values())  # the headset's room is the reference
        self._controllers: dict[str, HandName] = {n: t.controller for n, t in patient_side.items() if t.controller}
        self._seen_by_camera = [name for name in patient_side if name not in self._controllers]
        turn, shift = np.radians(scenario.headset.controller_sigma_deg), scenario.headset.controller_sigma_mm * 1e-3
        self._controller_covariance = pose_covariance(turn, shift)
        self._stream = Stream(round(SECOND / exposure_hz))
        self._exposed_ns = -1  # the newest exposure
        self._bump_m = scenario.registration.bump_mm * 1e-3
        self._bumped = self._moved = ""
        still = Pose(Transform.of("stage", "tracker"), 0, NO_COVARIANCE)
        self._stage_from_tracker: Pose | None = still if self.untracked else None
        self._stage_reason = ""
        self._placed: Pose | None = None  # stage_from_reference in rehearsal
        self._held: dict[str, Pose] = {}  # reference_from_<tool> of tools that a controller is, in rehearsal
        self._stage: tuple[Pose, Pose, Pose] | None = None  # of a calibration and a sample of the reference
        self._inverse: tuple[Pose, Pose] | None = None  # of a sample of the reference
        self.controllers: dict[str, PoseWire] = {}  # stage_from_<tool> of this frame, as the headset told them

    @property
    def placed(self) -> bool:
        """Whether the patient was laid down for rehearsal, where nothing moves."""
        return self._placed is not None

    @property
    def stage_reason(self) -> str:
        """Why nobody knows where the headset's room lies; nothing where it is known."""
        return "" if self._stage_from_tracker else self._stage_reason

    # ---- what arrives -----------------------------------------------------------------------------------------------

    def take(self, exposure: Exposure, now_ns: int) -> None:
        """Take one exposure of the camera at `now_ns` [ns]; one that is not newer than the last says nothing.

        A tool whose pose cannot be used counts as not seen. Raise BusError, and take nothing, where the exposure is
        stamped later than it came.
        """
        if exposure.t_ns > now_ns + AHEAD_NS:
            ahead = f"{(exposure.t_ns - now_ns) / SECOND:.1f} s after it"
            raise BusError("an exposure from before it came", ahead, "exposure", "Map its clock to the host's.")
        if exposure.t_ns <= self._exposed_ns:
            return
        self._exposed_ns = exposure.t_ns
        if self._stream.silence(now_ns) >= SILENT_PERIODS:
            for name, presence in self._presence.items():
                if not self._histories[name].static and name not in self._controllers:
                    presence.gone("tracker silent")  # a hand moves on meanwhile: it is shown when seen anew
        self._stream.heard_ns = now_ns
        for name in self._seen_by_camera:
            try:
                self._take_tool(name, exposure)
            except TwinGuideError as error:
                self._presence[name].missed(f"unusable pose: {error}")
        self._look_for_bump()

    def _take_tool(self, name: str, exposure: Exposure) -> None:
        wire = exposure.tools.get(name)
        if wire is None:
            self._presence[name].missed(exposure.lost.get(name, "not in view"))
            return
        if (wire.target, wire.source) != ("tracker", name):
            raise FrameError(f"tracker_from_{name}", f"{wire.target}_from_{wire.source}", "exposure")
        self._histories[name].add(exposure.t_ns, wire)
        self._presence[name].seen()

    def _look_for_bump(self) -> None:
        """Tell a bump of the reference from a moved tracker, at which the chest stays where it is, seen from it."""
        history, chest = (self._histories.get(self._roles.get(role, "")) for role in ("reference", "surrogate"))
        if history is None:
            return
        if history.step_m(LEVER_M) >= self._bump_m:
            if chest and step_between(history, chest, LEVER_M) < self._bump_m:  # it breathes less within a step's 50 ms
                self._moved = "the tracker was moved"
            else:
                self._bumped = "the reference was bumped"
        elif history.step_m(LEVER_M, SLOW_NS) >= self._bump_m:
            self._bumped = "the reference or the tracker was moved"
        else:
            return
        history.clear()

    def take_move(self) -> str:
        """Return that the tracker was moved, once: it sees everything elsewhere; nothing while it stands."""
        moved, self._moved = self._moved, ""
        return moved

    def take_bump(self) -> str:
        """Return why the reference can no longer be trusted, once; nothing while it can."""
        reason, self._bumped = self._bumped, ""
        return reason

    def follow(self, stage_from_tracker: Pose | None, reason: str = "") -> None:
        """Take where the headset's room lies now; None and the reason while nobody knows."""
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
        self._placed = Pose(stage_from_reference, 0, NO_COVARIANCE)

    def hold(self, tool: str, stage_from_tool: Transform, t_ns: int) -> None:
        """Let a controller be a tool, for rehearsal."""
        assert self._placed is not None
        self._held[tool] = Pose(self._placed.transform.inverse() @ stage_from_tool, t_ns, NO_COVARIANCE)
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
        pointer, reference = self._roles["pointer"], self._histories[self._roles["reference"]].at(until_ns)
        held = pointer in self._controllers
        base = self._in_stage(reference) if held else reference  # in the frame in which the pointer is seen
        matrices, covariances = self._histories[pointer].samples(since_ns)
        if base is None or not len(matrices):
            return Touch(np.zeros((0, 3)), np.eye(3), np.eye(3), 0.0)
        tip = tip_of(self._tools[pointer])
        reference_from_base = base.transform.inverse()
        tips = reference_from_base.apply(matrices[:, :3, :3] @ tip + matrices[:, :3, 3])
        mean = Transform(base.transform.target, pointer, matrices[-1])
        sample = self._controller_covariance if held else covariances.mean(axis=0)
        one = Pose(mean, until_ns, sample).point_covariance(tip)
        turn = reference_from_base.rotation
        tool_turn = turn @ mean.rotation
        own = tool_turn @ tip_covariance(self._tools[pointer]) @ tool_turn.T
        common = base.inverse().point_covariance(mean.apply(tip)) + own
        if held:
            common = common + turn @ one @ turn.T  # slow too
        return Touch(tips, turn @ one @ turn.T, common, self._surrogate_motion(since_ns))

    def _surrogate_motion(self, since_ns: int) -> float:
        """Return how far the surrogate wandered [m]: its smoothed first third against its last; infinite if unseen."""
        name = self._roles.get("surrogate")
        if name is None:
            return 0.0
        position = self._histories[name].samples(since_ns)[0][:, :3, 3]
        third = len(position) // 3
        if not third:
            return inf
        return float(np.linalg.norm(position[:third].mean(axis=0) - position[-third:].mean(axis=0)))

    # ---- at display time --------------------------------------------------------------------------------------------

    def at(self, timing: FrameTiming) -> Sighting:
        """Return where the reference is at a frame's display time, as known when the frame was begun."""
        history = self._histories.get(self._roles.get("reference", ""))
        reference = history.at(timing.t_display_ns, timing.sigma_ns) if history else None
        horizon_ns = timing.t_display_ns - history.newest_ns if history and reference else 0
        silence, unseen = self._stream.silence(timing.t_wake_ns), self._unseen()
        if history is not None and unseen:  # the camera is there, and the reference is not in its view
            silence = max(silence, (timing.t_wake_ns - history.newest_ns) / self._stream.period_ns)
        return Sighting(reference, self._in_stage(reference), silence, horizon_ns, self._stream.period_ns, unseen)

    def _unseen(self) -> str:
        presence = self._presence.get(self._roles.get("reference", ""))
        return f"reference: {presence.reason}" if presence and not presence.present else ""

    def _in_stage(self, reference: Pose | None) -> Pose | None:
        """Return `stage_from_reference`."""
        if self._placed is not None:
            return self._placed
        if self._stage_from_tracker is None or reference is None:
            return None
        if self._stage is None or self._stage[:2] != (self._stage_from_tracker, reference):
            self._stage = (self._stage_from_tracker, reference, self._stage_from_tracker @ reference)
        return self._stage[2]

    def tools_at(
        self, timing: FrameTiming, seen: Sighting, entry: Array | None, step: str
    ) -> tuple[dict[str, ToolView], dict[str, Status]]:
        """Return the tools that are there, and those that this step's hand should hold and nobody sees.

        A needle bends behind its `entry` [m], shape (3,), in reference.
        """
        tools: dict[str, ToolView] = {}
        lost: dict[str, Status] = {}
        for name, tool in self._tools.items():
            if tool.role not in ("needle", "pointer"):
                continue
            pose, reason = self._tool_pose(name, timing, seen)
            if pose is not None:
                horizon_ns = timing.t_display_ns - (self._histories[name].newest_ns or timing.t_display_ns)
                tools[name] = tool_view(name, tool, pose, Status("valid", "", seen.silence, horizon_ns), entry)
            elif tool.role in IN_HAND.get(step, ()):
                lost[name] = Status("hidden", reason, seen.silence)
        return tools, lost

    def _tool_pose(self, name: str, timing: FrameTiming, seen: Sighting) -> tuple[Pose | None, str]:
        """Return `reference_from_<tool>`, or why there is none."""
        if name in self._held:
            return self._held[name], ""
        presence = self._presence[name]
        if self.placed:
            return None, "controller not tracked"
        if seen.silence >= SILENT_PERIODS or seen.reference is None:
            return None, seen.unseen or "tracker silent"
        if not presence.present:
            return None, presence.reason
        pose = self._histories[name].at(timing.t_display_ns, timing.sigma_ns)
        if pose is None:
            return None, presence.reason
        if name in self._controllers:
            stage = seen.stage_from_reference
            slow = replace(pose, covariance=pose.covariance + self._controller_covariance)  # no line averages it
            return (stage.inverse() @ slow, "") if stage else (None, self._stage_reason)
        if self._inverse is None or self._inverse[0] is not seen.reference:
            self._inverse = (seen.reference, seen.reference.inverse())
        return self._inverse[1] @ pose, ""

"""The rigid bodies that camera and headset see: reference, tools, and the room in which the headset stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinguide.calibrating.result import PivotResult
from twinguide.clock import MS, SECOND
from twinguide.errors import BusError, FrameError, TwinGuideError
from twinguide.frames import NO_COVARIANCE, Pose, Transform, pose_covariance
from twinguide.headset import FrameTiming, Hand, HandName
from twinguide.history import PoseHistory
from twinguide.messages import Exposure, PoseWire
from twinguide.scenario import Scenario
from twinguide.scene import Status, ToolView
from twinguide.tooling import tool_view
from twinguide.trust import SILENT_PERIODS, Move, Presence, Stream, move_of

Array = NDArray[np.float64]
# the role of the tool that the hand holds in a step: one laid down is not lost
IN_HAND = {"calibrate": "pointer", "register": "pointer", "verify": "pointer", "guide": "needle"}
AHEAD_NS = 100 * MS  # what a mapped clock may be wrong by


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceSeen:
    """The reference pose at display time, on which every other pose of the frame depends."""

    reference: Pose | None  # tracker_from_reference
    stage_from_reference: Pose | None
    silence: float  # in periods of the stream
    horizon_ns: int  # display time minus the reference's newest sample
    period_ns: int
    unseen: str  # why the reference is not seen


class Bodies:
    """Every body of a run, at one display time. Tool poses are expressed in `reference`."""

    def __init__(self, scenario: Scenario, exposure_hz: float = 60.0) -> None:
        """Take the tools, and the rate that the tracker declares [Hz]."""
        patient_side = {name: tool for name, tool in scenario.tools.items() if tool.role != "headset"}
        capacity = max(128, round(2 * exposure_hz))
        self.tools = dict(scenario.tools)
        self.roles = {tool.role: name for name, tool in scenario.tools.items()}
        self.histories = {
            name: PoseHistory(static=tool.role == "reference", capacity=capacity) for name, tool in patient_side.items()
        }
        self._shown = [name for name, tool in patient_side.items() if tool.role in ("needle", "pointer")]
        self.untracked = any(tool.fixed for tool in patient_side.values())  # the headset's room is the reference
        self.controllers: dict[str, PoseWire] = {}  # stage_from_<tool> of this frame, as the headset reported them
        headset = scenario.headset
        self.controller_covariance = pose_covariance(
            np.radians(headset.controller_sigma_deg), headset.controller_sigma_mm * 1e-3
        )
        self._presence = {name: Presence() for name in patient_side}
        self._sides: dict[str, HandName] = {n: t.controller for n, t in patient_side.items() if t.controller}
        self._stream = Stream(round(SECOND / exposure_hz))
        self._exposed_ns = -1  # the newest exposure
        self._bump_m = scenario.registration.bump_mm * 1e-3
        self._move: Move | None = None  # until it is taken
        still = Pose(Transform.of("stage", "tracker"), 0, NO_COVARIANCE)
        self._stage_from_tracker: Pose | None = still if self.untracked else None
        self._stage_reason = ""
        self._placed: Pose | None = None  # stage_from_reference in rehearsal
        self._rehearsal_poses: dict[str, Pose] = {}  # reference_from_<tool> of tools that a controller is, in rehearsal
        # a pose is equal only to itself: what follows from the same ones is computed once
        self._chain = lru_cache(maxsize=1)(Pose.__matmul__)
        self._invert = lru_cache(maxsize=1)(Pose.inverse)

    @property
    def placed(self) -> bool:
        """Whether the patient was laid down for rehearsal, where nothing moves."""
        return self._placed is not None

    @property
    def stage_reason(self) -> str:
        """Why the pose of the headset's stage is unknown; empty where it is known."""
        return "" if self._stage_from_tracker else self._stage_reason

    # ---- what arrives -----------------------------------------------------------------------------------------------

    def take(self, exposure: Exposure, now_ns: int) -> None:
        """Take one exposure of the camera at `now_ns` [ns]; one that is no newer than the last is ignored.

        A tool whose pose cannot be used counts as not seen. Raise BusError, and take nothing, where the exposure is
        stamped later than it arrived.
        """
        if exposure.t_ns > now_ns + AHEAD_NS:
            ahead = f"{(exposure.t_ns - now_ns) / SECOND:.1f} s after it"
            raise BusError("an exposure from before it came", ahead, "exposure", "Map its clock to the host's.")
        if exposure.t_ns <= self._exposed_ns:
            return
        self._exposed_ns = exposure.t_ns
        if self._stream.silence(now_ns) >= SILENT_PERIODS:
            for name, presence in self._presence.items():
                if not self.histories[name].static and name not in self._sides:
                    presence.lose("tracker silent")  # a hand moves on meanwhile: it is shown when seen anew
        self._stream.heard_ns = now_ns
        for name in self.histories:
            if name in self._sides:
                continue
            try:
                self._take_tool(name, exposure)
            except TwinGuideError as error:
                self._presence[name].miss(f"unusable pose: {error}")
        self._look_for_move()
        self._foresee()

    def _take_tool(self, name: str, exposure: Exposure) -> None:
        wire = exposure.tools.get(name)
        if wire is None:
            self._presence[name].miss(exposure.lost.get(name, "not in view"))
            return
        if (wire.target, wire.source) != ("tracker", name):
            raise FrameError(f"tracker_from_{name}", f"{wire.target}_from_{wire.source}", "exposure")
        self.histories[name].add(exposure.t_ns, wire)
        self._presence[name].hit()

    def _look_for_move(self) -> None:
        reference, chest = (self.histories.get(self.roles.get(role, "")) for role in ("reference", "surrogate"))
        move = move_of(reference, chest, self._bump_m) if reference is not None else None
        if reference is not None and move is not None:
            self._move = move
            reference.clear()

    def _foresee(self) -> None:
        """Work out what a frame will ask of the newest exposure: it comes while the loop waits, as a rule."""
        for name in self._shown:
            self.histories[name].settle()
        reference = self.histories[self.roles["reference"]].settle() if "reference" in self.roles else None
        if isinstance(reference, Pose):
            self.in_stage(reference)
            self._invert(reference)

    def take_move(self) -> Move | None:
        """Return how the reference or the tracker was moved, once; None while both stand still."""
        move, self._move = self._move, None
        return move

    def follow(self, stage_from_tracker: Pose | None, reason: str = "") -> None:
        """Set the current `stage_from_tracker`, or None with the reason."""
        self._stage_from_tracker = stage_from_tracker
        self._stage_reason = reason

    def follow_hands(self, hands: Mapping[HandName, Hand], t_ns: int) -> None:
        """Take the poses of the tools that are controllers at `t_ns` [ns]; without a tracker, a reference at rest."""
        if self.untracked:
            name = self.roles["reference"]
            self.histories[name].add(t_ns, PoseWire.of(Transform.of("tracker", name), NO_COVARIANCE))
            self._presence[name].hit()
            self._stream.heard_ns = t_ns
        self.controllers = {}
        for name, side in self._sides.items():
            grip = hands[side].pose_grip
            if grip is None:
                self._presence[name].miss("controller not tracked")
                continue
            self.controllers[name] = PoseWire.of(Transform("stage", name, grip.matrix), NO_COVARIANCE)
            self.histories[name].add(t_ns, self.controllers[name])
            self._presence[name].hit()
        if self._sides:
            self._foresee()

    def place(self, stage_from_reference: Transform) -> None:
        """Lay the patient down in stage, for rehearsal; nothing moves it from there."""
        self._placed = Pose(stage_from_reference, 0, NO_COVARIANCE)

    def hold(self, tool: str, stage_from_tool: Transform, t_ns: int) -> None:
        """Let a controller stand for a tool, for rehearsal."""
        assert self._placed is not None
        self._rehearsal_poses[tool] = Pose(self._placed.transform.inverse() @ stage_from_tool, t_ns, NO_COVARIANCE)
        self._stream.heard_ns = t_ns

    def release(self, tool: str, t_ns: int) -> None:
        """Let go of a tool whose controller is not tracked."""
        self._rehearsal_poses.pop(tool, None)
        self._stream.heard_ns = t_ns

    def calibrate(self, tool: str, result: PivotResult) -> None:
        """Use a tool's newly calibrated tip and its covariance from now on."""
        tip = {"tip_mm": result.tip_mm, "tip_covariance_mm2": result.tip_covariance_mm2}
        self.tools[tool] = msgspec.structs.replace(self.tools[tool], **tip)

    # ---- at display time --------------------------------------------------------------------------------------------

    def at(self, timing: FrameTiming) -> ReferenceSeen:
        """Return where the reference is at a frame's display time, as known when the frame was begun."""
        silence = self._stream.silence(timing.t_wake_ns)
        name = self.roles.get("reference")
        if name is None:
            return ReferenceSeen(None, self.in_stage(None), silence, 0, self._stream.period_ns, "")
        reference = self.pose(name, timing.t_display_ns, timing.sigma_ns)
        newest_ns = self.histories[name].newest_ns
        horizon_ns = timing.t_display_ns - newest_ns if reference else 0
        unseen = "" if self._presence[name].present else f"reference: {self._presence[name].reason}"
        if unseen:  # the camera is there, and the reference is not in its view
            silence = max(silence, (timing.t_wake_ns - newest_ns) / self._stream.period_ns)
        return ReferenceSeen(reference, self.in_stage(reference), silence, horizon_ns, self._stream.period_ns, unseen)

    def pose(self, name: str, t_ns: int, sigma_ns: int = 0) -> Pose | None:
        """Return a body's pose where it is seen, at `t_ns`, known to `sigma_ns` [ns]; None before its first sample."""
        pose = self.histories[name].at(t_ns, sigma_ns)
        return None if pose is None or pose.quality == "lost" else pose

    def in_stage(self, reference: Pose | None) -> Pose | None:
        """Return `stage_from_reference` of a pose of the reference in tracker; None where either is unknown."""
        if self._placed is not None:
            return self._placed
        if self._stage_from_tracker is None or reference is None:
            return None
        return self._chain(self._stage_from_tracker, reference)

    def tools_at(
        self, timing: FrameTiming, sighting: ReferenceSeen, entry: Array | None, step: str
    ) -> tuple[dict[str, ToolView], dict[str, Status]]:
        """Return the tools that are seen, and those that are not although the hand holds them in this step.

        A needle bends behind its `entry` [m], shape (3,), in reference.
        """
        tools: dict[str, ToolView] = {}
        lost: dict[str, Status] = {}
        for name in self._shown:
            tool = self.tools[name]
            pose, reason = self._tool_pose(name, timing, sighting)
            if pose is not None:
                horizon_ns = timing.t_display_ns - (self.histories[name].newest_ns or timing.t_display_ns)
                status = Status("valid", "", sighting.silence, horizon_ns)
                tools[name] = tool_view(name, tool, pose, status, entry)
            elif tool.role == IN_HAND.get(step):
                lost[name] = Status("hidden", reason, sighting.silence)
        return tools, lost

    def _tool_pose(self, name: str, timing: FrameTiming, sighting: ReferenceSeen) -> tuple[Pose | None, str]:
        """Return `reference_from_<tool>`, or why there is none."""
        if name in self._rehearsal_poses:
            return self._rehearsal_poses[name], ""
        presence = self._presence[name]
        if self.placed:
            return None, "controller not tracked"
        if sighting.silence >= SILENT_PERIODS or sighting.reference is None:
            return None, sighting.unseen or "tracker silent"
        if not presence.present:
            return None, presence.reason
        pose = self.pose(name, timing.t_display_ns, timing.sigma_ns)
        if pose is None:
            return None, presence.reason
        if name in self._sides:
            stage = sighting.stage_from_reference
            slow = replace(pose, covariance=pose.covariance + self.controller_covariance)  # no line averages it
            return (stage.inverse() @ slow, "") if stage else (None, self._stage_reason)
        return self._invert(sighting.reference) @ pose, ""

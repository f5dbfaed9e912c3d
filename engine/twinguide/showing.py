"""What was shown, as a message: the record of one frame, for the recorder, the scorer and the operator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from twinguide.clock import MS
from twinguide.frames import NO_COVARIANCE, Pose, Transform
from twinguide.headset import FrameTiming, Hand, HandName, View
from twinguide.messages import Array, HandRecord, PoseWire, Shown, StructureRecord, Vec3
from twinguide.render.panels import panel_text
from twinguide.scene import Scene, Status, TwinView


def shown_of(
    scene: Scene,
    timing: FrameTiming,
    seen_ns: int,
    views: tuple[View, View],
    hands: Mapping[HandName, Hand],
    *,
    head: Transform,
    head_covariance: NDArray[np.float64],
    controllers: Mapping[str, PoseWire],
    stage_us: Mapping[str, int],
    drawn: bool,
) -> Shown:
    """Return the message of one frame, made for `timing` and first seen at `seen_ns` [ns].

    `head` is stage_from_headset, `head_covariance`, shape (6, 6), the headset's stated tracking error; `controllers`
    are those that are tools, in stage; `stage_us` are the times of the loop's stages [us].
    """
    twin = scene.twin
    target = twin.target if twin.target_status.state != "hidden" else None
    in_stage = _in_stage(twin, Pose(head, twin.t_display_ns, head_covariance)) if target else None
    moved = twin.displacement
    statuses = {name: view.status for name, view in twin.structures.items()} | {"target": twin.target_status}
    tools = {name: view.status for name, view in twin.tools.items()} | dict(twin.lost)
    roles = {name: tool.role for name, tool in twin.tools.items()}
    return Shown(
        t_ns=timing.t_display_ns,
        period_ns=timing.period_ns,
        frame=scene.frame,
        step=twin.workflow.step,
        stage_from_head=PoseWire.of(head, head_covariance),
        stage_from_view=(_exact(views[0].stage_from_eye), _exact(views[1].stage_from_eye)),
        structures={name: _record(status) for name, status in statuses.items()},
        tools={name: _record(status, roles.get(name, "")) for name, status in tools.items()},
        target=vec(target.position) if target else None,
        target_covariance=Array.of(target.covariance) if target else None,
        target_displacement=vec(moved.position) if moved else None,
        target_displacement_covariance=Array.of(moved.covariance) if moved else None,
        target_stage=vec(in_stage[0]) if in_stage else None,
        target_stage_covariance=Array.of(in_stage[1]) if in_stage else None,
        tips={name: vec(tool.tip.position) for name, tool in twin.tools.items()},
        tip_covariances={name: Array.of(tool.tip.covariance) for name, tool in twin.tools.items()},
        directions={name: vec(tool.direction) for name, tool in twin.tools.items()},
        entry=vec(twin.entry) if twin.entry is not None else None,
        findings=scene.findings,
        text=panel_text(scene),
        stage_us=dict(stage_us),
        input_age_ms={name: status.horizon_ns / MS for name, status in (statuses | tools).items()},
        drawn=drawn,
        gate_open=twin.gate_open,
        seen_ns=seen_ns,
        controllers=dict(controllers),
        hands={name: _hand(hand) for name, hand in hands.items() if hand.active},
    )


def _in_stage(twin: TwinView, head: Pose) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the target [m] and its covariance [m2] in stage, with the stage's and the headset's own error."""
    stage = twin.stage_from_reference
    if stage is None or twin.target is None:
        return None
    place = stage.transform.apply(twin.target.position)
    turn = stage.transform.rotation
    covariance = turn @ twin.target.covariance @ turn.T + stage.point_covariance(twin.target.position)
    return place, covariance + head.point_covariance(head.transform.inverse().apply(place))


def _record(status: Status, role: str = "") -> StructureRecord:
    silence = min(status.silence, 1e6)  # infinite before the first sample; MessagePack readers differ on infinities
    return StructureRecord(status.state, status.reason, silence, status.horizon_ns / MS, status.p95_m * 1e3, role)


def _hand(hand: Hand) -> HandRecord:
    grip, aim = (pose and _exact(pose) for pose in (hand.pose_grip, hand.pose_aim))
    return HandRecord(grip, aim, hand.trigger, hand.squeeze, tuple(sorted(hand.buttons)))


def _exact(pose: Transform) -> PoseWire:
    return PoseWire.of(pose, NO_COVARIANCE)


def vec(v: NDArray[np.float64]) -> Vec3:
    """Return an array, shape (3,), as a tuple for the wire."""
    return (float(v[0]), float(v[1]), float(v[2]))

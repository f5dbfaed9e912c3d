"""One tracked tool at display time: where its tip is, how certain that is, and how far a needle may have bent."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from twinguide.frames import Pose, p95_from_covariance
from twinguide.scenario import Tool
from twinguide.scene import Point, Status, ToolView

Array = NDArray[np.float64]
EYE = np.eye(3)
FULL_DEPTH_M = 0.1  # of a needle in tissue, for which its bending is stated


def tip_of(tool: Tool) -> Array:
    """Return the calibrated tip [m], shape (3,), in the tool's frame."""
    return np.array(tool.tip_mm) * 1e-3


def tip_covariance(tool: Tool) -> Array:
    """Return the covariance of the calibrated tip [m2], shape (3, 3), in the tool's frame."""
    if tool.tip_covariance_mm2 is not None:
        return np.array(tool.tip_covariance_mm2) * 1e-6
    return np.eye(3) * (tool.tip_sigma_mm * 1e-3) ** 2


def tool_view(name: str, tool: Tool, pose: Pose, status: Status, entry: Array | None) -> ToolView:
    """Place a tool's tip and judge it; a needle bends with the square of its depth behind the entry [m]."""
    tip = tip_of(tool)
    length = math.hypot(*tip.tolist())
    axis = tip / length if length else np.array([0.0, 0.0, -1.0])
    position = pose.transform.apply(tip)
    direction = pose.transform.rotation @ axis
    depth = max(0.0, float((position - entry) @ direction)) if entry is not None else 0.0
    bend_m = tool.bends_mm * 1e-3 * min(1.0, (depth / FULL_DEPTH_M) ** 2)
    across = EYE - direction[:, None] * direction
    turn = pose.transform.rotation
    own = turn @ tip_covariance(tool) @ turn.T + across * bend_m**2
    covariance = pose.point_covariance(tip) + own
    p95 = p95_from_covariance(covariance)
    if not p95 <= tool.tolerance_mm * 1e-3:  # NaN is over
        reason = f"error {p95 * 1e3:.1f} mm > {tool.tolerance_mm:.1f} mm"
        status = Status("degraded", reason, status.silence, status.horizon_ns, p95)
    else:
        status = Status(status.state, status.reason, status.silence, status.horizon_ns, p95)
    return ToolView(name, status, Point(position, covariance), direction, tool.role)

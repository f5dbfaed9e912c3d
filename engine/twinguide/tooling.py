"""One tracked tool at display time: where its tip is, how certain that is, how a needle bends and pushes tissue."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from twinguide.clock import SECOND
from twinguide.frames import Pose, p95_from_covariance
from twinguide.scenario import Tool
from twinguide.scene import Point, Status, ToolView

Array = NDArray[np.float64]
EYE = np.eye(3)
FULL_DEPTH_M = 0.1  # of a needle in tissue, for which its bending is stated
ADVANCE_NS = 2 * SECOND  # tissue slips back along a needle that rests within a second or two
FULL_ADVANCE_M = 0.02  # within that time, for which its push is stated
PUSH_REACH_M = 0.03  # from the tip: how far around it tissue is pushed along


@cache
def tip_of(tool: Tool) -> Array:
    """Return the calibrated tip [m], shape (3,), in the tool's frame: one array, read only."""
    return np.array(tool.tip_mm) * 1e-3


@cache
def tip_covariance(tool: Tool) -> Array:
    """Return the covariance of the calibrated tip [m2], shape (3, 3), in the tool's frame: one array, read only."""
    if tool.tip_covariance_mm2 is not None:
        return np.array(tool.tip_covariance_mm2) * 1e-6
    return np.eye(3) * (tool.tip_sigma_mm * 1e-3) ** 2


def tool_view(
    name: str, tool: Tool, pose: Pose, status: Status, entry: Array | None, advance_m: float = 0.0
) -> ToolView:
    """Place a tool's tip and judge it.

    A needle bends with the square of its depth behind the entry [m], shape (3,), and pushes tissue along with what it
    has advanced there of late, `advance_m` [m] (needle insertion displaces targets: Abolhassani 2007,
    doi:10.1016/j.medengphy.2006.07.003).
    """
    tip = tip_of(tool)
    length = math.hypot(*tip.tolist())
    axis = tip / length if length else np.array([0.0, 0.0, -1.0])
    position = pose.transform.apply(tip)
    direction = pose.transform.rotation @ axis
    depth = max(0.0, float((position - entry) @ direction)) if entry is not None else 0.0
    bend_m = tool.bends_mm * 1e-3 * min(1.0, (depth / FULL_DEPTH_M) ** 2)
    turn = pose.transform.rotation
    own = turn @ tip_covariance(tool) @ turn.T
    if bend_m:
        own += (EYE - direction[:, None] * direction) * bend_m**2
    covariance = pose.point_covariance(tip) + own
    p95 = p95_from_covariance(covariance)
    if not p95 <= tool.tolerance_mm * 1e-3:  # NaN is over
        reason = f"error {p95 * 1e3:.1f} mm > {tool.tolerance_mm:.1f} mm"
        status = Status("degraded", reason, status.silence, status.horizon_ns, p95)
    else:
        status = Status(status.state, status.reason, status.silence, status.horizon_ns, p95)
    push_m = tool.pushes_mm * 1e-3 * min(1.0, max(0.0, min(advance_m, depth)) / FULL_ADVANCE_M)
    return ToolView(name, status, Point(position, covariance), direction, tool.role, push_m)


def pushed(point: Point, needle: ToolView | None) -> Point:
    """Add what a needle may have pushed tissue at a point; the less, the farther from its tip."""
    if needle is None or needle.push_m == 0.0:
        return point
    way = point.position - needle.tip.position
    push = needle.push_m * math.exp(-0.5 * float(way @ way) / PUSH_REACH_M**2) * needle.direction
    return Point(point.position, point.covariance + push[:, None] * push)

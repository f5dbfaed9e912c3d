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
SLIP_NS = SECOND  # in which tissue that followed a needle slips back to a third
FULL_LEAD_M = 0.01  # of a tip at 10 mm/s, for which its push is stated
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


def tool_view(name: str, tool: Tool, pose: Pose, status: Status, entry: Array | None) -> ToolView:
    """Place a tool's tip and judge it; a needle bends with the square of its depth behind the entry [m]."""
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
    return ToolView(name, status, Point(position, covariance), direction, tool.role)


class Push:
    """How far tissue about a needle's tip may follow it (targets are displaced so: Abolhassani 2007).

    Tissue sticks to an advancing needle and slips back: it follows the tip's lead over a place that lags behind it by
    `SLIP_NS`. Survey of needle insertion: doi:10.1016/j.medengphy.2006.07.003.
    """

    def __init__(self, sigma_m: float) -> None:
        """Take 1 sigma [m] of how far tissue at the tip follows a needle that advances at 10 mm/s."""
        self._sigma_m = sigma_m
        self._tip = self._behind = self._direction = np.zeros(3)
        self._seen = False
        self._t_ns = 0

    def follow(self, needle: ToolView | None, entry: Array | None, t_ns: int) -> None:
        """Follow the needle at `t_ns` [ns], behind the entry [m], shape (3,), in reference; unseen, it stays."""
        first = not self._seen
        if needle is not None:
            self._tip, self._direction, self._seen = needle.tip.position, needle.direction, True
        if first or entry is None or (self._tip - entry) @ self._direction <= 0.0:  # not known to have been in tissue
            self._behind = self._tip
        lag = math.exp(-max(0, t_ns - self._t_ns) / SLIP_NS)
        self._behind = self._tip + lag * (self._behind - self._tip)
        self._t_ns = t_ns

    def on(self, point: Point) -> Point:
        """Add to a point what it may have been pushed: along the needle, the less, the farther from its tip."""
        lead = float((self._tip - self._behind) @ self._direction)
        if not lead > 0.0:
            return point
        way = point.position - self._tip
        near = math.exp(-0.5 * float(way @ way) / PUSH_REACH_M**2)
        push = self._sigma_m * min(1.0, lead / FULL_LEAD_M) * near * self._direction
        return Point(point.position, point.covariance + push[:, None] * push)

"""How a tool was swung and where the pointer touched, read from the samples of the bodies."""

from __future__ import annotations

from math import inf

import numpy as np

from twinguide.bodies import Bodies
from twinguide.frames import Array, Pose, Transform
from twinguide.registering import Touch
from twinguide.tooling import tip_covariance, tip_of


def read_swing(bodies: Bodies, tool: str, since_ns: int) -> tuple[int, Array]:
    """Return the time of a tool's newest sample [ns], and its poses since a time [ns], shape (n, 4, 4).

    They are expressed in tracker; a controller's in stage.
    """
    history = bodies.histories[tool]
    matrices, _ = history.samples(since_ns)
    return history.newest_ns, matrices.copy()


def read_touch(bodies: Bodies, since_ns: int, until_ns: int) -> Touch:
    """Return the pointer's tips [m] in reference during a touch [ns]; see `Touch`."""
    name = bodies.roles["pointer"]
    tool = bodies.tools[name]
    reference = bodies.pose(bodies.roles["reference"], until_ns)
    seen = bodies.histories[bodies.roles["reference"]].newest_ns >= since_ns  # else it may have moved unseen
    base = bodies.in_stage(reference) if tool.controller else reference  # the frame in which the pointer is seen
    matrices, covariances = bodies.histories[name].samples(since_ns)
    if base is None or not len(matrices):
        return Touch(np.zeros((0, 3)), np.eye(3), np.eye(3), 0.0)
    tip = tip_of(tool)
    inverse = base.inverse()
    turn = inverse.transform.rotation
    tips = inverse.transform.apply(matrices[:, :3, :3] @ tip + matrices[:, :3, 3])
    newest = Transform(base.transform.target, name, matrices[-1])
    sample = bodies.controller_covariance if tool.controller else covariances.mean(axis=0)
    noise = turn @ Pose(newest, until_ns, sample).point_covariance(tip) @ turn.T
    tool_turn = turn @ newest.rotation
    common = inverse.point_covariance(newest.apply(tip))
    if tool.controller:
        common = common + noise  # a controller's error is slow: no averaging reduces it
    shared = tool_turn @ _root(tip_covariance(tool))
    return Touch(tips, noise, common, _surrogate_motion(bodies, since_ns), seen, shared)


def _root(covariance: Array) -> Array:
    """Return a square root, shape (3, 3), of a covariance, shape (3, 3), that may be flat."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))


def _surrogate_motion(bodies: Bodies, since_ns: int) -> float:
    """Return how far the surrogate wandered [m]: its smoothed first third against its last; infinite if unseen."""
    name = bodies.roles.get("surrogate")
    if name is None:
        return 0.0
    matrices, _ = bodies.histories[name].samples(since_ns)
    positions = matrices[:, :3, 3]
    third = len(positions) // 3
    if not third:
        return inf
    return float(np.linalg.norm(positions[:third].mean(axis=0) - positions[-third:].mean(axis=0)))

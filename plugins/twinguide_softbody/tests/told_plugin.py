"""What drives a soft body, step by step from a file: a motion and a sensor for the tests of the hosted part."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from twinguide.hookspecs import Context, Motion, Part, Sensor, Topic, hookimpl
from twinguide.inbox import Inbox
from twinguide.messages import Array, Boundary, Displacement, Message


class Script(msgspec.Struct, frozen=True):
    """`path` of an .npz: `drive` [m], (steps, 3); `rest` [m], (points, 3); `seen` [m], (steps, points, 3)."""

    path: str


class Drive:
    def __init__(self, ctx: Context) -> None:
        with np.load(ctx.options.path) as script:
            self.drive = iter(script["drive"])

    def step(self, t_ns: int, inbox: Inbox) -> Iterable[Message]:
        mean, covariance = np.tile(next(self.drive), (2, 1)), np.tile(np.eye(3) * 0.0003**2, (2, 1, 1))
        yield Displacement(
            t_ns=t_ns, of="tumour", times_ns=(t_ns, t_ns + 90_000_000), mean=Array.of(mean),
            covariance=Array.of(covariance),
        )  # fmt: skip


class Touch:
    """Tells where each point is seen, as a boundary condition of its own; a point at infinity is taken back."""

    def __init__(self, ctx: Context) -> None:
        with np.load(ctx.options.path) as script:
            self.rest, self.seen = script["rest"], iter(script["seen"])

    def step(self, t_ns: int, inbox: Inbox) -> Iterable[Message]:
        for k, (rest, seen) in enumerate(zip(self.rest, next(self.seen), strict=True)):
            there = [] if np.isinf(seen).any() else [0]
            yield Boundary(
                t_ns=t_ns, of="liver", name=f"touch-{k}", rest=Array.of(rest[None][there]),
                mean=Array.of((rest + seen)[None][there]), covariance=Array.of(np.eye(3)[None][there] * 0.0005**2),
            )  # fmt: skip


@hookimpl
def parts() -> list[Part]:
    return [
        Sensor("touch", make="told_plugin:Touch", rate_hz=60, publishes={"boundary": Topic(Boundary)}, options=Script),
        Motion("drive", make="told_plugin:Drive", rate_hz=60, publishes={"displacement": Topic(Displacement)},
               options=Script),
    ]  # fmt: skip

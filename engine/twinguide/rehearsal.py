"""Rehearse: a controller is the needle, each pull of its trigger begins or ends an attempt, and each is measured.

The grip's frame is the needle's: OpenXR's grip points forward along -Z, as the needle's tip does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from twinguide.bodies import Bodies
from twinguide.clock import SECOND
from twinguide.frames import Transform
from twinguide.headset import Hand, HandName
from twinguide.messages import Attempt, Finding
from twinguide.scenario import Tool
from twinguide.scene import ToolView, TwinView
from twinguide.wording import text
from twinguide.workflow import START_S
from twinguide.xr.scripted import HeadSway

Array = NDArray[np.float64]
PULLED, RELEASED = 0.7, 0.3  # of the trigger's way, with hysteresis
LYING = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])  # LPS to stage: on the back, head away
AIM_M = 0.005  # per axis, of a trainee's first attempt
TOLD = 3  # newest attempts that the panel tells
ATTEMPT_S = (0.2, 0.6, 2.0, 5.5, 5.9, 7.0)  # of a trainee: wait, pull, to the entry, to the target, pull, back
TABLE_M = np.array([0.0, 1.0, -0.4])  # where the target lies in stage, within reach of a standing person


def laid_down(target: Array) -> Transform:
    """Return `stage_from_reference` of a patient lying before the wearer, target [m], shape (3,), in image."""
    return Transform.of("stage", "reference", LYING, TABLE_M - LYING @ target)


def onlooker() -> HeadSway:
    """Return the simulated head of a person who stands before the patient laid down."""
    return HeadSway(eye=TABLE_M + np.array([0.0, 0.45, 0.35]), field=TABLE_M)


def needle_of(tools: Mapping[str, Tool]) -> str:
    """Return the name of the needle among a run's tools: `checking.check` has seen to it that there is one."""
    return next(name for name, tool in tools.items() if tool.role == "needle")


class Rehearsal:
    """Follow one hand as one tool, and keep the table of attempts."""

    def __init__(self, tool: str, hand: HandName = "right") -> None:
        self._tool = tool
        self._hand: HandName = hand
        self._pulled = False
        self._begun_ns: int | None = None
        self._path_m = 0.0
        self._last: Array | None = None
        self._closest: dict[str, float] = {}
        self._latest: tuple[TwinView, ToolView] | None = None
        self.attempts: list[Attempt] = []

    @property
    def rows(self) -> tuple[str, ...]:
        """What the wearer reads of the attempts: what the trigger does, and how the newest went."""
        asked = text("attempt_begins" if self._begun_ns is None else "attempt_ends", number=len(self.attempts) + 1)
        newest = self.attempts[: -TOLD - 1 : -1]
        return asked, *(
            text("attempt", number=a.number, value_mm=a.tip_error_mm, value_deg=a.angle_deg, seconds=a.seconds)
            for a in newest
        )

    def follow(self, hands: Mapping[HandName, Hand], bodies: Bodies, t_ns: int, *, begun: bool) -> Attempt | None:
        """Let the hand hold the tool; return the attempt that its trigger ended, where the rehearsal has `begun`."""
        hand = hands[self._hand]
        if hand.pose_grip is not None:
            bodies.hold(self._tool, Transform("stage", self._tool, hand.pose_grip.matrix), t_ns)
        else:
            bodies.release(self._tool, t_ns)
        was, self._pulled = self._pulled, hand.trigger > (RELEASED if self._pulled else PULLED)
        if not self._pulled or was or not begun:
            return None
        return self._end(t_ns) if self._begun_ns is not None else self._begin(t_ns)

    def watch(self, view: TwinView, findings: Iterable[Finding]) -> None:
        """Take one frame of a running attempt."""
        needle = view.tools.get(self._tool)
        if needle is None or self._begun_ns is None:
            return
        if self._last is not None:
            self._path_m += float(np.linalg.norm(needle.tip.position - self._last))
        self._last, self._latest = needle.tip.position, (view, needle)
        for f in findings:
            if f.name == "distance":
                self._closest[f.of] = min(f.value, self._closest.get(f.of, float("inf")))

    def _begin(self, t_ns: int) -> None:
        self._begun_ns, self._path_m, self._last, self._latest = t_ns, 0.0, None, None
        self._closest = {}

    def _end(self, t_ns: int) -> Attempt | None:
        begun, self._begun_ns = self._begun_ns, None
        if begun is None or self._latest is None or self._latest[0].target is None:
            return None
        view, needle = self._latest
        assert view.target is not None
        planned = view.target.position - view.entry if view.entry is not None else needle.direction
        cosine = float(needle.direction @ planned / np.linalg.norm(planned))
        attempt = Attempt(
            t_ns=t_ns,
            number=len(self.attempts) + 1,
            seconds=(t_ns - begun) * 1e-9,
            tip_error_mm=float(np.linalg.norm(needle.tip.position - view.target.position)) * 1e3,
            angle_deg=float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))),
            path_mm=self._path_m * 1e3,
            closest=dict(self._closest),
        )
        self.attempts.append(attempt)
        return attempt


def trainee(
    stage_from_image: Transform, entry: Array, target: Array, tip: Array, *, seed: int, attempts: int
) -> list[tuple[int, Hand]]:
    """Return the keyframes of a simulated trainee's right hand, whose aim gets better from attempt to attempt.

    `entry`, `target` [m], shape (3,), in image; `tip` [m], shape (3,), in the needle's frame.
    """
    rng = np.random.default_rng(seed)
    a, b = stage_from_image.apply(entry), stage_from_image.apply(target)
    path = (b - a) / np.linalg.norm(b - a)
    side = np.cross(path, (0.0, 1.0, 0.0) if abs(path[1]) < 0.9 else (1.0, 0.0, 0.0))
    side /= np.linalg.norm(side)
    rotation = np.column_stack([side, np.cross(-path, side), -path])
    keys: list[tuple[int, Hand]] = []
    for k in range(attempts):
        missed = rng.normal(0.0, AIM_M / (1 + k), 3)
        places = [a - 0.08 * path, a - 0.08 * path, a - 0.01 * path, b + missed, b + missed, a - 0.08 * path]
        triggers = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]
        for second, place, trigger in zip(ATTEMPT_S, places, triggers, strict=True):
            grip = Transform.of("stage", "grip_right", rotation, place - rotation @ tip)
            t_ns = round((START_S + k * ATTEMPT_S[-1] + second) * SECOND)
            keys.append((t_ns, Hand(pose_grip=grip, trigger=trigger, active=True)))
    return keys

"""Rehearse: a controller is the needle, each pull of its trigger begins and ends an attempt, and each is measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from twinguide.frames import Transform
from twinguide.messages import Attempt, Finding
from twinguide.scene import ToolView, TwinView
from twinguide.twin import Twin
from twinguide.xr.base import Hand, HandName

PULLED, RELEASED = 0.7, 0.3  # of the trigger's way, with hysteresis
NEEDLE_FROM_GRIP = np.diag([1.0, 1.0, 1.0, 1.0])  # the grip's -Z points forward, as the needle's tip does


class Rehearsal:
    """Follow one hand as one tool, and keep the table of attempts."""

    def __init__(self, tool: str, hand: HandName = "right") -> None:
        self._tool, self._hand = tool, hand
        self._pulled = False
        self._begun_ns: int | None = None
        self._path_m = 0.0
        self._last: np.ndarray | None = None
        self._closest: dict[str, float] = {}
        self._latest: tuple[TwinView, ToolView] | None = None
        self.attempts: list[Attempt] = []

    def follow(self, hands: Mapping[HandName, Hand], twin: Twin, t_ns: int) -> Attempt | None:
        """Let the hand hold the tool; return the attempt that its trigger has just ended."""
        hand = hands[self._hand]
        if hand.pose_grip is not None:
            twin.hold(self._tool, Transform("stage", self._tool, hand.pose_grip.matrix @ NEEDLE_FROM_GRIP), t_ns)
        was, self._pulled = self._pulled, hand.trigger > (RELEASED if self._pulled else PULLED)
        if not self._pulled or was:
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

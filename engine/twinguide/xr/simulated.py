"""A headset without a runtime: scripted or recorded head and hands, any clock, a framebuffer for each eye."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from twinguide.clock import MS, Clock
from twinguide.frames import Transform
from twinguide.headset import (
    EYE_FRAMES,
    HANDS,
    BlendMode,
    FrameCounts,
    FrameTiming,
    Hand,
    HandName,
    HeadsetEvent,
    HeadsetInfo,
    Meanwhile,
    View,
)
from twinguide.xr.pacing import Pacer
from twinguide.xr.scripted import HandSource, HeadSource, HeadSway

if TYPE_CHECKING:
    import moderngl


@dataclass(frozen=True, slots=True)
class SpaceChange:
    """A re-localisation, announced as runtimes do: from `t_ns` on every pose is `moved @ pose`.

    `moved` is `stage_from_stage`, the new stage from the old one.
    """

    t_ns: int
    moved: Transform
    reason: str = "re-localised"


@dataclass(frozen=True, slots=True)
class RuntimeLoss:
    """The runtime is away from `t_ns` until `t_back_ns`; frames go on at the same pace, nothing is shown."""

    t_ns: int
    t_back_ns: int


@dataclass(frozen=True, slots=True)
class SimulatedOptions:
    """What the simulated headset is: a wired one of the present, by default.

    `fov` is the left eye's (left, right, up, down) [rad], left and down negative; the right eye's is its mirror image.
    `render=False` is for benchmarks: no GL is touched, `should_render` is False, `eyes` yields nothing.
    """

    size: tuple[int, int] = (800, 800)  # pixels of one eye
    rate_hz: float = 90.0
    display_latency_ns: int = 22 * MS  # from the start of a frame to the light
    ipd: float = 0.063  # [m]
    fov: tuple[float, float, float, float] = (-0.785, 0.785, 0.785, -0.785)
    blend_mode: BlendMode = "alpha"
    render: bool = True
    space_changes: tuple[SpaceChange, ...] = ()
    losses: tuple[RuntimeLoss, ...] = ()


class HeadsetSimulated:
    """Answer as a headset does, from a script; see `Headset` for the methods. Haptic pulses are kept in `pulses`."""

    def __init__(
        self,
        clock: Clock,
        head: HeadSource | None = None,
        hands: HandSource | None = None,
        options: SimulatedOptions | None = None,
    ) -> None:
        self._clock, self._head, self._hands = clock, head or HeadSway(), hands
        self.options = options or SimulatedOptions()
        half = self.options.ipd / 2.0
        self._headset_from_eye = [
            Transform.of("headset", name, translation=np.array([x, 0.0, 0.0]))
            for name, x in zip(EYE_FRAMES, (-half, half), strict=True)
        ]
        self._pacer = Pacer(clock, self.options.rate_hz, self.options.display_latency_ns)
        self._t_display_ns = 0
        self.begun_ns = 0  # when the first frame was to be seen
        self._polled_ns: int | None = None
        self._views: tuple[View, View] | None = None
        self._newest: tuple[int, Transform] | None = None
        self._ctx: moderngl.Context | None = None
        self._framebuffers: list[moderngl.Framebuffer] = []
        self.pulses: list[tuple[int, HandName, float, float]] = []  # (time [ns], hand, seconds [s], amplitude)

    @property
    def info(self) -> HeadsetInfo:
        """What this headset is."""
        o = self.options
        return HeadsetInfo("simulated", "none", o.blend_mode, o.size, period_ns=self._pacer.period_ns)

    @property
    def ctx(self) -> moderngl.Context | None:
        """The GL context, or None without rendering."""
        return self._ctx

    @property
    def counts(self) -> FrameCounts:
        """How the frames were paced so far."""
        return self._pacer.counts

    def start(self) -> None:
        """Make the GL context and both framebuffers; raise RenderError where GL is missing."""
        self._t_display_ns = self._clock.now_ns()
        if not self.options.render:
            return
        # Here and not above, so that a benchmark without pictures runs where GL is not installed.
        from twinguide.render.context import create_context, eye_framebuffers

        ctx = self._ctx = create_context()
        self._framebuffers = eye_framebuffers(ctx, self.options.size)

    def poll(self) -> list[HeadsetEvent]:
        """Return the session's state once, then every space change and loss whose time has come."""
        now = self._clock.now_ns()
        since, self._polled_ns = self._polled_ns, now
        events = [HeadsetEvent("session_state", now, state="focused")] if since is None else []
        first = now - 1 if since is None else since
        for change in self.options.space_changes:
            if first < change.t_ns <= now:
                events.append(HeadsetEvent("space_changed", change.t_ns, change.reason))
        for loss in self.options.losses:
            if first < loss.t_ns <= now:
                events.append(HeadsetEvent("lost", loss.t_ns, "scripted loss of the runtime"))
            if first < loss.t_back_ns <= now:
                events.append(HeadsetEvent("recovered", loss.t_back_ns))
        return sorted(events, key=lambda event: event.t_ns)

    def _lost(self, t_ns: int) -> bool:
        return any(loss.t_ns <= t_ns < loss.t_back_ns for loss in self.options.losses)

    def wait_frame(self, meanwhile: Meanwhile | None = None) -> FrameTiming:
        """Sleep to the next frame's start, or move the virtual clock there."""
        self.begun_ns = self.begun_ns or self._clock.now_ns() + self.options.display_latency_ns
        timing = self._pacer.wait(meanwhile=meanwhile)
        self._t_display_ns = timing.t_display_ns
        if self._lost(timing.t_wake_ns) or not self.options.render:
            return replace(timing, should_render=False)
        return timing

    def head(self, t_ns: int) -> Transform | None:
        """Return `stage_from_headset` at `t_ns` [ns]; None while the runtime is lost."""
        return None if self._lost(self._clock.now_ns()) else self._reported(t_ns)

    def _reported(self, t_ns: int) -> Transform:
        """Return what the head's source says of a time; the loop asks twice a frame, for the head and for its eyes."""
        if self._newest is None or self._newest[0] != t_ns:
            self._newest = (t_ns, self._moved(self._head.reported(t_ns), t_ns))
        return self._newest[1]

    def _moved(self, pose: Transform, t_ns: int) -> Transform:
        for change in self.options.space_changes:
            if change.t_ns <= t_ns:
                pose = change.moved @ pose
        return pose

    def views(self) -> tuple[View, View]:
        """Return both eyes at the frame's display time; the last known ones while the runtime is lost."""
        head = self.head(self._t_display_ns)
        if head is None and self._views is not None:
            return self._views
        head = head or self._reported(self._t_display_ns)
        left, right, up, down = self.options.fov
        self._views = self._view(head, 0, (left, right, up, down)), self._view(head, 1, (-right, -left, up, down))
        return self._views

    def _view(self, head: Transform, eye: int, fov: tuple[float, float, float, float]) -> View:
        return View(head @ self._headset_from_eye[eye], fov, *self.options.size)

    def hands(self) -> Mapping[HandName, Hand]:
        """Return both scripted hands at the frame's display time."""
        if self._hands is None or self._lost(self._clock.now_ns()):
            return {name: Hand() for name in HANDS}
        told = self._hands(self._t_display_ns)
        return {name: told.get(name, Hand()) for name in HANDS}

    def eyes(self) -> Iterator[tuple[int, moderngl.Framebuffer]]:
        """Yield each eye's framebuffer; its picture may be read until the next frame."""
        if not self._lost(self._clock.now_ns()):
            yield from enumerate(self._framebuffers)

    def end_frame(self) -> int:
        """Show the frame as soon as a display could, and return when that is [ns]."""
        return self._pacer.end()

    def haptic(self, hand: HandName, seconds: float, amplitude: float) -> None:
        """Keep the pulse, for tests and for the record."""
        self.pulses.append((self._clock.now_ns(), hand, seconds, amplitude))

    def stop(self) -> None:
        """Release the framebuffers and the GL context."""
        if self._ctx is None:
            return
        from twinguide.render.context import release_eyes

        release_eyes(self._framebuffers)
        self._ctx.release()
        self._ctx = None

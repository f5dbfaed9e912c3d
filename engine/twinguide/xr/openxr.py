"""A headset through OpenXR. A runtime that goes away or hangs costs pictures, never the loop.

No call of OpenXR is made in the loop's thread. The loop draws into textures of its own; a `Caller` waits for the
runtime, copies them into its images and ends the frame, beside the loop and in another GL context.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from twinguide.clock import SECOND, Clock, ClockVirtual
from twinguide.errors import HeadsetError
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
from twinguide.render.context import create_context, eye_framebuffers, release_eyes
from twinguide.xr.openxr_connection import GONE, Connection
from twinguide.xr.openxr_graphics import GL_SRGB8_ALPHA8, ContextEgl
from twinguide.xr.openxr_session import Frame, SessionOpenXR
from twinguide.xr.pacing import Pacer, Punctuality

if TYPE_CHECKING:
    import moderngl

EXIT_S = 2.0  # for which a runtime may take to end its session in order


@dataclass(frozen=True, slots=True)
class OpenXROptions:
    """How the headset is opened, and how long a silent runtime is waited for."""

    application: str = "TwinGuide"
    hang_after_s: float = 0.5  # a runtime that does not answer for so long, and for 5 frames, counts as lost
    retry_s: float = 0.25
    rate_hz: float = 90.0  # the pace until the runtime has told its own


class HeadsetOpenXR:
    """Answer as a headset does, through an OpenXR runtime; see `Headset` for the methods.

    Of `blend_preference` the first mode that the runtime offers is taken.
    """

    def __init__(
        self,
        clock: Clock,
        blend_preference: Sequence[BlendMode] = ("alpha", "additive", "opaque"),
        options: OpenXROptions | None = None,
    ) -> None:
        if isinstance(clock, ClockVirtual):
            raise HeadsetError("a real clock", "a virtual one", "the OpenXR headset", "Use --headset simulated.")
        self._clock, self._blend_preference = clock, blend_preference
        self.options = options or OpenXROptions()
        self._info = HeadsetInfo("", "", "opaque", (0, 0), period_ns=round(SECOND / self.options.rate_hz))
        self._counts = FrameCounts()
        self._events: deque[HeadsetEvent] = deque()
        self._ctx: moderngl.Context | None = None
        self._egl: ContextEgl | None = None  # for the runtime
        self._eyes: list[moderngl.Framebuffer] = []
        self._drawn = 0  # eyes of this frame
        self._connection: Connection | None = None
        self._frame: Frame | None = None
        self._timing = FrameTiming(0, self._info.period_ns, False)
        self._pacer: Pacer | None = None  # paces while there is no runtime, or it does not want frames yet
        self._punctuality = Punctuality()
        self._views: tuple[View, View] | None = None
        self._blind: Exception | None = None  # why the runtime no longer tells where the head is

    @property
    def info(self) -> HeadsetInfo:
        """What was found and chosen; complete after `start`."""
        return self._info

    @property
    def ctx(self) -> moderngl.Context | None:
        """The GL context, from `start` to `stop`; it outlives every runtime."""
        return self._ctx

    @property
    def counts(self) -> FrameCounts:
        """How the frames were paced so far."""
        return self._counts

    def start(self) -> None:
        """Make the GL context, connect to the runtime and make a session; raise HeadsetError with the remedy."""
        o = self.options
        self._frame = self._pacer = self._blind = None
        self._timing = FrameTiming(0, self._info.period_ns, False)
        self._ctx = create_context()
        try:
            self._egl = ContextEgl()
            self._connection = Connection(
                self._egl,
                self._clock,
                application=o.application,
                blend_preference=self._blend_preference,
                hang_s=o.hang_after_s,
                report=self._events.append,
            )
            self._describe(self._connection.open())
        except BaseException:
            self._end()
            raise

    def _describe(self, session: SessionOpenXR) -> None:
        """Take what a session tells of itself, and make pictures of its size."""
        runtime, before = session.runtime, self._info
        size, mode = runtime.view_size, session.blend_mode
        self._info = HeadsetInfo(runtime.system_name, runtime.name, mode, size, session.space, before.period_ns)
        if self._ctx is not None and (not self._eyes or size != before.view_size):
            release_eyes(self._eyes)
            self._eyes = eye_framebuffers(self._ctx, size, GL_SRGB8_ALPHA8)

    def _lose(self, error: Exception) -> None:
        self._frame = self._pacer = self._blind = None
        self._started().lose(error)

    @property
    def _session(self) -> SessionOpenXR | None:
        """The session, where there is one and it answers."""
        connection = self._connection
        return None if connection is None or connection.lost else connection.session

    # ---- one frame -------------------------------------------------------------------------------------------------

    def poll(self) -> list[HeadsetEvent]:
        """Return what changed since the last call."""
        return [self._events.popleft() for _ in range(len(self._events))]

    def wait_frame(self, meanwhile: Meanwhile | None = None) -> FrameTiming:
        """Wait until the runtime wants the next frame, or for the nominal period where it wants none."""
        connection = self._started()
        self._frame, self._drawn = None, 0
        if self._blind is not None:
            self._lose(self._blind)
        if connection.lost:
            connection.recover(self.options.retry_s)
        try:
            self._frame = self._next_frame(connection, meanwhile)
        except GONE as error:
            self._lose(error)
        self._timing = self._pace(meanwhile) if self._frame is None else self._told(self._frame)
        self._counts = replace(
            self._counts, frames=self._counts.frames + 1, skipped=self._counts.skipped + self._timing.skipped
        )
        return self._timing

    def _started(self) -> Connection:
        if self._connection is None:
            raise HeadsetError("a started headset", "one that was not started", "HeadsetOpenXR", "Call start() first.")
        return self._connection

    def _next_frame(self, connection: Connection, meanwhile: Meanwhile | None) -> Frame | None:
        """Return the session's next frame; None where it wants none."""
        session = self._session
        frame, connection.late_frame = connection.late_frame, None
        if session is None or frame is not None:
            return frame
        due_ns = self._timing.t_wake_ns + self._timing.period_ns
        return connection.ask(session.turn, meanwhile, due_ns)

    def _pace(self, meanwhile: Meanwhile | None) -> FrameTiming:
        if self._pacer is None:
            self._pacer = Pacer(self._clock, SECOND / self._info.period_ns, 2 * self._info.period_ns)
        return self._pacer.wait(False, meanwhile)

    def _told(self, frame: Frame) -> FrameTiming:
        """Return the timing of a frame of the runtime, and tell the recovery with the first after one."""
        connection = self._started()
        if connection.restarted and connection.session is not None:
            connection.restarted = False
            self._describe(connection.session)
            self._events.append(HeadsetEvent("recovered", frame.woken_ns, f"{self._info.runtime} was opened anew"))
            # A new runtime may place its spaces elsewhere, and nobody can tell from here.
            self._events.append(HeadsetEvent("space_changed", frame.woken_ns, "the runtime was opened anew"))
        connection.pace_ns = max(frame.period_ns, frame.woken_ns - (self._timing.t_wake_ns or frame.woken_ns))
        if frame.period_ns != self._info.period_ns:
            self._info = replace(self._info, period_ns=frame.period_ns)
        since_last = frame.t_display_ns - self._timing.t_display_ns
        skipped = 0 if self._pacer or not self._timing.t_display_ns else round(since_last / frame.period_ns) - 1
        skipped = max(0, skipped)
        self._pacer = None
        self._punctuality.replaced(skipped * frame.period_ns)
        sigma_ns = self._punctuality.sigma_ns
        return FrameTiming(
            frame.t_display_ns, frame.period_ns, frame.should_render, frame.woken_ns, 0, skipped, sigma_ns
        )

    def head(self, t_ns: int) -> Transform | None:
        """Return `stage_from_headset` at `t_ns` [ns]; None while it is not tracked or the runtime is lost."""
        session = self._session
        if session is None or self._blind is not None:
            return None
        if self._frame is not None and t_ns == self._frame.t_display_ns:
            return self._frame.head
        try:
            return self._started().look(lambda: session.locate_head(t_ns))
        except GONE as error:
            self._blind = error  # told when the next frame is waited for: one may be waited for just now
            return None

    def views(self) -> tuple[View, View]:
        """Return both eyes at the frame's display time; the last known ones while untracked or lost."""
        if self._frame is not None:
            self._views = self._frame.views or self._views
        return self._views or _unknown_views(self._info.view_size)

    def hands(self) -> Mapping[HandName, Hand]:
        """Return both controllers at the frame's display time."""
        return {name: Hand() for name in HANDS} if self._frame is None else self._frame.hands

    def eyes(self) -> Iterator[tuple[int, moderngl.Framebuffer]]:
        """Yield each eye with the picture to draw into; it may be read until the next frame."""
        for eye, framebuffer in enumerate(self._eyes if self._frame else ()):
            yield eye, framebuffer
            self._drawn = eye + 1

    def end_frame(self) -> int:
        """Hand the frame to the runtime; return when it is seen [ns], periods later than promised where it is late."""
        frame, self._frame = self._frame, None
        if frame is not None:
            self._hand_over(frame)
        now, timing = self._clock.now_ns(), self._timing
        if now > timing.t_wake_ns + timing.period_ns:
            self._counts = replace(self._counts, late=self._counts.late + 1)
        late_ns = max(0, -((timing.t_display_ns - now) // timing.period_ns)) * timing.period_ns
        self._punctuality.ended(late_ns)
        return timing.t_display_ns + late_ns

    def _hand_over(self, frame: Frame) -> None:
        session, egl = self._session, self._egl
        if session is None or egl is None:
            return
        eyes = self._eyes if self._drawn == len(self._eyes) and frame.located else ()
        pictures, drawn = [eye.color_attachments[0].glo for eye in eyes], egl.fence() if eyes else 0
        try:
            self._started().ask(lambda: session.end_frame(frame, pictures, drawn))
        except GONE as error:
            self._lose(error)

    def haptic(self, hand: HandName, seconds: float, amplitude: float) -> None:
        """Shake a controller; not waited for, and nothing where it cannot."""
        session = self._session
        if session is not None:
            self._started().tell(lambda: session.pulse(hand, seconds, amplitude))

    # ---- the end ---------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Leave the session in order, as far as the runtime answers, and release the GL context."""
        connection, session = self._connection, self._session
        if connection is None:
            return
        if session is not None and session.running:
            try:
                connection.ask(session.request_exit)
            except GONE as error:
                self._lose(error)
            deadline = self._clock.now_ns() + round(EXIT_S * SECOND)
            while self._session is session and session.state != "exiting" and self._clock.now_ns() < deadline:
                self.wait_frame()
                self.end_frame()
        self._end()

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
        release_eyes(self._eyes)
        if self._ctx is not None:
            self._ctx.release()
        self._ctx = self._egl = self._connection = None


def _unknown_views(size: tuple[int, int]) -> tuple[View, View]:
    """Return two eyes at the stage's origin, to draw a panel with before the first pose is known."""
    left, right = (
        View(Transform.of("stage", name, None, np.array([x, 0.0, 0.0])), (-0.8, 0.8, 0.8, -0.8), *size)
        for name, x in zip(EYE_FRAMES, (-0.0315, 0.0315), strict=True)
    )
    return left, right

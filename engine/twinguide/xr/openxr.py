"""A headset through OpenXR. A runtime that goes away or hangs costs pictures, never the loop.

Every call that may block for long is made by a `Caller`, with a deadline. What OpenXR ties to the GL context (begin,
images, end) runs in the loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import moderngl
import numpy as np

from twinguide.clock import SECOND, Clock, ClockVirtual
from twinguide.errors import HeadsetError, RuntimeLost
from twinguide.frames import Transform
from twinguide.render.context import create_context
from twinguide.xr.base import (
    EYE_FRAMES,
    HANDS,
    BlendMode,
    FrameCounts,
    FrameTiming,
    Hand,
    HandName,
    HeadsetEvent,
    HeadsetInfo,
    View,
)
from twinguide.xr.deadline import Caller
from twinguide.xr.openxr_graphics import ContextEgl
from twinguide.xr.openxr_runtime import Runtime, headset_error, xr
from twinguide.xr.openxr_session import Frame, Session
from twinguide.xr.pacing import Pacer

T = TypeVar("T")
OPEN_S = 10.0  # a runtime that has not answered by then at the start will not
EXIT_S = 2.0
GONE = (xr.XrException, RuntimeLost)


@dataclass(frozen=True, slots=True)
class OpenXROptions:
    """How the headset is opened, and how long a silent runtime is waited for."""

    application: str = "TwinGuide"
    blend_modes: tuple[BlendMode, ...] = ("alpha", "additive", "opaque")  # the first that the runtime offers
    hang_after_s: float = 0.5  # a runtime that does not answer for so long counts as lost
    retry_s: float = 0.25
    rate_hz: float = 90.0  # the pace until the runtime has told its own


class HeadsetOpenXR:
    """Answer as a headset does, through an OpenXR runtime; see `Headset` for the methods."""

    def __init__(self, clock: Clock, options: OpenXROptions | None = None) -> None:
        if isinstance(clock, ClockVirtual):
            raise HeadsetError("a real clock", "a virtual one", "the OpenXR headset", "Use --headset simulated.")
        self._clock, self.options = clock, options or OpenXROptions()
        self._info = HeadsetInfo("", "", "opaque", (0, 0), period_ns=round(SECOND / self.options.rate_hz))
        self._counts = FrameCounts()
        self._events: list[HeadsetEvent] = []
        self._caller = Caller("openxr")
        self._egl: ContextEgl | None = None
        self._session: Session | None = None
        self._frame: Frame | None = None
        self._timing = FrameTiming(0, self._info.period_ns, False)
        self._pacer: Pacer | None = None  # paces while there is no runtime, or it does not want frames yet
        self._lost = False
        self._restarted = False
        self._hung: Future[Any] | None = None
        self._answered: Frame | list[HeadsetEvent] | None = None
        self._opening: Future[Runtime] | None = None
        self._retry_ns = 0
        self._views: tuple[View, View] | None = None

    @property
    def info(self) -> HeadsetInfo:
        """What was found and chosen; complete after `start`."""
        return self._info

    @property
    def ctx(self) -> moderngl.Context | None:
        """The GL context, from `start` to `stop`; it outlives every runtime."""
        return self._egl.ctx if self._egl else None

    @property
    def counts(self) -> FrameCounts:
        """How the frames were paced so far."""
        return self._counts

    # ---- opening, losing and finding again -------------------------------------------------------------------------

    def start(self) -> None:
        """Make the GL context, connect to the runtime and make a session; raise HeadsetError with the remedy."""
        self._egl = ContextEgl(create_context())
        try:
            opening = self._caller.submit(lambda: Runtime.open(self.options.application))
            self._session = self._open_session(opening.result(OPEN_S))
        except TimeoutError as error:
            self._release_context()
            raise HeadsetError(
                "an answer of the OpenXR runtime", f"none in {OPEN_S:.0f} s", next_step="Restart the runtime."
            ) from error
        except HeadsetError:
            self._release_context()
            raise

    def _open_session(self, runtime: Runtime) -> Session:
        assert self._egl is not None
        try:
            session = Session(runtime, self._egl, self._clock, self.options.blend_modes)
        except (xr.XrException, HeadsetError) as error:
            runtime.close()
            raise headset_error("an OpenXR session on this GL context", error) from error
        self._info = HeadsetInfo(
            runtime.system_name,
            runtime.name,
            session.blend_mode,
            runtime.view_size,
            session.space,
            self._info.period_ns,
        )
        return session

    def _lose(self, error: Exception) -> None:
        """Tell the loss; give the session back unless the runtime still holds a call."""
        if not self._lost:
            reason = f"{type(error).__name__}: {error}"
            self._events.append(HeadsetEvent("lost", self._clock.now_ns(), reason))
        self._lost, self._frame, self._pacer = True, None, None
        if self._hung is None:
            self._close_session()

    def _close_session(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _recover(self) -> None:
        """Take up what hung, or try to open the runtime again; never blocks for long."""
        if self._hung is not None:
            if not self._hung.done():
                return
            hung, self._hung = self._hung, None
            if hung.exception() is None:
                answer = hung.result()
                self._answered = answer if isinstance(answer, Frame | list) else None
                self._lost = False
                self._events.append(HeadsetEvent("recovered", self._clock.now_ns(), "the runtime answers again"))
                return
            self._close_session()
        if self._opening is None and self._clock.now_ns() >= self._retry_ns:
            self._opening = self._caller.submit(lambda: Runtime.open(self.options.application))
        if self._opening is not None and self._opening.done():
            opening, self._opening = self._opening, None
            try:
                self._session = self._open_session(opening.result())
                self._lost, self._restarted = False, True
            except HeadsetError:  # not back yet
                self._retry_ns = self._clock.now_ns() + round(self.options.retry_s * SECOND)

    def _ask(self, call: Callable[[], T]) -> T:
        """Return what a call answers; raise RuntimeLost where it does not within the deadline."""
        future = self._caller.submit(call)
        try:
            return future.result(self.options.hang_after_s)
        except TimeoutError as error:
            self._hung = future
            raise RuntimeLost("an answer of the runtime", f"none in {self.options.hang_after_s:g} s") from error

    # ---- one frame -------------------------------------------------------------------------------------------------

    def poll(self) -> list[HeadsetEvent]:
        """Return what changed since the last call."""
        events, self._events = self._events, []
        return events

    def wait_frame(self) -> FrameTiming:
        """Wait until the runtime wants the next frame, or for the nominal period where it wants none."""
        self._frame = None
        if self._lost:
            self._recover()
        if not self._lost:
            try:
                self._frame = self._next_frame()
            except GONE as error:
                self._lose(error)
        self._timing = self._pace() if self._frame is None else self._told(self._frame)
        self._counts = replace(
            self._counts, frames=self._counts.frames + 1, skipped=self._counts.skipped + self._timing.skipped
        )
        return self._timing

    def _next_frame(self) -> Frame | None:
        """Follow the session's events, then return its next frame, begun; None where it wants none."""
        session = self._session
        while session is not None:
            answer = self._answered or self._ask(lambda: _turn(session))
            self._answered = None
            if isinstance(answer, Frame):
                session.begin_frame(answer)
                return answer
            for event in answer:
                self._events.append(event)
                session.follow(event)
                if event.state == "exiting":
                    self._events.append(HeadsetEvent("stopping", event.t_ns, "the runtime ended the session"))
            if not session.running:
                return None
        return None

    def _pace(self) -> FrameTiming:
        if self._pacer is None:
            self._pacer = Pacer(self._clock, SECOND / self._info.period_ns, 2 * self._info.period_ns)
        return self._pacer.wait(should_render=False)

    def _told(self, frame: Frame) -> FrameTiming:
        """Return the timing of a frame of the runtime, and tell the recovery with the first after one."""
        if self._restarted:
            self._restarted = False
            self._events.append(HeadsetEvent("recovered", frame.woken_ns, f"{self._info.runtime} was opened anew"))
            # A new runtime may place its spaces elsewhere, and nobody can tell from here.
            self._events.append(HeadsetEvent("space_changed", frame.woken_ns, "the runtime was opened anew"))
        if frame.period_ns != self._info.period_ns:
            self._info = replace(self._info, period_ns=frame.period_ns)
        since_last = frame.t_display_ns - self._timing.t_display_ns
        skipped = 0 if self._pacer or not self._timing.t_display_ns else round(since_last / frame.period_ns) - 1
        self._pacer = None
        return FrameTiming(frame.t_display_ns, frame.period_ns, frame.should_render, frame.woken_ns, 0, max(0, skipped))

    def head(self, t_ns: int) -> Transform | None:
        """Return `stage_from_headset` at `t_ns` [ns]; None while it is not tracked or the runtime is lost."""
        session = self._session
        if session is None or self._frame is None:
            return None
        if t_ns == self._frame.t_display_ns:
            return self._frame.head
        try:
            return self._ask(lambda: session.locate_head(t_ns))
        except GONE as error:
            self._lose(error)
            return None

    def views(self) -> tuple[View, View]:
        """Return both eyes at the frame's display time; the last known ones while untracked or lost."""
        if self._session is not None and self._frame is not None:
            self._views = self._session.views() or self._views
        return self._views or _unknown_views(self._info.view_size)

    def hands(self) -> Mapping[HandName, Hand]:
        """Return both controllers at the frame's display time."""
        return {name: Hand() for name in HANDS} if self._frame is None else self._frame.hands

    def eyes(self) -> Iterator[tuple[int, moderngl.Framebuffer]]:
        """Yield each eye with the image to draw into."""
        if self._session is None or self._frame is None:
            return
        try:
            yield from self._session.eyes()
        except GONE as error:
            self._lose(error)

    def end_frame(self) -> None:
        """Hand the frame to the runtime."""
        frame, self._frame = self._frame, None
        if self._session is not None and frame is not None:
            try:
                self._session.end_frame(frame)
            except GONE as error:
                self._lose(error)
        if self._clock.now_ns() > self._timing.t_wake_ns + self._timing.period_ns:
            self._counts = replace(self._counts, late=self._counts.late + 1)

    def haptic(self, hand: HandName, seconds: float, amplitude: float) -> None:
        """Shake a controller; not waited for, and nothing where it cannot."""
        session = self._session
        if session is not None and not self._lost:
            self._caller.submit(lambda: session.pulse(hand, seconds, amplitude))

    # ---- the end ---------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Leave the session in order, as far as the runtime answers, and release the GL context."""
        if self._session is not None and not self._lost and self._session.running:
            try:
                self._session.request_exit()
            except GONE as error:
                self._lose(error)
            deadline = self._clock.now_ns() + round(EXIT_S * SECOND)
            while not self._lost and self._session.state != "exiting" and self._clock.now_ns() < deadline:
                self.wait_frame()
                self.end_frame()
        if self._hung is None:
            self._close_session()
            self._release_context()
        self._session = None
        self._caller.close()

    def _release_context(self) -> None:
        if self._egl is not None:
            self._egl.ctx.release()
            self._egl = None


def _turn(session: Session) -> list[HeadsetEvent] | Frame:
    """Return the events that wait, or else the session's next frame, or no event where it wants no frames."""
    events = session.poll()
    return events if events or not session.running else session.wait()


def _unknown_views(size: tuple[int, int]) -> tuple[View, View]:
    """Return two eyes at the stage's origin, to draw a panel with before the first pose is known."""
    left, right = (
        View(Transform.of("stage", name, None, np.array([x, 0.0, 0.0])), (-0.8, 0.8, 0.8, -0.8), *size)
        for name, x in zip(EYE_FRAMES, (-0.0315, 0.0315), strict=True)
    )
    return left, right

"""The life of a runtime: opened, lost, hung, found again. The loop and the GL context that it draws in outlive it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from twinguide.clock import SECOND, Clock
from twinguide.errors import HeadsetError, RuntimeLost
from twinguide.headset import BlendMode, HeadsetEvent, Meanwhile
from twinguide.xr.deadline import Caller
from twinguide.xr.openxr_graphics import ContextEgl
from twinguide.xr.openxr_runtime import Runtime, headset_error, xr
from twinguide.xr.openxr_session import Frame, SessionOpenXR

T = TypeVar("T")
OPEN_S = 10.0  # a runtime that has not answered by then at the start will not
HANG_FRAMES = 5  # of a slow runtime: shorter silence is its pace
GONE = (xr.XrException, RuntimeLost)


class Connection:
    """One runtime after the other, each with a session of its own, called by threads that alone may hang.

    `session` is None while there is none. `ask`, `look` and `tell` make its calls. Where one raises one of `GONE`, that
    is reported with `lose`; `recover`, called once a frame, then brings the runtime back. A call that hangs is waited
    for: the loader lets a process have but one runtime at a time. `report` takes what the headset is to tell.
    """

    def __init__(
        self,
        egl: ContextEgl,
        clock: Clock,
        *,
        application: str,
        blend_preference: Sequence[BlendMode],
        hang_s: float,
        report: Callable[[HeadsetEvent], None],
    ) -> None:
        self._egl, self._clock, self._application, self._hang_s = egl, clock, application, hang_s
        self._blend_preference, self._report = blend_preference, report
        self.pace_ns = 0  # from the last frame to this one: a slow runtime, or machine, is not a hung one
        self._caller, self._looker = Caller("openxr"), Caller("openxr-look")  # for a pose is asked for during a wait
        self._hung: list[Future[Any]] = []  # calls that have not answered by their deadline
        self._opening: Future[SessionOpenXR] | None = None
        self._retry_ns = 0
        self.session: SessionOpenXR | None = None
        self.lost = False
        self.restarted = False  # a session was opened anew and has not shown a frame yet
        self.late_frame: Frame | None = None  # what was answered after the deadline

    def open(self) -> SessionOpenXR:
        """Connect and make a session; raise HeadsetError, with the remedy, where it cannot."""
        self._opening = self._caller.submit(self._open)
        try:
            self.session = self._opening.result(OPEN_S)
        except TimeoutError as error:
            raise HeadsetError(
                "an answer of the OpenXR runtime", f"none in {OPEN_S:.0f} s", next_step="Restart the runtime."
            ) from error
        self._opening = None
        return self.session

    def _open(self) -> SessionOpenXR:
        self._egl.enter()
        runtime = Runtime.open(self._application)
        try:
            return SessionOpenXR(runtime, self._egl, self._clock, self._blend_preference, self._report)
        except (xr.XrException, HeadsetError) as error:
            runtime.close()
            raise headset_error("an OpenXR session on this GL context", error) from error

    def ask(self, call: Callable[[], T], meanwhile: Meanwhile | None = None, due_ns: int = 0) -> T:
        """Return what a call answers; raise RuntimeLost where it misses its deadline.

        Until the answer is due [ns] or has come, `meanwhile` is done.
        """
        self._caller.hush()
        future, since_ns = self._caller.submit(call), self._clock.now_ns()
        if meanwhile:
            meanwhile(min(due_ns, since_ns + round(self._deadline_s * SECOND)), self._caller.bell)
        return self._answer(future, since_ns)

    def look(self, call: Callable[[], T]) -> T:
        """Return what a call answers that may be made while another is waited for; raise RuntimeLost as `ask`."""
        return self._answer(self._looker.submit(call), self._clock.now_ns())

    def tell(self, call: Callable[[], object]) -> None:
        """Make a call whose end nobody waits for."""
        self._caller.submit(call)

    @property
    def _deadline_s(self) -> float:
        return max(self._hang_s, HANG_FRAMES * min(self.pace_ns / SECOND, self._hang_s))

    def _answer(self, future: Future[T], since_ns: int) -> T:
        try:
            return future.result(max(0.0, self._deadline_s - (self._clock.now_ns() - since_ns) / SECOND))
        except TimeoutError as error:
            self._hung.append(future)
            raise RuntimeLost(
                "an answer of the runtime", f"none in {self._deadline_s:g} s",
                next_step="Pictures go on once it answers; if it never does, end this run, start runtime and run anew.",
            ) from error  # fmt: skip

    def lose(self, error: Exception) -> None:
        """Take note of the loss; give the session back unless the runtime still holds a call."""
        if not self.lost:
            self._report(HeadsetEvent("lost", self._clock.now_ns(), f"{type(error).__name__}: {error}"))
        self.lost = True
        if not self._hung:
            self._close_session()

    def recover(self, retry_s: float) -> None:
        """Take up what hung, or open the runtime again, at most every `retry_s` [s]."""
        if self._hung:
            if not all(hung.done() for hung in self._hung):
                return
            hung, self._hung = self._hung, []
            if self.session is not None and not any(call.exception() for call in hung):
                answers = (call.result() for call in hung)
                self.late_frame = next((answer for answer in answers if isinstance(answer, Frame)), None)
                self.lost = False
                self._report(HeadsetEvent("recovered", self._clock.now_ns(), "the runtime answers again"))
                return
            self._close_session()
        elif self._opening is None and self._clock.now_ns() >= self._retry_ns:
            self._opening = self._caller.submit(self._open)
        elif self._opening is not None and self._opening.done():
            opening, self._opening = self._opening, None
            try:
                self.session = opening.result()
                self.lost, self.restarted = False, True
            except HeadsetError:  # not back yet
                self._retry_ns = self._clock.now_ns() + round(retry_s * SECOND)

    def _close_session(self) -> None:
        """Close the session once all that was told before is done: nothing is destroyed beneath a call."""
        session, self.session = self.session, None
        if session is not None:
            with contextlib.suppress(RuntimeLost):
                self.ask(session.close)

    def close(self) -> None:
        """End the session; a call that hangs keeps what it needs, none of it the loop's, until it answers."""
        hung = tuple(self._hung)
        with contextlib.suppress(RuntimeLost):
            self.ask(lambda: self._end(hung))
        self._caller.close()
        self._looker.close()

    def _end(self, hung: Sequence[Future[Any]]) -> None:
        """Give back what is open, and what opened after it was given up, in the thread that made it."""
        wait(hung)  # the looker's; this thread's are done
        session = self.session
        if self._opening is not None and self._opening.exception() is None:
            session = self._opening.result()
        if session is not None:
            session.close()
        self._egl.leave()

"""The life of a runtime: opened, lost, hung, found again. The GL context and the caller's loop outlive it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from twinguide.clock import SECOND, Clock
from twinguide.errors import HeadsetError, RuntimeLost
from twinguide.xr.base import BlendMode, HeadsetEvent, Meanwhile
from twinguide.xr.deadline import Caller
from twinguide.xr.openxr_graphics import ContextEgl
from twinguide.xr.openxr_runtime import Runtime, headset_error, xr
from twinguide.xr.openxr_session import Session

T = TypeVar("T")
OPEN_S = 10.0  # a runtime that has not answered by then at the start will not
HANG_PERIODS = 5
GONE = (xr.XrException, RuntimeLost)


class Connection:
    """One runtime after the other, each with a session on the same GL context.

    `session` is None while there is none. `ask` and `look` make calls that may hang. A call of OpenXR outside of these
    that raises one of `GONE` is reported with `lose`; `recover`, called once a frame, then brings the runtime back.
    """

    def __init__(
        self, egl: ContextEgl, clock: Clock, application: str, blend_preference: Sequence[BlendMode], hang_s: float
    ) -> None:
        self._egl, self._clock, self._application, self._hang_s = egl, clock, application, hang_s
        self._blend_preference = blend_preference
        self.period_ns = 0  # as the runtime last told it: a slow one is not a hung one
        self._caller, self._looker = Caller("openxr"), Caller("openxr-look")  # for a pose is asked for during a wait
        self._hung: list[Future[Any]] = []  # calls that have not answered by their deadline
        self._opening: Future[Runtime] | None = None
        self._retry_ns = 0
        self.session: Session | None = None
        self.lost = False
        self.restarted = False  # a session was opened anew and has not shown a frame yet
        self.late_answer: Any = None  # what a call answered after its deadline

    def open(self) -> Session:
        """Connect and make a session; raise HeadsetError, with the remedy, where it cannot."""
        opening = self._caller.submit(lambda: Runtime.open(self._application))
        try:
            self.session = self._make_session(opening.result(OPEN_S))
        except TimeoutError as error:
            raise HeadsetError(
                "an answer of the OpenXR runtime", f"none in {OPEN_S:.0f} s", next_step="Restart the runtime."
            ) from error
        return self.session

    def _make_session(self, runtime: Runtime) -> Session:
        try:
            return Session(runtime, self._egl, self._clock, self._blend_preference)
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

    @property
    def _deadline_s(self) -> float:
        return max(self._hang_s, HANG_PERIODS * self.period_ns / SECOND)

    def _answer(self, future: Future[T], since_ns: int) -> T:
        try:
            return future.result(max(0.0, self._deadline_s - (self._clock.now_ns() - since_ns) / SECOND))
        except TimeoutError as error:
            self._hung.append(future)
            raise RuntimeLost("an answer of the runtime", f"none in {self._deadline_s:g} s") from error

    def tell(self, call: Callable[[], object]) -> None:
        """Make a call whose end nobody waits for."""
        if not self.lost:
            self._caller.submit(call)

    def lose(self, error: Exception) -> list[HeadsetEvent]:
        """Take note of the loss; give the session back unless the runtime still holds a call."""
        events: list[HeadsetEvent] = []
        if not self.lost:
            events.append(HeadsetEvent("lost", self._clock.now_ns(), f"{type(error).__name__}: {error}"))
        self.lost = True
        with contextlib.suppress(RuntimeLost):
            if not self._hung:
                self.ask(lambda: None)  # a pulse may still be under way: nothing is destroyed beneath it
        if not self._hung:
            self._close_session()
        return events

    def recover(self, retry_s: float) -> list[HeadsetEvent]:
        """Take up what hung, or open the runtime again, at most every `retry_s` [s]; return what was regained."""
        if self._hung:
            if not all(hung.done() for hung in self._hung):
                return []
            hung, self._hung = self._hung, []
            if not any(call.exception() for call in hung):
                self.late_answer, self.lost = hung[-1].result(), False  # the last asked for may be a frame
                return [HeadsetEvent("recovered", self._clock.now_ns(), "the runtime answers again")]
            self._close_session()
        if self._opening is None and self._clock.now_ns() >= self._retry_ns:
            self._opening = self._caller.submit(lambda: Runtime.open(self._application))
        if self._opening is not None and self._opening.done():
            opening, self._opening = self._opening, None
            try:
                self.session = self._make_session(opening.result())
                self.lost, self.restarted = False, True
            except HeadsetError:  # not back yet
                self._retry_ns = self._clock.now_ns() + round(retry_s * SECOND)
        return []

    def _close_session(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None

    def close(self) -> bool:
        """End the session; return False where the runtime still holds a call, and with it the GL context."""
        self._caller.close()
        self._looker.close()
        if self._hung:
            return False
        self._close_session()
        return True

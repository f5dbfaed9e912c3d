"""Call the parts that run inside the frame, one by one: a failing one is withdrawn, visibly, and the frame goes on."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable
from itertools import islice
from math import inf
from typing import Any, Generic, TypeVar

from twinguide.clock import MS, SECOND
from twinguide.scene import TwinView

T = TypeVar("T")
log = logging.getLogger(__name__)
RECENT = 0.05  # a frame's weight in the share of slow frames: some twenty of them count
OFTEN = 0.5  # of the recent frames over budget: a single one is more often another process's doing
HUNG_S = 5.0  # a call that takes longer is broken off; until then the picture stands still
LATE = 0.1
MOST = 256  # marks or findings of one part in a frame: more hide the field, and cost the frame


class BreakOff:
    """A context that raises TimeoutError in what takes longer than `seconds`, again and again.

    One for all calls of a process, for it has one alarm. Setting it costs some 50 us: it is set every so often, not in
    every frame, and comes after `seconds` and `LATE` of them more, at most. Signals are the main thread's; code that
    never returns to Python cannot be broken off. To be closed, for an alarm ends a process that no longer runs Python.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._since = inf  # [s], when the call in progress began
        self._set = -inf  # [s], when the alarm was
        self._others: Any = None  # handler and timer before that

    def __str__(self) -> str:
        return f"no answer within {self.seconds:g} s"

    def __enter__(self) -> None:
        self._since = now = time.monotonic()
        if now - self._set > LATE * self.seconds and threading.current_thread() is threading.main_thread():
            handler = signal.signal(signal.SIGALRM, self._alarm)
            timer = signal.setitimer(signal.ITIMER_REAL, (1.0 + LATE) * self.seconds, self.seconds)
            if self._set == -inf:
                self._others = handler, timer
            self._set = now

    def __exit__(self, *_: object) -> None:
        self._since = inf

    def _alarm(self, *_: object) -> None:
        if time.monotonic() - self._since >= self.seconds:
            raise TimeoutError(str(self))
        self.close()  # nothing is called any more

    def close(self) -> None:
        """Take the alarm back, and leave what others had set; the next call sets it again."""
        self._since = inf
        if self._set > -inf:
            self._set = -inf
            handler, timer = self._others
            signal.setitimer(signal.ITIMER_REAL, *timer)
            signal.signal(signal.SIGALRM, handler)


class Guarded(Generic[T]):
    """One part's frame call, with its time budget [ms] and what became of it."""

    def __init__(
        self,
        name: str,
        call: Callable[[TwinView], Iterable[T]],
        budget_ms: float,
        flaw: Callable[[T], str] = lambda item: "",
        tell: Callable[[str], None] = lambda reason: None,
        break_off: BreakOff | None = None,
    ) -> None:
        """Guard `call`; `flaw` checks each item, `tell` hears of the part's withdrawal, `break_off` ends what hangs."""
        self.name, self._call, self._budget_ms, self._flaw, self._tell = name, call, budget_ms, flaw, tell
        self._break_off = break_off or BreakOff(inf)
        self.withdrawn = ""  # why
        self._slow = 0.0  # share of the recent frames over budget

    @property
    def fault(self) -> str:
        """Why the part is slow, if it keeps exceeding its budget; empty otherwise, and once it is withdrawn."""
        slow = self._slow > OFTEN and not self.withdrawn
        return f"{self.name} takes longer than its {self._budget_ms:g} ms" if slow else ""

    def __call__(self, twin: TwinView) -> list[T]:
        """Return what the part says of a frame; nothing once it has failed."""
        if self.withdrawn:
            return []
        start = time.perf_counter_ns()
        try:
            with self._break_off:
                out = list(islice(self._call(twin), MOST + 1))
            flaws = [flaw for flaw in map(self._flaw, out) if flaw]
        except (Exception, SystemExit) as error:
            log.exception("part %s failed in the frame", self.name)
            return self._withdraw(f"{type(error).__name__}: {error}")
        took_ns = time.perf_counter_ns() - start
        if took_ns > self._break_off.seconds * SECOND:  # it kept the break-off to itself
            return self._withdraw(str(self._break_off))
        if len(out) > MOST:
            return self._withdraw(f"wanted at most {MOST} marks or findings in a frame, got more")
        if flaws:
            return self._withdraw(flaws[0])
        self._slow += RECENT * ((took_ns > self._budget_ms * MS) - self._slow)
        return out

    def _withdraw(self, reason: str) -> list[T]:
        self._break_off.close()  # this may have been the last part to be called
        self.withdrawn = reason
        self._tell(reason)
        return []

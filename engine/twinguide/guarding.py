"""Call the parts that run inside the frame, one by one: a failing one is withdrawn, visibly, and the frame goes on."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from itertools import islice
from typing import Generic, TypeVar

from twinguide.clock import MS, SECOND
from twinguide.scene import TwinView

T = TypeVar("T")
log = logging.getLogger(__name__)
RECENT = 0.05  # a frame's weight in the share of slow frames: some twenty of them count
OFTEN = 0.5  # of the recent frames over budget: a single one is more often another process's doing
HUNG_S = 5.0  # a call that takes longer is broken off; until then the picture stands still
MOST = 256  # marks or findings of one part in a frame: more hide the field, and cost the frame


class Guarded(Generic[T]):
    """One part's frame call, with its time budget [ms] and what became of it."""

    def __init__(
        self,
        name: str,
        call: Callable[[TwinView], Iterable[T]],
        budget_ms: float,
        flaw: Callable[[T], str] = lambda item: "",
        tell: Callable[[str], None] = lambda reason: None,
        hung_s: float = HUNG_S,
    ) -> None:
        """Guard `call`, broken off after `hung_s`; `flaw` checks each item; `tell` hears of the part's withdrawal."""
        self.name, self._call, self._budget_ms, self._flaw, self._tell = name, call, budget_ms, flaw, tell
        self._hung_s = hung_s
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
            with _broken_off(self._hung_s):
                out = list(islice(self._call(twin), MOST + 1))
            flaws = [flaw for flaw in map(self._flaw, out) if flaw]
        except (Exception, SystemExit) as error:
            log.exception("part %s failed in the frame", self.name)
            return self._withdraw(f"{type(error).__name__}: {error}")
        took_ns = time.perf_counter_ns() - start
        if took_ns > self._hung_s * SECOND:  # it kept the break-off to itself
            return self._withdraw(f"no answer within {self._hung_s:g} s")
        if len(out) > MOST:
            return self._withdraw(f"wanted at most {MOST} marks or findings in a frame, got more")
        if flaws:
            return self._withdraw(flaws[0])
        self._slow += RECENT * ((took_ns > self._budget_ms * MS) - self._slow)
        return out

    def _withdraw(self, reason: str) -> list[T]:
        self.withdrawn = reason
        self._tell(reason)
        return []


@contextmanager
def _broken_off(seconds: float) -> Generator[None]:
    """Raise TimeoutError in the block, again and again, from `seconds` on; only in the main thread, which has signals.

    Code that never returns to Python cannot be broken off.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    armed = True

    def break_off(*_: object) -> None:
        if armed:
            raise TimeoutError(f"no answer within {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, break_off)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        armed = False  # first: an alarm may come at any point of this
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)

"""Call the parts that run inside the frame, one by one: a failing one is withdrawn, visibly, and the frame goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from twinguide.clock import MS
from twinguide.scene import TwinView

T = TypeVar("T")
log = logging.getLogger(__name__)
RECENT = 0.05  # a frame's weight in the share of slow frames: some twenty of them count
OFTEN = 0.5  # of the recent frames over budget: a single one is more often another process's doing


class Guarded(Generic[T]):
    """One part's frame call, with its time budget [ms] and what became of it."""

    def __init__(
        self,
        name: str,
        call: Callable[[TwinView], Iterable[T]],
        budget_ms: float,
        flaw: Callable[[T], str] = lambda said: "",
        tell: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """Guard `call`; `flaw` tells what is wrong with one thing that it said; `tell` hears of its withdrawal."""
        self.name, self._call, self._budget_ms, self._flaw, self._tell = name, call, budget_ms, flaw, tell
        self.withdrawn = ""  # why
        self._slow = 0.0  # share of the recent frames over budget

    @property
    def fault(self) -> str:
        """That it keeps taking too long; nothing where it does not, or is withdrawn."""
        slow = self._slow > OFTEN and not self.withdrawn
        return f"{self.name} takes longer than its {self._budget_ms:g} ms" if slow else ""

    def __call__(self, twin: TwinView) -> list[T]:
        """Return what the part says of a frame; nothing once it has failed."""
        if self.withdrawn:
            return []
        start = time.perf_counter_ns()
        try:
            out = list(self._call(twin))
            flaws = [flaw for flaw in map(self._flaw, out) if flaw]
        except Exception as error:
            log.exception("part %s failed in the frame", self.name)
            return self._withdraw(f"{type(error).__name__}: {error}")
        if flaws:
            return self._withdraw(flaws[0])
        over = time.perf_counter_ns() - start > self._budget_ms * MS
        self._slow += RECENT * (over - self._slow)
        return out

    def _withdraw(self, reason: str) -> list[T]:
        self.withdrawn = reason
        self._tell(reason)
        return []

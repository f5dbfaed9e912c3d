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


class Guarded(Generic[T]):
    """One part's frame call, with its time budget [ms] and what became of it."""

    def __init__(
        self,
        name: str,
        call: Callable[[TwinView], Iterable[T]],
        budget_ms: float,
        flaw: Callable[[T], str] = lambda said: "",
    ) -> None:
        """Guard `call`; `flaw` tells what is wrong with one thing that it said, or nothing."""
        self.name, self._call, self._budget_ns, self._flaw = name, call, round(budget_ms * MS), flaw
        self.fault = ""  # why it was withdrawn
        self.over_budget = 0  # frames

    def __call__(self, twin: TwinView) -> list[T]:
        """Return what the part says of a frame; nothing once it has failed."""
        if self.fault:
            return []
        start = time.perf_counter_ns()
        try:
            out = list(self._call(twin))
            flaws = [flaw for flaw in map(self._flaw, out) if flaw]
        except Exception as error:
            self.fault = f"{self.name} withdrawn: {type(error).__name__}: {error}"
            log.exception("part %s failed in the frame and was withdrawn", self.name)
            return []
        if flaws:
            self.fault = f"{self.name} withdrawn: {flaws[0]}"
            log.error("%s", self.fault)
            return []
        self.over_budget += time.perf_counter_ns() - start > self._budget_ns
        return out

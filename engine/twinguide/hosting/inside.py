"""Run parts in the loop's own process, each in a guard: an error ends the part, never the loop."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from twinguide.bus.catalogue import Header
from twinguide.hookspecs import Part, PartLike
from twinguide.messages import Inbox, Message

BUDGET_US = 1000  # what a step inside may take of a frame


class Mailbox:
    """Messages that wait for one reader in this process."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Header, Message]] = []

    def put(self, header: Header, message: Message) -> None:
        """Add a message."""
        self._waiting.append((header, message))

    def take(self, before: int | None = None) -> list[tuple[Header, Message]]:
        """Take what was published before a round, by (round, source, seq); None: all, as it came."""
        if before is None:
            taken, self._waiting = self._waiting, []
            return taken
        taken = sorted((w for w in self._waiting if w[0].round < before), key=_order)
        self._waiting = [w for w in self._waiting if w[0].round >= before]
        return taken


def _order(waiting: tuple[Header, Message]) -> tuple[int, str, int]:
    header = waiting[0]
    return header.round, header.source, header.seq


@dataclass
class StepTimes:
    """What the steps of a part inside cost [us of wall time]."""

    steps: int = 0
    last_us: int = 0
    max_us: int = 0
    over_budget: int = 0  # steps of more than BUDGET_US


class InsidePart:
    """One part in the loop's process: its object, its mailbox, what it cost, and why it has ended."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.mailbox = Mailbox()
        self.times = StepTimes()
        self.fault = ""
        self._made: PartLike | None = None

    def make(self, make: Callable[[], PartLike]) -> None:
        """Make the part's object; an error is kept in `fault`."""
        try:
            self._made = make()
        except Exception as error:
            self._fail(error)

    def step(self, t_ns: int, before: int | None) -> Iterable[Message]:
        """Step with what waits in the mailbox; nothing, and `fault` set, where the part raises."""
        if self._made is None or self.fault:
            return ()
        inbox = Inbox((header.source, message) for header, message in self.mailbox.take(before))
        begun = time.perf_counter_ns()
        try:
            messages = list(self._made.step(t_ns, inbox))
        except Exception as error:
            self._fail(error)
            return ()
        took = (time.perf_counter_ns() - begun) // 1000
        times = self.times
        times.steps, times.last_us, times.max_us = times.steps + 1, took, max(times.max_us, took)
        times.over_budget += took > BUDGET_US
        return messages

    def close(self) -> None:
        """Let the part give back what it holds, where it has a `close`."""
        close = getattr(self._made, "close", None)
        if close is not None:
            try:
                close()
            except Exception as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.fault = f"{type(error).__name__}: {error}"
        logging.getLogger("twinguide.hosting").error("part %s:\n%s", self.part.name, traceback.format_exc())

"""Run parts in the loop's own process, each in a guard: an error ends the part, never the loop."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable

from twinguide.hookspecs import Part, PartLike
from twinguide.hosting.mailbox import Mailbox
from twinguide.messages import Message


class InsidePart:
    """One part in the loop's process: its object, its mailbox, and why it has ended."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.mailbox = Mailbox()
        self.fault = ""
        self._instance: PartLike | None = None

    def make(self, make: Callable[[], PartLike]) -> None:
        """Make the part's object; an error is kept in `fault`."""
        try:
            self._instance = make()
        except (Exception, SystemExit) as error:
            self._fail(error)

    def step(self, t_ns: int, before: int | None) -> Iterable[Message]:
        """Step with what waits in the mailbox; nothing, and `fault` set, where the part raises."""
        if self._instance is None or self.fault:
            return ()
        inbox = self.mailbox.inbox(before)
        try:
            return list(self._instance.step(t_ns, inbox))
        except (Exception, SystemExit) as error:
            self._fail(error)
            return ()

    def close(self) -> None:
        """Let the part give back what it holds, where it has a `close`."""
        close = getattr(self._instance, "close", None)
        if close is not None:
            try:
                close()
            except (Exception, SystemExit) as error:
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self.fault = f"{type(error).__name__}: {error}"
        logging.getLogger("twinguide.hosting").error("part %s:\n%s", self.part.name, traceback.format_exc())

"""Messages that wait for a reader's next step, alike in the loop's process and in a part's own."""

from __future__ import annotations

from twinguide.bus.catalogue import Header
from twinguide.inbox import Inbox
from twinguide.messages import Message


class Mailbox:
    """Messages that wait for one reader."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Header, Message]] = []

    def put(self, header: Header, message: Message) -> None:
        """Add a message."""
        self._waiting.append((header, message))

    def take(self, before: int | None = None) -> list[tuple[Header, Message]]:
        """Take what was published before a round, by (round, source, seq); None: all, as it came."""
        waiting = self._waiting
        if before is None:
            self._waiting = []
            return waiting
        self._waiting = [one for one in waiting if one[0].round >= before]
        return sorted((one for one in waiting if one[0].round < before), key=_order)

    def inbox(self, before: int | None) -> Inbox:
        """Take the same, as a part's step is given it."""
        return Inbox((header.source, message) for header, message in self.take(before))


def _order(waiting: tuple[Header, Message]) -> tuple[int, str, int]:
    header = waiting[0]
    return header.round, header.source, header.seq

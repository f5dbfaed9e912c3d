"""What a part is given at each of its steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from twinguide.messages import Message

M = TypeVar("M", bound=Message)


class Inbox:
    """What arrived since a part's last step, in order."""

    def __init__(self, messages: Iterable[tuple[str, Message]] = ()) -> None:
        self._messages = list(messages)

    def __iter__(self) -> Iterator[Message]:
        return (message for _, message in self._messages)

    def __len__(self) -> int:
        return len(self._messages)

    def of(self, kind: type[M]) -> list[M]:
        """Return all messages of a type, oldest first."""
        return [message for _, message in self._messages if isinstance(message, kind)]

    def last(self, kind: type[M]) -> M | None:
        """Return the newest message of a type, or None."""
        return next((message for _, message in reversed(self._messages) if isinstance(message, kind)), None)

    def items(self) -> list[tuple[str, Message]]:
        """Return (source part, message) pairs, oldest first."""
        return list(self._messages)

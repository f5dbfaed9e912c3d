"""What a person does by hand: controllers or keys move the procedure on.

A controller's `a`, or the space bar, does what the display waits for; `b`, or `r`, rejects the registration; squeezing,
or `o`, puts the overlay off and on; `v` verifies the landmarks anew, `t` learns the breathing anew; `menu`, or `q`,
ends the run.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Generator, Iterator, Mapping
from typing import Any

from twinguide.headset import Hand, HandName
from twinguide.messages import Command, WorkflowState

BUTTONS = {"a": "next", "b": "reject", "squeeze": "overlay", "menu": "stop"}
KEYS = {" ": "next", "\n": "next", "r": "reject", "v": "verify", "t": "train", "o": "overlay", "q": "stop"}


class Person:
    """Turn what was pressed since the last frame into commands."""

    def __init__(self, keyboard: int | None = None) -> None:
        """Listen to the controllers, and to a terminal's file descriptor where one is given."""
        self._keyboard, self._count = keyboard, 0
        self._held: set[tuple[HandName, str]] = set()

    def commands(self, hands: Mapping[HandName, Hand], state: WorkflowState) -> Iterator[Command]:
        """Yield the commands since the last call."""
        for wish in (*self._pressed(hands), *self._typed()):
            command = self._command(wish, state)
            if command is not None:
                yield command

    def _pressed(self, hands: Mapping[HandName, Hand]) -> list[str]:
        """Return the wishes of buttons that went down."""
        now: set[tuple[HandName, str]] = {(name, button) for name, hand in hands.items() for button in hand.buttons}
        down, self._held = now - self._held, now
        return [BUTTONS[button] for _, button in sorted(down) if button in BUTTONS]

    def _typed(self) -> list[str]:
        if self._keyboard is None or not select.select([self._keyboard], [], [], 0)[0]:
            return []
        typed = os.read(self._keyboard, 64).decode(errors="ignore")
        return [KEYS[key] for key in typed if key in KEYS]

    def _command(self, wish: str, state: WorkflowState) -> Command | None:
        self._count += 1
        identity = f"person-{self._count}"
        match wish:
            case "stop" | "reject" | "verify" | "train" | "overlay":
                return Command(id=identity, kind=wish)
            case _:
                pass
        if state.waits_for.startswith("touch "):
            return Command(id=identity, kind="touch", argument=state.waits_for.removeprefix("touch "))
        if state.waits_for.startswith("swing "):
            return Command(id=identity, kind="swing", argument=state.waits_for.removeprefix("swing "))
        if state.waits_for == "start":
            return Command(id=identity, kind="start")
        return Command(id=identity, kind="confirm") if state.waits_for == "confirm" else None


@contextlib.contextmanager
def keyboard() -> Generator[int | None]:
    """Give the terminal's file descriptor, key by key; None where standard input is no terminal."""
    if not sys.stdin.isatty():
        yield None
        return
    descriptor = sys.stdin.fileno()
    before: list[Any] = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    finally:
        with contextlib.suppress(termios.error):  # the terminal has been closed
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

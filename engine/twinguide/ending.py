"""Signals that end a run: one interrupts it, more wait while it is written, and once it is, the next is the last."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Iterable
from functools import partial
from types import FrameType

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the first is Ctrl-C
REPEATS = 5  # of them that are ignored while the session is written


def heed() -> list[signal.Signals]:
    """Let them interrupt the run, and return them: all but those that the process ignores, as nohup has SIGHUP.

    What an earlier run in this process left counts as the default.
    """
    heeded = [one for one in ENDS if _is_free(signal.getsignal(one))]
    for one in heeded:
        signal.signal(one, partial(_interrupt, heeded))
    return heeded


def _is_free(handler: object) -> bool:
    ours = handler is _exit or (isinstance(handler, partial) and handler.func is _interrupt)
    return ours or handler in (signal.SIG_DFL, signal.default_int_handler)


def _interrupt(heeded: list[signal.Signals], _number: int, _frame: FrameType | None, ignored: int = 0) -> None:
    """End the run, once: people press Ctrl-C again, `timeout` sends its signal twice, a closed terminal several.

    Who goes on regardless, `REPEATS` times, ends what is still being written.
    """
    for one in heeded:
        signal.signal(one, partial(_interrupt, heeded, ignored=(ignored or REPEATS + 1) - 1))
    if not ignored:
        raise KeyboardInterrupt


def ignore(heeded: Iterable[signal.Signals]) -> None:
    """Ignore them: all is written, and what is left to do is short."""
    for one in heeded:
        signal.signal(one, signal.SIG_IGN)


def leave(heeded: list[signal.Signals]) -> None:
    """Let the next one end the process at once, as one that went well: a part's thread may hang and keep it.

    Once no thread is left they are ignored: Python restores the defaults some 0.3 s before its process is gone.
    """
    for one in heeded:
        signal.signal(one, _exit)
    atexit.register(ignore, heeded)


def _exit(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)

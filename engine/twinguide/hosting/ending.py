"""How a process ended, and the last line that it logged."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

FINAL_EXIT = 78  # the process says itself that starting it again would not help
TAIL = 4096  # bytes of a log that may hold the last line
REASON_LIMIT = 300  # characters


@dataclass(frozen=True)
class Ending:
    """How a process ended: `signal` says by which, else `code` is its exit status."""

    code: int
    signal: str = ""


def ending_of(pidfd: int) -> Ending | None:
    """Reap an ended child; None where it is not this process's child yet."""
    try:
        status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    if status is None:
        return None
    if status.si_code == os.CLD_EXITED:
        return Ending(status.si_status)
    return Ending(-status.si_status, f"killed by {signal.Signals(status.si_status).name}")


def last_line(log: Path, start: int = 0) -> str:
    """Return the last line that is not empty of what was logged since `start` [bytes]; empty where there is none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start if start <= size else 0, size - TAIL))  # it may have been emptied since
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:REASON_LIMIT] for line in reversed(lines) if line.strip()), "")

"""What a calibration hands over: the result, lines to print, and how to draw it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from twinguide.calibrating.result import Result


@dataclass(frozen=True)
class Outcome:
    """A calibration that was accepted."""

    result: Result
    rows: tuple[tuple[str, str], ...]  # what to print, name and value
    draw: Callable[[Path], None]  # writes a PNG


def shortened(notes: tuple[str, ...], most: int = 12) -> tuple[str, ...]:
    """Return the notes once each, and how many were not listed."""
    unique = tuple(dict.fromkeys(notes))
    return unique if len(unique) <= most else (*unique[:most], f"... and {len(unique) - most} more")

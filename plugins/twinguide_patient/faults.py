"""What goes wrong, as pure functions of the run's time [s]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .options import Fault

Array = NDArray[np.float64]
COUGH_S = 0.8
JUMP_S = 0.25
JUMP_CYCLES = 0.25


def cough(faults: Sequence[Fault], t_s: float) -> float:
    """Return the cough's displacement of the target [m]: two pulses, sine squared."""
    total = 0.0
    for fault in faults:
        x = t_s - fault.at_s
        if fault.kind == "cough" and 0.0 < x < COUGH_S:
            total += _metres(fault, 12.0) * float(np.sin(2 * np.pi * x / COUGH_S) ** 2)
    return total


def phase_jump(faults: Sequence[Fault], t_s: float) -> tuple[float, float]:
    """Return (cycles of breathing leapt over, lag added to the target [rad])."""
    shares = [(smooth((t_s - f.at_s) / JUMP_S), f.lag_rad) for f in faults if f.kind == "phase_jump"]
    return JUMP_CYCLES * sum(s for s, _ in shares), sum(s * lag for s, lag in shares)


def bump(faults: Sequence[Fault], t_s: float) -> Array:
    """Return how far the reference body has moved on the patient [m], shape (3,), in reference."""
    direction = np.array([0.6, -0.48, 0.64])
    bumped = sum(_metres(f, 7.0) * smooth((t_s - f.at_s) / 0.05) for f in faults if f.kind == "bump")
    return direction * (bumped + crept(faults, t_s))


def crept(faults: Sequence[Fault], t_s: float) -> float:
    """Return how far of that it has crept [m], at a steady pace."""
    creeps = [f for f in faults if f.kind == "creep" and t_s > f.at_s]
    return sum(_metres(f, 4.0) * min((t_s - f.at_s) / max(f.seconds, 1e-3), 1.0) for f in creeps)


def camera(faults: Sequence[Fault], t_s: float) -> Array:
    """Return how far all that the tracker sees has moved for it [m], shape (3,), in tracker: somebody moved it."""
    direction = np.array([0.36, -0.48, 0.8])
    return direction * sum(_metres(f, 30.0) * smooth((t_s - f.at_s) / 0.3) for f in faults if f.kind == "camera")


def headset_jump(faults: Sequence[Fault], t_s: float) -> Array:
    """Return how far the headset's own tracking is off [m], shape (3,), in stage."""
    direction = np.array([0.8, 0.0, -0.6])
    return direction * sum(
        _metres(f, 20.0) for f in faults if f.kind == "headset_jump" and f.at_s <= t_s < f.at_s + f.seconds
    )


def occluded(faults: Sequence[Fault], t_s: float) -> set[str]:
    """Return the tools that something hides from the camera."""
    hiding = [f for f in faults if f.kind == "occlude" and f.at_s <= t_s < f.at_s + f.seconds]
    return {name for fault in hiding for name in fault.of}


def smooth(x: float) -> float:
    """Return a step from 0 to 1 over 0 <= x <= 1 without jerk at its ends (Flash & Hogan 1985, eq. 3)."""
    x = min(max(x, 0.0), 1.0)
    return x**3 * (10.0 - 15.0 * x + 6.0 * x * x)


def _metres(fault: Fault, default_mm: float) -> float:
    return (default_mm if fault.size_mm is None else fault.size_mm) * 1e-3

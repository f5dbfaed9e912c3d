"""The frame ledger: where each frame's time went, which were missed, and what latency cost.

The loop writes into rings made beforehand, so that telemetry costs no growing containers, which the collector would
traverse in a frame.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Spread = dict[str, float]  # p50, p99, max


class Ledger:
    """Keeps how long each of the named stages took in the newest `capacity` frames."""

    def __init__(self, stages: Sequence[str], capacity: int = 65536) -> None:
        self.stages = tuple(stages)
        self._columns = {stage: column for column, stage in enumerate(stages)}
        self.frames = 0
        self._stage_ns = np.zeros((capacity, len(self.stages)), dtype=np.int64)
        self._row = 0
        self._lap_ns = time.perf_counter_ns()

    def lap(self, stage: str) -> None:
        """Note that a stage of this frame ends now; it began at the end of the one before."""
        now_ns = time.perf_counter_ns()
        self.note(stage, now_ns - self._lap_ns)
        self._lap_ns = now_ns

    def note(self, stage: str, ns: int) -> None:
        """Note that a stage of this frame took `ns` [ns]."""
        self._stage_ns[self._row, self._columns[stage]] = ns

    def end_frame(self) -> None:
        """Close the frame."""
        self.frames += 1
        self._row = self.frames % len(self._stage_ns)
        self._stage_ns[self._row] = 0

    def newest_us(self) -> dict[str, int]:
        """Return the stages of the last closed frame [us]."""
        row = self._stage_ns[self._row - 1]
        return {stage: int(row[column]) // 1000 for stage, column in self._columns.items()}

    def rows(self) -> NDArray[np.int64]:
        """Return the stages of every closed frame kept [ns], shape (frames, stages); oldest first until it wraps."""
        ring = self._stage_ns
        return ring[: self.frames] if self.frames < len(ring) else np.delete(ring, self._row, axis=0)


def missed_between(earlier_ns: int, later_ns: int, period_ns: int) -> int:
    """Return how many display periods [ns] passed without a frame between two display times [ns]."""
    return max(0, round((later_ns - earlier_ns) / period_ns) - 1)


def spread(values: NDArray[np.float64] | Sequence[float]) -> Spread:
    """Return p50, p99 and max of values, shape (n,), in their own unit; empty gives {}."""
    if len(values) == 0:
        return {}
    p50, p99, largest = np.percentile(values, (50, 99, 100)).tolist()
    return {"p50": p50, "p99": p99, "max": largest}


def latency_cost_mm(age_ns: float, speed_m_s: float) -> float:
    """Return how far [mm] something moves at a speed [m/s] in an age [ns]: the error if the age were not bridged."""
    return age_ns * 1e-9 * speed_m_s * 1e3

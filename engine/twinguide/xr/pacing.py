"""Frame pacing without a runtime: absolute deadlines on the run's clock, so that lateness never adds up."""

from __future__ import annotations

import time
from dataclasses import replace

from twinguide.clock import SECOND, Clock, ClockVirtual
from twinguide.xr.base import FrameCounts, FrameTiming


class Pacer:
    """Wait for the slots of a display that shows a picture every `1 / rate_hz` seconds, from the first wait on.

    A real clock is slept on, a virtual one is moved. A frame that is begun after its slot was over is begun in the
    running slot at once, as a compositor would; the slots in between are told as skipped.
    """

    def __init__(self, clock: Clock, rate_hz: float, display_latency_ns: int) -> None:
        self._clock, self._rate_hz, self._latency_ns = clock, rate_hz, display_latency_ns
        self._origin_ns: int | None = None
        self._slot = 0
        self.counts = FrameCounts()

    @property
    def period_ns(self) -> int:
        """Return the display's period [ns]."""
        return round(SECOND / self._rate_hz)

    def _start_of(self, slot: int) -> int:
        return (self._origin_ns or 0) + round(slot * SECOND / self._rate_hz)

    def wait(self, should_render: bool = True) -> FrameTiming:
        """Wait for the next slot; its picture is seen `display_latency_ns` after the slot's start."""
        now = self._clock.now_ns()
        skipped = 0
        if self._origin_ns is None:
            self._origin_ns = now
        else:
            running = int((now - self._origin_ns) * self._rate_hz / SECOND)
            skipped = max(0, running - self._slot - 1)
            self._slot += 1 + skipped
        start = self._start_of(self._slot)
        wake = self._sleep_until(start)
        self.counts = replace(self.counts, frames=self.counts.frames + 1, skipped=self.counts.skipped + skipped)
        return FrameTiming(start + self._latency_ns, self.period_ns, should_render, wake, wake - start, skipped)

    def end(self) -> None:
        """Count the frame as late where its slot is over."""
        if self._clock.now_ns() > self._start_of(self._slot + 1):
            self.counts = replace(self.counts, late=self.counts.late + 1)

    def _sleep_until(self, t_ns: int) -> int:
        if isinstance(self._clock, ClockVirtual):
            self._clock.advance_to(t_ns)
            return self._clock.now_ns()
        while (now := self._clock.now_ns()) < t_ns:
            time.sleep((t_ns - now) / SECOND)
        return now

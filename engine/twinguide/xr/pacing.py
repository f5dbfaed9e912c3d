"""Frame pacing without a runtime: absolute deadlines on the run's clock, so that lateness never adds up."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from math import sqrt

from twinguide.clock import MS, SECOND, Clock, ClockVirtual
from twinguide.headset import FrameCounts, FrameTiming, Meanwhile

EARLY_NS = MS // 5  # before a slot begins nothing more is begun: it is done by then
RECENT = 8  # frames that tell the pace to come
FURTHEST_S = 0.3  # of a promise, but for the latency: a stall is no pace, and motion is hardly foretold for longer


class Punctuality:
    """How far the last frames were seen from when they were promised, and for how long each stayed in view."""

    def __init__(self) -> None:
        self._squares: deque[float] = deque(maxlen=RECENT)
        self._late_ns = 0

    def ended(self, late_ns: int) -> None:
        """Take how much later than promised a frame is seen [ns]."""
        self._late_ns = late_ns

    def replaced(self, held_ns: int) -> None:
        """Take for how long beyond its own period the frame may have stayed in view [ns], for want of the next."""
        # Over a time h that it is held, what moves is off by h^2 / 3 in the mean square.
        self._squares.append(float(self._late_ns) ** 2 + float(held_ns) ** 2 / 3.0)

    @property
    def sigma_ns(self) -> int:
        """The root mean square of both [ns]: how unsure it is when the next frame is looked at."""
        return round(sqrt(sum(self._squares) / len(self._squares))) if self._squares else 0


class Pacer:
    """Wait for the slots of a display that shows a picture every `1 / rate_hz` seconds, from the first wait on.

    A real clock is slept on, a virtual one is moved. A frame that is begun after its slot was over is begun in the
    running slot at once, as a compositor would; the slots in between are told as skipped. A picture is seen
    `display_latency_ns` after the start of the slot in which it is finished. It is promised for the slot that the last
    frames' pace suggests, and held until then where it is finished sooner.
    """

    def __init__(self, clock: Clock, rate_hz: float, display_latency_ns: int) -> None:
        self._clock, self._rate_hz, self._latency_ns = clock, rate_hz, display_latency_ns
        self._origin_ns: int | None = None
        self._slot = self._promised = -1  # the slots in which the frame was begun, and is to be finished
        self._overruns = deque([0, 0], maxlen=RECENT)  # slots that the last frames took beyond their own
        self._punctuality = Punctuality()
        self.counts = FrameCounts()

    @property
    def period_ns(self) -> int:
        """Return the display's period [ns]."""
        return round(SECOND / self._rate_hz)

    def _start_of(self, slot: int) -> int:
        return (self._origin_ns or 0) + round(slot * SECOND / self._rate_hz)

    def wait(self, should_render: bool = True, meanwhile: Meanwhile | None = None) -> FrameTiming:
        """Wait for the next slot, and promise when its picture is seen; `meanwhile` as in `Headset.wait_frame`."""
        now = self._clock.now_ns()
        if self._origin_ns is None:
            self._origin_ns = now
        running = int((now - self._origin_ns) * self._rate_hz / SECOND)
        # the slowest but one: a single hiccup is not the pace
        ahead = min(sorted(self._overruns)[-2], int(FURTHEST_S * self._rate_hz))
        self._slot = max(self._slot + 1, running, self._promised + 1 - ahead)  # none is seen before an earlier one
        skipped, self._promised = self._slot + ahead - self._promised - 1, self._slot + ahead
        self._punctuality.replaced(skipped * self.period_ns)
        start = self._start_of(self._slot)
        if meanwhile:
            meanwhile(start - EARLY_NS, -1)
        wake = self._sleep_until(start)
        self.counts = replace(self.counts, frames=self.counts.frames + 1, skipped=self.counts.skipped + skipped)
        t_display_ns, sigma_ns = self._start_of(self._promised) + self._latency_ns, self._punctuality.sigma_ns
        return FrameTiming(t_display_ns, self.period_ns, should_render, wake, wake - start, skipped, sigma_ns)

    def end(self) -> int:
        """Take the frame as finished; return when it is seen [ns]. It counts as late where its own slot is over."""
        now, overrun = self._clock.now_ns(), 0
        while now > self._start_of(self._slot + overrun + 1):
            overrun += 1
        self._overruns.append(overrun)
        late_ns = max(0, self._start_of(self._slot + overrun) - self._start_of(self._promised))
        self._punctuality.ended(late_ns)
        if overrun:
            self.counts = replace(self.counts, late=self.counts.late + 1)
        return self._start_of(self._promised) + self._latency_ns + late_ns

    def _sleep_until(self, t_ns: int) -> int:
        if isinstance(self._clock, ClockVirtual):
            self._clock.advance_to(t_ns)
            return self._clock.now_ns()
        while (now := self._clock.now_ns()) < t_ns:
            time.sleep((t_ns - now) / SECOND)
        return now

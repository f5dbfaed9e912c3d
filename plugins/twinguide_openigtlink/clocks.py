"""When something was, on the host's clock: each sender's own clock, learnt from its stamps and their arrivals."""

from __future__ import annotations

import logging
from collections.abc import Callable

from twinguide.clock import MS, SECOND, ClockMapping

from .link import Link
from .plugin import IncomingOptions
from .wire.fields import LAST_STAMP_NS

JUMP_NS = SECOND  # a stamp that is off by more may be another clock's: the sender was started again
HELD_UP_NS = 3 * SECOND  # nothing is held up for longer
SAY_AGAIN_NS = 10 * SECOND


class SenderClock:
    """One sender's clock, learnt anew where it jumps."""

    def __init__(self, fresh: Callable[[], ClockMapping], log: logging.Logger) -> None:
        self._fresh, self._log = fresh, log
        self._mapping = fresh()
        self._late_since_ns = 0  # 0: no stamp has come
        self._said_ns = -SAY_AGAIN_NS

    def time(self, stamp_ns: int, arrival_ns: int) -> tuple[int, int]:
        """Return when something stamped [ns] was, and how sure that is [ns, 1 sigma]."""
        if not self._late_since_ns:
            self._late_since_ns = arrival_ns
        elif self._has_jumped(self._mapping.to_host(stamp_ns) - arrival_ns, arrival_ns):
            if arrival_ns - self._said_ns >= SAY_AGAIN_NS:
                self._said_ns = arrival_ns
                self._log.warning("a sender's clock has jumped: it is learnt anew")
            self._mapping, self._late_since_ns = self._fresh(), arrival_ns
        self._mapping.add(stamp_ns, arrival_ns)
        return self._mapping.to_host(stamp_ns), round(self._mapping.sigma_ns)

    def _has_jumped(self, ahead_ns: int, arrival_ns: int) -> bool:
        """Tell a clock that was set from a delivery that was held up: that one is late, never early, and passes."""
        if ahead_ns > -JUMP_NS:
            self._late_since_ns = arrival_ns
        return not -HELD_UP_NS <= ahead_ns <= JUMP_NS or arrival_ns - self._late_since_ns > HELD_UP_NS


class SenderClocks:
    """The clocks of all senders that are connected: two links may be two machines."""

    def __init__(self, options: IncomingOptions, fresh: Callable[[], ClockMapping], log: logging.Logger) -> None:
        self._latency, self._sigma = round(options.latency_ms * MS), round(options.latency_sigma_ms * MS)
        self._fresh, self._log = fresh, log
        self._clocks: dict[Link, SenderClock] = {}

    def time(self, link: Link, stamp_ns: int, arrival_ns: int) -> tuple[int, int]:
        """Return when something was, and how sure that is [ns, 1 sigma]; without a stamp by its arrival alone."""
        if not 0 < stamp_ns < LAST_STAMP_NS:  # zeros, or ones: how senders say that they have none
            return arrival_ns - self._latency, self._sigma
        if link not in self._clocks:
            self._clocks = {other: clock for other, clock in self._clocks.items() if other.open}
            self._clocks[link] = SenderClock(self._fresh, self._log)
        return self._clocks[link].time(stamp_ns, arrival_ns)

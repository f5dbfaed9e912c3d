"""Clocks: the host's, a virtual one, and the mapping from a device's clock to the host's."""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np

MS = 1_000_000
SECOND = 1_000_000_000
UNUSED = np.iinfo(np.int64).min


class Clock(Protocol):
    """Tell the time of this run in integer nanoseconds, monotonic."""

    def now_ns(self) -> int:
        """Return the current time [ns]."""
        ...


class ClockReal:
    """The host's monotonic clock (CLOCK_MONOTONIC, shared by all processes of the host)."""

    def now_ns(self) -> int:
        """Return the current time [ns]."""
        return time.monotonic_ns()


class ClockVirtual:
    """A clock that moves only when told: lockstep runs, tests, synthetic data."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        """Return the current time [ns]."""
        return self._now_ns

    def advance_to(self, t_ns: int) -> None:
        """Move to `t_ns` [ns]; never backwards."""
        self._now_ns = max(self._now_ns, t_ns)


class ClockMapping:
    """Map a device's clock to the host's: `host = offset + (1 + drift) * device`.

    Each pair is (device stamp, host arrival). An arrival is late by the link's delay, which varies and is never
    negative, so the line is fitted to the earliest arrival of each second (the lower envelope), not to all of them.
    `latency_ns` is what the device declares between the event and its earliest arrival; it is taken off.
    """

    def __init__(self, latency_ns: int = 0, latency_sigma_ns: int = 0, window: int = 64) -> None:
        self.latency_ns, self.latency_sigma_ns = latency_ns, latency_sigma_ns
        self._device = np.zeros(window)
        self._delay = np.zeros(window)
        self._second = np.full(window, UNUSED, dtype=np.int64)
        self._origin: tuple[int, int] | None = None
        self._line = (0.0, 0.0)
        self.sigma_ns = float("inf")

    def add(self, device_ns: int, arrival_ns: int) -> None:
        """Take one pair of stamps [ns]."""
        if self._origin is None:
            self._origin = (device_ns, arrival_ns)
        device = float(device_ns - self._origin[0])
        delay = float(arrival_ns - self._origin[1]) - device
        second = device_ns // SECOND
        slot = second % len(self._second)
        if self._second[slot] != second or delay < self._delay[slot]:
            self._second[slot], self._device[slot], self._delay[slot] = second, device, delay
            self._fit()

    def _fit(self) -> None:
        known = self._second != UNUSED
        whole = known & (self._second < self._second.max())  # the running second has not had its earliest arrival yet
        device, delay = self._device[whole], self._delay[whole]
        if len(device) < 3:
            self._line = (float(self._delay[known].min()), 0.0)
            self.sigma_ns = float(self.latency_sigma_ns + MS)
            return
        slope, offset = np.polyfit(device, delay, 1)
        residual = delay - (offset + slope * device)
        self._line = (float(offset), float(slope))
        self.sigma_ns = float(np.hypot(self.latency_sigma_ns, residual.std()))

    @property
    def drift(self) -> float:
        """The host's seconds gained per device second, dimensionless."""
        return self._line[1]

    def to_host(self, device_ns: int) -> int:
        """Return the host time [ns] of a device stamp [ns]; raise ValueError before the first pair."""
        if self._origin is None:
            raise ValueError("no pair of stamps yet: call add(device_ns, arrival_ns) first")
        device = device_ns - self._origin[0]
        delay = self._line[0] + self._line[1] * device
        return self._origin[1] + device + round(delay) - self.latency_ns

"""Clocks: the host's, a virtual one, and the mapping from a device's clock to the host's."""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np

MS = 1_000_000
SECOND = 1_000_000_000
UNUSED = np.iinfo(np.int64).min
DRIFT_SIGMA = 1e-4  # of clocks against each other, 1 sigma
SPREAD_NS = 5 * MS  # of a link's delays, as long as none are known
LEAST_OF_N = 2.0  # the least of n even delays is late by 2/n of their mean, of n exponential ones by 1/n
FLOOR_NS = 0.02 * MS  # what a scheduler adds
HELD_UP = 5.0  # [sigma]: a second whose earliest is later than that loses weight
HELD_UP_S = 3  # seconds on end that are all held up are as likely another clock
FIT_ROUNDS = 4


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
    negative, so the line is fitted to the earliest arrival of each second (the lower envelope), not to all of them:
    the least of n delays is late by some n-th part of their spread, which weighs it. Clocks drift by some 100
    millionths at most; as long as the arrivals do not tell the drift better, that keeps the line from swinging.
    `latency_ns` is what the device declares between the event and its earliest arrival; it is taken off.
    """

    def __init__(self, latency_ns: int = 0, latency_sigma_ns: int = 0, window: int = 64) -> None:
        self.latency_ns, self.latency_sigma_ns = latency_ns, latency_sigma_ns
        self._second = np.full(window, UNUSED, dtype=np.int64)
        self._count = np.zeros(window)  # arrivals of each second
        self._device = np.zeros(window)  # stamp and delay of its earliest
        self._delay = np.zeros(window)
        self._total = np.zeros(window)  # sum of its delays
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
        if self._second[slot] != second:
            self._second[slot], self._count[slot], self._total[slot] = second, 0, 0.0
        self._count[slot] += 1
        self._total[slot] += delay
        count = int(self._count[slot])
        earliest = count == 1 or delay < self._delay[slot]
        if earliest:
            self._device[slot], self._delay[slot] = device, delay
        if earliest or count & (count - 1) == 0:  # the second weighs twice as much as when it was last looked at
            self._fit()

    def _fit(self) -> None:
        """Fit the line by weighted least squares, its slope held by what clocks are known to drift.

        A second in which all was held up lies far above the line and loses its weight; none can lie far below.
        """
        known = self._second != UNUSED
        device, delay, count = self._device[known], self._delay[known], self._count[known]
        spread = float(np.median((SPREAD_NS + self._total[known] - count * delay) / count))
        sigma = LEAST_OF_N * spread / count + FLOOR_NS
        weight, middle, mean, slope, information = sigma**-2, 0.0, 0.0, 0.0, 0.0
        late = np.zeros(len(device))
        for _ in range(FIT_ROUNDS):
            middle, mean = float(weight @ device / weight.sum()), float(weight @ delay / weight.sum())
            x, y = device - middle, delay - mean
            information = float(weight @ (x * x)) + DRIFT_SIGMA**-2
            slope = float(weight @ (x * y)) / information
            late = y - slope * x
            weight = np.maximum(sigma, late / HELD_UP) ** -2
        self._line = (mean - slope * middle, slope)
        misfit = max(float(weight @ late**2) / max(len(late) - 2, 1), 1.0)
        ahead = float(device.max()) - middle
        # How late the earliest are by themselves does not average out: it is as large as they scatter, or larger.
        variance = misfit * (1.0 / float(weight.max()) + 1.0 / float(weight.sum()) + ahead**2 / information)
        newest = late[np.argsort(device)[-HELD_UP_S:]]  # late one and all: perhaps the clock was set
        self.sigma_ns = float(np.sqrt(self.latency_sigma_ns**2 + variance + max(float(newest.min()), 0.0) ** 2))

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

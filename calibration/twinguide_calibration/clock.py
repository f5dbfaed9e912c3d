"""Offset and drift between the clocks of a device and its host, from the earliest arrivals."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from twinguide_calibration.linear import invert, solve
from twinguide_calibration.poses import check_stamps
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Bools, Ints, as_floats
from twinguide_calibration.weights import biweight, estimate_variance, robust_scale, serial_inflation, tukey

BINS = 32  # of a recording, each giving its earliest arrival
STEP_SHARE = 0.2  # of bins that fit no line: the clock was set while it was recorded
BENDS_SIGMA = 0.6053  # sigma of single values from the median of their second differences: 1.4826 / sqrt(6)
LEAST_SPANS, IN_SPAN = 20, 4  # fewer spans, or arrivals in one, tell no scatter
MOST_DRIFT = 5e-4  # between two clocks: what NTP will correct of one (RFC 5905, MAXFREQ); quartz is off by 1e-4
SIGMAS_APART = 4.0  # standard errors of a drift: beyond chance
WANDERED = 4.0  # times that scatter: no line
CLOCK_FLOOR_S = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class ClockFit:
    """`host = device + offset_s + drift * (device - origin_s)`, with the link's least delay inside the offset.

    `covariance` (2, 2) is over (offset [s], drift); `residuals` (n,) [s] are each arrival's lateness behind the line.
    """

    origin_s: float
    offset_s: float
    drift: float
    covariance: Array
    residuals: Array
    rejected: Ints
    notes: tuple[str, ...]

    def to_host(self, device_s: Array) -> Array:
        """Return host times [s] of device stamps [s], any shape."""
        return device_s + self.offset_s + self.drift * (device_s - self.origin_s)


def fit_clock(device_s: Array, arrival_s: Array) -> ClockFit:
    """Return offset and drift between a device's stamps [s] and the host's arrival times [s], both shape (n,).

    A delay is never negative, so the line is laid through the earliest arrivals of up to 32 spans (lower envelope).
    Repeated stamps are dropped and noted. Raises CalibrationRefused for fewer than 80 pairs, stamps that run backwards,
    a clock that was set while it was recorded, and one that no quartz drives.
    """
    device, arrival = as_floats(device_s), as_floats(arrival_s)
    if device.shape != arrival.shape or device.ndim != 1:
        raise CalibrationRefused(f"wanted paired stamps of shape (n,); got {device.shape} and {arrival.shape}")
    stamps = check_stamps(np.where(np.isfinite(arrival), device, np.nan), "device stamps")
    kept = stamps.kept
    if len(kept) < LEAST_SPANS * IN_SPAN:
        raise CalibrationRefused(
            f"wanted at least {LEAST_SPANS * IN_SPAN} pairs of stamps; got {len(kept)}", "Record longer."
        )
    device, delay = device[kept], arrival[kept] - device[kept]
    origin = float(device.mean())
    earliest = _earliest(device, delay)
    design = np.stack([np.ones(len(earliest)), device[earliest] - origin], axis=1)
    line, covariance, fits = _robust_line(design, delay[earliest])
    left = delay[earliest] - design @ line
    _refuse_steps(device[earliest] - device[0], left, fits)
    if abs(line[1]) > MOST_DRIFT + SIGMAS_APART * covariance[1, 1] ** 0.5:
        raise CalibrationRefused(
            f"a second of the device takes {1.0 + line[1]:.5g} s of the host's",
            "Is one of the columns told in another unit, or is one of them no clock?",
        )
    covariance = covariance * serial_inflation(left[:, None], fits)
    late = np.full(len(device_s), np.nan)
    late[kept] = delay - line[0] - line[1] * (device - origin)
    early = kept[late[kept] < -6.0 * np.sqrt(covariance[0, 0] * len(earliest)) - 1e-9]
    return ClockFit(origin, float(line[0]), float(line[1]), covariance, late, early, stamps.notes)


def _refuse_steps(times_s: Array, left: Array, fits: Bools) -> None:
    """Refuse a clock that was set: what a line leaves, (k,) [s], then strays, or wanders far beyond its own scatter."""
    steps = np.diff(left)
    scatter = float(np.median(np.abs(np.diff(steps)))) * BENDS_SIGMA  # a slope that a step has caused drops out
    wandered = float(np.sqrt((left[fits] ** 2).mean()))
    if (~fits).mean() <= STEP_SHARE and wandered <= WANDERED * scatter + CLOCK_FLOOR_S:
        return
    where = float(times_s[int(np.abs(steps).argmax()) + 1])
    raise CalibrationRefused(
        f"the clocks follow no line ({(~fits).sum()} of {len(fits)} spans stray, by {1e3 * wandered:.2g} ms rms; the "
        f"largest step is {where:.1f} s in)",
        "A clock was set or restarted: use the part before or after.",
    )


def _earliest(device: Array, delay: Array) -> Ints:
    """Return the row of the least delay in each of up to `BINS` spans of equal count."""
    count = int(min(len(device) // IN_SPAN, BINS))
    edges = np.linspace(0, len(device), count + 1).astype(np.int64)
    return np.array([a + int(np.argmin(delay[a:b])) for a, b in pairwise(edges.tolist())])


def _robust_line(design: Array, values: Array) -> tuple[Array, Array, Bools]:
    """Return (offset, slope), their covariance, and which values fit.

    The earliest arrival of a span is late by about its own scatter (exactly so for exponential delays): that is added
    to the offset's variance.
    """
    slopes = np.subtract.outer(values, values)[np.triu_indices(len(values), 1)]
    spans = np.subtract.outer(design[:, 1], design[:, 1])[np.triu_indices(len(values), 1)]
    slope = float(np.median(slopes / spans))  # Theil & Sen
    line = np.array([float(np.median(values - slope * design[:, 1])), slope])
    sigma, kind = 1e-9, biweight(1)
    for _ in range(10):
        squares = (values - design @ line) ** 2
        sigma = max(robust_scale(squares, 1), 1e-9)  # of delays, whose tail is long: a settled scale would shrink
        weights = tukey(squares, kind, sigma)
        line = solve(design.T * weights @ design, design.T @ (weights * values))
    squares = (values - design @ line) ** 2
    covariance = invert(design.T @ design) * estimate_variance(squares, kind, sigma, 2)
    covariance[0, 0] += sigma**2
    return line, covariance, kind.within(squares, sigma)

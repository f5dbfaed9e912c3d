"""Notice when breathing leaves what was learnt. Only the chest can be watched: imaging ends with the training.

Four signs, each in units in which regular breathing stays well below its limit:

- *unfamiliar*: the recent course is far from every course seen while training (distance to the third nearest one);
- *unforeseen*: the chest is not where its own history said 0.1 s and 0.3 s ago that it would be;
- *early*: a breath begins sooner than the trained rhythm allows. A late one is no sign: holding the breath is allowed;
- *out of step*: after an alarm the breaths resume in another rhythm, so chest and target may no longer belong together.

The first two heal after one regular breath. The last two do not: a chest that looks regular again cannot show whether
the target still follows it as it did, so the model has to be trained again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from twinguide.frames import NORMAL_95

from . import waveform
from .course import Course, fit_course

Array = NDArray[np.float64]

UNFAMILIAR_LIMIT = 4.0  # in spreads of the trained features
FORESIGHT_S = (0.1, 0.3)
UNFORESEEN_LIMITS = (10.0, 14.0)  # in standard deviations while training, where breaths may be very even
EARLY_SIGMAS = 2.9
RHYTHM_BREATHS = 16  # the newest ones tell the rhythm
STEP_TOLERANCE = 0.15  # of a period, by which the first breath after an alarm may be out of step
QUIET_SHARE = 0.7  # of the limits, below which an alarm may heal
ECHO_S = waveform.HISTORY_S + 0.1  # an event stays in the history for so long, and quiet has to outlast it


@dataclass(frozen=True, slots=True, eq=False)
class Familiar:
    """What training has seen of the chest."""

    scale: Array  # (f,) [m]
    tree: KDTree
    foresight: Course  # at FORESIGHT_S
    rate_scale: float  # [m/s]
    sigma: float  # [m], of one sample
    resting: float  # [m]
    travel: float  # [m]
    periods: Array  # (n,) [s]

    def unfamiliarity(self, features: Array) -> float:
        """Return the distance of history features [m], shape (f,), from the trained ones, in their spreads."""
        return float(self.tree.query(features / self.scale, k=3)[0][-1])


def learn_familiar(
    grid: waveform.Grid,
    smoothed: waveform.Smoothed,
    sigma: float,
    rest_travel: tuple[float, float],
    periods: Array,
) -> Familiar:
    """Remember the chest's courses: sigma of a sample, rest and travel [m], periods [s], shape (n,)."""
    features = waveform.grid_features(grid)[1]
    noise = sigma * (2 / (waveform.HISTORY_S * waveform.GRID_HZ)) ** 0.5  # of one Legendre coefficient, roughly
    scale = np.maximum(features.std(axis=0), 4 * noise)
    rate_scale = float(np.sqrt(np.mean(smoothed.rate**2)))
    foresight = fit_course(grid, smoothed, np.array(FORESIGHT_S), rate_scale)
    return Familiar(scale, KDTree(features / scale), foresight, rate_scale, sigma, *rest_travel, periods)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether breathing is in the model, and why not."""

    in_model: bool
    reason: str = ""


class Watch:
    """Judge each new sample of the chest; remembers the rhythm and open alarms."""

    def __init__(self, familiar: Familiar) -> None:
        self._familiar = familiar
        self._foreseen: deque[tuple[float, float, float]] = deque(maxlen=256)
        self._armed = False
        self._periods = deque(familiar.periods.tolist(), maxlen=RHYTHM_BREATHS)
        self._last_start: float | None = None
        self._alarm = ""
        self._loud_at = -np.inf
        self._last_regular: float | None = None  # the last breath's start before the alarm
        self._latched = False

    def rest_ends_at(self) -> float | None:
        """Return when the next breath begins at the soonest (19 of 20 begin later) [s]; None before the first one."""
        period, spread = waveform.rhythm(np.array(self._periods))
        return None if self._last_start is None else self._last_start + period * (1 - NORMAL_95 * spread)

    def observe(self, now: float, value: float, features: Array) -> Verdict:
        """Take the scalar [m] and its history features [m], shape (f,), at `now` [s]."""
        unfamiliar = self._familiar.unfamiliarity(features) / UNFAMILIAR_LIMIT
        unforeseen = self._unforeseen(now, value)
        self._foresee(now, features)
        loudness = max(unfamiliar, unforeseen)
        if loudness > 1.0:
            self._raise(f"the chest moves as it never did while training (x{loudness:.1f}): wait for a regular breath")
        if loudness > QUIET_SHARE:
            self._loud_at = now
        if self._breath_begins(value):
            self._on_breath(now)
        return Verdict(not self._alarm, self._alarm)

    def _raise(self, reason: str) -> None:
        if not self._alarm:
            self._last_regular = self._last_start
            self._alarm = reason

    def _latch(self, reason: str) -> None:
        self._raise(reason)
        self._alarm, self._latched = reason, True

    def _foresee(self, now: float, features: Array) -> None:
        course = self._familiar.foresight
        state = course.predict(features)
        moving = np.square(state[:, 1] / self._familiar.rate_scale)
        variance = course.still[:, 0, 0] + moving * course.moving[:, 0, 0] + self._familiar.sigma**2
        for ahead, limit, s, v in zip(FORESIGHT_S, UNFORESEEN_LIMITS, state[:, 0], variance, strict=True):
            self._foreseen.append((now + ahead, s, limit * v**0.5))

    def _unforeseen(self, now: float, value: float) -> float:
        """Return how far the sample lies from what was foreseen for this moment, as a share of the limit."""
        near = 0.6 / waveform.GRID_HZ
        due = [abs(value - s) / limit for t, s, limit in self._foreseen if abs(t - now) < near]
        while self._foreseen and self._foreseen[0][0] < now - FORESIGHT_S[-1]:
            self._foreseen.popleft()
        return max(due, default=0.0)

    def _breath_begins(self, value: float) -> bool:
        level = (value - self._familiar.resting) / self._familiar.travel
        begins = self._armed and level > waveform.BREATH_LEVEL
        self._armed = (self._armed and not begins) or level < waveform.REST_LEVEL
        return begins

    def _on_breath(self, now: float) -> None:
        """Judge the rhythm when a breath begins; what begins within an event is no breath."""
        if self._alarm and now - self._loud_at < 0.3:
            return
        last, self._last_start = self._last_start, now
        period, spread = waveform.rhythm(np.array(self._periods))
        if self._alarm:
            self._resume(now, last, period)
        elif last is not None and now - last < period * (1 - EARLY_SIGMAS * spread):
            self._latch(f"a breath came {period - (now - last):.1f} s early: learn the breathing anew")
        elif last is not None and now - last < period * (1 + EARLY_SIGMAS * spread):
            self._periods.append(now - last)  # one held breath would spoil the rhythm

    def _resume(self, now: float, last: float | None, period: float) -> None:
        """Judge a breath that begins after an alarm: the first must be in step, the second ends the alarm."""
        if self._last_regular is not None:
            breaths = (now - self._last_regular) / period
            if 0.3 < breaths < 2.5 and abs(breaths - round(breaths)) > STEP_TOLERANCE:
                self._latch("the breathing has changed its step: learn it anew")
            self._last_regular = None
        elif not self._latched and last is not None and self._loud_at + ECHO_S < now:
            self._alarm = ""

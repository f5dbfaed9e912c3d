"""Estimate how late the images are.

What the data show is one delay between chest and images: the imaging's lag plus the lag of the target's own hysteresis.
A periodic motion cannot tell the two apart (a constant delay and a phase lag give the same loop), so what is known
beforehand of either is stated as a prior, and the posterior says how well the lag is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinguide_calibration import profile_minimum

from .waveform import Smoothed

Array = NDArray[np.float64]

DELAYS_S = np.arange(-0.6, 0.9, 0.01)


@dataclass(frozen=True, slots=True)
class LagPrior:
    """What is known before training, as means and standard deviations.

    Of the imaging's lag [s], which lies between 0 and `longest_s`, and of the target's lag behind the chest [breaths].
    """

    mean_s: float = 0.1
    sigma_s: float = 0.03
    longest_s: float = 0.2
    hysteresis: float = 0.08
    hysteresis_sigma: float = 0.016


@dataclass(frozen=True, slots=True)
class LagEstimate:
    """The imaging's lag and its sigma, the whole delay and its sigma, and what is left for the target [s]."""

    lag_s: float
    sigma_s: float
    delay_s: float
    delay_sigma_s: float

    @property
    def hysteresis_s(self) -> float:
        """The target's own lag behind the chest [s]."""
        return self.delay_s - self.lag_s


def find_delay(smoothed: Smoothed, stamps: Array, images: Array) -> tuple[float, float]:
    """Return the delay [s] at which a parabola of the chest's value explains the images best, and its sigma [s].

    `stamps` [s], shape (n,); `images` [m], shape (n, 3). The sigma is the curvature's of the profile likelihood.
    """
    fixed = (stamps - DELAYS_S[-1] > smoothed.times[0]) & (stamps - DELAYS_S[0] < smoothed.times[-1])
    stamps, images = stamps[fixed], images[fixed]
    misfit = np.array([_misfit(smoothed.at(stamps - delay)[:, 0], images) for delay in DELAYS_S])
    return profile_minimum(DELAYS_S, misfit, 3 * len(stamps) - 9)


def _misfit(value: Array, images: Array) -> float:
    level = (value - value.mean()) / value.std()
    terms = np.stack([np.ones_like(level), level, level**2], axis=1)
    residual = images - terms @ np.linalg.lstsq(terms, images, rcond=None)[0]
    return float(np.sum(residual**2))


def split_delay(delay_s: float, sigma_s: float, period_s: float, prior: LagPrior) -> LagEstimate:
    """Tell the imaging's lag from the whole delay [s] by Bayes' rule on a grid, for breaths of `period_s` [s]."""
    lags = np.linspace(0.0, prior.longest_s, 201)
    spread = np.hypot(sigma_s, prior.hysteresis_sigma * period_s)
    exponent = -0.5 * ((delay_s - prior.hysteresis * period_s - lags) / spread) ** 2
    exponent -= 0.5 * ((lags - prior.mean_s) / prior.sigma_s) ** 2
    density = np.exp(exponent - exponent.max())
    density /= density.sum()
    mean = float(density @ lags)
    return LagEstimate(mean, float(np.sqrt(density @ (lags - mean) ** 2)), delay_s, sigma_s)

"""Robust weights and scales for residuals of k components: Tukey's biweight, and what the noise costs the estimate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import inf, isfinite, sqrt

import numpy as np
from scipy.special import chdtr, chdtri, fdtri  # pyright: ignore[reportMissingTypeStubs]

from twinguide_calibration.rigid import Array, Bools

# Per k: the biweight's width for 95 % efficiency under normal noise of known size; the median of chi-square.
TUKEY_WIDTH = {1: 4.6851, 2: 5.1230, 3: 5.4902, 6: 6.3562}
CHI2_MEDIAN = {1: 0.4549364, 2: 1.3862944, 3: 2.3659739, 6: 5.3481206}
TAIL = 1e-3  # of sound samples: as many lie beyond the same share of the width, however well the noise is known
SCALE_STEPS = 12
SIGNIFICANT = 3.0  # standard errors of an autocorrelation before it is believed: white noise keeps its own covariance


@dataclass(frozen=True, slots=True)
class Biweight:
    """Tukey's biweight for residuals of k components: its width [sigma], and `E[w r2] / k` of normal noise."""

    k: int
    width: float
    square: float

    def share(self, squares: Array, sigma: float) -> Array:
        """Return squared lengths, shape (n,), as a share of the width's square at a scale, 1 at most."""
        limit = max(self.width * sigma, 1e-150) ** 2
        return np.minimum(squares, limit) / limit

    def within(self, squares: Array, sigma: float) -> Bools:
        """Return which squared lengths, shape (n,), have any weight at a scale."""
        return squares < (self.width * sigma) ** 2


@lru_cache(64)
def biweight(k: int, freedom: float = inf, times: float = 1.0) -> Biweight:
    """Return the biweight, `times` as wide, for residuals of k components whose scale `freedom` degrees tell.

    Distances by a scale known from few follow F, not chi-square (Hardin & Rocke 2005): a width for known noise would
    leave out sound samples, whose absence shrinks the scale, which leaves out more.
    """
    width = TUKEY_WIDTH[k] * times
    if isfinite(freedom):
        width *= sqrt(k * float(fdtri(k, max(freedom, 3.0), 1.0 - TAIL) / chdtri(k, TAIL)))
    first, second, third = (float(chdtr(k + 2 * m, width**2)) for m in (1, 2, 3))  # E[r^2m] within, over its factor
    return Biweight(k, width, first - 2.0 * (k + 2) * second / width**2 + (k + 2) * (k + 4) * third / width**4)


def median(values: Array) -> float:
    """Return the median of values, shape (n,): NumPy's own takes five times as long for as few as these."""
    ordered = np.sort(values)
    return 0.5 * float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2])


def robust_scale(squares: Array, k: int) -> float:
    """Return sigma per component from the median of squared lengths, shape (n,), of k components (MAD for k = 1)."""
    return sqrt(median(squares) / CHI2_MEDIAN[k])


def tukey(squares: Array, kind: Biweight, sigma: float) -> Array:
    """Return Tukey's weights, shape (n,), of squared lengths, shape (n,), at a scale."""
    return (1.0 - kind.share(squares, sigma)) ** 2


def settle_scale(squares: Array, kind: Biweight, sigma: float, parameters: int) -> float:
    """Return sigma per component from the weighted mean square, iterated from a start: efficient and robust."""
    k = kind.k
    known = max(1.0 - parameters / max(k * len(squares), parameters + 1), 0.05)
    for _ in range(SCALE_STEPS):
        left = 1.0 - kind.share(squares, sigma)
        mean = float((left * left) @ squares) / max(k * np.count_nonzero(left), 1)
        settled = sqrt(mean / (kind.square * known))
        if abs(settled - sigma) < 1e-3 * sigma:
            return settled
        sigma = settled
    return sigma


def estimate_variance(squares: Array, kind: Biweight, sigma: float, parameters: int) -> float:
    """Return the factor that turns the inverse of the *unweighted* information into a covariance.

    `K^2 E[psi^2] / E[psi']^2` with `K = 1 + p/n var(psi') / E[psi']^2` for few samples (Huber & Ronchetti 2009, section
    7.6, for k components), in the residuals' units squared.
    """
    weight, slopes = _weights_slopes(squares, kind, sigma)
    slope, count = max(float(slopes.mean()), 0.1), kind.k * len(squares)
    few = 1.0 + parameters / count * float(slopes.var()) / slope**2
    square = float((weight**2 * squares).sum()) / max(count - parameters, 1)
    return square * (few / slope) ** 2


def estimate_freedom(squares: Array, kind: Biweight, sigma: float, parameters: int) -> float:
    """Return with how many degrees of freedom `estimate_variance` is known (Satterthwaite 1946).

    To first order its relative error is the mean of `psi^2 / E[psi^2] - 2 psi' / E[psi']`. Few samples, some of them
    wild but within the width, vary it more than those of one normal noise do.
    """
    weight, slopes = _weights_slopes(squares, kind, sigma)
    psi = weight**2 * squares
    told = psi / max(float(psi.mean()), 1e-300) - 2.0 * slopes / max(float(slopes.mean()), 0.1)
    return 2.0 * (kind.k * len(squares) - parameters) / max(float(told.var()), 1e-12)


def _weights_slopes(squares: Array, kind: Biweight, sigma: float) -> tuple[Array, Array]:
    """Return the weights, shape (n,), and the mean over the components of psi's slope, shape (n,)."""
    ratio = kind.share(squares, sigma)
    weight = (1.0 - ratio) ** 2
    return weight, weight - 4.0 / kind.k * (1.0 - ratio) * ratio


def serial_inflation(residuals: Array, inside: Bools) -> float:
    """Return by how much correlation in time widens a covariance, at least 1, of residuals in order, shape (n, k).

    `1 + 2 sum rho_j` over the leading lags whose correlation is significant (Geyer 1992, initial positive sequence).
    """
    values = np.where(inside[:, None], residuals, 0.0)
    total, lag_sum = float((values**2).sum()), 0.0
    limit = SIGNIFICANT / np.sqrt(max(values.size, 1))
    for lag in range(1, len(values) // 3):
        rho = float((values[lag:] * values[:-lag]).sum()) / max(total, 1e-300)
        if rho < limit:
            break
        lag_sum += rho
    return 1.0 + 2.0 * lag_sum

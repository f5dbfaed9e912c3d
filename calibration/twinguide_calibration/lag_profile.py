"""The misfit of two streams over the lag between them: its minima, how sharp they are, whether they hold throughout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import hypot, inf, sqrt

import numpy as np

from twinguide_calibration.clock import MOST_DRIFT
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Bools, Ints, as_floats
from twinguide_calibration.weights import serial_inflation

PROFILE = 8  # steps to either side of the least misfit
LEAST_EXPLAINED = 0.5  # of b's motion: two streams of one motion share nearly all, of two motions next to nothing
SIGMAS_APART = 4.0  # standard errors of a difference that chance does not make
QUARTIC = 0.2  # of a motion's angle: over as much to either side a quartic tells a profile to a thousandth of its rise
RIPPLE = 0.1  # of a frame: by as much interpolation between samples moves a profile's minimum
AS_WELL = 4.0  # times the squares that the best lag leaves: another that leaves less fits as well
REACH = 0.1  # of a step: losses differenced over as much to either side tell their slope


@dataclass(frozen=True, slots=True, eq=False)
class LagFit:
    """Stream b shows at t what stream a showed at `t - lag_s`; `sigma_s` [s] is its standard deviation.

    `explained` is the share of b's variance (of poses: of the variance of the turned angles) that the lagged a
    explains; `residual` is in b's unit.
    """

    lag_s: float
    sigma_s: float
    residual: float
    explained: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What a lag's misfit is the mean of: `losses(lag)` (p,), NaN where a sample is not known at that lag.

    `half` (p,) tells of which half of the recording, 2 of both; `samples` (p, c) the rows in time each is made of.
    """

    losses: Callable[[float], Array]
    half: Ints
    samples: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Profiles:
    """Mean losses (3, m) at `lags` [s], shape (m,): of all samples, of the first half's, of the second's; the best."""

    terms: Terms
    lags: Array
    profiles: Array
    best: int
    explained: float


def profile_minimum(lags: Array, misfit: Array, freedom: float, near: int | None = None) -> tuple[float, float]:
    """Return where a profile of squared misfit is least, and its sigma, in the unit of `lags`, (m,), equally spaced.

    Of several minima the one about row `near`, where that is given. The least place and the curvature of a quartic over
    8 steps to either side: so wide, it evens out the ripple that interpolation between samples puts on a profile. Sigma
    as of the profile likelihood, where `freedom` terms make up the misfit (Seber & Wild 1989, section 5.2).
    """
    best = int(np.clip(np.argmin(misfit) if near is None else near, 1, len(lags) - 2))
    around = slice(max(best - PROFILE, 0), best + PROFILE + 1)
    reach = PROFILE * float(lags[1] - lags[0])
    quartic = np.polynomial.Polynomial.fit((lags[around] - lags[best]) / reach, misfit[around], 4)
    places = np.linspace(-2.0 / PROFILE, 2.0 / PROFILE, 401)
    place = float(places[int(np.argmin(quartic(places)))])
    slope, bend = (float(quartic.deriv(order)(place)) for order in (1, 2))
    place -= float(np.clip(slope / bend, -0.01, 0.01)) if bend > 0.0 else 0.0
    curvature = max(float(quartic.deriv(2)(place)) / (2.0 * reach**2), 1e-12)
    least = max(float(quartic(place)), float(misfit[best]))
    return float(lags[best]) + place * reach, float(np.sqrt(least / freedom / curvature))


def search_lags(terms: Terms, variance: float, lag_max_s: float, step_s: float, told: tuple[str, str]) -> Profiles:
    """Return the mean losses over the lags searched; refuse, in the words `told`, a best that explains too little."""
    lags = np.arange(-lag_max_s, lag_max_s + step_s / 2, step_s)
    parts = (terms.half >= 0, terms.half == 0, terms.half == 1)
    means = np.array([[_known_mean(left[part]) for part in parts] for left in map(terms.losses, lags.tolist())]).T
    best = int(np.argmin(means[0]))
    explained = 1.0 - float(means[0, best]) / max(variance, 1e-300)
    if explained < LEAST_EXPLAINED:
        raise CalibrationRefused(
            f"no lag within {lag_max_s:g} s {told[0]} (best {max(explained, 0.0):.0%} of it)", told[1]
        )
    if best in (0, len(lags) - 1):
        raise CalibrationRefused(
            f"the lag is {lag_max_s:g} s or more, where the search ends",
            "Look farther (--lag-max-ms), or bring both streams onto one clock first.",
        )
    return Profiles(terms, lags, means, best, explained)


def lag_fits(found: Profiles, residual: float, free: float, notes: tuple[str, ...]) -> list[LagFit]:
    """Return the best lag's fit, then those of other lags that explain a repeated motion as well.

    Their sigmas are those of white noise: `steady` tells what noise that follows itself adds.
    """
    minima = _minima(found.lags, found.profiles[0], found.terms.losses, free)
    minima[0] = _narrowed(*minima[0], found, free)
    return [LagFit(lag, sigma, residual, found.explained, notes) for lag, sigma in minima]


def _narrowed(lag: float, sigma: float, found: Profiles, free: float) -> tuple[float, float]:
    """Return a minimum anew over so little of its profile that a quartic tells it, where the motion is fast.

    A motion of angular frequency w and variance v leaves `v (w lag)^2` at small lags.
    """
    step, misfit = float(found.lags[1] - found.lags[0]), found.profiles[0]
    row = int(np.clip(np.argmin(np.abs(found.lags - lag)), 1, len(misfit) - 2))  # of a repeating motion not the best
    bend = float(misfit[row + 1] - 2.0 * misfit[row] + misfit[row - 1]) / (2.0 * step**2)
    variance = float(misfit[found.best]) / max(1.0 - found.explained, 1e-12)
    narrow = QUARTIC / PROFILE * float(np.sqrt(variance / max(bend, 1e-300)))
    if not narrow < step:
        return lag, sigma
    lags = as_floats(lag + narrow * np.arange(-PROFILE, PROFILE + 1))
    return profile_minimum(lags, np.array([_known_mean(found.terms.losses(at)) for at in lags.tolist()]), free, PROFILE)


def _known_mean(losses: Array) -> float:
    known = losses[np.isfinite(losses)]
    return float(known.mean()) if len(known) else inf


def _minima(lags: Array, misfit: Array, losses: Callable[[float], Array], free: float) -> list[tuple[float, float]]:
    """Return the lag of least misfit (m,) with its sigma, and those of other minima that fit as well, best first."""
    rows = np.flatnonzero((misfit[1:-1] < misfit[:-2]) & (misfit[1:-1] <= misfit[2:])) + 1
    slope, bend = misfit[rows + 1] - misfit[rows - 1], misfit[rows + 1] - 2.0 * misfit[rows] + misfit[rows - 1]
    places = lags[rows] - 0.5 * slope / bend * float(lags[1] - lags[0])  # of parabolas, also near the border
    left = [losses(lag) for lag in places.tolist()]
    order = sorted(range(len(left)), key=lambda row: _known_mean(left[row]))
    best = order[0]

    def as_well(row: int) -> bool:
        far = abs(places[row] - places[best]) > PROFILE * float(lags[1] - lags[0])
        return far and _known_mean(left[row]) < AS_WELL * _known_mean(left[best])

    kept = [best, *(row for row in order if as_well(row))]
    return [profile_minimum(lags, misfit, free, int(rows[row])) for row in kept]


def only_one(fits: Sequence[LagFit]) -> LagFit:
    """Return the one fit; refuse the motion where there are more, as it repeats."""
    if len(fits) > 1:
        raise repeated(fits[1].lag_s - fits[0].lag_s)
    return fits[0]


def repeated(apart_s: float) -> CalibrationRefused:
    """Return the refusal of a motion that is alike after a time [s], so that lags so far apart explain it as well."""
    return CalibrationRefused(
        f"the motion repeats every {abs(apart_s):.2g} s: lags so far apart explain it as well", "Move irregularly."
    )


def steady(fit: LagFit, found: Profiles, repeats: bool, free: float, frame_s: float, half_s: float) -> LagFit:
    """Return a fit with the sigma of noise that follows itself in time.

    Refuse a lag that changes by more than a frame from one half of a recording [s] to the other; tell a smaller.
    """
    lags = found.lags
    near = np.abs(lags - fit.lag_s) <= (2.0 * PROFILE * float(lags[1] - lags[0]) if repeats else np.inf)
    halves: list[tuple[float, float]] = []
    for number, half in enumerate(found.profiles[1:]):
        if np.isfinite(half).all() and half[near].max() > AS_WELL * half[near].min():  # not where nothing moved
            row = _nearest_minimum(lags[near], half[near], fit.lag_s)
            lag, sigma = profile_minimum(lags[near], half[near], free / 2.0, row)
            halves.append((lag, sigma * _followed(found, lag, found.terms.half == number)))
    if len(halves) == 2:
        (one, sigma_one), (two, sigma_two) = halves
        if abs(two - one) > SIGMAS_APART * hypot(sigma_one, sigma_two) + RIPPLE * frame_s:
            return changing(fit, one, two, frame_s, half_s)
    return replace(fit, sigma_s=fit.sigma_s * _followed(found, fit.lag_s, found.terms.half >= 0))


def _followed(found: Profiles, lag_s: float, terms: Bools) -> float:
    """Return by how much noise that follows itself widens the sigma of the lag [s] of some terms (p,), at least 1.

    Told by the samples' shares in the misfit's slope, the score (Newey & West 1987): noise that is slow beside the
    motion meets it to and fro, and adds little, however alike it is from one sample to the next.
    """
    reach = REACH * float(found.lags[1] - found.lags[0])
    both = np.stack([found.terms.losses(lag_s + step)[terms] for step in (reach, -reach)])
    later, before = np.where(np.isfinite(both).all(axis=0), both, 0.0)  # not what only one of the two lags tells
    slope = (later - before) / (4.0 * reach)
    bend = 2.0 * slope**2 / np.maximum(later + before, 1e-300)  # of a square: its root's slope, squared
    slope -= bend * (slope.sum() / max(float(bend.sum()), 1e-300))  # at the very least misfit, where it adds to none
    samples = found.terms.samples[terms]
    score = as_floats(np.bincount(samples.ravel(), np.repeat(slope, samples.shape[1]))[np.unique(samples)])
    return sqrt(serial_inflation(score[:, None], np.ones(len(score), dtype=np.bool_)))


def changing(fit: LagFit, one: float, two: float, frame_s: float, half_s: float) -> LagFit:
    """Refuse a lag that changes from `one` to `two` [s], a half of a recording later, by more than a frame; else tell.

    The smaller change is in the sigma.
    """
    told = f"the lag changes from {1e3 * one:.1f} ms in the first half to {1e3 * two:.1f} ms in the second"
    drift = abs(two - one) / half_s
    if drift > MOST_DRIFT:
        told += f", by {1e6 * drift:.0f} ppm: clocks drift by {1e6 * MOST_DRIFT:.0f} ppm at most"
    if abs(two - one) > frame_s:
        raise CalibrationRefused(
            told,
            "A clock runs wrong or was set: use the part before or after. Or the motion was even: move irregularly.",
        )
    return replace(fit, sigma_s=hypot(fit.sigma_s, (two - one) / 2.0), notes=(*fit.notes, told))


def _nearest_minimum(lags: Array, misfit: Array, lag_s: float) -> int:
    """Return the row nearest to a lag [s] of the minima that fit as well: a half may repeat, the whole not."""
    inner = np.flatnonzero((misfit[1:-1] < misfit[:-2]) & (misfit[1:-1] <= misfit[2:])) + 1
    rows = [int(np.argmin(misfit)), *(row for row in inner.tolist() if misfit[row] < AS_WELL * misfit.min())]
    return min(rows, key=lambda row: abs(float(lags[row]) - lag_s))


def stream_spans(times_a: Array, times_b: Array) -> tuple[float, float]:
    """Return the longer interval between two streams' stamps, and how long half of b is [s]."""
    frames = [float(np.median(np.diff(stamps))) for stamps in (times_a, times_b)]
    return max(frames), float(times_b[-1] - times_b[0]) / 2.0

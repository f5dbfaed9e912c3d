"""Learn a target's motion from a chest marker, and predict it with its covariance. Arrays in, arrays out.

Two maps are learnt apart, because their data differ so much in quality:

- *course*: chest history -> the chest's value and rate at another time. Learnt from the marker alone, 60 Hz and 0.1 mm.
- *motion*: the chest's value and rate -> target position. Learnt from imaging, 15 Hz and 1.5 mm, so it has few terms:
  `y = b0 + b1 s + b2 s^2 + b3 r + b4 r|r| + b5 s r` (Ernst 2009 for the hysteresis terms), taken at a delay
  of its own that the data choose.

The delay between chest and images is the imaging's lag plus the lag of the target's hysteresis; see `lag.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from . import waveform
from .course import Course, fit_course
from .lag import LagEstimate, LagPrior, find_delay, split_delay
from .watch import Familiar, learn_familiar
from .waveform import Projection, Smoothed

Array = NDArray[np.float64]

# The first six are what a display that keeps its pace asks for; a machine that draws ten pictures a second asks later.
HORIZONS_S = (0.0, 0.03, 0.06, 0.09, 0.12, 0.15, 0.2, 0.25, 0.3)
MISFIT_SIGMA = 5e-5  # [m] per axis: what six terms cannot follow, seen on noise-free synthetic breathing
LEAST_IMAGES = 120
LEAST_CHEST_S = 10.0
LEAST_BREATHS = 3


class TooLittle(ValueError):
    """Report training data that cannot carry a model; the message says what is missing."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """What was gathered while training; times [s], positions [m], in reference."""

    chest_times: Array  # (n,)
    chest: Array  # (n, 3)
    chest_covariance: Array  # (3, 3) [m2], of one sample
    stamps: Array  # (m,) of the images, late by an unknown lag
    images: Array  # (m, 3)
    image_covariance: Array  # (3, 3) [m2], of one image
    baseline_covariance: Array = field(default_factory=lambda: np.zeros((3, 3)))  # [m2], slow error of the chest


@dataclass(frozen=True, slots=True, eq=False)
class BreathingModel:
    """A trained model: predicts the displacement of the target from end-expiration."""

    projection: Projection
    course: Course
    familiar: Familiar
    bounds: Array  # (2, 2) least and greatest (value, rate)
    resting: float  # [m] of the scalar at end-expiration
    travel: float  # [m] signed, from rest to a breath's usual height
    rate_scale: float  # [m/s], root mean square
    weights: Array  # (6, 3) [m]
    weight_covariance: Array  # (6, 6), to be multiplied by the noise
    noise: Array  # (3, 3) [m2], of the images about the fit
    lag: LagEstimate
    delay_jitter_s: float  # how much the delay varies from breath to breath
    baseline_sigma: float  # [m], slow error of the scalar, rest's own spread included

    def terms(self, state: Array) -> Array:
        """Return the regressors, shape (n, 6), of (value, rate), shape (n, 2)."""
        return _terms((state[:, 0] - self.resting) / self.travel, state[:, 1] / self.rate_scale)

    def displacement(self, state: Array) -> Array:
        """Return the displacement [m], shape (n, 3), from end-expiration of (value, rate), shape (n, 2)."""
        return (self.terms(state) - self.terms(np.array([[self.resting, 0.0]]))) @ self.weights

    def predict(self, features: Array) -> Prediction:
        """Predict at HORIZONS_S after the newest sample from its history features, shape (f,)."""
        state = np.clip(self.course.predict(features), *self.bounds)
        moving = np.square(state[:, 1] / self.rate_scale)[:, None, None]
        state_covariance = self.course.still + moving * self.course.moving
        state_covariance[:, 0, 0] += self.baseline_sigma**2
        slopes = self._slopes(state)
        covariance = np.einsum("kza,kzw,kwb->kab", slopes, state_covariance, slopes)
        relative = self.terms(state) - self.terms(np.array([[self.resting, 0.0]]))
        fit = np.einsum("kp,pq,kq->k", relative, self.weight_covariance, relative)
        covariance += fit[:, None, None] * self.noise
        velocity = slopes[:, 0] * state[:, 1:]
        timing = self.lag.sigma_s**2 + self.delay_jitter_s**2
        covariance += timing * velocity[:, :, None] * velocity[:, None, :]
        covariance += MISFIT_SIGMA**2 * np.eye(3)
        return Prediction(relative @ self.weights, covariance, velocity, state)

    def _slopes(self, state: Array) -> Array:
        """Return d displacement / d (value, rate), shape (k, 2, 3)."""
        steps = np.array([1e-3 * abs(self.travel), 1e-3 * self.rate_scale])
        return np.stack(
            [
                (self.displacement(state + d) - self.displacement(state - d)) / (2 * step)
                for d, step in zip(np.diag(steps), steps, strict=True)
            ],
            axis=1,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """A short trajectory over HORIZONS_S."""

    displacement: Array  # (k, 3) [m], in reference
    covariance: Array  # (k, 3, 3) [m2]
    velocity: Array  # (k, 3) [m/s]
    state: Array  # (k, 2) the chest's value [m] and rate [m/s] that the target follows


def _terms(level: Array, rate: Array) -> Array:
    return np.stack([np.ones_like(level), level, level**2, rate, rate * np.abs(rate), level * rate], axis=1)


def fit(recording: Recording, prior: LagPrior) -> BreathingModel:
    """Train; raise TooLittle where the recording cannot carry a model."""
    _check_seen(recording)
    projection = waveform.fit_projection(recording.chest, recording.chest_covariance)
    grid = waveform.resample(recording.chest_times, projection.apply(recording.chest))
    smoothed = waveform.smooth(grid)
    resting, travel = _rest_and_travel(smoothed.value)
    breaths = waveform.breath_starts(smoothed.times, (smoothed.value - resting) / travel)
    _check(len(recording.stamps), len(breaths) - 1, travel, projection.sigma)
    periods = np.diff(breaths)
    period, spread = waveform.rhythm(periods)
    rate_scale = float(np.sqrt(np.mean(smoothed.rate**2)))
    lag = split_delay(*find_delay(smoothed, recording.stamps, recording.images), period, prior)
    inside = smoothed.covers(recording.stamps - lag.delay_s)
    state = smoothed.at(recording.stamps[inside] - lag.delay_s)
    terms = _terms((state[:, 0] - resting) / travel, state[:, 1] / rate_scale)
    weights, weight_covariance, noise = _regress(terms, recording.images[inside], recording.image_covariance)
    return BreathingModel(
        projection=projection,
        course=fit_course(grid, smoothed, np.array(HORIZONS_S) - lag.hysteresis_s, rate_scale),
        familiar=learn_familiar(grid, smoothed, projection.sigma, (resting, travel), periods),
        bounds=_bounds(smoothed),
        resting=resting,
        travel=travel,
        rate_scale=rate_scale,
        weights=weights,
        weight_covariance=weight_covariance,
        noise=noise,
        lag=lag,
        delay_jitter_s=abs(lag.hysteresis_s) * spread,
        baseline_sigma=_baseline_sigma(recording.baseline_covariance, projection, smoothed, breaths, resting),
    )


def _check_seen(recording: Recording) -> None:
    """Raise TooLittle where the chest marker was hidden too much for anything to be learnt from it."""
    times = recording.chest_times
    seen = np.diff(times) < waveform.LONGEST_GAP_S
    seen_s = float(np.diff(times)[seen].sum())
    if seen_s < LEAST_CHEST_S:
        raise TooLittle(f"wanted the chest marker in view for {LEAST_CHEST_S:.0f} s; got {seen_s:.1f} s")


def _check(images: int, breaths: int, travel: float, sigma: float) -> None:
    """Raise TooLittle where training has seen too little."""
    if images < LEAST_IMAGES or breaths < LEAST_BREATHS:
        raise TooLittle(f"wanted {LEAST_IMAGES} images and {LEAST_BREATHS} breaths; got {images} and {max(breaths, 0)}")
    if abs(travel) < 8 * sigma:
        raise TooLittle(f"wanted a chest that moves; got {abs(travel) * 1e3:.2f} mm at a noise of {sigma * 1e3:.2f} mm")


def _bounds(smoothed: Smoothed) -> Array:
    """Return the least and greatest (value, rate), shape (2, 2), to be asked about: a fifth beyond the trained."""
    seen = np.stack([smoothed.value, smoothed.rate], axis=1)
    low, high = seen.min(axis=0), seen.max(axis=0)
    return np.stack([low - 0.2 * (high - low), high + 0.2 * (high - low)])


def _rest_and_travel(values: Array) -> tuple[float, float]:
    """Return where the scalar rests [m], and the signed way [m] to a breath's usual height."""
    resting = waveform.resting_value(values)
    low, high = np.quantile(values, [0.04, 0.96]) - resting
    return resting, float(high if abs(high) > abs(low) else low)


def _regress(terms: Array, images: Array, image_covariance: Array) -> tuple[Array, Array, Array]:
    """Fit by ridge; return weights (6, 3), their covariance in units of the noise (6, 6), and the noise (3, 3).

    The ridge is the prior that no term moves the target by more than some 30 mm; it binds only where breaths hardly
    differ.
    """
    noise_variance = float(np.trace(image_covariance)) / 3
    ridge = np.diag([0.0, *[noise_variance / 0.03**2] * (terms.shape[1] - 1)])
    covariance = np.asarray(np.linalg.inv(terms.T @ terms + ridge), dtype=np.float64)
    weights = covariance @ terms.T @ images
    residual = np.asarray(images - terms @ weights, dtype=np.float64)
    return weights, covariance, residual.T @ residual / (len(terms) - terms.shape[1])


def _baseline_sigma(
    baseline: Array, projection: Projection, smoothed: Smoothed, breaths: Array, resting: float
) -> float:
    """Return the slow error of the scalar [m]: of the reference's pose, and of the rest from breath to breath."""
    slow = 2.0 * float(projection.weights @ baseline @ projection.weights)  # once while training, once now
    rests = [
        waveform.resting_value(smoothed.value[(smoothed.times > a) & (smoothed.times < b)])
        for a, b in pairwise(breaths.tolist())
    ]
    return float(np.sqrt(slow + np.var(rests) + (np.mean(rests) - resting) ** 2))

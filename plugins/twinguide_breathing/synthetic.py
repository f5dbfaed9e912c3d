"""A synthetic breathing patient for studies of the model alone: chest marker, target and imaging, all as arrays.

The motion is Lujan's cos^2n (Lujan 1999, eq. 1) with a period and an amplitude of its own for each cycle; the target
follows the chest by a phase lag, so the two trace a hysteresis loop. It shares no formula with the learnt model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Patient:
    """How one synthetic patient breathes; lengths [m], times [s], angles [rad]."""

    target_travel: tuple[float, float, float] = (0.001, -0.005, 0.015)
    chest_travel: tuple[float, float, float] = (0.0, -0.009, 0.003)
    chest_curve: float = 0.0008  # how far the chest's path bends aside
    period_s: float = 4.0
    period_spread: float = 0.08  # 1 sigma, of the period, per breath
    amplitude_spread: float = 0.08  # 1 sigma, of the travel, per breath, chest and target alike
    chest_spread: float = 0.01  # 1 sigma, of the chest's travel alone, per breath
    lag_rad: float = 0.25  # of the target behind the chest, where a breath is pi
    exponent: int = 6
    imaging_lag_s: float = 0.08
    imaging_sigma: float = 0.0015
    marker_sigma: tuple[float, float, float] = (5e-5, 5e-5, 2.25e-4)  # mean of four spheres, in the camera's axes
    camera_tilt_rad: float = 0.5  # of the camera's depth axis away from the direction of the chest's travel


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong at `at_s` [s].

    `cough`: two pulses of 0.4 s, `size` [m] at the target, half as much at the chest, where they draw the wall in.
    `jump`: the breathing leaps by `size` [breaths] within 0.25 s, and from then on the target lags by `added_lag_rad`
    more.
    """

    kind: Literal["cough", "jump"]
    at_s: float
    size: float
    added_lag_rad: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """True motion and what the sensors say of it; positions [m], shape (n, 3); times [s], shape (n,)."""

    times: Array
    target: Array
    chest: Array  # measured
    image_stamps: Array
    image_positions: Array  # measured
    chest_covariance: Array  # (3, 3) [m2]


class Breath:
    """The breaths of one patient from time 0 to `end_s`."""

    def __init__(
        self, patient: Patient, end_s: float, rng: np.random.Generator, faults: tuple[Fault, ...] = ()
    ) -> None:
        self._patient, self._faults = patient, faults
        count = int(2 * end_s / patient.period_s) + 4
        period, size, chest = np.clip(rng.normal(size=(3, count)), -2.5, 2.5)
        self._starts = np.concatenate([[0.0], np.cumsum(patient.period_s * (1 + patient.period_spread * period))])
        self._size = 1 + patient.amplitude_spread * size
        self._chest_size = self._size * (1 + patient.chest_spread * chest)

    def _wave(self, times: Array, lag: Array | float, sizes: Array) -> Array:
        """Return the inspiration, 0 at its end, shape (n,), at times [s] for a lag [breaths]."""
        phase = np.interp(times, self._starts, np.arange(len(self._starts))) - lag
        phase += self._share("jump", times, lambda fault: fault.size)
        breath = np.clip(np.floor(phase), 0, len(sizes) - 1).astype(int)
        return sizes[breath] * np.sin(np.pi * phase) ** self._patient.exponent

    def _share(self, kind: str, times: Array, size: Callable[[Fault], float]) -> Array:
        ramps = [size(f) * np.clip((times - f.at_s) / 0.25, 0.0, 1.0) for f in self._faults if f.kind == kind]
        return np.sum([np.zeros_like(times), *ramps], axis=0)

    def _cough(self, times: Array) -> Array:
        parts = [(f.size, (times - f.at_s) / 0.8) for f in self._faults if f.kind == "cough"]
        pulses = [size * np.where((x > 0) & (x < 1), np.sin(2 * np.pi * x) ** 2, 0.0) for size, x in parts]
        return np.sum([np.zeros_like(times), *pulses], axis=0)

    def target(self, times: Array) -> Array:
        """Return the target's displacement [m], shape (n, 3), from end-expiration at times [s]."""
        lag = (self._patient.lag_rad + self._share("jump", times, lambda fault: fault.added_lag_rad)) / np.pi
        wave = self._wave(times, lag, self._size)
        return wave[:, None] * self._patient.target_travel + self._cough(times)[:, None] * (0.0, -0.3, -0.95)

    def chest(self, times: Array) -> Array:
        """Return the chest marker's displacement [m], shape (n, 3), from end-expiration at times [s]."""
        wave = self._wave(times, 0.0, self._chest_size)[:, None]
        aside = np.array([1.0, 0.0, 0.0]) * self._patient.chest_curve
        return (
            wave * self._patient.chest_travel
            + wave * (1 - wave) * aside
            + self._cough(times)[:, None] * (0.0, 0.5, 0.1)
        )


def simulate(
    patient: Patient,
    seed: int,
    train_s: float = 25.0,
    test_s: float = 60.0,
    faults: tuple[Fault, ...] = (),
    rate_hz: float = 60.0,
    image_hz: float = 15.0,
) -> Motion:
    """Simulate one run of seconds 0 to `train_s + test_s`; images are stamped late and end with the training."""
    rng = np.random.default_rng(seed)
    breath = Breath(patient, train_s + test_s, rng, faults)
    times = np.arange(0.0, train_s + test_s, 1 / rate_hz)
    tilt = patient.camera_tilt_rad
    depth = np.array([np.sin(tilt), -np.cos(tilt), 0.0])  # the camera looks down on the chest
    axes = np.column_stack([np.cross([0.0, 0.0, 1.0], depth), [0.0, 0.0, 1.0], depth])
    noise = rng.normal(size=(len(times), 3)) * patient.marker_sigma @ axes.T
    stamps = np.arange(0.5, train_s, 1 / image_hz) + rng.uniform(0, 1 / image_hz)
    images = breath.target(stamps - patient.imaging_lag_s) + rng.normal(0, patient.imaging_sigma, (len(stamps), 3))
    covariance = axes @ np.diag(np.square(patient.marker_sigma)) @ axes.T
    return Motion(times, breath.target(times), breath.chest(times) + noise, stamps, images, covariance)

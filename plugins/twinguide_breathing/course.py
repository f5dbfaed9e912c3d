"""From the chest's history to its value and rate at another time: learnt from the marker alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import waveform

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """History features -> (value, rate) at k times about the newest sample, with an error that grows with the rate."""

    scale: Array  # (f,) makes features of order one
    weights: Array  # (k, g, 2)
    still: Array  # (k, 2, 2) covariance at rest
    moving: Array  # (k, 2, 2) covariance added per squared rate over its mean square

    def predict(self, features: Array) -> Array:
        """Return (value [m], rate [m/s]), shape (k, 2), of history features [m], shape (f,)."""
        return np.einsum("g,kgz->kz", _products(features[None] / self.scale)[0], self.weights)


def fit_course(grid: waveform.Grid, smoothed: waveform.Smoothed, ahead: Array, rate_scale: float) -> Course:
    """Learn what history tells of the chest `ahead` [s], shape (k,), of its newest sample; negative is the past."""
    times, features = waveform.grid_features(grid)
    scale = features.std(axis=0) + 1e-6
    products = _products(features / scale)
    weights, still, moving = [], [], []
    for e in ahead:
        inside = smoothed.covers(times + e)
        g, z = products[inside], smoothed.at(times[inside] + e)
        gram = g.T @ g + 1e-4 * len(g) * np.eye(g.shape[1])  # keeps what hardly varied from being extrapolated
        w = np.linalg.solve(gram, g.T @ z)
        a, b = _still_and_moving(z - g @ w, np.square(z[:, 1] / rate_scale))
        weights.append(w)
        still.append(a)
        moving.append(b)
    return Course(scale, np.array(weights), np.array(still), np.array(moving))


def _products(features: Array) -> Array:
    """Return 1, the features and their second-order products, shape (n, 1 + f + f (f + 1) / 2)."""
    i, j = np.triu_indices(features.shape[1])
    return np.concatenate([np.ones((len(features), 1)), features, features[:, i] * features[:, j]], axis=1)


def _still_and_moving(residual: Array, moving: Array) -> tuple[Array, Array]:
    """Split a residual's covariance into a part at rest and a part that grows with `moving`, shape (n,)."""
    rest = moving <= max(0.05, float(np.quantile(moving, 0.1)))
    still = residual[rest].T @ residual[rest] / int(rest.sum())
    total = residual.T @ residual / len(residual)
    values, vectors = np.linalg.eigh((total - still) / moving.mean())
    return still, (vectors * np.maximum(values, 0.0)) @ vectors.T

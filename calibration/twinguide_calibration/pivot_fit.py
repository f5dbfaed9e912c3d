"""The robust Gauss-Helmert iteration of `R_i tip + t_i = pivot`."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from twinguide_calibration.linear import solve, squared_lengths
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, exponential, skew
from twinguide_calibration.weights import Biweight, biweight, robust_scale, settle_scale, tukey

ROUNDS = 12  # of weights and adjustment; the tip moves by less than a micrometre after 6 to 8
START_ROUNDS = 5
STEP_CONVERGED = 1e-7  # [m]
SHORT_M = 0.005  # a tip so near the marker's origin has no shaft to measure the swing by
SWING = "Swing it 20 deg or more to all sides."
SCALE_FLOOR_M = 1e-9  # data without noise keep a scale to weigh with


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """The residuals and adjusted rotations at a tip and a pivot."""

    tip: Array
    pivot: Array
    error: Array  # (n, 3) in tool axes
    turned: Array  # (n, 3, 3), the adjusted rotations
    misclosure: Array  # (n, 3), the residuals linearised there
    whitening: Array  # (3, 3), of a residual in tool axes; symmetric
    squares: Array  # (n,) whitened squared lengths
    scales: tuple[float, float]  # [m], along the shaft and across it
    kind: Biweight  # the weights' form
    scale: float  # of the whitened residuals


def _look(rotation: Array, translation: Array, tip: Array, pivot: Array, warm: tuple[float, float] | None) -> State:
    error = tip + np.einsum("nji,nj->ni", rotation, translation - pivot)
    length = max(sqrt(float(tip @ tip)), 1e-12)
    axis = tip / length
    along, across = _scales(error, axis, warm)
    lean = max(across**2 - along**2, 0.0) / across**2  # share of turning in the noise across
    turn = (error @ skew(axis).T) * (lean / max(length, SHORT_M))
    turned = rotation @ exponential(-turn)
    misclosure = tip - turn @ skew(tip).T + np.einsum("nji,nj->ni", turned, translation - pivot)
    whitening = np.eye(3) / across + np.outer(axis, axis) * (1.0 / along - 1.0 / across)
    squares = squared_lengths(error @ whitening)
    kind = biweight(3, 1.5 * (len(error) - 2.0))  # two scales share the residuals
    scale = settle_scale(squares, kind, 1.0, 6)
    return State(tip, pivot, error, turned, misclosure, whitening, squares, (along, across), kind, scale)


def iterate(rotation: Array, translation: Array) -> State:
    """Return tip and pivot of rotations (n, 3, 3) and translations [m], shape (n, 3), with what is left of them."""
    try:
        state = _look(rotation, translation, *start_of(rotation, translation), None)
        for _ in range(ROUNDS):
            weights = tukey(state.squares, state.kind, state.scale)
            information, gradient = normal(state, weights)
            step = -solve(information, gradient)
            state = _look(rotation, translation, state.tip + step[:3], state.pivot + step[3:], state.scales)
            if np.abs(step).max() < STEP_CONVERGED:
                break
    except np.linalg.LinAlgError as error:
        raise CalibrationRefused("the poses that agree tell no tip", SWING) from error
    return state


def start_of(rotation: Array, translation: Array) -> tuple[Array, Array]:
    """Return tip and pivot of least absolute lengths (Weiszfeld), which a third of wild samples does not move far."""
    weights = np.ones(len(rotation))
    tip, pivot = np.zeros(3), np.zeros(3)
    for _ in range(START_ROUNDS):
        w = weights / weights.sum()
        mean_r, mean_t = np.tensordot(w, rotation, axes=1), w @ translation
        back = np.einsum("nji,nj,n->i", rotation, translation - mean_t, w)
        tip = -solve(np.eye(3) - mean_r.T @ mean_r, back)
        pivot = mean_r @ tip + mean_t
        length = np.sqrt(squared_lengths(rotation @ tip + translation - pivot))
        weights = 1.0 / np.maximum(length, 0.05 * float(np.median(length)) + SCALE_FLOOR_M)
    return tip, pivot


def _scales(error: Array, axis: Array, warm: tuple[float, float] | None) -> tuple[float, float]:
    """Return the robust sigmas [m] of residuals in tool axes along the shaft and across it, from those before."""
    freedom = len(error) - 2.0  # of a component
    along = (error @ axis) ** 2
    across = squared_lengths(error) - along
    start = (robust_scale(along, 1), robust_scale(across, 2)) if warm is None else warm
    first = settle_scale(along, biweight(1, freedom), start[0], 2)
    second = settle_scale(across, biweight(2, 2.0 * freedom), start[1], 4)
    least = max(0.05 * max(first, second), SCALE_FLOOR_M)
    return max(first, least), max(second, least)


def normal(state: State, weights: Array) -> tuple[Array, Array]:
    """Return the information (6, 6) and gradient (6,) over (tip, pivot); the Jacobian in tool axes is `[I | -R']`."""
    weight = state.whitening @ state.whitening
    weighted = (weights[:, None, None] * state.turned) @ weight
    information = np.empty((6, 6))
    information[:3, :3] = weights.sum() * weight
    information[3:, :3] = -weighted.sum(axis=0)
    information[:3, 3:] = information[3:, :3].T
    information[3:, 3:] = np.einsum("nij,nkj->ik", weighted, state.turned)
    pulled = np.einsum("nij,nj->i", weighted, state.misclosure)
    return information, np.concatenate([weight @ (weights @ state.misclosure), -pulled])


def jacobian_of(state: State) -> Array:
    """Return the whitened Jacobian (n, 3, 6) over (tip, pivot)."""
    fixed = np.broadcast_to(np.eye(3), state.turned.shape)
    return state.whitening @ np.concatenate([fixed, -state.turned.transpose(0, 2, 1)], axis=2)

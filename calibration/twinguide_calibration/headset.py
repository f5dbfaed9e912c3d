"""The headset in the tracker's world: `view_from_marker` fixed once, `stage_from_tracker` followed continuously.

The runtime's stage drifts and now and then jumps (re-localisation); the marker on the headset does not move. Every
sighting gives `stage_from_tracker = stage_from_view view_from_marker marker_from_tracker`. A Kalman filter follows it
and carries what is uncertain in `view_from_marker` as a considered parameter (Schmidt 1966): that part is common to all
sightings and does not average away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from twinguide_calibration.hand_eye import HandEyeFit, solve_hand_eye_timed
from twinguide_calibration.linear import invert
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, adjoint, as_floats, difference, inverse, perturb

CHI2_JUMP = 38.3  # chi-square of 6 values that a sound sighting exceeds once in a million


@dataclass(frozen=True, slots=True, eq=False)
class HeadsetSettings:
    """How the stage drifts, per square root of a second, and what counts as a jump and as settled again."""

    drift_rad: float = 2e-4
    drift_m: float = 1e-4
    outliers_to_jump: int = 3  # sightings in a row: one alone is a glitch
    sightings_to_settle: int = 15
    gap_s: float = 5.0  # without sightings this long, the drift is unknown and must settle anew


@dataclass(frozen=True, slots=True, eq=False)
class StageState:
    """`stage_from_tracker` with its covariance (6, 6), perturbation on the right, told in tracker.

    `cross` (6, 6) is its covariance with the error of `view_from_marker`. While `settled` is false the overlay must be
    hidden: the stage has jumped, or too few sightings have been made. `jumps` counts, `distance` is the last sighting's
    squared Mahalanobis distance (6 values).
    """

    t_s: float
    transform: Array
    covariance: Array
    cross: Array
    settled: bool
    sightings: int  # since the start or the last jump
    outliers: int  # in a row
    jumps: int
    rejected: int
    distance: float


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """One instant: where the runtime sees the view, where the tracker sees the marker; covariances (6, 6)."""

    t_s: float
    stage_from_view: Array
    view_covariance: Array
    tracker_from_marker: Array
    marker_covariance: Array


def calibrate_headset(
    times_view: Array,
    stage_from_view: Array,
    times_marker: Array,
    tracker_from_marker: Array,
    *,
    offset_max_s: float = 0.3,
    p95_max: float = 5e-3,
) -> HandEyeFit:
    """Return `x = view_from_marker` and `z = stage_from_tracker` from two streams of poses, with the clocks' offset.

    `times` [s], shapes (n,) and (m,); poses (n, 4, 4) and (m, 4, 4). As `solve_hand_eye_timed`.
    """
    return solve_hand_eye_timed(
        times_view, stage_from_view, times_marker, tracker_from_marker, offset_max_s=offset_max_s, p95_max=p95_max
    )


def stage_start(sighting: Sighting, view_from_marker: Array, view_from_marker_covariance: Array) -> StageState:
    """Return the state after a first sighting; `view_from_marker` (4, 4) with its covariance (6, 6)."""
    measured, noise, lever = _measure(sighting, view_from_marker)
    fixed = as_floats(view_from_marker_covariance)
    cross = lever @ fixed
    return StageState(sighting.t_s, measured, noise + cross @ lever.T, cross, False, 1, 0, 0, 0, 0.0)


def stage_update(
    state: StageState,
    sighting: Sighting,
    view_from_marker: Array,
    view_from_marker_covariance: Array,
    settings: HeadsetSettings | None = None,
) -> StageState:
    """Return the state after one more sighting; a sighting that is not newer, or not finite, changes nothing.

    One sighting that does not fit is left out; `outliers_to_jump` in a row are a jump: the state starts anew from the
    last and is not settled until `sightings_to_settle` agree.
    """
    settings = settings or HeadsetSettings()
    if not sighting.t_s > state.t_s or not _finite(sighting):
        return replace(state, rejected=state.rejected + 1)
    elapsed = sighting.t_s - state.t_s
    if elapsed > settings.gap_s:
        return _anew(state, sighting, view_from_marker, view_from_marker_covariance)
    predicted = state.covariance + np.diag([settings.drift_rad**2] * 3 + [settings.drift_m**2] * 3) * elapsed
    measured, noise, lever = _measure(sighting, view_from_marker)
    fixed = as_floats(view_from_marker_covariance)
    innovation = difference(measured, state.transform)
    # The measurement errs by n + L x; the state by s: the innovation is s + n + L x, with s and x correlated.
    shared = state.cross @ lever.T
    total = predicted + noise + lever @ fixed @ lever.T - shared - shared.T
    precision = invert(total)
    distance = float(innovation @ precision @ innovation)
    if distance > CHI2_JUMP:
        if state.outliers + 1 >= settings.outliers_to_jump:
            fresh = _anew(state, sighting, view_from_marker, view_from_marker_covariance)
            return replace(fresh, jumps=state.jumps + 1, distance=distance)
        return replace(state, outliers=state.outliers + 1, rejected=state.rejected + 1, distance=distance)
    gain = (predicted - shared) @ precision
    covariance = predicted - gain @ total @ gain.T
    cross = state.cross - gain @ (state.cross - lever @ fixed)
    count = state.sightings + 1
    return replace(
        state,
        t_s=sighting.t_s,
        transform=perturb(state.transform, gain @ innovation),
        covariance=(covariance + covariance.T) / 2.0,
        cross=cross,
        settled=count >= settings.sightings_to_settle,
        sightings=count,
        outliers=0,
        distance=distance,
    )


def stage_ahead(state: StageState, t_s: float, settings: HeadsetSettings | None = None) -> Array:
    """Return the covariance, shape (6, 6), that drift leaves at a later time [s]: it enters the overlay's error."""
    settings = settings or HeadsetSettings()
    drift = np.diag([settings.drift_rad**2] * 3 + [settings.drift_m**2] * 3)
    return state.covariance + drift * max(t_s - state.t_s, 0.0)


def _anew(state: StageState, sighting: Sighting, view_from_marker: Array, covariance: Array) -> StageState:
    fresh = stage_start(sighting, view_from_marker, covariance)
    return replace(fresh, jumps=state.jumps, rejected=state.rejected)


def _measure(sighting: Sighting, view_from_marker: Array) -> tuple[Array, Array, Array]:
    """Return `stage_from_tracker` as seen, its own noise (6, 6) in tracker, and how x's error enters it (6, 6)."""
    if sighting.stage_from_view.shape != (4, 4) or sighting.tracker_from_marker.shape != (4, 4):
        raise CalibrationRefused("wanted poses of shape (4, 4)")
    marker = adjoint(sighting.tracker_from_marker)  # from the marker's frame to the tracker's
    view = marker @ adjoint(inverse(view_from_marker))
    measured = sighting.stage_from_view @ view_from_marker @ inverse(sighting.tracker_from_marker)
    noise = view @ sighting.view_covariance @ view.T + marker @ sighting.marker_covariance @ marker.T
    return measured, noise, marker


def _finite(sighting: Sighting) -> bool:
    parts = (
        sighting.stage_from_view,
        sighting.tracker_from_marker,
        sighting.view_covariance,
        sighting.marker_covariance,
    )
    return all(bool(np.isfinite(part).all()) for part in parts)

"""How much later one stream tells of a motion than another; how a device's clock runs against the host's."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinguide.calibrating.inputs import hashed, refusals
from twinguide.calibrating.outcome import Outcome, shortened
from twinguide.calibrating.picture import draw_clock, draw_lag
from twinguide.calibrating.result import ClockResult, TimeResult, stamp, symmetric
from twinguide.calibrating.streams import matrices, open_streams, timed
from twinguide_calibration import LagFit, fit_clock, place_lag, pose_lag
from twinguide_calibration.reading import read_stamps

Array = NDArray[np.float64]


def lag(paths: tuple[Path, ...], a: str, b: str, by: str, lag_max_ms: float) -> Outcome:
    """Find how much later `b` tells of a motion than `a`, both on one clock.

    `by` is `turning` (the angle between two poses is the same for all bodies that are fixed to one another, so nothing
    need be calibrated) or `moving` (b's places, linear in a's poses wherever b is fixed to the body). A CSV of stamps,
    `device_ms` and `arrival_ms`, tells of the clocks instead: offset and drift. Raises CalibrationError with the
    remedy.
    """
    with refusals():
        stamps = read_stamps(paths[0]) if len(paths) == 1 and paths[0].suffix.lower() in (".csv", ".tsv") else None
        if stamps is not None:
            return _clock(paths[0], *stamps)
        streams = open_streams(paths, a, b)
        times_a, one, times_b, two, told = timed(streams)
        limit_s = lag_max_ms * 1e-3
        if by == "turning":
            fit = pose_lag(times_a, matrices(one), times_b, matrices(two), lag_max_s=limit_s)
        else:
            fit = place_lag(times_a, matrices(one), times_b, two.translations, lag_max_s=limit_s)
    result = TimeResult(
        of=f"{two.name} behind {one.name}",
        sources=hashed(paths),
        samples=len(two),
        rejected=(),
        residuals=(float(fit.residual),),
        residual_unit="rad" if by == "turning" else "m",
        notes=shortened((*streams.notes, *told, *fit.notes)),
        a=one.name,
        b=two.name,
        by=by,  # pyright: ignore[reportArgumentType]
        lag_ms=1e3 * fit.lag_s,
        lag_sigma_ms=1e3 * fit.sigma_s,
        explained=float(fit.explained),
        **stamp(),
    )
    curves = (times_a, speed(times_a, matrices(one), by), times_b, speed(times_b, matrices(two), by))
    return Outcome(result, _table(result, fit), partial(draw_lag, result.of, fit, curves, by))


def _clock(path: Path, device_s: Array, arrival_s: Array, notes: tuple[str, ...]) -> Outcome:
    fit = fit_clock(device_s, arrival_s)
    known = np.isfinite(fit.residuals)
    sigma_s, sigma = np.sqrt(np.diag(fit.covariance)).tolist()
    result = ClockResult(
        of=path.stem,
        sources=hashed((path,)),
        samples=int(known.sum()),
        rejected=tuple(fit.rejected.tolist()),
        residuals=tuple((1e3 * fit.residuals[known]).tolist()),
        residual_unit="ms",
        notes=shortened((*notes, *fit.notes)),
        origin_s=fit.origin_s,
        offset_ms=1e3 * fit.offset_s,
        offset_sigma_ms=1e3 * sigma_s,
        drift_ppm=1e6 * fit.drift,
        drift_sigma_ppm=1e6 * sigma,
        covariance=symmetric(fit.covariance),
        **stamp(),
    )
    late = result.residuals
    rows = (
        (
            "offset",
            f"the host is at the device plus {result.offset_ms:.3f} ms, 1 sigma {result.offset_sigma_ms:.3f} ms",
        ),
        ("at", f"{result.origin_s:.3f} s of the device; the link's least delay is in it"),
        ("drift", f"{result.drift_ppm:+.2f} ppm, 1 sigma {result.drift_sigma_ppm:.2f} ppm"),
        ("lateness", f"{np.median(late):.2f} ms at the median, {max(late):.2f} ms at most"),
        ("samples", f"{result.samples}, {len(result.rejected)} earlier than the line allows"),
    )
    return Outcome(result, rows, partial(draw_clock, path.stem, device_s, fit))


def speed(times_s: Array, poses: Array, by: str) -> Array:
    """Return how fast a stream turns [rad/s] or moves [m/s] between its samples, shape (n - 1,)."""
    step = np.diff(times_s)
    if by == "moving":
        return np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1) / step
    between = poses[:-1, :3, :3].transpose(0, 2, 1) @ poses[1:, :3, :3]
    cosine = (np.trace(between, axis1=1, axis2=2) - 1.0) / 2.0
    return np.arccos(np.clip(cosine, -1.0, 1.0)) / step


def _table(result: TimeResult, fit: LagFit) -> tuple[tuple[str, str], ...]:
    return (
        (
            "lag",
            f"{result.b} is {abs(result.lag_ms):.1f} ms {'behind' if result.lag_ms >= 0 else 'ahead of'} {result.a}",
        ),
        ("1 sigma", f"{result.lag_sigma_ms:.2f} ms"),
        ("explained", f"{100 * fit.explained:.1f} % of the {result.by}"),
        (
            "residual",
            f"{np.degrees(fit.residual):.3f} deg" if result.by == "turning" else f"{1e3 * fit.residual:.2f} mm",
        ),
        ("samples", f"{result.samples}"),
    )

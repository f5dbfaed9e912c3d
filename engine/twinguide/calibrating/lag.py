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
from twinguide_calibration.interpolation import interpolate_poses
from twinguide_calibration.latency import affine_map
from twinguide_calibration.reading import read_stamps
from twinguide_calibration.rigid import logarithm

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
    told = turned if by == "turning" else moved
    curves = (times_a, times_b, *told(times_a, matrices(one), times_b, matrices(two), fit.lag_s))
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


def turned(times_a: Array, poses_a: Array, times_b: Array, poses_b: Array, lag_s: float) -> tuple[Array, Array]:
    """Return how far [deg], shapes (n,) and (m,), each stream has turned since the middle of what both show."""
    begin, end = max(times_a[0] + lag_s, times_b[0]), min(times_a[-1] + lag_s, times_b[-1])
    middle = np.array([(begin + end) / 2.0])
    return _angles(times_a, poses_a, middle - lag_s), _angles(times_b, poses_b, middle)


def _angles(times: Array, poses: Array, since: Array) -> Array:
    first = interpolate_poses(times, poses, since)[0][:, :3, :3]
    return np.degrees(np.linalg.norm(logarithm(first.transpose(0, 2, 1) @ poses[:, :3, :3]), axis=1))


def moved(times_a: Array, poses_a: Array, times_b: Array, poses_b: Array, lag_s: float) -> tuple[Array, Array]:
    """Return b's places [mm] along their largest extent, as a's poses tell them, shape (n,), and its own (m,)."""
    numbers, places = poses_a[:, :3].reshape(-1, 12), poses_b[:, :3, 3]
    inside = (times_b - lag_s >= times_a[0]) & (times_b - lag_s <= times_a[-1])
    carried = affine_map(times_a, numbers, times_b[inside] - lag_s, places[inside])
    middle = places.mean(axis=0)
    along = np.linalg.svd(places - middle, full_matrices=False)[2][0]
    from_a = np.column_stack([np.ones(len(numbers)), numbers]) @ carried
    return 1e3 * (from_a - middle) @ along, 1e3 * (places - middle) @ along


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

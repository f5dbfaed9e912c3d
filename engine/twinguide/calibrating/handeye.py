"""Two fixed transforms from two streams of poses of one rigid body: `a x = z b`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinguide.calibrating.inputs import hashed, refusals
from twinguide.calibrating.outcome import Outcome, shortened
from twinguide.calibrating.picture import draw_handeye
from twinguide.calibrating.result import HandEyeResult, rows_of, stamp, symmetric
from twinguide.calibrating.streams import Streams, has_stamps, matrices, open_streams, paired, timed
from twinguide_calibration import CalibrationRefused, HandEyeFit, solve_hand_eye, solve_hand_eye_timed
from twinguide_calibration.lag_profile import SIGMAS_APART

Array = NDArray[np.float64]
FOLLOWS = 2.0  # times that residuals which follow the motion widen the covariance: look for an offset in time


def handeye(
    paths: tuple[Path, ...], a: str, b: str, offset: bool | None, lag_max_ms: float, p95_max_mm: float
) -> Outcome:
    """Calibrate from tracks `a` and `b` of one file or two.

    With `offset`, the clocks' offset is found too, up to `lag_max_ms`; by default where there are two files with time
    stamps. Frames of one file, or the rows of two, are paired otherwise. Raises CalibrationError with reason and
    remedy.
    """
    with refusals():
        streams = open_streams(paths, a, b)
        notes = streams.notes
        if offset if offset is not None else not streams.one_file and has_stamps(streams):
            times_a, one, times_b, two, told = timed(streams)
            notes = (*notes, *told)
            limits = {"offset_max_s": lag_max_ms * 1e-3, "p95_max": p95_max_mm * 1e-3}
            fit = solve_hand_eye_timed(times_a, matrices(one), times_b, matrices(two), **limits)
        else:
            one, two, told = paired(streams)
            notes = (*notes, *told)
            stamped = offset is None and one.times_ns is not None
            try:
                fit = solve_hand_eye(matrices(one), matrices(two), p95_max=p95_max_mm * 1e-3)
            except CalibrationRefused as error:
                late = _late(streams, np.inf, lag_max_ms) if stamped else ()
                raise CalibrationRefused(error.reason, *(late or (error.remedy,))) from error
            if stamped and fit.inflation > FOLLOWS:
                notes = (*notes, *_late(streams, fit.inflation, lag_max_ms))
    notes = (*notes, *_inverse(fit))
    known = np.isfinite(fit.residuals)
    result = HandEyeResult(
        of=f"{one.name} and {two.name}",
        sources=hashed(paths),
        samples=int(known.sum()),
        rejected=tuple(int(two.frames[row]) for row in fit.rejected),
        residuals=tuple((1e3 * fit.residuals[known]).tolist()),
        notes=shortened((*notes, *fit.notes)),
        a=one.name,
        b=two.name,
        x_name=f"{one.source}_from_{two.source}",
        z_name=f"{one.target}_from_{two.target}",
        x=rows_of(fit.x),  # pyright: ignore[reportArgumentType]
        z=rows_of(fit.z),  # pyright: ignore[reportArgumentType]
        covariance=symmetric(fit.covariance),
        freedom=float(fit.freedom),
        x_p95_mm=1e3 * fit.x_p95,
        z_p95_mm=1e3 * fit.z_p95,
        offset_ms=1e3 * fit.offset_s,
        offset_sigma_ms=1e3 * fit.offset_sigma_s,
        **stamp(),
    )
    return Outcome(result, _table(result, fit), partial(draw_handeye, result.of, fit))


def _late(streams: Streams, inflation: float, lag_max_ms: float) -> tuple[str, ...]:
    """Return whether residuals of pairs that follow the motion come of an offset in time, in words."""
    try:
        times_a, one, times_b, two, _ = timed(streams)
        other = solve_hand_eye_timed(times_a, matrices(one), times_b, matrices(two), offset_max_s=lag_max_ms * 1e-3)
    except CalibrationRefused:
        return ()
    if other.inflation >= inflation or abs(other.offset_s) < SIGMAS_APART * other.offset_sigma_s:
        return ()
    return (f"The pairs are {1e3 * other.offset_s:.1f} ms apart, which --offset takes into account: use it",)


def _inverse(fit: HandEyeFit) -> tuple[str, ...]:
    x, z = (1e3 * float(np.linalg.norm(matrix[:3, 3])) for matrix in (fit.x, fit.z))
    return (f"x is {x:.0f} mm long, z {z:.0f} mm: are the poses of both inverse?",) if x > z else ()


def _table(result: HandEyeResult, fit: HandEyeFit) -> tuple[tuple[str, str], ...]:
    used = np.delete(fit.residuals, fit.rejected)
    rms = float(np.sqrt(np.nanmean(used**2)))
    turning = float(np.sqrt(np.nanmean(np.delete(fit.rotation_residuals, fit.rejected) ** 2)))
    clocks = (
        (("clocks", f"a is at b plus {result.offset_ms:.1f} ms, 1 sigma {result.offset_sigma_ms:.2f} ms"),)
        if np.isfinite(result.offset_sigma_ms)
        else ()
    )
    return (
        (result.x_name, f"{_place(fit.x)}, 95 % within {result.x_p95_mm:.2f} mm"),
        (result.z_name, f"{_place(fit.z)}, 95 % within {result.z_p95_mm:.2f} mm where b was"),
        *clocks,
        ("residual", f"{1e3 * rms:.3f} mm and {np.degrees(turning):.3f} deg rms; {1e3 * fit.z_spread:.3f} mm at z"),
        ("turning", f"second axis {100 * fit.axis_spread:.0f} % of the first"),
        ("samples", f"{result.samples} pairs, {len(result.rejected)} rejected"),
    )


def _place(matrix: Array) -> str:
    turn = float(np.degrees(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1.0) / 2.0, -1.0, 1.0))))
    return "  ".join(f"{1e3 * value:.2f}" for value in matrix[:3, 3]) + f" mm, turned by {turn:.2f} deg"

"""A tool's tip from recordings in which it is swung about a point that stands still."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinguide.calibrating.inputs import hashed, open_poses, refusals
from twinguide.calibrating.outcome import Outcome, shortened
from twinguide.calibrating.picture import draw_pivot
from twinguide.calibrating.result import PivotResult, rows_of, stamp, symmetric
from twinguide.errors import CalibrationError
from twinguide.frames import p95_from_covariance
from twinguide_calibration import PivotFit, calibrate_pivot, compare_pivots
from twinguide_calibration.reading import Track, relative, without_repeats

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Swing:
    """One recording: the tool's poses, told in the frame in which the point stands still, and their fit."""

    track: Track
    fit: PivotFit
    notes: tuple[str, ...]


def pivot(paths: tuple[Path, ...], tool: str, reference: str, p95_max_mm: float) -> Outcome:
    """Calibrate a tip from one recording, or from several about different points, which must agree.

    `tool` names the track, or is empty where there is one only; `reference` names a body on which the point stands
    still, or is empty where that is the tracker. Raises CalibrationError with reason and remedy.
    """
    swings = [_swing(path, tool, reference, p95_max_mm) for path in paths]
    best = min(swings, key=lambda swing: swing.fit.tip_p95)
    fit, track = best.fit, best.track
    agreement: tuple[tuple[str, str], ...] = ()
    tip, tip_covariance = fit.tip, fit.covariance[:3, :3]
    if len(swings) > 1:
        with refusals():
            together = compare_pivots([swing.fit for swing in swings])
        apart = ", ".join(f"{1e3 * d:.2f}" for d in together.distances)
        if not together.consistent:
            raise CalibrationError(
                "tips of several recordings that agree",
                f"{apart} mm from their mean, which chance explains with {together.probability:.1e}",
                ", ".join(path.name for path in paths),
                "The tip bent or slipped in one of them, or another tool was recorded: record anew.",
            )
        tip, tip_covariance = together.tip, together.covariance
        agreement = (("recordings agree", f"{apart} mm from their mean (p = {together.probability:.2f})"),)
    result = PivotResult(
        of=track.source,
        sources=hashed(paths),
        samples=len(track),
        rejected=tuple(int(track.frames[row]) for row in fit.rejected),
        residuals=tuple((1e3 * fit.residuals).tolist()),
        notes=shortened(tuple(note for swing in swings for note in swing.notes)),
        tip_mm=_vector(1e3 * tip),
        tip_covariance_mm2=symmetric(1e6 * tip_covariance),  # pyright: ignore[reportArgumentType]
        tip_p95_mm=1e3 * max(fit.tip_p95, p95_from_covariance(tip_covariance)),
        systematic_p95_mm=1e3 * fit.systematic_p95,
        pivot_mm=_vector(1e3 * fit.pivot),
        pivot_in=track.target,
        swing_deg=float(np.degrees(fit.swing_rad)),
        sigma_mm=1e3 * float(fit.sigma),
        freedom=float(fit.freedom),
        covariance=symmetric(fit.covariance),
        **stamp(),
    )
    return Outcome(result, (*_table(result, fit), *agreement), partial(draw_pivot, track, fit))


def _swing(path: Path, tool: str, reference: str, p95_max_mm: float) -> Swing:
    recording = open_poses(path)
    with refusals():
        track = recording.track(tool) if tool else recording.only()
        if reference:
            track = relative(track, recording.track(reference))
        track, repeats = without_repeats(track)
        matrices = np.tile(np.eye(4), (len(track), 1, 1))
        matrices[:, :3, :3], matrices[:, :3, 3] = track.rotations, track.translations
        fit = calibrate_pivot(matrices, p95_max=p95_max_mm * 1e-3)
    mine = [note for note in recording.notes if track.source in note or "_from_" not in note]
    repeated = [f"{track.name}: {repeats} poses repeat the one before to the last digit, left out"] * bool(repeats)
    return Swing(track, fit, (*mine, *repeated, *fit.notes))


def _table(result: PivotResult, fit: PivotFit) -> tuple[tuple[str, str], ...]:
    sigma = np.sqrt(np.diag(np.array(result.tip_covariance_mm2)))
    residuals = np.delete(np.array(result.residuals), fit.rejected)
    return (
        ("tip", f"{_told(result.tip_mm)} mm in {result.of}"),
        ("1 sigma", f"{_told(tuple(sigma))} mm"),
        ("95 % of tips within", f"{result.tip_p95_mm:.3f} mm"),
        ("and the tracker's slow error", f"{result.systematic_p95_mm:.3f} mm at this swing, if it is 0.05 mm"),
        ("pivot", f"{_told(result.pivot_mm)} mm in {result.pivot_in}"),
        ("swing", f"{result.swing_deg:.0f} deg from the middle"),
        ("residual", f"{np.sqrt((residuals**2).mean()):.3f} mm rms, {residuals.max():.3f} mm at most"),
        ("samples", f"{result.samples}, {len(result.rejected)} rejected; worth {fit.freedom:.0f} independent numbers"),
    )


def _told(values: tuple[float, ...]) -> str:
    return "  ".join(f"{value:.3f}" for value in values)


def _vector(values: Array) -> tuple[float, float, float]:
    return rows_of(values[None])[0]  # pyright: ignore[reportReturnType]

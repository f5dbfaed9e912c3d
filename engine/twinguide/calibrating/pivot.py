"""A tool's tip from recordings in which it is swung about a point that stands still."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation  # pyright: ignore[reportMissingTypeStubs]

from twinguide.calibrating.inputs import hashed, open_poses, refusals
from twinguide.calibrating.outcome import Outcome, shortened
from twinguide.calibrating.picture import draw_pivot
from twinguide.calibrating.result import Divot, PivotResult, Source, rows_of, stamp, symmetric
from twinguide.errors import CalibrationError
from twinguide_calibration import CalibrationRefused, PivotConsistency, PivotFit, calibrate_pivot, compare_pivots
from twinguide_calibration.pivot import SIDES
from twinguide_calibration.reading import Track, relative, without_repeats
from twinguide_calibration.rigid import compose

Array = NDArray[np.float64]
EXCHANGED = {"x and y": (1, 0, 2), "y and z": (0, 2, 1), "z and x": (2, 1, 0)}
LONGEST_MM = 500.0  # of a tool that a hand swings


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
    sources, names = hashed(paths), ", ".join(path.name for path in paths)
    if len({source.sha256 for source in sources}) < len(sources):
        raise CalibrationError("recordings of their own", "one twice", names, "Swing again, about another point.")
    _one_tool(swings, names)
    together = compare_pivots([swing.fit for swing in swings])
    apart = ", ".join(f"{1e3 * d:.2f}" for d in together.distances)
    if not together.consistent:
        raise CalibrationError(
            "tips of several recordings that agree",
            f"{apart} mm from their mean, which chance explains with {together.probability:.1e}",
            names,
            "The tip bent or slipped in one of them, or another tool was recorded: record anew.",
        )
    divots = tuple(
        divot_of(path.name, swing.track.target, swing.fit, together, swing.track.frames)
        for path, swing in zip(paths, swings, strict=True)
    )
    notes = shortened(tuple(note for swing in swings for note in swing.notes))
    fits = tuple(swing.fit for swing in swings)
    result = result_of(swings[0].track.source, divots, fits, together, sources, notes)
    return Outcome(result, _table(result), partial(draw_pivot, [swing.track for swing in swings], fits, together))


def _one_tool(swings: list[Swing], names: str) -> None:
    tools = sorted({swing.track.source for swing in swings})
    if len(tools) > 1:
        raise CalibrationError("one tool in all recordings", ", ".join(tools), names, "Name it with --tool.")


def divot_of(file: str, target: str, fit: PivotFit, together: PivotConsistency, frames: NDArray[np.int64]) -> Divot:
    """Return one swing as a result tells it; `frames` (n,) are the rows of its file."""
    return Divot(
        file=file,
        samples=int(np.isfinite(fit.residuals).sum()),
        rejected=tuple(frames[fit.rejected].tolist()),
        tip_mm=_vector(1e3 * fit.tip),
        apart_mm=1e3 * float(np.linalg.norm(fit.tip - together.tip)),
        pivot_mm=_vector(1e3 * fit.pivot),
        pivot_in=target,
        swing_deg=float(np.degrees(fit.swing_rad)),
        sides=fit.sides,
        sigma_mm=1e3 * fit.sigma,
        covariance=symmetric(fit.covariance),
    )


def result_of(
    tool: str,
    divots: tuple[Divot, ...],
    fits: tuple[PivotFit, ...],
    together: PivotConsistency,
    sources: tuple[Source, ...],
    notes: tuple[str, ...],
) -> PivotResult:
    """Return a tool's tip, of all its swings together, as scenarios read it."""
    known = [np.isfinite(fit.residuals) for fit in fits]
    residuals = [1e3 * fit.residuals[there] for fit, there in zip(fits, known, strict=True)]
    out = [np.isin(np.flatnonzero(there), fit.rejected) for fit, there in zip(fits, known, strict=True)]
    return PivotResult(
        of=tool,
        sources=sources,
        samples=sum(divot.samples for divot in divots),
        rejected=tuple(np.flatnonzero(np.concatenate(out)).tolist()),
        residuals=tuple(np.concatenate(residuals).tolist()),
        notes=notes,
        tip_mm=_vector(1e3 * together.tip),
        tip_covariance_mm2=symmetric(1e6 * together.covariance),  # pyright: ignore[reportArgumentType]
        tip_p95_mm=1e3 * together.tip_p95,
        systematic_p95_mm=1e3 * together.systematic_p95,
        freedom=together.freedom,
        agreement=together.probability,
        divots=divots,
        **stamp(),
    )


def _swing(path: Path, tool: str, reference: str, p95_max_mm: float) -> Swing:
    recording = open_poses(path)
    with refusals():
        track = recording.track(tool) if tool else recording.only()
        if reference:
            track = relative(track, recording.track(reference))
        track, repeats = without_repeats(track)
        fit = _fitted(compose(track.rotations, track.translations), p95_max_mm * 1e-3)
    mine = [note for note in recording.notes if track.source in note or "_from_" not in note]
    repeated = [f"{track.name}: {repeats} poses repeat another to the last digit, left out"] * bool(repeats)
    length, away = _lengths_mm(fit)
    inverse = (
        f"the tip is {length:.0f} mm from its marker, its point {away:.0f} mm from the tracker: are the poses inverse?"
    )
    return Swing(track, fit, (*mine, *repeated, *fit.notes, *[inverse] * (length > away and not reference)))


def _lengths_mm(fit: PivotFit) -> tuple[float, float]:
    """Return how far the tip is from its marker and the point from the tracker: inverse poses swap the two."""
    return 1e3 * float(np.linalg.norm(fit.tip)), 1e3 * float(np.linalg.norm(fit.pivot))


def _fitted(poses: Array, p95_max: float) -> PivotFit:
    """Return the fit; where it is refused but would not be for poses told in another way, say in which."""
    try:
        fit = calibrate_pivot(poses, p95_max=p95_max)
        length, away = _lengths_mm(fit)
        if length > max(LONGEST_MM, away):
            raise CalibrationRefused(
                f"a tip {length:.0f} mm from its marker, about a point {away:.0f} mm from the tracker",
                "The poses are the inverse ones: tool_from_tracker was given as tracker_from_tool.",
            )
        return fit
    except CalibrationRefused as error:
        for told, other in _told_otherwise(poses):
            try:
                fit = calibrate_pivot(other, p95_max=p95_max)
            except CalibrationRefused:
                continue
            if _lengths_mm(fit)[0] > LONGEST_MM:
                continue
            left = f"{told} would leave a residual of {1e3 * fit.sigma:.2g} mm: the file's format is another."
            raise CalibrationRefused(error.reason, left) from error
        raise


def _told_otherwise(poses: Array) -> list[tuple[str, Array]]:
    """Return what the usual mistakes make of poses, each undone."""
    places, quaternions = poses[:, :3, 3], Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    rolled = Rotation.from_quat(np.roll(quaternions, -1, axis=1)).as_matrix()
    axes = [
        *((f"Places with {names} exchanged", np.eye(3)[list(order)]) for names, order in EXCHANGED.items()),
        *(
            (f"Places with {name} reversed", np.eye(3) - 2.0 * np.diag(row))
            for name, row in zip("xyz", np.eye(3), strict=True)
        ),
    ]
    return [
        ("Rotations transposed", compose(poses[:, :3, :3].transpose(0, 2, 1), places)),
        ("Quaternions in the order w, x, y, z", compose(rolled, places)),
        *((told, compose(poses[:, :3, :3], places @ axis.T)) for told, axis in axes),
    ]


def _table(result: PivotResult) -> tuple[tuple[str, str], ...]:
    sigma = np.sqrt(np.diag(np.array(result.tip_covariance_mm2)))
    residuals = np.delete(np.array(result.residuals), result.rejected)
    several = len(result.divots) > 1
    apart = ", ".join(f"{divot.apart_mm:.2f}" for divot in result.divots)
    return (
        ("tip", f"{_told(result.tip_mm)} mm in {result.of}" + ", of all recordings together" * several),
        ("1 sigma", f"{_told(tuple(sigma))} mm"),
        ("95 % of tips within", f"{result.tip_p95_mm:.3f} mm"),
        ("and the tracker's slow error", f"{result.systematic_p95_mm:.3f} mm at this swing, if it is 0.05 mm"),
        *((("recordings agree", f"{apart} mm from that tip (p = {result.agreement:.2f})"),) if several else ()),
        *(row for divot in result.divots for row in _divot(divot, several)),
        ("residual", f"{np.sqrt((residuals**2).mean()):.3f} mm rms, {residuals.max():.3f} mm at most"),
        (
            "samples",
            f"{result.samples}, {len(result.rejected)} rejected; worth {result.freedom:.0f} independent numbers",
        ),
    )


def _divot(divot: Divot, several: bool) -> tuple[tuple[str, str], ...]:
    of = f", {divot.file}" if several else ""
    own = (f"tip{of}", f"{_told(divot.tip_mm)} mm, {divot.samples} samples, {len(divot.rejected)} rejected")
    return (
        *((own,) if several else ()),
        (f"pivot{of}", f"{_told(divot.pivot_mm)} mm in {divot.pivot_in}"),
        (f"swing{of}", f"{divot.swing_deg:.0f} deg from the middle, to {divot.sides} of {SIDES} sides"),
    )


def _told(values: tuple[float, ...]) -> str:
    return "  ".join(f"{value:.3f}" for value in values)


def _vector(values: Array) -> tuple[float, float, float]:
    return rows_of(values[None])[0]  # pyright: ignore[reportReturnType]

"""The pictures of a calibration: how the samples fit, and what they cover."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from twinguide_calibration import tre_covariance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twinguide_calibration import (
        ClockFit,
        HandEyeFit,
        LagFit,
        PivotConsistency,
        PivotFit,
        RigidFit,
        SurfaceFit,
        SurfaceModel,
    )
    from twinguide_calibration.boards import BoardView
    from twinguide_calibration.camera import CameraFit
    from twinguide_calibration.reading import NamedPoints, PointPairs, Track

Array = NDArray[np.float64]
KEPT, REJECTED, TARGET = "#1b6ca8", "#d1495b", "#2a9d4a"
SHOWN_S = 1.5  # of two streams, to either side of where they are liveliest
CHI2_2D = 5.991  # 95 % of a plane normal


def figure(title: str, *projections: str) -> tuple[Any, list[Any]]:
    """Return a figure of axes side by side (`rectilinear` or `polar`), without any window."""
    made: Any = Figure(figsize=(5.0 * len(projections), 4.4), dpi=110, layout="constrained")
    FigureCanvasAgg(made)
    made.suptitle(title)
    count = len(projections)
    return made, [made.add_subplot(1, count, i + 1, projection=name) for i, name in enumerate(projections)]


def save(made: Any, path: Path) -> None:  # noqa: ANN401 - matplotlib's types are partly unknown
    """Write a figure as PNG."""
    made.savefig(path)


def draw_residuals(axes: Any, residuals: Array, rejected: Any, unit: str, what: str) -> None:  # noqa: ANN401
    """Draw residuals over the samples' order; the rejected ones apart, shape (n,)."""
    out = np.zeros(len(residuals), dtype=bool)
    out[np.asarray(rejected, dtype=int)] = True
    order = np.arange(len(residuals))
    axes.plot(order[~out], residuals[~out], ".", color=KEPT, markersize=4, label=f"{(~out).sum()} kept")
    top = 2.0 * float(np.nanmax(residuals[~out], initial=1e-6))  # what is far off is drawn at the rim
    if out.any():
        worst = f"{out.sum()} rejected, up to {np.nanmax(residuals[out]):.3g} {unit}"
        axes.plot(order[out], np.minimum(residuals[out], top), "x", color=REJECTED, label=worst)
    rms = float(np.sqrt((residuals[~out] ** 2).mean()))
    axes.axhline(rms, color="0.4", linewidth=0.8, label=f"rms {rms:.3g} {unit}")
    axes.set_xlabel(what)
    axes.set_ylabel(f"residual [{unit}]")
    axes.set_ylim(0.0, 1.05 * top)
    axes.legend(loc="upper right", fontsize=8)


def draw_pivot(tracks: Sequence[Track], fits: Sequence[PivotFit], together: PivotConsistency, path: Path) -> None:
    """Draw a pivot calibration: residuals, and which directions the tool was swung through, recording by recording."""
    title = f"Pivot of {tracks[0].source}: 95 % of tips within {1e3 * together.tip_p95:.2f} mm"
    made, (left, right) = figure(title, "rectilinear", "polar")
    rejected: list[int] = []
    first = 0
    for track, fit in zip(tracks, fits, strict=True):
        rejected += (first + fit.rejected).tolist()
        first += len(fit.residuals)
        _draw_swing(right, track.rotations, fit)
    draw_residuals(left, 1e3 * np.concatenate([fit.residuals for fit in fits]), np.array(rejected), "mm", "sample")
    swings = ", ".join(f"{np.degrees(fit.swing_rad):.0f}" for fit in fits)
    right.set_title(f"the shaft's directions [deg from their middle]; swing {swings}", fontsize=9)
    right.set_rmin(0.0)
    save(made, path)


def _draw_swing(axes: Any, rotations: Array, fit: PivotFit) -> None:  # noqa: ANN401 - matplotlib's types
    length = float(np.linalg.norm(fit.tip))
    axis = fit.tip / length if length > 1e-6 else np.array([0.0, 0.0, 1.0])
    shafts = rotations @ axis
    middle = shafts.mean(axis=0)
    middle /= max(float(np.linalg.norm(middle)), 1e-12)
    away = np.degrees(np.arccos(np.clip(shafts @ middle, -1.0, 1.0)))
    across = np.linalg.svd(middle[None])[2][1:]
    around = np.arctan2(shafts @ across[1], shafts @ across[0])
    used = np.ones(len(away), dtype=bool)
    used[np.asarray(fit.rejected, dtype=int)] = False
    axes.plot(around[used], away[used], ".", color=KEPT, markersize=4)
    axes.plot(around[~used], away[~used], "x", color=REJECTED)


def draw_points(pairs: PointPairs, fit: RigidFit, told: NamedPoints | None, path: Path) -> None:
    """Draw a registration: each pair's residual, and the layout with the 95 % region at points and targets."""
    made, (left, right) = figure(
        f"Points: FRE {1e3 * fit.fre_rms:.2f} mm rms (says nothing about the target)", "rectilinear", "rectilinear"
    )
    order = np.arange(len(pairs.names))
    left.bar(order, 1e3 * fit.residuals, color=KEPT)
    left.axhline(1e3 * fit.fre_rms, color="0.4", linewidth=0.8)
    left.set_xticks(order, pairs.names, rotation=60, fontsize=7)
    left.set_ylabel("residual [mm]")
    plane = np.linalg.svd(pairs.source - pairs.source.mean(axis=0))[2][:2]  # the layout's two widest directions
    middle = pairs.source.mean(axis=0)
    _regions(right, fit, pairs.source, plane, middle, KEPT, "points")
    if told is not None:
        _regions(right, fit, told.points, plane, middle, TARGET, "targets")
    right.set_aspect("equal", adjustable="datalim")
    right.set_xlabel("along the layout's longest extent [mm]")
    right.set_ylabel("across [mm]")
    right.set_title("95 % regions of the error, ten times enlarged", fontsize=9)
    right.legend(fontsize=8)
    save(made, path)


def _regions(axes: Any, fit: RigidFit, points: Array, plane: Array, middle: Array, colour: str, name: str) -> None:  # noqa: ANN401
    flat = 1e3 * (points - middle) @ plane.T
    axes.plot(*flat.T, ".", color=colour, label=name)
    turn = np.linspace(0.0, 2.0 * np.pi, 60)
    circle = np.stack([np.cos(turn), np.sin(turn)])
    into = plane @ fit.rotation.T  # the error is told in target
    for place, covariance in zip(flat, tre_covariance(fit, points), strict=True):
        values, vectors = np.linalg.eigh(1e6 * into @ covariance @ into.T)
        ring = vectors @ (np.sqrt(np.maximum(values, 0.0) * CHI2_2D)[:, None] * circle)
        axes.plot(*(place[:, None] + 10.0 * ring), color=colour, linewidth=0.8)


def draw_camera(names: Sequence[str], views: Sequence[BoardView], fit: CameraFit, path: Path) -> None:
    """Draw a camera calibration: each picture's residual, and where in the picture corners were seen."""
    made, (left, right) = figure(f"Camera: {fit.rms_px:.2f} px rms", "rectilinear", "rectilinear")
    out = np.isin(np.arange(len(names)), fit.rejected)
    tall = np.where(np.isfinite(fit.residuals), fit.residuals, 0.0)
    top = 2.0 * float(tall[~out].max())
    left.bar(np.arange(len(names)), np.minimum(tall, top), color=[REJECTED if o else KEPT for o in out])
    for row in np.flatnonzero(tall > top):  # a bar cut off tells its height
        left.text(row, top, f"{tall[row]:.1f}", ha="center", va="bottom", fontsize=7)
    left.axhline(fit.rms_px, color="0.4", linewidth=0.8)
    left.set_xticks(np.arange(len(names)), names, rotation=75, fontsize=6)
    left.set_ylabel("residual [px]; rejected ones red, seen from outside")
    width, height = fit.camera.size
    for view, rejected in zip(views, out, strict=True):
        colour = REJECTED if rejected else KEPT
        right.plot(*view.pixels.T, "." if not rejected else "x", color=colour, markersize=2.5, alpha=0.6)
    right.set_xlim(0, width)
    right.set_ylim(height, 0)
    right.set_aspect("equal")
    right.set_title(f"corners seen in {100 * fit.covered:.0f} % of the picture [px]", fontsize=9)
    save(made, path)


def draw_handeye(of: str, fit: HandEyeFit, path: Path) -> None:
    """Draw a hand-eye calibration: how far the two sides miss each other, in place and in turn."""
    made, (left, right) = figure(f"{of}: second turning axis {fit.axis_spread:.0%} of the first", *["rectilinear"] * 2)
    known = np.isfinite(fit.residuals)
    rejected = np.flatnonzero(np.isin(np.flatnonzero(known), fit.rejected))
    draw_residuals(left, 1e3 * fit.translation_residuals[known], rejected, "mm", "pair")
    draw_residuals(right, np.degrees(fit.rotation_residuals[known]), rejected, "deg", "pair")
    save(made, path)


def draw_lag(of: str, fit: LagFit, curves: tuple[Array, Array, Array, Array], by: str, path: Path) -> None:
    """Draw what was fitted, as recorded and with the lag taken off: stamps [s] of a and of b, and what each tells."""
    made, axes = figure(f"{of}: {1e3 * fit.lag_s:.1f} ms", "rectilinear", "rectilinear")
    times_a, times_b, told_a, told_b = curves
    fastest = int(np.argmax(np.abs(np.gradient(told_b, times_b))))  # about the liveliest moment a lag can be seen
    middle = float(times_b[fastest])
    near = np.abs(times_b - middle) < SHOWN_S
    for axis, shift, title in zip(axes, (0.0, fit.lag_s), ("as recorded", "with the lag taken off"), strict=True):
        shown = np.abs(times_a + shift - middle) < SHOWN_S
        name = "a" if by == "turning" else "b, as a's poses tell it"
        axis.plot(times_a[shown] + shift, told_a[shown], color=KEPT, label=name, linewidth=1.0)
        axis.plot(times_b[near], told_b[near], color=REJECTED, label="b", linewidth=1.0)
        axis.set_xlabel("time of b [s]")
        axis.set_ylabel("turned since the middle [deg]" if by == "turning" else "place of b [mm]")
        axis.set_title(title, fontsize=9)
        axis.legend(fontsize=8)
    save(made, path)


def draw_clock(of: str, device_s: Array, fit: ClockFit, path: Path) -> None:
    """Draw how late each stamp arrived behind the line, over time and as a distribution."""
    made, (left, right) = figure(f"{of}: {1e6 * fit.drift:+.1f} ppm", "rectilinear", "rectilinear")
    known = np.isfinite(fit.residuals)
    late = 1e3 * fit.residuals[known]
    left.plot(device_s[known], late, ".", color=KEPT, markersize=2)
    left.axhline(0.0, color="0.4", linewidth=0.8)
    left.set_xlabel("device [s]")
    left.set_ylabel("late [ms]")
    right.hist(late, bins=60, color=KEPT)
    right.set_xlabel("late [ms]")
    save(made, path)


def draw_surface(points: Array, model: SurfaceModel, fit: SurfaceFit, path: Path) -> None:
    """Draw a surface registration: residuals, and the points on the model along its shortest extent."""
    made, (left, right) = figure(f"Surface: {1e3 * fit.sigma:.2f} mm (1 sigma)", "rectilinear", "rectilinear")
    known = np.isfinite(fit.residuals)
    rejected = np.flatnonzero(np.isin(np.flatnonzero(known), fit.rejected))
    draw_residuals(left, 1e3 * np.abs(fit.residuals[known]), rejected, "mm", "point")
    plane = np.linalg.svd(model.samples - model.samples.mean(axis=0), full_matrices=False)[2][:2]
    placed = points @ fit.transform[:3, :3].T + fit.transform[:3, 3]
    right.plot(*(1e3 * model.samples @ plane.T).T, ".", color="0.8", markersize=1.5, label="model")
    right.plot(*(1e3 * placed @ plane.T).T, ".", color=KEPT, markersize=3, label="points")
    right.plot(*(1e3 * placed[fit.rejected] @ plane.T).T, "x", color=REJECTED, markersize=4, label="rejected")
    right.set_aspect("equal", adjustable="datalim")
    right.set_xlabel("along the model [mm]")
    right.legend(fontsize=8)
    save(made, path)

"""A camera's intrinsics and distortion from pictures of a board, with pictures that do not belong left out.

The fit is OpenCV's (Zhang 2000), under its five-parameter distortion, of which k3, then k2, stay 0 where the pictures
do not tell them. A picture is judged by a fit that did not see it:
one blurred or mislabelled picture pulls a fit towards itself and so hides among its own residuals.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from twinguide_calibration.board_pose import board_pose
from twinguide_calibration.boards import BoardView, Camera
from twinguide_calibration.camera_fit import (
    CHANGED,
    CONTRADICT,
    WORTH_TELLING,
    Errors,
    Solved,
    check_camera,
    pixel_p95,
    solve_camera,
    tell_distortion,
)
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Ints

VIEWS_LEAST = 4
CORNERS_LEAST = 6
SUSPECT = 1.7  # times the median residual: looked at by a fit without it
OUTSIDE = 2.5  # times the other pictures' residual: left out
LEFT_OUT_MOST = 1.0 / 3.0
RMS_MAX_PX = 1.0
CORNER_MOST = 0.01  # of the picture's diagonal: what 95 % of errors at its corners may be untold
COVERED_LEAST = 0.4  # of the picture's area: below it the distortion near the rim is not known
CELLS = 8  # a side, in which coverage is counted


@dataclass(frozen=True, slots=True, eq=False)
class CameraFit:
    """A calibrated camera with its error."""

    camera: Camera
    covariance: Array  # (9, 9) of fx, fy, cx, cy [px] and k1, k2, p1, p2, k3; 0 of what stays 0
    centre_p95_px: float  # what 95 % of errors are within in the picture's middle ...
    corner_p95_px: float  # ... and at the worst of its corners
    residuals: Array  # (views,) [px], rms of each picture; of a rejected one by a fit that did not see it, or inf
    rejected: Ints  # rows of the input
    rms_px: float  # over the corners of the pictures kept
    covered: float  # share of the picture in which corners were seen
    tilt_rad: float  # the largest angle between two of the board's normals
    poses: Array  # (views, 4, 4) camera_from_board; NaN where rejected
    notes: tuple[str, ...]

    @property
    def sigma(self) -> Array:
        """Return 1 sigma of each value, shape (9,)."""
        return np.sqrt(np.diag(self.covariance))


def calibrate_camera(
    views: Sequence[BoardView], size: tuple[int, int], rms_max_px: float = RMS_MAX_PX, names: Sequence[str] = ()
) -> CameraFit:
    """Return intrinsics and distortion from views of one flat board; `size` is (width, height) [px].

    `names` are what the notes call the views, their rows by default. Raises CalibrationRefused for fewer than 4 usable
    views, boards that were hardly tilted, more than a third of the pictures rejected, and residuals beyond
    `rms_max_px` [px], as a wrong board layout leaves them.
    """
    names = names or [str(row) for row in range(len(views))]
    notes: list[str] = []
    rows = _usable(views, names, notes)
    if len(rows) < VIEWS_LEAST:
        raise CalibrationRefused(
            f"wanted at least {VIEWS_LEAST} different pictures of the board; got {len(rows)} of {len(views)}",
            "Take ten or more, from all sides, the board filling the picture.",
        )
    kept = list(rows)
    outside: dict[int, float] = {}
    solved = solve_camera([views[row] for row in kept], size, None)
    while len(kept) > VIEWS_LEAST:
        row, value, without = _worst(views, kept, solved, size)
        if row < 0:
            break
        outside[row], solved = value, without
        kept.remove(row)
    if len(outside) > LEFT_OUT_MOST * len(rows):
        raise CalibrationRefused(
            f"{len(outside)} of {len(rows)} pictures do not agree with the others",
            "Check that the board is flat and its layout right, none blurred, and that zoom and focus stood still.",
        )
    if outside:
        notes.append(
            f"contradicted by the other pictures, left out: {', '.join(names[row] for row in sorted(outside))}"
        )
    solved, errors = tell_distortion([views[row] for row in kept], size, solved, notes)
    check_camera(solved.camera, errors, rms_max_px)
    if errors.widening > WORTH_TELLING:
        notes.append(f"{CONTRADICT}: their deviations were widened {errors.widening:.1f} times. {CHANGED}")
    covered = _covered([views[row] for row in kept], size)
    if covered < COVERED_LEAST:
        notes.append(f"corners were seen in {100 * covered:.0f} % of the picture: beyond, the distortion is a guess")
    return _fit(solved, errors, views, kept, outside, covered, notes)


def _fit(
    solved: Solved,
    errors: Errors,
    views: Sequence[BoardView],
    kept: list[int],
    outside: dict[int, float],
    covered: float,
    notes: list[str],
) -> CameraFit:
    count = len(views)
    residuals, poses = np.full(count, np.nan), np.full((count, 4, 4), np.nan)
    residuals[kept], poses[kept] = solved.residuals, solved.poses
    for row, value in outside.items():
        residuals[row] = value
    unseen: list[int] = np.flatnonzero(np.isnan(residuals)).tolist()
    for row in unseen:
        residuals[row] = _seen_from_outside(views[row], solved.camera)
    rejected = np.array(sorted(set(range(count)) - set(kept)), dtype=np.int64)
    normals = solved.poses[:, :3, 2]
    tilt = float(np.arccos(np.clip(normals @ normals.T, -1.0, 1.0)).max())
    middle, corner = pixel_p95(solved.camera, errors.covariance)
    most = CORNER_MOST * float(np.hypot(*solved.camera.size))
    if corner > most:
        notes.append(
            f"95 % within {corner:.1f} px at the picture's corners, wanted {most:.1f} px: take pictures in which the "
            "board reaches the corners, tilted by 30 deg and more"
        )
    return CameraFit(
        camera=solved.camera,
        covariance=errors.covariance,
        centre_p95_px=middle,
        corner_p95_px=corner,
        residuals=residuals,
        rejected=rejected,
        rms_px=errors.rms,
        covered=covered,
        tilt_rad=tilt,
        poses=poses,
        notes=(*notes,),
    )


def _usable(views: Sequence[BoardView], names: Sequence[str], notes: list[str]) -> list[int]:
    """Return the rows with enough corners that do not repeat an earlier picture; note the others by name."""
    rows: list[int] = []
    few: list[str] = []
    repeats: list[str] = []
    for row, view in enumerate(views):
        spread = np.linalg.svd(view.points - view.points.mean(axis=0), compute_uv=False) if len(view.ids) else [0, 0]
        if len(view.ids) < CORNERS_LEAST or spread[1] < 1e-2 * spread[0]:
            few.append(names[row])
        elif any(_same(view, views[other]) for other in rows):
            repeats.append(names[row])
        else:
            rows.append(row)
    told = f"fewer than {CORNERS_LEAST} corners, or all on a line, left out: {', '.join(few)}"
    notes += [told] * bool(few) + [f"the same as another, left out: {', '.join(repeats)}"] * bool(repeats)
    return rows


def _same(one: BoardView, other: BoardView) -> bool:
    """Tell whether two pictures show the board at the same place: no new information."""
    if len(one.ids) != len(other.ids) or (one.ids != other.ids).any():
        return False
    return bool(np.abs(one.pixels - other.pixels).max() < 0.02)


def _worst(
    views: Sequence[BoardView], kept: list[int], solved: Solved, size: tuple[int, int]
) -> tuple[int, float, Solved]:
    """Return the picture that the others contradict most, its residual under their fit, and that fit; or row -1."""
    usual = float(np.median(solved.residuals))
    largest: list[int] = np.argsort(solved.residuals)[::-1][:3].tolist()
    suspects = [i for i in largest if solved.residuals[i] > SUSPECT * usual]
    for i in suspects:
        rest = [row for row in kept if row != kept[i]]
        without = solve_camera([views[row] for row in rest], size, solved.camera)
        value = _seen_from_outside(views[kept[i]], without.camera)
        if value > OUTSIDE * float(np.sqrt((without.residuals**2).mean())):
            return kept[i], value, without
    return -1, 0.0, solved


def _seen_from_outside(view: BoardView, camera: Camera) -> float:
    """Return the rms residual [px] of a picture under a camera that was not fitted to it."""
    try:
        return board_pose(view, camera, residual_max_px=np.inf).rms_px
    except CalibrationRefused:
        return float("inf")


def _covered(views: Sequence[BoardView], size: tuple[int, int]) -> float:
    """Return the share of the picture's cells in which a corner was seen."""
    pixels = np.concatenate([view.pixels for view in views])
    cells = np.floor(pixels / np.array(size) * CELLS).astype(int)
    inside = cells[((cells >= 0) & (cells < CELLS)).all(axis=1)]
    return len(np.unique(inside, axis=0)) / CELLS**2


def read_camera(path: Path) -> Camera:
    """Return the camera of a result file of `twinguide calibrate camera`; raise CalibrationRefused naming the fault."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        matrix = np.array(tables["matrix_px"], dtype=np.float64)
        distortion = np.array(tables["distortion"], dtype=np.float64)
        width, height = (int(value) for value in tables["image_size_px"])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise CalibrationRefused(
            f"wanted the result file of a camera; got {type(error).__name__}: {error}; in {path}",
            "Make it by `twinguide calibrate camera`.",
        ) from error
    whole = matrix.shape == (3, 3) and distortion.shape == (5,) and min(width, height) > 0
    if not whole or not np.isfinite(matrix).all() or not np.isfinite(distortion).all():
        raise CalibrationRefused(f"wanted a matrix of 3x3 and 5 numbers of distortion, finite; got others; in {path}")
    return Camera(matrix, distortion, (width, height))

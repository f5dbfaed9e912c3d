"""A camera's intrinsics and distortion from pictures of a board, with pictures that do not belong left out.

The fit is OpenCV's (Zhang 2000), under its five-parameter distortion. A picture is judged by a fit that did not see it:
one blurred or mislabelled picture pulls a fit towards itself and so hides among its own residuals.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from twinguide_calibration.board_pose import board_pose
from twinguide_calibration.boards import BoardView, Camera
from twinguide_calibration.parts import birge_ratio
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Ints

VIEWS_LEAST = 4
CORNERS_LEAST = 6
SUSPECT = 1.7  # times the median residual: looked at by a fit without it
OUTSIDE = 2.5  # times the other pictures' residual: left out
LEFT_OUT_MOST = 1.0 / 3.0
RMS_MAX_PX = 1.0
FOCAL_SIGMA_MAX = 0.01  # of the focal length: beyond it the board was not tilted enough
COVERED_LEAST = 0.4  # of the picture's area: below it the distortion near the rim is not known
OPEN = 1e-12  # of the largest eigenvalue: what the pictures leave open
WORTH_TELLING = 2.0  # times the deviations were widened
IN_PART = 2  # pictures, of each part that is compared with the others
CONTRADICT = "earlier and later pictures contradict one another"
CHANGED = "Did zoom, focus or camera change, is the board bowed, or the lens wider than 120 deg?"
CELLS = 8  # a side, in which coverage is counted
FINISHED = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-9)


@dataclass(frozen=True, slots=True, eq=False)
class CameraFit:
    """A calibrated camera with its error."""

    camera: Camera
    sigma: Array  # (9,) 1 sigma of fx, fy, cx, cy [px] and k1, k2, p1, p2, k3
    residuals: Array  # (views,) [px], rms of each picture; of a rejected one by a fit that did not see it, or inf
    rejected: Ints  # rows of the input
    rms_px: float  # over the corners of the pictures kept
    covered: float  # share of the picture in which corners were seen
    tilt_rad: float  # the largest angle between two of the board's normals
    poses: Array  # (views, 4, 4) camera_from_board; NaN where rejected
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Solved:
    camera: Camera
    residuals: Array
    poses: Array


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
    solved = _solve([views[row] for row in kept], size, None)
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
    rms, sigma, widening = _errors(solved, [views[row] for row in kept])
    _check(solved.camera, sigma, rms, rms_max_px, widening)
    if widening > WORTH_TELLING:
        notes.append(f"{CONTRADICT}: their deviations were widened {widening:.1f} times. {CHANGED}")
    covered = _covered([views[row] for row in kept], size)
    if covered < COVERED_LEAST:
        notes.append(f"corners were seen in {100 * covered:.0f} % of the picture: beyond, the distortion is a guess")
    return _fit(solved, sigma, views, kept, outside, rms, covered, notes)


def _fit(
    solved: _Solved,
    sigma: Array,
    views: Sequence[BoardView],
    kept: list[int],
    outside: dict[int, float],
    rms: float,
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
    return CameraFit(solved.camera, sigma, residuals, rejected, rms, covered, tilt, poses, tuple(notes))


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


def _solve(views: Sequence[BoardView], size: tuple[int, int], start: Camera | None) -> _Solved:
    objects = [view.points.astype(np.float32) for view in views]
    pixels = [view.pixels.astype(np.float32) for view in views]
    flags = 0 if start is None else cv2.CALIB_USE_INTRINSIC_GUESS
    matrix: Any = np.eye(3) if start is None else start.matrix.copy()
    bent: Any = np.zeros(5) if start is None else start.distortion.copy()
    try:
        _, matrix, bent, turns, moves, _, _, each = cv2.calibrateCameraExtended(
            objects, pixels, size, matrix, bent, flags=flags, criteria=FINISHED
        )
    except cv2.error as error:
        raise CalibrationRefused(
            f"OpenCV finds no camera ({' '.join(str(error).split())[:120]})", "Check the board's layout."
        ) from error
    poses = np.tile(np.eye(4), (len(views), 1, 1))
    for pose, turn, move in zip(poses, turns, moves, strict=True):
        pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(turn)[0], np.asarray(move).ravel()
    camera = Camera(np.asarray(matrix, dtype=np.float64), np.asarray(bent, dtype=np.float64).ravel()[:5], size)
    return _Solved(camera, np.asarray(each, dtype=np.float64).ravel(), poses)


def _worst(
    views: Sequence[BoardView], kept: list[int], solved: _Solved, size: tuple[int, int]
) -> tuple[int, float, _Solved]:
    """Return the picture that the others contradict most, its residual under their fit, and that fit; or row -1."""
    usual = float(np.median(solved.residuals))
    largest: list[int] = np.argsort(solved.residuals)[::-1][:3].tolist()
    suspects = [i for i in largest if solved.residuals[i] > SUSPECT * usual]
    for i in suspects:
        rest = [row for row in kept if row != kept[i]]
        without = _solve([views[row] for row in rest], size, solved.camera)
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


def _linear(view: BoardView, camera: Camera, pose: Array) -> tuple[Array, Array]:
    """Return one picture's residual (2n,) [px] and its Jacobian (2n, 15) over pose, fx, fy, cx, cy and distortion."""
    turn, _ = cv2.Rodrigues(pose[:3, :3])
    pixels, derivative = cv2.projectPoints(view.points, turn, pose[:3, 3].copy(), camera.matrix, camera.distortion)
    residual = (view.pixels - np.asarray(pixels, dtype=np.float64).reshape(-1, 2)).ravel()
    return residual, np.asarray(derivative, dtype=np.float64)[:, :15]


def _errors(solved: _Solved, views: Sequence[BoardView]) -> tuple[float, Array, float]:
    """Return the rms residual [px], 1 sigma of fx, fy, cx, cy and the distortion, shape (9,), and its widening.

    OpenCV's own deviations come from a pseudo-inverse that drops what the pictures leave open, as the focal length of a
    board never tilted; here that is infinite. Where parts of the pictures contradict one another, as under a lens of
    another kind or a zoom that moved, they are widened by as much.
    """
    held, pulled = np.zeros((len(views), 9, 9)), np.zeros((len(views), 9))
    squares, count = 0.0, 0
    for i, (view, pose) in enumerate(zip(views, solved.poses, strict=True)):
        residual, jacobian = _linear(view, solved.camera, pose)
        outer, inner = jacobian[:, :6], jacobian[:, 6:]
        across = np.linalg.lstsq(outer, inner, rcond=None)[0]  # what the pose takes over
        left = inner - outer @ across
        held[i], pulled[i] = left.T @ left, left.T @ residual
        squares, count = squares + float(residual @ residual), count + len(residual)
    information = held.sum(axis=0)
    scale = 1.0 / np.sqrt(np.maximum(np.diag(information), 1e-300))
    values, vectors = np.linalg.eigh(information * np.outer(scale, scale))
    rms = float(np.sqrt(2.0 * squares / count))
    if values[0] < OPEN * values[-1]:
        return rms, np.full(9, np.inf), 1.0
    variance = squares / max(count - 9 - 6 * len(views), 1)
    widening = float(np.sqrt(birge_ratio(held, pulled, variance, IN_PART)))
    return rms, widening * np.sqrt(variance * (vectors**2 / values).sum(axis=1)) * scale, widening


def _check(camera: Camera, sigma: Array, rms: float, rms_max_px: float, widening: float) -> None:
    if rms > rms_max_px:
        raise CalibrationRefused(
            f"the corners are {rms:.2f} px rms from where the camera puts them (at most {rms_max_px:g})",
            "Check the board's columns, rows, ids and flatness; a lens wider than about 120 deg needs another model.",
        )
    fx, fy, cx, cy = (float(camera.matrix[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    unsure = max(float(sigma[0]) / fx, float(sigma[1]) / fy)
    if unsure > FOCAL_SIGMA_MAX:
        raise CalibrationRefused(
            f"the focal length is unknown by {100 * unsure:.1f} % (1 sigma; at most {100 * FOCAL_SIGMA_MAX:g} %)"
            + f": {CONTRADICT}" * (widening > WORTH_TELLING),
            CHANGED
            if widening > WORTH_TELLING
            else "Tilt the board by 30 deg and more, about both axes, and take more pictures.",
        )
    if not (0.0 < cx < camera.size[0] and 0.0 < cy < camera.size[1]) or not 0.5 < fx / fy < 2.0:
        raise CalibrationRefused(
            f"no camera has fx {fx:.0f}, fy {fy:.0f} and its centre at {cx:.0f}, {cy:.0f} px of {camera.size}",
            "Check that all pictures are whole, of one camera, and neither cropped nor turned.",
        )


def _covered(views: Sequence[BoardView], size: tuple[int, int]) -> float:
    """Return the share of the picture's cells in which a corner was seen."""
    pixels = np.concatenate([view.pixels for view in views])
    cells = np.floor(pixels / np.array(size) * CELLS).astype(int)
    inside = cells[((cells >= 0) & (cells < CELLS)).all(axis=1)]
    return len(np.unique(inside, axis=0)) / CELLS**2


def read_camera(path: Path) -> Camera:
    """Return the camera of a result file of `twinguide calibrate camera`; raise CalibrationRefused naming the fault."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
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

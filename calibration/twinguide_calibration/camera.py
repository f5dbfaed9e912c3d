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
from typing import Any

import cv2
import numpy as np
from scipy.special import fdtri  # pyright: ignore[reportMissingTypeStubs]

from twinguide_calibration.board_pose import board_pose
from twinguide_calibration.boards import BoardView, Camera
from twinguide_calibration.error import p95_radius
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
CORNER_MOST = 0.01  # of the picture's diagonal: what 95 % of errors at its corners may be untold
EITHER = ((8, cv2.CALIB_FIX_K3, "k3"), (5, cv2.CALIB_FIX_K2, "k2"))  # rows that may stay 0, and how OpenCV is told
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


@dataclass(frozen=True, slots=True, eq=False)
class _Solved:
    camera: Camera
    residuals: Array
    poses: Array
    fixed: int = 0  # OpenCV's flags of what stays 0


@dataclass(frozen=True, slots=True, eq=False)
class _Errors:
    """How well a camera is known."""

    rms: float  # [px]
    covariance: Array  # (9, 9)
    widening: float  # of the deviations, by parts of the pictures that contradict one another
    squares: float  # [px2], summed over all corners
    freedom: int


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
    solved, errors = _told([views[row] for row in kept], size, solved, notes)
    _check(solved.camera, errors, rms_max_px)
    if errors.widening > WORTH_TELLING:
        notes.append(f"{CONTRADICT}: their deviations were widened {errors.widening:.1f} times. {CHANGED}")
    covered = _covered([views[row] for row in kept], size)
    if covered < COVERED_LEAST:
        notes.append(f"corners were seen in {100 * covered:.0f} % of the picture: beyond, the distortion is a guess")
    return _fit(solved, errors, views, kept, outside, covered, notes)


def _fit(
    solved: _Solved,
    errors: _Errors,
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
        solved.camera,
        errors.covariance,
        middle,
        corner,
        residuals,
        rejected,
        errors.rms,
        covered,
        tilt,
        poses,
        (*notes,),
    )


def pixel_p95(camera: Camera, covariance: Array) -> tuple[float, float]:
    """Return what 95 % of errors [px] are within where a known direction is seen: in the middle, at the worst corner.

    `covariance` (9, 9) is that of fx, fy, cx, cy, k1, k2, p1, p2, k3.
    """
    pixels = np.array([[0.5, 0.5], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]) * camera.size
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-6)
    seen = cv2.undistortPointsIter(pixels[:, None], camera.matrix, camera.distortion, np.eye(3), np.eye(3), criteria)
    rays = np.concatenate([np.asarray(seen, dtype=np.float64)[:, 0], np.ones((5, 1))], axis=1)
    back, derivative = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), camera.matrix, camera.distortion)
    jacobian = np.asarray(derivative, dtype=np.float64)[:, 6:15].reshape(5, 2, 9)
    told = p95_radius(jacobian @ covariance @ jacobian.swapaxes(1, 2))
    off = np.abs(np.asarray(back, dtype=np.float64)[:, 0] - pixels).max(axis=1)
    told[off > 1.0] = np.inf  # the distortion folds the picture over: no direction is seen there
    return float(told[0]), float(told[1:].max())


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


def _solve(views: Sequence[BoardView], size: tuple[int, int], start: Camera | None, fixed: int = 0) -> _Solved:
    objects = [view.points.astype(np.float32) for view in views]
    pixels = [view.pixels.astype(np.float32) for view in views]
    flags = fixed | (0 if start is None else cv2.CALIB_USE_INTRINSIC_GUESS)
    matrix: Any = np.eye(3) if start is None else start.matrix.copy()
    bent: Any = np.zeros(5) if start is None else start.distortion.copy()
    for row, flag, _ in EITHER:
        bent[row - 4] = 0.0 if fixed & flag else bent[row - 4]
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
    return _Solved(camera, np.asarray(each, dtype=np.float64).ravel(), poses, fixed)


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


def _told(
    views: Sequence[BoardView], size: tuple[int, int], solved: _Solved, notes: list[str]
) -> tuple[_Solved, _Errors]:
    """Return the fit without k3, then k2, where they are less than 2 sigma and their lack is not seen (F-test)."""
    errors = _errors(solved, views)
    for row, flag, name in EITHER:
        sigma = float(np.sqrt(errors.covariance[row, row]))
        value = float(solved.camera.distortion[row - 4])
        if not abs(value) < 2.0 * sigma:
            break
        without = _solve(views, size, solved.camera, solved.fixed | flag)
        fewer = _errors(without, views)
        gain = (fewer.squares - errors.squares) * errors.freedom / errors.squares / errors.widening**2
        if gain > float(fdtri(1, errors.freedom, 0.95)):
            break
        notes.append(f"the pictures do not tell {name} ({value:.2g}, 1 sigma {sigma:.2g}): it stays 0")
        solved, errors = without, fewer
    return solved, errors


def _errors(solved: _Solved, views: Sequence[BoardView]) -> _Errors:
    """Return how well a fitted camera is known, its poses eliminated (Schur).

    OpenCV's own deviations come from a pseudo-inverse that drops what the pictures leave open, as the focal length of a
    board never tilted; here that is infinite. Where parts of the pictures contradict one another, as under a lens of
    another kind or a zoom that moved, they are widened by as much.
    """
    free = [row for row in range(9) if not any(row == other and solved.fixed & flag for other, flag, _ in EITHER)]
    held, pulled = np.zeros((len(views), len(free), len(free))), np.zeros((len(views), len(free)))
    squares, count = 0.0, 0
    for i, (view, pose) in enumerate(zip(views, solved.poses, strict=True)):
        residual, jacobian = _linear(view, solved.camera, pose)
        outer, inner = jacobian[:, :6], jacobian[:, 6:][:, free]
        across = np.linalg.lstsq(outer, inner, rcond=None)[0]  # what the pose takes over
        left = inner - outer @ across
        held[i], pulled[i] = left.T @ left, left.T @ residual
        squares, count = squares + float(residual @ residual), count + len(residual)
    information = held.sum(axis=0)
    scale = 1.0 / np.sqrt(np.maximum(np.diag(information), 1e-300))
    values, vectors = np.linalg.eigh(information * np.outer(scale, scale))
    rms = float(np.sqrt(2.0 * squares / count))
    freedom = max(count - len(free) - 6 * len(views), 1)
    covariance, widening = np.full((9, 9), np.inf), 1.0
    if values[0] >= OPEN * values[-1]:
        widening = float(np.sqrt(birge_ratio(held, pulled, squares / freedom, IN_PART)))
        inverse = (vectors / values) @ vectors.T * np.outer(scale, scale)
        covariance = np.zeros((9, 9))
        covariance[np.ix_(free, free)] = widening**2 * squares / freedom * inverse
    return _Errors(rms, covariance, widening, squares, freedom)


def _check(camera: Camera, errors: _Errors, rms_max_px: float) -> None:
    rms, widening, sigma = errors.rms, errors.widening, np.sqrt(np.diag(errors.covariance))
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

"""A camera's fit to pictures of a board, and how well they tell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from scipy.special import fdtri  # pyright: ignore[reportMissingTypeStubs]

from twinguide_calibration.boards import BoardView, Camera
from twinguide_calibration.error import p95_radius
from twinguide_calibration.parts import birge_ratio
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array

FOCAL_SIGMA_MAX = 0.01  # of the focal length: beyond it the board was not tilted enough
EITHER = ((8, cv2.CALIB_FIX_K3, "k3"), (5, cv2.CALIB_FIX_K2, "k2"))  # rows that may stay 0, and how OpenCV is told
OPEN = 1e-12  # of the largest eigenvalue: what the pictures leave open
WORTH_TELLING = 2.0  # times the deviations were widened
IN_PART = 2  # pictures, of each part that is compared with the others
CONTRADICT = "earlier and later pictures contradict one another"
CHANGED = "Did zoom, focus or camera change, is the board bowed, or the lens wider than 120 deg?"
FINISHED = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 100, 1e-9)


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """What OpenCV fits: the camera, each picture's rms residual (v,) [px], and camera_from_board (v, 4, 4)."""

    camera: Camera
    residuals: Array
    poses: Array
    fixed: int = 0  # OpenCV's flags of what stays 0


@dataclass(frozen=True, slots=True, eq=False)
class Errors:
    """How well a camera is known."""

    rms: float  # [px]
    covariance: Array  # (9, 9)
    widening: float  # of the deviations, by parts of the pictures that contradict one another
    squares: float  # [px2], summed over all corners
    freedom: int


def solve_camera(views: Sequence[BoardView], size: tuple[int, int], start: Camera | None, fixed: int = 0) -> Solved:
    """Return the camera that fits views best, from a start where there is one; `fixed` are OpenCV's flags of zeros.

    Raises CalibrationRefused where OpenCV finds none.
    """
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
    return Solved(camera, np.asarray(each, dtype=np.float64).ravel(), poses, fixed)


def _linear(view: BoardView, camera: Camera, pose: Array) -> tuple[Array, Array]:
    """Return one picture's residual (2n,) [px] and its Jacobian (2n, 15) over pose, fx, fy, cx, cy and distortion."""
    turn, _ = cv2.Rodrigues(pose[:3, :3])
    pixels, derivative = cv2.projectPoints(view.points, turn, pose[:3, 3].copy(), camera.matrix, camera.distortion)
    residual = (view.pixels - np.asarray(pixels, dtype=np.float64).reshape(-1, 2)).ravel()
    return residual, np.asarray(derivative, dtype=np.float64)[:, :15]


def tell_distortion(
    views: Sequence[BoardView], size: tuple[int, int], solved: Solved, notes: list[str]
) -> tuple[Solved, Errors]:
    """Return the fit without k3, then k2, where they are less than 2 sigma and their lack is not seen (F-test)."""
    errors = _errors(solved, views)
    for row, flag, name in EITHER:
        sigma = float(np.sqrt(errors.covariance[row, row]))
        value = float(solved.camera.distortion[row - 4])
        if not abs(value) < 2.0 * sigma:
            break
        without = solve_camera(views, size, solved.camera, solved.fixed | flag)
        fewer = _errors(without, views)
        gain = (fewer.squares - errors.squares) * errors.freedom / errors.squares / errors.widening**2
        if gain > float(fdtri(1, errors.freedom, 0.95)):
            break
        notes.append(f"the pictures do not tell {name} ({value:.2g}, 1 sigma {sigma:.2g}): it stays 0")
        solved, errors = without, fewer
    return solved, errors


def _errors(solved: Solved, views: Sequence[BoardView]) -> Errors:
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
    return Errors(rms=rms, covariance=covariance, widening=widening, squares=squares, freedom=freedom)


def check_camera(camera: Camera, errors: Errors, rms_max_px: float) -> None:
    """Raise CalibrationRefused for residuals beyond a limit [px], a focal length not known, and what is no camera."""
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

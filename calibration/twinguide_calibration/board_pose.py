"""Where a board or marker is before a camera, from its corners in one picture.

A flat board seen from afar has two poses that fit nearly alike (Collins & Bartoli 2014, IPPE): both are refined and
kept. A pose from a wrong layout can look plausible: it is refused by its residual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from twinguide_calibration.boards import BoardView, Camera, cv2  # it says what to install where OpenCV is missing
from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, as_floats, compose, exponential, logarithm, point_jacobian

SIGMA_PX = 0.25  # 1 sigma of a refined corner, per axis, in a sharp picture
RESIDUAL_MAX_PX = 1.0  # rms beyond which a layout, or a camera's model, is wrong
FLAT = 1e-6  # [m] out of the plane: below it a board is flat
PRIOR_SIGMA = 0.2  # [rad] how far a pose turns between two pictures
AMBIGUOUS = 9.0  # chi-square between two poses below which the picture alone does not tell them apart
STEPS = 30
STEP_CONVERGED = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class BoardPose:
    """Where a board is: `camera_from_board` (4, 4) with covariance (6, 6) over (rotation, translation) in board.

    `other` is the second pose that a flat board allows, with the rms residual it leaves; `ambiguous` says that the
    picture alone does not tell them apart.
    """

    camera_from_board: Array
    covariance: Array
    residuals: Array  # (n,) [px]
    rms_px: float
    other: Array | None
    other_rms_px: float
    ambiguous: bool


def board_pose(
    view: BoardView,
    camera: Camera,
    *,
    prior: Array | None = None,
    sigma_px: float = SIGMA_PX,
    residual_max_px: float = RESIDUAL_MAX_PX,
) -> BoardPose:
    """Return where a board is, with the covariance that its corners' errors `sigma_px` [px] leave.

    `prior`, shape (4, 4), is an earlier `camera_from_board`: between two poses that fit alike it decides. The
    covariance grows with the residual where that is larger than stated. Raises CalibrationRefused for fewer than 4
    corners, corners on a line, a board behind the camera, and a residual that a right layout does not leave.
    """
    if len(view.ids) < 4:
        raise CalibrationRefused(f"wanted at least 4 corners; got {len(view.ids)}", "Show more of the board.")
    spread = np.linalg.svd(view.points - view.points.mean(axis=0), compute_uv=False)
    if spread[1] < 1e-2 * spread[0]:
        raise CalibrationRefused("the corners seen lie on a line", "Show more of the board.")
    fits = [_refined(view, camera, start) for start in _starts(view, camera)]
    fits = [fit for fit in fits if fit is not None]
    if not fits:
        raise CalibrationRefused("no pose puts the board before the camera", "Check the board's layout and the camera.")
    cost = [float((fit[1] ** 2).sum()) / sigma_px**2 for fit in fits]
    turned = [0.0 if prior is None else _turn(prior, fit[0]) / PRIOR_SIGMA for fit in fits]
    order = sorted(range(len(fits)), key=lambda i: cost[i] + turned[i] ** 2)
    pose, residuals, information = fits[order[0]]
    rms = float(np.sqrt((residuals**2).mean()))
    if rms > residual_max_px:
        raise CalibrationRefused(
            f"the corners are {rms:.2f} px rms from where the layout puts them (at most {residual_max_px:g})",
            "Check the board's squares, markers and ids, and that the camera's calibration is of this camera.",
        )
    scale = max(sigma_px**2, float((residuals**2).sum()) / max(2 * len(view.ids) - 6, 1))
    second = fits[order[1]] if len(order) > 1 else None
    return BoardPose(
        pose,
        as_floats(scale * np.linalg.inv(information)),
        residuals,
        rms,
        None if second is None else second[0],
        np.inf if second is None else float(np.sqrt((second[1] ** 2).mean())),
        second is not None and abs(cost[order[1]] - cost[order[0]]) < AMBIGUOUS,
    )


def _turn(one: Array, other: Array) -> float:
    return float(np.linalg.norm(logarithm(one[:3, :3].T @ other[:3, :3])))


def _starts(view: BoardView, camera: Camera) -> list[Array]:
    """Return the poses to refine: both of IPPE where the corners are flat, else that of SQPnP."""
    axes = np.linalg.svd(view.points - view.points.mean(axis=0))[2]
    off = np.abs((view.points - view.points.mean(axis=0)) @ axes[2]).max()
    method = cv2.SOLVEPNP_IPPE if off < FLAT else cv2.SOLVEPNP_SQPNP
    try:
        _, turns, moves, _ = cv2.solvePnPGeneric(
            view.points, view.pixels, camera.matrix, camera.distortion, flags=method
        )
    except cv2.error:
        return []
    starts = zip(turns, moves, strict=True)
    return [compose(exponential(_flat(turn)), _flat(move)) for turn, move in starts]


def _flat(values: Any) -> Array:  # noqa: ANN401 - whatever OpenCV returns
    return as_floats(values).ravel()


def _refined(view: BoardView, camera: Camera, start: Array) -> tuple[Array, Array, Array] | None:
    """Return (pose, residuals (n,) [px], information (6, 6)) by Gauss-Newton, or None where it leaves the picture."""
    inner = point_jacobian(view.points)
    pose = start
    jacobian, residual = _linear(view, camera, pose, inner)
    for _ in range(STEPS):
        information = jacobian.T @ jacobian
        try:
            step = np.linalg.solve(information, jacobian.T @ residual)
        except np.linalg.LinAlgError:
            return None
        pose = pose @ compose(exponential(as_floats(step[:3])), as_floats(step[3:]))
        jacobian, residual = _linear(view, camera, pose, inner)
        if not np.isfinite(residual).all() or np.abs(step).max() < STEP_CONVERGED:
            break
    depth = view.points @ pose[2, :3] + pose[2, 3]
    if not np.isfinite(residual).all() or depth.min() <= 0.0:
        return None
    return pose, np.linalg.norm(residual.reshape(-1, 2), axis=1), jacobian.T @ jacobian


def _linear(view: BoardView, camera: Camera, pose: Array, inner: Array) -> tuple[Array, Array]:
    """Return the Jacobian (2n, 6) over the right perturbation, and the residual (2n,), both in pixels."""
    turn = logarithm(pose[:3, :3])
    pixels, derivative = cv2.projectPoints(view.points, turn, pose[:3, 3].copy(), camera.matrix, camera.distortion)
    by_place = np.asarray(derivative, dtype=np.float64)[:, 3:6].reshape(-1, 2, 3)  # d pixel / d point in camera
    jacobian = (by_place @ pose[:3, :3] @ inner).reshape(-1, 6)
    return jacobian, (view.pixels - np.asarray(pixels, dtype=np.float64).reshape(-1, 2)).ravel()

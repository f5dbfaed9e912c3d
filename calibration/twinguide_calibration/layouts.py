"""Refuse paired points that cannot carry a registration, by their layout, their units, their axes or their noise."""

from __future__ import annotations

from math import sqrt

import numpy as np

from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, as_floats

COLLINEAR_RATIO = 0.01  # second over first singular value of the source layout: a line but for 1 %
ROTATION_SIGMA_MAX = 0.2  # [rad] beyond it the linear covariance says nothing any more
SIZE_RATIO = 2.0  # two layouts of one object never differ so much in size: a wrong unit does
MIRROR_GAIN = 5.0  # a reflection that fits five times better is no accident of noise


def check_size(source: Array, target: Array) -> None:
    """Refuse layouts whose sizes tell of mixed units; what has no size at all is left to `check_layouts`."""
    if source.shape != target.shape or source.ndim != 2 or not len(source):
        return
    if not np.isfinite(source.sum() + target.sum()):
        return
    size_s, size_t = _size(source), _size(target)
    if size_s > 0.0 and not 1.0 / SIZE_RATIO < size_t / size_s < SIZE_RATIO and size_t > 0.0:
        raise CalibrationRefused(
            f"the target layout is {size_t / size_s:.4g} times as large as the source layout",
            "Are both in metres, and paired row by row?",
        )


def _size(points: Array) -> float:
    centred = points - points.sum(axis=0) / len(points)
    return sqrt(float((centred**2).sum()))


def check_mirror(source: Array, target: Array) -> None:
    """Refuse points that a reflection maps far better than any rotation."""
    if len(source) < 4 or source.shape != target.shape or not np.isfinite(source.sum() + target.sum()):
        return
    centred_s, centred_t = source - source.mean(axis=0), target - target.mean(axis=0)
    cross = centred_t.T @ centred_s
    if np.linalg.det(cross) >= 0.0:
        return
    values = as_floats(np.linalg.svd(cross, compute_uv=False))
    total = float((centred_s**2).sum() + (centred_t**2).sum())
    mirrored = sqrt(max(total - 2.0 * float(values.sum()), 0.0) / len(source))
    turned = sqrt(max(total - 2.0 * float(values @ [1.0, 1.0, -1.0]), 0.0) / len(source))
    if mirrored * MIRROR_GAIN < turned and turned**2 > 1e-6 * total / len(source):
        raise CalibrationRefused(
            f"a reflection fits better than any rotation ({mirrored * 1e3:.2g} mm against {turned * 1e3:.2g} mm rms)",
            "Two axes are swapped or one is mirrored (LPS and RAS?): check the frames.",
        )


def check_layouts(source: Array, target: Array, covariances: Array | None) -> Array:
    """Refuse k layouts of n points, (k, n, 3), that cannot carry a fit; return their rms extents [m], shape (k, 3)."""
    if source.ndim != 3 or source.shape[2] != 3 or source.shape != target.shape:
        raise CalibrationRefused(f"wanted paired points of shape (n, 3); got {source.shape[1:]} and {target.shape[1:]}")
    if source.shape[1] < 3:
        raise CalibrationRefused(f"wanted at least 3 points; got {source.shape[1]}", "Touch more landmarks.")
    if covariances is not None and covariances.shape != (*source.shape, 3):
        raise CalibrationRefused(f"wanted one 3x3 covariance a point; got shape {covariances.shape[1:]}")
    if not all(np.isfinite(a).all() for a in (source, target, covariances) if a is not None):
        sound = [np.isfinite(a).reshape(*a.shape[:2], -1).all(axis=(0, 2)) for a in (source, target)]
        rows = ", ".join(map(str, np.flatnonzero(~(sound[0] & sound[1]))[:5] + 1))
        where = f"in row {rows}" if rows else "in a covariance"
        raise CalibrationRefused(f"wanted finite points and covariances; got NaN or infinity {where}")
    extents = _extents(np.stack([source, target]))
    for extents_of, name in ((extents[0], "source"), (extents[1], "target")):
        if extents_of[:, 0].min() < 1e-9:
            raise CalibrationRefused(f"all {name} points coincide", "Touch landmarks that lie apart.")
        ratio = float((extents_of[:, 1] / extents_of[:, 0]).min())
        if ratio < COLLINEAR_RATIO:
            raise CalibrationRefused(
                f"the {name} points lie on a line (second extent {ratio:.2g} of the first), so the turn about it is "
                "unknown",
                "Add a landmark away from the line.",
            )
    return extents[0]


def _extents(points: Array) -> Array:
    centred = points - points.mean(axis=-2, keepdims=True)
    scatter: Array = np.swapaxes(centred, -1, -2) @ centred / points.shape[-2]
    return np.sqrt(np.maximum(as_floats(np.linalg.eigvalsh(scatter))[..., ::-1], 0.0))


def inverse_of(covariances: Array, what: str = "a point's covariance") -> Array:
    """Return the inverses of covariances [m2], shape (..., 3, 3); refuse those that are not positive definite."""
    try:
        np.linalg.cholesky(covariances)
        return as_floats(np.linalg.inv(covariances))
    except np.linalg.LinAlgError as error:
        raise CalibrationRefused(f"{what} is not positive definite") from error


def check_rotation(covariance: Array) -> None:
    """Refuse fits whose covariance, shape (k, 6, 6), leaves the rotation unknown."""
    worst = float(np.sqrt(np.linalg.eigvalsh(covariance[:, :3, :3])[:, -1].max()))
    if not worst <= ROTATION_SIGMA_MAX:
        raise CalibrationRefused(
            f"the points leave the rotation unknown by {np.degrees(worst):.0f} deg (1 sigma)",
            "Use points that lie farther apart, or touch them more exactly.",
        )

"""What the numbers of a result file must be: finite, rigid transforms, covariances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide.errors import CalibrationError, FrameError
from twinguide.frames import Transform

# noise given; a sample no fit explains; not looked for; a corner that no direction is seen at
UNBOUNDED = ("freedom", "residuals", "offset_sigma_ms", "corner_p95_px")
SYMMETRIC = 1e-9  # of a covariance's largest entry
NEGATIVE = -1e-9  # of its largest eigenvalue: what rounding may leave below zero

Row4 = tuple[float, float, float, float]
Rows4 = tuple[Row4, Row4, Row4, Row4]
Rows = tuple[tuple[float, ...], ...]
Array = NDArray[np.float64]


def check_rigid(matrix: Rows4, covariance: Rows, where: str) -> None:
    """Raise CalibrationError where a matrix is no rigid transform, or its covariance none of 6 values."""
    check_matrix(matrix, f"{where}, matrix")
    check_finite("covariance", covariance, where)
    check_covariance(covariance, 6, f"{where}, covariance")


def check_matrix(rows: Rows4, place: str) -> None:
    """Raise CalibrationError where a matrix is no rigid transform."""
    try:
        Transform("target", "source", np.array(rows))
    except FrameError as error:
        raise CalibrationError("a rigid transform", error.got, place) from error


def check_finite(name: str, value: Any, where: str) -> None:  # noqa: ANN401 - whatever the file holds
    """Raise CalibrationError where a number, or one in nested tuples, is not finite and may not be unbounded."""
    if isinstance(value, float) and not np.isfinite(value) and not (value == np.inf and name in UNBOUNDED):
        raise CalibrationError("a finite number", str(value), f"{where}, {name}")
    if isinstance(value, tuple):
        for entry in value:  # pyright: ignore[reportUnknownVariableType]
            check_finite(name, entry, where)


def check_covariance(rows: Rows, size: int, place: str) -> None:
    """Raise CalibrationError where rows are no covariance of as many values."""
    if len(rows) != size or any(len(row) != size for row in rows):
        raise CalibrationError(f"{size} rows of {size}", f"{[len(row) for row in rows]}", place)
    c: Array = np.array(rows)
    largest = float(np.abs(c).max())
    if np.abs(c - c.T).max() > SYMMETRIC * largest:
        raise CalibrationError("a symmetric covariance", f"off by {np.abs(c - c.T).max():.2g}", place)
    least = float(np.linalg.eigvalsh(c)[0])
    if least < NEGATIVE * largest:
        raise CalibrationError("a covariance", f"a negative variance {least:.2g}", place)

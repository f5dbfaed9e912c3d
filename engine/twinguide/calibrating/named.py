"""What a scenario takes from the result files that it names, as its own keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np

from twinguide.calibrating.result import (
    HandEyeResult,
    PivotResult,
    PointsResult,
    RigidResult,
    SurfaceResult,
    pose_of,
    read_result,
    rows_of,
    symmetric,
)
from twinguide.errors import CalibrationError
from twinguide.frames import vector_from_rotation


def tip_of(path: Path) -> dict[str, Any]:
    """Return the keys of a tool whose tip is a pivot calibration's; raise CalibrationError for any other file."""
    result = read_result(path, PivotResult)
    return {"tip_mm": result.tip_mm, "tip_covariance_mm2": result.tip_covariance_mm2}


def mount_of(path: Path) -> dict[str, Any]:
    """Return the keys of the mount of a body on the headset: `x` of a hand-eye calibration, headset against tracker.

    Raises CalibrationError for any other file.
    """
    result = read_result(path, HandEyeResult)
    matrix = np.array(result.x)
    at_mm = tuple((1e3 * matrix[:3, 3]).tolist())
    turn_deg = tuple(np.degrees(vector_from_rotation(matrix[:3, :3])).tolist())
    return {"at_mm": at_mm, "turn_deg": turn_deg, "covariance": tuple(row[:6] for row in result.covariance[:6])}


def registration_of(path: Path) -> dict[str, Any]:
    """Return the keys of a registration, told in either direction by its file, as `reference_from_image`.

    Raises CalibrationError for any other file, and for one between other frames.
    """
    result = cast("RigidResult", read_result(path, PointsResult, SurfaceResult))
    pose = pose_of(result)
    if sorted((result.target, result.source)) != ["image", "reference"]:
        got = f"{result.target}_from_{result.source}"
        raise CalibrationError(
            "reference_from_image, or its inverse", got, f"{path}, target", "Set --source, --target."
        )
    if result.target == "image":
        pose = pose.inverse()
    return {
        "matrix": rows_of(pose.transform.matrix),
        "covariance": symmetric(pose.covariance),
        "fre_mm": result.fre_mm,
        "landmarks": result.names if isinstance(result, PointsResult) else (),
        "case_hash": result.case_hash,
    }

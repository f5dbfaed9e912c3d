"""Calibration and registration: pure functions, each with its covariance. Metres and radians; numpy and scipy alone.

Names are loaded when first asked for, so that a tracker that only registers points does not wait for scipy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from twinguide_calibration.points import RigidFit, align_points, register_layouts, register_points
from twinguide_calibration.refused import CalibrationRefused

if TYPE_CHECKING:
    from twinguide_calibration.chain import Budget, Link, Share, chain_budget
    from twinguide_calibration.clock import ClockFit, fit_clock
    from twinguide_calibration.display import EyeFit, locate_eye
    from twinguide_calibration.error import (
        ErrorMap,
        covers,
        error_map,
        fitzpatrick_west,
        layout_covariance,
        misfit_probability,
        p95_radius,
        tre_covariance,
        tre_p95,
    )
    from twinguide_calibration.hand_eye import HandEyeFit, solve_hand_eye, solve_hand_eye_timed
    from twinguide_calibration.headset import (
        HeadsetSettings,
        Sighting,
        StageState,
        calibrate_headset,
        stage_ahead,
        stage_start,
        stage_update,
    )
    from twinguide_calibration.interpolation import interpolate_poses
    from twinguide_calibration.lag_profile import LagFit, profile_minimum
    from twinguide_calibration.latency import motion_lag, place_lag, pose_lag
    from twinguide_calibration.pivot import PivotConsistency, PivotFit, calibrate_pivot, compare_pivots
    from twinguide_calibration.poses import Poses, Stamps, check_poses, check_stamps
    from twinguide_calibration.robust import RobustFit, register_robust
    from twinguide_calibration.similarity import SimilarityFit, register_similarity
    from twinguide_calibration.surface import SurfaceFit, register_surface, register_surface_starts
    from twinguide_calibration.surface_error import FreeDirection, SurfaceError
    from twinguide_calibration.surface_samples import SurfaceModel, surface_model

_HOMES = {
    "chain": ("Budget", "Link", "Share", "chain_budget"),
    "clock": ("ClockFit", "fit_clock"),
    "display": ("EyeFit", "locate_eye"),
    "error": (
        "ErrorMap",
        "covers",
        "error_map",
        "fitzpatrick_west",
        "layout_covariance",
        "misfit_probability",
        "p95_radius",
        "tre_covariance",
        "tre_p95",
    ),
    "hand_eye": ("HandEyeFit", "solve_hand_eye", "solve_hand_eye_timed"),
    "headset": (
        "HeadsetSettings",
        "Sighting",
        "StageState",
        "calibrate_headset",
        "stage_ahead",
        "stage_start",
        "stage_update",
    ),
    "interpolation": ("interpolate_poses",),
    "lag_profile": ("LagFit", "profile_minimum"),
    "latency": ("motion_lag", "place_lag", "pose_lag"),
    "pivot": ("PivotConsistency", "PivotFit", "calibrate_pivot", "compare_pivots"),
    "poses": ("Poses", "Stamps", "check_poses", "check_stamps"),
    "robust": ("RobustFit", "register_robust"),
    "similarity": ("SimilarityFit", "register_similarity"),
    "surface": ("SurfaceFit", "register_surface", "register_surface_starts"),
    "surface_error": ("FreeDirection", "SurfaceError"),
    "surface_samples": ("SurfaceModel", "surface_model"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Budget",
    "CalibrationRefused",
    "ClockFit",
    "ErrorMap",
    "EyeFit",
    "FreeDirection",
    "HandEyeFit",
    "HeadsetSettings",
    "LagFit",
    "Link",
    "PivotConsistency",
    "PivotFit",
    "Poses",
    "RigidFit",
    "RobustFit",
    "Share",
    "Sighting",
    "SimilarityFit",
    "StageState",
    "Stamps",
    "SurfaceError",
    "SurfaceFit",
    "SurfaceModel",
    "align_points",
    "calibrate_headset",
    "calibrate_pivot",
    "chain_budget",
    "check_poses",
    "check_stamps",
    "compare_pivots",
    "covers",
    "error_map",
    "fit_clock",
    "fitzpatrick_west",
    "interpolate_poses",
    "layout_covariance",
    "locate_eye",
    "misfit_probability",
    "motion_lag",
    "p95_radius",
    "place_lag",
    "pose_lag",
    "profile_minimum",
    "register_layouts",
    "register_points",
    "register_robust",
    "register_similarity",
    "register_surface",
    "register_surface_starts",
    "solve_hand_eye",
    "solve_hand_eye_timed",
    "stage_ahead",
    "stage_start",
    "stage_update",
    "surface_model",
    "tre_covariance",
    "tre_p95",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)

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
    from twinguide_calibration.poses import Poses, Stamps, check_poses, check_stamps
    from twinguide_calibration.similarity import SimilarityFit, register_similarity

_HOMES = {
    "chain": ("Budget", "Link", "Share", "chain_budget"),
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
    "poses": ("Poses", "Stamps", "check_poses", "check_stamps"),
    "similarity": ("SimilarityFit", "register_similarity"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Budget",
    "CalibrationRefused",
    "ErrorMap",
    "Link",
    "Poses",
    "RigidFit",
    "Share",
    "SimilarityFit",
    "Stamps",
    "align_points",
    "chain_budget",
    "check_poses",
    "check_stamps",
    "covers",
    "error_map",
    "fitzpatrick_west",
    "layout_covariance",
    "misfit_probability",
    "p95_radius",
    "register_layouts",
    "register_points",
    "register_similarity",
    "tre_covariance",
    "tre_p95",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)

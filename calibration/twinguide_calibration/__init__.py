"""Calibration and registration: pure functions, each with its covariance. Metres and radians; numpy and scipy alone."""

from twinguide_calibration.error import tre_covariance
from twinguide_calibration.points import RigidFit, register_layouts, register_points
from twinguide_calibration.refused import CalibrationRefused

__all__ = ["CalibrationRefused", "RigidFit", "register_layouts", "register_points", "tre_covariance"]

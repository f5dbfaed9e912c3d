"""Calibration and registration: pure functions, each with its covariance."""

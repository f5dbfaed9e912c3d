"""The one error of this library: data that cannot carry a calibration."""

from __future__ import annotations


class CalibrationRefused(ValueError):
    """Refuse data that cannot carry a calibration; `reason` says which, and what to do next."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

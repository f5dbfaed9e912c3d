"""The one error of this library: data that cannot carry a calibration."""

from __future__ import annotations


class CalibrationRefused(ValueError):
    """Refuse data that cannot carry a calibration; `reason` says why, `remedy` what to do next."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(f"{reason.rstrip('.')}. {remedy}" if remedy else reason)
        self.reason, self.remedy = reason, remedy

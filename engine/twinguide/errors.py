"""Every error that TwinGuide raises on purpose.

TwinGuideError
├── ScenarioError        a scenario file that cannot be run
├── CaseError            surfaces or a case folder that cannot be used
├── PluginError          a plugin that cannot be found, checked or loaded
├── CalibrationError     a recording or a result file that cannot be used, or data that cannot carry a calibration
├── FrameError           transforms that do not meet, or are not rigid
├── RegistrationRefused  points that cannot carry a registration
├── BusError             the hub or a message on it
│   └── TopicRefused     a topic that the part did not declare, or may not see
├── HeadsetError         the headset cannot be used
│   └── RuntimeLost      the OpenXR runtime went away; the session can be rebuilt
├── RenderError          GL is missing or a shader does not compile
└── RecordingError       a recording that cannot be written or read

A message says what was wanted, what came, where, and the next step.
"""

from __future__ import annotations


class TwinGuideError(Exception):
    """State what was wanted, what came, where, and what to do next."""

    def __init__(self, wanted: str, got: str = "", where: str = "", next_step: str = "") -> None:
        self.wanted, self.got, self.where, self.next_step = wanted, got, where, next_step
        parts = [f"wanted {wanted}" if got else wanted, f"got {got}" if got else "", f"in {where}" if where else ""]
        text = "; ".join(part for part in parts if part)
        super().__init__(f"{text}. {next_step}" if next_step else text)


class ScenarioError(TwinGuideError):
    """Refuse a scenario file, naming the key."""


class CaseError(TwinGuideError):
    """Refuse surfaces or a case folder."""


class PluginError(TwinGuideError):
    """Refuse a plugin."""


class CalibrationError(TwinGuideError):
    """Refuse a recording or a result file, or data that cannot carry a calibration."""


class FrameError(TwinGuideError):
    """Refuse transforms that do not meet, or are not rigid."""


class RegistrationRefused(TwinGuideError):
    """Refuse points that cannot carry a registration."""


class BusError(TwinGuideError):
    """Report the hub, or a message on it."""


class TopicRefused(BusError):
    """Refuse a topic that a part did not declare, or may not see."""


class HeadsetError(TwinGuideError):
    """Report a headset that cannot be used."""


class RuntimeLost(HeadsetError):
    """Report that the OpenXR runtime went away; the session can be rebuilt."""


class RenderError(TwinGuideError):
    """Report missing GL or a shader that does not compile."""


class RecordingError(TwinGuideError):
    """Report a recording that cannot be written or read."""

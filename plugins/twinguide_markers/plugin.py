"""Declare the marker tracker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from twinguide import Exposure, Part, Sensor, Topic, hookimpl

NonNegative = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]


class MarkersOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where pictures come from, the camera's calibration, and which tool bears which board."""

    source: str  # a video file, or "camera:0" for the first camera of the machine
    calibration: str  # a result file of `twinguide calibrate camera`
    tools: Annotated[dict[str, str], Meta(min_length=1)]  # tool -> board: "marker:7:40:4x4_50", "grid:3x2:50/10:4x4_50"
    rate_hz: Positive = 30.0  # at which pictures are expected: by it the twin judges their silence
    sigma_px: Positive = 0.25  # 1 sigma of a corner, per axis
    residual_max_px: Positive = 1.0  # rms beyond which a board is not the one described
    latency_ms: NonNegative = 30.0  # of a live camera, from exposure to arrival
    latency_sigma_ms: NonNegative = 8.0


@hookimpl
def parts() -> Iterable[Part]:
    """Declare the camera; it looks oftener than videos have frames, so that each step meets one at most."""
    return [
        Sensor(
            "markers",
            make="twinguide_markers.markers:Markers",
            publishes={"exposure": Topic(Exposure, rate_hz=30.0)},
            rate_hz=120.0,
            options=MarkersOptions,
        )
    ]

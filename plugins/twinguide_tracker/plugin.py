"""Declare the simulated optical tracker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from twinguide import Exposure, Part, Sensor, Topic, hookimpl
from twinguide.messages import BodiesSeen

NonNegative = Annotated[float, Meta(ge=0)]
Vec3mm = tuple[float, float, float]


class TrackerOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The camera, its spheres and its link."""

    rate_hz: Annotated[float, Meta(gt=0, le=180)] = 60.0
    # Four spheres within about 70 mm, in the tool's axes: not in a plane, no two distances alike.
    spheres_mm: tuple[Vec3mm, ...] = ((32.0, 13.0, 10.0), (-17.0, -16.0, 3.0), (-29.0, 27.0, 4.0), (14.0, -24.0, -17.0))
    noise_mm: Vec3mm = (0.1, 0.1, 0.45)  # 1 sigma per sphere and camera axis; z is the line of sight
    latency_ms: NonNegative = 14.0  # mean, from exposure to arrival
    latency_sigma_ms: NonNegative = 1.8
    clock_offset_s: float = 1234.5  # what the device's clock shows at the run's zero
    clock_drift_ppm: float = 20.0  # the device's second is longer by so much
    dropouts_per_min: NonNegative = 2.0  # of all tools together
    dropout_exposures: Annotated[int, Meta(ge=1)] = 2  # the longest


@hookimpl
def parts() -> Iterable[Part]:
    """Declare the tracker; it looks three times an exposure, so that a sample waits for a step by 6 ms at most."""
    return [
        Sensor(
            "tracker",
            make="twinguide_tracker.tracker:Tracker",
            observes=[BodiesSeen],
            publishes={"exposure": Topic(Exposure, rate_hz=60.0)},
            rate_hz=180.0,
            options=TrackerOptions,
        )
    ]

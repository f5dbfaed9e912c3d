"""Declare the simulated imaging."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from twinguide import ImageTarget, Part, Sensor, Topic, WorkflowState, hookimpl
from twinguide.messages import EchoSeen

NonNegative = Annotated[float, Meta(ge=0)]


class ImagingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ultrasound and its operator."""

    sigma_mm: Annotated[float, Meta(gt=0)] = 1.5  # per axis, stated with each picture
    lag_ms: NonNegative = 80.0  # from sound to stamp; nobody is told
    training_only: bool = True  # the probe is put away after training


@hookimpl
def parts() -> Iterable[Part]:
    """Declare the imaging."""
    return [
        Sensor(
            "imaging",
            make="twinguide_imaging.imaging:Imaging",
            observes=[EchoSeen],
            subscribes=[WorkflowState],
            publishes={"target": Topic(ImageTarget)},  # irregular: silent by intent outside training
            rate_hz=15.0,
            options=ImagingOptions,
        )
    ]

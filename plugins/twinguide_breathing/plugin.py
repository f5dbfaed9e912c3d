"""Declare the motion part `breathing`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from twinguide import Displacement, Exposure, Gate, ImageTarget, Motion, Part, Topic, Training, WorkflowState, hookimpl

Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]


class BreathingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a scenario may set of the breathing model.

    The lag of the images cannot be told from the target's own lag behind the chest by watching breathing: what is
    known of either beforehand (the device's data sheet, a 4-D CT of this patient) is stated here.
    """

    of: str = ""  # the structure; empty: the plan's target structure
    chest: str = "chest"  # the marker's name as a tool of the tracker
    reference: str = "reference"
    train_s: Positive = 24.0
    reference_window_s: Positive = 3.0
    imaging_lag_ms: NonNegative = 100.0
    imaging_lag_sigma_ms: Positive = 30.0
    hysteresis: float = 0.08  # of the target behind the chest, in breaths
    hysteresis_sigma: Positive = 0.016
    creep_mm: Positive = 2.0  # of the chest's rest, across its travel: more, and the reference may have slipped
    gate_mm: Positive = 2.0
    gate_mm_per_s: Positive = 5.0


@hookimpl
def parts() -> Iterable[Part]:
    """Declare the part."""
    return [
        Motion(
            "breathing",
            make="twinguide_breathing.part:Breathing",
            publishes={
                "displacement": Topic(Displacement, rate_hz=60.0),
                "training": Topic(Training, qos="state"),
                "gate": Topic(Gate, rate_hz=60.0),
            },
            subscribes=[Exposure, ImageTarget, WorkflowState],
            wakes_on=[Exposure],
            options=BreathingOptions,
            trains=True,
        )
    ]

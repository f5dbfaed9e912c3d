"""Declare the simulated world."""

from __future__ import annotations

from collections.abc import Iterable

from twinguide import Act, Part, Topic, World, hookimpl
from twinguide.messages import BodiesSeen, Calibration, EchoSeen, Truth

from .options import PatientOptions


@hookimpl
def parts() -> Iterable[Part]:
    """Declare the patient."""
    return [
        World(
            "patient",
            make="twinguide_patient.world:Patient",
            head="twinguide_patient.head:Head",
            rate_hz=180.0,
            publishes={
                "bodies": Topic(BodiesSeen, qos="world", rate_hz=180.0),
                "echo": Topic(EchoSeen, qos="world", rate_hz=60.0),
                "truth": Topic(Truth, qos="truth", rate_hz=180.0),
                "calibration": Topic(Calibration, qos="state"),
            },
            subscribes=[Act],
            options=PatientOptions,
        )
    ]

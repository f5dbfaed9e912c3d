"""Declare the simulated operator."""

from __future__ import annotations

import msgspec

from twinguide import Ack, Act, Command, Operator, Registration, Shown, Topic, WorkflowState, hookimpl


class OperatorOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How good the operator is."""

    reaction_s: float = 0.25  # from seeing to acting (textbook choice reaction time)
    touch_sigma_mm: float = 0.3  # per axis
    hand_sigma_mm_s: float = 1.0  # per axis: unsteadiness of a commanded speed
    approach_mm_s: float = 60.0
    insert_mm_s: float = 25.0


@hookimpl
def parts() -> list[Operator]:
    """Declare the operator."""
    return [
        Operator(
            "operator",
            make="twinguide_operator.operator:OperatorSimulated",
            publishes={"command": Topic(Command, qos="command"), "act": Topic(Act, qos="command")},
            subscribes=(Shown, WorkflowState, Registration, Ack),
            rate_hz=30.0,
            options=OperatorOptions,
        )
    ]

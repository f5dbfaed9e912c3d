"""Declare the solver `softbody` and its contract."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from twinguide import Boundary, Contract, Displacement, Part, Registration, Solution, Solver, Topic, hookimpl

Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]

# The deadline is the period of the displacements: a solver that keeps it passes none over. The levels' 95 % errors [mm]
# are measured against the simulated patient's tissue at full inspiration (README: How it was validated).
CONTRACT = Contract(
    deadline_ms=1000 / 60,
    levels={"full": 3.6, "reduced": 3.6, "partial": 3.6, "rigid": 5.1},
)


class SoftbodyOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a scenario may set of the solver."""

    backend: Literal["auto", "cpu", "cuda"] = "auto"
    material: Literal["neo_hookean", "corotational", "linear"] = "neo_hookean"
    nodes: Literal[4, 10] = 4  # of each tetrahedron: 10 bend without locking, in five to eight times the time
    reduced: Literal["off", "auto"] = "off"  # the fast path where its model is kept; what a run answers hangs on that
    ahead_ms: Annotated[float, Meta(ge=0, le=150)] = 45.0  # after the newest exposure: when the result will be seen
    young_pa: NonNegative = 0.0  # of the organ, instead of what the case tells; 0: the case's, or the literature's
    patch_mm: Positive = 12.0  # radius about the target that is moved as one
    dome: NonNegative = 3.0  # stiffness per area, in units of the organ's modulus over its size
    rest: NonNegative = 1.0
    dome_share: NonNegative = 1.2  # of the target's motion
    rest_share: NonNegative = 0.8
    share_sigma: NonNegative = 0.12  # how far both shares are known
    turn_deg: NonNegative = 1.25  # 1 sigma per axis, by which the surroundings turn as the target moves by 10 mm
    stiffness_factor: Annotated[float, Meta(ge=1)] = 2.0  # to which the surroundings' stiffness is known, 1 sigma


@hookimpl
def parts() -> Iterable[Part]:
    """Declare the part."""
    return [
        Solver(
            "softbody",
            make="twinguide_softbody.part:Softbody",
            publishes={"solution": Topic(Solution, rate_hz=60.0)},
            subscribes=[Displacement, Boundary, Registration],
            wakes_on=[Displacement],
            options=SoftbodyOptions,
            contract=CONTRACT,
        )
    ]

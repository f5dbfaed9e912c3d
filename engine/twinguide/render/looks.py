"""How each role of a structure is drawn, and how a state changes that; data and pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from twinguide.messages import DisplayState


@dataclass(frozen=True, slots=True)
class Look:
    """How a role is drawn. For `xray`, opacity goes from `fill` where it faces the eye to `rim` at the outline."""

    kind: Literal["solid", "xray", "absent"]
    rim: float = 1.0
    power: float = 2.0  # the higher, the thinner the rim
    fill: float = 0.0
    brightness: float = 1.0


# Sparse: only what is aimed at or must not be hit is solid; the real field stays visible through all else. Solid ones
# come first, then x-ray from the inside out, so that what is transparent lies over what is not.
LOOKS: Mapping[str, Look] = {
    "vessel": Look("solid"),
    "bile": Look("solid"),
    "tumour": Look("solid", brightness=1.1),
    "cyst": Look("xray", rim=0.85, power=1.6, fill=0.10),
    "organ": Look("xray", rim=1.0, power=1.7, fill=0.03),
    "other": Look("xray", rim=0.5, power=2.5),
    "pleura": Look("xray", rim=0.40, power=4.0),
    "bone": Look("xray", rim=0.55, power=3.2),
    "skin": Look("absent"),
}
ORDER = tuple(LOOKS)
SKIN_CONTOUR = Look("xray", rim=0.35, power=3.5)
# pattern (0 none, 1 hatched, 2 striped) and period [m]: shapes, so that a state is told without colour
PATTERNS: Mapping[DisplayState, tuple[int, float]] = {
    "valid": (0, 1.0),
    "predicted": (0, 1.0),
    "degraded": (1, 0.010),
    "unconfirmed": (2, 0.012),
    "hidden": (0, 1.0),
}


def look_of(role: str, *, show_skin: bool = False) -> Look:
    """Return how a role is drawn; a role that is not known is drawn as `other`."""
    if role == "skin" and show_skin:
        return SKIN_CONTOUR
    return LOOKS.get(role, LOOKS["other"])


def in_state(look: Look, state: DisplayState) -> Look:
    """Return how it is drawn in a state: what is unconfirmed has an outline and no body."""
    if state == "unconfirmed" and look.kind == "solid":
        return replace(look, kind="xray", rim=1.0, power=1.4, fill=0.0)
    return look


def drawing_rank(role: str) -> int:
    """Return a role's place in the order of drawing."""
    return ORDER.index(role if role in LOOKS else "other")

"""What the wearer reads, in one place; a reason that an error or a part gives stands beside it in its own words."""

from __future__ import annotations

from collections.abc import Mapping

from twinguide.errors import RenderError
from twinguide.messages import DisplayState, Severity

INTENDED_USE = (
    "Research use only. Not a medical device.",
    "The display must not be the sole source of position information.",
    "Confirm every position by an independent means before you act on it.",
    "What is degraded, unconfirmed or hidden is marked by shape and word. If the bar stands still, the picture is old.",
)

SEVERITY_WORDS: Mapping[Severity, str] = {"advisory": "ADVISORY", "caution": "CAUTION", "warning": "WARNING"}

STATE_WORDS: Mapping[DisplayState, str] = {
    "valid": "",
    "predicted": "",  # bridged within its tolerance: shown as valid
    "degraded": "DEGRADED",
    "unconfirmed": "UNCONFIRMED",
    "hidden": "HIDDEN",
}

TEXTS: Mapping[str, str] = {
    "title": "TwinGuide",
    "start": "Start when ready",
    "overlay_off": "Overlay off",
    "not_placed": "No overlay: {reason}",
    "not_placed_reason": "the patient is not registered",
    "head_lost": "Headset tracking lost: nothing is laid over the patient",
    "not_verified": "verify the landmarks",
    "not_confirmed": "waits for the wearer",
    "still": "Organ motion is not tracked: valid only while the organ lies as in the scan",
    "slow": "Frame rate too low: what moves is shown {value_ms:.0f} ms off its time",
    "reference_lost": "the reference is not seen",
    "stage_unsettled": "finding the headset's place by {name}",
    "stage_jumped": "the headset's place, seen by {name}, has jumped",
    "stage_wait": "wait until the headset's place is found again",
    "headset_body_lost": "{name} is not seen: the overlay rests on the headset's own tracking",
    "structure_state": "{word} {names}: {reason}",
    "structure_state_bare": "{word} {names}",
    "phase_unknown": "the scan's breathing phase is not known",
    "shape_absent": "the organ's shape is not solved",
    "shape_rigid": "the organ is shown rigid: {reason}",
    "shape_partial": "the organ's shape is solved in part: {reason}",
    "tool_lost": "{name} lost: {reason}",
    "tool_lost_bare": "{name} lost",
    "more_rows": "and {count} more",
    "one_of": "1 of {count}: {row}",
    "right": "R",
    "left": "L",
    "anterior": "A",
    "posterior": "P",
    "superior": "S",
    "inferior": "I",
    "from_anterior": "Seen from the front",
    "from_right": "Seen from the patient's right",
    "from_superior": "Seen from the head",
    "from_path": "Seen along the planned path",
    "path_length": "Path {value_mm:.0f}\u00a0mm",
    "setup": "Set up",
    "calibrate": "Calibrate: hold the tip in a divot and swing the tool",
    "swing_wanted": "{name}: swing it by {of:.0f}° or more to all sides",
    "swing_time": "{seconds:.0f} of {of:.0f}\u00a0s, {count} sightings",
    "swing_cone": "Cone {cone_deg:.0f}° from the middle, wanted {of:.0f}°; {sides} of {all} sides reached",
    "swing_tip": "Residual {residual_mm:.2f}\u00a0mm, tip known to {p95_mm:.2f}\u00a0mm (95\u00a0%)",
    "swing_done": "Accept this tip, or reject it and swing again",
    "swing_refused": "Not calibrated: {reason}",
    "touched": "{done} of {all} touched",
    "register": "Register: touch {name} with the pointer",
    "verify": "Verify: touch {name}, which the fit has not used",
    "confirm": "Confirm that the overlay lies on the patient",
    "train": "Learning the breathing: {percent:.0f}\u00a0%",
    "guide": "Guidance",
    "rehearse": "Rehearsal",
    "attempt_begins": "Pull the trigger to begin attempt {number}",
    "attempt_ends": "Attempt {number}: pull the trigger to end it",
    "attempt": "Attempt {number}: {value_mm:.1f}\u00a0mm off, {value_deg:.1f}°, {seconds:.0f}\u00a0s",
    "review": "Review",
    "registration": "Registration alone: residual {fre_mm:.1f}\u00a0mm, at the target 95\u00a0% {tre_mm:.1f}\u00a0mm",
    "verified_ago": "Landmarks verified {minutes:.0f} min ago",
    "verify_again": "Landmarks verified {minutes:.0f} min ago: verify them anew",
    "verified": "Verified at {name}: {value_mm:.1f}\u00a0mm off, 95\u00a0% bound {bound_mm:.1f}\u00a0mm",
    "beyond": "{name} is {value_mm:.1f}\u00a0mm off, its 95\u00a0% bound is {bound_mm:.1f}\u00a0mm: accept or reject",
    "target_depth": "To the target {value_mm:.1f} ± {bound_mm:.1f}\u00a0mm (95\u00a0%)",
    "finding": "{what}: {value:.1f} {unit}",
    "finding_bound": "{what}: {value:.1f} {unit}, at least {lower:.1f}",
    "path_through": "path goes through {name}",
    "plan_through": "planned path goes through {name}",
    "target_error": "Target error 95\u00a0% {value_mm:.1f}\u00a0mm",
    "angle": "Angle to the path {value_deg:.1f}°",
    "gate_open": "Breath gate OPEN",
    "gate_seconds": " {seconds:.1f}\u00a0s",
    "gate_closed": "Breath gate CLOSED: {reason}",
}


def text(key: str, **values: object) -> str:
    """Return a text with its values filled in; raise RenderError where the key or a value is unknown."""
    if key not in TEXTS:
        raise RenderError(f"one of the catalogue's texts {sorted(TEXTS)}", repr(key), "twinguide.wording")
    try:
        return TEXTS[key].format(**values)
    except (KeyError, ValueError) as error:
        raise RenderError(f"the values of {TEXTS[key]!r}", f"{sorted(values)}", "twinguide.wording") from error

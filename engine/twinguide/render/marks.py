"""What is drawn besides surfaces: needle, path, target, errors, orientation, and the marks of overlays. No GL.

Each row is what one instance of a shader takes (line.vert, loop.vert); points are [m] in reference, widths are pixels
of a display of 9 pixels a degree (wider on denser ones). A state is told by shape: what is degraded or unconfirmed is
dashed, what is hidden is absent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from twinguide import wording
from twinguide.frames import CHI_95, Array, Transform, skew
from twinguide.messages import DisplayState
from twinguide.scene import Ellipsoid, Label, Line, Mark, Ring, Scene, Status, ToolView, TwinView, mark_fault

Colour = tuple[float, float, float]
LineRow = tuple[float, ...]  # 16 numbers: start, width, end, dash period, colour, opacity, own, round, 0, 0
# 20 numbers: centre, width, 1st axis, dashes, 2nd axis, kind, 3rd axis, own, colour, opacity
LoopRow = tuple[float, ...]

PATH_COLOUR: Colour = (0.35, 0.92, 1.0)
TARGET_COLOUR: Colour = (1.0, 0.92, 0.35)
ERROR_COLOUR: Colour = (1.0, 1.0, 1.0)
LETTER_COLOUR: Colour = (0.72, 0.78, 0.84)
STATE_COLOUR: Colour = (1.0, 0.80, 0.35)
NEEDLE_COLOUR: Colour = (0.55, 1.0, 0.62)
OTHER_TOOL_COLOUR: Colour = (0.90, 0.72, 1.0)
SHAFT_M = 0.16  # of a tool's shaft drawn behind its tip
AHEAD_M = 0.12  # of the needle's axis drawn ahead of its tip, at most
TICK_M = 0.010  # between depth ticks on the path
LETTER_GAP_M = 0.014  # between the organ and its orientation letters
LETTER_APART_PIXELS = 14.0
DASH_M = 0.006
REASON_LETTERS = 26  # at most, of why a state is so, above the organ: the panel tells all of it
SMALLEST_SIGMA_M = 2e-5  # a covariance may be singular; an ellipsoid must not
OWN, OWN_SHAFT = 1.0, 2.0  # marks of a tip; its shaft reaches the tip where nothing real is seen


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """A text of a line or a few that faces the wearer at a point [m], shape (3,), in reference; `size` in degrees."""

    position: Array
    text: str
    colour: Colour
    size: float = 0.75
    lift: float = 0.0  # by how many of its own heights it stands above the point


@dataclass(slots=True)
class FrameMarks:
    """All strokes of one frame: those that solid surfaces hide, and those on top of everything."""

    lines: list[LineRow] = field(default_factory=list[LineRow])
    loops: list[LoopRow] = field(default_factory=list[LoopRow])
    top_lines: list[LineRow] = field(default_factory=list[LineRow])
    top_loops: list[LoopRow] = field(default_factory=list[LoopRow])
    words: list[Words] = field(default_factory=list[Words])


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """What the marks need to know of the place: the organ's box [m] in image, and the wearer's axes in reference."""

    centre: Array  # (3,) [m], in image
    extent: Array  # (3,) half sizes [m]
    right: Array  # (3,) unit, in reference
    up: Array
    eye: Array  # (3,) [m], in reference
    metres_per_pixel: float  # at the field, of a display of 9 pixels a degree
    organ: str = ""  # whose box it is; where it is hidden, so are the letters about it


def build(scene: Scene, place: Field) -> FrameMarks:
    """Return every mark of one frame; nothing where the twin is not placed or the overlay is off."""
    out, twin = FrameMarks(), scene.twin
    if twin.reference_from_image is None or twin.stage_from_reference is None or not scene.overlay_on:
        return out
    if _state_of(place.organ, twin) != "hidden":
        _orientation(out, twin, twin.reference_from_image, place)
    _path_and_target(out, twin, place)
    for tool in twin.tools.values():
        if tool.status.state != "hidden":
            _tool(out, tool, twin, place)
    for mark in scene.marks:
        if not mark_fault(mark):
            _mark(out, mark, _state_of(mark.of, twin))
    _state_words(out, twin, twin.reference_from_image, place)
    return out


def line(start: Array, end: Array, colour: Colour, width: float = 2.0, dash: float = 0.0, **more: float) -> LineRow:
    """Return the row of a line; `dash` is the period of its dashes [m]; `opacity`, `own` and `round` may be given."""
    opacity, own, rounded = more.get("opacity", 1.0), more.get("own", 0.0), more.get("round", 0.0)
    return (*start.tolist(), width, *end.tolist(), dash, *colour, opacity, own, rounded, 0.0, 0.0)


def ring(centre: Array, first: Array, second: Array, colour: Colour, **more: float) -> LoopRow:
    """Return the row of a ring through two half axes [m]; `width`, `dashes`, `own` and `opacity` may be given."""
    width, dashes = more.get("width", 2.0), more.get("dashes", 0.0)
    own, opacity = more.get("own", 0.0), more.get("opacity", 1.0)
    axes = (*first.tolist(), dashes, *second.tolist(), 0.0, 0.0, 0.0, 0.0, own)
    return (*centre.tolist(), width, *axes, *colour, opacity)


def ellipsoid(centre: Array, covariance: Array, scale: float, colour: Colour, **more: float) -> LoopRow:
    """Return the row of an ellipsoid's outline; covariance [m2], shape (3, 3); see `ring` for the rest."""
    width, dashes, own = more.get("width", 1.6), more.get("dashes", 0.0), more.get("own", 0.0)
    # Any root A with A A^T = covariance maps the sphere to the same ellipsoid; rounding may leave variances below zero.
    variances, directions = np.linalg.eigh(covariance)
    a = scale * directions * np.sqrt(np.maximum(variances, 0.0) + SMALLEST_SIGMA_M**2)
    axes = (*a[:, 0].tolist(), dashes, *a[:, 1].tolist(), 1.0, *a[:, 2].tolist(), own)
    return (*centre.tolist(), width, *axes, *colour, more.get("opacity", 1.0))


def across(direction: Array) -> tuple[Array, Array]:
    """Return two unit vectors, shape (3,), that make a right-handed frame with a unit direction."""
    helper = np.eye(3)[int(np.argmin(np.abs(direction)))]
    normal = skew(direction) @ helper
    first = normal / np.sqrt(normal @ normal)
    return first, skew(direction) @ first


def dashed(state: DisplayState) -> bool:
    """Return whether a state is told by dashes."""
    return state in ("degraded", "unconfirmed")


def _state_of(name: str, twin: TwinView) -> DisplayState:
    """Return the state of what a mark belongs to; what is lost or unknown hides its marks."""
    if not name:
        return "valid"
    if name == "target":
        return twin.target_status.state
    if name in twin.structures:
        return twin.structures[name].status.state
    return twin.tools[name].status.state if name in twin.tools else "hidden"


SIDES = (("right", "left"), ("anterior", "posterior"), ("inferior", "superior"))  # LPS: +x left, +y posterior
SIGNS = ((0, -1.0), (1, 1.0))


def _orientation(out: FrameMarks, twin: TwinView, reference_from_image: Transform, place: Field) -> None:
    """Letters at the six sides of the organ, the nearer brighter; one that would lie over a nearer one is left out."""
    rotation, centre = reference_from_image.rotation, reference_from_image.apply(place.centre)
    away = max(1e-6, float(np.linalg.norm(place.eye - centre)))
    to_wearer = (place.eye - centre) / away
    sides = [(sign * rotation[:, k], place.extent[k], keys[i]) for k, keys in enumerate(SIDES) for i, sign in SIGNS]
    sides.sort(key=lambda side: -float(side[0] @ to_wearer) * (side[1] + LETTER_GAP_M))
    screen = np.stack([place.right, place.up])
    taken: list[Array] = []
    for direction, reach, key in sides:
        letter = centre + direction * (reach + 1.25 * LETTER_GAP_M)
        sight = letter - place.eye
        seen = screen @ sight * (away / max(1e-6, -float(sight @ to_wearer)))  # at the organ's distance
        if any(np.hypot(*(seen - other)) < LETTER_APART_PIXELS * place.metres_per_pixel for other in taken):
            continue
        taken.append(seen)
        strength = 0.8 + 0.2 * float(direction @ to_wearer)
        colour = (LETTER_COLOUR[0] * strength, LETTER_COLOUR[1] * strength, LETTER_COLOUR[2] * strength)
        start, end = (centre + direction * (reach + part * LETTER_GAP_M) for part in (0.25, 0.75))
        out.lines.append(line(start, end, colour, 1.4, opacity=0.8))
        out.words.append(Words(letter, wording.text(key), colour, 0.8))


def _path_and_target(out: FrameMarks, twin: TwinView, place: Field) -> None:
    """Draw the planned path with a ring every 10 mm, the target's cross, its ring (broken unless the gate is open)."""
    target, state = twin.target, twin.target_status.state
    if target is None or state == "hidden":
        return
    dash, dashes = (DASH_M, 16.0) if dashed(state) else (0.0, 0.0)
    radius = max(0.0055, 9.0 * place.metres_per_pixel)
    if twin.entry is not None:
        path = target.position - twin.entry
        length = float(np.linalg.norm(path))
        if length > 1e-6:
            direction = path / length
            first, second = across(direction)
            out.lines.append(line(twin.entry, target.position - radius * direction, PATH_COLOUR, 2.0, dash))
            _ticks(out, twin.entry, direction, length - radius, place)
            entry_radius = 1.1 * radius
            out.loops.append(ring(twin.entry, entry_radius * first, entry_radius * second, PATH_COLOUR, dashes=dashes))
    x, y = radius * place.right, radius * place.up
    gate = 0.0 if twin.gate_open and not dashed(state) else dashes or 4.0
    out.top_loops.append(ring(target.position, x, y, TARGET_COLOUR, width=2.2, dashes=gate))
    for axis in (x, y):
        for sign in (-1.0, 1.0):
            arm = (target.position + 0.35 * sign * axis, target.position + 1.45 * sign * axis)
            out.top_lines.append(line(*arm, TARGET_COLOUR, 1.8, dash))
    if target.covariance.any():
        out.top_loops.append(ellipsoid(target.position, target.covariance, CHI_95, ERROR_COLOUR, dashes=dashes))


def _ticks(out: FrameMarks, entry: Array, direction: Array, length: float, place: Field) -> None:
    """Short strokes across the path every 10 mm from the entry, longer every 50 mm, turned to the wearer."""
    sideways = skew(direction) @ (place.eye - entry)
    size = float(np.linalg.norm(sideways))
    if size < 1e-6:  # looking along the path
        return
    sideways = sideways / size
    for number in range(1, int(length / TICK_M) + 1):
        point = entry + number * TICK_M * direction
        half = (6.5 if number % 5 == 0 else 3.5) * place.metres_per_pixel * sideways
        out.lines.append(line(point - half, point + half, PATH_COLOUR, 1.5))


def _tool(out: FrameMarks, tool: ToolView, twin: TwinView, place: Field) -> None:
    """Draw shaft, tip ring and error of a tool; the tip itself stays free."""
    is_needle = tool.role == "needle"
    colour = NEEDLE_COLOUR if is_needle else OTHER_TOOL_COLOUR
    tip, direction = tool.tip.position, tool.direction
    dash, dashes = (DASH_M, 12.0) if dashed(tool.status.state) else (0.0, 0.0)
    shaft = line(tip - SHAFT_M * direction, tip, colour, 3.2, dash, own=OWN_SHAFT, round=1.0)
    (out.top_lines if is_needle else out.lines).append(shaft)
    sigma = float(np.sqrt(max(0.0, float(np.linalg.eigvalsh(tool.tip.covariance)[2]))))
    radius = max(0.0055, 9.0 * place.metres_per_pixel, CHI_95 * sigma + 2.0 * place.metres_per_pixel)
    x, y = radius * place.right, radius * place.up
    out.top_loops.append(ring(tip, x, y, colour, width=2.4, dashes=dashes, own=OWN))
    out.top_loops.append(ellipsoid(tip, tool.tip.covariance, CHI_95, ERROR_COLOUR, dashes=dashes, own=OWN))
    if is_needle and twin.target is not None and twin.target_status.state != "hidden":
        ahead = min(AHEAD_M, float((twin.target.position - tip) @ direction))
        if ahead > radius:
            out.lines.append(line(tip + radius * direction, tip + ahead * direction, colour, 1.4, 0.5 * DASH_M))
    same = (view.status for view in twin.structures.values())
    if dashed(tool.status.state) and not any(
        (s.state, s.reason) == (tool.status.state, tool.status.reason) for s in same
    ):
        out.words.append(Words(tip, _state_text(tool.status), STATE_COLOUR, 0.75, 2.4))


def _mark(out: FrameMarks, mark: Mark, state: DisplayState) -> None:
    """Draw an overlay's mark in the state of what it belongs to."""
    if state == "hidden":
        return
    dash, dashes = (DASH_M, 16.0) if dashed(state) else (0.0, 0.0)
    match mark:
        case Line():
            pairs = zip(mark.points[:-1], mark.points[1:], strict=True)
            out.lines.extend(line(a, b, mark.colour, mark.width_px, dash) for a, b in pairs)
        case Ring():
            normal = mark.normal / max(1e-12, float(np.linalg.norm(mark.normal)))
            first, second = across(normal)
            r = mark.radius_m
            out.loops.append(ring(mark.centre, r * first, r * second, mark.colour, dashes=dashes))
        case Ellipsoid():
            out.top_loops.append(ellipsoid(mark.centre, mark.covariance, mark.scale, mark.colour, dashes=dashes))
        case Label():
            out.words.append(Words(mark.position, mark.text, mark.colour))


def _state_words(out: FrameMarks, twin: TwinView, reference_from_image: Transform, place: Field) -> None:
    """Write each different state and reason once, above the organ."""
    different = {(s.state, s.reason): s for s in (view.status for view in twin.structures.values()) if dashed(s.state)}
    texts = dict.fromkeys(_state_text(status) for status in different.values())  # in their order, each once
    above = reference_from_image.apply(place.centre) + (float(np.linalg.norm(place.extent)) * 0.75) * place.up
    if texts:
        out.words.append(Words(above, "\n".join(list(texts)[:3]), STATE_COLOUR, 0.75))


def _state_text(status: Status) -> str:
    """Return a state's word and the head of its reason: one line that stays above the organ."""
    reason = status.reason
    if len(reason) > REASON_LETTERS:
        reason = f"{reason[:REASON_LETTERS].rsplit(' ', 1)[0]}…"
    return ": ".join(word for word in (wording.STATE_WORDS[status.state], reason) if word)

"""Where text hangs in the room: the panel by the field, where it covers little, labels, the sign of life. No GL.

A capital letter is never under 0.6 degrees high, nor so small that the display's pixels cannot show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from twinguide.frames import Array, Transform
from twinguide.headset import View
from twinguide.render.camera import pixels_per_tangent, place_in
from twinguide.render.glyphs import CAPITAL_EM, DESCENT_EM
from twinguide.render.marks import Words
from twinguide.render.panels import PADDING_EM, SPINNER_EM, Page

CAPITAL_TANGENT = float(np.tan(np.deg2rad(0.62)))  # least height of a capital letter
LEAST_EM_PIXELS = 13.0  # below it letters run together
WIDTHS_EM = (13.0, 19.0)  # of the panel's text, least and most
START_WIDTH_EM = 30.0
COVERED = 0.5  # of the field's radius, from outside: by what a panel beside it may reach over a field in the middle
LEAST_SHARE = 0.27  # of the view's height, that a panel below or above the field takes though the field leaves less
GAP_TANGENT = 0.03  # between the field and the panel
MARGIN_TANGENT = 0.02  # from the edge of the view
HALF_IPD_M = 0.032
ARM_M = 0.55  # from which a field is mostly seen
NEAREST_M = 0.2  # before the head: what is nearer, or behind it, is not hung by
DEPTHS_M = (0.3, 1.5)  # before the head, between which the panel hangs
ALONE_M = 1.0  # and where there is no field
STAY_TANGENT = 0.005  # by how much the panel may reach over something before it goes elsewhere
SWITCH_TANGENT = 0.03  # by how much less the panel must cover elsewhere to go there: it follows no sway
Side = Literal["right", "left", "below", "above"]  # of the field
Corner = tuple[float, float]  # as tangents
BESIDE: tuple[Side, Side] = ("right", "left")
OVER: tuple[Side, Side] = ("below", "above")
LIFE_COLOUR = (0.55, 1.0, 0.75, 1.0)
LABEL_LOOK = (1.0, 0.0, 0.75, 0.0, 0.0)  # of its glyphs: opacity; weight, dark border
QUAD_NUMBERS = 24  # of each rectangle, as quad.vert takes it


class Spot(NamedTuple):
    """A spot of the panel at a side of the field: level with it (0), or past it down or left (-1), up or right (1)."""

    side: Side
    slide: int = 0


LEVEL_RIGHT = Spot("right")


@dataclass(frozen=True, slots=True, eq=False)
class Hanging:
    """Where a page hangs: its top left corner [m], its axes (unit) and one em [m], all in stage."""

    corner: Array
    right: Array
    up: Array
    em: float
    spot: Spot = LEVEL_RIGHT


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What the panel is to keep free: points [m], shape (n, 3), in stage; the first `firm` before all others."""

    points: Array
    firm: int = 0

    def seen(self, head: Transform, depth: float) -> Seen:
        """Return where those before the head are seen, from it and by the eyes on a plane at a depth [m]."""
        points = (self.points - head.translation) @ head.rotation
        before = points[:, 2] < -NEAREST_M
        x, y, z = points[before].T
        return Seen(x / -z, y / -z, HALF_IPD_M * np.abs(1.0 / z + 1.0 / depth), int(before[: self.firm].sum()))


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Where points are seen, as tangents, each shape (n,): aside, up, and how far to both sides of it an eye does."""

    u: Array
    v: Array
    apart: Array
    firm: int

    def covered(self, corner: Corner, size: Corner, gap: float = 0.0) -> float:
        """Return how deep [tangent] the deepest point lies in a panel or in the gap about it, 1 more if firm."""
        (x, y), (width, height) = corner, size
        across = np.minimum(self.u - x, x + width - self.u) + self.apart
        inside = np.minimum(across, np.minimum(y - self.v, self.v - y + height)) + gap
        return float(inside.max(initial=0.0)) + float((inside[: self.firm] > 0.0).any())


@dataclass(frozen=True, slots=True)
class Room:
    """What a panel may take: its text's width and its own height [em], and on which sides of the field."""

    width: float
    height: float
    sides: tuple[Side, Side] = BESIDE


@dataclass(frozen=True, slots=True)
class Sight:
    """What both eyes of a display share: pixels per unit of tangent, and how far they see, as tangents."""

    density: float
    aside: float  # the narrowest side's
    up: float
    down: float  # negative

    @staticmethod
    def of(*views: View) -> Sight:
        """Return what all these eyes share."""
        left, right, up, down = np.tan([view.fov for view in views]).T.tolist()
        return Sight(min(map(pixels_per_tangent, views)), min(-max(left), *right), min(up), max(down))

    @property
    def em(self) -> float:
        """One em as a tangent: high enough to read, and for the display's pixels."""
        return max(CAPITAL_TANGENT / CAPITAL_EM, LEAST_EM_PIXELS / self.density)

    def half_width(self, depth: float) -> float:
        """Return the half width [tangent] that both eyes see at a depth [m]."""
        return self.aside - HALF_IPD_M / depth - MARGIN_TANGENT


def hang(
    page: Page,
    head: Transform,
    middle: Array | None,
    field_radius: float,
    sight: Sight,
    *,
    kept: Kept,
    before: Spot = LEVEL_RIGHT,
    sides: tuple[Side, Side] = BESIDE,
) -> Hanging:
    """Hang the panel at one of two sides of the field, as far as the view reaches; before the wearer if there is none.

    `middle` [m], shape (3,), in stage, and `field_radius` [m] are the field's. A pure function of the head, of what is
    `kept` free and of the spot `before`: the panel stands still by the patient, slides only where it would leave the
    view, and goes to another spot where it covers something here, and clearly less there.
    """
    spot, em = before if before.side in sides else Spot(sides[0]), sight.em
    size = width, height = page.width * em, page.height * em
    place = None if middle is None else place_in(head, middle)
    if place is None or place[2] > -NEAREST_M:
        depth, (x, y) = ALONE_M, (-width / 2, height / 2)
    else:
        depth = float(np.clip(-place[2], *DEPTHS_M))
        u, v = (place[:2] / depth).tolist()
        field, seen = (u, v, field_radius / depth + GAP_TANGENT), kept.seen(head, depth)
        x, y = _within(_wanted(spot, field, size), size, sight, depth)
        if least := seen.covered((x, y), size, -STAY_TANGENT):
            for other in (Spot(side, slide) for side in (spot.side, *sides) for slide in (0, -1, 1)):
                at = _within(_wanted(other, field, size), size, sight, depth)
                covered = seen.covered(at, size, SWITCH_TANGENT)
                if covered < least:
                    least, spot, (x, y) = covered, other, at
    corner = head.apply(np.array([x, y, -1.0]) * depth)
    return Hanging(corner, head.rotation[:, 0], head.rotation[:, 1], em * depth, spot)


def _wanted(spot: Spot, field: tuple[float, float, float], size: Corner) -> Corner:
    """Return where a panel's top left corner is to be, as tangents, by a field's middle and radius."""
    (side, slide), (u, v, reach), (width, height) = spot, field, size
    if side in BESIDE:
        return (u + reach if side == "right" else u - reach - width), v + height / 2 + slide * (reach + height / 2)
    return u - width / 2 + slide * (reach + width / 2), (v - reach if side == "below" else v + reach + height)


def _within(corner: Corner, size: Corner, sight: Sight, depth: float) -> Corner:
    """Return the nearest corner from which both eyes see the whole panel at a depth [m]."""
    (x, y), (width, height), half = corner, size, sight.half_width(depth)
    y = min(max(y, sight.down + MARGIN_TANGENT + height), sight.up - MARGIN_TANGENT)
    return max(-half, min(x, half - width)), y


def panel_room(sight: Sight, field_radius: float | None) -> Room:
    """Return the room of a panel: by a field of a radius [m] at arm's length, or alone if None.

    It hangs on the display alone, so that text never flows anew when the head moves: beside the field, or, where a
    panel of the least width would hide the field there, below or above it.
    """
    high = sight.up - sight.down - 2.0 * MARGIN_TANGENT
    if field_radius is None:
        return Room(min(START_WIDTH_EM, 1.8 * sight.half_width(1.0) / sight.em - 2.0 * PADDING_EM), high / sight.em)
    half, reach = sight.half_width(ARM_M), field_radius / ARM_M
    room = (half - reach - GAP_TANGENT) / sight.em - 2.0 * PADDING_EM
    if half - (WIDTHS_EM[0] + 2.0 * PADDING_EM) * sight.em >= (1.0 - COVERED) * reach:
        return Room(float(np.clip(np.floor(room), *WIDTHS_EM)), high / sight.em)
    left = min(sight.up, -sight.down) - MARGIN_TANGENT - reach - GAP_TANGENT
    width = min(START_WIDTH_EM, 2.0 * half / sight.em - 2.0 * PADDING_EM)
    return Room(width, max(left, LEAST_SHARE * high) / sight.em, OVER)


def quads(page: Page, hanging: Hanging, out: NDArray[np.float32]) -> int:
    """Write a page's rectangles as quad.vert takes them, shape (n, 24), into `out`; return n."""
    n = len(page.rectangles)
    em, r = hanging.em, page.rectangles
    axes = np.array([hanging.right, hanging.up], dtype=np.float32) * np.float32(em)
    rows = out[:n]
    rows[:, 0:3] = r[:, :2] @ axes + hanging.corner.astype(np.float32)
    rows[:, 3] = 0.0
    rows[:1, 3] = float(page.plate)
    rows[:, 4:7] = r[:, 2:3] * axes[0]
    rows[:, 7] = r[:, 2]
    rows[:, 8:11] = r[:, 3:4] * axes[1]
    rows[:, 11] = r[:, 3]
    rows[:, 12:16], rows[:, 16:20], rows[:, 20:24] = page.place, page.colour, page.style
    return n


def label_em(size: float, sight: Sight) -> float:
    """Return one em of a label as a tangent, by the wanted height of its capitals [deg]."""
    return max(float(np.tan(np.deg2rad(size))) / CAPITAL_EM, LEAST_EM_PIXELS / sight.density)


def label_width(size: float, sight: Sight) -> float:
    """Return how wide a label's lines may be [em] to be seen whole by both eyes, however near it is."""
    return 2.0 * sight.half_width(DEPTHS_M[0]) / label_em(size, sight)


def label_quads(
    labels: Sequence[Page],
    words: Sequence[Words],
    places: Array,
    *,
    head: Transform,
    sight: Sight,
    out: NDArray[np.float32],
) -> int:
    """Write short texts that face the wearer, upright, each centred at its place; return how many rectangles.

    `places` [m], shape (k, 3), in stage. Where a label would leave the view it slides back, until its far edge is by
    its place at most: it is whole where its place is in view and it fits there. All at once: a frame has few glyphs
    but many small steps.
    """
    seen = (places - head.translation) @ head.rotation
    depth = np.maximum(-seen[:, 2], NEAREST_M)
    em = np.array([label_em(one.size, sight) for one in words]) * depth
    half = 0.5 * em * [label.width for label in labels]
    low = em * (np.array([one.lift for one in words]) - 0.5 * CAPITAL_EM)
    margin = MARGIN_TANGENT * depth
    under, over = low - DESCENT_EM * em - margin, low + em * [label.height for label in labels] + margin
    room = np.maximum(sight.aside * depth - margin - HALF_IPD_M - half, 0.0)
    aside = np.clip(np.clip(seen[:, 0], -room, room) - seen[:, 0], -half, half)
    above = np.minimum(np.maximum(seen[:, 1], sight.down * depth - under), sight.up * depth - over) - seen[:, 1]
    above = np.clip(above, -np.maximum(over, 0.0), np.maximum(-under, 0.0))
    right, up = head.rotation[:, 0], head.rotation[:, 1]
    corners = places + aside[:, None] * right + (low + above)[:, None] * up
    r = np.concatenate([label.rectangles for label in labels])
    of = np.repeat(np.arange(len(labels)), [len(label.rectangles) for label in labels])
    rows, scaled = out[: len(r)], r * em[of, None]
    rows[:, 0:3] = corners[of] + scaled[:, :1] * right + scaled[:, 1:2] * up
    rows[:, 3] = 0.0
    rows[:, 4:7], rows[:, 7] = scaled[:, 2:3] * right, r[:, 2]
    rows[:, 8:11], rows[:, 11] = scaled[:, 3:4] * up, r[:, 3]
    rows[:, 12:16] = np.concatenate([label.place for label in labels])
    rows[:, 16:19] = np.array([one.colour for one in words])[of]
    rows[:, 19:24] = LABEL_LOOK
    return len(r)


def sign_of_life(page: Page, hanging: Hanging, frame: int, out: NDArray[np.float32]) -> int:
    """Write the turning bar in the panel's upper right corner, one turn in 90 frames, into `out`; return 2."""
    angle = 2.0 * np.pi * (frame % 90) / 90.0
    middle = np.array([page.width - PADDING_EM - SPINNER_EM / 2 - 0.1, -PADDING_EM - 0.8])
    long, wide = 1.25 * SPINNER_EM, 0.24
    axes = np.stack([hanging.right, hanging.up]) * hanging.em
    along = np.array([np.cos(angle), -np.sin(angle)])  # clockwise
    aside = np.array([-along[1], along[0]])
    circle = 2.0 * SPINNER_EM
    ring = (middle - circle / 2, np.array([circle, 0.0]), np.array([0.0, circle]), circle, circle, 0.5 * circle, 0.06)
    start = middle - 0.12 * long * along
    bar = (start - wide / 2 * aside, 0.85 * long * along, wide * aside, 0.85 * long, wide, wide / 2, 0.0)
    for row, (origin, right, up, width, height, radius, border) in enumerate((ring, bar)):
        out[row, 0:3], out[row, 3] = hanging.corner + origin @ axes, 1.0
        out[row, 4:7], out[row, 7] = right @ axes, width
        out[row, 8:11], out[row, 11] = up @ axes, height
        out[row, 12:16] = radius, border, 0.0, 0.0
        out[row, 16:20], out[row, 20:24] = (0.0 if border else 1.0) * np.array(LIFE_COLOUR), LIFE_COLOUR
    return 2

"""The text panel: which rows it has and how they are set, in em of its text. No GL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from twinguide import wording
from twinguide.render.glyphs import CAPITAL_EM, Atlas
from twinguide.scene import PanelRow, Scene

Colour = tuple[float, float, float]
Rows = NDArray[np.float32]
PanelKind = Literal["title", "normal", "advisory", "caution", "warning"]
SetRow = tuple[PanelKind, list[str]]  # and its lines
Boxes = tuple[Rows, Rows, Rows, Rows]  # rectangles, place, colour and style, as in Page

LINE_EM, TITLE_EM, PADDING_EM, SPINNER_EM, ICON_EM, GAP_EM = 1.32, 1.25, 0.75, 0.62, 1.25, 0.25
MOST_EM = 32.0  # height of its text
ONE_EM = 3.0 * LINE_EM + GAP_EM  # height of its text, at least: one row
GRAVEST_FIRST = ("warning", "caution", "normal", "advisory", "title")
KEPT_FIRST = ("title", "warning", "caution", "normal", "advisory")  # where not all rows find room, the gravest but one
COLOURS: dict[str, Colour] = {
    "title": (1.0, 1.0, 1.0),
    "normal": (0.86, 0.90, 0.94),
    "advisory": (0.55, 0.85, 1.0),
    "caution": (1.0, 0.80, 0.25),
    "warning": (1.0, 0.45, 0.38),
}
PLATE_COLOUR, PLATE_EDGE = (0.03, 0.04, 0.055, 0.92), (0.33, 0.40, 0.47, 0.92)
PLATE_SHAPE = (0.6, 0.05)  # radius of its corners and width of its edge [em]


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """Rectangles of a set text: place and size [em] from its top left, y up, and what quad.vert takes of each."""

    rectangles: Rows  # (n, 4): left, bottom, width, height [em]
    place: Rows  # (n, 4)
    colour: Rows  # (n, 4)
    style: Rows  # (n, 4)
    width: float  # [em]
    height: float
    plate: bool = False  # whether the first rectangle is one; all others are glyphs


def panel_rows(scene: Scene) -> tuple[PanelRow, ...]:
    """Return all rows of a scene's panel: its own, and why something is hidden, lost, degraded or unconfirmed."""
    if scene.start_screen:
        title: tuple[PanelRow, ...] = (("title", wording.text("title")),)
        use: list[PanelRow] = [("normal", row) for row in wording.INTENDED_USE[1:]]
        return (*title, ("caution", wording.INTENDED_USE[0]), *use, *scene.panel)
    titles = tuple(row for row in scene.panel if row[0] == "title")
    own = _own_rows(scene)
    # a reason is told once, with what it hides, but never as less than it is
    told = {words.partition(": ")[2] for kind, words in own if kind != "advisory"}
    return (*titles, *own, *(row for row in scene.panel if row[0] != "title" and row[1] not in told))


def _own_rows(scene: Scene) -> list[PanelRow]:
    """Return what the wearer must know before anything else: why something is not shown as usual."""
    twin, rows = scene.twin, list[PanelRow]()
    if not scene.overlay_on:
        rows.append(("advisory", wording.text("overlay_off")))
    if twin.reference_from_image is None:
        reason = twin.registration.reason or wording.text("not_placed_reason")
        rows.append(("advisory", wording.text("not_placed", reason=reason)))
    elif twin.stage_from_reference is None:
        reason = twin.stage_reason or wording.text("reference_lost")
        rows.append(("caution", wording.text("not_placed", reason=reason)))
    else:
        rows.extend(_state_rows(scene))
    for name, status in twin.lost.items():
        key = "tool_lost" if status.reason else "tool_lost_bare"
        rows.append(("caution", wording.text(key, name=name, reason=status.reason)))
    return rows


def panel_text(scene: Scene) -> tuple[str, ...]:
    """Return the panel's rows as they read, with the severity's word, for the record of what was shown."""
    words = {**dict.fromkeys(COLOURS, ""), **wording.SEVERITY_WORDS}
    return tuple(f"{words[kind]} {row}".strip() for kind, row in panel_rows(scene))


def _state_rows(scene: Scene) -> list[PanelRow]:
    """Name what is not shown as valid, once for each different state and reason."""
    twin, parts = scene.twin, list(scene.twin.structures)
    shown = [(name, view.status) for name, view in (*twin.structures.items(), *twin.tools.items())]
    if twin.target:
        parts.append("target")
        shown.append(("target", twin.target_status))
    groups: dict[tuple[str, str], list[str]] = {}
    for name, status in shown:
        if word := wording.STATE_WORDS[status.state]:
            groups.setdefault((word, status.reason), []).append(name)
    out: list[PanelRow] = []
    for (word, reason), names in groups.items():
        others = [name for name in parts if name not in names]
        listed = ", ".join(names)
        if len(others) < len(parts) - len(others) > 2:  # the shorter way to tell which
            all_but = f"all but {', '.join(others)}" if others else "all"
            listed = ", ".join([*(name for name in names if name not in parts), all_but])
        key = "structure_state" if reason else "structure_state_bare"
        out.append(("caution", wording.text(key, word=word, names=listed.replace("_", " "), reason=reason)))
    return out


def wrap(atlas: Atlas, words: str, width: float) -> list[str]:
    """Return a text's lines, none wider than `width` [em] unless a single word is."""
    lines = [""]
    for word in words.split(" "):  # not at non-breaking spaces
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and atlas.width(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


class Typesetter:
    """Sets lines and pages, and keeps lines that were set before: most of a panel is the same in the next frame."""

    KEPT = 512

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas
        self._lines: dict[tuple[str, Colour, float, bool], Boxes] = {}
        self._labels: dict[tuple[str, float], Page] = {}
        self._page: tuple[tuple[PanelRow, ...], float, float, bool, Page] | None = None

    def label(self, words: str, width: float) -> Page:
        """Set a text in lines no wider than `width` [em], centred, the last one's baseline through the origin."""
        found = self._labels.get((words, width))
        if found is None:
            if len(self._labels) >= self.KEPT:
                self._labels.clear()
            lines = [line for part in words.split("\n") for line in wrap(self.atlas, part, width)]
            wide, top = [self.atlas.width(line) for line in lines], LINE_EM * (len(lines) - 1)
            parts = [
                _moved(self._set(line, COLOURS["normal"], 1.0, False), -0.5 * wide[i], top - LINE_EM * i)
                for i, line in enumerate(lines)
            ]
            joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
            found = self._labels[words, width] = Page(*joined, width=max(wide), height=top + CAPITAL_EM)
        return found

    def _set(self, words: str, colour: Colour, size: float, bold: bool) -> Boxes:
        key = (words, colour, size, bold)
        found = self._lines.get(key)
        if found is None:
            if len(self._lines) >= self.KEPT:
                self._lines.clear()
            found = self._lines[key] = self._glyphs(self.atlas.indices(words), colour, size, bold)
        return found

    def _glyphs(self, glyphs: NDArray[np.intp], colour: Colour, size: float, bold: bool) -> Boxes:
        advances = self.atlas.advances[glyphs]
        count = len(advances)
        rectangles = self.atlas.boxes[glyphs].astype(np.float32)
        rectangles[:, 0] += np.cumsum(advances) - advances
        rectangles *= size
        colours = np.empty((count, 4), dtype=np.float32)
        colours[:] = (*colour, 1.0)
        style = np.zeros((count, 4), dtype=np.float32)
        style[:, 0] = 0.018 if bold else 0.0
        return rectangles, self.atlas.corners[glyphs], colours, style

    def page(self, rows: tuple[PanelRow, ...], width: float, height: float = np.inf, headed: bool = True) -> Page:
        """Set a panel whose text is `width` [em] wide and which is no higher than `height` [em], its plate first.

        A severity stands in a line of its own where rows are `headed`, else it begins the row. A height that has room
        for no more than one row takes the gravest, which then tells how many there are.
        """
        if self._page is None or self._page[:4] != (rows, width, height, headed):
            self._page = (rows, width, height, headed, self._lay_out(rows, width, height, headed))
        return self._page[4]

    def _lay_out(self, rows: Sequence[PanelRow], width: float, height: float, headed: bool) -> Page:
        parts: list[Boxes] = []
        y = -PADDING_EM
        room = max(min(height - 2.0 * PADDING_EM, MOST_EM), ONE_EM)
        several: list[SetRow] = [(kind, self._lines_of(kind, words, width, headed)) for kind, words in rows]
        fitting = _fitting(several, room, headed)
        if fitting is not several and len(fitting) < 3 and len(rows) > 1:  # but one, beside the row that counts
            headed = False
            kind, words = min(rows, key=lambda row: GRAVEST_FIRST.index(row[0]))
            words = wording.text("one_of", count=len(rows), row=words)  # what is cut is at the end
            fitting = _fitting([(kind, self._lines_of(kind, words, width, headed))], room, headed)
        for kind, lines in fitting:
            y = self._row(parts, kind, lines, y, headed)
        full, height = width + 2.0 * PADDING_EM, PADDING_EM - y
        plate = _plate(full, height)
        joined = [np.concatenate(arrays) for arrays in zip(plate, *parts, strict=True)]
        return Page(*joined, width=full, height=height, plate=True)

    def _lines_of(self, kind: PanelKind, words: str, width: float, headed: bool) -> list[str]:
        if kind == "title":
            return wrap(self.atlas, words, (width - 2.0 * SPINNER_EM) / TITLE_EM)
        if kind != "normal":
            words, width = words if headed else f"{wording.SEVERITY_WORDS[kind]} {words}", width - ICON_EM
        return wrap(self.atlas, words, width if headed else width - 2.0 * SPINNER_EM)

    def _row(self, parts: list[Boxes], kind: PanelKind, lines: Sequence[str], y: float, headed: bool) -> float:
        """Set one row below `y` [em], its severity in a line above it where `headed`, and return the new `y`."""
        size = TITLE_EM if kind == "title" else 1.0
        left, colour = PADDING_EM, COLOURS[kind]
        if kind not in ("title", "normal"):
            top = y - LINE_EM
            parts.append(_moved(self._glyphs(np.array([self.atlas.index[kind]]), colour, 1.0, False), left, top))
            left += ICON_EM
            if headed:
                parts.append(_moved(self._set(wording.SEVERITY_WORDS[kind], colour, 0.9, True), left, top))
                y, colour = top, COLOURS["normal"]
        for one in lines:
            y -= LINE_EM * size
            parts.append(_moved(self._set(one, colour, size, kind == "title"), left, y))
        return y - (GAP_EM if kind != "normal" else 0.0)


def _height(kind: PanelKind, lines: int, headed: bool) -> float:
    """Return how high a row is [em], as `Typesetter._row` sets it."""
    if kind == "title":
        return lines * LINE_EM * TITLE_EM + GAP_EM
    return lines * LINE_EM if kind == "normal" else (lines + headed) * LINE_EM + GAP_EM


def _fitting(rows: Sequence[SetRow], room: float, headed: bool) -> Sequence[SetRow]:
    """Return the rows that find room [em], in their order: the gravest, and a last one that counts the others.

    The gravest is cut where it is longer than the room, not left out.
    """
    heights = [_height(kind, len(lines), headed) for kind, lines in rows]
    if sum(heights) <= room:
        return rows
    if len(rows) > 1:  # for the row that counts, severe as those left out are
        room -= _height("caution", 1, headed)
    kept: dict[int, SetRow] = {}
    order = sorted(range(len(rows)), key=lambda number: KEPT_FIRST.index(rows[number][0]))
    gravest = min(range(len(rows)), key=lambda number: GRAVEST_FIRST.index(rows[number][0]))
    for number in dict.fromkeys((gravest, *order)):
        kind, lines = rows[number]
        fit = int((room - _height(kind, 0, headed)) / LINE_EM + 1e-6)
        if number == gravest and 0 < fit < len(lines):
            lines = [*lines[: fit - 1], f"{lines[fit - 1]} …"]
        height = _height(kind, len(lines), headed)
        if height <= room:
            kept[number] = kind, lines
            room -= height
    others = {kind for number, (kind, _) in enumerate(rows) if number not in kept}
    if not others:
        return [kept[number] for number in sorted(kept)]
    severity: PanelKind = "warning" if "warning" in others else "caution" if "caution" in others else "normal"
    word = "" if headed or severity == "normal" else f"{wording.SEVERITY_WORDS[severity]} "
    more = [f"{word}{wording.text('more_rows', count=len(rows) - len(kept))}"]
    return [*(kept[number] for number in sorted(kept)), (severity, more)]


def _moved(line: Boxes, x: float, y: float) -> Boxes:
    rectangles = line[0].copy()
    rectangles[:, 0] += x
    rectangles[:, 1] += y
    return rectangles, line[1], line[2], line[3]


def _plate(width: float, height: float) -> Boxes:
    place, shape = (0.0, -height, width, height), (*PLATE_SHAPE, 0.0, 0.0)
    a, b, c, d = (np.array([row], dtype=np.float32) for row in (place, shape, PLATE_COLOUR, PLATE_EDGE))
    return a, b, c, d

"""The glyph atlas: every character once, as distances to its outline, so that text is sharp at any size. No GL.

Distances instead of coverage after Green 2007, "Improved alpha-tested magnification for vector textures".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage  # pyright: ignore[reportMissingTypeStubs]

CHARACTERS = "".join(map(chr, (*range(32, 127), *range(0xC0, 0x100)))) + "°±…"
# What the font has no glyph for, by its nearest reading; anything else shows as a question mark.
READ_AS: Mapping[str, str] = {
    "µ": "u", "–": "-", "—": "-", "−": "-", "×": "x", "≤": "<", "≥": ">", "²": "2", "³": "3", "·": ".",  # noqa: RUF001
    "→": ">", "’": "'", "‘": "'", "“": '"', "”": '"', "\u00a0": " ", "\n": " ", "\t": " ",  # noqa: RUF001
}  # fmt: skip
ICONS = ("advisory", "caution", "warning")
DRAWN_EM, EM, PAD, COLUMNS = 80, 40, 8, 16  # [px]: size drawn, size stored, border around a glyph; glyphs in a row
CELL = EM + EM // 4 + 2 * PAD  # [px]; descenders and wide letters need a quarter more
CAPITAL_EM = 0.70  # height of a capital letter
ASCENT_EM, DESCENT_EM, BORDER_EM = 0.80, 0.24, 0.13  # what a glyph's box holds; PAD / EM leaves room for the border
EM_PER_UNIT = 2.0 * PAD / EM  # what the range of stored values spans


@dataclass(frozen=True, slots=True, eq=False)
class Atlas:
    """Distances, shape (height, width) uint8, top row first; for each glyph its box and how far it advances.

    A glyph's box lies about its origin, the left end of its baseline; it is no larger than the glyph and its border, so
    that little is drawn in vain.
    """

    pixels: NDArray[np.uint8]
    corners: NDArray[np.float32]  # (n, 4): left, bottom, right, top in 0..1, rows counted from the top
    boxes: NDArray[np.float32]  # (n, 4): left, bottom, width, height [em]
    advances: NDArray[np.float32]  # (n,) [em]
    index: Mapping[str, int]  # of a character, or of an icon's name

    def indices(self, text: str) -> NDArray[np.intp]:
        """Return each character's glyph, shape (len(text),)."""
        unknown = self.index["?"]
        read = (READ_AS.get(character, character) for character in text)
        return np.array([self.index.get(character, unknown) for character in read], dtype=np.intp)

    def width(self, text: str) -> float:
        """Return how wide a text is [em]."""
        return float(self.advances[self.indices(text)].sum()) if text else 0.0


def make_atlas() -> Atlas:
    """Draw all glyphs and icons; about 0.3 s, so once in a run."""
    ratio = DRAWN_EM // EM
    names = [*CHARACTERS, *ICONS]
    rows = -(-len(names) // COLUMNS)
    cell = CELL * ratio
    image = Image.new("L", (COLUMNS * cell, rows * cell), 0)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(DRAWN_EM)
    origins = np.zeros((len(names), 2))  # [stored px]
    advances = np.zeros(len(names), dtype=np.float32)
    for number, name in enumerate(names):
        row, column = divmod(number, COLUMNS)
        baseline = (column * cell + PAD * ratio, row * cell + (PAD + EM) * ratio)
        if name in ICONS:
            _draw_icon(draw, name, baseline)
            advances[number] = 0.95
        else:
            draw.text(baseline, name, fill=255, font=font, anchor="ls")
            advances[number] = font.getlength(name) / DRAWN_EM
        origins[number] = column * CELL + PAD, row * CELL + PAD + EM
    inside = np.asarray(image) > 127
    signed = _distance_to_edge(inside) - _distance_to_edge(~inside)
    height, width = rows * CELL, COLUMNS * CELL
    boxes = np.empty((len(names), 4), dtype=np.float32)
    boxes[:] = -BORDER_EM, -DESCENT_EM - BORDER_EM, 0.0, ASCENT_EM + DESCENT_EM + 2 * BORDER_EM
    boxes[:, 2] = advances + 2 * BORDER_EM
    low = origins + boxes[:, :2] * (EM, -EM)
    high = low + boxes[:, 2:] * (EM, -EM)
    corners = (np.concatenate([low, high], axis=1) / (width, height, width, height)).astype(np.float32)
    small = signed.reshape(height, ratio, width, ratio).mean(axis=(1, 3)) / ratio  # [stored px]
    pixels = np.clip(np.rint(127.5 + small / PAD * 127.5), 0, 255).astype(np.uint8)
    return Atlas(pixels, corners, boxes, advances, {name: number for number, name in enumerate(names)})


def _distance_to_edge(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each true pixel's distance [px] to the nearest false one, 0 for those."""
    untyped: Any = ndimage
    return np.asarray(untyped.distance_transform_edt(inside), dtype=np.float64)


def _draw_icon(draw: ImageDraw.ImageDraw, name: str, baseline: tuple[int, int]) -> None:
    """Draw a severity's shape: advisory a circle with i, caution a triangle, warning a diamond, both with !."""
    size = 0.86 * DRAWN_EM
    x, y = baseline[0] + size / 2, baseline[1] - 0.36 * DRAWN_EM
    if name == "advisory":
        draw.ellipse((x - size / 2, y - size / 2, x + size / 2, y + size / 2), fill=255)
    else:
        angles = np.deg2rad([-90, 30, 150] if name == "caution" else [0, 90, 180, 270])
        radius = size * (0.62 if name == "caution" else 0.66)
        lower = 0.10 * size if name == "caution" else 0.0  # a triangle's middle lies low
        draw.polygon([(x + radius * np.cos(a), y + lower + radius * np.sin(a)) for a in angles], fill=255)
    letter = ImageFont.load_default((0.50 if name == "caution" else 0.62) * DRAWN_EM)
    text = "i" if name == "advisory" else "!"
    place = (x, y + (0.10 * size if name == "caution" else 0.0))
    draw.text(place, text, fill=0, font=letter, anchor="mm", stroke_width=2, stroke_fill=0)

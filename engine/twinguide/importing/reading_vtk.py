"""Read VTK legacy polygon data, ASCII or binary, versions 1 to 5.

The `vtk` package is half a gigabyte and `meshio` does not read polygon data, so this small reader follows the published
format ("VTK File Formats", The VTK User's Guide); a test compares it with `vtk` where that is installed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide.errors import CaseError

TYPES = {
    "char": "i1", "unsigned_char": "u1", "short": "i2", "unsigned_short": "u2", "int": "i4", "unsigned_int": "u4",
    "long": "i8", "unsigned_long": "u8", "vtktypeint64": "i8", "vtktypeint32": "i4", "vtkidtype": "i8",
    "float": "f4", "double": "f8",
}  # fmt: skip
CELLS = ("POLYGONS", "TRIANGLE_STRIPS", "LINES", "VERTICES")
END = ("POINT_DATA", "CELL_DATA")


class Cursor:
    """A place in the file, from which lines and arrays are taken."""

    def __init__(self, data: bytes, where: str) -> None:
        self._data, self.at, self._where = data, 0, where
        self.binary = False

    def line(self) -> str | None:
        """Return the next line that is not blank, or None at the end."""
        while self.at < len(self._data):
            end = self._data.find(b"\n", self.at)
            end = len(self._data) if end < 0 else end
            text = self._data[self.at : end].decode("ascii", errors="replace").strip()
            self.at = end + 1
            if text:
                return text
        return None

    def numbers(self, count: int, type_name: str) -> NDArray[Any]:
        """Return the next `count` numbers (binary ones are big-endian)."""
        if type_name.lower() not in TYPES:
            raise CaseError(f"a number type of {sorted(TYPES)}", type_name, self._where)
        dtype = np.dtype(">" + TYPES[type_name.lower()])
        if self.binary:
            size = count * dtype.itemsize
            chunk = self._data[self.at : self.at + size]
            self.at += size
            if len(chunk) == size:
                return np.frombuffer(chunk, dtype=dtype).astype(dtype.newbyteorder("="))
            raise CaseError(f"{size} bytes of {type_name}", f"{len(chunk)}", self._where, "The file is cut off.")
        tokens = self._data[self.at :].split(maxsplit=count)
        if len(tokens) < count:
            raise CaseError(f"{count} numbers", f"{len(tokens)}", self._where, "The file is cut off.")
        self.at = len(self._data) - (len(tokens[count]) if len(tokens) > count else 0)
        return np.array(tokens[:count]).astype(dtype.newbyteorder("="))


def read_vtk(data: bytes, where: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return vertices, (n, 3), in the file's units, and triangles, (m, 3), of legacy VTK polygon data."""
    cursor = Cursor(data, where)
    header = cursor.line() or ""
    cursor.line()
    form = (cursor.line() or "").upper()
    dataset = (cursor.line() or "").upper()
    if not header.startswith("# vtk DataFile") or form not in ("ASCII", "BINARY") or dataset != "DATASET POLYDATA":
        got = f"{header[:40]!r}, {form[:20]!r}, {dataset[:40]!r}"
        raise CaseError(
            "a legacy VTK file of POLYDATA", got, where, "Extract the surface, and save it as polygon data."
        )
    cursor.binary = form == "BINARY"
    vertices = np.zeros((0, 3))
    triangles: list[NDArray[np.int64]] = []
    while (line := cursor.line()) is not None:
        words = line.split()
        key = words[0].upper()
        if key == "POINTS":
            vertices = cursor.numbers(3 * int(words[1]), words[2]).astype(np.float64).reshape(-1, 3)
        elif key in CELLS:
            offsets, indices = _cells(cursor, int(words[1]), int(words[2]))
            if key == "POLYGONS":
                triangles.append(_fans(offsets, indices))
            elif key == "TRIANGLE_STRIPS":
                triangles.append(_strips(offsets, indices))
        elif key in END:
            break
    return vertices, np.concatenate(triangles) if triangles else np.zeros((0, 3), dtype=np.int64)


def _cells(cursor: Cursor, first: int, second: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return offsets, (cells + 1,), and indices; version 5 writes them so, older ones as count, indices, count, ..."""
    at = cursor.at
    words = (cursor.line() or "").split()
    if words[:1] == ["OFFSETS"]:
        offsets = cursor.numbers(first, words[1]).astype(np.int64)
        words = (cursor.line() or "").split()
        return offsets, cursor.numbers(second, words[1]).astype(np.int64)
    cursor.at = at
    mixed = cursor.numbers(second, "int").astype(np.int64)
    starts = np.zeros(first + 1, dtype=np.int64)
    for cell in range(first):
        starts[cell + 1] = starts[cell] + 1 + mixed[starts[cell]]
    keep = np.ones(second, dtype=bool)
    keep[starts[:-1]] = False
    return starts - np.arange(first + 1), mixed[keep]


def _fans(offsets: NDArray[np.int64], indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return triangles of convex polygons, each a fan about its first corner."""
    out: list[NDArray[np.int64]] = []
    counts = np.diff(offsets)
    for count in np.unique(counts[counts >= 3]):
        corners = indices[offsets[:-1][counts == count][:, None] + np.arange(count)]
        out += [corners[:, [0, k, k + 1]] for k in range(1, int(count) - 1)]
    return np.concatenate(out) if out else np.zeros((0, 3), dtype=np.int64)


def _strips(offsets: NDArray[np.int64], indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return triangles of strips; every second one is turned round."""
    out: list[list[int]] = []
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        for k in range(start, end - 2):
            a, b, c = indices[k : k + 3].tolist()
            out.append([a, b, c] if (k - start) % 2 == 0 else [b, a, c])
    return np.array(out, dtype=np.int64).reshape(-1, 3)

"""POINT and POLYDATA: fiducials and surfaces. Protocol 3, pages "Point" and "PolyData"; millimetres."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .fields import at_least, fixed, rows, text_of
from .refused import MessageRefused
from .tracking import Vec3, finite

POINT = struct.Struct(">64s32s4B4f20s")
HEAD = struct.Struct(">10I")
ATTRIBUTE = struct.Struct(">BBI")  # the page counts bits from the left: its "bits 0-7", the kind, are the first byte
SCALARS, VECTORS, NORMALS, TENSORS, RGBA, TCOORDS, CELL = 0, 1, 2, 3, 4, 5, 0x10
COMPONENTS = {VECTORS: 3, NORMALS: 3, TENSORS: 9, RGBA: 4}
NAME_LIMIT = 255
LISTS = ("VERTICES", "LINES", "POLYGONS", "STRIPS")


@dataclass(frozen=True)
class Fiducial:
    """One point with its name, group, colour (RGBA, 0..255), diameter [mm] and the image that owns it."""

    name: str
    position_mm: Vec3
    group: str = ""
    colour: tuple[int, int, int, int] = (255, 255, 0, 255)
    diameter_mm: float = 0.0
    owner: str = ""


@dataclass(frozen=True)
class Points:
    """POINT: a list of fiducials."""

    type_name: ClassVar[str] = "POINT"
    points: tuple[Fiducial, ...]

    def pack(self) -> bytes:
        """Return the content's bytes."""
        return b"".join(
            POINT.pack(
                fixed(p.name, 64, "NAME"), fixed(p.group, 32, "GROUP"), *p.colour, *p.position_mm, p.diameter_mm,
                fixed(p.owner, 20, "OWNER"),
            )
            for p in self.points
        )  # fmt: skip

    @classmethod
    def unpack(cls, content: bytes) -> Points:
        """Return the content of its bytes; raise MessageRefused."""
        points: list[Fiducial] = []
        for row in rows(content, POINT.size, cls.type_name):
            name, group, r, g, b, a, x, y, z, diameter, owner = POINT.unpack(row)
            finite((x, y, z, diameter), cls.type_name)
            points.append(Fiducial(text_of(name), (x, y, z), text_of(group), (r, g, b, a), diameter, text_of(owner)))
        return cls(tuple(points))


def no_cells() -> NDArray[np.uint32]:
    """Return an empty list of cells, shape (0,)."""
    return np.zeros(0, dtype=np.uint32)


@dataclass(frozen=True, eq=False)
class Attribute:
    """One array of a surface, values of shape (n, components); `kind` as the page numbers it, cells from `CELL` on."""

    name: str
    values: NDArray[np.float32]
    kind: int = SCALARS


@dataclass(frozen=True, eq=False)
class PolyData:
    """POLYDATA: points [mm], shape (n, 3), and cells, each list flat as VTK has it: a count, then so many indices."""

    type_name: ClassVar[str] = "POLYDATA"
    points_mm: NDArray[np.float32]
    vertices: NDArray[np.uint32] = field(default_factory=no_cells)
    lines: NDArray[np.uint32] = field(default_factory=no_cells)
    polygons: NDArray[np.uint32] = field(default_factory=no_cells)
    strips: NDArray[np.uint32] = field(default_factory=no_cells)
    attributes: tuple[Attribute, ...] = ()

    @staticmethod
    def of_triangles(points_mm: NDArray[Any], triangles: NDArray[Any]) -> PolyData:
        """Build from points [mm], shape (n, 3), and triangles, shape (m, 3)."""
        cells = np.full((len(triangles), 4), 3, dtype=np.uint32)
        cells[:, 1:] = triangles
        return PolyData(np.asarray(points_mm, dtype=np.float32), polygons=cells.ravel())

    def triangles(self) -> NDArray[np.uint32]:
        """Return the polygons as triangles, shape (m, 3), dimensionless indices; fans of larger polygons."""
        if not len(self.polygons):
            return np.zeros((0, 3), dtype=np.uint32)
        if len(self.polygons) % 4 == 0 and (self.polygons[::4] == 3).all():
            return self.polygons.reshape(-1, 4)[:, 1:]
        fans = [
            (cell[0], cell[i], cell[i + 1])
            for cell in split_cells(self.polygons, "POLYGONS")
            for i in range(1, len(cell) - 1)
        ]
        return np.array(fans, dtype=np.uint32).reshape(-1, 3)

    def pack(self) -> bytes:
        """Return the content's bytes; raise MessageRefused where a cell list is broken."""
        lists = (self.vertices, self.lines, self.polygons, self.strips)
        counts: list[int] = []
        for cells, name in zip(lists, LISTS, strict=True):
            counts += [count_cells(cells, name), 4 * len(cells)]
        head = HEAD.pack(len(self.points_mm), *counts, len(self.attributes))
        body = b"".join(np.asarray(cells).astype(">u4").tobytes() for cells in lists)
        return head + np.asarray(self.points_mm).astype(">f4").tobytes() + body + _pack_attributes(self.attributes)

    @classmethod
    def unpack(cls, content: bytes) -> PolyData:
        """Return the content of its bytes; raise MessageRefused where counts, sizes or indices do not fit."""
        at_least(content, HEAD.size, cls.type_name)
        point_count, *counts, attribute_count = HEAD.unpack_from(content)
        at = HEAD.size + 12 * point_count
        at_least(content, at + sum(counts[1::2]), cls.type_name)
        points = np.frombuffer(content, ">f4", 3 * point_count, HEAD.size).astype(np.float32).reshape(-1, 3)
        if not np.isfinite(points).all():
            raise MessageRefused("finite points", "NaN or infinity", cls.type_name)
        lists: list[NDArray[np.uint32]] = []
        for count, size, name in zip(counts[::2], counts[1::2], LISTS, strict=True):
            if size % 4:
                raise MessageRefused("whole 32-bit indices", f"{size} bytes", name)
            cells = np.frombuffer(content, ">u4", size // 4, at).astype(np.uint32)
            _check_cells(cells, count, point_count, name)
            lists.append(cells)
            at += size
        vertices, lines, polygons, strips = lists
        return cls(points, vertices, lines, polygons, strips, _unpack_attributes(content[at:], attribute_count))


def count_cells(cells: NDArray[np.uint32], name: str) -> int:
    """Return how many cells a flat list holds; raise MessageRefused where its counts do not add up."""
    if not len(cells):
        return 0
    stride = int(cells[0]) + 1
    if len(cells) % stride == 0 and (cells[::stride] == stride - 1).all():
        return len(cells) // stride
    return len(split_cells(cells, name))


def split_cells(cells: NDArray[np.uint32], name: str) -> list[NDArray[np.uint32]]:
    """Return the cells of a flat list; raise MessageRefused where its counts do not add up."""
    found: list[NDArray[np.uint32]] = []
    at = 0
    while at < len(cells):
        size = int(cells[at])
        if at + 1 + size > len(cells):
            raise MessageRefused("cells that end with their list", f"{size} indices at {at} of {len(cells)}", name)
        found.append(cells[at + 1 : at + 1 + size])
        at += 1 + size
    return found


def _check_cells(cells: NDArray[np.uint32], count: int, point_count: int, name: str) -> None:
    found = count_cells(cells, name)
    if found != count:
        raise MessageRefused(f"{count} cells", f"{found}", name)
    if not found:
        return
    stride = int(cells[0]) + 1
    if len(cells) == found * stride and (cells[::stride] == stride - 1).all():
        indices = cells.reshape(-1, stride)[:, 1:]
    else:
        indices = np.concatenate(split_cells(cells, name))
    if indices.size and int(indices.max()) >= point_count:
        raise MessageRefused(f"indices below {point_count}", f"{indices.max()}", name)


def _pack_attributes(attributes: tuple[Attribute, ...]) -> bytes:
    heads, names, data = b"", b"", b""
    for a in attributes:
        values: NDArray[Any] = np.asarray(a.values, dtype=">f4")
        values = values[:, None] if values.ndim == 1 else values
        wanted = COMPONENTS.get(a.kind & 0xF, int(values.shape[1]))
        if values.shape[1] != wanted or not 0 < wanted < 256:
            raise MessageRefused(f"{wanted} components", f"{values.shape[1]}", f"attribute {a.name!r}")
        heads += ATTRIBUTE.pack(a.kind, values.shape[1], len(values))
        names += fixed(a.name, min(len(a.name.encode()), NAME_LIMIT), "NAME_ATTRIBUTE") + b"\0"
        data += values.tobytes()
    return heads + names + b"\0" * (len(names) % 2) + data


def _unpack_attributes(content: bytes, count: int) -> tuple[Attribute, ...]:
    at_least(content, 6 * count, "ATTRIBUTE_HEADER")
    heads = [ATTRIBUTE.unpack_from(content, 6 * i) for i in range(count)]
    at, names = 6 * count, list[str]()
    for _ in range(count):
        end = content.find(b"\0", at, at + NAME_LIMIT + 1)
        if end < 0:
            raise MessageRefused("a name that ends with a zero", "none", "ATTRIBUTE_NAMES")
        names.append(content[at:end].decode("utf-8", errors="replace"))
        at = end + 1
    at += (at - 6 * count) % 2
    found: list[Attribute] = []
    for (kind, stated, size), name in zip(heads, names, strict=True):
        components = COMPONENTS.get(kind & 0xF) or stated or 1
        at_least(content, at + 4 * size * components, f"attribute {name!r}")
        values = np.frombuffer(content, ">f4", size * components, at).astype(np.float32).reshape(size, components)
        found.append(Attribute(name, values, kind))
        at += 4 * size * components
    return tuple(found)

"""The structures' surfaces on the GPU, deformed where a solver says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import moderngl
import numpy as np
from numpy.typing import NDArray

from twinguide.errors import RenderError
from twinguide.frames import Array
from twinguide.messages import DisplayState
from twinguide.render.context import defined, load_compute, load_program, make_array
from twinguide.render.looks import PATTERNS, drawing_rank, in_state, look_of

if TYPE_CHECKING:
    from twinguide.case import Case

# std140, row_major: as `object.glsl` declares it; each at the offset that every driver allows for a uniform block
OBJECT = np.dtype(
    [
        ("stage_from_image", "f4", (4, 4)),
        ("colour", "f4", 4),
        ("look", "f4", 4),
        ("state", "f4", 4),
        ("unused", "f4", 36),
    ]
)
OBJECT_BINDING = 1
COMPUTE_GROUP = 64  # as in normals.comp
Programs = dict[tuple[bool, bool], moderngl.Program]  # by (solid, marked with a pattern)


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceInput:
    """A structure's surface: vertices [m], shape (n, 3), in image; triangles, shape (m, 3); colour sRGB 0..1; role."""

    vertices: Array
    triangles: NDArray[np.int32]
    colour: tuple[float, float, float]
    role: str


@dataclass(frozen=True, slots=True, eq=False)
class DrawnSurface:
    """One structure in one frame: `stage_from_image`, shape (4, 4), with its display-time motion; its vertices."""

    state: DisplayState
    stage_from_image: Array
    vertices: NDArray[np.float32] | None = None  # (n, 3) [m], in image
    version: int = 0


def surfaces_of(case: Case) -> dict[str, SurfaceInput]:
    """Return every surface of a case as the renderer takes it."""
    out: dict[str, SurfaceInput] = {}
    for name, structure in case.structures.items():
        surface = case.surface(name)
        out[name] = SurfaceInput(surface.vertices, surface.triangles, structure.colour, structure.role)
    return out


def vertex_triangles(triangles: NDArray[np.int32], vertex_count: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return each vertex's triangles as compressed rows: starts, shape (n + 1,), and members, shape (3 m,)."""
    flat = triangles.ravel()
    members = (np.argsort(flat, kind="stable") // 3).astype(np.uint32)
    rows = np.zeros(vertex_count + 1, dtype=np.uint32)
    rows[1:] = np.cumsum(np.bincount(flat, minlength=vertex_count))
    return rows, members


class SurfaceOnGpu:
    """One surface's buffers; `update` replaces its vertices, and the normals follow on the GPU."""

    def __init__(self, ctx: moderngl.Context, programs: Programs, name: str, surface: SurfaceInput) -> None:
        triangles = np.ascontiguousarray(surface.triangles, dtype=np.int32)
        count = len(surface.vertices)
        if surface.vertices.shape != (count, 3) or triangles.ndim != 2 or triangles.shape[1] != 3 or not triangles.size:
            got = f"vertices {surface.vertices.shape}, triangles {triangles.shape}"
            raise RenderError("vertices (n, 3) and triangles (m, 3)", got, name)
        if triangles.min() < 0 or triangles.max() >= count:
            raise RenderError(f"triangles of {count} vertices", f"{triangles.min()}..{triangles.max()}", name)
        self.name, self.count = name, count
        self.rest = np.ascontiguousarray(surface.vertices, dtype=np.float32)
        self.version: int | None = None  # of the vertices on the GPU; None: the case's own
        rows, members = vertex_triangles(triangles, count)
        self._groups = -(-count // COMPUTE_GROUP)
        self.positions = ctx.buffer(self.rest)
        self._normals = ctx.buffer(reserve=self.rest.nbytes)
        self._triangles, self._rows, self._members = (ctx.buffer(a) for a in (triangles, rows, members))
        content = [(self.positions, "3f", "in_position"), (self._normals, "3f", "in_normal")]
        self.arrays = {key: make_array(ctx, program, content, self._triangles) for key, program in programs.items()}

    def update(self, vertices: NDArray[np.float32] | None, version: int) -> bool:
        """Take vertices [m], shape (n, 3), in image, or None for the case's own; return whether they are new."""
        wanted = None if vertices is None else version
        if wanted == self.version:
            return False
        if vertices is not None and vertices.shape != (self.count, 3):
            raise RenderError(f"vertices of shape ({self.count}, 3)", str(vertices.shape), self.name)
        self.positions.write(np.ascontiguousarray(self.rest if vertices is None else vertices, dtype=np.float32))
        self.version = wanted
        return True

    def compute_normals(self, compute: moderngl.ComputeShader) -> None:
        """Make the normals of the vertices on the GPU."""
        buffers = (self.positions, self._triangles, self._rows, self._members, self._normals)
        for binding, buffer in enumerate(buffers, start=2):
            buffer.bind_to_storage_buffer(binding)
        compute["vertex_count"] = self.count
        compute.run(self._groups)

    def release(self) -> None:
        """Free the GL objects."""
        buffers = (self.positions, self._normals, self._triangles, self._rows, self._members)
        for owned in (*self.arrays.values(), *buffers):
            owned.release()


class Surfaces:
    """All surfaces of a case on the GPU, and the table that tells how each looks in this frame."""

    def __init__(self, ctx: moderngl.Context, surfaces: Mapping[str, SurfaceInput], show_skin: bool) -> None:
        self._ctx = ctx
        self._programs: Programs = {
            (solid, marked): load_program(ctx, "mesh", defined(SOLID=solid, MARKED=marked))
            for solid in (False, True)
            for marked in (False, True)
        }
        self._compute = load_compute(ctx, "normals")
        looks = {name: look_of(surface.role, show_skin=show_skin) for name, surface in surfaces.items()}
        drawn = [name for name in surfaces if looks[name].kind != "absent"]
        drawn.sort(key=lambda name: drawing_rank(surfaces[name].role))
        self._looks = [looks[name] for name in drawn]
        self._all = {name: SurfaceOnGpu(ctx, self._programs, name, surfaces[name]) for name in drawn}
        for surface in self._all.values():
            surface.compute_normals(self._compute)
        self._table = np.zeros(max(1, len(drawn)), dtype=OBJECT)
        self._table["colour"][: len(drawn), :3] = [surfaces[name].colour for name in drawn] or np.zeros((0, 3))
        self._buffer = ctx.buffer(reserve=self._table.nbytes, dynamic=True)
        self._solid: list[tuple[int, moderngl.VertexArray]] = []  # row of the table, what to draw
        self._xray: list[tuple[int, moderngl.VertexArray]] = []

    def show(self, states: Mapping[str, DrawnSurface]) -> None:
        """Take this frame's structures by name; one that is absent or hidden is not drawn."""
        self._solid.clear()
        self._xray.clear()
        changed = False
        for row, (name, surface) in enumerate(self._all.items()):
            shown = states.get(name)
            if shown is None or shown.state == "hidden":
                continue
            if surface.update(shown.vertices, shown.version):
                surface.compute_normals(self._compute)
                changed = True
            look, pattern = in_state(self._looks[row], shown.state), PATTERNS[shown.state]
            entry, solid = self._table[row], look.kind == "solid"
            entry["stage_from_image"], entry["state"][:2] = shown.stage_from_image, pattern
            entry["colour"][3], entry["look"][:3] = look.brightness, (look.rim, look.power, look.fill)
            (self._solid if solid else self._xray).append((row, surface.arrays[solid, pattern[0] > 0]))
        if changed:
            self._ctx.memory_barrier()
        self._buffer.write(self._table)

    def draw_solid(self) -> None:
        """Draw the solid surfaces that `show` took; blending, depth test and depth writing are on."""
        self._draw(self._solid)

    def draw_xray(self) -> None:
        """Draw the transparent ones over them, without writing depth."""
        self._draw(self._xray)

    def _draw(self, surfaces: list[tuple[int, moderngl.VertexArray]]) -> None:
        size = OBJECT.itemsize
        for row, array in surfaces:
            self._buffer.bind_to_uniform_block(OBJECT_BINDING, offset=row * size, size=size)
            array.render()

    def release(self) -> None:
        """Free the GL objects."""
        for owned in (*self._all.values(), *self._programs.values(), self._buffer, self._compute):
            owned.release()

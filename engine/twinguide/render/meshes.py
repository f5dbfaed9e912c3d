"""The structures' surfaces on the GPU, how each role looks, and how a state changes the look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import moderngl
import numpy as np
from numpy.typing import NDArray

from twinguide.errors import RenderError
from twinguide.frames import Array
from twinguide.messages import DisplayState
from twinguide.render.context import load_compute, load_program, make_array, uniform_of

if TYPE_CHECKING:
    from twinguide.case import Case

# std430, row_major: as `object.glsl` declares it
OBJECT = np.dtype(
    [("stage_from_image", "f4", (4, 4)), ("colour", "f4", 4), ("look", "f4", 4), ("state", "f4", 4)], align=False
)
OBJECTS_BINDING = 1
COMPUTE_GROUP = 64  # as in normals.comp


@dataclass(frozen=True, slots=True)
class Look:
    """How a role is drawn. For `xray`, opacity goes from `fill` where it faces the eye to `rim` at the outline."""

    kind: Literal["solid", "xray", "absent"]
    rim: float = 1.0
    power: float = 2.0  # the higher, the thinner the rim
    fill: float = 0.0
    brightness: float = 1.0


# Sparse: only what is aimed at or must not be hit is solid; the real field stays visible through all else.
LOOKS: Mapping[str, Look] = {
    "tumour": Look("solid", brightness=1.1),
    "vessel": Look("solid"),
    "bile": Look("solid"),
    "cyst": Look("xray", rim=0.85, power=1.6, fill=0.10),
    "organ": Look("xray", rim=1.0, power=1.7, fill=0.03),
    "pleura": Look("xray", rim=0.40, power=4.0),
    "bone": Look("xray", rim=0.55, power=3.2),
    "skin": Look("absent"),
    "other": Look("xray", rim=0.5, power=2.5),
}
SKIN_CONTOUR = Look("xray", rim=0.35, power=3.5)
# pattern and period [m]: shapes, so that a state is told without colour
PATTERNS: Mapping[DisplayState, tuple[float, float]] = {
    "valid": (0.0, 1.0),
    "predicted": (0.0, 1.0),
    "degraded": (1.0, 0.010),
    "unconfirmed": (2.0, 0.012),
    "hidden": (0.0, 1.0),
}


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceInput:
    """A structure's surface: vertices [m], shape (n, 3), in image; triangles, shape (m, 3); colour sRGB 0..1; role."""

    vertices: Array
    triangles: NDArray[np.int32]
    colour: tuple[float, float, float]
    role: str


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
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

    def __init__(self, ctx: moderngl.Context, program: moderngl.Program, name: str, surface: SurfaceInput) -> None:
        triangles = np.ascontiguousarray(surface.triangles, dtype=np.int32)
        count = len(surface.vertices)
        if surface.vertices.shape != (count, 3) or triangles.ndim != 2 or triangles.shape[1] != 3 or not triangles.size:
            got = f"vertices {surface.vertices.shape}, triangles {triangles.shape}"
            raise RenderError("vertices (n, 3) and triangles (m, 3)", got, name)
        if triangles.min() < 0 or triangles.max() >= count:
            raise RenderError(f"triangles of {count} vertices", f"{triangles.min()}..{triangles.max()}", name)
        self.name, self.colour, self.role, self.count = name, surface.colour, surface.role, count
        self.rest = np.ascontiguousarray(surface.vertices, dtype=np.float32)
        low, high = self.rest.min(axis=0), self.rest.max(axis=0)
        self.centre, self.extent = (low + high).astype(np.float64) / 2, (high - low).astype(np.float64) / 2  # [m] image
        self.version: int | None = None  # of the vertices on the GPU; None: the case's own
        rows, members = vertex_triangles(triangles, count)
        self._groups = -(-count // COMPUTE_GROUP)
        self.positions = ctx.buffer(self.rest)
        self._normals = ctx.buffer(reserve=self.rest.nbytes)
        self._triangles, self._rows, self._members = (ctx.buffer(a) for a in (triangles, rows, members))
        content = [(self.positions, "3f", "in_position"), (self._normals, "3f", "in_normal")]
        self.array = make_array(ctx, program, content, self._triangles)

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
        for owned in (self.array, self.positions, self._normals, self._triangles, self._rows, self._members):
            owned.release()


class Surfaces:
    """All surfaces of a case on the GPU, and the table that tells how each looks in this frame."""

    def __init__(self, ctx: moderngl.Context, surfaces: Mapping[str, SurfaceInput], show_skin: bool) -> None:
        self._ctx = ctx
        self._program = load_program(ctx, "mesh")
        self._compute = load_compute(ctx, "normals")
        self._index = uniform_of(self._program, "object_index")
        looks = {**LOOKS, "skin": SKIN_CONTOUR if show_skin else LOOKS["skin"]}
        look_of = {name: looks.get(surface.role, looks["other"]) for name, surface in surfaces.items()}
        # Solid ones first, then x-ray from the inside out, so that what is transparent lies over what is not.
        order = ["vessel", "bile", "tumour", "cyst", "organ", "other", "pleura", "bone", "skin"]
        rank = {role: place for place, role in enumerate(order)}
        drawn = sorted(
            (n for n in surfaces if look_of[n].kind != "absent"), key=lambda n: rank.get(surfaces[n].role, 5)
        )
        self.all = {name: SurfaceOnGpu(ctx, self._program, name, surfaces[name]) for name in drawn}
        self._looks = [look_of[name] for name in drawn]
        self._table = np.zeros(max(1, len(drawn)), dtype=OBJECT)
        self._buffer = ctx.buffer(reserve=self._table.nbytes, dynamic=True)
        for surface in self.all.values():
            surface.compute_normals(self._compute)
        self._visible: list[tuple[int, moderngl.VertexArray, bool]] = []  # row, surface, solid
        for row, (surface, look) in enumerate(zip(self.all.values(), self._looks, strict=True)):
            self._table[row]["colour"] = *surface.colour, look.brightness
            self._table[row]["look"] = float(look.kind == "xray"), look.rim, look.power, look.fill

    def show(self, states: Mapping[str, Shown]) -> None:
        """Take this frame's structures by name; one that is absent or hidden is not drawn."""
        self._visible.clear()
        changed = False
        for row, (name, surface) in enumerate(self.all.items()):
            shown = states.get(name)
            if shown is None or shown.state == "hidden":
                continue
            if surface.update(shown.vertices, shown.version):
                surface.compute_normals(self._compute)
                changed = True
            entry = self._table[row]
            entry["stage_from_image"] = shown.stage_from_image
            entry["state"][:2] = PATTERNS[shown.state]
            solid = self._looks[row].kind == "solid" and shown.state != "unconfirmed"  # then it is an outline
            self._visible.append((row, surface.array, solid))
        if changed:
            self._ctx.memory_barrier()
        self._buffer.write(self._table)

    def draw_solid(self) -> None:
        """Draw the solid surfaces that `show` took; blending, depth test and depth writing are on."""
        self._draw(solid=True)

    def draw_xray(self) -> None:
        """Draw the transparent ones over them, without writing depth."""
        self._draw(solid=False)

    def _draw(self, solid: bool) -> None:
        self._buffer.bind_to_storage_buffer(OBJECTS_BINDING)
        for row, array, is_solid in self._visible:
            if is_solid == solid:
                self._index.value = row
                array.render()

    def release(self) -> None:
        """Free the GL objects."""
        for surface in self.all.values():
            surface.release()
        for owned in (self._buffer, self._program, self._compute):
            owned.release()

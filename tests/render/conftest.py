"""A small patient made of spheres and tubes, a scene of it, and eyes that look at it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from twinguide.errors import RenderError
from twinguide.frames import Pose, Transform
from twinguide.headset import View
from twinguide.messages import Registration, WorkflowState
from twinguide.render.context import create_context
from twinguide.render.meshes import SurfaceInput
from twinguide.render.pictures import read_pixels
from twinguide.render.pipeline import Renderer
from twinguide.scene import Point, Scene, Status, StructureView, ToolView, TwinView

TARGET = np.array([0.02, 0.0, 0.01])  # [m], in reference and, here, in image
ENTRY = np.array([-0.03, -0.11, -0.03])


def sphere(centre, radius, rings=24, sectors=36):
    """Return vertices and triangles of a closed sphere, counter-clockwise from outside."""
    theta = np.pi * np.arange(1, rings) / rings
    phi = 2 * np.pi * np.arange(sectors) / sectors
    t, p = np.meshgrid(theta, phi, indexing="ij")
    around = np.stack([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)], axis=-1).reshape(-1, 3)
    vertices = np.concatenate([around, [[0, 0, 1.0], [0, 0, -1.0]]]) * radius + centre
    triangles = []
    for ring in range(rings - 2):
        for sector in range(sectors):
            a, b = ring * sectors + sector, ring * sectors + (sector + 1) % sectors
            triangles += [(a, a + sectors, b + sectors), (a, b + sectors, b)]
    top, bottom, last = len(vertices) - 2, len(vertices) - 1, (rings - 2) * sectors
    for sector in range(sectors):
        after = (sector + 1) % sectors
        triangles += [(top, sector, after), (bottom, last + after, last + sector)]
    return vertices, np.array(triangles, dtype=np.int32)


def box(centre, half):
    """Return vertices and triangles of a cube with edges parallel to the axes; faces do not share vertices."""
    vertices, triangles = [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            u, v = np.eye(3)[(axis + 1) % 3] * sign, np.eye(3)[(axis + 2) % 3]
            n, first = np.eye(3)[axis] * sign, len(vertices)
            vertices += [n - u - v, n + u - v, n + u + v, n - u + v]
            triangles += [(first, first + 1, first + 2), (first, first + 2, first + 3)]
    return np.array(vertices) * half + centre, np.array(triangles, dtype=np.int32)


@pytest.fixture(scope="session")
def ctx():
    try:
        context = create_context()
    except RenderError as error:
        pytest.skip(str(error))
    yield context
    context.release()


@pytest.fixture(scope="session")
def shapes():
    """Return the functions that make spheres and boxes."""
    return {"sphere": sphere, "box": box}


@pytest.fixture(scope="session")
def surfaces():
    return {
        "liver": SurfaceInput(*sphere((0.0, 0.0, 0.0), 0.08), (0.75, 0.38, 0.32), "organ"),
        "tumour": SurfaceInput(*sphere(TARGET, 0.012), (0.95, 0.80, 0.30), "tumour"),
        "portal": SurfaceInput(*sphere((-0.03, 0.01, 0.02), 0.015), (0.35, 0.50, 0.95), "vessel"),
        "skin": SurfaceInput(*sphere((0.0, 0.0, 0.0), 0.15), (0.85, 0.70, 0.60), "skin"),
    }


def eyes(size=(256, 256), half_fov=0.4, ipd=0.063, head=None):
    """Return both eyes, and the head that carries them: half a metre before the patient, stage axes upright."""
    head = head or Transform.of("stage", "headset", translation=np.array([0.0, 0.0, 0.5]))
    fov = (-half_fov, half_fov, half_fov, -half_fov)
    views = tuple(
        View(head @ Transform.of("headset", name, translation=np.array([x, 0.0, 0.0])), fov, *size)
        for name, x in (("eye_left", -ipd / 2), ("eye_right", ipd / 2))
    )
    return head, views


def make_scene(surfaces, **changes):
    """Return a guidance scene in which all is valid; `changes` go to the twin or to the scene."""
    # The patient lies on the back in the stage: image +y (posterior) is down, +z (superior) to the wearer's left.
    structures = {name: StructureView(name, Status("valid"), np.zeros(3)) for name in surfaces}
    tip = Point(np.array([0.0, -0.05, -0.01]), np.eye(3) * 0.0005**2)
    direction = (TARGET - tip.position) / np.linalg.norm(TARGET - tip.position)
    rotation = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    stage = Transform.of("stage", "reference", rotation)
    twin = TwinView(
        t_display_ns=0,
        structures=structures,
        tools={"needle": ToolView("needle", Status("valid"), tip, direction, "needle")},
        lost={},
        registration=Registration(state="confirmed", version=1),
        reference_from_image=Transform.of("reference", "image"),
        stage_from_reference=Pose(stage, 0, np.zeros((6, 6))),
        target=Point(TARGET, np.diag([0.001, 0.0015, 0.0008]) ** 2),
        displacement=None,
        entry=ENTRY,
        target_status=Status("valid"),
        workflow=WorkflowState(step="guide", waits_for="", version=1),
        gate_open=True,
    )
    of_twin = {key: value for key, value in changes.items() if hasattr(twin, key)}
    of_scene = {key: value for key, value in changes.items() if key not in of_twin}
    scene = Scene(replace(twin, **of_twin), (), (), (("title", "Guidance"), ("normal", "To the target 42.0 mm")), 1)
    return replace(scene, **of_scene)


@pytest.fixture(scope="session")
def scene_of(surfaces):
    return lambda **changes: make_scene(surfaces, **changes)


@pytest.fixture(scope="session")
def eyes_of():
    return eyes


@pytest.fixture
def renderer(ctx, surfaces):
    made = Renderer(ctx, surfaces)
    yield made
    made.release()


@dataclass
class Canvas:
    """A framebuffer with depth that gives its pixels as (height, width, 4), top row first."""

    colour: object
    depth: object
    framebuffer: object

    def rgba(self):
        width, height = self.framebuffer.size
        raw = self.framebuffer.read(components=4, alignment=1)
        return np.frombuffer(raw, dtype=np.uint8).reshape(height, width, 4)[::-1]

    def rgb(self):
        return read_pixels(self.framebuffer)

    def release(self):
        for owned in (self.framebuffer, self.colour, self.depth):
            owned.release()


@pytest.fixture(scope="session")
def resting(ctx):
    """A framebuffer to rest in between tests."""
    colour = ctx.renderbuffer((1, 1))
    framebuffer = ctx.framebuffer([colour])
    yield framebuffer
    framebuffer.release()
    colour.release()


@pytest.fixture
def canvas_of(ctx, resting):
    made = []

    def make(size=(256, 256)):
        colour, depth = ctx.texture(size, 4), ctx.depth_renderbuffer(size)
        made.append(Canvas(colour, depth, ctx.framebuffer([colour], depth)))
        return made[-1]

    yield make
    resting.use()  # GL refuses to come back to a framebuffer that was released while in use
    for canvas in made:
        canvas.release()


@pytest.fixture
def lit_share():
    """Return a function that gives which part of (height, width, 4) pixels is lit, 0..1; the opaque backdrop is not."""
    return lambda pixels: float((pixels[..., :3].max(axis=2) > 28).mean())


@pytest.fixture
def picture(renderer, canvas_of):
    """Return a function that draws a scene for one eye and returns its (height, width, 4) pixels."""

    def draw(scene, view, blend="alpha", head=None, by=None, views=()):
        canvas = canvas_of((view.width, view.height))
        (by or renderer).draw(scene, view, canvas.framebuffer, blend, head=head, views=views)
        return canvas.rgba()

    return draw

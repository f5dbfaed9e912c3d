"""Stills of a case by itself, with its landmarks: from the front, the right, above, and along the planned path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from twinguide.frames import Array, Pose, Transform, skew
from twinguide.headset import View
from twinguide.messages import Registration, WorkflowState
from twinguide.render.context import create_context
from twinguide.render.meshes import surfaces_of
from twinguide.render.pictures import Pixels, read_pixels, save_png
from twinguide.render.pipeline import Renderer
from twinguide.scene import Label, Mark, PanelRow, Point, Ring, Scene, Status, StructureView, TwinView
from twinguide.wording import text

if TYPE_CHECKING:
    import moderngl

    from twinguide.case import Case

WIDTH, HEIGHT = 1820, 1000  # [px]: wide, so that the panel finds room beside the patient, who is in the middle
CUT = 420  # [px] of the width that are not kept, on the side where there is no panel
HALF_FOV = 0.42  # [rad], up and down
LANDMARK_M = 0.007  # radius of the ring about a landmark's name
LANDMARK_COLOUR = (1.0, 0.85, 0.35)
FILLS = 0.96  # part of the picture's height, and of the width beside the panel, that the patient takes at most


def draw_stills(case: Case, folder: Path) -> list[Path]:
    """Draw a case and return the pictures' paths; raise RenderError where GL is missing."""
    ctx = create_context()
    try:
        renderer = Renderer(ctx, surfaces_of(case), show_skin=True, samples=4)
        colour, depth = ctx.renderbuffer((WIDTH, HEIGHT)), ctx.depth_renderbuffer((WIDTH, HEIGHT))
        framebuffer = ctx.framebuffer([colour], depth)
        try:
            return [
                save_png(_draw(renderer, framebuffer, case, name, head), folder / f"{number}_{name}.png")
                for number, (name, head) in enumerate(directions(case).items(), start=1)
            ]
        finally:
            for owned in (renderer, framebuffer, colour, depth):
                owned.release()
    finally:
        ctx.release()


def directions(case: Case) -> dict[str, Transform]:
    """Return the wearer's places, each stage_from_headset, by name; the stage is the case's image frame (LPS)."""
    surfaces = [case.surface(name).vertices for name in case.structures]
    landmarks = [landmark.position for landmark in case.landmarks.values()]
    shown = np.concatenate([*surfaces, [case.plan.entry, case.plan.target, *landmarks]])
    left, posterior, superior = np.eye(3)
    inwards = case.plan.target - case.plan.entry
    from_entry = -inwards / np.linalg.norm(inwards)
    wanted = {
        "anterior": (-posterior, superior),
        "right": (-left, superior),
        "superior": (superior, -posterior),
        "path": (from_entry, superior if abs(from_entry[2]) < 0.9 else -posterior),
    }
    return {name: _fitted(shown, place, up) for name, (place, up) in wanted.items()}


def _fitted(points: Array, place: Array, up: Array) -> Transform:
    """Return the nearest place from which all points [m], shape (n, 3), are in the picture, beside the panel."""
    axes = look(np.zeros(3), place, up, 0.0).rotation
    seen = points @ axes
    middle = (seen.min(axis=0) + seen.max(axis=0)) / 2
    off = np.abs(seen - middle)
    high = FILLS * np.tan(HALF_FOV)  # as a tangent
    needed = np.maximum(off[:, 0] / (high * (WIDTH - 2 * CUT) / HEIGHT), off[:, 1] / high)
    return look(axes @ middle, place, up, float((needed + seen[:, 2]).max() - middle[2]))


def look(at: Array, place: Array, up: Array, distance: float) -> Transform:
    """Return stage_from_headset of a wearer who looks at a point [m] from a direction (unit), `distance` [m] away."""
    across = skew(up) @ place
    right = across / np.linalg.norm(across)
    rotation = np.stack([right, skew(place) @ right, place], axis=1)
    return Transform.of("stage", "headset", rotation, at + distance * place)


def case_scene(case: Case, title: str, marks: tuple[Mark, ...] = ()) -> Scene:
    """Return a scene of a case by itself: nothing moves, nothing is uncertain, no tool is there."""
    still = Status("valid")
    twin = TwinView(
        t_display_ns=0,
        structures={name: StructureView(name, still, np.zeros(3)) for name in case.structures},
        tools={},
        lost={},
        registration=Registration(version=0, state="confirmed"),
        reference_from_image=Transform.of("reference", "image"),
        stage_from_reference=Pose(Transform.of("stage", "reference"), 0, np.zeros((6, 6))),
        target=Point(case.plan.target, np.zeros((3, 3))),
        displacement=None,
        entry=case.plan.entry,
        target_status=still,
        workflow=WorkflowState(step="setup", waits_for="", version=0),
        gate_open=True,
    )
    depth_mm = float(np.linalg.norm(case.plan.target - case.plan.entry)) * 1e3
    rows: tuple[PanelRow, ...] = (
        ("title", case.title),
        ("normal", title),
        ("normal", text("path_length", value_mm=depth_mm)),
    )
    return Scene(twin, (), marks, rows, frame=0)


def landmark_marks(case: Case, head: Transform) -> tuple[Mark, ...]:
    """Return a ring about the name of each landmark, both facing the wearer."""
    return tuple(
        mark
        for landmark in case.landmarks.values()
        for mark in (
            Ring(landmark.position, head.rotation[:, 2], LANDMARK_M, LANDMARK_COLOUR),
            Label(landmark.position, landmark.name, LANDMARK_COLOUR),
        )
    )


def _draw(renderer: Renderer, framebuffer: moderngl.Framebuffer, case: Case, name: str, head: Transform) -> Pixels:
    eye = head @ Transform.of("headset", "eye")
    aside = float(np.arctan(np.tan(HALF_FOV) * WIDTH / HEIGHT))
    view = View(eye, (-aside, aside, HALF_FOV, -HALF_FOV), WIDTH, HEIGHT)
    scene = case_scene(case, text(f"from_{name}"), landmark_marks(case, head))
    renderer.draw(scene, view, framebuffer, "opaque", head=head)
    kept = slice(CUT, None) if renderer.panel_spot.side == "right" else slice(0, -CUT)
    return read_pixels(framebuffer)[:, kept]
